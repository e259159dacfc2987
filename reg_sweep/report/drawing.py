"""Drawing pictures in parallel, one process per core: drawing takes most of a report's time."""

import gc
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from reg_sweep.report.figures import theme
from reg_sweep.report.figures.theme import Form, Picture, Rendered

FEWEST = 8  # pictures that are worth a process more
_pictures: Sequence[Picture] = ()
_forms: Sequence[Form] = ()


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
    """Newer Pythons warn of a fork beside threads; those here, of torch and numpy, are idle and unused by a drawing."""
    gc.freeze()  # or a collection in a forked process writes to, and so copies, all that they share
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
            yield
    finally:
        gc.unfreeze()


def _draw(number: int) -> Rendered:
    return theme.rendered(_pictures[number], _forms)
