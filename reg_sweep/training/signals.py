"""Signals that ask a run to stop."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from reg_sweep.training import turns

log = logging.getLogger(__name__)


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
        job = turns.current()
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
