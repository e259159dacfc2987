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
from itertools import chain
from typing import TYPE_CHECKING, Any

from reg_sweep.search.job import expired_text, stopping_s
from reg_sweep.search.optuna_internals import ask_within, frozen, locked, patiently, point_of, set_state
from reg_sweep.search.plan import StudyPlan, point_key
from reg_sweep.search.storage import CLOCK, ERROR, JOB, attempt_of, job_facts, own_trials

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """The trials that a process got when it asked for work.

    Without trials it is done, or, where other processes run some, waits for these to end or to die.
    """

    trials: "list[optuna.Trial]"
    others_run: bool
    seen: "Sequence[FrozenTrial]"  # all of the study's trials, as they were before


class Clock:
    """A study's time: while any of its processes works on it, over all starts.

    Each process adds the time since it last did, or since another did; what a killed one had worked since then counts
    up to its last heartbeat. The clocks of machines that share a study must agree to about a second.
    """

    def __init__(self, study: "optuna.Study") -> None:
        """Starts to count for this process."""
        self._study, self._since = study, time.time()

    def read(self) -> float:
        """The seconds counted so far."""
        return self._written()[0]

    def advance(self, since: float | None = None, until: float | None = None) -> float:
        """Adds a time, this process's by default, and returns the seconds; to be called under the study's lock."""
        spent, seen = self._written()
        begin, end = self._since if since is None else since, time.time() if until is None else until
        spent += max(0.0, end - max(seen, begin))
        self._study.set_user_attr(CLOCK, [spent, max(seen, end)])
        if since is None:
            self._since = end
        return spent

    def _written(self) -> tuple[float, float]:
        written = self._study.user_attrs.get(CLOCK)
        if isinstance(written, list) and len(written) == 2 and all(isinstance(v, int | float) for v in written):
            return float(written[0]), float(written[1])
        # Earlier starts had no such budget, and counted nothing: their trials, one after the other, as far as is known.
        spent, seen = 0.0, 0.0
        times = ((t.datetime_start, t.datetime_complete) for t in own_trials(self._study))
        for begin, end in sorted((a.timestamp(), b.timestamp()) for a, b in times if a is not None and b is not None):
            spent += max(0.0, end - max(begin, seen))
            seen = max(seen, end)
        return spent, seen


