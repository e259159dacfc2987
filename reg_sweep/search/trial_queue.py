"""Selects the trials that a process runs next: new ones, requeued ones, and those of processes that died.

A study's processes know of each other only through its storage. The storage's lock makes sure that no trial is taken
over twice from a dead process, and that no more trials are asked for than planned.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from reg_sweep.search.job import expired_text, stopping_s
from reg_sweep.search.optuna_internals import frozen, opened_storage_of, point_of, set_state
from reg_sweep.search.plan import StudyPlan, point_key
from reg_sweep.search.storage import CLOCK, ERROR, JOB, attempt_of, job_facts, locked, own_trials, patiently

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """The trials that a process got when it asked for work.

    A process that gets none is done, unless other processes run trials: then it waits for these to end or die.
    """

    trials: "list[optuna.Trial]"
    others_run: bool
    seen: "Sequence[FrozenTrial]"  # all of the study's trials, as they were before


class Clock:
    """Counts a study's time: the time during which at least one process works on it, over all starts.

    Each process adds the time since the last addition by any process. The time of a killed process counts up to its
    last heartbeat. The clocks of machines that share a study must agree to about a second.
    """

    def __init__(self, study: "optuna.Study") -> None:
        """Starts counting for this process."""
        self._study, self._since = study, time.time()

    def read(self) -> float:
        """The seconds counted so far."""
        return self._written()[0]

    def advance(self, since: float | None = None, until: float | None = None) -> float:
        """Adds an interval, by default this process's, and returns the total. Call it under the study's lock."""
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
        # Earlier starts had no time limit and counted nothing: use the time that their finished trials cover.
        spent, seen = 0.0, 0.0
        times = ((t.datetime_start, t.datetime_complete) for t in own_trials(self._study))
        for begin, end in sorted((a.timestamp(), b.timestamp()) for a, b in times if a is not None and b is not None):
            spent += max(0.0, end - max(begin, seen))
            seen = max(seen, end)
        return spent, seen


class TrialQueue:
    """The queue of a study's trials, from which one process takes them and to which it returns them."""

    def __init__(self, study: "optuna.Study", plan: StudyPlan) -> None:
        """Takes trials of `study` until it has as many as planned, or its verdict."""
        self._study = study
        self._plan = plan
        self._attempts: dict[int, int] = {}  # by trial that this process has taken
        # By running trial: its last heartbeat, and when this process first saw it, by this process's clock.
        self._signs: dict[int, tuple[tuple[Any, ...], float]] = {}
        self._first_seen: dict[tuple[int, int], float] = {}  # by trial and attempt, on this process's clock
        self._clock = None if plan.settings.timeout_s is None else Clock(study)
        self._n_learned = len(study.get_trials(deepcopy=False)) - len(own_trials(study))
        self._points = iter(plan.grid)

    def trials(self) -> "list[FrozenTrial]":
        """The study's own trials, read from the storage now. They are not copies: don't change them."""
        return patiently(self._study, lambda: own_trials(self._study))

    def note_time(self) -> None:
        """Adds the time up to now to the study's time."""
        clock = self._clock
        if clock is not None:
            with locked(self._study):
                patiently(self._study, clock.advance)

    def spent_s(self) -> float | None:
        """The seconds that the study has used; None without a time limit."""
        return None if self._clock is None else patiently(self._study, self._clock.read)

    def take(self, at_once: int = 1, *, beside_others: bool = True) -> Batch:
        """Takes the next trials, at most `at_once`; those left by other processes come first.

        With `beside_others=False`, at most `at_once` trials run in all processes together.
        """
        begun: list[optuna.Trial] = []
        # Repeated as a whole if the server becomes unreachable; `begun` keeps the trials taken so far.
        return patiently(self._study, lambda: self._take(begun, at_once, beside_others))

    def _take(self, begun: "list[optuna.Trial]", at_once: int, beside_others: bool) -> Batch:
        # The lock makes counting and asking one step: otherwise two processes could both run the last trial.
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
        """Requeues the trials of dead processes, fails those that hang, and returns the study's trials."""
        trials = own_trials(self._study)
        overdue = self._overdue(trials)
        self._expire(overdue)
        silent = [t for t in trials if t.state.name == "RUNNING" and t not in overdue and self._is_silent(t)]
        for trial in silent:
            self._take_over(trial, "killed or silent")
        return own_trials(self._study) if overdue or silent else trials

    def _is_over(self, trials: "Sequence[FrozenTrial]") -> bool:
        """Whether too many failures or a used-up budget forbid further trials."""
        spent_s = None if self._clock is None else self._clock.advance()
        return self._plan.too_many_failed(trials) or self._plan.budgets.end(self._study, trials, spent_s) is not None

    def _ask(self, begun: "list[optuna.Trial]", n_more: int, at_once: int, trials: "Sequence[FrozenTrial]") -> None:
        """Asks for trials until this process has `at_once`, but for no more than `n_more` or than are planned."""
        n_planned, n_waiting = self._plan.n_planned(trials), sum(t.state.name == "WAITING" for t in trials)
        # A waiting trial already has a number, and ask() returns it before it makes a new one.
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
        """Enqueues the grid's next point that no trial has, and returns whether there was one."""
        for point in chain(self._points, self._plan.grid):  # all points again: an unreachable server may have lost one
            if point_key(point) not in tried:
                self._study.enqueue_trial(point)
                tried.add(point_key(point))
                return True
        return False

    def _overdue(self, trials: "Sequence[FrozenTrial]") -> "list[FrozenTrial]":
        """The running trials far beyond their time limit: a job that hangs may still send heartbeats."""
        limit_s = self._plan.settings.trial_timeout_s
        if limit_s is None:
            return []
        now, found = time.monotonic(), []
        for trial in trials:
            if trial.state.name == "RUNNING" and "directory" in job_facts(trial):
                # On this process's clock, as in `_is_silent`: another machine's clock may differ.
                first = self._first_seen.setdefault((trial.number, attempt_of(trial)), now)
                if now - first > limit_s + 2 * stopping_s(limit_s):
                    found.append(trial)
        return found

    def _expire(self, trials: "Sequence[FrozenTrial]") -> None:
        for trial in trials:
            self._set_state(trial, "FAIL", {ERROR: expired_text(self._plan.settings.trial_timeout)})

    def expire_hung(self) -> "list[FrozenTrial]":
        """Fails the running trials far beyond their time limit. Returns them: their processes may still run."""
        overdue = self._overdue(self.trials())
        self._expire(overdue)
        return overdue

    def requeue(self, trials: "Sequence[optuna.Trial]") -> None:
        """Returns interrupted trials, whose jobs have ended, to the queue: the next process resumes them.

        Their attempt does not change, because no process died. Skips trials that have ended or that another process has
        taken over.
        """
        for trial in trials:
            now = self._now(trial)
            if now.state.name == "RUNNING" and self._is_own(now):
                self._set_state(now, "WAITING", {JOB: {"attempt": attempt_of(now)}})

    def fail(self, trial: "optuna.Trial", error: str) -> None:
        """Fails a trial whose job ended without a result, unless another process has finished it or runs it."""
        now = self._now(trial)
        if now.state.name == "RUNNING" and self._is_own(now):
            self._set_state(now, "FAIL", {ERROR: error})

    def reclaim_dead(self, why: str) -> None:
        """Takes over all trials whose processes on this machine are dead, without a grace period."""
        with locked(self._study):
            for trial in self.trials():
                facts = job_facts(trial)
                is_dead = facts.get("host") == socket.gethostname() and not _is_alive(facts.get("pid", os.getpid()))
                if trial.state.name == "RUNNING" and "directory" in facts and is_dead:
                    self._take_over(trial, why)

    def reclaim_from_dead_worker(self, pid: int, why: str = "killed or silent") -> tuple[bool, bool]:
        """Takes over the trial of a dead worker of this machine, without a grace period.

        Returns whether the worker had begun any trial, and whether it died while running one.
        """
        with locked(self._study):
            # Compare the host too: on another machine, this pid is another process.
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

        with suppress(UpdateFinishedTrialError):  # its result arrived at the last moment
            patiently(self._study, lambda: set_state(self._study, trial, TrialState[state], attributes))

    def _is_own(self, trial: "FrozenTrial") -> bool:
        """Whether the trial still belongs to this process: no other has taken it over."""
        return attempt_of(trial) == self._attempts.get(trial.number, attempt_of(trial))

    def _is_silent(self, trial: "FrozenTrial") -> bool:
        """Whether a running trial's heartbeat has not changed for the grace period.

        The period is measured on this process's clock, because clocks of machines may differ by more than that. So a
        process that has just started also waits for the whole period.
        """
        # Includes the attempt: a trial that another process has just taken over has no heartbeat yet.
        sign, now = (attempt_of(trial), job_facts(trial).get("beat")), time.monotonic()
        if trial.number not in self._signs or self._signs[trial.number][0] != sign:
            self._signs[trial.number] = (sign, now)
        return now - self._signs[trial.number][1] > self._plan.settings.grace_period

    def _take_over(self, trial: "FrozenTrial", why: str) -> None:
        """Requeues a trial whose process is dead, or fails it after its last attempt."""
        facts = job_facts(trial)
        if self._clock is not None and "begun" in facts and "beat" in facts:
            self._clock.advance(facts["begun"], facts["beat"])
        attempt, max_retries = attempt_of(trial), self._plan.settings.max_retries
        self._signs.pop(trial.number, None)
        if attempt > max_retries:
            error = f"{why} {attempt} times (hydra.sweeper.max_retries={max_retries})"
            self._set_state(trial, "FAIL", {ERROR: error})
            return
        log.info("trial %d was %s: it is requeued and resumes where it stopped", trial.number, why)
        # The new attempt tells a process that was only suspended that the trial is no longer its own.
        self._set_state(trial, "WAITING", {JOB: {"attempt": attempt + 1}})


def _is_alive(pid: int) -> bool:
    """Whether this machine may have a process with this id."""
    if os.name == "nt":  # on Windows, os.kill ends the process with any signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ask_within(
    study: "optuna.Study", distributions: "Mapping[str, BaseDistribution]", limit: int
) -> "optuna.Trial | None":
    """Asks for a waiting trial, or a new one if the study has fewer than `limit`; else None (issues 1883, 2907).

    Call it under the study's lock. In a database, the transaction that creates the trial checks the limit again: a
    restart of the server releases the lock, and Optuna repeats the transaction.
    """
    from reg_sweep.search.backends import Database, TooManyTrials

    storage = opened_storage_of(study)
    with storage.limited(limit) if isinstance(storage, Database) else nullcontext():
        try:
            return study.ask(dict(distributions))
        except TooManyTrials:
            return None
