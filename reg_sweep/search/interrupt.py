"""Signals that ask a sweep, or a job whose time is over, to end: an exception, and a flag.

Python raises a handler's exception wherever the program is, even in a destructor, which swallows it. The flag stays,
and is checked between trials and at each report.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
)  # Ctrl+C; how clusters, and our own sweeper, end a process; a closed terminal
# Sent by clusters as a warning: submitit requeues the job at one of them, and ends the process by an exception.
_WARNINGS = ("SIGUSR1", "SIGUSR2")

# The process's own, as its signals are.
_received: int | None = None
_is_handled = False
_n_whole = 0  # how often the main thread has called hold_back, and not yet let_through
_is_held_back = False
_is_late = False


class TimeLimitError(BaseException):
    """The time of the running job is over. Not an Exception, which the app would take for its own."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeLimitError within the block after so many seconds, wherever Python runs or waits.

    Does nothing without a limit, outside of the main thread, and on Windows, which has no such signal.
    """
    global _is_late
    is_main = threading.current_thread() is threading.main_thread()
    if seconds is None or not is_main or not hasattr(signal, "SIGALRM"):
        yield
        return
    _is_late = False
    before = signal.signal(signal.SIGALRM, _on_time_over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        _is_late = False


def _on_time_over(number: int, frame: FrameType | None) -> None:
    global _is_late
    if _n_whole > 0:
        _is_late = True
        return
    raise TimeLimitError


@contextmanager
def handled() -> Iterator[None]:
    """Turns the signals that ask for an end into KeyboardInterrupt, within the block, and remembers them."""
    global _received, _is_handled, _is_held_back
    if threading.current_thread() is not threading.main_thread():  # Python hands signals to the main one alone
        yield
        return
    before: dict[int, Any] = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        # An ignored signal stays ignored: nohup ignores SIGHUP.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, _interrupt)
    for name in _WARNINGS:
        number = getattr(signal, name, None)
        if number is not None and callable(handler := signal.getsignal(number)):
            before[number] = signal.signal(number, _ending(handler))
    was_handled, _received, _is_handled, _is_held_back = _is_handled, None, True, False
    try:
        yield
    finally:
        _is_handled = was_handled
        for number, handler in before.items():
            signal.signal(number, handler)


def received() -> int | None:
    """The signal that asked for an end, if any."""
    return _received


def is_handled() -> bool:
    """Whether this process handles these signals here, so that `received` knows all of them."""
    return _is_handled


def check() -> None:
    """Raises KeyboardInterrupt where a signal has come whose exception may have been swallowed."""
    if _received is not None and _is_handled:
        raise KeyboardInterrupt


def hold_back() -> None:
    """From here to `let_through` a signal's exception waits, so that it cuts nothing in two.

    Nothing in between should take long. Each call needs one of the other, in the same thread.
    """
    global _n_whole
    if threading.current_thread() is threading.main_thread():  # Python hands signals to it alone
        _n_whole += 1


def let_through() -> None:
    """Raises KeyboardInterrupt where a signal has come since `hold_back`."""
    global _n_whole, _is_held_back, _is_late
    if threading.current_thread() is not threading.main_thread():
        return
    _n_whole -= 1
    if _is_held_back and _n_whole == 0:
        _is_held_back = False
        raise KeyboardInterrupt
    if _is_late and _n_whole == 0:
        _is_late = False
        raise TimeLimitError


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received, _is_held_back
    _received = number
    if _n_whole > 0:
        _is_held_back = True
        return
    raise KeyboardInterrupt


def _ending(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    """A handler that turns exceptions into SIGTERM: an exit in the middle of a job would look like the job's own."""

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException:
            signal.raise_signal(signal.SIGTERM)

    return handle
