"""Workers that share a study."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState
from toy_apps import STUDY, X, load, options, run_process, states

from reg_sweep.search import workers


@pytest.mark.slow
def test_workers_share_a_study_and_leave_nothing_running(tmp_path):
    done = run_process(tmp_path, "descent", *STUDY, X, *options(n_trials=8, workers=2), "pause_s=0.1")
    study = load(tmp_path / "out")
    assert states(study) == ["COMPLETE"] * 8
    assert len({t.user_attrs["job"]["pid"] for t in study.trials}) == 2
    assert len({t.params["x"] for t in study.trials}) == 8
    assert done.out.count(" | ") == 8


def test_auto_asks_for_no_more_than_cores_trials_and_eight(monkeypatch):
    found = {}
    for cores, trials in [(1, 30), (2, 30), (16, 3), (64, 30), (4, 0)]:
        monkeypatch.setattr(workers, "usable_cores", lambda cores=cores: cores)
        found[cores, trials] = workers.usable_workers(trials)
    assert found == {(1, 30): 1, (2, 30): 2, (16, 3): 3, (64, 30): 8, (4, 0): 1}


@pytest.mark.parametrize(("asked", "left", "started"), [(100_000, 3, 3), (100_000, 1, 1), (2, 30, 2), (5, 0, 1)])
def test_no_more_workers_start_than_trials_are_left(asked, left, started):
    basic = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
    config = OmegaConf.create({"hydra": {"launcher": basic, "sweeper": {"trial_timeout": None}}})
    n, command = workers.workers_of(asked, left, config, None, ["python", "app.py"])
    assert (n, command) == (started, ["python", "app.py"] if started > 1 else [])


def test_auto_is_this_process_where_no_command_could_start_another(app):
    app("sphere", *STUDY, X, *options(n_trials=2, workers="auto"))
    assert not list(Path("out").glob("worker_*.log"))


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_trial_resumes(tmp_path):
    more = options(n_trials=3, workers=2, enqueue="[{x: 0.9}]", max_failure_rate=1)
    run_process(tmp_path, "descent", *STUDY, "x=interval(0, 0.9)", *more, "kills_itself_above=0.8", "epochs=2")
    trial = load(tmp_path / "out").trials[0]
    # the first attempt died at its second epoch; the next found both done
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["job"]["attempt"] == 2
