"""Trials as jobs of Hydra's launchers, and what is known of these."""

import socket
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.trial import TrialState
from toy_apps import STUDY, X, load, options, plan_of, run_process, states

from reg_sweep.search import launchers
from reg_sweep.search.job import StudyTask
from reg_sweep.search.launchers import (
    LauncherError,
    TrialLauncher,
    at_once,
    check_launcher,
    consecutive,
    launcher_error,
    reason,
)
from reg_sweep.search.optuna_internals import trial_of_number
from reg_sweep.search.settings import StudyError
from reg_sweep.search.storage import open_storage
from reg_sweep.search.trial_queue import TrialQueue


@pytest.mark.slow
def test_batches_go_to_the_launcher_at_once(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2")
    assert states(load()) == ["COMPLETE"] * 5
    assert all(Path(f"out/{n}/done.txt").exists() for n in range(5))


@pytest.mark.slow
def test_joblibs_jobs_tell_their_own_results_also_where_one_is_killed(tmp_path):
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    more = options(n_jobs=2, n_trials=4, enqueue="[{x: 0.1}, {x: 0.9}]", heartbeat_interval=0.2, grace_period=2)
    run_process(tmp_path, "descent", *STUDY, "x=0.1,0.9", *joblib, *more, "kills_itself_above=0.8", "epochs=3")
    study = load(tmp_path / "out")
    assert states(study) == ["COMPLETE"] * 4
    assert study.trials[1].user_attrs["job"]["attempt"] == 2
    assert (tmp_path / "out/1/steps.txt").read_text() == "1\n2\n3\n"


@pytest.mark.slow
def test_a_batch_of_jobs_has_no_barrier(tmp_path):
    """One job waits until the other has ended all short trials; in batches of two, they would wait for it instead."""
    points = ["{x: 0.1, waits_for: 5}", *(f"{{x: {x}, waits_for: 0}}" for x in (0.1, 0.2, 0.3, 0.4, 0.5))]
    space = ["x=interval(0, 1)", "waits_for=choice(0, 5)", "epochs=2"]
    more = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *options(n_trials=6, enqueue=f"[{','.join(points)}]")]
    run_process(tmp_path, "descent", *STUDY, *space, *more)
    _, *others = load(tmp_path / "out").trials
    assert len({t.user_attrs["job"]["pid"] for t in others}) == 1
    assert states(load(tmp_path / "out")) == ["COMPLETE"] * 6


class Launcher:
    """A launcher in this process, which does with its first jobs what a test says."""

    def __init__(self, *jobs):
        self.jobs = list(jobs)
        self.launched = []

    def launch(self, overrides, initial_job_idx):
        self.launched.append((initial_job_idx, overrides))
        return (self.jobs.pop(0)() if self.jobs else None) or []


@pytest.fixture
def run(tmp_path):
    """Runs a study with a launcher whose jobs tell nothing of themselves; gives the study."""

    def func(launcher, *, in_process=True, **settings):
        study = func.study = optuna.create_study(storage=open_storage(str(tmp_path / "study.log")))
        plan = plan_of("x=interval(0, 1)", max_failure_rate=1, **settings)
        task = StudyTask(lambda config: None)
        runner = TrialLauncher(launcher, task, heartbeat_s=5, at_once=plan.settings.n_jobs or 1, in_process=in_process)
        try:
            runner.run(TrialQueue(study, plan), plan.space, progress=None)
        except KeyboardInterrupt:
            assert task.take_back() == []
        return study

    return func


def broken():
    raise OSError("no such queue\nand more")


def test_a_job_that_ends_without_a_word_or_whose_launcher_raises_is_a_failure(run):
    launcher = Launcher(broken)
    study = run(launcher, n_trials=2)
    errors = ["OSError: no such queue", "the job ended without a result"]
    assert [(t.state.name, t.user_attrs["error"]) for t in study.trials] == [("FAIL", error) for error in errors]
    assert launcher.launched == [(t.number, [[f"x={t.params['x']}"]]) for t in study.trials]


@pytest.mark.parametrize(("in_process", "state"), [(True, "WAITING"), (False, "RUNNING")])
def test_an_interrupt_gives_a_trial_back_unless_its_job_may_live_on(run, in_process, state):
    def interrupted():
        raise KeyboardInterrupt

    assert states(run(Launcher(interrupted), in_process=in_process, n_trials=2)) == [state]


def test_a_launcher_that_always_raises_ends_the_sweep_at_once_and_spends_no_trial(run):
    with pytest.raises(LauncherError, match="the launcher raised OSError: no such queue, 3 times before any job began"):
        run(Launcher(*[broken] * 9), in_process=False, n_trials=4, n_jobs=2)
    assert states(run.study) == ["WAITING"] * 2
    assert [t.user_attrs["job"] for t in run.study.trials] == [{"attempt": 1}] * 2


