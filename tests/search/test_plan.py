"""Replicates, grids and budgets: results are means over seeds; each point runs once; the end says what it was."""

import datetime
import json
from pathlib import Path

import optuna
import pytest
from toy_apps import GRID, STUDY, load, plan_of
from trees import write_study

from reg_sweep.runs.study import read_study
from reg_sweep.search.settings import Settings


@pytest.mark.slow
def test_the_best_of_a_grid_with_seeds_is_an_arm_by_its_mean_and_no_seed_is_proposed(app):
    done = app("arms", *STUDY, GRID, "seed=1,2,3", "arm=plain,good,bad", "noise=0", "hydra.sweeper.direction=maximize")
    best = Path("out/experiment/best.yaml").read_text()
    numbers, values = zip(*((t.number, t.value) for t in load().trials if t.params["arm"] == "good"), strict=True)
    assert "arm: good" in best
    assert "seed:" not in best
    said = f"trials {', '.join(map(str, numbers))}, mean value {sum(values) / 3:.6g} over seed"
    assert best.splitlines()[1] == f"# study out: {said}"
    assert "best points, by the mean over seed" in done.out
    assert "best " not in done.out.split("best points")[0]  # no line calls a lucky seed the best
    facts = json.loads(Path("out/study.json").read_text())
    assert (facts["replicates"], facts["best"], facts["importances"]) == (["seed"], list(numbers), {})
    assert tuple(t.number for t in read_study(Path("out/study.json")).ranked[:3]) == numbers
    results = Path("out/optimization_results.yaml").read_text()
    assert "arm: good" in results
    assert "seed" not in results


@pytest.mark.slow
def test_replicates_may_have_another_name_and_no_other_key_is_averaged(app):
    app("sphere", *STUDY, GRID, "x=0,1", "z=1,2", "hydra.sweeper.replicates=[z]")
    assert read_study(Path("out/study.json")).ranked_points[0].params == {"x": 0}


def test_a_study_from_before_there_were_replicates_does_not_show_a_seeds_importance(tmp_path):
    trials = [{"params": {"seed": s, "norm": n}, "values": [v]} for s, n, v in ((1, "a", 0.0), (2, "a", 9.0))]
    trials += [{"params": {"seed": s, "norm": "b"}, "values": [1.0]} for s in (1, 2)]
    study = read_study(write_study(tmp_path, trials, importances={"seed": 0.9, "norm": 0.1}))
    assert study.importances == {}
    assert [t.number for t in study.ranked] == [2, 3, 0, 1]
    assert study.kind == "grid"


# ---- grids


@pytest.mark.slow
def test_a_grid_trains_each_point_once_in_its_order_the_enqueued_ones_first(app):
    for _ in range(2):
        app("sphere", *STUDY, GRID, "x=0,1", "y=0,1", "hydra.sweeper.enqueue=[{x: 1, y: 0}]")
    assert [tuple(t.params.values()) for t in load().trials] == [(1, 0), (0, 0), (0, 1), (1, 1)]


@pytest.mark.slow
def test_points_of_the_config_that_the_command_excludes_are_left_out_and_told(app):
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/points.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params: {x: 'interval(0, 1)'}\n    enqueue: [{x: 0.5}, {x: 1}]\n"
    )
    done = app("sphere", "--config-dir", "conf", *STUDY, "experiment=points", "x=0,1", "hydra.sweeper.n_trials=2")
    assert "hydra.sweeper.enqueue: points outside this space are left out: x=0.5" in done.out
    assert load().trials[0].params == {"x": 1}


# ---- budgets


def ended(*minutes, values=None):
    """Trials that ended one after the other, each after so many minutes."""
    start, trials = datetime.datetime(2026, 1, 1), []
    for i, n in enumerate(minutes):
        trial = optuna.trial.create_trial(value=values[i] if values else 0.0)
        trial.number, trial.datetime_start, trial.datetime_complete = i, start, start + datetime.timedelta(minutes=n)
        trials.append(trial)
        start = trial.datetime_complete
    return trials


def end_of(plan, trials, spent_s=0.0):
    end = plan.budgets.end(optuna.create_study(), trials, spent_s)
    return None if end is None else end.said


def test_no_trial_begins_that_would_not_fit_as_far_as_the_finished_ones_tell():
    plan = plan_of("x=interval(0, 1)", timeout="90m")
    trials = ended(*[10] * 9, 30)  # nine of ten took 10 minutes
    assert end_of(plan, trials, 79 * 60) is None
    assert "the study has used 81 min, and a trial takes up to 10 min" in end_of(plan, trials, 81 * 60)
    assert end_of(plan, [], 91 * 60) == "hydra.sweeper.timeout=90m: the study has used 91 min"
    assert end_of(plan, [], 0) is None


@pytest.mark.parametrize(("values", "is_over"), [([3, 1, 2, 2], False), ([1, 3, 2, 2], True), ([4, 3, 2, 1], False)])
def test_a_search_ends_when_nothing_better_came_for_so_long(values, is_over):
    plan = plan_of("x=interval(0, 1)", stop_when={"no_better_in": 3})
    said = "hydra.sweeper.stop_when.no_better_in=3: 3 trials have ended since the best one"
    assert end_of(plan, ended(1, 1, 1, 1, values=values)) == (said if is_over else None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("12h", 43200), ("1h30m", 5400), (90, 90), ("1.5d", 129600)]
)
def test_a_time_is_seconds_or_text(text, seconds):
    assert Settings(timeout=text).timeout_s == seconds


@pytest.mark.slow
def test_a_study_ends_with_its_time_says_so_and_resumes_where_it_was(app):
    study = ["arms", *STUDY, "x=interval(0, 1)", "pause_s=0.3", "hydra.sweeper.n_trials=50"]
    done = app(*study, "hydra.sweeper.timeout=1")
    n = len(load().trials)
    assert 1 <= n <= 3
    assert "ended by hydra.sweeper.timeout=1: the study has used" in done.out
    assert "hydra.sweeper.timeout=" in done.out.splitlines()[-1]
    app(*study, "hydra.sweeper.timeout=1")
    assert len(load().trials) == n


@pytest.mark.slow
def test_a_failure_beyond_max_failures_ends_the_study(app):
    done = app("arms", *STUDY, GRID, "arm=plain,broken,good", "seed=2", "hydra.sweeper.max_failures=0", code=1)
    assert "1 of 3 trials failed, more than hydra.sweeper.max_failures=0 allows: trial 1 failed" in done.err
    assert len(load().trials) == 2


# ---- plain grids of any app


@pytest.mark.slow
def test_a_resumable_grid_runs_hydras_jobs_once_whatever_they_return(app):
    grid = ["-m", "hydra/sweeper=resumable_grid", "hydra.sweep.dir=out", "arm=plain,broken", "seed=1,2"]
    done = app("arms", *grid, code=1)
    assert "1 of 4 jobs failed, job 3 failed: ValueError: it broke; fix the cause" in done.err
    before = {p: p.stat().st_mtime_ns for p in Path("out").glob("[0-9]*/.hydra/config.yaml")}
    arms = [(arm, seed) for arm in ("plain", "broken") for seed in (1, 2)]
    assert [(t.params["arm"], t.params["seed"]) for t in load().trials] == arms
    app("arms", *grid, code=1)
    assert {p: p.stat().st_mtime_ns for p in Path("out").glob("[0-9]*/.hydra/config.yaml")} == before
    assert json.loads(Path("out/study.json").read_text())["kind"] == "grid"
    assert not Path("out/experiment").exists()
