"""Workers that share a study."""

import pytest
from optuna.trial import TrialState
from toy_apps import STUDY, X, load, run_process, states


@pytest.mark.slow
def test_workers_share_a_study_and_leave_nothing_running(tmp_path):
    done = run_process(
        tmp_path, "descent", *STUDY, X, "hydra.sweeper.n_trials=8", "hydra.sweeper.workers=2", "pause_s=0.1"
    )
    assert done.code == 0, done.out
    study = load(tmp_path / "out")
    assert states(study) == ["COMPLETE"] * 8
    assert len({t.user_attrs["job"]["pid"] for t in study.trials}) == 2
    assert len({t.params["x"] for t in study.trials}) == 8
    assert done.out.count(" | ") == 8


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_its_trial_goes_on(tmp_path):
    more = ["hydra.sweeper.n_trials=3", "hydra.sweeper.workers=2"]
    kill = ["hydra.sweeper.enqueue=[{x: 0.9}]", "kills_itself_above=0.8", "epochs=2"]
    done = run_process(
        tmp_path, "descent", *STUDY, "x=interval(0, 0.9)", *more, *kill, "hydra.sweeper.max_failure_rate=1"
    )
    assert done.code == 0, done.out
    trial = load(tmp_path / "out").trials[0]
    # the first attempt died at its second epoch; the next found both done
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["job"]["attempt"] == 2
