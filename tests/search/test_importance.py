"""The importance of parameters: shares of the variance that are known."""

import random

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from reg_sweep.runs.ranking import points
from reg_sweep.search.plan import outcomes
from reg_sweep.search.results import importances

NORMS = CategoricalDistribution(["bn", "gbn", "none"])
LOG = FloatDistribution(1e-7, 1e-1, log=True)


def trial(number, value, params, spaces):
    created = create_trial(params=params, distributions={name: spaces[name] for name in params}, value=value)
    created.number = number
    return created


def shares(trials, replicates=()):
    return importances(points(outcomes(trials), replicates), trials, 1)


def test_what_explains_nearly_all_of_the_variance_is_named_and_the_seed_is_not_asked():
    """Optuna's own default gives the norm and the seed 0.49 each here."""
    draw = random.Random(1)
    spaces = {"norm": NORMS, "l1": LOG, "seed": CategoricalDistribution([1, 2, 3])}
    worth = {"bn": 0.0, "gbn": 0.1, "none": 1.0}
    grid = [(norm, l1, seed) for norm in worth for l1 in (1e-6, 1e-4, 1e-2) for seed in (1, 2, 3)]
    trials = [
        trial(i, worth[norm] + 0.05 * draw.random() + 0.05 * seed, {"norm": norm, "l1": l1, "seed": seed}, spaces)
        for i, (norm, l1, seed) in enumerate(grid)
    ]
    found = shares(trials, ["seed"])
    assert found.keys() == {"norm", "l1"}
    assert found["norm"] > 0.9
    assert sum(found.values()) == pytest.approx(1)


def test_a_log_scale_is_measured_in_its_logarithm():
    """Over 1e-7 to 1e-1 a step at 1e-5 lies in the first ten-thousandth of a plain scale."""
    draw = random.Random(2)
    spaces = {"l1": LOG, "x": FloatDistribution(0, 1)}
    trials = []
    for i in range(40):
        l1, x = 10 ** draw.uniform(-7, -1), draw.random()
        trials.append(trial(i, float(l1 > 1e-5) + 0.2 * x, {"l1": l1, "x": x}, spaces))
    assert shares(trials)["l1"] > 0.9


def test_where_nothing_can_be_told_there_are_no_shares():
    spaces = {"norm": NORMS, "l1": LOG}
    same = [trial(i, 1.0, {"norm": norm, "l1": 1e-4 * (i + 1)}, spaces) for i, norm in enumerate(NORMS.choices)]
    assert shares(same) == {}
    assert shares([]) == {}
    one = [trial(i, float(i), {"norm": "bn", "l1": 1e-4 * (i + 1)}, spaces) for i in range(3)]
    assert shares(one) == {}


def test_huge_numbers_have_shares_too():
    spaces = {"x": FloatDistribution(0, 1e300), "y": FloatDistribution(1e9, 1e9 + 1)}
    draw = random.Random(3)
    trials = []
    for i in range(30):
        x, y = draw.random(), draw.random()
        trials.append(trial(i, 1e300 * (x + 5 * y), {"x": 1e300 * x, "y": 1e9 + y}, spaces))
    assert shares(trials)["y"] > 0.8
