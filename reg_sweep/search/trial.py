"""A trial, as its job sees it: `current_trial()`, reports, notes and constraints, heartbeats, and its result."""

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
from reg_sweep.search.optuna_internals import end, frozen, locked, patiently, set_state, start_again
from reg_sweep.search.parameter import split_params
from reg_sweep.search.settings import located
from reg_sweep.search.storage import ERROR, JOB, LOOKS, NO_VALUE, OWN_ATTRIBUTES, JobFacts, attempt_of, job_facts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

Result = TypeVar("Result")

TRIAL_VARIABLE = "REG_SWEEP_TRIAL"  # set while a trial runs: an app need not import this module to know that none does


class JobError(RuntimeError):
    """A failed job, in plain words: the app's own exception may not survive the way to the launcher."""


class StudyTrial:
    """The running job's trial: report values, ask whether to stop.

    Attributes:
        number: the trial's, and the job's.
        params: the parameters that the study chose for it, by name.
        study_name: the study's, in its storage.
        optuna_trial: the `optuna.Trial`, for integrations that take one, such as those of LightGBM, Lightning and
            torch.distributed. Its reports, attributes and pruning are the study's; the study finishes it.
        taken_over: whether another process, which missed this one's heartbeat, is known to run the trial now. The
            first result of both counts; an app whose files two processes must not write may ask, and stop.
    """

    def __init__(self, trial: "optuna.Trial", progress: Progress | None = None) -> None:
        """Shows reports on `progress`, where the job runs in the process that has it."""
        self.optuna_trial = trial
        # As the trial was when it was taken: nothing is asked of the storage.
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
        """Whether the study searches, and does not judge arms until a verdict."""
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
        """The trial as a run's record notes it."""
        facts: TrialFacts = {"study": self.study_name, "number": self.number, "params": self.params}
        return facts if self.chooses else {**facts, "sequential": True}

    def report(self, value: float, step: int) -> None:
        """Reports a value of the objective at a step (an epoch). A study of several objectives takes no reports."""
        from optuna.exceptions import UpdateFinishedTrialError

        interrupt.check()
        # A job that resumes after a kill may come to a step again, and Optuna warns of a step that is reported twice.
        if self._n_objectives == 1 and step not in self._steps:
            with suppress(UpdateFinishedTrialError):  # another process, which took the trial over, was faster
                self._patiently(lambda: self.optuna_trial.report(float(value), step))
            self._steps.add(step)
            if self._progress is not None:
                self._progress.report(self.number, self.params, value, step)

    def should_prune(self) -> bool:
        """Whether the study's pruner would stop here; then raise `pruned_error(why)`."""
        return self._n_objectives == 1 and self._patiently(self.optuna_trial.should_prune)

    def set_constraint(self, name: str, value: float) -> None:
        """Notes a constraint: kept where the value is 0 or less. A trial that broke one is never the best.

        Of several values for one name the first counts, as in Optuna.

        Raises:
            ValueError: the value is no number.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        number = float(value)
        if math.isnan(number):
            raise ValueError(f"the constraint {name} must be a number, got {value!r}")
        now = self._now()
        # A job that resumes after a kill may set it again, and Optuna then warns; a trial that another process has
        # taken over and finished takes none.
        if name not in now.constraints and not now.state.is_finished():
            with suppress(UpdateFinishedTrialError):
                self._patiently(lambda: self.optuna_trial.set_constraint(name, number))

    def set_user_attr(self, name: str, value: Any) -> None:
        """Notes what JSON can hold under a name: Optuna's dashboard and study.json show it; it has no effect.

        Raises:
            ValueError: the study uses the name itself.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        if name in OWN_ATTRIBUTES:
            raise ValueError(f"a trial's attribute must not be named {' or '.join(OWN_ATTRIBUTES)}, got {name!r}")
        with suppress(UpdateFinishedTrialError):  # another process, which took the trial over, was faster
            self._write(name, value)


