"""Workers: processes that run the same command and share the study only through its storage."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from reg_sweep.hydra_app.command_line import TypedCommand
from reg_sweep.hydra_app.internals import is_basic_launcher
from reg_sweep.runs.addresses import is_secret
from reg_sweep.search import interrupt
from reg_sweep.search.console import Progress
from reg_sweep.search.job import stopping_s
from reg_sweep.search.launchers import usable_cores
from reg_sweep.search.settings import AUTO, StudyError
from reg_sweep.search.storage import StudyPlace, job_facts
from reg_sweep.search.trial_queue import TrialQueue

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

WORKER_VARIABLE = "REG_SWEEP_WORKER"
POLL_S = 0.5
MAX_CONSECUTIVE_DEATHS = 3  # a worker that died this often in a row without beginning a trial is not replaced
MAX_WORKERS = 8  # with workers=auto
PATIENCE_S = 10  # for workers to end when asked


@dataclass(frozen=True)
class Orders:
    """The orders that make a process a worker: its number, counted from 0, and the study's place.

    The place is included because a worker composes its config later than the sweeper: a time stamp would differ.
    """

    index: int
    dir: str
    study_name: str
    location: str | None  # of the storage; None if it may hold a password: the worker then reads its own config

    @classmethod
    def of(cls, index: int, place: StudyPlace) -> "Orders":
        """The orders of a worker of the study at this place."""
        location = None if is_secret(place.location) else place.location
        return cls(index, str(place.directory.absolute()), place.name, location)

    @classmethod
    def from_environment(cls) -> "Orders | None":
        """Returns this process's orders, or None if it is not a worker.

        The variable is removed so that child processes don't inherit it.
        """
        text = os.environ.pop(WORKER_VARIABLE, None)
        return None if text is None else cls(**json.loads(text))

    def environment(self) -> dict[str, str]:
        """The environment variable that passes these orders to a new process."""
        return {WORKER_VARIABLE: json.dumps(asdict(self))}


def usable_workers(n_trials: int) -> int:
    """The number of workers with `workers=auto`: the usable cores or the trials left, if fewer, and at most 8.

    Each worker computes on one core: on 2 cores, small networks then train 1.4 to 1.7 times as many trials a minute as
    trials that use both cores one after another. At most 8, because each holds its images and libraries: about 1 GB.
    """
    return max(1, min(usable_cores(), n_trials, MAX_WORKERS))


def started_command(typed: TypedCommand | None) -> list[str]:
    """The command that started this process, which also starts workers.

    Raises:
        StudyError: the sweep was not started from a command line.
    """
    # orig_argv, not argv: it still has -m and the interpreter's own options.
    command = [sys.executable, *sys.orig_argv[1:]]
    if typed is None or not set(typed.overrides) <= set(command):
        raise StudyError("hydra.sweeper.workers must be 1 if the app was not started from a command line")
    return command


def workers_of(
    asked: int | str, n_trials: int, config: DictConfig, typed: TypedCommand | None, command: list[str] | None
) -> tuple[int, list[str]]:
    """The number of processes to share the rest of a sweep, and the command that starts one.

    `(1, [])` means this process alone.

    Args:
        asked: `hydra.sweeper.workers`.
        n_trials: the number of trials that are left.
        config: the sweep's config.
        typed: the command line that started the sweep.
        command: the command that starts a worker; None for the one that started this process.

    Raises:
        StudyError: a number of workers was asked for, but no command can start them.
    """
    n = usable_workers(n_trials) if asked == AUTO else min(int(asked), max(1, n_trials))
    is_basic = is_basic_launcher(config.hydra.launcher)
    # With a time limit, even one worker gets a process of its own, which can be killed if its job hangs.
    is_limited = config.hydra.sweeper.trial_timeout is not None and is_basic
    if (n == 1 and not is_limited) or (asked == AUTO and not is_basic):  # a launcher has workers of its own
        return 1, []
    try:
        return n, command or started_command(typed)
    except StudyError:
        if asked != AUTO and n > 1:
            raise
        return 1, []


class Workers:
    """A sweep's worker processes; one that dies is replaced."""

    def __init__(
        self, n: int, command: list[str], cwd: str, place: StudyPlace, trial_timeout_s: float | None = None
    ) -> None:
        """`run` starts `command` n times in `cwd`; each worker's output goes to a log in the sweep's directory."""
        self._limit_s = None if trial_timeout_s is None else trial_timeout_s + 2 * stopping_s(trial_timeout_s)
        self._busy: dict[int, tuple[int, float]] = {}  # by process id: the worker's trial, and when it began
        self._n = n
        self._command = command
        self._cwd = cwd
        self._place = place
        self._directory = place.directory
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._consecutive_deaths = dict.fromkeys(range(n), 0)  # since each worker's last trial

    def run(self, queue: TrialQueue, progress: Progress) -> None:
        """Runs the workers until all are done.

        Raises:
            StudyError: no worker lived long enough to begin a trial.
        """
        try:
            for index in range(self._n):
                self._start(index)
            while self._processes:
                time.sleep(POLL_S)
                interrupt.check()
                trials = queue.trials()
                progress.update(trials)
                self._end_hung(trials)
                self._replace_the_dead(queue)
        finally:
            _end(list(self._processes.values()))
        # While one worker lives, the study continues; the exit codes of the others were logged.
        if all(n >= MAX_CONSECUTIVE_DEATHS for n in self._consecutive_deaths.values()):
            raise StudyError(f"every worker died before it began a trial: see {self._directory}/worker_0.log")

    def _start(self, index: int) -> None:
        # Divides the cores: by default every worker would start threads on all of them. A value set by the user wins.
        threads = max(1, usable_cores() // self._n)
        orders = Orders.of(index, self._place)
        # Appended to, so that the output of a worker that died remains above that of its successor.
        with (self._directory / f"worker_{index}.log").open("ab") as output:
            self._processes[index] = subprocess.Popen(
                self._command,
                env={"OMP_NUM_THREADS": str(threads), **os.environ, **orders.environment()},
                cwd=self._cwd,
                stdin=subprocess.PIPE,  # never written to: it closes when this process dies, and ends the worker
                stdout=output,
                stderr=output,
                start_new_session=True,  # a terminal's Ctrl+C is for this process, which then ends its workers
            )

    def _end_hung(self, trials: "Sequence[FrozenTrial]") -> None:
        """Kills workers whose job is far beyond its time limit, such as C code that lets no other thread run."""
        if self._limit_s is None:
            return
        now, host = time.monotonic(), socket.gethostname()
        for trial in trials:
            facts = job_facts(trial)
            if "pid" not in facts or facts.get("host") != host:
                continue
            pid = facts["pid"]
            if trial.state.is_finished():
                if self._busy.get(pid, (None,))[0] == trial.number:
                    del self._busy[pid]
            elif trial.state.name == "RUNNING" and self._busy.get(pid, (None,))[0] != trial.number:
                self._busy[pid] = trial.number, now
        for process in self._processes.values():
            number, since = self._busy.get(process.pid, (None, now))
            if now - since > self._limit_s:
                log.error("trial %s did not end within its time limit: its process is killed", number)
                process.kill()
                process.wait()

    def _replace_the_dead(self, queue: TrialQueue) -> None:
        for index, process in list(self._processes.items()):
            if process.poll() is None:
                continue
            del self._processes[index]
            _close(process)
            # Requeue the trial before the successor starts, so that it takes this one instead of drawing a new one.
            # Also after exit code 0, which a worker may have within a trial.
            had_begun, was_within = queue.reclaim_from_dead_worker(process.pid, death_text(process.returncode))
            if process.returncode == 0 and not was_within:
                continue
            self._consecutive_deaths[index] = 0 if had_begun else self._consecutive_deaths[index] + 1
            log.warning("worker %d %s", index, death_text(process.returncode))
            if self._consecutive_deaths[index] < MAX_CONSECUTIVE_DEATHS:
                self._start(index)


def death_text(code: int) -> str:
    """'ended (code 1)', 'ended by SIGSEGV'."""
    if code >= 0:
        return f"ended (code {code})"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def die_with_sweeper() -> None:
    """Ends this worker as soon as the sweeper, which holds the other end of its standard input, dies.

    Only Linux can signal the death of a parent; a closed pipe is noticed everywhere.
    """

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin: this thread would hold its lock when the worker ends by itself
            pass
        interrupt.end_process()

    threading.Thread(target=wait, daemon=True).start()


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Asks workers to requeue their trials and end; kills those that don't within `PATIENCE_S`."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + PATIENCE_S  # for all of them together
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        _close(worker)


def _close(worker: subprocess.Popen[bytes]) -> None:
    """Closes the pipe of a worker that has ended."""
    assert worker.stdin is not None
    worker.stdin.close()
