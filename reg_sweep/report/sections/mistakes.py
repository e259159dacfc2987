"""The test images that arms got wrong: each arm's most confident mistakes, what all missed, and confusion matrices."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.predictions import (
    Array,
    Mistakes,
    Predictions,
    class_names,
    clipped,
    find_test_images,
    mistakes,
    note,
    other_labels,
    read_predictions,
)
from reg_sweep.comparison.results import Result
from reg_sweep.comparison.sentences import count
from reg_sweep.images import Pixels
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures.theme import N_COLOURS, Picture, sprite_sheet
from reg_sweep.runs.record import RecordError

N_ARMS = 24  # arms with mistakes shown
N_WORST = 25
N_MISSED = 50
_TILES_IN_A_ROW = 32


@dataclass(frozen=True)
class Tile:
    """One misclassified image: its place in the test set and, as column and row, on the sheet of images."""

    index: int
    place: tuple[int, int]
    actual: str
    predicted: str
    probability: str
    count: str


@dataclass(frozen=True)
class ArmMistakes:
    """An arm's most confident mistakes. `key` links it with its other places on the page.

    `n_wrong` is the mean over its runs.
    """

    label: str
    key: int | None
    slot: int | None
    n_runs: int
    n_wrong: str
    tiles: list[Tile]
    is_open: bool


@dataclass(frozen=True)
class MistakesSection:
    """The mistakes of the first arms, and the images that all `n_read` runs missed.

    Of these, the predictions of the arm `missed_by` are shown. `sheet` is the data: address of the images, empty if
    they are missing; `why` is the reason. `file_pictures` are saved beside the page and not shown on it.
    """

    arms: list[ArmMistakes]
    why: str
    sheet: str = ""
    n_columns: int = _TILES_IN_A_ROW
    missed: tuple[Tile, ...] = ()
    missed_by: str = ""
    n_missed: int = 0
    n_read: int = 0
    n_left_out: int = 0
    pictures: tuple[Picture, ...] = ()
    file_pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class _Read:
    """The mistakes of the arms that are shown; of all `n_read` runs, how many missed each image, (n_test,)."""

    shown: list[tuple[Arm, Mistakes]]
    n_wrong: Array
    n_read: int

    @property
    def missed(self) -> Array:
        return np.flatnonzero(self.n_wrong == self.n_read)


@dataclass(frozen=True)
class _Tiles:
    """Makes the tiles of images that have a place on one sheet; `names` are the classes'."""

    names: list[str]
    positions: list[int]

    def __call__(self, images: Array, m: Mistakes, *, is_counted: bool = True) -> Iterator[Tile]:
        place = {i: divmod(k, _TILES_IN_A_ROW)[::-1] for k, i in enumerate(self.positions)}
        for i in map(int, images):
            yield Tile(
                index=i,
                place=place[i],
                actual=self.names[m.label[i]],
                predicted=self.names[m.predicted[i]],
                probability=_sureness(m.probability[i]),
                count=f"{m.n_wrong[i]} of {m.n_runs}" if is_counted and m.n_runs > 1 else "",
            )


def mistakes_section(comparison: Comparison, canvas: Canvas, problems: list[str]) -> MistakesSection:
    """The section from the runs' predictions; unusable predictions are named in `problems`."""
    read = _read(comparison, problems)
    if not read.shown:
        return MistakesSection([], "no run under this folder has readable predictions.")
    first_arm, first = read.shown[0]
    images, why = find_test_images(first_arm.config, comparison.data.source, first.label, first.index)
    names = class_names(first_arm.config, len(first.confusion), first_arm.replicates[0].class_names)
    missed = read.missed
    worst = (int(i) for _, m in read.shown for i in m.worst(N_WORST))
    tiles = _Tiles(names, list(dict.fromkeys([*worst, *map(int, missed[:N_MISSED])])))
    best_arm, best = next(((arm, m) for arm, m in read.shown if arm is comparison.best), read.shown[0])
    return MistakesSection(
        arms=[
            ArmMistakes(
                label=arm.label,
                key=canvas.key(arm),
                slot=canvas.slot(arm),
                n_runs=m.n_runs,
                n_wrong=f"{m.n_wrong.sum() / m.n_runs:.0f}",
                tiles=list(tiles(m.worst(N_WORST), m)),
                is_open=m is best,
            )
            for arm, m in read.shown
        ],
        why=why,
        sheet="" if images is None else sprite_sheet(images[tiles.positions], _TILES_IN_A_ROW),
        missed=tuple(tiles(missed[:N_MISSED], best, is_counted=False)),
        missed_by=best_arm.label,
        n_missed=int(missed.size),
        n_read=read.n_read,
        n_left_out=max(len(comparison.measured) - N_ARMS, 0),
        pictures=tuple(_confusions(comparison, canvas, read.shown[:2], best, names)),
        file_pictures=() if images is None else tuple(_worst_of_arms(canvas, read.shown[:N_COLOURS], images, names)),
    )


