"""A network as a row of blocks: each as high as its output's side, as wide as it has channels."""

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle

from reg_sweep.report.figures.theme import LIGHT, PAGE_WIDTH, STYLE, colour, new_figure
from reg_sweep.runs.record import LayerFacts

N_BLOCKS = 32  # more do not fit a picture; the table of layers lists them
_MOST_IN_A_ROW = 8
_DEPTH = 0.12  # of a slab's side face, to the right and up
_LETTER, _LINE = 0.061, 0.135  # inches that a letter and a line of the labels take, in any of the fonts
_LONGEST = 13  # letters of a line in a label, unless a single word is longer


@dataclass(frozen=True)
class Block:
    """Layers one after another that leave the size of what flows through as it is.

    `kinds` are their classes, `output` the shape (channels, height, width) or (features,). `receptive_field` is a side
    in input pixels, None where it is unknown.
    """

    kinds: tuple[str, ...]
    output: tuple[int, ...]
    n_parameters: int
    receptive_field: int | None


def blocks(layers: Sequence[LayerFacts]) -> list[Block]:
    """The layers of a record, those that keep shape and receptive field joined with the one before."""
    found: list[Block] = []
    for layer in layers:
        kind, output, n = layer["name"].split()[-1], tuple(layer["output"]), layer["n_parameters"]
        field, last = layer["receptive_field"], found[-1] if found else None
        if last is not None and last.output == output and last.receptive_field == field:
            found[-1] = Block((*last.kinds, kind), output, last.n_parameters + n, field)
        else:
            found.append(Block((kind,), output, n, field))
    return found


def architecture(parts: Sequence[Block], width: float = PAGE_WIDTH) -> Figure:
    """The blocks from left to right, in as many rows as needed: sizes, parameters and receptive fields below."""
    labels = [_label(block) for block in parts]
    longest = max(len(line) for label in labels for line in label)
    most = max(1, min(_MOST_IN_A_ROW, int(width / (_LETTER * (longest + 0.9)))))
    n = -(-len(parts) // -(-len(parts) // most))  # rows of equal length
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
    """From 0.12 of a single value to 1 of 28 pixels or more; the eye compares logarithms of sides."""
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