def test_why_no_job_can_begin_its_trial_is_told_in_the_jobs_words_and_spends_no_trial(run):
    def refused():
        return [JobReturn(_return_value=StudyError("the folder is not shared"), status=JobStatus.FAILED)]

    with pytest.raises(LauncherError, match="StudyError: the folder is not shared, 3 times before any job began"):
        run(Launcher(*[refused] * 9), in_process=False, n_trials=1)
    assert states(run.study) == ["WAITING"]


def test_what_died_in_a_launchers_processes_runs_again_alone_and_what_had_not_begun_is_spent_by_nobody(run):
    """A process that is killed takes its neighbours along: only one of them is to blame."""

    def killed():
        facts = {"attempt": 1, "host": socket.gethostname(), "pid": 2**22 + 1, "directory": "0"}
        for number in (0, 1):
            trial_of_number(run.study, number).set_user_attr("job", facts)
        raise OSError("a worker died")

    def told():
        for trial in run.study.trials:
            if trial.state == TrialState.RUNNING:
                run.study.tell(trial.number, 1.0)

    launcher = Launcher(killed, told, told, told)
    run(launcher, in_process=False, n_trials=3, n_jobs=3)
    assert states(run.study) == ["COMPLETE"] * 3
    assert [t.user_attrs["job"]["attempt"] for t in run.study.trials] == [2, 2, 1]
    assert [len(overrides) for _, overrides in launcher.launched][:2] == [3, 1]


@pytest.mark.parametrize(
    ("numbers", "alone", "groups"),
    [((7, 2, 3, 5, 8), (), [[2, 3], [5], [7, 8]]), ((0, 1, 2, 3), {1}, [[0], [1], [2, 3]])],
    ids=["jumps", "alone"],
)
def test_a_batch_is_split_where_its_numbers_jump_and_around_what_runs_alone(numbers, alone, groups):
    trials = [SimpleNamespace(number=n) for n in numbers]
    assert [[t.number for t in group] for group in consecutive(trials, alone=alone)] == groups


# ---- what is known of Hydra's launchers


SUBMITIT = """Job (task=0) failed during processing with trace:
----------------------
Traceback (most recent call last):
  File "submitit/core/submission.py", line 55, in process_job
    delayed = utils.DelayedSubmission.load(paths.submitted_pickle)
ModuleNotFoundError: No module named 'reg_sweep'

----------------------
You can check full logs with 'job.stderr(0)'"""


def launcher(kind, **settings):
    return OmegaConf.create({"_target_": f"hydra_plugins.somewhere.{kind}", **settings})


def test_a_launcher_gets_as_many_trials_as_it_runs_at_once(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert at_once(launcher("JoblibLauncher", n_jobs=3)) == 3
    assert [at_once(launcher("JoblibLauncher", n_jobs=n)) for n in (-1, -2, -9)] == [8, 7, 1]
    assert at_once(launcher("SlurmLauncher", array_parallelism=16, cpus_per_task=4)) == 16
    assert [at_once(launcher("LocalLauncher", cpus_per_task=n)) for n in (None, 3, 20)] == [8, 2, 1]
    assert at_once(launcher("BasicLauncher")) == at_once(launcher("RayLauncher")) == 1


def test_of_a_jobs_traceback_the_last_word_is_told_with_its_remedy():
    said, remedy = reason(RuntimeError(SUBMITIT)), "the machine that runs the jobs needs the packages installed here"
    assert said == f"RuntimeError: ModuleNotFoundError: No module named 'reg_sweep': {remedy}"
    assert reason(OSError("no such queue\nand more")) == "OSError: no such queue"
    assert reason(ValueError()) == "ValueError"


def test_an_error_of_a_launchers_own_is_one_line_and_any_other_is_left_alone():
    theirs = type("FailedJobError", (Exception,), {"__module__": "submitit.core.utils"})
    assert "FailedJobError: ModuleNotFoundError" in str(launcher_error(theirs(SUBMITIT)))
    assert launcher_error(ValueError("mine")) is None


def test_a_machine_without_slurm_is_told_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    check_launcher(launcher("JoblibLauncher"))
    with pytest.raises(StudyError, match="must be started where SLURM answers, got no sbatch and srun: start it on"):
        check_launcher(launcher("SlurmLauncher"))


@pytest.mark.parametrize(("answers", "word"), [({"sinfo": "busy"}, "got busy"), ({"sacct": "disabled"}, None)])
def test_a_slurm_that_does_not_answer_is_refused_and_one_without_accounting_warned_of(
    monkeypatch, tmp_path, caplog, answers, word
):
    for program in ("sbatch", "srun", "sinfo", "sacct"):
        path = tmp_path / program
        path.write_text(f"#!/bin/sh\necho {answers[program]} >&2; exit 1\n" if program in answers else "#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    if word is not None:
        with pytest.raises(StudyError, match=word):
            check_launcher(launcher("SlurmLauncher"))
        return
    check_launcher(launcher("SlurmLauncher"))
    assert "SLURM's accounting does not answer (disabled)" in caplog.text
    assert launchers.log.name == caplog.records[0].name
