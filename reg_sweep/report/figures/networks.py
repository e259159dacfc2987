"""Pictures of networks: the layers of one as a row of blocks, size against score, and the norms of channels.

In a row of blocks, each is as high as its output's side, and as wide as it has channels.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle
from numpy.typing import NDArray

from reg_sweep.report.figures.axes import PERCENT, log_places, ticks
from reg_sweep.report.figures.theme import (
    LIGHT,
    MARKERS,
    PAGE_WIDTH,
    STYLE,
    WIDTH,
    colour,
    heading,
    legend_height,
    new_figure,
    place_legend,
)
from reg_sweep.runs.record import LayerFacts
from reg_sweep.stats.estimates import Estimate

N_BLOCKS = 32  # more do not fit a picture; the table of layers lists them
_MOST_IN_A_ROW = 8
_DEPTH = 0.12  # of a slab's side face, to the right and up
_LETTER, _LINE = 0.061, 0.135  # inches that a letter and a line of the labels take, in any of the fonts
_LONGEST = 13  # letters of a line in a label, unless a single word is longer

Array = NDArray[Any]


@dataclass(frozen=True)
class Block:
    """Consecutive layers, drawn as one: those after the first keep its output's shape and receptive field.

    `kinds` are their classes, `output` the shape (channels, height, width) or (features,). `receptive_field` is a side
    in input pixels, None where it is unknown.
    """

    kinds: tuple[str, ...]
    output: tuple[int, ...]
    n_parameters: int
    receptive_field: int | None


def blocks(layers: Sequence[LayerFacts]) -> list[Block]:
    """The layers of a record as blocks: a layer that keeps shape and receptive field joins the one before."""
    found: list[Block] = []
    for layer in layers:
        kind, output, n = layer["name"].split()[-1], tuple(layer["output"]), layer["n_parameters"]
        field, last = layer["receptive_field"], found[-1] if found else None
        if last is not None and last.output == output and last.receptive_field == field:
            found[-1] = Block((*last.kinds, kind), output, last.n_parameters + n, field)
        else:
            found.append(Block((kind,), output, n, field))
    return found


def seen(parts: Sequence[Block]) -> str:
    """The caption's words for 'sees' below a block; empty where no receptive field is known."""
    known = any(block.receptive_field is not None for block in parts)
    return " 'Sees' gives the side of the receptive field in input pixels." if known else ""


def architecture(parts: Sequence[Block], width: float = PAGE_WIDTH) -> Figure:
    """The blocks from left to right, in as many rows as needed: sizes, parameters and receptive fields below.

    A full row is `width` inches wide; fewer blocks make a narrower figure, where each has the same room.
    """
    labels = [_label(block) for block in parts]
    n, width = _row(labels, width)
    starts = range(0, len(parts), n)
    lines = [max(len(label) for label in labels[i : i + n]) for i in starts]
    heights = [1.35 + _LINE * k for k in lines]  # inches
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            width=width, height=0.1 + sum(heights), nrows=len(heights), squeeze=False, height_ratios=heights
        )
        for i, height, ax in zip(starts, heights, axes[:, 0], strict=True):
            _draw_row(ax, parts[i : i + n], labels[i : i + n])
            ax.set(xlim=(-0.5, n - 0.5), ylim=(1.3 - height, 1.3))
            ax.set_axis_off()
    return figure


def needs_page(parts: Sequence[Block]) -> bool:
    """Whether a row of the blocks is wider than a column."""
    return _row([_label(block) for block in parts], PAGE_WIDTH)[1] > WIDTH


def _row(labels: Sequence[Sequence[str]], width: float) -> tuple[int, float]:
    """The number of blocks in a row, in rows of equal length, and the inches of `width` that they take."""
    longest = max(len(line) for label in labels for line in label)
    most = max(1, min(_MOST_IN_A_ROW, int(width / (_LETTER * (longest + 0.9)))))
    n = -(-len(labels) // -(-len(labels) // most))
    return n, width * n / most


def _draw_row(ax: Axes, row: Sequence[Block], labels: Sequence[Sequence[str]]) -> None:
    for x, (block, label) in enumerate(zip(row, labels, strict=True)):
        height, width = _side(block), _width(block)
        left, low = x - width / 2, 0.62 - height / 2
        learns = block.n_parameters > 0
        face = colour(1) if learns else LIGHT["grid"]
        corners = [(left + width, low), (left + width, low + height), (left, low + height)]
        for (x0, y0), (x1, y1) in pairwise(corners):
            shifted = [(x1 + _DEPTH / 2, y1 + _DEPTH / 3), (x0 + _DEPTH / 2, y0 + _DEPTH / 3)]
            ax.add_patch(Polygon([(x0, y0), (x1, y1), *shifted], color=face, alpha=0.35, linewidth=0))
        alpha = 0.75 if learns else 1
        ax.add_patch(Rectangle((left, low), width, height, facecolor=face, alpha=alpha, edgecolor=LIGHT["muted"]))
        if x:
            arrow = FancyArrowPatch((x - 0.6, 0.62), (x - 0.38, 0.62), arrowstyle="-|>", mutation_scale=7)
            arrow.set(color=LIGHT["muted"], linewidth=0.8)
            ax.add_patch(arrow)
        ax.text(x, 0.0, "\n".join(label), ha="center", va="top", fontsize=7, linespacing=1.35)


def _side(block: Block) -> float:
    """A block's height: from 0.12 for a single value to 1 for 28 pixels or more, linear in the side's logarithm."""
    side = block.output[-1] if len(block.output) > 1 else 1
    return 0.12 + 0.88 * min(math.log(max(side, 1)) / math.log(28), 1.0)


def _width(block: Block) -> float:
    return 0.06 + 0.3 * min(math.log2(max(block.output[0], 1)) / 10, 1.0)


def _label(block: Block) -> list[str]:
    """The block's layers, output, parameters and receptive field, as lines of `_LONGEST` letters where words allow."""
    kinds = [*block.kinds[:2], *([f"{len(block.kinds) - 2} more"] if len(block.kinds) > 2 else ())]
    lines = []
    for n, kind in enumerate(kinds):
        # 'GhostBatchNorm2d' may break where a word of its own begins.
        words = " ".join(re.findall(r"[A-Z]*[^A-Z]*", kind.removesuffix("2d").removesuffix("1d")))
        own = textwrap.wrap(words, _LONGEST - 2, break_long_words=False)
        own = [re.sub(r"(?<=\D) (?=[A-Z])", "", line) for line in own]
        lines += [("+ " if n and not i else "") + line for i, line in enumerate(own)]
    weights = f"{block.n_parameters:,} params" if block.n_parameters else "no params"
    field = [] if block.receptive_field is None else [f"sees {block.receptive_field} px"]
    return [*lines, "×".join(map(str, block.output)), *textwrap.wrap(weights, _LONGEST), *field]


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
    """The norm of each output channel by the strength of L1, largest first at each strength; one panel per layer.

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