class TrialQueue:
    """A study's trials, as one of its processes takes and requeues them."""

    def __init__(self, study: "optuna.Study", plan: StudyPlan) -> None:
        """Takes trials of `study` until it has as many as the plan says, or its verdict."""
        self._study = study
        self._plan = plan
        self._attempts: dict[int, int] = {}  # of the trials that this process has taken
        # Each running trial's last heartbeat, and when, by this process's clock, it was new.
        self._signs: dict[int, tuple[tuple[Any, ...], float]] = {}
        self._first_seen: dict[tuple[int, int], float] = {}  # of each running attempt, by this process's clock
        self._clock = None if plan.settings.timeout_s is None else Clock(study)
        self._n_learned = len(study.get_trials(deepcopy=False)) - len(own_trials(study))
        self._points = iter(plan.grid)

    def trials(self) -> "list[FrozenTrial]":
        """The study's own trials, as the storage has them now; not to be changed."""
        return patiently(self._study, lambda: own_trials(self._study))

    def note_time(self) -> None:
        """Counts the time up to now towards the study's."""
        clock = self._clock
        if clock is not None:
            with locked(self._study):
                patiently(self._study, clock.advance)

    def spent_s(self) -> float | None:
        """The seconds that the study has had, where it has a budget of them."""
        return None if self._clock is None else patiently(self._study, self._clock.read)

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
            trials = self._settled()
            if not self._is_over(trials):
                if self._plan.until is not None and all(t.state.is_finished() for t in trials):
                    self._plan.until.advance(self._study)
                    trials = own_trials(self._study)
                n_running = sum(t.state.name == "RUNNING" for t in trials)
                self._ask(begun, at_once if beside_others else at_once - n_running, at_once, trials)
        return Batch(begun, others_run=any(t.state.name == "RUNNING" for t in trials), seen=trials)

    def _settled(self) -> "list[FrozenTrial]":
        """The study's trials, once those of dead processes are in the queue, and those that hang have failed."""
        trials = own_trials(self._study)
        overdue = self._overdue(trials)
        self._expire(overdue)
        silent = [t for t in trials if t.state.name == "RUNNING" and t not in overdue and self._is_silent(t)]
        for trial in silent:
            self._take_over(trial, "killed or silent")
        return own_trials(self._study) if overdue or silent else trials

    def _is_over(self, trials: "Sequence[FrozenTrial]") -> bool:
        """Whether no trial may begin any more, by failures or by a budget."""
        spent_s = None if self._clock is None else self._clock.advance()
        return self._plan.too_many_failed(trials) or self._plan.budgets.end(self._study, trials, spent_s) is not None

    def _ask(self, begun: "list[optuna.Trial]", n_more: int, at_once: int, trials: "Sequence[FrozenTrial]") -> None:
        """Asks for trials until this process has `at_once`, but for at most `n_more`, and as many as the plan has."""
        n_planned, n_waiting = self._plan.n_planned(trials), sum(t.state.name == "WAITING" for t in trials)
        # A waiting trial has a number already, and ask() hands it out before it makes a new one.
        n = min(n_more, n_planned - len(trials) + n_waiting)
        tried = {point_key(point_of(t)) for t in trials} if self._plan.is_grid else set()
        while n > 0 and len(begun) < at_once:
            if self._plan.is_grid and n_waiting <= 0 and not self._enqueue_next(tried):
                return
            limit = n_planned + self._n_learned
            asked = ask_within(self._study, self._plan.space.distributions, limit)
            if asked is None:
                return
            begun.append(asked)
            self._attempts[asked.number] = attempt_of(asked)
            n_waiting -= 1
            n -= 1

    def _enqueue_next(self, tried: set[Any]) -> bool:
        """Enqueues the grid's next point that no trial has; whether there was one."""
        for point in chain(self._points, self._plan.grid):  # again, where a server that went away has lost one
            if point_key(point) not in tried:
                self._study.enqueue_trial(point)
                tried.add(point_key(point))
                return True
        return False

    def _overdue(self, trials: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
        """The running trials that should have ended long ago: a job that hangs may still send heartbeats."""
        limit_s = self._plan.settings.trial_timeout_s
        if limit_s is None:
            return []
        now, found = time.monotonic(), []
        for trial in trials:
            if trial.state.name == "RUNNING" and "directory" in job_facts(trial):
                # By this process's clock, as silence is: another machine's may differ.
                first = self._first_seen.setdefault((trial.number, attempt_of(trial)), now)
                if now - first > limit_s + 2 * stopping_s(limit_s):
                    found.append(trial)
        return found

    def _expire(self, trials: "Sequence[FrozenTrial]") -> None:
        for trial in trials:
            self._set_state(trial, "FAIL", {ERROR: expired_text(self._plan.settings.trial_timeout)})

    def expire_hung(self) -> "list[FrozenTrial]":
        """Fails the running trials that should have ended long ago; returns them, for their processes may run on."""
        overdue = self._overdue(self.trials())
        self._expire(overdue)
        return overdue

    def requeue(self, trials: "Sequence[optuna.Trial]") -> None:
        """Sends interrupted trials, whose jobs have ended, back to the queue: the next process resumes them.

        The attempt stays the same, since nothing died. Trials that ended, or are another process's by now, stay.
        """
        for trial in trials:
            now = self._now(trial)
            if now.state.name == "RUNNING" and self._is_own(now):
                self._set_state(now, "WAITING", {JOB: {"attempt": attempt_of(now)}})

    def fail(self, trial: "optuna.Trial", error: str) -> None:
        """Fails a trial whose job has ended without a result, unless another process has finished it, or runs it."""
        now = self._now(trial)
        if now.state.name == "RUNNING" and self._is_own(now):
            self._set_state(now, "FAIL", {ERROR: error})

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

    def _set_state(self, trial: "FrozenTrial", state: str, attributes: dict[str, Any]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with suppress(UpdateFinishedTrialError):  # its result came at the last moment
            patiently(self._study, lambda: set_state(self._study, trial, TrialState[state], attributes))

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
        facts = job_facts(trial)
        if self._clock is not None and "begun" in facts and "beat" in facts:
            self._clock.advance(facts["begun"], facts["beat"])
        attempt, max_retries = attempt_of(trial), self._plan.settings.max_retries
        self._signs.pop(trial.number, None)
        if attempt > max_retries:
            error = f"{why} {attempt} times (hydra.sweeper.max_retries={max_retries})"
            self._set_state(trial, "FAIL", {ERROR: error})
            return
        log.info("trial %d was %s: it runs again, from where it was", trial.number, why)
        # A process that was only asleep learns from the new attempt that the trial is not its own.
        self._set_state(trial, "WAITING", {JOB: {"attempt": attempt + 1}})


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
