"""Conclusions in words: prose that says what the numbers say, where something is shown and where nothing is."""

import shutil

import numpy as np
import pytest
from exercise_trees import MNIST, roughen, write_exercise
from trees import comparisons, edit_record, write_arms, write_run

from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.notes import notes

COMPARED, SHOWN = "What was compared", "What the numbers show"
PUBLISHED, UNSAID = "The published conclusions", "What can't be said yet"


def told(root, **options) -> dict[str, str]:
    (comparison,) = comparisons(root, margin=0.001, **options)
    return {p.heading: p.text for p in conclusions(comparison).paragraphs}


def test_each_regularizer_is_judged_against_the_baseline_from_which_it_differs_alone(tmp_path):
    arms = {
        ("bn", 0, 0): [0.90, 0.91, 0.92],
        ("bn", 0.1, 0): [0.95, 0.96, 0.9701],
        ("bn", 0, 0.1): [0.80, 0.81, 0.8201],
        ("gbn", 0, 0): [0.901, 0.909, 0.9203],
        ("gbn", 0.1, 0): [0.97, 0.98, 0.99],
    }
    write_arms(tmp_path, arms, predictions=False)
    said = told(tmp_path)
    assert said[COMPARED].startswith("Four arms were compared with the baseline, batch norm without a penalty (bn), ")
    assert "bn · L2 0.1 is shown worse than the baseline" in said[SHOWN]
    assert "L1 alone (bn · L1 0.1) helps: between +4." in said[SHOWN]
    assert "L2 alone (bn · L2 0.1) hurts: between −10." in said[SHOWN]
    assert "Ghost batch norm (gbn) is not shown to help or to hurt: between −" in said[SHOWN]
    assert "Ghost batch norm with L1 (gbn · L1 0.1)" in said[SHOWN]
    assert said[SHOWN].index("Ghost batch norm (") < said[SHOWN].index("Ghost batch norm with")


def test_where_nothing_is_shown_it_says_how_large_a_difference_may_be_and_what_it_would_take(tmp_path):
    write_exercise(tmp_path, {}, data=MNIST)
    said = told(tmp_path)
    assert said[SHOWN].startswith("No arm is shown better or worse than the baseline")
    assert "the exercise's rocky curve " in said[SHOWN]
    assert "times the baseline's" in said[SHOWN]
    assert "conclusions, four can be tested on these arms: " in said[PUBLISHED]
    assert "with an error of their own" in said[PUBLISHED]
    assert " would be shown four times in five" in said[UNSAID]


@pytest.mark.parametrize(("factor", "seen"), [(40.0, "is seen"), (0.02, "is contradicted")])
def test_the_exercises_rocky_curve_is_seen_contradicted_or_open(tmp_path, factor, seen):
    write_exercise(tmp_path, {}, data=MNIST)
    rng = np.random.default_rng(7)
    for seed in (1, 2, 3, 4):
        roughen(tmp_path / f"0-0.0005-{seed}", rng, 0.002 * factor)
    assert f"the exercise's rocky curve {seen}: last-quarter spread" in told(tmp_path)[SHOWN]


def test_of_several_settings_all_are_told_and_of_many_their_range(tmp_path):
    arms = {("bn", l1, 0): [0.9 + l1, 0.91 + l1 + l1 / 50, 0.92 + l1] for l1 in (0, 0.01, 0.02)}
    write_arms(tmp_path / "few", arms, predictions=False)
    said = told(tmp_path / "few")[SHOWN]
    assert "L1 alone, at two settings, is shown better at 2 and worse at none: at L1 0.01 between +0.9" in said
    arms |= {("bn", l1, 0): [0.9, 0.91, 0.92 + l1] for l1 in (0.03, 0.04, 0.05)}
    write_arms(tmp_path / "many", arms, predictions=False)
    said = told(tmp_path / "many")[SHOWN]
    assert "L1 alone, at five settings, is not shown to help or to hurt; all differences lie between −" in said
    assert "; the best of them on val, bn · L1 " in said


def test_a_diverged_a_failed_and_a_missing_seed_are_told_and_not_judged(tmp_path):
    write_exercise(tmp_path, {}, data=MNIST)
    edit_record(tmp_path / "0.001-0-4", status="diverged")
    edit_record(tmp_path / "0-0.0005-4", status="failed")
    shutil.rmtree(tmp_path / "0.001-0.0005-4")
    for seed in (1, 2, 3, 4):
        edit_record(tmp_path / f"0-0.0001-{seed}", status="diverged")
    said = told(tmp_path)
    assert "L1 alone (bn · L1 0.001) can't be judged: 1 of its 4 seeds diverged" in said[SHOWN]
    assert "at L2 0.0001 no complete run (4 diverged)" in said[SHOWN]
    assert "at L2 0.0005 not judged, since it failed on 1 of the baseline's 4 seeds, perhaps the" in said[SHOWN]
    assert "it lacks 1 of the baseline's 4 seeds, perhaps the unlucky one" in said[SHOWN]
    assert said[COMPARED].endswith("Runs that don't count: 5 diverged, 1 failed.")
    assert "seeds are missing or failed: rerun the command that trained them, with hydra" in said[UNSAID]
    assert "would be shown" not in said[UNSAID]


def test_where_the_baseline_diverged_no_arm_is_judged_by_its_mean(tmp_path):
    write_exercise(tmp_path, {}, data=MNIST)
    edit_record(tmp_path / "0-0-4", status="diverged")
    said = told(tmp_path)
    assert said[SHOWN].startswith("The baseline diverged on 1 of its 4 seeds")
    assert "is shown" not in said[SHOWN]
    assert "is settled" not in said[UNSAID]


