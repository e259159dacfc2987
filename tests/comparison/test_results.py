import math

import pytest
from trees import write_run

from reg_sweep.comparison.results import CURVES, TEST_ACCURACY, TEST_LOSS, result
from reg_sweep.runs.reading import read_run


def test_a_metric_is_read_at_the_last_epoch_or_at_the_one_that_val_chose(tmp_path):
    run = read_run(write_run(tmp_path / "a", accuracy=0.9, loss=0.3))
    run.record["best_val"] = run.record["best_val"] | {"test_accuracy": 0.5}
    found = result(run)
    assert found.value(TEST_ACCURACY) == 0.9
    assert found.value(TEST_ACCURACY, "best_val") == 0.5
    assert found.value(TEST_LOSS, "best_val") == 0.3


def test_without_val_the_epoch_that_val_chose_is_the_last(tmp_path):
    found = result(read_run(write_run(tmp_path / "a", accuracy=0.9, data={"n_val": 0})))
    assert found.value(TEST_ACCURACY, "best_val") == 0.9
    assert math.isnan(found.value(TEST_ACCURACY.on("val")))


def test_curves_hold_every_metric_of_every_epoch(tmp_path):
    found = result(read_run(write_run(tmp_path / "a", accuracy=0.9, n_epochs=3)))
    assert found.curves.shape == (3, len(CURVES))
    assert found.curve(TEST_ACCURACY) == pytest.approx([0.7, 0.8, 0.9])


def test_shares_of_weights_are_the_records_counts_and_unknown_where_it_does_not_count(tmp_path):
    run = read_run(write_run(tmp_path / "a"))
    shares = result(run).weight_shares
    assert (shares.zero, shares.near_zero, shares.dead) == (0.1, 0.2, 0.2)
    run.record["weights"] |= {"n_kernels": 0, "n_dead_kernels": 0}  # a network without convolutions
    shares = result(run).weight_shares
    assert (shares.near_zero, math.isnan(shares.dead)) == (0.2, True)
    run.record["weights"] = None
    assert math.isnan(result(run).weight_shares.zero)


def test_the_time_of_a_run_that_has_not_ended_is_that_of_its_epochs_or_unknown(tmp_path):
    run = read_run(write_run(tmp_path / "a", status="running", n_epochs=2))
    run.record["seconds"] = 0.0  # known at the end
    assert result(run).seconds == 2.0
    run.metrics.clear()
    assert math.isnan(result(run).seconds)