class JobTrial(StudyTrial):
    """The trial with what its job's process does for it: heartbeats, and its result."""

    def constrain_by(self, function: str | None) -> str | None:
        """Notes the constraints '0', '1', ... that a function finds in the trial; returns why it failed, if it did.

        The function is called where the job runs: Optuna's samplers would call it in their own process alone.
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
            UpdateFinishedTrialError: it has ended; or, where it was queued for this process, it is another's by now.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        with locked(self.optuna_trial.study):  # else a beat of the sweeper's, see there, could hide this one
            # A cluster starts a job that it has pre-empted again, as if nothing had happened.
            if is_queued and self._is_begun():
                raise UpdateFinishedTrialError(f"trial {self.number} is another process's")
            self._note(directory)

    def _is_begun(self) -> bool:
        now = self._now()
        return now.state.name != "RUNNING" or "directory" in job_facts(now)

    def requeue(self) -> None:
        """Sends the trial, whose job was interrupted, back to the queue, unless it is another process's by now."""
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
        """Writes a heartbeat, and notices when the trial has been taken over.

        A sweeper beats for a job that its launcher has queued, until the job, which knows its directory, does.
        """
        # The sweeper reads and writes in one step: a job that began, and was killed, between the two would look as if
        # it had not begun.
        with locked(self.optuna_trial.study) if directory is None else nullcontext():
            self._beat(directory)

    def _beat(self, directory: str | None) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        now = self._now()
        self.taken_over = attempt_of(now) != self._attempt
        if self.taken_over or ("directory" in job_facts(now) and directory is None):
            return
        # Between reading and writing another process may take the trial over, and this beat would hide it: only one
        # that slept for the whole grace period can fall into that gap, and of two results the first counts anyway.
        try:
            self._note(directory)
        except UpdateFinishedTrialError:
            self.taken_over = True

    def finish(
        self, value: Any = None, *, pruned: bool = False, error: str | None = None, has_objective: bool = True
    ) -> None:
        """Finishes the trial. A value that is no number, or a wrong number of values, is a failure.

        Without an objective it is none: Optuna, which wants a number, gets 0, and a note that says so.

        When another process took the trial over, the first result counts; a failure of the first process does not, for
        the other may succeed.

        Raises:
            JobError: the trial failed.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        values: list[Any] = []
        if not pruned and error is None:
            # A string is a sequence, but 'three' is one wrong value, and not five.
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
                self._write(ERROR, error)  # first: a finished trial takes no attributes
            self._tell(TrialState.FAIL)
        raise JobError(error)

    def _tell(self, state: "TrialState", values: list[float] | None = None) -> None:
        """Tells Optuna the result, unless there is one."""
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
                # Taken over, and not begun again: who begins it finds it finished.
                self._patiently(lambda: start_again(study, now))
                tell()


# The one thing here that is the process's own: an app's function takes a config and nothing else, so that its trial
# can't be handed to it. No contextvar, for the app may ask from a thread of its own, which would not see it.
_current: StudyTrial | None = None


def current_trial() -> StudyTrial | None:
    """The trial that this job runs; None outside a study."""
    return _current


@contextmanager
def running(trial: StudyTrial) -> Iterator[None]:
    """Makes it the trial that this process's job runs, until the block ends."""
    global _current
    _current, os.environ[TRIAL_VARIABLE] = trial, str(trial.number)
    try:
        yield
    finally:
        _current = None
        del os.environ[TRIAL_VARIABLE]


def job_state() -> tuple[StudyTrial | None, str | None]:
    """The trial that this process's job runs, in both ways in which it is told; for jobs that take turns."""
    return _current, os.environ.get(TRIAL_VARIABLE)


def set_job_state(state: tuple[StudyTrial | None, str | None]) -> None:
    """Sets what `job_state` gave."""
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
    """Why values are no result, if they aren't: infinity is one, NaN is not."""
    if len(values) != n:
        return f"the objective must be {n} number{'s' if n > 1 else ''}, the app's function returned {len(values)}"
    for value in values:
        try:
            bad = math.isnan(float(value))
        except Exception:  # whatever an app returns; 10**400 is no float
            bad = True
        if bad:
            return f"the objective must be a number, the app's function returned {shown(value)}"
    return None
