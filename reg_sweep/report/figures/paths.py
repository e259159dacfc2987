"""Looks in, figure out: how each arm's interval moved as its seeds came, until it was decided."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reg_sweep.report.figures.axes import PERCENT, PLAIN, ticks
from reg_sweep.report.figures.theme import LIGHT, PAGE_WIDTH, STYLE, folded, heading, new_figure

N_COLUMNS = 3


@dataclass(frozen=True)
class ArmPath:
    """An arm over its looks: at so many seeds the difference to the baseline and its interval, nan where unknown."""

    label: str
    verdict: str
    seeds: Sequence[int]
    estimate: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def paths(
    title: str, unit: str, arms: Sequence[ArmPath], looks: Sequence[int], margin: float | None, *, is_share: bool
) -> Figure:
    """A panel for each arm on shared axes, the margin shaded around 0; the path ends where the arm was decided."""
    n_columns = min(len(arms), N_COLUMNS)
    n_rows = -(-len(arms) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            width=min(2.1 * n_columns + 0.6, PAGE_WIDTH),
            height=1.6 * n_rows + 0.8,
            nrows=n_rows,
            ncols=n_columns,
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for ax, arm in zip(axes.flat, arms, strict=False):
            _panel(ax, arm, margin)
            ax.set_title(f"{folded(arm.label, 34, 2)}\n{arm.verdict}", fontweight="normal", fontsize=7.5)
        for ax in axes.flat[len(arms) :]:
            ax.set_visible(False)
        for ax in axes.flat[: len(arms)][-n_columns:]:  # the last of each column tells the seeds
            ax.tick_params(labelbottom=True)
        first = axes[0, 0]
        first.xaxis.set_major_locator(FixedLocator(list(looks)))
        first.set_xlim(looks[0] - 0.06 * looks[-1], looks[-1] * 1.06)
        first.yaxis.set_major_locator(ticks(6))
        first.yaxis.set_major_formatter(PERCENT if is_share else PLAIN)
        figure.supxlabel("seeds", fontsize=7.5)
        figure.supylabel(unit, fontsize=7.5)
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure


def _panel(ax: Axes, arm: ArmPath, margin: float | None) -> None:
    if margin is not None:
        ax.axhspan(-margin, margin, color=LIGHT["muted"], alpha=0.15, linewidth=0)
    ax.axhline(0, color=LIGHT["muted"], linewidth=0.9)
    ax.vlines(arm.seeds, arm.low, arm.high, color=LIGHT["ink"], linewidth=1.5)
    ax.plot(arm.seeds, arm.estimate, "-o", color=LIGHT["ink"], linewidth=0.9, markersize=4)
