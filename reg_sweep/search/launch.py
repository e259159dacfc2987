"""Trials as jobs of Hydra's launcher: claimed, launched, and failed or given back where a job told no end."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher

from reg_sweep.hydra_app.internals import job_error
from reg_sweep.search import interrupt
from reg_sweep.search.heartbeat import Heartbeat, Repeating
from reg_sweep.search.launchers import reason
from reg_sweep.search.optuna_internals import frozen
from reg_sweep.search.progress import Progress
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import Space
from reg_sweep.search.storage import attempt_of, job_facts
from reg_sweep.search.task import StudyTask
from reg_sweep.search.trial import StudyTrial
from reg_sweep.search.trial_queue import TrialQueue

if TYPE_CHECKING:
    import optuna

log = getLogger(__name__)

POLL_S = 0.5  # how long a process without work waits before it looks again
SHOW_S = 2.0  # between two looks at what other processes have ended
MAX_BROKEN = 3


class LauncherError(StudyError):
    """The launcher raises before any job of its begins, again and again; no trial was spent."""


class TrialLauncher:
    """One process's part in a study: its trials, run as jobs until nothing is left to do."""

    def __init__(
        self, launcher: Launcher, task: StudyTask, *, heartbeat_s: float, at_once: int, in_process: bool
    ) -> None:
        """Launches `task`, `at_once` jobs at a time.

        `in_process` says that the launcher runs it here, and not in processes of its own.
        """
        self._launcher = launcher
        self._task = task
        self._heartbeat_s = heartbeat_s
        self._at_once = at_once
        self._in_process = in_process
        self._common: list[str] = []  # overrides of jobs in other processes
        self._n_broken = 0  # launches in a row that raised before any of their jobs began
        self._has_raised = False  # what a launcher that raises leaves behind may go on

    def equip(self, directory: Path, more: Callable[[], None]) -> None:
        """Gives jobs in other processes the sweep's directory, wherever these work, and what they go on with."""
        if not self._in_process:
            self._common = [f"hydra.sweep.dir={QuotedString(str(directory.absolute()), Quote.single).with_quotes()}"]
            self._task.more = more

    def run(self, queue: TrialQueue, space: Space, progress: Progress | None, *, waits: bool = True) -> None:
        """Claims and launches until nothing is left to do; `waits` while others run, in case they die.

        Raises:
            LauncherError: the launcher raises before any job of its begins, again and again.
        """
        while True:
            interrupt.check()
            claim = queue.claim(self._at_once, beside_others=not self._has_raised)
            if progress is not None:
                progress.update(claim.seen)
            again = {t.number for t in claim.trials if attempt_of(frozen(t)) > 1}
            groups = consecutive(claim.trials, alone=again)
            try:
                while groups:
                    # One that runs again, alone, is all that its job shall do: the next would wait for it.
                    self._task.goes_on = not {t.number for t in groups[0]} & again
                    self._launch(groups[0], queue, space, progress)
                    del groups[0]
            finally:  # an interrupt, or a broken launcher: what nobody has begun goes back
                queue.give_back([t for group in groups[1:] for t in group])
            if not claim.trials and claim.others_run and waits:
                time.sleep(POLL_S)
            elif not claim.trials:
                return

    def _launch(self, trials: "list[optuna.Trial]", queue: TrialQueue, space: Space, progress: Progress | None) -> None:
        """Launches trials of consecutive numbers as the jobs of these numbers."""
        try:
            overrides = [[*space.job(t), *self._common] for t in trials]
        except StudyError:  # a function of the app's is at fault: once it is mended, the trials go on
            queue.give_back(trials)
            raise
        self._task.hand_out(trials, progress)
        trouble: str | None = None
        try:
            with self._watched(trials, queue, progress):
                returned = self._launcher.launch(overrides, initial_job_idx=trials[0].number)
            # Of what comes back only that a job could not begin is read, which it can tell nobody else.
            trouble = None if self._in_process else self._unbegun_because(trials, returned)
        except BaseException as error:
            if not isinstance(error, Exception) and (self._in_process or not _is_jobs_own(error)):  # an interrupt
                if self._in_process:  # jobs in other processes may live on: their heartbeats decide
                    queue.give_back(trials)
                raise
            # Whatever a launcher makes of a dead job; the others have told their results. Those of joblib, submitit and
            # Ray raise when one job is killed, and drop every result of the batch. So no result is taken from a
            # launcher.
            trouble = reason(error)
            log.warning("the launcher raised %s", trouble)
        finally:
            # Whatever happened: the next batch must not find these under its numbers.
            untold = self._task.take_back()
        if self._task.storage_error is not None:
            raise self._task.storage_error
        if self._in_process:  # nobody else will tell
            for trial in untold:
                queue.fail(trial, trouble or "the job ended without a result")
        elif trouble is not None:
            self._clear_up(trials, queue, trouble)
        else:
            self._n_broken = 0

    def _unbegun_because(self, trials: "list[optuna.Trial]", returned: Sequence[JobReturn]) -> str | None:
        """Why a trial was not begun although its job has ended, in the job's words; None where all were."""
        if all(now.state.name != "RUNNING" or "directory" in job_facts(now) for now in map(frozen, trials)):
            return None
        errors = [error for error in map(job_error, returned) if error is not None]
        trouble = reason(errors[0]) if errors else "a job that ended without a word"
        log.warning("a job could not begin its trial: %s", trouble)
        return trouble

    @contextmanager
    def _watched(self, trials: "list[optuna.Trial]", queue: TrialQueue, progress: Progress | None) -> Iterator[None]:
        """While jobs run in other processes: beats for those that are queued, and shows what has ended."""
        if self._in_process:
            yield
            return

        def show() -> None:
            with suppress(Exception):  # a storage out of reach for a moment
                if progress is not None:
                    progress.update(queue.trials())

        with Heartbeat(list(map(StudyTrial, trials)), self._heartbeat_s), Repeating(show, SHOW_S):
            yield

    def _clear_up(self, trials: "list[optuna.Trial]", queue: TrialQueue, trouble: str) -> None:
        """After a launcher that raised: takes back what has died here, and what has not begun.

        Raises:
            LauncherError: nothing has begun for the last time that is waited for.
        """
        self._has_raised = True
        queue.reclaim_dead(f"its process died ({trouble})")
        unbegun = [t for t in trials if "directory" not in job_facts(frozen(t))]
        self._n_broken = self._n_broken + 1 if len(unbegun) == len(trials) else 0
        queue.give_back(unbegun)
        if self._n_broken >= MAX_BROKEN:
            raise LauncherError(
                f"the launcher raised {trouble}, {self._n_broken} times before any job began; no trial was spent"
            )


def _is_jobs_own(error: BaseException) -> bool:
    """Whether a KeyboardInterrupt came back from a job, for no signal has come to this process."""
    return isinstance(error, KeyboardInterrupt) and interrupt.is_handled() and interrupt.received() is None


def consecutive(trials: "Sequence[optuna.Trial]", alone: Collection[int] = ()) -> "list[list[optuna.Trial]]":
    """Splits a batch where its numbers jump: launchers number their jobs consecutively.

    Args:
        alone: numbers that share their launch with none. What died in a batch may have died of a neighbour, whom
            launchers of several processes take along; again, it shall die by itself or not at all.
    """
    groups: list[list[optuna.Trial]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        last = groups[-1][-1].number if groups else None
        if last is not None and last + 1 == trial.number and not {last, trial.number} & set(alone):
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups
