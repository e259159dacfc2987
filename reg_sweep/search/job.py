"""Runs a trial's job, in any process that a launcher uses: the app's function, with heartbeats from a thread."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from reg_sweep.runs.files import HeldError, is_of_disk
from reg_sweep.search import interrupt
from reg_sweep.search.console import Progress
from reg_sweep.search.optuna_internals import trial_of_number
from reg_sweep.search.settings import make_pruner, seconds_of
from reg_sweep.search.storage import check_shared, opened_storage, storage_location, study_name, unreachable
from reg_sweep.search.trial import JobError, JobTrial, running

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

HELD_POLL_S = 0.5
MAX_STOPPING_S = 10.0  # how long a job may take at most to stop after its time limit


def stopping_s(limit_s: float) -> float:
    """The seconds that a job with this time limit has to stop by itself once the limit is reached."""
    return min(limit_s, MAX_STOPPING_S)


def expired_text(limit: Any) -> str:
    """The error of a trial that was stopped at its time limit."""
    return f"stopped after hydra.sweeper.trial_timeout={limit}"


# ---- heartbeats


class Beating(Protocol):
    """A trial that can write a heartbeat."""

    @property
    def number(self) -> int:
        """The trial's number."""
        ...

    def beat(self, directory: str | None) -> None:
        """Writes a heartbeat to the trial, with the job's directory."""


