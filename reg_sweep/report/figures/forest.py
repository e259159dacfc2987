"""The forest plot as a figure for a paper: a panel for each outcome, a row for each arm, a shape for each verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reg_sweep.report.figures.theme import LIGHT, STYLE, WIDTH, folded, heading, new_figure

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
