"""Estimates in, figures out: one matplotlib figure per question about the arms of one data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from reg_sweep.report.figures.axes import (
    PERCENT,
    PLAIN,
    epoch_axis,
    later_range,
    log_places,
    outside_text,
    plain_log_ticks,
    ring,
    ticks,
)
from reg_sweep.report.figures.theme import (
    DASHES,
    HEAT,
    HEIGHT,
    LIGHT,
    MARKERS,
    N_COLOURS,
    PAGE_WIDTH,
    PRINT_WIDTH,
    STYLE,
    WIDTH,
    colour,
    folded,
    heading,
    legend_height,
    new_figure,
    place_legend,
)
from reg_sweep.stats.estimates import Estimate
from reg_sweep.stats.selection import LambdaChoice

Array = NDArray[Any]


@dataclass(frozen=True)
class Line:
    """One arm's curve: mean, lowest and highest over its seeds, (n_epochs,) each.

    `slot` is the arm's place among the coloured arms.
    """

    label: str
    slot: int
    mean: Array
    low: Array
    high: Array


# ---- curves


def curves(
    title: str,
    unit: str,
    lines: Sequence[Line],
    others: Array | None = None,
    *,
    is_accuracy: bool,
    is_plain: bool = False,
    clock: str = "epoch",
    steps: Array | None = None,
    width: float = WIDTH,
    height: float = HEIGHT,
    n_bands: int = N_COLOURS,
) -> Figure:
    """A metric by epoch: a line for each coloured arm, and a band over its seeds where there are `n_bands` or fewer.

    `steps` (n_epochs,) are the places of the values on the axis; None: epochs, counted from 1. An accuracy is in
    percent, a loss has a log axis; `is_plain`: it is neither.
    `others` (n_arms, n_epochs) are the remaining arms' curves, shown as one grey span of their middle 90%.
    The axis is limited to where the lines, and half of the others, have been since the first quarter of the epochs.
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(width, height + legend_height([line.label for line in lines], width))
        if others is not None and others.size:
            epochs = np.arange(1, others.shape[1] + 1) if steps is None else steps[: others.shape[1]]
            if len(others) == 1:
                ax.plot(epochs, others[0], color=LIGHT["muted"], linewidth=1)
            low, high = np.nanpercentile(others, (5, 95), axis=0)
            ax.fill_between(epochs, low, high, color=LIGHT["muted"], alpha=0.15, linewidth=0)
        for line in lines:
            epochs = np.arange(1, line.mean.size + 1) if steps is None else steps
            tint = colour(line.slot % N_COLOURS)
            if len(lines) <= n_bands and np.nanmax(line.high - line.low) > 0:
                ax.fill_between(
                    epochs, line.low, line.high, color=tint, alpha=0.12, linewidth=0, gid=f"band-arm-{line.slot}"
                )
            ax.plot(
                epochs,
                line.mean,
                color=tint,
                linestyle=_dash(line.slot),
                marker=MARKERS[line.slot % N_COLOURS] if line.mean.size < 4 else None,
                markersize=4,
                label=line.label,
                gid=f"line-arm-{line.slot}",
            )
        ax.set(title=title, xlabel=clock, ylabel=unit)
        if steps is None:
            epoch_axis(ax, max((line.mean.size for line in lines), default=1), 8)
        middle = [] if others is None or not others.size else [np.nanmedian(others, axis=0)]
        if not is_plain:
            _cut(ax, [*(line.mean for line in lines), *middle], is_accuracy)
        if steps is None:
            _tell_cut(ax, [line.mean for line in lines], is_accuracy)
        place_legend(figure, ax)
    return figure