class Repeating:
    """Calls a function at regular intervals, in a separate thread, until the block ends."""

    def __init__(self, function: Callable[[], None], interval_s: float) -> None:
        """Makes the first call after `interval_s` seconds."""
        self._function, self._interval_s = function, interval_s
        self._done = threading.Event()
        # A daemon thread, so that it does not keep the process from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            self._function()

    def __enter__(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stops the thread, after its last call has returned."""
        self._done.set()
        self._thread.join()


class Heartbeat(Repeating):
    """Sends heartbeats for trials until the block ends: a heartbeat after the result would be refused.

    This needs a thread, because the app's function offers no loop to hook into.
    """

    def __init__(self, trials: Sequence[Beating], interval_s: float, directory: str | None = None) -> None:
        """Sends a heartbeat every `interval_s` seconds; `directory` is the job's, None for queued jobs."""
        super().__init__(self._beat, interval_s)
        self._trials, self._directory = trials, directory

    def _beat(self) -> None:
        for trial in self._trials:
            try:
                trial.beat(self._directory)
            except Exception as error:  # the storage may be unreachable for a moment: the grace period decides
                log.warning("trial %d: no heartbeat written: %s", trial.number, type(error).__name__)


@contextmanager
def _limited(trial: JobTrial, limit: Any, *, may_end_process: bool) -> Iterator[None]:
    """Ends the job in the block when its time limit is reached.

    The job is interrupted wherever Python runs or waits. If it has not ended a few seconds later, as in C code, the
    trial is failed and, with `may_end_process`, its process ends.
    """
    seconds = None if limit is None else seconds_of(limit)
    if seconds is None:
        yield
        return

    def stop() -> None:
        said = expired_text(limit)
        with suppress(JobError):
            trial.finish(error=said)
        if may_end_process:
            log.error("trial %d: %s: it did not stop by itself, so its process ends", trial.number, said)
            logging.shutdown()
            interrupt.end_process()
        log.error("trial %d: %s: it keeps running in the sweeper's process, which is not ended", trial.number, said)

    timer = threading.Timer(seconds + stopping_s(seconds), stop)
    timer.daemon = True
    timer.start()
    try:
        with interrupt.time_limit(seconds):
            yield
    finally:
        timer.cancel()


# ---- the job


@contextmanager
def _loaded_trial(number: int) -> "Iterator[optuna.Trial]":
    """Loads the trial with the running job's number, using only the job's config.

    Raises:
        StudyError: the storage can't be reached, or the sweep's directory is not shared with this machine.
    """
    import optuna

    hydra = HydraConfig.get()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_shared(Path(hydra.runtime.cwd) / hydra.sweep.dir)
    location = storage_location(hydra.sweeper, hydra)
    with opened_storage(location, waits=True) as storage:
        try:
            # Loaded, never created: if processes create one study at the same time, all but one fail.
            study = optuna.load_study(
                study_name=study_name(hydra.sweeper, hydra),
                storage=storage,
                sampler=optuna.samplers.RandomSampler(),  # never asked here
                pruner=make_pruner(OmegaConf.to_container(hydra.sweeper.pruner, resolve=True)),
            )
            trial = trial_of_number(study, number)
        except optuna.exceptions.StorageInternalError as error:
            raise unreachable(location, error) from None
        yield trial


class StudyTask:
    """The app's function as a job of a study: it sends heartbeats while it runs, and writes its own result.

    In the sweeper's process, a job finds its trial among those handed out. In another process, it loads its trial by
    its number. Once that has ended, it runs further trials, so that no job waits for the rest of its batch.

    Attributes:
        function: the app's function.
        continues: whether a job in another process runs other trials after its own.
        storage_error: the error of a job in this process that could not write its result.
        is_workers: whether this process is a worker, which may be ended if its job hangs: it is replaced.
    """

    def __init__(self, function: TaskFunction, more: Callable[[], None] | None = None) -> None:
        """Wraps an app's function; Hydra and its callbacks find the function itself under `__wrapped__`.

        `more` runs further trials of the study in a job's process; launchers pickle it.
        """
        self.function = function
        self.__wrapped__ = function
        self.more, self.continues = more, True
        self._handed_out: dict[int, optuna.Trial] = {}
        self._progress: Progress | None = None
        self._process: int | None = os.getpid()
        self.storage_error: Exception | None = None
        self.is_workers = False

    @classmethod
    def elsewhere(cls, function: TaskFunction, more: Callable[[], None] | None) -> "StudyTask":
        """The task in a launcher's process, where no trials are handed out."""
        task = cls(function, more)
        task._process = None
        return task

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles only functions: a `Trial` holds open connections, which can't leave their process."""
        return StudyTask.elsewhere, (self.function, self.more if self.continues else None)

    def hand_out(self, trials: Sequence["optuna.Trial"], progress: Progress | None) -> None:
        """Provides the trials for jobs in this process, which show their reports on `progress`."""
        self._handed_out = {t.number: t for t in trials}
        self._progress = progress

    def take_back(self) -> list["optuna.Trial"]:
        """Returns the trials handed out that no job in this process has finished."""
        unfinished = list(self._handed_out.values())
        self._handed_out, self._progress = {}, None
        return unfinished

    def __call__(self, config: DictConfig) -> Any:
        """Runs the trial with the job's number, followed by others unless this is the sweeper's process.

        Raises:
            JobError: the trial failed.
            StorageInternalError: the study's storage can't be written; the trial has not ended.
            KeyboardInterrupt: a signal asked the job to end; the trial was requeued.
        """
        number = HydraConfig.get().job.num
        if os.getpid() == self._process and number in self._handed_out:
            return self._run(JobTrial(self._handed_out[number], self._progress), config, is_queued=False)
        try:
            with interrupt.handled():
                return self._run_elsewhere(number, config)
        except Exception:
            raise
        except BaseException:  # an app may turn a signal into any exception
            raise KeyboardInterrupt("a signal asked the job to end") from None

    def _run_elsewhere(self, number: int, config: DictConfig) -> Any:
        failure, value = None, None
        with _loaded_trial(number) as loaded:
            trial = JobTrial(loaded)
            try:
                value = self._run(trial, config, is_queued=True)
            except JobError as error:
                failure = error
            except Exception:
                raise
            except BaseException:
                trial.requeue()
                raise
        if self.more is not None and self.continues:
            self.more()
        if failure is not None:
            raise failure
        return value

    def _run(self, trial: JobTrial, config: DictConfig, *, is_queued: bool) -> Any:
        """Runs a trial's job; skips a trial that has ended or, if it was queued, that another process has begun."""
        import optuna

        hydra = HydraConfig.get()
        directory = os.path.relpath(hydra.runtime.output_dir, Path(hydra.runtime.cwd) / hydra.sweep.dir)
        heartbeat = Heartbeat([trial], hydra.sweeper.heartbeat_interval, directory)
        try:
            trial.begin(directory, is_queued=is_queued)
        except optuna.exceptions.UpdateFinishedTrialError:
            self._handed_out.pop(trial.number, None)
            return None
        try:
            # After `begin`, the first heartbeat: the app may report to its trial at once.
            may_end = self.is_workers or is_queued
            limited = _limited(trial, hydra.sweeper.trial_timeout, may_end_process=may_end)
            with running(trial), heartbeat, limited:
                value = self._call(trial, config)
        except interrupt.TimeLimitError:
            self._finish(trial, error=expired_text(hydra.sweeper.trial_timeout))
        except optuna.TrialPruned:
            self._finish(trial, pruned=True)
            return None
        except optuna.exceptions.StorageInternalError as error:  # not the trial's fault, and no result can be written
            self.storage_error = error
            raise
        except KeyboardInterrupt:
            if not interrupt.is_handled() or interrupt.received() is not None:
                raise  # an interrupt is not a failure: the trial can be resumed
            self._finish(trial, error="KeyboardInterrupt, raised by the job itself")
        except (Exception, SystemExit) as error:
            # The traceback goes into the job's own log; the launcher gets one line (JobError).
            if is_of_disk(error):
                log.error("trial %d failed: %s", trial.number, error)
            else:
                log.exception("trial %d failed", trial.number)
            said = str(error).strip().splitlines()
            self._finish(trial, error=": ".join([type(error).__name__, *said[:1]]))
        else:
            self._finish(trial, value)
            return value

    def _call(self, trial: JobTrial, config: DictConfig) -> Any:
        """Calls the app's function; waits while the process that had the trial before still holds its folder."""
        is_waiting = False
        while True:
            try:
                return self.function(config)
            except HeldError as held:
                if not trial.was_taken_from_another:
                    raise
                if not is_waiting:
                    log.warning(
                        "trial %d: its previous process is still alive, waiting for it to end: %s", trial.number, held
                    )
                is_waiting = True
            time.sleep(HELD_POLL_S)
            interrupt.check()
            if trial.has_ended():
                return None

    def _finish(self, trial: JobTrial, value: Any = None, *, pruned: bool = False, error: str | None = None) -> None:
        if error is None:
            error = trial.constrain_by(HydraConfig.get().sweeper.constraints_func)
        try:
            asked = HydraConfig.get().sweeper.has_objective
            trial.finish(value, pruned=pruned, error=error, has_objective=asked)
        finally:
            self._handed_out.pop(trial.number, None)  # it is finished, or another process will finish it
