"""Signals that ask a sweep to end: an exception, and a flag beside it.

Python raises a handler's exception wherever the program is, be it in a destructor's callback, which swallows it. The
flag stays, and is looked at between trials and at each report.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
)  # Ctrl+C; how clusters, and our own sweeper, end a process; a closed terminal

# The process's own, as its signals are.
_received: int | None = None
_is_handled = False


@contextmanager
def handled() -> Iterator[None]:
    """Turns the signals that ask for an end into KeyboardInterrupt, within the block, and remembers them."""
    global _received, _is_handled
    before = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        # What somebody ignores stays ignored: nohup does so with SIGHUP.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, _interrupt)
    _received, _is_handled = None, True
    try:
        yield
    finally:
        _is_handled = False
        for number, handler in before.items():
            signal.signal(number, handler)


def received() -> int | None:
    """The signal that has asked for an end, if one has."""
    return _received


def is_handled() -> bool:
    """Whether this process is one that handles these signals here, so that `received` knows of all of them."""
    return _is_handled


def check() -> None:
    """Raises KeyboardInterrupt where a signal has come whose exception may have got lost."""
    if _received is not None and _is_handled:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number
    raise KeyboardInterrupt
