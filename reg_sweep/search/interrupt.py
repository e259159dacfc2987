"""Signals and time limits, which end a sweep or a job early. Each raises an exception and sets a flag.

Python raises a handler's exception wherever the program is, even in a destructor, which swallows it. The flag remains;
it is checked between trials and at each report.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (
    "SIGINT",  # Ctrl+C
    "SIGTERM",  # sent by clusters and by the sweeper to end a process
    "SIGHUP",  # a closed terminal
)
# Warnings that clusters send: submitit's handler requeues the job and ends the process by an exception.
_WARNINGS = ("SIGUSR1", "SIGUSR2")

# Module globals, because signals belong to the process.
_received: int | None = None
_is_handled = False
_n_whole = 0  # calls of hold_back by the main thread without their let_through so far
_is_held_back = False
_is_late = False


class TimeLimitError(BaseException):
    """The running job has exceeded its time limit. Not an Exception, which the app's own handlers would catch."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeLimitError within the block after this many seconds, wherever Python runs or waits.

    Does nothing without a limit, outside the main thread, or on Windows, which has no such signal.
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
    """Within the block, turns the signals that end a process into KeyboardInterrupt, and remembers the last one."""
    global _received, _is_handled, _is_held_back
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
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
    """The signal that asked this process to end, if any."""
    return _received


def is_handled() -> bool:
    """Whether this module handles the signals now, so that `received` misses none."""
    return _is_handled


def check() -> None:
    """Raises KeyboardInterrupt if a signal was received: its own exception may have been swallowed."""
    if _received is not None and _is_handled:
        raise KeyboardInterrupt


def end_process() -> NoReturn:
    """Ends this process at once, from any thread, with exit code 1 and without cleaning up.

    For a process that can't end by itself: its main thread may hang in C code. There is no gentler way: in another
    thread, sys.exit ends only that thread, and Python runs a signal's handler only in the main thread.
    """
    os._exit(1)


def hold_back() -> None:
    """Delays a signal's exception until `let_through`, so that it does not interrupt what must be whole.

    Nothing in between should take long. Each call must be paired with `let_through` in the same thread.
    """
    global _n_whole
    if threading.current_thread() is threading.main_thread():  # only the main thread receives signals
        _n_whole += 1


def let_through() -> None:
    """Raises the KeyboardInterrupt or TimeLimitError that has been delayed since `hold_back`."""
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
    """Wraps a handler to turn its exceptions into SIGTERM: raised within a job, they would look like the job's own."""

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException:
            signal.raise_signal(signal.SIGTERM)

    return handle
