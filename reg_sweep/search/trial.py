"""A trial in its job: `current_trial()`, reports, heartbeats, and the result that the job tells itself."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from reg_sweep.files import HeldError
from reg_sweep.records import TrialFacts
from reg_sweep.search import constraints, interrupt
from reg_sweep.search.heartbeat import Heartbeat
from reg_sweep.search.optuna_internals import claimed, frozen, run_again, trial_of_number
from reg_sweep.search.progress import Progress
from reg_sweep.search.settings import make_pruner
from reg_sweep.search.space import split_params
from reg_sweep.search.storage import (
    ERROR,
    JOB,
    LOOKS,
    JobFacts,
    attempt_of,
    job_facts,
    open_storage,
    storage_location,
    study_name,
    unreachable,
)
from reg_sweep.search.text import params_text

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

HELD_POLL_S = 0.5
TRIAL_VARIABLE = "REG_SWEEP_TRIAL"  # set while a trial runs: an app need not import this module to know that none does


class JobError(RuntimeError):
    """What a failed job raises, in plain words: the app's own exception may not survive the way to the launcher."""


class StudyTrial:
    """The running job's trial: report values, ask whether to stop.

    Attributes:
        number: the trial's, and the job's.
        params: what the study chose for it, by name.
        study_name: the study's, in its storage.
        taken_over: whether another process, which missed this one's heartbeat, is known to run the trial now. The
            first result of both counts; an app whose files two processes must not write may ask, and stop.
        chooses: whether the study searches, and does not judge arms until a verdict.
    """

    def __init__(self, trial: "optuna.Trial", progress: Progress | None = None) -> None:
        """Reports are shown on `progress`, where the job runs in the process that has it."""
        now = frozen(trial)
        self.number = now.number
        self.params = split_params(now.params, now.user_attrs)
        self.study_name = trial.study.study_name
        self.taken_over = False
        self.chooses = LOOKS not in trial.study.user_attrs
        self._trial = trial
        self._progress = progress
        self._steps = set(now.intermediate_values)
        self._attempt = attempt_of(now)
        self._single = len(trial.study.directions) == 1

    def facts(self) -> TrialFacts:
        """What a record says of the trial."""
        return {"study": self.study_name, "number": self.number, "params": self.params}

    def set_constraint(self, name: str, value: float) -> None:
        """Tells how a constraint fares: kept where the value is 0 or less. A trial that broke one is never best.

        Of values for one name the first counts, as in Optuna.

        Raises:
            ValueError: the value is no number.
        """
        constraints.set_constraint(self._trial, name, value)

    def set_user_attr(self, name: str, value: Any) -> None:
        """Notes what JSON can hold under a name: Optuna's dashboard and study.json show it; it decides nothing.

        Raises:
            ValueError: the study uses the name itself.
        """
        constraints.set_note(self._trial, name, value)

    def constrain_by(self, function: str | None) -> str | None:
        """Tells the constraints that a function, named by its dotted path, finds; returns why it can't, if so."""
        return constraints.tell_found(self._trial, function)

    def report(self, value: float, step: int) -> None:
        """Reports a value of the objective at a step (an epoch). A study of several objectives takes no reports."""
        from optuna.exceptions import UpdateFinishedTrialError

        interrupt.check()
        # A job that goes on after a kill may come to a step again, and Optuna warns of one that is reported twice.
        if self._single and step not in self._steps:
            with suppress(UpdateFinishedTrialError):  # another process, which took the trial over, was faster
                self._trial.report(float(value), step)
            self._steps.add(step)
            if self._progress is not None:
                self._progress.show(f"trial {self.number}: {params_text(self.params)}, {value:.6g} at step {step}")

    def should_prune(self) -> bool:
        """Whether the study's pruner would stop here; then raise `pruned_error(why)`."""
        return self._single and self._trial.should_prune()

    @property
    def was_taken_from_another(self) -> bool:
        """Whether this is not the trial's first attempt."""
        return self._attempt > 1

    def has_ended(self) -> bool:
        """Whether a result has been told, by whatever process."""
        return frozen(self._trial).state.is_finished()

    def begin(self, directory: str) -> None:
        """Writes who runs the trial, and the first heartbeat.

        Raises:
            UpdateFinishedTrialError: it has ended.
        """
        with claimed(self._trial.study):  # else a beat of the sweeper's, see there, could hide this one
            self._note(directory)

    def _note(self, directory: str | None) -> None:
        mine: JobFacts = {
            "attempt": self._attempt,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "beat": time.time(),
        }
        if directory is not None:
            mine["directory"] = directory
        self._trial.set_user_attr(JOB, mine)

    def beat(self, directory: str | None = None) -> None:
        """Writes a heartbeat, and notices when the trial has been taken over.

        A sweeper beats for a job that its launcher has queued, until the job, which knows its directory, does.
        """
        # The sweeper reads and writes in one step: a job that began, and was killed, between the two would be taken for
        # one that had not begun.
        with claimed(self._trial.study) if directory is None else nullcontext():
            self._beat(directory)

    def _beat(self, directory: str | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        now = frozen(self._trial)
        self.taken_over = attempt_of(now) != self._attempt
        if self.taken_over or ("directory" in job_facts(now) and directory is None):
            return
        # Between reading and writing another process may take the trial over, and this beat would hide it: only one
        # that slept for the whole grace period can fall into that gap, and of two results the first counts anyway.
        try:
            self._note(directory)
        except UpdateFinishedTrialError:
            self.taken_over = True

    def tell(self, value: Any = None, *, pruned: bool = False, error: str | None = None) -> None:
        """Finishes the trial. A value that is no number, or a number of values that is wrong, is a failure.

        Of a trial that another process took over the first result counts; a failure of the first process does not,
        for the other may do better.

        Raises:
            JobError: it was such a failure.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        study, number = self._trial.study, self.number
        values: list[Any] = []
        if not pruned and error is None:
            # A string is a sequence, but 'three' is one wrong value, and not five.
            values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            error = _not_an_objective(values, len(study.directions))
        now = frozen(self._trial)
        if now.state.is_finished():
            return
        self.taken_over = attempt_of(now) != self._attempt
        with suppress(UpdateFinishedTrialError):
            if error is not None:
                if not self.taken_over:
                    self._trial.set_user_attr(ERROR, error)  # first: a finished trial takes no attributes any more
                    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            else:
                if now.state == TrialState.WAITING:  # taken over, and not begun again: whoever begins it finds it done
                    run_again(study, now)
                if pruned:
                    study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
                else:
                    study.tell(number, [float(v) for v in values], skip_if_finished=True)
        if error is not None:
            raise JobError(error)


# The one thing here that is the process's own: an app's function takes a config and nothing else, so what it asks for
# can't be handed to it. No contextvar, for the app may ask from a thread of its own, which would not see it.
_current: StudyTrial | None = None


def current_trial() -> StudyTrial | None:
    """The trial that this job runs; None outside a study."""
    return _current


def pruned_error(message: str) -> Exception:
    """What to raise when `should_prune` says so, for an app that does not import Optuna itself."""
    import optuna

    return optuna.TrialPruned(message)


def _not_an_objective(values: list[Any], n: int) -> str | None:
    """Why values can't be told, if they can't: infinity is a result, NaN is not."""
    if len(values) != n:
        return f"the objective must be {n} number{'s' if n > 1 else ''}, the app's function returned {len(values)}"
    for value in values:
        try:
            bad = math.isnan(float(value))
        except (TypeError, ValueError):
            bad = True
        if bad:
            return f"the objective must be a number, the app's function returned {value!r}"
    return None


def _load_trial(number: int) -> "optuna.Trial":
    """The trial whose number the running job has, in a process that knows nothing but the job's config."""
    import optuna

    hydra = HydraConfig.get()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    location = storage_location(hydra.sweeper, hydra)
    try:
        # Loaded, never made: of processes that make one study at the same time all but one fail.
        study = optuna.load_study(
            study_name=study_name(hydra.sweeper, hydra),
            storage=open_storage(location, waits=True),
            sampler=optuna.samplers.RandomSampler(),  # never asked here
            pruner=make_pruner(OmegaConf.to_container(hydra.sweeper.pruner, resolve=True)),
        )
        return trial_of_number(study, number)
    except optuna.exceptions.StorageInternalError as error:
        raise unreachable(location, error) from None


class StudyTask:
    """The app's function, as a job of a study: it beats while it runs, and tells its own result.

    In the sweeper's own process it finds its trial among those handed out. A launcher that takes it to another process
    takes the function alone; the job then loads its trial by its number.
    """

    def __init__(self, function: TaskFunction) -> None:
        """Wraps an app's function; Hydra and its callbacks look for the function itself under `__wrapped__`."""
        self.function = function
        self.__wrapped__ = function
        self._handed_out: dict[int, optuna.Trial] = {}
        self._progress: Progress | None = None
        self._process = os.getpid()
        self.storage_error: Exception | None = None  # of a job in this process that could not tell its result

    def __reduce__(self) -> tuple[Callable[[TaskFunction], "StudyTask"], tuple[TaskFunction]]:
        """Pickles the function alone: a `Trial` holds open connections, which can't leave their process."""
        return StudyTask, (self.function,)

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
        """Runs the trial that has the job's number.

        Raises:
            JobError: the trial failed.
            StorageInternalError: the study's storage can't be written; the trial has not ended.
        """
        global _current
        import optuna

        hydra = HydraConfig.get()
        trial = self._trial(hydra.job.num)
        directory = os.path.relpath(hydra.runtime.output_dir, Path(hydra.runtime.cwd) / hydra.sweep.dir)
        heartbeat = Heartbeat([trial], hydra.sweeper.heartbeat_interval, directory)
        try:
            trial.begin(directory)
        except optuna.exceptions.UpdateFinishedTrialError:
            # The process that was taken for dead has told its result at last.
            self._handed_out.pop(trial.number, None)
            return None
        # After the first heartbeat: an app that sees a trial may report to it at once.
        _current, os.environ[TRIAL_VARIABLE] = trial, str(trial.number)
        try:
            with heartbeat, told_if_it_exits(trial):
                value = self._run(trial, config)
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
            log.exception("trial %d failed", trial.number)
            said = str(error).strip().splitlines()
            self._tell(trial, error=": ".join([type(error).__name__, *said[:1]]))
        else:
            self._tell(trial, value)
            return value
        finally:
            _current = None
            del os.environ[TRIAL_VARIABLE]

    def _run(self, trial: StudyTrial, config: DictConfig) -> Any:
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

    def _trial(self, number: int) -> StudyTrial:
        # A launcher that forks takes what was handed out along, with connections that belong to the parent.
        if os.getpid() == self._process and number in self._handed_out:
            return StudyTrial(self._handed_out[number], self._progress)
        return StudyTrial(_load_trial(number))

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
