"""Runs trials as jobs of Hydra's launchers: takes them from the queue, and fails or requeues those without a result.

Also finds out what the launchers' interface does not report: how many jobs they run at once, and why they raise.
"""

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.internals import is_basic_launcher, job_error
from reg_sweep.search import interrupt
from reg_sweep.search.console import Progress
from reg_sweep.search.job import Heartbeat, Repeating, StudyTask
from reg_sweep.search.optuna_internals import frozen
from reg_sweep.search.settings import AUTO, Settings, StudyError
from reg_sweep.search.space import Space
from reg_sweep.search.storage import attempt_of, job_facts
from reg_sweep.search.trial import JobTrial
from reg_sweep.search.trial_queue import TrialQueue

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

POLL_S = 0.5  # how long an idle process waits before it polls the queue again
WATCH_S = 2.0  # polling interval for trials that run in other processes
MAX_BROKEN = 3  # launches in a row that raise before any job begins

_LAST_LINE = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b: ")  # of a traceback
_PACKAGES = ("joblib.", "submitit.", "ray.")
_ANSWER_S = 60  # a busy SLURM may take that long to answer


# ---- launchers


def usable_cores() -> int:
    """The number of cores that this process may use; the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def at_once(launcher: DictConfig) -> int:
    """The number of jobs that a launcher runs at once, by its own settings; 1 if no setting says so."""
    kind = _kind(launcher)
    if kind == "JoblibLauncher":
        n = int(launcher["n_jobs"])
        return n if n > 0 else max(1, usable_cores() + 1 + n)  # joblib counts from the number of cores: -1 is all
    if kind in ("SlurmLauncher", "PopulationLauncher"):
        return int(launcher["array_parallelism" if kind == "SlurmLauncher" else "members"])
    return max(1, usable_cores() // (launcher["cpus_per_task"] or 1)) if kind == "LocalLauncher" else 1


def is_population(launcher: DictConfig) -> bool:
    """Whether jobs train together in this process."""
    return _kind(launcher) == "PopulationLauncher"


def runs_here(launcher: DictConfig) -> bool:
    """Whether jobs run in this process, one after another or together."""
    return is_basic_launcher(launcher) or is_population(launcher)


def check_population(launcher: DictConfig, jobs: Sequence[DictConfig]) -> None:
    """Refuses a population whose runs can't train together; other launchers accept any jobs.

    Raises:
        StudyError: it has only one member, or the members differ in their images or devices.
    """
    if not is_population(launcher):
        return
    if len(jobs) == 1:
        raise StudyError(
            "+cluster=population must have several runs to train together, got one: leave it out, or add runs, such as "
            "-m seed=1,2"
        )
    for key in ("data.source", "data.root", "runtime"):
        values = {str(OmegaConf.select(job, key)) for job in jobs}
        if len(values) > 1:
            found = " and ".join(sorted(values)[:2])
            raise StudyError(
                f"{key} must be the same for all runs of +cluster=population, got {found}: start one command for each"
            )


def check_population_study(launcher: DictConfig, settings: Settings, keys: Collection[str]) -> None:
    """Refuses a study, over `keys`, whose trials can't train together.

    Raises:
        StudyError: a setting asks for separate processes or for one trial at a time; images or device are swept.
    """
    if not is_population(launcher):
        return
    rule = "with +cluster=population, whose trials train together in one process"
    if settings.workers not in (1, AUTO):
        raise StudyError(f"hydra.sweeper.workers must be 1 {rule}, got {settings.workers}: leave it out")
    if settings.n_jobs == 1:
        raise StudyError(f"hydra.sweeper.n_jobs must be at least 2 {rule}, got 1: leave it out")
    if settings.trial_timeout is not None:
        raise StudyError(f"hydra.sweeper.trial_timeout must be null {rule}, got {settings.trial_timeout}: leave it out")
    for key in keys:
        if key in ("data", "data.root") or key.startswith(("data.source", "runtime")):
            raise StudyError(f"{key} must not be swept {rule}: start one study for each value")


def check_launcher(launcher: DictConfig) -> None:
    """Refuses a launcher that can't start anything here, before anything is written.

    Raises:
        StudyError: it is SLURM's, and SLURM does not answer on this machine; or a population has one member.
    """
    if is_population(launcher) and launcher["members"] < 2:
        raise StudyError(f"hydra.launcher.members must be at least 2, got {launcher['members']}")
    if _kind(launcher) != "SlurmLauncher":
        return
    is_there = shutil.which("sbatch") is not None and shutil.which("srun") is not None
    trouble = _trouble("sinfo", "-h") if is_there else "no sbatch and srun"
    if trouble is not None:
        raise StudyError(
            f"hydra/launcher=submitit_slurm must be started where SLURM answers, got {trouble}: start it on a login"
            " node, or choose hydra/launcher=submitit_local"
        )
    trouble = _trouble("sacct", "-n", "-j", "1")
    if trouble is not None:
        log.warning("SLURM's accounting does not answer (%s): the sweep may wait forever for a killed job", trouble)


def _trouble(*command: str) -> str | None:
    """Why one of SLURM's programs does not answer, in one line; None if it answers."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1]


