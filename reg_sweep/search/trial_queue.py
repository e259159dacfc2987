"""Which trials a process runs next: new ones, requeued ones, and those of processes that died.

A study's processes know of each other only through its storage. What must not happen twice, or too often, happens under
the storage's lock: asking for the last trials of a study, and taking over a trial whose process is dead.
"""

import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reg_sweep.search.optuna_internals import ask_within, frozen, locked, patiently, set_state
from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.storage import ERROR, JOB, attempt_of, job_facts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """The trials that a process got when it asked for work.

    Without trials it is done, or, where other processes run some, waits for these to end or to die.
    """

    trials: "list[optuna.Trial]"
    others_run: bool
    seen: "Sequence[FrozenTrial]"  # all of the study's trials, as they were before


class TrialQueue:
    """A study's trials, as one of its processes takes and requeues them."""

    def __init__(self, study: "optuna.Study", plan: StudyPlan) -> None:
        """Takes trials of `study` until it has as many as the plan says, or its verdict."""
        self._study = study
        self._plan = plan
        self._attempts: dict[int, int] = {}  # of the trials that this process has taken
        # Each running trial's last heartbeat, and when, by this process's clock, it was new.
        self._signs: dict[int, tuple[tuple[Any, ...], float]] = {}

    def trials(self) -> "list[FrozenTrial]":
        """All trials, as the storage has them now; not to be changed."""
        return patiently(self._study, lambda: self._study.get_trials(deepcopy=False))

    def take(self, at_once: int = 1, *, beside_others: bool = True) -> Batch:
        """The next trials for this process, at most `at_once`; those that other processes left come first.

        Unless `beside_others`, at most `at_once` trials are to run in all processes together.
        """
        begun: list[optuna.Trial] = []
        # Repeated as a whole where the server goes away meanwhile: trials that were made by then are counted.
        return patiently(self._study, lambda: self._take(begun, at_once, beside_others))

    def _take(self, begun: "list[optuna.Trial]", at_once: int, beside_others: bool) -> Batch:
        # The lock makes counting and asking one step: else two processes would both run the last trial.
        with locked(self._study):
            trials = self._study.get_trials(deepcopy=False)
            silent = [t for t in trials if t.state.name == "RUNNING" and self._is_silent(t)]
            for trial in silent:
                self._take_over(trial, "killed or silent")
            if silent:
                trials = self._study.get_trials(deepcopy=False)
            if self._plan.too_many_failed(trials):
                return Batch(begun, others_run=False, seen=trials)
            if self._plan.until is not None and all(t.state.is_finished() for t in trials):
                self._plan.until.advance(self._study)
                trials = self._study.get_trials(deepcopy=False)
            # A waiting trial has a number already, and ask() hands it out before it makes a new one.
            n_planned = self._plan.n_planned(trials)
            n = n_planned - sum(t.state.name != "WAITING" for t in trials)
            if not beside_others:
                n = min(n, at_once - sum(t.state.name == "RUNNING" for t in trials))
            while n > 0 and len(begun) < at_once:
                asked = ask_within(self._study, self._plan.space.distributions, n_planned)
                if asked is None:
                    break
                begun.append(asked)
                self._attempts[asked.number] = attempt_of(frozen(asked))
                n -= 1
        return Batch(begun, others_run=any(t.state.name == "RUNNING" for t in trials), seen=trials)

    def requeue(self, trials: "Sequence[optuna.Trial]") -> None:
        """Sends interrupted trials, whose jobs have ended, back to the queue: the next process resumes them.

        The attempt stays the same, since nothing died. Trials that ended, or are another process's by now, stay.
        """
        from optuna.trial import TrialState

        for trial in trials:
            now = self._now(trial)
            if now.state == TrialState.RUNNING and self._is_own(now):
                self._set_state(now, TrialState.WAITING, {JOB: {"attempt": attempt_of(now)}})

    def fail(self, trial: "optuna.Trial", error: str) -> None:
        """Fails a trial whose job has ended without a result, unless another process has finished it, or runs it."""
        from optuna.trial import TrialState

        now = self._now(trial)
        if now.state == TrialState.RUNNING and self._is_own(now):
            self._set_state(now, TrialState.FAIL, {ERROR: error})

    def reclaim_dead(self, why: str) -> None:
        """Takes over all trials whose processes, on this machine, are known to be dead; no grace period."""
        with locked(self._study):
            for trial in self.trials():
                facts = job_facts(trial)
                is_dead = facts.get("host") == socket.gethostname() and not _is_alive(facts.get("pid", os.getpid()))
                if trial.state.name == "RUNNING" and "directory" in facts and is_dead:
                    self._take_over(trial, why)

    def reclaim_from_dead_worker(self, pid: int, why: str = "killed or silent") -> tuple[bool, bool]:
        """Takes over the trial of a worker of this machine that is known to be dead, without a grace period.

        Returns whether the worker had begun any trial, and whether it died within one.
        """
        with locked(self._study):
            # The host too: on another machine, this pid is another process.
            worker = socket.gethostname(), pid
            its = [t for t in self.trials() if (job_facts(t).get("host"), job_facts(t).get("pid")) == worker]
            running = [t for t in its if t.state.name == "RUNNING"]
            for trial in running:
                self._take_over(trial, why)
        return bool(its), bool(running)

    def _now(self, trial: "optuna.Trial") -> "FrozenTrial":
        return patiently(self._study, lambda: frozen(trial))

    def _set_state(self, trial: "FrozenTrial", state: "TrialState", attributes: dict[str, Any]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        with suppress(UpdateFinishedTrialError):  # its result came at the last moment
            patiently(self._study, lambda: set_state(self._study, trial, state, attributes))

    def _is_own(self, trial: "FrozenTrial") -> bool:
        """Whether no other process has taken the trial over since this one took it."""
        return attempt_of(trial) == self._attempts.get(trial.number, attempt_of(trial))

    def _is_silent(self, trial: "FrozenTrial") -> bool:
        """Whether a running trial's heartbeat has stood still for the grace period.

        By this process's clock alone: the written time must change, since the clocks of two machines may differ by more
        than the grace period. A process that has just started therefore waits that long, too.
        """
        # The attempt counts too: a trial that another process has just taken over has not had a heartbeat yet.
        sign, now = (attempt_of(trial), job_facts(trial).get("beat")), time.monotonic()
        if trial.number not in self._signs or self._signs[trial.number][0] != sign:
            self._signs[trial.number] = (sign, now)
        return now - self._signs[trial.number][1] > self._plan.settings.grace_period

    def _take_over(self, trial: "FrozenTrial", why: str) -> None:
        """Sends a trial whose process is dead back to the queue, or, after its last attempt, fails it."""
        from optuna.trial import TrialState

        attempt, max_retries = attempt_of(trial), self._plan.settings.max_retries
        self._signs.pop(trial.number, None)
        if attempt > max_retries:
            error = f"{why} {attempt} times (hydra.sweeper.max_retries={max_retries})"
            self._set_state(trial, TrialState.FAIL, {ERROR: error})
            return
        log.info("trial %d was %s: it runs again, from where it was", trial.number, why)
        # A process that was only asleep learns from the new attempt that the trial is not its own.
        self._set_state(trial, TrialState.WAITING, {JOB: {"attempt": attempt + 1}})


def _is_alive(pid: int) -> bool:
    """Whether this machine may have such a process."""
    if os.name == "nt":  # there os.kill ends it, whatever the signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
