"""The pictures of a page: what those of one data set share, and drawing all of them in parallel."""

import gc
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.report.figures import theme
from reg_sweep.report.figures.theme import N_COLOURS, Draw, Form, Picture, Rendered

FEWEST = 8  # pictures that justify another process
_pictures: Sequence[Picture] = ()
_forms: Sequence[Form] = ()


class Canvas:
    """Gives the baseline and the best arms a colour each, the same in every picture of their data set.

    `id` names the data set in the page. Pictures are counted as they are made, so that no two share an id.
    """

    def __init__(self, number: int, comparison: Comparison) -> None:
        """The canvas of the `number`th data set of a page, counted from 1."""
        base = comparison.baseline
        others = [arm for arm in comparison.measured if arm is not base][: N_COLOURS - 1]
        self.id = f"d{number}"
        self.coloured = ([base] if base is not None else []) + others
        self._slots = {arm.digest: slot for slot, arm in enumerate(self.coloured)}
        self.grey = [arm for arm in comparison.measured if arm.digest not in self._slots]
        self._keys = {arm.digest: key for key, arm in enumerate([*self.coloured, *self.grey])}
        self._file_prefix = "" if number == 1 else f"data{number}-"
        self._n_pictures = 0

    def slot(self, arm: Arm) -> int | None:
        """The arm's place among the coloured arms; None for every other arm."""
        return self._slots.get(arm.digest)

    def key(self, arm: Arm) -> int | None:
        """The number that links an arm's places on the page: its slot, or one above all slots; None if untrained."""
        return self._keys.get(arm.digest)

    def picture(self, name: str, draw: Draw, alt: str, caption: str = "", *, wide: bool = False) -> Picture:
        """A picture with its name, its caption and a fresh id."""
        self._n_pictures += 1
        return Picture(f"{self._file_prefix}{name}", alt, draw, f"{self.id}f{self._n_pictures}", caption, wide)

    def file_picture(self, name: str, draw: Draw, alt: str) -> Picture:
        """A picture that is saved as a file but not shown on the page, so it needs no id."""
        return Picture(f"{self._file_prefix}{name}", alt, draw, "unused")


def seeds_text(arms: list[Arm]) -> str:
    """'Mean of 3 seeds', 'Means of 1 to 3 seeds', '1 seed'."""
    n = sorted({len(arm.replicates) for arm in arms})
    if n[-1] == 1:
        return "1 seed"
    return f"Mean of {n[0]} seeds" if len(n) == 1 else f"Means of {n[0]} to {n[-1]} seeds"


def drawn(pictures: Sequence[Picture], forms: Sequence[Form], n_processes: int | None = None) -> Iterator[Rendered]:
    """The drawn pictures, in order; drawn by `n_processes`, by default one per core if there are enough pictures.

    The processes are forked, so that they start with the figures and matplotlib loaded. Outside Linux a fork is not
    safe: there the pictures are drawn one after the other, and look the same.
    """
    n = _n_processes(len(pictures)) if n_processes is None else n_processes
    if n < 2:
        yield from (theme.rendered(picture, forms) for picture in pictures)
        return
    global _pictures, _forms
    _pictures, _forms = pictures, forms
    try:
        with _forking(), multiprocessing.get_context("fork").Pool(n) as pool:
            yield from pool.imap(_draw, range(len(pictures)))
    finally:
        _pictures, _forms = (), ()


def _n_processes(n_pictures: int) -> int:
    if not sys.platform.startswith("linux") or multiprocessing.current_process().daemon:
        return 1
    return min(len(os.sched_getaffinity(0)), n_pictures // FEWEST + 1, 8)


@contextmanager
def _forking() -> Iterator[None]:
    """Forks although there are threads: those of torch and numpy are idle, and drawing does not use them."""
    gc.freeze()  # otherwise a collection in a forked process would write to, and so copy, all shared objects
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
            yield
    finally:
        gc.unfreeze()


def _draw(number: int) -> Rendered:
    return theme.rendered(_pictures[number], _forms)