def reason(error: BaseException) -> str:
    """Why a launcher raised, in one line: the last line of a job's traceback, if the error quotes one."""
    lines = [line.strip(" |-") for line in str(error).splitlines()]
    last = [line for line in lines if _LAST_LINE.match(line) or "No module named" in line]
    said = [line for line in last[-1:] or lines[:1] if line]
    missing = "No module named" in "".join(said)
    remedy = ["the machine that runs the jobs needs the packages installed here"] if missing else []
    return ": ".join([type(error).__name__, *said, *remedy])


def launcher_error(error: BaseException) -> StudyError | None:
    """The one-line form of a launcher's own error in a grid; None for any other error."""
    if not type(error).__module__.startswith(_PACKAGES):
        return None
    return StudyError(f"the launcher raised {reason(error)}; finished jobs are kept: the same command runs the rest")


def _kind(launcher: DictConfig) -> str:
    return str(launcher["_target_"]).rpartition(".")[2]


# ---- trials as jobs


class LauncherError(StudyError):
    """The launcher raised repeatedly before any of its jobs began; no trial was spent."""


class TrialLauncher:
    """One process's part in a study: its trials, run as jobs until nothing is left to do."""

    def __init__(
        self,
        launcher: Launcher,
        task: StudyTask,
        *,
        heartbeat_s: float,
        at_once: int,
        in_process: bool,
        keeps_returns: bool = False,
    ) -> None:
        """Launches `task`, `at_once` jobs at a time.

        Args:
            launcher: Hydra's launcher.
            task: the app's function, as a study's job.
            heartbeat_s: the seconds between two heartbeats.
            at_once: the number of jobs that are launched together.
            in_process: whether the launcher runs jobs in this process rather than in others.
            keeps_returns: whether `returned` keeps the jobs' return values and configs: half a megabyte each.
        """
        self._launcher = launcher
        self._task = task
        self._heartbeat_s = heartbeat_s
        self._at_once = at_once
        self._in_process = in_process
        self._keeps_returns = keeps_returns
        self._common: list[str] = []  # overrides for jobs in other processes
        self.returned: list[JobReturn] = []  # of the jobs that this process launched, if they are kept
        self._n_broken = 0  # launches in a row that raised before any of their jobs began
        self._has_raised = False  # if so, its jobs may still run

    def equip(self, directory: Path, more: Callable[[], None]) -> None:
        """Tells jobs in other processes the sweep's absolute directory, and `more`, which takes further trials."""
        if not self._in_process:
            self._common = [f"hydra.sweep.dir={QuotedString(str(directory.absolute()), Quote.single).with_quotes()}"]
            self._task.more = more

    def run(self, queue: TrialQueue, space: Space, progress: Progress | None, *, waits: bool = True) -> None:
        """Takes and launches trials until none is left.

        With `waits`, stays while other processes run trials, to take over those of a process that dies.

        Raises:
            LauncherError: the launcher raised repeatedly before any of its jobs began.
        """
        try:
            self._run(queue, space, progress, waits=waits)
        finally:
            with suppress(Exception):  # if the storage fails, only the time up to its last trial is counted
                queue.note_time()

    def _run(self, queue: TrialQueue, space: Space, progress: Progress | None, *, waits: bool) -> None:
        is_waiting = False
        while True:
            interrupt.check()
            batch = queue.take(self._at_once, beside_others=not self._has_raised)
            if progress is not None:
                progress.update(batch.seen)
            again = {t.number for t in batch.trials if attempt_of(t) > 1}
            groups = consecutive(batch.trials, alone=again)
            try:
                while groups:
                    # A trial that runs again runs alone, and its job takes no further trials.
                    self._task.continues = not {t.number for t in groups[0]} & again
                    self._launch(groups[0], queue, space, progress)
                    del groups[0]
            finally:  # after an interrupt or a launcher's error, trials that have not begun return to the queue
                queue.requeue([t for group in groups[1:] for t in group])
            if not batch.trials and batch.others_run and waits:
                if not is_waiting:
                    running = [str(t.number) for t in batch.seen if t.state.name == "RUNNING"]
                    log.info("waiting for trials that run in other processes: %s", ", ".join(running))
                is_waiting = True
                time.sleep(POLL_S)
            elif not batch.trials:
                return

    def _launch(self, trials: "list[optuna.Trial]", queue: TrialQueue, space: Space, progress: Progress | None) -> None:
        """Launches trials with consecutive numbers as jobs with the same numbers."""
        try:
            overrides = [[*space.job(t), *self._common] for t in trials]
        except StudyError:  # a function of the app failed: the trials run once it is fixed
            queue.requeue(trials)
            raise
        self._task.hand_out(trials, progress)
        trouble: str | None = None
        try:
            with self._watched(trials, queue, progress):
                returned = self._launcher.launch(overrides, initial_job_idx=trials[0].number)
            if self._keeps_returns:
                self.returned += returned
            # Return values are read only for this: a job that could not begin could not write that to the storage.
            trouble = None if self._in_process else self._unbegun_because(trials, returned)
        except BaseException as error:
            if not isinstance(error, Exception) and (self._in_process or not _is_jobs_own(error)):  # an interrupt
                if self._in_process:  # jobs in other processes may still run: their heartbeats decide
                    queue.requeue(trials)
                raise
            # The launchers for joblib, submitit and Ray raise when one job is killed, and drop the batch's results.
            # Nothing is lost: the other jobs have written their results to the storage.
            trouble = reason(error)
            log.warning("the launcher raised %s", trouble)
        finally:
            # Always, or the next batch would find these trials under its numbers.
            unfinished = self._task.take_back()
        if self._task.storage_error is not None:
            raise self._task.storage_error
        if self._in_process:  # no other process will finish them
            for trial in unfinished:
                queue.fail(trial, trouble or "the job ended without a result")
        elif trouble is not None:
            self._clear_up(trials, queue, trouble)
        else:
            self._n_broken = 0

    def _unbegun_because(self, trials: "list[optuna.Trial]", returned: Sequence[JobReturn]) -> str | None:
        """The error of a job that ended without beginning its trial; None if all trials were begun."""
        if all(now.state.name != "RUNNING" or "directory" in job_facts(now) for now in map(frozen, trials)):
            return None
        errors = [error for error in map(job_error, returned) if error is not None]
        trouble = reason(errors[0]) if errors else "the job ended without a message"
        log.warning("a job could not begin its trial: %s", trouble)
        return trouble

    @contextmanager
    def _watched(self, trials: "list[optuna.Trial]", queue: TrialQueue, progress: Progress | None) -> Iterator[None]:
        """While jobs run in other processes: sends heartbeats for queued ones, shows ended ones, kills hung ones."""
        if self._in_process:
            yield
            return

        def watch() -> None:
            with suppress(Exception):  # the storage may be unreachable for a moment
                if progress is not None:
                    progress.update(queue.trials())
                for trial in queue.expire_hung():
                    kill_own_process(trial)

        with Heartbeat(list(map(JobTrial, trials)), self._heartbeat_s), Repeating(watch, WATCH_S):
            yield

    def _clear_up(self, trials: "list[optuna.Trial]", queue: TrialQueue, trouble: str) -> None:
        """After the launcher raised: requeues trials whose process died on this machine, and those not yet begun.

        Raises:
            LauncherError: no job began in `MAX_BROKEN` launches in a row.
        """
        self._has_raised = True
        queue.reclaim_dead(f"its process died ({trouble})")
        unbegun = [t for t in trials if "directory" not in job_facts(frozen(t))]
        self._n_broken = self._n_broken + 1 if len(unbegun) == len(trials) else 0
        queue.requeue(unbegun)
        if self._n_broken >= MAX_BROKEN:
            raise LauncherError(
                f"the launcher raised {trouble}, {self._n_broken} times before any job began; no trial was spent"
            )


