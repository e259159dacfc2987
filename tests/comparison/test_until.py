import dataclasses

import numpy as np
import pytest
from trees import arm_of, comparisons, write_run
from until_trees import ALL_LOOKS, BASE, LOOKS, OPEN, WORSE, look, scores, write_until

from reg_sweep.comparison.results import Result, result
from reg_sweep.comparison.until import judge_by_design, paths
from reg_sweep.comparison.verdict import verdict
from reg_sweep.runs.reading import read_run
from reg_sweep.runs.study import Study
from reg_sweep.stats.sequential import Design


def runs_of(study: Study) -> dict[int, Result]:
    return {t.number: result(read_run(t.directory)) for t in study.trials}


def test_the_looks_are_judged_by_the_design_with_the_error_that_each_may_spend(tmp_path):
    values = scores()
    worse, still_open = paths(write_until(tmp_path, values, ALL_LOOKS), {})
    assert [p.seeds for p in worse.points] == [3]
    assert [p.seeds for p in still_open.points] == [3, 5, 8]
    d = np.array([values[WORSE], values[OPEN]]) - np.array(values[BASE])
    d[0, 3:] = np.nan
    low, high = Design(LOOKS).judge(d, 2).interval
    assert (still_open.points[-1].ci_low, still_open.points[-1].ci_high) == pytest.approx((low[1], high[1]))
    assert worse.agrees
    assert still_open.agrees


def test_a_record_that_tells_otherwise_than_its_runs_is_noticed(tmp_path):
    looks = [look(3, worse="worse", open="better")]
    _, arm = paths(write_until(tmp_path, scores(), looks), {})
    assert not arm.agrees
    assert (arm.recorded, arm.decision) == (["better"], "undecided")


def test_the_scores_of_the_runs_go_before_those_of_the_study(tmp_path):
    study = write_until(tmp_path, scores(), ALL_LOOKS[:1])
    changed = {t.number: 0.9 for t in study.trials if t.params["l1"] == WORSE}
    before, after = paths(study, {})[0], paths(study, changed)[0]
    assert before.decision == "worse"
    assert after.decision == "undecided"
    assert not after.agrees


def test_an_arm_that_diverges_is_judged_by_how_often_and_is_never_better(tmp_path):
    values = scores()
    values[WORSE] = [v + 0.5 for v in values[WORSE]]
    values[WORSE][1] = float("inf")
    arm, _ = paths(write_until(tmp_path, values, [look(3, worse="undecided", open="undecided")]), {})
    assert (arm.decision, arm.n_diverged) == ("undecided", 1)
    assert arm.agrees


def test_a_comparison_of_the_studys_arms_alone_gets_its_verdicts_and_a_decided_arm_lacks_nothing(tmp_path):
    study = write_until(tmp_path, {k: v[:3] if k == WORSE else v for k, v in scores().items()}, ALL_LOOKS, 0.0005)
    (comparison,) = comparisons(tmp_path)
    assert arm_of(comparison, "bn · L1 0.001").verdict == "not ranked"
    assert judge_by_design(comparison, study, runs_of(study), [])
    worse, other = arm_of(comparison, "bn · L1 0.001"), arm_of(comparison, "bn · L1 0.1")
    assert (worse.verdict, worse.missing, other.verdict) == ("worse", (), "no difference shown")
    (point,) = paths(study, {})[0].points
    assert worse.contrast.difference.ci_high == pytest.approx(point.ci_high)
    assert comparison.notes[-1].startswith("Judged by the design of the study until_verdict: one error of 5%")
    assert comparison.margin == 0.0005
    assert not any("Not ranked" in note for note in comparison.notes)
    assert comparison.alpha == Design(LOOKS).level(2) < 0.012
    assert "corrected for 2 arms and 3 looks; 8 seeds" in verdict(comparison)[1]


def test_the_design_does_not_judge_arms_beside_its_own_nor_by_another_metric(tmp_path):
    study = write_until(tmp_path / "study", scores(), ALL_LOOKS)
    (comparison,) = comparisons(tmp_path / "study")
    by_loss = dataclasses.replace(study, design=dataclasses.replace(study.design, metric="test_loss"))
    assert not judge_by_design(comparison, by_loss, runs_of(study), [])
    write_run(tmp_path / "beside", l1=0.5)
    (comparison,) = comparisons(tmp_path)
    assert not judge_by_design(comparison, study, runs_of(study), [])


def test_the_studys_baseline_is_that_of_its_page(tmp_path):
    values = scores()
    values = {WORSE: values[BASE], BASE: values[WORSE], OPEN: values[OPEN]}
    study = write_until(tmp_path, values, [look(3)])
    (comparison,) = comparisons(tmp_path)
    assert comparison.baseline.label == "bn"
    assert judge_by_design(comparison, study, runs_of(study), [])
    assert comparison.baseline.label == "bn · L1 0.001"
    assert arm_of(comparison, "bn").verdict == "worse"
