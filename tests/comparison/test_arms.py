import math

import pytest
from scipy.stats import binomtest, ttest_rel
from trees import arm_of, comparisons, write_arms, write_predictions, write_run

from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.results import TEST_ACCURACY


def test_differences_are_paired_by_seed_and_agree_with_scipy(tmp_path):
    a, b = [0.93, 0.95, 0.92, 0.96], [0.90, 0.94, 0.91, 0.91]
    write_arms(tmp_path, {("bn", 0, 0): b, ("bn", 0.001, 0): a})
    (comparison,) = comparisons(tmp_path)
    contrast = arm_of(comparison, "bn · L1 0.001").contrast
    expected = ttest_rel(a, b)
    assert contrast.difference.p == pytest.approx(expected.pvalue)
    assert contrast.difference.ci_low == pytest.approx(expected.confidence_interval().low)
    assert contrast.alone == contrast.difference  # one comparison needs no correction


def test_arms_without_a_seed_in_common_are_not_compared(tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2, l1=0.1)
    (comparison,) = comparisons(tmp_path)
    assert all(a.contrast is None for a in comparison.arms)


def test_one_seed_gets_mcnemars_test_and_its_caveat(tmp_path):
    write_run(tmp_path / "a", accuracy=0.90, n_wrong=5)
    write_run(tmp_path / "b", l1=0.001, accuracy=0.70, n_wrong=15)
    (comparison,) = comparisons(tmp_path)
    contrast = arm_of(comparison, "bn · L1 0.001").contrast
    assert contrast.by_image
    assert contrast.difference.p == pytest.approx(binomtest(0, 10).pvalue)
    assert arm_of(comparison, "bn · L1 0.001").verdict == "these two models differ"
    assert any("two trained models, not two methods" in note for note in notes(comparison))


def test_predictions_of_another_size_cost_the_test_and_not_the_report(tmp_path):
    write_run(tmp_path / "a")
    write_predictions(write_run(tmp_path / "b", l1=0.001), 3, n_test=7)
    problems: list[str] = []
    (comparison,) = comparisons(tmp_path, problems=problems)
    contrast = arm_of(comparison, "bn · L1 0.001").contrast
    assert not contrast.by_image
    assert math.isnan(contrast.difference.p)
    assert arm_of(comparison, "bn · L1 0.001").verdict == "one seed, not tested"
    assert "predictions.npz" in problems[0]
    assert "(50,)" in problems[0]


def test_the_best_test_epoch_is_never_what_arms_are_judged_by(tmp_path):
    run = write_run(tmp_path / "a", accuracy=0.9, n_epochs=3)
    lines = (run / "metrics.csv").read_text().splitlines()
    cells = lines[1].split(",")
    cells[7] = "0.999"
    (run / "metrics.csv").write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    (comparison,) = comparisons(tmp_path)
    assert comparison.arms[0].estimates[TEST_ACCURACY].mean == pytest.approx(0.9)
    assert comparison.arms[0].best_test == pytest.approx(0.999)


def test_a_complete_run_without_a_finite_metric_is_left_out_and_named(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "bad", l1=0.1, accuracy=math.nan, predictions=False)
    problems: list[str] = []
    (comparison,) = comparisons(tmp_path, problems=problems)
    assert [len(a.replicates) for a in comparison.arms] == [1, 0]
    assert "bad" in problems[0]


def test_a_repeated_seed_counts_once(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    (comparison,) = comparisons(tmp_path)
    assert len(comparison.arms[0].replicates) == 1
    assert notes(comparison)[0] == "bn: 1 run repeats a seed; only the run that ended last counts."
