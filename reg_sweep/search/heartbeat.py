"""Signs of life of trials, while their job's function has the process to itself."""

import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

log = logging.getLogger(__name__)


class Beating(Protocol):
    """A trial that can give a sign of life."""

    @property
    def number(self) -> int:
        """The trial's number."""
        ...

    def beat(self, directory: str | None) -> None:
        """Notes that the trial is alive, in the job's directory."""


class Repeating:
    """Calls a function every so often, from a thread of its own, until the block ends."""

    def __init__(self, function: Callable[[], None], interval_s: float) -> None:
        """Calls it first when `interval_s` seconds have gone by."""
        self._function, self._interval_s = function, interval_s
        self._done = threading.Event()
        # Daemon: it must not keep a process that is to end.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            self._function()

    def __enter__(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Ends it, and waits for its last call."""
        self._done.set()
        self._thread.join()


class Heartbeat(Repeating):
    """Beats for trials until the block ends; a beat that came after a result would be refused.

    From a thread, for the app's function has no loop to hook into.
    """

    def __init__(self, trials: Sequence[Beating], interval_s: float, directory: str | None = None) -> None:
        """Beats every `interval_s` seconds; `directory` is the job's, None for jobs that are queued."""
        super().__init__(self._beat, interval_s)
        self._trials, self._directory = trials, directory

    def _beat(self) -> None:
        for trial in self._trials:
            try:
                trial.beat(self._directory)
            except Exception as error:  # a storage out of reach for a moment: the grace period decides
                log.warning("trial %d: no heartbeat written: %s", trial.number, type(error).__name__)
