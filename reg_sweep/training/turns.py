"""Jobs that take turns: each runs in a thread of its own, one at a time, until it asks a question or ends.

A job is a plain function, such as a whole run, and need not know about other jobs. The thread that runs the jobs
answers their questions, and sees those of many jobs at once. This module also collects signals that ask runs to stop.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

Switch = tuple[Callable[[], Any], Callable[[Any], None]]  # getter and setter of a process-wide state
_thread = threading.local()


class Job:
    """A function that takes turns with others.

    Attributes:
        question: the question whose answer the job is waiting for.
        result: the function's return value.
        error: the exception that the function raised.
        is_done: whether the job has ended.
        state: the states that `Turns` switches, as this job left them.
        stops: signals that have asked all jobs to stop.
    """

    def __init__(self, function: Callable[[], Any], state: list[Any], stops: list[int]) -> None:
        self.question: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.state, self.stops = state, stops
        self._answer: Any = None
        self._seconds, self._since = 0.0, 0.0  # in earlier turns; start of this turn
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        # A daemon, so that a second Ctrl-C ends the process without waiting for jobs.
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)

    def _run(self, function: Callable[[], Any]) -> None:
        self._go.acquire()
        _thread.job = self
        try:
            self.result = function()
        except BaseException as error:
            self.error = error
        self.is_done = True
        self._back.release()

    def ask(self, question: Any) -> Any:
        """Called in the job's thread: ends its turn; returns the answer, or raises it if it is an exception."""
        self.question = question
        self._back.release()
        self._go.acquire()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def seconds(self) -> float:
        """Called in the job's thread: seconds of its turns so far, and of its part of work done for several jobs."""
        return self._seconds + time.perf_counter() - self._since

    def add_seconds(self, seconds: float) -> None:
        """Adds the job's part of the work done for several jobs."""
        self._seconds += seconds

    def turn(self, answer: Any = None) -> None:
        """Called in another thread: gives the job its next turn, and waits until the turn ends."""
        self.question, self._answer, self._since = None, answer, time.perf_counter()
        if not self._thread.is_alive():
            self._thread.start()
        self._go.release()
        self._back.acquire()
        self._seconds += time.perf_counter() - self._since


def current() -> Job | None:
    """The job of the current thread; None outside of jobs."""
    return getattr(_thread, "job", None)


def seconds() -> float:
    """A clock for durations: the current job's own time, or `time.perf_counter` outside of jobs."""
    job = current()
    return time.perf_counter() if job is None else job.seconds()


class Turns:
    """Runs jobs in turns, and switches the process-wide states of which each job has its own."""

    def __init__(self, switches: Iterable[Switch], stops: list[int]) -> None:
        """`switches` get and set the process-wide states of which each job has its own during its turns."""
        self._switches, self._stops = list(switches), stops

    def _read(self) -> list[Any]:
        return [read() for read, _ in self._switches]

    def _set(self, state: list[Any]) -> None:
        for (_, set_), value in zip(self._switches, state, strict=True):
            set_(value)

    def begin(self, function: Callable[[], Any]) -> Job:
        """Gives a new job its first turn."""
        job = Job(function, self._read(), self._stops)
        self.turn(job)
        return job

    def turn(self, job: Job, answer: Any = None) -> None:
        """Gives a job its next turn, with an answer to its question."""
        own = self._read()
        self._set(job.state)
        try:
            job.turn(answer)
        finally:
            job.state = self._read()
            self._set(own)


class Interrupted(BaseException):
    """A run was asked to stop by Ctrl-C or SIGTERM. Its checkpoint is kept."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that a run can stop cleanly; a second Ctrl-C has its usual effect.

    Jobs that take turns share the signals that the thread that runs them has collected.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        job = current()
        yield caught if job is None else job.stops
        return

    def handle(number: int, _: object) -> None:
        if caught and number == signal.SIGINT:  # restores the previous handler, because a study has its own
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        caught.append(number)
        log.info("stopping at the next batch")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
