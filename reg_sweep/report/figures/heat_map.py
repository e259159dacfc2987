"""A metric over both lambdas at once."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from reg_sweep.report.figures.axes import PLAIN, near_best, ticks
from reg_sweep.report.figures.theme import HEAT, LIGHT, STYLE, heading, new_figure

Array = NDArray[Any]


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

    `names` are those of the two settings. An accuracy is in percent, and higher is better unless it is said. `means` is
    (len(l2), len(l1)); nan is a combination not run. `best` is a place in it; the cells that are `as_good`, within one
    standard error of the best, have a thin frame. Colours distinguish the cells near the best: worse ones share
    the last, the arrow of the bar. Cells `set_aside`, from which the best was not chosen, are hatched.
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
        most = 0.75 if means.size >= 20 else 1  # few cells with holes draw nonsense
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
