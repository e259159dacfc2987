"""Which trials a process runs next: new ones, those that were given back, and those of processes that died.

A study's processes know of each other only through its storage. What must not happen twice, or too often, happens under
one lock: asking for the last trials of a study, and taking over a trial whose process is dead.
"""

import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg_sweep.files import locked
from reg_sweep.search.optuna_internals import frozen, set_state
from reg_sweep.search.storage import ERROR, JOB, attempt_of, job_facts
from reg_sweep.search.study import StudyPlan

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """What a process got when it asked for work.

    Without trials it is done, or, where other processes run some, waits for these to end or to die.
    """

    trials: "list[optuna.Trial]"
    others_run: bool
    seen: "Sequence[FrozenTrial]"  # all of the study's trials, as they were before


class TrialQueue:
    """A study's trials, as one of its processes takes them and gives them back."""

    def __init__(self, study: "optuna.Study", plan: StudyPlan, lock: Path) -> None:
        """Takes trials of `study` until it has as many as the plan says, or its verdict.

        `lock` is that of all the study's processes.
        """
        self._study = study
        self._plan = plan
        self._lock = lock
        # Each running trial's last sign of life, and when, by this process's clock, it was new.
        self._signs: dict[int, tuple[tuple[Any, ...], float]] = {}

    def trials(self) -> "list[FrozenTrial]":
        """All trials, as the storage has them now; not to be changed."""
        return self._study.get_trials(deepcopy=False)

    def claim(self) -> Claim:
        """The next trials for this process, at most `n_jobs`; what others left comes first."""
        # The lock makes counting and asking one step: else two processes would both run the last trial.
        with locked(self._lock):
            trials = self.trials()
            silent = [t for t in trials if t.state.name == "RUNNING" and self._is_silent(t)]
            for trial in silent:
                self._take_over(trial)
            if silent:
                trials = self.trials()
            if self._plan.too_many_failed(trials):
                return Claim([], others_run=False, seen=trials)
            if self._plan.until is not None and all(t.state.is_finished() for t in trials):
                self._plan.until.advance(self._study)
                trials = self.trials()
            # A waiting trial has a number already, and ask() hands it out before it makes a new one.
            n_begun = sum(t.state.name != "WAITING" for t in trials)
            n = max(0, min(self._plan.settings.n_jobs, self._plan.n_planned(trials) - n_begun))
            claimed = [self._study.ask(self._plan.space.distributions) for _ in range(n)]
        return Claim(claimed, others_run=any(t.state.name == "RUNNING" for t in trials), seen=trials)

    def give_back(self, trials: "Sequence[optuna.Trial]") -> None:
        """Sends interrupted trials, whose jobs have ended, back to waiting: the next process to claim goes on.

        The attempt stays the same, for nothing died.
        """
        from optuna.trial import TrialState

        for trial in trials:
            now = frozen(trial)
            if now.state == TrialState.RUNNING:
                set_state(self._study, now, TrialState.WAITING, {JOB: {"attempt": attempt_of(now)}})

    def fail(self, trial: "optuna.Trial", error: str) -> None:
        """Fails a trial whose job has ended without telling how."""
        from optuna.trial import TrialState

        trial.set_user_attr(ERROR, error)
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def reclaim_from_dead_worker(self, pid: int) -> bool:
        """Takes over the trial of a worker of this machine that is known to be dead, without a grace period.

        Returns whether the worker had begun any trial.
        """
        with locked(self._lock):
            # The host too: on another machine, this pid is somebody else.
            worker = socket.gethostname(), pid
            its = [t for t in self.trials() if (job_facts(t).get("host"), job_facts(t).get("pid")) == worker]
            for trial in its:
                if trial.state.name == "RUNNING":
                    self._take_over(trial)
        return bool(its)

    def _is_silent(self, trial: "FrozenTrial") -> bool:
        """Whether a running trial's heartbeat has stood still for the grace period.

        By this process's clock alone: what counts is that the written time changes, for the clocks of two machines may
        differ by more than the grace period. A process that has just started therefore waits that long, too.
        """
        # The attempt counts too: a trial that another process has just taken over has not had a heartbeat yet.
        sign, now = (attempt_of(trial), job_facts(trial).get("beat")), time.monotonic()
        if trial.number not in self._signs or self._signs[trial.number][0] != sign:
            self._signs[trial.number] = (sign, now)
        return now - self._signs[trial.number][1] > self._plan.settings.grace_period

    def _take_over(self, trial: "FrozenTrial") -> None:
        """Sends a trial whose process is dead back to waiting, or, after its last attempt, fails it."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        attempt, max_retries = attempt_of(trial), self._plan.settings.max_retries
        self._signs.pop(trial.number, None)
        try:
            if attempt > max_retries:
                error = f"killed or silent {attempt} times (hydra.sweeper.max_retries={max_retries})"
                set_state(self._study, trial, TrialState.FAIL, {ERROR: error})
            else:
                log.info("trial %d is silent: it runs again, from where it was", trial.number)
                # The new attempt tells a process that was only asleep, and wakes up, that the trial is not its own.
                set_state(self._study, trial, TrialState.WAITING, {JOB: {"attempt": attempt + 1}})
        except UpdateFinishedTrialError:  # its result came at the last moment
            pass
