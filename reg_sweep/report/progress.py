"""How far a report is: a bar on a terminal; elsewhere, as in a log, a line now and then, and none of a quick one."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

EVERY_S = 5.0


class Progress:
    """Tells on stderr what a report is at; `is_shown` False tells nothing."""

    def __init__(self, is_shown: bool = True) -> None:
        self._is_shown = is_shown and sys.stderr is not None  # None where it was closed before the start
        self._told_s = time.monotonic()

    def over(self, items: Iterable[T], what: str, unit: str, n: int) -> Iterator[T]:
        """The `n` items, one by one; `what` is done with each."""
        if not self._is_shown:
            yield from items
            return
        if sys.stderr.isatty():
            yield from tqdm(items, total=n, desc=what, unit=unit, leave=False)
            return
        for done, item in enumerate(items):
            self._tell(f"{what}: {done:,} of {n:,} {unit}s")
            yield item

    def at(self, what: str) -> None:
        """Tells what comes next, whose end can't be foreseen."""
        if self._is_shown and not sys.stderr.isatty():
            self._tell(what)

    def _tell(self, line: str) -> None:
        if time.monotonic() - self._told_s >= EVERY_S:
            self._told_s = time.monotonic()
            with suppress(OSError):  # a full log is no reason to lose a report
                print(f"reg_sweep.report: {line}", file=sys.stderr, flush=True)
