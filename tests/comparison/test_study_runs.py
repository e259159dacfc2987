"""The interim analyses of a sequential study, judged again from its scores by its own design."""

import numpy as np
import pytest
from trees import arm_of, comparisons, write_run
from until_trees import ALL_LOOKS, BASE, LOOKS, OPEN, WORSE, look, scores, write_until

from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.results import Result, result
from reg_sweep.comparison.sentences import verdict
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.runs.reading import read_run
from reg_sweep.runs.study import Study
from reg_sweep.stats.judgement import Finding
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict


def runs_of(study: Study) -> dict[int, Result]:
    return {t.number: result(read_run(t.directory)) for t in study.trials}


def findings(study: Study, runs: dict[int, Result] | None = None) -> list[Finding]:
    return list(StudyRuns(1, study, runs or {}).judged_at(None).judgement.arms.values())


def test_each_analysis_has_the_error_that_it_may_spend(tmp_path):
    values = scores()
    worse, still_open = findings(write_until(tmp_path, values, ALL_LOOKS))
    assert [p.seeds for p in worse.path] == [3]
    assert [p.seeds for p in still_open.path] == [3, 5, 8]
    d = np.array([values[WORSE], values[OPEN]]) - np.array(values[BASE])
    d[0, 3:] = np.nan
    low, high = Design(LOOKS).judge(d, 2).interval
    last = still_open.path[-1].difference
    assert (last.ci_low, last.ci_high) == pytest.approx((low[1], high[1]))
    assert (worse.verdict, still_open.verdict) == (Verdict.WORSE, Verdict.NO_DIFFERENCE)


def test_the_scores_of_the_runs_go_before_those_of_the_study(tmp_path):
    study = write_until(tmp_path, scores(), ALL_LOOKS[:1])
    runs = runs_of(study)
    assert findings(study, runs)[0].verdict is Verdict.WORSE
    for n, (seed, l1) in {t.number: (t.params["seed"], t.params["l1"]) for t in study.trials}.items():
        if l1 == WORSE:
            runs[n] = result(read_run(write_run(tmp_path / "changed" / str(n), l1=l1, seed=seed, accuracy=0.9)))
    assert findings(study, runs)[0].verdict is Verdict.NO_DIFFERENCE


def test_an_arm_that_diverges_is_judged_by_how_often_and_is_never_better(tmp_path):
    values = scores()
    values[WORSE] = [v + 0.5 for v in values[WORSE]]
    values[WORSE][1] = float("inf")
    arm, _ = findings(write_until(tmp_path, values, [look(3, worse="undecided", open="undecided")]))
    assert (arm.path[-1].verdict, arm.verdict, arm.diverged) == (Verdict.UNDECIDED, Verdict.NOT_RANKED, (2,))


def test_a_decided_arm_lacks_nothing_and_the_table_has_the_designs_margin_and_error(tmp_path):
    write_until(tmp_path, {k: v[:3] if k == WORSE else v for k, v in scores().items()}, ALL_LOOKS, 0.0005)
    (comparison,) = comparisons(tmp_path)
    worse, other = arm_of(comparison, "bn · L1 0.001"), arm_of(comparison, "bn · L1 0.1")
    assert (worse.verdict, worse.missing, other.verdict) == (Verdict.WORSE, (), Verdict.NO_DIFFERENCE)
    assert worse.contrast.difference == worse.contrast.path[-1].difference
    design = "Judged by the design of the study until_verdict: one error of 5%"
    assert any(note.startswith(design) for note in notes(comparison))
    assert not any("Not ranked" in note for note in notes(comparison))
    assert comparison.margin == 0.0005
    assert comparison.alpha == Design(LOOKS).level(2) < 0.012
    assert "corrected for 2 arms and 3 looks; 8 seeds" in verdict(comparison)[1]


def test_an_arm_that_a_study_gave_up_keeps_its_last_analysis(tmp_path):
    values = scores()
    values[WORSE] = values[OPEN][:3]  # it trained no more after the first look
    looks = [look(3, worse="undecided", open="undecided"), look(5, open="undecided"), look(8, open="undecided")]
    given_up, still_open = findings(write_until(tmp_path, values, looks))
    assert [p.seeds for p in given_up.path] == [3]
    assert given_up.missing == ()
    assert given_up.pairs == 3
    assert [p.seeds for p in still_open.path] == [3, 5, 8]


def test_the_studys_baseline_is_that_of_its_page(tmp_path):
    values = scores()
    values = {WORSE: values[BASE], BASE: values[WORSE], OPEN: values[OPEN]}
    write_until(tmp_path, values, [look(3)])
    (comparison,) = comparisons(tmp_path)
    assert comparison.baseline.label == "bn · L1 0.001"
    assert arm_of(comparison, "bn").verdict is Verdict.WORSE
