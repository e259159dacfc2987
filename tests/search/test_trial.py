"""A trial in its job."""

import contextlib
import math
import os
import pickle
import signal
import sys
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from toy_apps import SEED, STUDY, X, load, options, run_process, states

from reg_sweep.runs.files import HeldError
from reg_sweep.search import current_trial, interrupt
from reg_sweep.search.job import StudyTask
from reg_sweep.search.storage import open_storage
from reg_sweep.search.trial import JobError, JobTrial, pruned_error


def test_a_process_that_was_silent_too_long_hides_the_other_by_no_heartbeat():
    study = optuna.create_study()
    asked = study.ask({"x": FloatDistribution(0, 1)})
    trial = JobTrial(asked)
    trial.begin(directory="0")
    trial.beat(directory="0")
    asked.set_user_attr("job", {"attempt": 2})
    trial.beat(directory="0")
    assert trial.taken_over
    assert study.trials[0].user_attrs["job"] == {"attempt": 2}


def test_a_task_leaves_its_process_without_the_trials_that_were_handed_out():
    """A launcher pickles it: of a trial that holds a database's connection nothing may go along."""
    study = optuna.create_study()
    task = StudyTask(len)
    task.hand_out([study.ask()], progress=None)
    copy = pickle.loads(pickle.dumps(task))
    assert (copy.function, copy.__wrapped__) == (len, len)
    assert copy.take_back() == []
    assert [t.number for t in task.take_back()] == [0]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Runs a function as the job of a study's only trial; gives the study and what the task gave back."""
    runtime = {"output_dir": f"{tmp_path}/out/0", "cwd": str(tmp_path)}
    sweeper = {"heartbeat_interval": 5, "constraints_func": None, "trial_timeout": None, "has_objective": True}
    hydra = {"job": {"num": 0}, "runtime": runtime, "sweep": {"dir": "out"}, "sweeper": sweeper}
    monkeypatch.setattr("reg_sweep.search.job.HydraConfig.get", lambda: OmegaConf.create(hydra))
    monkeypatch.setattr("reg_sweep.search.job.HELD_POLL_S", 0.01)
    study = optuna.create_study()

    def run(function, attempt=1):
        asked = study.ask({"x": FloatDistribution(0, 1)})
        asked.set_user_attr("job", {"attempt": attempt})
        task = StudyTask(lambda config: function(asked))
        task.hand_out([asked], progress=None)
        try:
            returned = task(OmegaConf.create())
        except JobError as error:
            returned = error
        assert task.take_back() == []
        return study, returned

    return run


def test_the_first_result_of_two_attempts_counts_and_the_second_is_no_failure(job):
    def slept(asked):
        asked.set_user_attr("job", {"attempt": 2})
        asked.study.tell(0, 5.0)
        current_trial().report(1.0, 1)
        return 1.0

    study, returned = job(slept)
    assert (states(study), study.trials[0].value, returned) == (["COMPLETE"], 5.0, 1.0)


def test_a_job_whose_directory_the_silent_process_still_holds_waits_until_that_has_ended(job):
    calls = []

    def held(asked):
        calls.append(asked.number)
        if len(calls) == 2:
            asked.study.tell(0, 5.0)
        raise HeldError("out/0 must be free")

    study, returned = job(held, attempt=2)
    assert (calls, states(study), study.trials[0].value, returned) == ([0, 0], ["COMPLETE"], 5.0, None)


def test_a_directory_that_somebody_else_holds_fails_a_first_attempt(job):
    def held(asked):
        raise HeldError("out/0 must be free")

    study, returned = job(held)
    assert (states(study), str(returned)) == (["FAIL"], "HeldError: out/0 must be free")


def test_a_keyboard_interrupt_that_no_signal_brought_is_the_jobs_failure(job):
    def raises(asked):
        raise KeyboardInterrupt

    with interrupt.handled():
        _, returned = job(raises)
    assert str(returned) == "KeyboardInterrupt, raised by the job itself"


def test_an_interrupt_whose_exception_is_swallowed_is_raised_at_the_next_report(job):
    def swallows(asked):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
        current_trial().report(1.0, 1)

    with interrupt.handled(), pytest.raises(KeyboardInterrupt):
        job(swallows)
    assert interrupt.received() == signal.SIGTERM


def test_a_storage_that_fails_is_no_failure_of_the_trial(job):
    def full(asked):
        raise optuna.exceptions.StorageInternalError("disk full")

    with pytest.raises(optuna.exceptions.StorageInternalError):
        job(full)


def test_an_app_can_be_pruned_without_importing_optuna():
    assert isinstance(pruned_error("too slow"), optuna.TrialPruned)
    assert str(pruned_error("too slow")) == "too slow"


