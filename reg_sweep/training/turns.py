"""Jobs that take turns: each in a thread of its own, one at a time, until it asks for something or ends.

A job is a plain function, such as a whole run: it need not know that others go on beside it. What it asks for is
answered by the thread that runs all of them, which sees the questions of many jobs at once. Signals that ask a run to
stop are collected for it, alone or among others.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

Switch = tuple[Callable[[], Any], Callable[[Any], None]]  # reads a state of the process; sets it
_thread = threading.local()


class Job:
    """A function that takes turns with others.

    Attributes:
        question: what the job waits for an answer to.
        error: what the job raised.
        is_done: whether it has ended.
        state: what `Turns` switches, as this job left it.
        stops: signals that have asked all jobs to stop.
    """

    def __init__(self, function: Callable[[], Any], state: list[Any], stops: list[int]) -> None:
        self.question: Any = None
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.state, self.stops = state, stops
        self._answer: Any = None
        self._seconds, self._since = 0.0, 0.0  # of earlier turns; when this one began
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        # Daemon: a second Ctrl-C ends the process, and waits for no job.
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
        """In the job's thread: ends its turn; returns the answer, or raises it if it is an exception."""
        self.question = question
        self._back.release()
        self._go.acquire()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def seconds(self) -> float:
        """In the job's thread: the seconds of its turns so far, and its part of what was done for several jobs."""
        return self._seconds + time.perf_counter() - self._since

    def add_seconds(self, seconds: float) -> None:
        """Counts a part of what was done for several jobs."""
        self._seconds += seconds

    def turn(self, answer: Any = None) -> None:
        """In another thread: gives the job its next turn, and waits for its end."""
        self.question, self._answer, self._since = None, answer, time.perf_counter()
        if not self._thread.is_alive():
            self._thread.start()
        self._go.release()
        self._back.acquire()
        self._seconds += time.perf_counter() - self._since


def current() -> Job | None:
    """The job of this thread; None in a thread that takes no turns."""
    return getattr(_thread, "job", None)


def seconds() -> float:
    """A clock: the current job's own time, or the time of day where no jobs take turns."""
    job = current()
    return time.perf_counter() if job is None else job.seconds()


class Turns:
    """The jobs that are under way, and the states of the process that each has to itself."""

    def __init__(self, switches: Iterable[Switch], stops: list[int]) -> None:
        """`switches` read and set what is the process's, but is each job's own while it has its turn."""
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
    """The run was asked to stop, by Ctrl-C or SIGTERM; its checkpoint is kept."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number


@contextmanager
def stop_on_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second Ctrl-C is not waited for.

    Jobs that take turns share what the thread that runs them has collected.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        job = current()
        yield caught if job is None else job.stops
        return

    def handle(number: int, _: object) -> None:
        if caught and number == signal.SIGINT:  # as it was taken before: a study notes it
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