def _dash(slot: int) -> Any:
    """The line style of a slot; a slot beyond the colours has another style than the slot whose colour it shares."""
    return DASHES[(slot + 3 * (slot // N_COLOURS)) % N_COLOURS]


@dataclass(frozen=True)
class SplitCurve:
    """One split's curve of an arm: mean, lowest and highest over its seeds, (n_epochs,) each."""

    split: str
    mean: Array
    low: Array
    high: Array


_SPLITS: dict[str, Any] = {"train": (0, (4, 2)), "val": (0, (1.2, 1.2)), "test": "solid"}


def of_one_arm(
    title: str, accuracy: Sequence[SplitCurve], loss: Sequence[SplitCurve], slot: int | None, width: float
) -> Figure:
    """An arm's accuracy and loss by epoch, side by side: train (dashed, grey), val (dotted), test (solid)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(width, 2.6 + legend_height([title], width), ncols=2)
        for ax, found, is_accuracy in zip(axes, (accuracy, loss), (True, False), strict=True):
            for curve in found:
                epochs = np.arange(1, curve.mean.size + 1)
                tint = LIGHT["muted"] if curve.split == "train" else colour(None if slot is None else slot % N_COLOURS)
                ax.fill_between(epochs, curve.low, curve.high, color=tint, alpha=0.12, linewidth=0)
                marker = "o" if curve.mean.size < 4 else None
                style = {"linestyle": _SPLITS[curve.split], "marker": marker, "markersize": 3.5}
                ax.plot(epochs, curve.mean, color=tint, label=curve.split, **style)
            means = [curve.mean for curve in found]
            ax.set(xlabel="epoch", ylabel="accuracy, %" if is_accuracy else "loss (log axis)")
            epoch_axis(ax, max((mean.size for mean in means), default=1), 6)
            _cut(ax, means, is_accuracy)
            _tell_cut(ax, means, is_accuracy)
        place_legend(figure, axes[0] if accuracy else axes[1])
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure


def _tell_cut(ax: Axes, means: Sequence[Array], is_accuracy: bool) -> None:
    """Notes in the picture how many first epochs the axis cuts off, at least in part."""
    text = outside_text(means, ax.get_ylim())
    if text:
        y, where = (0.03, "bottom") if is_accuracy else (0.97, "top")
        ax.text(0.99, y, text, transform=ax.transAxes, ha="right", va=where, fontsize=7, color=LIGHT["muted"])


def _cut(ax: Axes, means: list[Array], is_accuracy: bool) -> None:
    ends = later_range(means, is_accuracy=is_accuracy)
    if not is_accuracy:
        if ends is not None:
            ax.set_yscale("log")
            ax.set_ylim(ends)
            plain_log_ticks(ax)
        return
    if ends is not None:
        ax.set_ylim(ends)
    ax.yaxis.set_major_locator(ticks(6))
    ax.yaxis.set_major_formatter(PERCENT)


# ---- lambda studies


@dataclass(frozen=True)
class LambdaPoint:
    """One lambda of a study: the metric that selects, the test metric beside it, and what became of the weights."""

    strength: float
    label: str
    slot: int | None
    selector: Estimate
    test: float
    near_zero: float
    zero: float
    dead: float


def lambda_study(
    title: str, name: str, unit: str, points: Sequence[LambdaPoint], choice: LambdaChoice, *, is_accuracy: bool
) -> Figure:
    """A metric against one lambda on a log axis, best and one-standard-error choice marked; zeros and dead kernels."""
    x = log_places([p.strength for p in points])
    with matplotlib.rc_context(STYLE):
        has_weights = any(np.isfinite(p.near_zero) for p in points)
        if has_weights:
            figure, (top, low) = new_figure(height=3.6, nrows=2, sharex=True, height_ratios=(2.1, 1))
        else:
            figure, top = new_figure(height=2.7)
            low = top
        if np.isfinite(choice.threshold) and choice.chosen != choice.best:
            top.axhline(choice.threshold, color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
        means = np.array([p.selector.mean for p in points])
        top.plot(x, means, color=LIGHT["muted"], linewidth=0.9)
        for at, p in zip(x, points, strict=True):
            if np.isfinite(p.selector.ci_low):
                top.vlines(at, p.selector.ci_low, p.selector.ci_high, color=colour(p.slot), linewidth=1.4)
        for at, p in zip(x, points, strict=True):
            top.plot([at], [p.selector.mean], "o", color=colour(p.slot), markersize=5.5)
        tests = np.array([p.test for p in points])
        if np.isfinite(tests).any():
            top.plot(x, tests, "D", color=LIGHT["muted"], markerfacecolor="none", markersize=4, label="test")
        ring(top, x[choice.best], means[choice.best], 11, "best")
        ring(top, x[choice.chosen], means[choice.chosen], 15, "one-standard-error choice")
        top.margins(y=0.12)
        if is_accuracy:
            top.yaxis.set_major_formatter(PERCENT)
            top.set_ylim(*np.clip(top.get_ylim(), 0, 1))
        top.yaxis.set_major_locator(ticks(6))
        top.set(title=heading(title, figure), ylabel=unit)
        low.set_xlabel(f"{name} (log axis; 0 set apart)" if points[0].strength == 0 else name)
        shares = (
            ("near zero", [p.near_zero for p in points], "o", "solid"),
            ("exactly zero", [p.zero for p in points], "s", (0, (4, 2))),
            ("dead kernels", [p.dead for p in points], "^", (0, (1, 1))),
        )
        for label, values, marker, dash in shares if has_weights else ():
            low.plot(x, values, color=LIGHT["ink"], linestyle=dash, marker=marker, markersize=3.5, lw=1, label=label)
        if has_weights:
            low.yaxis.set_major_formatter(PERCENT)
            low.yaxis.set_major_locator(ticks(4))
            low.set_ylabel("share, %")
        _lambda_ticks(low, x, [p.label for p in points])
        place_legend(figure, *((top, low) if has_weights else (top,)))
    return figure


def _lambda_ticks(ax: Axes, x: Array, labels: Sequence[str]) -> None:
    """A tick at each place, in order, that is far enough from the last one for its label."""
    kept: list[int] = []
    for i, place in enumerate(x):
        if not kept or place - x[kept[-1]] >= 0.1 * (x[-1] - x[0]):
            kept.append(i)
    ax.set_xticks([float(x[i]) for i in kept], [labels[i] for i in kept])
    ax.xaxis.set_minor_locator(NullLocator())
    if len(x) > 5 or np.diff(x[kept]).min(initial=np.inf) < 0.19 * (x[-1] - x[0]):
        ax.tick_params(axis="x", labelrotation=30)


# ---- weights


def histograms(arms: Sequence[tuple[str, int, Array]]) -> Figure:
    """How many weights have each value, a row for each arm (label, slot, weights), counts on one square-root scale."""
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=max(HEIGHT, 0.9 + 0.42 * len(arms)))
        reach = max(float(np.quantile(np.abs(w), 0.99)) for *_, w in arms) or 1.0
        edges = np.linspace(-reach, reach, 102)
        heights = [np.sqrt(np.histogram(w, edges)[0] / w.size) for *_, w in arms]
        top = max(float(h.max()) for h in heights) or 1.0
        for row, ((_, slot, _), height) in enumerate(zip(arms, heights, strict=True)):
            base, tint = len(arms) - 1 - row, colour(slot)
            curve = base + 1.35 * height / top
            ax.stairs(curve, edges, baseline=base, fill=True, color=tint, alpha=0.3, gid=f"area-arm-{slot}")
            ax.stairs(curve, edges, baseline=None, color=tint, linewidth=1, gid=f"outline-arm-{slot}")
        ax.set(title="How weights are spread", xlabel="weight", ylabel="share of weights (square-root scale)")
        ax.set_yticks(range(len(arms))[::-1], [folded(label, 22, 2) for label, *_ in arms], fontsize=7.5)
        for (_, slot, _), label in zip(arms, ax.get_yticklabels(), strict=True):
            label.set_gid(f"label-arm-{slot}")
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.xaxis.set_major_locator(ticks(5))
        ax.set_xlim(-1.07 * reach, 1.07 * reach)
        ax.set_ylim(-0.1, len(arms) + 0.5)
    return figure


def magnitudes(arms: Sequence[tuple[str, int, Array]], near_zero: float) -> Figure:
    """The weights' magnitudes from largest to smallest, on a log axis; exact zeros end the line."""
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=HEIGHT + legend_height([label for label, *_ in arms]))
        for label, slot, w in arms:
            sizes = np.sort(np.abs(w))[::-1]
            at = np.unique(np.linspace(0, w.size - 1, 240).astype(int))
            drawn = np.where(sizes[at] > 0, np.maximum(sizes[at], 1e-8), np.nan)
            ax.plot(
                at / w.size * 100,
                drawn,
                color=colour(slot),
                linestyle=DASHES[slot],
                label=label,
                gid=f"magnitude-arm-{slot}",
            )
        ax.axhline(near_zero, color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (4, 3)))
        # Curves fall from the upper left: below the line there is room.
        ax.text(1, near_zero / 1.3, "near zero", fontsize=7.5, color=LIGHT["muted"], va="top")
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.set_ylim(min(max(low, 1e-8), near_zero / 4), high)
        plain_log_ticks(ax)
        ax.set(title="Weights by size", xlabel="weights, largest first, %", ylabel="magnitude |w|")
        ax.set_xlim(0, 100)
        place_legend(figure, ax)
    return figure


def kernel_map(title: str, layers: Sequence[tuple[str, Array]], near_zero: float) -> Figure:
    """Each layer's kernels (out, in) by their largest |w|; dead kernels, wholly below `near_zero`, crossed out."""
    with matplotlib.rc_context(STYLE):
        most = max(sizes.shape[1] for _, sizes in layers)
        widths = [max(sizes.shape[1], 0.75 * most) for _, sizes in layers]
        figure, axes = new_figure(width=PRINT_WIDTH, height=2.1, ncols=len(layers), width_ratios=widths, squeeze=False)
        top = max(float(sizes.max()) for _, sizes in layers) or 1.0
        scale = LogNorm(near_zero, max(top, 2 * near_zero))
        for ax, (name, sizes) in zip(axes.flat, layers, strict=True):
            grid = ax.imshow(
                np.maximum(sizes, near_zero), cmap=HEAT.reversed(), norm=scale, interpolation="nearest", aspect="auto"
            )
            out, into = np.nonzero(sizes < near_zero)
            if out.size:
                ax.scatter(into, out, marker="x", s=9, color="#f73203", linewidths=0.9)
            ax.set_title(f"{name}\n{out.size} of {sizes.size} dead", fontsize=8, fontweight="normal")
            ax.grid(visible=False)
            ax.set(xticks=[], yticks=[])
        axes[0, 0].set_ylabel("output channel", fontsize=8)
        figure.supxlabel("input channel", fontsize=8)
        bar = figure.colorbar(grid, ax=list(axes.flat), label="largest |w| of the kernel", format=PLAIN)
        bar.outline.set_visible(False)
        bar.minorticks_off()
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure


# ---- mistakes


def confusion(title: str, counts: Array, names: Sequence[str]) -> Figure:
    """Actual class (down) against predicted (across): mistakes in % of the class, the diagonal not coloured."""
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=3.3)
        rates = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        wrong = np.where(np.eye(len(counts), dtype=bool), np.nan, rates)
        top = max(float(np.nan_to_num(wrong).max()), 1e-9)
        ax.imshow(np.ma.masked_invalid(wrong), cmap=HEAT.reversed(), vmin=0, vmax=top)
        for (i, j), rate in np.ndenumerate(rates if len(counts) <= 12 else rates[:0]):
            if i == j:
                text, tint = f"{rate:.1f}", LIGHT["muted"]
            else:
                text, tint = f"{rate:.1f}" if rate >= 0.05 else "", "#fefefe" if rate > top / 2 else "#010101"
            ax.text(j, i, text, ha="center", va="center", fontsize=7, color=tint)
        named = range(0, len(counts), -(-len(counts) // 30))  # of many classes only some
        ax.set_xticks(named, [names[c] for c in named], rotation=0 if len(names[0]) < 3 else 45)
        ax.set_yticks(named, [names[c] for c in named])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set(title=heading(title, figure), xlabel="predicted", ylabel="actual (each row: % of its images)")
    return figure


def mistakes(
    title: str, images: Array, captions: Sequence[str], width: float = PAGE_WIDTH, *, is_light: bool = False
) -> Figure:
    """Up to 25 misclassified images (n, H, W) or (n, H, W, 3) with a caption each, for a paper.

    `is_light` draws grey images that are mostly black, such as MNIST's, as a negative, dark on white.
    """
    n_lines = max(caption.count("\n") + 1 for caption in captions)
    grey = "gray_r" if is_light and images.ndim == 3 and images.mean() < 128 else "gray"
    with matplotlib.rc_context(STYLE):
        n_rows = -(-len(images) // 5)
        height = (0.73 * width / 5 + 0.13 * n_lines + 0.08) * n_rows + 0.3
        figure, axes = new_figure(width=width, height=height, nrows=n_rows, ncols=5, squeeze=False)
        for ax in axes.flat[len(images) :]:
            ax.set_axis_off()
        for ax, image, caption in zip(axes.flat, images, captions, strict=False):
            ax.imshow(image, cmap=grey, vmin=0, vmax=255, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(True)
            ax.spines[:].set_color(LIGHT["grid"])
            ax.set_title(caption, fontsize=7, fontweight="normal", loc="center", pad=3)
        figure.suptitle(heading(title, figure), x=0.01, ha="left", fontsize=8.5, fontweight="bold")
    return figure
