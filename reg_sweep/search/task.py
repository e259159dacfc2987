"""A trial's job: the app's function with a heartbeat beside it, here or where a launcher takes it."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from reg_sweep.runs.files import HeldError, is_of_disk
from reg_sweep.search import interrupt
from reg_sweep.search.heartbeat import Heartbeat
from reg_sweep.search.optuna_internals import trial_of_number
from reg_sweep.search.progress import Progress
from reg_sweep.search.settings import make_pruner
from reg_sweep.search.storage import check_shared, opened_storage, storage_location, study_name, unreachable
from reg_sweep.search.trial import JobError, StudyTrial, running

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

HELD_POLL_S = 0.5


@contextmanager
def _loaded_trial(number: int) -> "Iterator[optuna.Trial]":
    """The trial whose number the running job has, in a process that knows nothing but the job's config.

    Raises:
        StudyError: the storage can't be reached, or the sweep's directory is another one here.
    """
    import optuna

    hydra = HydraConfig.get()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_shared(Path(hydra.runtime.cwd) / hydra.sweep.dir)
    location = storage_location(hydra.sweeper, hydra)
    with opened_storage(location, waits=True) as storage:
        try:
            # Loaded, never made: of processes that make one study at the same time all but one fail.
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
    """The app's function, as a job of a study: it beats while it runs, and tells its own result.

    In the sweeper's own process it finds its trial among those handed out. A launcher that takes it to another process
    takes no trial along; the job then loads its own by its number and, once that has ended, goes on with others: a
    batch of jobs has no barrier that the study would wait at.

    Attributes:
        function: the app's.
        goes_on: whether a job in another process does so.
        storage_error: of a job in this process that could not tell its result.
    """

    def __init__(self, function: TaskFunction, more: Callable[[], None] | None = None) -> None:
        """Wraps an app's function; Hydra and its callbacks look for the function itself under `__wrapped__`.

        `more` runs what else the study has to do, in a job's process; a launcher pickles it.
        """
        self.function = function
        self.__wrapped__ = function
        self.more, self.goes_on = more, True
        self._handed_out: dict[int, optuna.Trial] = {}
        self._progress: Progress | None = None
        self._process: int | None = os.getpid()
        self.storage_error: Exception | None = None

    @classmethod
    def elsewhere(cls, function: TaskFunction, more: Callable[[], None] | None) -> "StudyTask":
        """The task in a launcher's process, which has no trials."""
        task = cls(function, more)
        task._process = None
        return task

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles functions alone: a `Trial` holds open connections, which can't leave their process."""
        return StudyTask.elsewhere, (self.function, self.more if self.goes_on else None)

    def hand_out(self, trials: Sequence["optuna.Trial"], progress: Progress | None) -> None:
        """Has the trials ready for their jobs, which show their reports on `progress`, if they run in this process."""
        self._handed_out = {t.number: t for t in trials}
        self._progress = progress

    def take_back(self) -> list["optuna.Trial"]:
        """The trials handed out whose end no job in this process has told."""
        untold = list(self._handed_out.values())
        self._handed_out, self._progress = {}, None
        return untold

    def __call__(self, config: DictConfig) -> Any:
        """Runs the trial that has the job's number; in another process than the sweeper's, others after it.

        Raises:
            JobError: the trial failed.
            StorageInternalError: the study's storage can't be written; the trial has not ended.
            KeyboardInterrupt: a signal asked the job to end; the trial waits for another.
        """
        number = HydraConfig.get().job.num
        if os.getpid() == self._process and number in self._handed_out:
            return self._run(StudyTrial(self._handed_out[number], self._progress), config, is_queued=False)
        try:
            with interrupt.handled():
                return self._run_elsewhere(number, config)
        except Exception:
            raise
        except BaseException:  # whatever the app makes of a signal
            raise KeyboardInterrupt("a signal asked the job to end") from None

    def _run_elsewhere(self, number: int, config: DictConfig) -> Any:
        failure, value = None, None
        with _loaded_trial(number) as loaded:
            trial = StudyTrial(loaded)
            try:
                value = self._run(trial, config, is_queued=True)
            except JobError as error:
                failure = error
            except Exception:
                raise
            except BaseException:
                trial.give_back()
                raise
        if self.more is not None and self.goes_on:
            self.more()
        if failure is not None:
            raise failure
        return value

    def _run(self, trial: StudyTrial, config: DictConfig, *, is_queued: bool) -> Any:
        """Runs a trial's job; nothing of one that has ended or, where it was queued, that somebody has begun since."""
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
            # After the first heartbeat: an app that sees a trial may report to it at once.
            with running(trial), heartbeat, told_if_it_exits(trial):
                value = self._call(trial, config)
        except optuna.TrialPruned:
            self._tell(trial, pruned=True)
            return None
        except optuna.exceptions.StorageInternalError as error:  # not the trial's fault, and nothing can be told
            self.storage_error = error
            raise
        except KeyboardInterrupt:
            if not interrupt.is_handled() or interrupt.received() is not None:
                raise  # an interrupt is no failure: the trial goes on another day
            self._tell(trial, error="KeyboardInterrupt, raised by the job itself")
        except (Exception, SystemExit) as error:
            # Here, into the job's own log: the launcher gets one line, see JobError.
            if is_of_disk(error):
                log.error("trial %d failed: %s", trial.number, error)
            else:
                log.exception("trial %d failed", trial.number)
            said = str(error).strip().splitlines()
            self._tell(trial, error=": ".join([type(error).__name__, *said[:1]]))
        else:
            self._tell(trial, value)
            return value

    def _call(self, trial: StudyTrial, config: DictConfig) -> Any:
        """The app's function; where the process that the trial was taken from still holds its directory, after that."""
        is_waiting = False
        while True:
            try:
                return self.function(config)
            except HeldError as held:
                if not trial.was_taken_from_another:
                    raise
                if not is_waiting:
                    log.warning(
                        "trial %d: the process that was silent lives, and is waited for: %s", trial.number, held
                    )
                is_waiting = True
            time.sleep(HELD_POLL_S)
            interrupt.check()
            if trial.has_ended():
                return None

    def _tell(self, trial: StudyTrial, value: Any = None, *, pruned: bool = False, error: str | None = None) -> None:
        if error is None:
            error = trial.constrain_by(HydraConfig.get().sweeper.constraints_func)
        try:
            trial.tell(value, pruned=pruned, error=error)
        finally:
            self._handed_out.pop(trial.number, None)  # told, or another's to tell


@contextmanager
def told_if_it_exits(trial: StudyTrial) -> Iterator[None]:
    """Fails a trial whose job calls os._exit, before that ends the process.

    Which may be the sweep's: its code then never says that all is done.
    """
    end_process, pid = os._exit, os.getpid()

    def tell_and_exit(code: int) -> NoReturn:
        if os.getpid() != pid:  # a child that the job forked, and which ends so properly
            end_process(code)
        said = f"the job ended its process by os._exit({code})"
        log.error("trial %d failed: %s", trial.number, said)
        with suppress(Exception):  # JobError, for it is told; or the storage is away
            trial.tell(error=said)
        end_process(code or 1)

    os._exit = tell_and_exit  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = end_process
