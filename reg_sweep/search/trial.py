"""A trial, from its job's side: `current_trial()`, reports, attributes, constraints, heartbeats and the result."""

import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from reg_sweep.config.rules import shown
from reg_sweep.runs.record import TrialFacts
from reg_sweep.search import interrupt
from reg_sweep.search.console import Progress
from reg_sweep.search.optuna_internals import end, frozen, set_state, start_again
from reg_sweep.search.parameter import split_params
from reg_sweep.search.settings import located
from reg_sweep.search.storage import (
    ERROR,
    JOB,
    LOOKS,
    NO_VALUE,
    OWN_ATTRIBUTES,
    JobFacts,
    attempt_of,
    job_facts,
    locked,
    patiently,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

Result = TypeVar("Result")

TRIAL_VARIABLE = "REG_SWEEP_TRIAL"  # set while a trial runs, so that other modules can tell without importing this one


class JobError(RuntimeError):
    """A job's failure as text: the app's own exception might not survive pickling on its way to the launcher."""


class StudyTrial:
    """The running job's trial: reports values and asks whether to stop.

    Attributes:
        number: the number of the trial and of its job.
        params: the parameters that the study chose for it, by name.
        study_name: the study's name in its storage.
        optuna_trial: the `optuna.Trial`, for integrations such as those of LightGBM, Lightning and torch.distributed.
            They may use it for reports, attributes and pruning, but must not finish it: the study does.
        taken_over: whether another process is known to run the trial now, because it missed this one's heartbeat. The
            first result of the two counts. An app may check this to avoid that two processes write the same files.
    """

    def __init__(self, trial: "optuna.Trial", progress: Progress | None = None) -> None:
        """Shows reports on `progress`, which is None if the job runs in another process than the sweeper."""
        self.optuna_trial = trial
        # From the trial object, without a query to the storage.
        self.number = trial.number
        self.params = split_params(trial.params, trial.user_attrs)
        self.study_name = trial.study.study_name
        self.taken_over = False
        self._progress = progress
        self._attempt = attempt_of(trial)
        self._begun_s = time.time()
        self._n_objectives = len(trial.study.directions)

    @cached_property
    def chooses(self) -> bool:
        """Whether the study selects points, rather than judging arms with `until_verdict`."""
        return LOOKS not in self._patiently(lambda: self.optuna_trial.study.user_attrs)

    @cached_property
    def _steps(self) -> set[int]:
        return set(self._now().intermediate_values)

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        return patiently(self.optuna_trial.study, ask)

    def _now(self) -> "FrozenTrial":
        return self._patiently(lambda: frozen(self.optuna_trial))

    def _write(self, name: str, value: Any) -> None:
        self._patiently(lambda: self.optuna_trial.set_user_attr(name, value))

    def facts(self) -> TrialFacts:
        """The facts about the trial for a run's record."""
        facts: TrialFacts = {"study": self.study_name, "number": self.number, "params": self.params}
        return facts if self.chooses else {**facts, "sequential": True}

    def report(self, value: float, step: int) -> None:
        """Reports a value of the objective at a step (an epoch). Ignored in a study with several objectives."""
        from optuna.exceptions import UpdateFinishedTrialError

        interrupt.check()
        # A job that resumes after a kill may repeat a step, and Optuna warns if a step is reported twice.
        if self._n_objectives == 1 and step not in self._steps:
            with suppress(UpdateFinishedTrialError):  # another process took the trial over and finished it
                self._patiently(lambda: self.optuna_trial.report(float(value), step))
            self._steps.add(step)
            if self._progress is not None:
                self._progress.report(self.number, self.params, value, step)

    def should_prune(self) -> bool:
        """Whether the study's pruner would stop the trial here. If so, raise `pruned_error(why)`."""
        return self._n_objectives == 1 and self._patiently(self.optuna_trial.should_prune)

    def set_constraint(self, name: str, value: float) -> None:
        """Records a constraint, which is satisfied if the value is 0 or less. A trial that violates one is never best.

        If a name gets several values, the first counts, as in Optuna.

        Raises:
            ValueError: the value is not a number.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        number = float(value)
        if math.isnan(number):
            raise ValueError(f"the constraint {name} must be a number, got {value!r}")
        now = self._now()
        # A job that resumes after a kill may set it again, and Optuna would warn. A trial that another process has
        # finished accepts no constraints.
        if name not in now.constraints and not now.state.is_finished():
            with suppress(UpdateFinishedTrialError):
                self._patiently(lambda: self.optuna_trial.set_constraint(name, number))

    def set_user_attr(self, name: str, value: Any) -> None:
        """Records a JSON value under a name. Optuna's dashboard and study.json show it; it has no other effect.

        Raises:
            ValueError: the name is reserved for the study.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        if name in OWN_ATTRIBUTES:
            raise ValueError(f"a trial's attribute must not be named {' or '.join(OWN_ATTRIBUTES)}, got {name!r}")
        with suppress(UpdateFinishedTrialError):  # another process took the trial over and finished it
            self._write(name, value)


class JobTrial(StudyTrial):
    """The trial with the methods for the process that runs its job: heartbeats and the result."""

    def constrain_by(self, function: str | None) -> str | None:
        """Records the values that a function returns for the trial as constraints '0', '1', ...

        Returns the function's error, or None. The function is called in the job's process; Optuna's samplers would only
        call it in their own.
        """
        if function is None:
            return None
        try:
            for i, value in enumerate(located("constraints_func", function)(self._now())):
                self.set_constraint(str(i), value)
        except Exception as error:  # the function is the app's own
            return ": ".join([f"hydra.sweeper.constraints_func: {type(error).__name__}", *str(error).splitlines()[:1]])
        return None

    @property
    def was_taken_from_another(self) -> bool:
        """Whether this is not the trial's first attempt."""
        return self._attempt > 1

    def has_ended(self) -> bool:
        """Whether the trial has a result, from any process."""
        return self._now().state.is_finished()

    def begin(self, directory: str, *, is_queued: bool = False) -> None:
        """Writes which process runs the trial, and the first heartbeat.

        Raises:
            UpdateFinishedTrialError: the trial has ended or, if it was queued, another process has begun it.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        with locked(self.optuna_trial.study):  # otherwise a heartbeat of the sweeper could overwrite this (see `beat`)
            # A cluster restarts a pre-empted job, although the trial may already run elsewhere.
            if is_queued and self._is_begun():
                raise UpdateFinishedTrialError(f"trial {self.number} belongs to another process")
            self._note(directory)

    def _is_begun(self) -> bool:
        now = self._now()
        return now.state.name != "RUNNING" or "directory" in job_facts(now)

    def requeue(self) -> None:
        """Returns the trial of an interrupted job to the queue, unless another process has taken it over."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        now, study = self._now(), self.optuna_trial.study
        if now.state == TrialState.RUNNING and attempt_of(now) == self._attempt:
            facts = {JOB: {"attempt": self._attempt}}
            with suppress(UpdateFinishedTrialError):
                self._patiently(lambda: set_state(study, now, TrialState.WAITING, facts))

    def _note(self, directory: str | None) -> None:
        mine: JobFacts = {
            "attempt": self._attempt,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "begun": self._begun_s,
            "beat": time.time(),
        }
        if directory is not None:
            mine["directory"] = directory
        self._write(JOB, mine)

    def beat(self, directory: str | None = None) -> None:
        """Writes a heartbeat, and notices if the trial has been taken over.

        While a launcher has the job queued, the sweeper sends its heartbeats, without a directory.
        """
        # The sweeper reads and writes under the lock: otherwise it could erase that a job began in between.
        with locked(self.optuna_trial.study) if directory is None else nullcontext():
            self._beat(directory)

    def _beat(self, directory: str | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        now = self._now()
        self.taken_over = attempt_of(now) != self._attempt
        if self.taken_over or ("directory" in job_facts(now) and directory is None):
            return
        # If another process takes the trial over between reading and writing, this heartbeat hides that. It can only
        # happen after this process was suspended for the whole grace period, and only the first result counts anyway.
        try:
            self._note(directory)
        except UpdateFinishedTrialError:
            self.taken_over = True

    def finish(
        self, value: Any = None, *, pruned: bool = False, error: str | None = None, has_objective: bool = True
    ) -> None:
        """Finishes the trial. A value that is not a number, or a wrong number of values, is a failure.

        Without an objective, any value is accepted: Optuna needs a number and gets 0, with an attribute that says so.

        If another process took the trial over, the first result counts. A failure of the first process does not count,
        because the other may succeed.

        Raises:
            JobError: the trial failed.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        values: list[Any] = []
        if not pruned and error is None:
            # A string is a sequence, but 'three' is one wrong value, not five.
            values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            error = _not_an_objective(values, self._n_objectives)
            if error is not None and not has_objective:  # a grid's job may return anything
                values, error = [0.0] * self._n_objectives, None
                with suppress(UpdateFinishedTrialError):
                    self._write(NO_VALUE, True)
        if error is None:
            if pruned:
                self._tell(TrialState.PRUNED)
            else:
                self._tell(TrialState.COMPLETE, [float(v) for v in values])
            return
        now = self._now()
        if now.state.is_finished():
            return
        self.taken_over = attempt_of(now) != self._attempt
        if not self.taken_over:
            with suppress(UpdateFinishedTrialError):
                self._write(ERROR, error)  # written first: a finished trial accepts no attributes
            self._tell(TrialState.FAIL)
        raise JobError(error)

    def _tell(self, state: "TrialState", values: list[float] | None = None) -> None:
        """Tells Optuna the result, unless the trial already has one."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        study = self.optuna_trial.study

        def tell() -> None:
            self._patiently(lambda: study.tell(self.number, values, state=state, skip_if_finished=True))

        with suppress(UpdateFinishedTrialError):
            if self._patiently(lambda: end(self.optuna_trial, state, values)):
                return
            try:
                tell()
            except ValueError:
                now = self._now()
                if now.state != TrialState.WAITING:
                    raise
                # The trial was taken over but has not begun again; the process that begins it will find it finished.
                self._patiently(lambda: start_again(study, now))
                tell()


# A module global, because an app's function only takes a config: its trial can't be passed as an argument. Not a
# contextvar, because the app may ask from a thread that it started, which would not see it.
_current: StudyTrial | None = None


def current_trial() -> StudyTrial | None:
    """The trial that this job runs; None outside a study."""
    return _current


@contextmanager
def running(trial: StudyTrial) -> Iterator[None]:
    """Within the block, makes `trial` the one that `current_trial` returns."""
    global _current
    _current, os.environ[TRIAL_VARIABLE] = trial, str(trial.number)
    try:
        yield
    finally:
        _current = None
        del os.environ[TRIAL_VARIABLE]


def job_state() -> tuple[StudyTrial | None, str | None]:
    """The current trial and its environment variable, to be exchanged between jobs that take turns in one process."""
    return _current, os.environ.get(TRIAL_VARIABLE)


def set_job_state(state: tuple[StudyTrial | None, str | None]) -> None:
    """Restores what `job_state` returned."""
    global _current
    _current, number = state
    if number is None:
        os.environ.pop(TRIAL_VARIABLE, None)
    else:
        os.environ[TRIAL_VARIABLE] = number


def pruned_error(message: str) -> Exception:
    """The exception to raise when `should_prune` says so, for an app that does not import Optuna itself."""
    import optuna

    return optuna.TrialPruned(message)


def _not_an_objective(values: list[Any], n: int) -> str | None:
    """Why these values are not a valid result, or None. Infinity is valid, NaN is not."""
    if len(values) != n:
        return f"the objective must be {n} number{'s' if n > 1 else ''}, got {len(values)} from the app's function"
    for value in values:
        try:
            bad = math.isnan(float(value))
        except Exception:  # an app may return anything, and 10**400 is too large for a float
            bad = True
        if bad:
            return f"the objective must be a number, got {shown(value)} from the app's function"
    return None