def _is_jobs_own(error: BaseException) -> bool:
    """Whether a KeyboardInterrupt came from a job: this process received no signal."""
    return isinstance(error, KeyboardInterrupt) and interrupt.is_handled() and interrupt.received() is None


def kill_own_process(trial: "FrozenTrial") -> None:
    """Kills the process of a hung job, if this one started it: C code that holds the GIL can't be stopped otherwise."""
    facts = job_facts(trial)
    if facts.get("host") != socket.gethostname() or os.name == "nt":
        return
    pid = ancestor = facts.get("pid", 0)
    while ancestor > 1 and ancestor != os.getpid():
        done = subprocess.run(["ps", "-o", "ppid=", "-p", str(ancestor)], capture_output=True, text=True, check=False)
        ancestor = int(done.stdout.strip() or 0)
    if ancestor == os.getpid() != pid:
        log.error("trial %d did not end within its time limit: its process is killed", trial.number)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def consecutive(trials: "Sequence[optuna.Trial]", alone: Collection[int] = ()) -> "list[list[optuna.Trial]]":
    """Splits a batch into groups of consecutive numbers, as launchers number their jobs.

    Args:
        trials: the batch.
        alone: numbers to launch alone. If one job dies, launchers with several processes end the whole batch. Launched
            alone, a requeued job fails only by its own fault.
    """
    groups: list[list[optuna.Trial]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        last = groups[-1][-1].number if groups else None
        if last is not None and last + 1 == trial.number and not {last, trial.number} & set(alone):
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups
