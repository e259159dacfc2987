"""How much, in pictures: a metric over both lambdas, and small curves of train and test, a panel for each lambda.

The panels of small curves lie in one matplotlib axes: with axes of their own they took three times as long, most of it
for ticks that shared axes hide.
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
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from reg_sweep.report.figures.axes import (
    PLAIN,
    apart,
    epoch_range,
    epoch_ticks,
    later_range,
    log_ticks,
    near_best,
    outside_text,
    ticks,
)
from reg_sweep.report.figures.theme import HEAT, LIGHT, PAGE_WIDTH, STYLE, colour, heading, new_figure

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
    """Where values lie between the ends of an axis: 0 at the lower, 1 at the upper; nan if off a log axis."""
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


# ---- both lambdas at once


def heat_map(
    title: str,
    l1: Sequence[str],
    l2: Sequence[str],
    means: Array,
    *,
    best: tuple[int, int],
    as_good: NDArray[np.bool_],
    set_aside: NDArray[np.bool_] | None = None,
    is_accuracy: bool,
    unit: str,
    names: tuple[str, str] = ("L1", "L2"),
    higher_is_better: bool | None = None,
    digits: int = 4,
) -> Figure:
    """A metric over l1 (across) and l2 (up), with contours where few are missing; the best cell framed.

    `names` are those of the two settings. An accuracy is in percent, and higher is better unless stated otherwise.
    `means` is (len(l2), len(l1)); nan is a combination not run. `best` is a place in it; the cells that are `as_good`,
    within one standard error of the best, have a thin frame. Colours distinguish the cells near the best: worse ones
    share the last, the arrow of the bar. Cells `set_aside`, from which the best was not chosen, are hatched.
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=2.7)
        is_higher = is_accuracy if higher_is_better is None else higher_is_better
        cmap = HEAT if is_higher else HEAT.reversed()
        shown = means * 100 if is_accuracy else means
        aside = np.zeros(means.shape, bool) if set_aside is None else set_aside & np.isfinite(means)
        coloured = np.where(aside, np.nan, shown)
        low, high = near_best(coloured, higher_is_better=is_higher)
        masked = np.ma.masked_invalid(coloured)
        grid = ax.pcolormesh(masked, cmap=cmap, vmin=low, vmax=high, edgecolors=LIGHT["paper"], linewidth=0.8)
        centres_x, centres_y = np.arange(len(l1)) + 0.5, np.arange(len(l2)) + 0.5
        most = 0.75 if means.size >= 20 else 1  # contours of few cells with holes would be nonsense
        is_dense = np.isfinite(coloured).mean() >= most
        if min(means.shape) >= 3 and is_dense and np.nanmin(means) < np.nanmax(means):
            ax.contour(centres_x, centres_y, masked, 5, colors="#f73203", linewidths=0.7, alpha=0.8)
        if means.size <= 42:
            for (i, j), value in np.ndenumerate(shown):
                if np.isfinite(value):
                    is_light = (value > (low + high) / 2) == is_higher
                    text = f"{value:.{2 if is_accuracy else digits}f}"
                    tint = LIGHT["muted"] if aside[i, j] else "#010101" if is_light else "#fefefe"
                    ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7.5, color=tint)
        for i, j in np.argwhere(aside):
            ax.add_patch(Rectangle((j, i), 1, 1, fill=False, edgecolor=LIGHT["grid"], hatch="////", lw=0, zorder=0))
        framed: dict[str, Any] = {"fill": False, "edgecolor": "#f73203"}
        for i, j in np.argwhere(as_good):
            ax.add_patch(Rectangle((j + 0.06, i + 0.06), 0.88, 0.88, linewidth=0.9, **framed))
        ax.add_patch(Rectangle((best[1], best[0]), 1, 1, linewidth=2, **framed))
        ax.set_xticks(centres_x[:: 1 + len(l1) // 9], l1[:: 1 + len(l1) // 9])
        ax.set_yticks(centres_y[:: 1 + len(l2) // 12], l2[:: 1 + len(l2) // 12])
        if len(l1) > 5:
            ax.tick_params(axis="x", labelrotation=30)
        ax.grid(visible=False)
        ax.set(title=heading(title, figure), xlabel=names[0], ylabel=names[1])
        beyond = "min" if np.nanmin(coloured) < low else "max" if np.nanmax(coloured) > high else "neither"
        bar = figure.colorbar(grid, ax=ax, label=unit, format=PLAIN, ticks=ticks(6), extend=beyond)
        bar.outline.set_visible(False)
    return figure
