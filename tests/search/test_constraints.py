"""Constraints: told by the job or found by a function, under every launcher; what breaks one is never best."""

import json
import math
from pathlib import Path

import optuna
import pytest
from toy_apps import APPS, GRID, STUDY, load, run_process, states

from reg_sweep.runs.study import study_json
from reg_sweep.search.results import study_record
from reg_sweep.search.trial import StudyTrial

X = "x=0.2,0.4,0.6,0.8"

JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=4"]
FUNCTION = ["hydra.sweeper.constraints_func=limited.too_large", "tells=false"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], JOBLIB], ids=["basic", "joblib"])
@pytest.mark.parametrize(("way", "names"), [([], {"size"}), (FUNCTION, {"0", "1"})], ids=["told", "found"])
def test_the_best_trial_keeps_its_constraints_under_every_launcher(tmp_path, launcher, way, names):
    done = run_process(tmp_path, "limited", *STUDY, GRID, X, *launcher, *way)
    study = load(tmp_path / "out")
    assert {frozenset(t.constraints) for t in study.trials} == {frozenset(names)}
    assert study.best_trial.params == {"x": 0.4}
    assert "x: 0.4" in (tmp_path / "out/experiment/best.yaml").read_text()
    facts = json.loads((tmp_path / "out/study.json").read_text())
    assert facts["best"] == [study.best_trial.number]
    assert (facts["trials"][0].get("attributes") == {"twice": 2 * study.trials[0].params["x"]}) == (way == [])
    assert f"best -0.4 (trial {study.best_trial.number})" in done.out


@pytest.mark.slow
def test_where_no_trial_keeps_its_constraints_none_is_best(app):
    done = app("limited", *STUDY, GRID, "x=0.6,0.8")
    assert "no trial satisfies all constraints: there is no best one" in done.out
    assert not Path("out/experiment").exists()


@pytest.mark.slow
def test_a_function_that_fails_fails_the_trial_and_says_why(app, monkeypatch):
    monkeypatch.syspath_prepend(APPS)  # as `python limited.py` does
    done = app("limited", *STUDY, GRID, "x=0.6,0.8", "hydra.sweeper.constraints_func=limited.broken", code=1)
    assert "hydra.sweeper.constraints_func: ValueError: no limit for 0." in done.err
    assert set(states(load())) == {"FAIL"}


def test_a_job_may_not_overwrite_the_sweepers_notes():
    trial = StudyTrial(optuna.create_study().ask())
    names = "job or error or retry_of or learned_from or no_value"
    with pytest.raises(ValueError, match=f"must not be named {names}, got 'job'"):
        trial.set_user_attr("job", {})
    with pytest.raises(ValueError, match="the constraint size must be a number"):
        trial.set_constraint("size", math.nan)


def test_infinite_constraints_and_notes_are_written_as_json_has_them():
    study = optuna.create_study()
    constraints, notes = {"kept": -math.inf, "broken": math.inf}, {"a": [1, {"b": math.inf}]}
    study.add_trial(optuna.trial.create_trial(value=1.0, constraints=constraints, user_attrs=notes))
    (trial,) = json.loads(study_json(study_record(study, {})))["trials"]
    assert trial["constraints"]["kept"] < 0
    assert trial["constraints"]["broken"] is None
    assert trial["attributes"] == {"a": [1, {"b": None}]}
