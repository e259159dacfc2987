"""Random number generators."""

from collections import Counter

from reg_sweep.training.rng import generator


def test_every_seed_purpose_and_epoch_draws_numbers_of_its_own():
    keys = [(s, p, e) for s in (0, 1, 2**40) for p in ("order", "augment", "dropout") for e in (0, 1)]
    draws = Counter(generator(*key).integers(2**62) for key in keys)
    assert max(draws.values()) == 1
    assert all(generator(*key).integers(2**62) in draws for key in keys)
