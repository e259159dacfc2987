"""A trial, as its job sees it: `current_trial()`, reports, heartbeats, and the result that the job tells itself."""

import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from reg_sweep.runs.record import TrialFacts
from reg_sweep.search import constraints, interrupt
from reg_sweep.search.optuna_internals import claimed, frozen, run_again, set_state
from reg_sweep.search.progress import Progress
from reg_sweep.search.space import split_params
from reg_sweep.search.storage import ERROR, JOB, LOOKS, JobFacts, attempt_of, job_facts
from reg_sweep.search.text import params_text

if TYPE_CHECKING:
    import optuna

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

    def begin(self, directory: str, *, is_queued: bool = False) -> None:
        """Writes who runs the trial, and the first heartbeat.

        Raises:
            UpdateFinishedTrialError: it has ended; or, where it was queued for this process, it is another's by now.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        with claimed(self._trial.study):  # else a beat of the sweeper's, see there, could hide this one
            # A cluster starts a job that it has pre-empted again, as if nothing had happened.
            if is_queued and self._is_begun():
                raise UpdateFinishedTrialError(f"trial {self.number} is another process's")
            self._note(directory)

    def _is_begun(self) -> bool:
        now = frozen(self._trial)
        return now.state.name != "RUNNING" or "directory" in job_facts(now)

    def give_back(self) -> None:
        """Sends the trial, whose job was interrupted, back to waiting, unless it is another process's by now."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        now = frozen(self._trial)
        if now.state == TrialState.RUNNING and attempt_of(now) == self._attempt:
            with suppress(UpdateFinishedTrialError):
                set_state(self._trial.study, now, TrialState.WAITING, {JOB: {"attempt": self._attempt}})

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
