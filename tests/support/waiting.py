"""Waiting for what other processes do."""

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 60, pause_s: float = 0.02) -> None:
    """Until it holds; `what` comes then, in words. Where asking costs something, the pauses may be longer."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(pause_s)
