"""Small curves of train and test, a panel for each lambda.

All panels lie in one matplotlib axes: with axes of their own they took three times as long, most of it for ticks that
shared axes hide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from reg_sweep.report.figures.axes import apart, epoch_range, epoch_ticks, later_range, log_ticks, outside_text, ticks
from reg_sweep.report.figures.theme import LIGHT, PAGE_WIDTH, STYLE, colour, heading, new_figure

Array = NDArray[Any]
Place = tuple[float, float]

N_COLUMNS = 4
_ACROSS, _DOWN = 1.08, 1.28  # from panel to panel; a panel is 1 wide and 1 high
_TRAIN_DASH = (0, (4, 2))


@dataclass(frozen=True)
class Panel:
    """One lambda: its title, its arm's slot, and the mean curves of train and test, (n_epochs,) each."""

    title: str
    slot: int | None
    train: Array
    test: Array


def train_and_test(title: str, panels: Sequence[Panel], *, is_accuracy: bool, unit: str) -> Figure:
    """Train (dashed) and test (solid) by epoch, a panel for each lambda, all on the same two axes."""
    n_columns = min(len(panels), N_COLUMNS)
    n_rows = -(-len(panels) // n_columns)
    places = [(_ACROSS * (k % n_columns), -_DOWN * (k // n_columns)) for k in range(len(panels))]
    curves = [curve for p in panels for curve in (p.train, p.test)]
    ends = later_range(curves, is_accuracy=is_accuracy)
    is_log = not is_accuracy and ends is not None
    ends = (0.0, 1.0) if ends is None else ends
    n_epochs = max(p.test.size for p in panels)
    epochs = _share(np.arange(1, n_epochs + 1), epoch_range(n_epochs))
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(width=min(1.65 * n_columns + 0.4, PAGE_WIDTH), height=1.35 * n_rows + 0.9)
        ax.set_axis_off()
        _axes(ax, places, n_columns, n_epochs, ends, is_log, is_accuracy)
        tints = [colour(p.slot) if p.slot else LIGHT["ink"] for p in panels]
        _lines(ax, places, [p.train for p in panels], epochs, ends, is_log, [LIGHT["muted"]] * len(panels), _TRAIN_DASH)
        _lines(ax, places, [p.test for p in panels], epochs, ends, is_log, tints, "solid")
        for (x, y), panel in zip(places, panels, strict=True):
            ax.text(x, y + 1.04, panel.title, fontsize=7.5, va="bottom")
        ax.set(xlim=(0, places[n_columns - 1][0] + 1), ylim=(places[-1][1], 1))
        handles = [
            Line2D([], [], color=LIGHT["muted"], linestyle=_TRAIN_DASH, linewidth=1.1, label="train"),
            Line2D([], [], color=LIGHT["ink"], linewidth=1.3, label="test"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        foot, right = places[-1][1] - 0.2, places[n_columns - 1][0] + 1
        ax.text(right / 2, foot, "epoch", ha="center", va="top", fontsize=7.5)
        text = outside_text(curves, ends)
        ax.text(right, foot, text, ha="right", va="top", fontsize=7, color=LIGHT["muted"])
        figure.supylabel(unit, fontsize=7.5)
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure


def _axes(
    ax: Axes, places: Sequence[Place], n_columns: int, n_epochs: int, ends: Place, is_log: bool, is_accuracy: bool
) -> None:
    """The grids and frames of all panels; numbers left of the first column, and below the last panel of each column."""
    values = [float(v) for v in ticks(4).tick_values(*ends) if ends[0] <= v <= ends[1]]
    if is_log:
        values = apart(log_ticks(*ends), 0.12 * float(np.log10(ends[1] / ends[0])))
    heights = _share(np.array(values), ends, is_log=is_log)
    at = epoch_ticks(n_epochs, 4)
    across = _share(np.array(at), epoch_range(n_epochs))
    grid = [
        *([(x, y + h), (x + 1, y + h)] for x, y in places for h in heights),
        *([(x + a, y), (x + a, y + 1)] for x, y in places for a in across),
    ]
    ax.add_collection(LineCollection(grid, colors=LIGHT["grid"], linewidths=0.7))
    frames = [[(x, y + 1), (x, y), (x + 1, y)] for x, y in places]
    ax.add_collection(LineCollection(frames, colors=LIGHT["muted"], linewidths=0.7))
    for x, y in places[::n_columns]:
        for value, h in zip(values, heights, strict=True):
            text = f"{100 * value:.6g}" if is_accuracy else f"{value:g}"
            ax.text(x - 0.03, y + h, text, ha="right", va="center", fontsize=7.5)
    for x, y in places[-n_columns:]:
        for epoch, a in zip(at, across, strict=True):
            ax.text(x + a, y - 0.04, str(epoch), ha="center", va="top", fontsize=7.5)


def _lines(
    ax: Axes,
    places: Sequence[Place],
    curves: Sequence[Array],
    epochs: Array,
    ends: Place,
    is_log: bool,
    tints: Sequence[str],
    dash: Any,
) -> None:
    parts, colours = [], []
    for place, curve, tint in zip(places, curves, tints, strict=True):
        for part in _within(epochs[: curve.size], _share(curve, ends, is_log=is_log)):
            parts.append(part + place)
            colours.append(tint)
    width = 1.3 if dash == "solid" else 1.1
    ax.add_collection(LineCollection(parts, colors=colours, linestyles=[dash], linewidths=width))


def _share(values: Array, ends: Place, *, is_log: bool = False) -> Array:
    """Where values lie between the ends of an axis: 0 at the lower, 1 at the upper; nan for what a log axis has not."""
    if not is_log:
        return (values - ends[0]) / (ends[1] - ends[0])
    logs = np.log(np.where(values > 0, values, np.nan))
    low, high = np.log(ends)
    return np.asarray((logs - low) / (high - low))


def _within(x: Array, y: Array) -> Iterator[Array]:
    """The parts of a line, (n, 2) each, where 0 <= y <= 1: it is broken where it leaves, and where y is nan."""
    for bound in (0.0, 1.0):
        before, after = y[:-1] - bound, y[1:] - bound
        (at,) = np.nonzero(before * after < 0)
        crossing = x[at] + (x[at + 1] - x[at]) * before[at] / (before[at] - after[at])
        x, y = np.insert(x, at + 1, crossing), np.insert(y, at + 1, bound)
    inside = (y >= 0) & (y <= 1)
    starts = np.flatnonzero(np.diff(inside)) + 1
    for part in np.split(np.arange(y.size), starts):
        if part.size and inside[part[0]]:
            yield np.column_stack([x[part], y[part]])