@pytest.mark.slow
def test_the_job_is_told_its_trial_and_only_there(app):
    assert current_trial() is None
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=2")
    assert current_trial() is None
    assert "REG_SWEEP_TRIAL" not in os.environ
    app("descent", "x=0.3")
    for trial in load().trials:
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
        assert trial.user_attrs["job"]["directory"] == str(trial.number)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (math.nan, "must be a number, got nan from the app's function"),
        ("three", "must be a number, got 'three' from the app's function"),
        ([1.0, 2.0], "must be 1 number, got 2 from the app's function"),
        (10**400, "must be a number, got 10"),
        (10**5000, "must be a number, got"),  # too long to be written out
        (1j, "must be a number, got 1j from the app's function"),
        (object(), "must be a number, got <object"),
    ],
    ids=["nan", "text", "pair", "10^400", "10^5000", "1j", "object"],
)
def test_what_is_no_objective_is_a_failure_that_says_what_was_returned(job, returned, said):
    study, _ = job(lambda _: returned)
    assert states(study) == ["FAIL"]
    assert study.trials[0].user_attrs["error"].startswith(f"the objective {said}")


def test_an_infinite_objective_is_a_result(job):
    study, _ = job(lambda _: math.inf)
    assert (states(study), study.trials[0].value) == (["COMPLETE"], math.inf)


def test_a_job_that_exits_has_failed(job):
    study, returned = job(lambda _: sys.exit(3))
    assert (states(study), str(returned)) == (["FAIL"], "SystemExit: 3")


@pytest.mark.slow
def test_a_disk_that_fails_within_a_job_is_a_line_and_no_traceback(app):
    done = app("descent", *STUDY, X, "returns=full_disk", *options(n_trials=1, max_failure_rate=1))
    assert "Traceback" not in done.out + done.err
    assert "trial 0 failed: [Errno 28] No space left on device: 'model.pt'" in done.out
    assert states(load()) == ["FAIL"]


@pytest.mark.slow
def test_a_worker_whose_job_ends_its_process_is_a_failure_after_its_retries(tmp_path):
    more = options(n_trials=2, workers=2, max_retries=0)
    run_process(tmp_path, "descent", *STUDY, X, "returns=os_exit", *more, code=1)
    study = load(tmp_path / "out")
    assert set(states(study)) == {"FAIL"}
    assert study.trials[0].user_attrs["error"] == "ended (code 0) 1 times (hydra.sweeper.max_retries=0)"


@pytest.mark.slow
def test_a_pruner_ends_trials_that_do_worse_than_the_others(app):
    more = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2"]
    done = app("descent", *STUDY, X, *more, "hydra.sweeper.n_trials=12", SEED)
    assert "PRUNED" in states(load())
    for trial in (t for t in load().trials if t.state == TrialState.PRUNED):
        assert not Path(f"out/{trial.number}/done.txt").exists()
        assert f"pruned at step {trial.last_step}" in done.out


@pytest.mark.slow
def test_a_failed_trial_is_recorded_with_its_last_line_and_the_study_continues(app):
    more = options(n_trials=6, enqueue="[{x: 0.9}]", max_failure_rate=0.9)
    app("descent", *STUDY, "x=0,0.9", "fails_above=0.5", *more, SEED)  # or all six may draw 0.9
    study = load()
    assert states(study)[0] == "FAIL"
    assert len(study.trials) == 6
    assert study.trials[0].user_attrs["error"] == "ValueError: x is too large: True"
    assert "Traceback" in Path("out/0/descent.log").read_text()


def test_a_queued_job_that_starts_late_leaves_a_trial_that_somebody_has_begun_alone():
    study = optuna.create_study()
    asked = study.ask({"x": FloatDistribution(0, 1)})
    JobTrial(asked).begin("0", is_queued=True)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        JobTrial(asked).begin("0", is_queued=True)
    JobTrial(asked).begin("0")


def test_a_jobs_trial_that_is_given_back_keeps_its_attempt_and_one_that_was_taken_over_stays(tmp_path):
    study = optuna.create_study(storage=open_storage(str(tmp_path / "study.log")))
    asked = study.ask({"x": FloatDistribution(0, 1)})
    trial = JobTrial(asked)
    trial.begin("0")
    asked.set_user_attr("job", {"attempt": 2})
    trial.requeue()
    assert states(study) == ["RUNNING"]
    JobTrial(asked).requeue()
    assert states(study) == ["WAITING"]
    assert study.trials[0].user_attrs["job"] == {"attempt": 2}