def test_one_seed_concludes_nothing_about_methods(tmp_path):
    write_exercise(tmp_path, {}, n_seeds=1, data=MNIST)
    said = told(tmp_path)
    assert said[COMPARED].count("each on seed 1: 5 runs") == 1
    assert said[PUBLISHED].startswith("None of the exercises' conclusions can be tested on these runs: one seed")
    assert "at least two seeds per arm" in said[UNSAID]
    (comparison,) = comparisons(tmp_path)
    assert all(s.evidence == "weights" for s in conclusions(comparison).sentences)


def test_two_seeds_that_bound_nothing_say_so_and_no_impossible_number(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.60, 0.95], ("bn", 0.1, 0): [0.93, 0.61]}, predictions=False)
    said = told(tmp_path)
    assert "2 seeds are too few to bound it" in said[SHOWN]
    assert "even the largest possible difference would be shown" in said[UNSAID]


def test_a_loss_that_is_shown_is_bounded_even_where_its_interval_leaves_the_scale(tmp_path):
    write_arms(tmp_path, {("bn", 0, 0): [0.94, 0.95, 0.93], ("none", 0, 0): [0.1, 0.3, 0.05]}, predictions=False)
    assert "No norm hurts: between −100.00 and −" in told(tmp_path)[SHOWN]
    (comparison,) = comparisons(tmp_path)
    assert not any("too few to judge" in note for note in notes(comparison))


def test_an_arm_alone_and_arms_that_all_have_a_penalty_say_what_is_missing(tmp_path):
    write_run(tmp_path / "alone" / "0", l1=0.1)
    said = told(tmp_path / "alone")
    assert said[COMPARED].startswith("One arm was trained, batch norm with L1 (bn · L1 0.1): 1 run")
    assert set(said) == {COMPARED, UNSAID}
    write_arms(tmp_path / "grid", {("bn", 0.1, 0): [0.9, 0.91, 0.92], ("bn", 0.2, 0): [0.91, 0.9, 0.93]})
    said = told(tmp_path / "grid")
    assert "Another strength of L1 (bn · L1 0.2)" in said[SHOWN]
    assert "No arm was trained without a penalty" in said[UNSAID]


def test_an_arm_without_a_penalty_is_told_as_one_beside_a_baseline_that_has_one(tmp_path):
    arms = {("bn", 0.1, 0): [0.9, 0.91, 0.92], ("bn", 0, 0): [0.91, 0.9, 0.93], ("gbn", 0, 0): [0.92, 0.9, 0.93]}
    write_arms(tmp_path, arms)
    said = told(tmp_path, baseline="l1=0.1")
    assert "No penalty (bn)" in said[SHOWN]
    assert "Ghost batch norm without a penalty (gbn)" in said[SHOWN]
    assert "No arm was trained without a penalty" not in said[UNSAID]


def test_a_claim_is_told_with_the_interval_that_decides(tmp_path):
    write_exercise(tmp_path, {(0.001, 0): 0.02, (0, 0.0001): 0.005}, data=MNIST)
    (comparison,) = comparisons(tmp_path, margin=0.001)
    fifth = conclusions(comparison).claims[-1]
    assert (fifth.number, fifth.word) == (5, "supported")
    assert fifth.parts[0].startswith("accuracy, bn · L2 0.0001 against bn · L2 0.0005: +0.5")
    third = next(c for c in conclusions(comparison).claims if c.number == 3)
    assert any("; needed: above −0.10)" in part for part in third.parts)
    published = told(tmp_path)[PUBLISHED]
    assert "(1) 'L1 alone is the best choice: steadier, more accurate, with a lower test loss' is supp" in published
    assert "all nine of its tests are shown to hold" in published
    assert "is contradicted" in published


def test_other_networks_are_not_held_against_the_exercises(tmp_path):
    for seed in (1, 2):
        for l1 in (0, 0.1):
            write_run(tmp_path / f"{l1}-{seed}", l1=l1, seed=seed, model={"_target_": "my.Net"}, predictions=False)
    assert PUBLISHED not in told(tmp_path)


def test_of_many_kinds_of_arms_the_last_share_a_sentence(tmp_path):
    lambdas = ((0, 0), (1e-3, 0), (0, 1e-3))
    arms = {(n, l1, l2): [0.9 + l1, 0.91, 0.92] for n in ("bn", "gbn", "gn", "ln") for l1, l2 in lambdas}
    write_arms(tmp_path, arms, predictions=False)
    said = told(tmp_path)[SHOWN]
    assert "Layer norm (ln) is not shown to help or to hurt" in said
    assert "The other 3 arms are not shown to help or to hurt: bn" not in said
    assert said.count(" is not shown to help or to hurt") == 8
    assert "The other 3 arms are not shown to help or to hurt: " in said


def test_a_penalty_beside_the_baselines_own_is_added_and_no_other_strength_of_it(tmp_path):
    arms = {("bn", 0, 0.1): [0.9, 0.91, 0.92], ("bn", 0.1, 0.1): [0.91, 0.9, 0.93], ("bn", 0, 0.2): [0.9, 0.92, 0.92]}
    write_arms(tmp_path, arms, predictions=False)
    said = told(tmp_path)[SHOWN]
    assert "L1 added (bn · L1 0.1 · L2 0.1)" in said
    assert "Another strength of L2 (bn · L2 0.2)" in said
