import math

import pytest
from trees import arm_of, comparisons, edit_record, write_arms, write_run
from until_trees import ALL_LOOKS, scores, write_until

from reg_sweep.comparison.insights import difference_curves, effects
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_LOSS, WEIGHT_METRICS
from reg_sweep.stats.verdict import Verdict

BN, L1, L2 = ("bn", 0.0, 0.0), ("bn", 0.001, 0.0), ("bn", 0.0, 0.1)
MARKED = {"better": "better", "worse": "worse", "shown equivalent": "equivalent", "no difference shown": "open"}


def write(root, scores):
    """Arms of (accuracy, loss) by seed from 1."""
    for i, ((norm, l1, l2), values) in enumerate(scores.items()):
        for seed, (accuracy, loss) in enumerate(values, 1):
            write_run(root / f"{i}-{seed}", norm=norm, l1=l1, l2=l2, seed=seed, accuracy=accuracy, loss=loss)


def test_the_judged_outcome_is_the_verdicts_own_numbers(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.82, 0.81, 0.80], L1: [0.90, 0.93, 0.91, 0.91], L2: [0.80, 0.83, 0.80, 0.81]})
    (comparison,) = comparisons(tmp_path, margin=0.05)
    judged = effects(comparison)[0]
    assert (judged.metric, judged.margin, judged.is_judged) == (TEST_ACCURACY, 0.05, True)
    assert {e.arm.label for e in judged.of_arms} == {"bn · L1 0.001", "bn · L2 0.1"}
    for effect in judged.of_arms:
        d = effect.arm.contrast.difference
        assert (effect.estimate, effect.low, effect.high) == (d.mean, d.ci_low, d.ci_high)
        assert effect.mark == MARKED[effect.arm.verdict]
        assert sum(value for _, value in effect.seeds) / 4 == pytest.approx(d.mean)


def test_an_arm_whose_accuracy_rises_while_its_loss_worsens_is_seen(tmp_path):
    base = [(0.80, 0.50), (0.82, 0.51), (0.81, 0.49), (0.80, 0.50)]
    write(tmp_path, {BN: base, L1: [(0.90, 0.80), (0.93, 0.82), (0.91, 0.80), (0.91, 0.81)]})
    (comparison,) = comparisons(tmp_path)
    accuracy, loss = effects(comparison)
    assert accuracy.of_arms[0].mark == "better"
    assert (loss.metric, loss.is_judged, loss.of_arms[0].mark) == (TEST_LOSS, False, "untested")
    assert loss.of_arms[0].low > 0


def test_the_outcome_beside_agrees_with_a_comparison_judged_by_it(tmp_path):
    losses = {BN: [0.50, 0.52, 0.49], L1: [0.48, 0.52, 0.50], L2: [0.71, 0.73, 0.72]}
    write(tmp_path, {arm: [(0.8, loss) for loss in of_arm] for arm, of_arm in losses.items()})
    (by_accuracy,), (by_loss,) = comparisons(tmp_path), comparisons(tmp_path, metric=TEST_LOSS)
    beside = {e.arm.digest: e for e in effects(by_accuracy)[1].of_arms}
    for own in effects(by_loss)[0].of_arms:
        other = beside[own.arm.digest]
        assert (other.low, other.high) == (pytest.approx(own.low), pytest.approx(own.high))
        assert other.mark == "untested"


def test_without_pairs_the_outcome_beside_has_none_either(tmp_path):
    losses = {BN: [0.50, 0.52, 0.49, 0.51], L1: [0.48, 0.52, 0.50], L2: [0.71, 0.73, 0.72]}
    for i, ((norm, l1, l2), of_arm) in enumerate(losses.items()):
        for seed, loss in enumerate(of_arm, 1 + i):  # no arm has all of the baseline's seeds
            write_run(tmp_path / f"{i}-{seed}", norm=norm, l1=l1, l2=l2, seed=seed, accuracy=0.8, loss=loss)
    (by_accuracy,) = comparisons(tmp_path, pairing="none", baseline="bn")
    (by_loss,) = comparisons(tmp_path, pairing="none", baseline="bn", metric=TEST_LOSS)
    beside = {e.arm.digest: e for e in effects(by_accuracy)[1].of_arms}
    for own in effects(by_loss)[0].of_arms:
        other = beside[own.arm.digest]
        assert (other.estimate, other.low, other.high) == pytest.approx((own.estimate, own.low, own.high))
        assert (other.seeds, other.mark) == ((), "untested")


def test_after_interim_analyses_of_one_metric_the_other_has_no_interval(tmp_path):
    write_until(tmp_path, scores(), ALL_LOOKS)
    (comparison,) = comparisons(tmp_path)
    beside = effects(comparison)[1].of_arms[0]
    assert math.isnan(beside.low)
    assert math.isfinite(beside.estimate)


def test_of_one_seed_the_interval_is_over_images_and_an_arm_that_lacks_a_seed_is_not_ranked(tmp_path):
    write_arms(tmp_path / "one", {BN: [0.80], L1: [0.90]})
    judged, beside = effects(comparisons(tmp_path / "one")[0])
    assert judged.of_arms[0].by_image
    assert math.isnan(beside.of_arms[0].low)
    write_arms(tmp_path / "lacking", {BN: [0.80, 0.82, 0.81], L1: [0.90, 0.93]})
    marks = [found.of_arms[0].mark for found in effects(comparisons(tmp_path / "lacking")[0])]
    assert marks == ["unranked", "untested"]


def test_difference_curves_pair_seeds_epoch_by_epoch(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.82, 0.84], L1: [0.90, 0.93]}, n_epochs=4)
    (comparison,) = comparisons(tmp_path)
    arm = next(a for a in comparison.arms if a is not comparison.baseline)
    found = difference_curves(arm, comparison.baseline, TEST_ACCURACY)
    assert found.shape == (2, 4)
    assert found[:, -1] == pytest.approx([0.10, 0.11])


@pytest.mark.parametrize(("name", "gain"), [("n_zero", 0.2), ("n_near_zero", 0.3), ("n_dead_kernels", 0.2)])
def test_shares_of_weights_are_compared_like_a_metric_and_never_judged(tmp_path, name, gain):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"a{seed}", seed=seed)
        counts = {"n_zero": seed + 1, "n_near_zero": seed + 3, "n_dead_kernels": seed}
        edit_record(write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1), weights=counts)
    (comparison,) = comparisons(tmp_path, metric=WEIGHT_METRICS[name])
    arm = arm_of(comparison, "bn · L1 0.1")
    assert arm.verdict is Verdict.EXPLORATORY
    assert arm.contrast.difference.mean == pytest.approx(gain)
    assert "secondary" in comparison.judgement.exploratory
    assert comparison.margin is None
    assert [effect.metric.name for effect in effects(comparison)] == [name, "test_accuracy"]
