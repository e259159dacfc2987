"""A report's progress: a bar on a terminal; elsewhere, such as in a log, an occasional line if it takes long."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

EVERY_S = 5.0


class Progress:
    """Shows a report's progress on stderr, unless `is_shown` is False."""

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
        """Announces a step of unknown length."""
        if self._is_shown and not sys.stderr.isatty():
            self._tell(what)

    def _tell(self, line: str) -> None:
        if time.monotonic() - self._told_s >= EVERY_S:
            self._told_s = time.monotonic()
            with suppress(OSError):  # a full log is no reason to lose a report
                print(f"reg_sweep.report: {line}", file=sys.stderr, flush=True)
