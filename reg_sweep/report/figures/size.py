"""How large a network is, and how good; and what became of its channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reg_sweep.report.figures.axes import PERCENT, log_places, ticks
from reg_sweep.report.figures.theme import (
    LIGHT,
    MARKERS,
    PAGE_WIDTH,
    STYLE,
    colour,
    heading,
    legend_height,
    new_figure,
    place_legend,
)
from reg_sweep.stats.estimates import Estimate

Array = NDArray[Any]


@dataclass(frozen=True)
class SizePoint:
    """An arm's multiply-adds, as shares of the largest network's (mean, least, most over seeds), and its score."""

    label: str
    slot: int | None
    size: tuple[float, float, float]
    score: Estimate


def size_against_score(title: str, unit: str, points: Sequence[SizePoint], *, is_accuracy: bool) -> Figure:
    """Each arm's score, with its interval, against the multiply-adds that its channels leave, with their range."""
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=2.9 + legend_height([p.label for p in points if p.slot is not None]))
        for p in points:
            size, low, high = p.size
            ax.hlines(p.score.mean, low, high, color=colour(p.slot), linewidth=1)
            if np.isfinite(p.score.ci_low):
                ax.vlines(size, p.score.ci_low, p.score.ci_high, color=colour(p.slot), linewidth=1.4)
            marker = "o" if p.slot is None else MARKERS[p.slot]
            label = {} if p.slot is None else {"label": p.label, "gid": f"size-arm-{p.slot}"}
            ax.plot([size], [p.score.mean], marker, color=colour(p.slot), markersize=5.5, linestyle="none", **label)
        ax.set(title=heading(title, figure), xlabel="multiply-adds, % of the largest network's", ylabel=unit)
        ax.xaxis.set_major_formatter(PERCENT)
        ax.set_xlim(0, 1.05)
        if is_accuracy:
            ax.yaxis.set_major_formatter(PERCENT)
        ax.yaxis.set_major_locator(ticks(6))
        ax.margins(y=0.12)
        place_legend(figure, ax)
    return figure


def channel_paths(title: str, strengths: Sequence[float], labels: Sequence[str], layers: dict[str, Array]) -> Figure:
    """The norm of each output channel by the strength of L1, largest first at each strength; one panel a layer.

    `layers` are (n_strengths, n_channels). Channels have no names across runs: a line joins those of the same rank.
    """
    x = log_places(list(strengths))
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(width=PAGE_WIDTH, height=2.3, ncols=len(layers), squeeze=False, sharey=True)
        for ax, (name, norms) in zip(axes.flat, layers.items(), strict=True):
            ranked = -np.sort(-norms, axis=1)
            ax.plot(x, ranked, color=LIGHT["ink"], linewidth=0.8, alpha=0.6)
            ax.plot(x, np.where(ranked == 0, 0.0, np.nan), "x", color="#f73203", markersize=4)
            n_zero = ", ".join(map(str, (norms == 0).sum(axis=1)))
            ax.set_title(f"{name}\n{n_zero} zero", fontsize=7.5, fontweight="normal", loc="left")
            ax.set_xticks(x, labels, fontsize=7, rotation=60)
        axes[0, 0].set_ylabel("norm of a channel's weights", fontsize=8)
        figure.supxlabel("l1 (log axis; 0 set apart)", fontsize=8)
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure
