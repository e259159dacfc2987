"""Differences from the baseline with their intervals: the forest plot, and each arm's path over interim analyses.

A forest plot has a panel for each outcome, a row for each arm, and a shape for each verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from reg_sweep.report.figures.axes import PERCENT, PLAIN, ticks
from reg_sweep.report.figures.theme import LIGHT, PAGE_WIDTH, STYLE, WIDTH, folded, heading, new_figure

# Marker, and whether it is filled: what the page draws with the same names.
SHAPES = {
    "better": ("^", True),
    "worse": ("v", True),
    "equivalent": ("s", True),
    "small": ("D", True),
    "open": ("o", False),
    "unranked": ("X", False),
    "untested": ("|", True),
}
TINTS = {"better": "#11703a", "worse": "#b3261e"}

NARROWEST = 1.5  # shade that is visible behind the line of 0, in % of the axis
N_COLUMNS = 3  # of paths
_ROOM = 3.0  # times what the last looks need: a longer axis would hide them


@dataclass(frozen=True)
class ForestArm:
    """Places in percent of the axis: the estimate's, the interval's ends (None without one), the seeds'."""

    place: float
    ends: tuple[float, float] | None
    dots: Sequence[float]
    mark: str


@dataclass(frozen=True)
class ForestPanel:
    """An outcome: an arm for each row (None: not known), its ticks as places and numbers, 0 and the margin's ends."""

    title: str
    arms: Sequence[ForestArm | None]
    ticks: Sequence[tuple[float, str]]
    zero: float
    margin: tuple[float, float] | None
    right_is_better: bool


def forest(
    title: str, panels: Sequence[ForestPanel], labels: Sequence[str], marks: Sequence[tuple[str, str]]
) -> Figure:
    """A row for each label, the first on top; `marks` name the shapes that occur, for the legend."""
    with matplotlib.rc_context(STYLE):
        lines = [folded(label, 20, 2).count("\n") + 1 for label in labels]
        height = 1.75 + sum(0.15 + 0.12 * n for n in lines)  # title, axis and legend; a row by its label
        figure, axes = new_figure(width=WIDTH, height=height, ncols=len(panels), sharey=True, squeeze=False)
        for ax, panel in zip(axes.flat, panels, strict=True):
            if panel.margin is not None:
                ax.axvspan(*panel.margin, color=LIGHT["grid"], linewidth=0)
            ax.axvline(panel.zero, color=LIGHT["muted"], linewidth=0.9)
            for row, arm in enumerate(panel.arms):
                if arm is None:
                    continue
                tint = TINTS.get(arm.mark, LIGHT["ink"])
                if arm.ends is not None:
                    ax.hlines(row, *arm.ends, color=tint, linewidth=1.2)
                ax.plot(arm.dots, [row] * len(arm.dots), ".", color=LIGHT["muted"], markersize=3, alpha=0.7)
                marker, is_filled = SHAPES[arm.mark]
                face = tint if is_filled else LIGHT["paper"]
                ax.plot([arm.place], [row], marker, color=tint, markerfacecolor=face, markersize=5)
            better = "gain →" if panel.right_is_better else "← gain"
            ax.set(xlim=(0, 100), ylim=(len(labels) - 0.5, -0.5), xlabel=f"{folded(panel.title, 18)}\n{better}")
            ticks = _apart(panel.ticks, panel.zero)
            ax.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
            ax.tick_params(axis="y", length=0)
            ax.grid(visible=False, axis="y")
        axes[0, 0].set_yticks(range(len(labels)), [folded(label, 20, 2) for label in labels])
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
        handles = [
            Line2D(
                [],
                [],
                marker=SHAPES[mark][0],
                linestyle="none",
                markersize=5,
                color=TINTS.get(mark, LIGHT["ink"]),
                markerfacecolor=TINTS.get(mark, LIGHT["ink"]) if SHAPES[mark][1] else LIGHT["paper"],
                label=said,
            )
            for mark, said in marks
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, handletextpad=0.2, columnspacing=1)
    return figure


def _apart(ticks: Sequence[tuple[float, str]], zero: float, least: float = 28.0) -> list[tuple[float, str]]:
    """The ticks that half a column has room for: 0, then those far enough from what is kept, the nearest first."""
    kept: list[tuple[float, str]] = []
    for tick in sorted(ticks, key=lambda tick: abs(tick[0] - zero)):
        if all(abs(tick[0] - other) >= least for other, _ in kept):
            kept.append(tick)
    return sorted(kept)


@dataclass(frozen=True)
class ArmPath:
    """An arm over its looks: `seeds` and, at each, the difference from the baseline and its interval (nan: unknown)."""

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

    A first look's interval may be ten times as wide as the last one's: if it would leave the others no room, it is cut.
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


def margin_is_seen(arms: Sequence[ArmPath], margin: float) -> bool:
    """Whether the shade of a margin is wide enough to be seen in `paths`."""
    known = [v for arm in arms for v in (*arm.low, *arm.high, *arm.estimate) if math.isfinite(v)]
    low, high = _ends(arms, margin) or (min(known), max(known))
    return 2 * margin >= NARROWEST / 100 * (high - low)


def _ends(arms: Sequence[ArmPath], margin: float | None) -> tuple[float, float] | None:
    """The ends of an axis for the means, the margin and each arm's last interval; None if the rest fits too."""
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
