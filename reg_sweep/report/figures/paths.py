"""Interim analyses in, figure out: each arm's interval over its number of seeds, until it was decided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reg_sweep.report.figures.axes import PERCENT, PLAIN, ticks
from reg_sweep.report.figures.theme import LIGHT, PAGE_WIDTH, STYLE, folded, heading, new_figure

N_COLUMNS = 3
_ROOM = 3.0  # times what the last looks need: an axis that is longer hides them


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
    """A panel for each arm on shared axes, the margin shaded around 0; the path ends where the arm was decided.

    A first look's interval may be ten times as wide as the last one's: where it would leave those no room, it is cut.
    """
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
        for ax in axes.flat[: len(arms)][-n_columns:]:  # the last panel of each column labels the seeds
            ax.tick_params(labelbottom=True)
        first = axes[0, 0]
        first.xaxis.set_major_locator(FixedLocator(list(looks)))
        first.set_xlim(looks[0] - 0.06 * looks[-1], looks[-1] * 1.06)
        ends = _ends(arms, margin)
        if ends is not None:
            first.set_ylim(*ends)
            note = "wider intervals are cut"
            figure.text(0.99, 0.0, note, ha="right", va="bottom", color=LIGHT["muted"], fontsize=7)
        first.yaxis.set_major_locator(ticks(6))
        first.yaxis.set_major_formatter(PERCENT if is_share else PLAIN)
        figure.supxlabel("seeds", fontsize=7.5)
        figure.supylabel(unit, fontsize=7.5)
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure


def _ends(arms: Sequence[ArmPath], margin: float | None) -> tuple[float, float] | None:
    """The ends of an axis that holds the means, the margin, and what each arm ended with; None: it holds the rest."""
    last = [v for arm in arms for v in (arm.low[-1], arm.high[-1], *arm.estimate)]
    needed = [v for v in (*last, margin or 0.0, -(margin or 0.0)) if math.isfinite(v)]
    whole = [v for arm in arms for v in (*arm.low, *arm.high) if math.isfinite(v)]
    low, high = min(needed), max(needed)
    if max(whole, default=0.0) - min(whole, default=0.0) <= _ROOM * (high - low):
        return None
    room = 0.25 * (high - low)
    return low - room, high + room


def _panel(ax: Axes, arm: ArmPath, margin: float | None) -> None:
    if margin is not None:
        ax.axhspan(-margin, margin, color=LIGHT["muted"], alpha=0.15, linewidth=0)
    ax.axhline(0, color=LIGHT["muted"], linewidth=0.9)
    ax.vlines(arm.seeds, arm.low, arm.high, color=LIGHT["ink"], linewidth=1.5)
    ax.plot(arm.seeds, arm.estimate, "-o", color=LIGHT["ink"], linewidth=0.9, markersize=4)
