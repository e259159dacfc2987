"""The end of a study: its best trials, the next commands, and study.json, for readers without Optuna."""

import json
import math
import re
import shlex
from pathlib import Path

import optuna
import pytest
from toy_apps import SEED, STUDY, X, load, start, states

from reg_sweep.runs.study import TRIAL_STATES, read_study, study_json
from reg_sweep.search.results import TRIAL_WORDS, study_record


def sweep(folder, app, *arguments):
    return start(folder, app, *STUDY, *arguments).end()


def test_writer_and_reader_mean_the_same_file():
    assert set(TRIAL_WORDS.values()) == set(TRIAL_STATES)
    assert TRIAL_WORDS.keys() == {state.name for state in optuna.trial.TrialState}


@pytest.mark.slow
def test_the_file_tells_what_optuna_knows(tmp_path):
    points = "hydra.sweeper.enqueue=[{x: 0.3}, {x: 0.4}, {x: -1}, {x: 0.9}]"
    prune = [
        "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.n_startup_trials=2",
        "hydra.sweeper.pruner.n_warmup_steps=1",
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


@pytest.mark.slow
def test_the_file_is_there_also_where_too_many_trials_failed(tmp_path):
    done = sweep(tmp_path, "descent", "x=0.9,0.95", "fails_above=0.8", "hydra.sweeper.n_trials=2")
    assert done.returncode == 1
    assert "trials failed" in done.stderr
    assert {t.state for t in read_study(tmp_path / "out" / "study.json").trials} >= {"failed"}


@pytest.mark.slow
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

    (trial,) = json.loads(study_json(study_record(study, {})), parse_constant=refuse)["trials"]
    assert trial["values"] == [None]
    assert trial["steps"] == [[1, 2.0], [2, None]]


@pytest.mark.slow
def test_too_many_failures_end_the_study_with_an_error(app):
    done = app(
        "descent", *STUDY, X, "fails_above=-2", "hydra.sweeper.n_trials=10", "hydra.sweeper.max_failure_rate=0.2"
    )
    assert done.code == 1
    assert "3 of 10 trials failed" in done.err
    assert states(load()) == ["FAIL"] * 3


@pytest.mark.slow
def test_the_best_trials_file_runs_as_it_is(app):
    app("sphere", *STUDY, X, "y=-0.2", "scale=ten,one", "hydra.sweeper.n_trials=8", SEED)
    best = load().best_trial
    said = Path("out/experiment/best.yaml").read_text().splitlines()[1]
    assert said == f"# study out: trial {best.number}, value {best.value:.6g}"
    done = app("sphere", "--config-dir", "out", "experiment=best", "--cfg", "job")
    assert done.code == 0, done.err
    wanted = {"one": 1.0, "ten": 10.0}[best.params["scale"]]
    assert f"factor: {wanted}\n" in done.out
    assert f"x: {best.params['x']}\n" in done.out
    assert "'y': -0.2\n" in done.out


@pytest.mark.slow
def test_a_study_ends_with_its_best_trials_and_the_next_commands(app):
    done = app("sphere", *STUDY, X, "y=interval(-1, 1)", "hydra.sweeper.n_trials=6", SEED)
    best = load().best_trial
    table = done.out[done.out.index("best trials") :].splitlines()
    assert table[1].split() == ["trial", "value", "x", "y"]
    assert table[2].split()[0] == str(best.number)
    assert re.search(r"importance of each parameter \(fANOVA\): [xy]=0\.\d+ [xy]=0\.\d+", done.out)
    assert f"optuna-dashboard sqlite:///{Path('out/study.db').absolute()}" in done.out
    assert "--config-dir out experiment=best" in done.out


@pytest.mark.slow
def test_the_best_trial_of_an_app_without_experiments_has_a_command_that_runs(app):
    done = app("descent", *STUDY, X, "hydra.sweeper.n_trials=3", SEED)
    command = re.search(r"run it: .*(--config-dir .*)", done.out)[1]
    again = app("descent", *shlex.split(command), "--cfg", "job")
    assert again.code == 0, again.err
    assert f"x: {load().best_trial.params['x']}\n" in again.out


@pytest.mark.slow
def test_a_study_without_a_finite_value_has_no_best_trial(app):
    done = app("descent", *STUDY, "x=1,2", "returns=infinity", "hydra.sweeper.n_trials=2")
    assert done.code == 0, done.err
    assert states(load()) == ["COMPLETE"] * 2
    assert "no trial has a finite value" in done.out
    assert "run it" not in done.out
    assert not Path("out/experiment").exists()
