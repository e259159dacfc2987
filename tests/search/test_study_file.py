"""study.json, which a sweep leaves at its end: all of the study that a reader without Optuna needs."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from reg_sweep.search import text as outcome
from reg_sweep.study_record import TRIAL_STATES, read_study

APPS = Path(__file__).parent / "search_app"


def sweep(folder, app, *arguments, **environment):
    command = [sys.executable, str(APPS / f"{app}.py"), "-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out"]
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_writer_and_reader_mean_the_same_file():
    assert set(outcome.TRIAL_WORDS.values()) == set(TRIAL_STATES)
    assert outcome.TRIAL_WORDS.keys() == {state.name for state in optuna.trial.TrialState}


def test_the_file_tells_what_optuna_knows(tmp_path):
    points = "hydra.sweeper.enqueue=[{x: 0.3}, {x: 0.4}, {x: -1}, {x: 0.9}]"
    prune = [
        "hydra/sweeper/pruner=median",
        "+hydra.sweeper.pruner.n_startup_trials=2",
        "+hydra.sweeper.pruner.n_warmup_steps=1",
    ]
    done = sweep(
        tmp_path, "descent", "x=interval(-1, 1)", points, *prune, "fails_above=0.8", "hydra.sweeper.n_trials=4"
    )
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="out", storage=f"sqlite:///{tmp_path}/out/study.db")
    read = read_study(tmp_path / "out" / "study.json")
    assert (read.name, read.directions) == ("out", ["minimize"])
    assert [t.state for t in read.trials] == ["complete", "complete", "pruned", "failed"]
    for ours, theirs in zip(read.trials, study.trials, strict=True):
        assert ours.params == theirs.params
        assert ours.directory == tmp_path / "out" / str(theirs.number)
        if ours.state == "complete":
            assert list(ours.values) == theirs.values
        if theirs.intermediate_values:
            assert ours.last == theirs.intermediate_values[theirs.last_step]
    assert read.ranked[0].number == study.best_trial.number
    assert read.trials[3].message == "ValueError: x is too large: True"


def test_the_file_is_there_also_where_too_many_trials_failed(tmp_path):
    done = sweep(tmp_path, "descent", "x=0.9,0.95", "fails_above=0.8", "hydra.sweeper.n_trials=2")
    assert done.returncode == 1
    assert "trials failed" in done.stderr
    assert {t.state for t in read_study(tmp_path / "out" / "study.json").trials} >= {"failed"}


def test_two_parameters_have_importances_that_add_up_to_one(tmp_path):
    done = sweep(tmp_path, "sphere", "x=interval(-1, 1)", "y=interval(-1, 1)", "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr
    importances = read_study(tmp_path / "out" / "study.json").importances
    assert importances.keys() == {"x", "y"}
    assert math.fsum(importances.values()) == pytest.approx(1)


def test_an_infinite_value_becomes_null_and_the_file_stays_json():
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=math.inf, intermediate_values={1: 2.0, 2: math.inf}))

    def refuse(constant):
        raise AssertionError(constant)

    (trial,) = json.loads(outcome.study_json(study, {}), parse_constant=refuse)["trials"]
    assert trial["values"] == [None]
    assert trial["steps"] == [[1, 2.0], [2, None]]


def test_the_file_holds_no_password(tmp_path):
    storage = f"hydra.sweeper.storage='vault://me:s3cr3t@host/{tmp_path}/vault.db'"
    done = sweep(tmp_path, "vault", "x=interval(-1, 1)", storage, "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert "s3cr3t" not in (tmp_path / "out" / "study.json").read_text()
