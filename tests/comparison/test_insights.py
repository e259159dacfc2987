"""Sentences that say what the numbers beside them say, and no more."""

import numpy as np
import pytest
from exercise_trees import roughen
from trees import comparisons, edit_record, write_run
from until_trees import ALL_LOOKS, scores, write_until

from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.insights import error_text


def sentences(root, **options):
    (comparison,) = comparisons(root, margin=0.001, **options)
    return [s.text for s in conclusions(comparison).sentences]


@pytest.mark.parametrize(("factor", "times"), [(0.01, "0.01 times"), (100, "times")])
def test_steadiness_is_exploratory_and_told_with_its_interval(tmp_path, factor, times):
    rng = np.random.default_rng(1)
    for l1, size in ((0, 0.001), (0.1, 0.001 * factor)):
        for seed in (1, 2, 3, 4):
            folder = write_run(tmp_path / f"{l1}-{seed}", l1=l1, seed=seed, n_epochs=40, predictions=False)
            roughen(folder, rng, size)
    write_run(tmp_path / "lacking", l1=0.2, n_epochs=40, predictions=False)
    steady = next(text for text in sentences(tmp_path) if "spread of test accuracy" in text)
    assert steady.startswith("Exploratory: ")
    assert f"{times} (95% interval " in steady
    assert "the last 10 epochs relative to the baseline, bn, over 4 seeds" in steady
    assert "Unknown for 1 arm: seeds are missing" in steady


def test_loss_and_accuracy_that_point_apart_are_told_and_equal_means_are_not_said_to_agree(tmp_path):
    for l1, by, cost in ((0, 0, 0), (0.1, 0.02, 0.05), (0.2, 0.0, 0.0)):
        for seed in (1, 2, 3):
            luck = 0.001 * seed * (1 + 0.01 * seed * (l1 == 0.1))
            folder, accuracy, loss = tmp_path / f"{l1}-{seed}", 0.9 + by + luck, 0.3 + cost + luck
            write_run(folder, l1=l1, seed=seed, accuracy=accuracy, loss=loss, predictions=False)
    (apart,) = [text for text in sentences(tmp_path) if "contradict each other" in text]
    assert apart == (
        "Exploratory: mean test loss and mean test accuracy contradict each other in bn · L1 0.1 (+2.00 points, "
        "+0.0500 in loss), and in 1 arm one of the two means equals the baseline's."
    )


def test_where_nothing_is_shown_it_is_the_means_that_agree(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"0-{seed}", seed=seed, accuracy=0.9, loss=0.3, predictions=False)
        better = 0.001 * (seed - 1.5)
        folder, accuracy, loss = tmp_path / f"1-{seed}", 0.9 + better, 0.3 - better
        write_run(folder, l1=0.1, seed=seed, accuracy=accuracy, loss=loss, predictions=False)
    said = "Exploratory: mean test loss and mean test accuracy agree in the other arm."
    assert said in sentences(tmp_path)


def test_arms_without_zeros_are_told_by_their_dead_kernels(tmp_path):
    for l1, n_dead in ((0.1, 5), (0.2, 9), (0.3, 7)):
        run = write_run(tmp_path / f"{l1}", l1=l1, predictions=False)
        edit_record(run, weights={"n_zero": 0, "n_dead_kernels": n_dead})
    *_, last = sentences(tmp_path)
    places = [last.index(f"L1 {l1} (") for l1 in (0.2, 0.3, 0.1)]
    assert places == sorted(places)
    assert "exactly 0" not in last.split(":")[1]


def test_a_sequential_study_tells_no_error_of_a_loss_that_has_no_interval(tmp_path):
    write_until(tmp_path, scores(), ALL_LOOKS)
    (comparison,) = comparisons(tmp_path)
    told = error_text(comparison, has_steadiness=True, has_loss=True)
    assert told == "Accuracy has an error of 5% over all arms and looks; steadiness has 5%."
