"""Waits for other processes."""

import threading
import time
from collections.abc import Callable


def at_once(work: Callable[[], object], n: int) -> None:
    """Does the work in `n` threads at the same time, until all have ended."""
    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = 60, pause_s: float = 0.02) -> None:
    """Waits until `holds` returns something true; `what` describes it for the error. Pause longer for costly checks."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"no {what} within {timeout_s} s"
        time.sleep(pause_s)