def _read(comparison: Comparison, problems: list[str]) -> _Read:
    shown: list[tuple[Arm, Mistakes]] = []
    n_test = comparison.data.n_test
    n_wrong, n_read = np.zeros((), int), 0
    base = comparison.baseline.replicates if comparison.baseline is not None else []
    read = (_predictions(r, n_test, problems) for r in base)
    label = next((p.label for p in read if p is not None), None)
    for position, arm in enumerate(_in_order(comparison)):
        runs = []
        # For arms that are not shown, one run each is enough to find the images that all miss.
        for r in arm.replicates[: None if position < N_ARMS else 1]:
            found = _predictions(r, n_test, problems)
            if found is None:
                continue
            label = found.label if label is None else label
            if np.array_equal(found.label, label):
                runs.append(found)
            else:
                note(problems, other_labels(r.path))
        if not runs:
            continue
        n_wrong, n_read = n_wrong + sum(~p.correct for p in runs), n_read + len(runs)
        if position < N_ARMS:
            shown.append((arm, mistakes(runs)))
    return _Read(shown, n_wrong, n_read)


def _predictions(run: Result, n_test: int, problems: list[str]) -> Predictions | None:
    try:
        return read_predictions(run.path, n_test)
    except RecordError as error:
        note(problems, error)
        return None


def _in_order(comparison: Comparison) -> list[Arm]:
    """The measured arms, best first, the baseline second."""
    first = [a for a in (comparison.best, comparison.baseline) if a is not None]
    return list({a.digest: a for a in [*first, *comparison.measured]}.values())


def _confusions(
    comparison: Comparison, canvas: Canvas, shown: list[tuple[Arm, Mistakes]], best: Mistakes, names: list[str]
) -> Iterator[Picture]:
    for arm, m in shown:
        name = "best" if m is best else "baseline" if arm is comparison.baseline else "next"
        title = f"Confusion: {arm.label}"
        n_images = f"{comparison.data.n_test:,} test images"
        caption = f"{n_images}, {count(m.n_runs, 'run')}. {_worst_confusions(m, names)}"
        draw = partial(figures.confusion, title, m.confusion, [clipped(name) for name in names])
        yield canvas.picture(f"confusion-{name}", draw, f"{title}. {caption}", caption)


def _worst_of_arms(
    canvas: Canvas, arms: list[tuple[Arm, Mistakes]], images: Pixels, names: list[str]
) -> Iterator[Picture]:
    """The most confident mistakes of each arm as one figure, for a paper."""
    for arm, m in arms:
        worst = m.worst(N_WORST)
        if not worst.size:
            continue
        shown = [clipped(name) for name in names]
        gap = "\n" if max(map(len, shown)) > 6 else " "
        captions = [f"{shown[m.label[i]]} →{gap}{shown[m.predicted[i]]}, {m.probability[i]:.0%}" for i in worst]
        title = f"Most confident mistakes: {arm.label}"
        slot = canvas.slot(arm)
        draw = partial(figures.mistakes, title, images[worst], captions)
        name = f"mistakes-{'x' if slot is None else slot}"
        yield canvas.file_picture(name, draw, f"{title}: actual → predicted, probability.")


def _worst_confusions(m: Mistakes, names: list[str]) -> str:
    wrong = m.confusion * (1 - np.eye(len(m.confusion), dtype=int))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    parts = [f"{names[i]} taken for {names[j]} ({wrong[i, j] / m.n_runs:.1f})" for i, j in worst if wrong[i, j]]
    return f"Most frequent, in images per run: {', '.join(parts)}." if parts else "No mistake."


def _sureness(probability: float) -> str:
    return "> 99.9%" if probability >= 0.9995 else f"{100 * probability:.1f}%"
