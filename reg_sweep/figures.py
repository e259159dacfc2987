"""Estimates in, figures out: one matplotlib figure a question, drawn without pyplot and without state.

Colours are named once, in `THEMES`. Figures are drawn in the light theme; `inline_svg` turns each colour into the CSS
variable of its name, so that a page can show them in either theme, and each arm's marks into a class that a legend
can switch.
"""

import base64
import io
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from reg_sweep.stats import Estimate, LambdaChoice

Array = NDArray[Any]

# Distinct in pairs under deuteranopia, protanopia and tritanopia, 3:1 or better against the paper: tests check both.
THEMES = {
    "light": {
        "ink": "#1b1f24",
        "muted": "#5b6470",
        "grid": "#e1e5ea",
        "paper": "#ffffff",
        "arm0": "#1b1f25",
        "arm1": "#0d69a6",
        "arm2": "#f73202",
        "arm3": "#0e9347",
        "arm4": "#c2679a",
        "arm5": "#7b952b",
        "arm6": "#3c99e5",
        "arm7": "#882255",
    },
    "dark": {
        "ink": "#e8eaed",
        "muted": "#a4adb8",
        "grid": "#343a42",
        "paper": "#14171b",
        "arm0": "#e8eaee",
        "arm1": "#5876bc",
        "arm2": "#e76b4a",
        "arm3": "#1bea97",
        "arm4": "#c97e9c",
        "arm5": "#fbd31c",
        "arm6": "#9fc8fc",
        "arm7": "#9865ff",
    },
}
LIGHT = THEMES["light"]
N_COLOURS = 8
DASHES: tuple[Any, ...] = (
    "solid",
    "solid",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1.2)),
    (0, (8, 2)),
    (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelcolor": LIGHT["ink"],
    "axes.titlecolor": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.7,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # an arm may have a $ in its name
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "lines.linewidth": 1.6,
    "figure.facecolor": LIGHT["paper"],
    "savefig.facecolor": LIGHT["paper"],
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reg_sweep",
}
_HEAT = LinearSegmentedColormap.from_list("heat", ["#0b2a4a", "#2566a0", "#7fb2d6", "#e6eef4"])
_PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.6g}")
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_WIDTH, _HEIGHT = 4.7, 3.1  # inches: a panel that stays readable on a phone


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


@dataclass(frozen=True)
class Picture:
    """A drawn figure: what it is called on disk, what it shows in words, and whether it needs the page's width."""

    name: str
    alt: str
    figure: Figure
    wide: bool = False


def colour(slot: int | None) -> str:
    """The light theme's colour of a coloured arm; grey for every other arm."""
    return LIGHT["muted"] if slot is None else LIGHT[f"arm{slot}"]


def _figure(width: float = _WIDTH, height: float = _HEIGHT, **grid: Any) -> tuple[Figure, Any]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(**grid)


# ---- curves


def curves(title: str, unit: str, lines: Sequence[Line], others: Array | None = None, *, is_accuracy: bool) -> Figure:
    """A metric by epoch: a line and a band over seeds for each coloured arm.

    `others` (n_arms, n_epochs) are the remaining arms' curves, shown as one grey span of their middle 90%.
    The axis of an accuracy is cut below where the arms have been since the first quarter of the epochs.
    """
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure()
        if others is not None and others.size:
            epochs = np.arange(1, others.shape[1] + 1)
            low, high = np.nanpercentile(others, (5, 95), axis=0)
            ax.fill_between(epochs, low, high, color=LIGHT["muted"], alpha=0.15, linewidth=0)
        for line in lines:
            epochs, tint = np.arange(1, line.mean.size + 1), colour(line.slot)
            if np.nanmax(line.high - line.low) > 0:
                ax.fill_between(
                    epochs, line.low, line.high, color=tint, alpha=0.12, linewidth=0, gid=f"band-arm-{line.slot}"
                )
            ax.plot(
                epochs,
                line.mean,
                color=tint,
                linestyle=DASHES[line.slot],
                marker=MARKERS[line.slot] if line.mean.size < 4 else None,
                markersize=4,
                label=line.label,
                gid=f"line-arm-{line.slot}",
            )
        ax.set(title=title, xlabel="epoch", ylabel=unit)
        _epoch_axis(ax, max((line.mean.size for line in lines), default=1), 8)
        means = [line.mean for line in lines] + ([] if others is None else list(others))
        _cut(ax, means, is_accuracy)
    return figure


def _ticks(n: int) -> MaxNLocator:
    return MaxNLocator(nbins=n, steps=[1, 2, 5, 10])


def _epoch_axis(ax: Axes, n_epochs: int, n_ticks: int) -> None:
    """Epochs counted from 1, a tick at the first and then at round ones."""
    step = next((k for k in (1, 2, 5, 10, 20, 50, 100) if n_epochs / k <= n_ticks), 200)
    ax.xaxis.set_major_locator(FixedLocator(sorted({1, *range(step, n_epochs + 1, step)})))
    ax.set_xlim(1 - 0.02 * n_epochs, n_epochs * 1.02)


def _cut(ax: Axes, means: list[Array], is_accuracy: bool) -> None:
    tails = np.concatenate([m[len(m) // 4 :] for m in means] or [np.array([])])
    tails = tails[np.isfinite(tails)]
    if not is_accuracy:
        positive = tails[tails > 0]
        if positive.size:
            ax.set_yscale("log")
            ax.set_ylim(positive.min() / 1.15, positive.max() * 1.25)
            _plain_log_ticks(ax)
        return
    if tails.size:
        low, high = float(np.quantile(tails, 0.02)), float(tails.max())
        room = max(high - low, 0.002)
        ax.set_ylim(max(low - 0.25 * room, 0), min(high + 0.12 * room, 1.0))
    ax.yaxis.set_major_locator(_ticks(6))
    ax.yaxis.set_major_formatter(_PERCENT)


def _plain_log_ticks(ax: Axes) -> None:
    low, high = ax.get_ylim()
    steps = [m * 10.0**e for e in range(-9, 7) for m in (1, 1.5, 2, 3, 5, 7)]
    inside = [s for s in steps if low <= s <= high]
    for kept in (("1.0", "2.0", "3.0", "5.0"), ("1.0", "3.0"), ("1.0",)):
        if len(inside) > 7:
            inside = [s for s in inside if f"{s:e}"[:3] in kept]
    inside = inside[:: 1 + len(inside) // 8]
    ax.yaxis.set_major_locator(FixedLocator(inside))
    ax.yaxis.set_major_formatter(_PLAIN)
    ax.yaxis.set_minor_locator(NullLocator())


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
    x = _log_places([p.strength for p in points])
    with matplotlib.rc_context(_STYLE):
        figure, (top, low) = _figure(height=4.3, nrows=2, sharex=True, height_ratios=(2.1, 1))
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
        _ring(top, x[choice.best], means[choice.best], 11, "best")
        _ring(top, x[choice.chosen], means[choice.chosen], 15, "one-standard-error choice")
        if is_accuracy:
            top.yaxis.set_major_formatter(_PERCENT)
        top.yaxis.set_major_locator(_ticks(6))
        top.margins(y=0.12)
        top.set(title=title, ylabel=unit)
        shares = (
            ("near zero", [p.near_zero for p in points], "o", "solid"),
            ("exactly zero", [p.zero for p in points], "s", (0, (4, 2))),
            ("dead kernels", [p.dead for p in points], "^", (0, (1, 1))),
        )
        for label, values, marker, dash in shares:
            low.plot(x, values, color=LIGHT["ink"], linestyle=dash, marker=marker, markersize=3.5, lw=1, label=label)
        low.yaxis.set_major_formatter(_PERCENT)
        low.yaxis.set_major_locator(_ticks(4))
        low.set(ylabel="share, %", xlabel=f"{name} (log axis; 0 set apart)" if points[0].strength == 0 else name)
        low.legend(loc="upper left", fontsize=7.5, borderpad=0.1, labelspacing=0.25)
        _lambda_ticks(low, x, [p.label for p in points])
    return figure


def _ring(ax: Axes, x: float, y: float, size: float, label: str) -> None:
    dash = "solid" if label == "best" else (0, (2, 1.5))
    ax.scatter([x], [y], s=size**2, facecolors="none", edgecolors=LIGHT["ink"], linewidths=1, linestyles=[dash])


def _log_places(strengths: Sequence[float]) -> Array:
    """log10 of each lambda; 0, which has none, one step to the left of the smallest."""
    positive = sorted({s for s in strengths if s > 0})
    logs = np.log10(positive) if positive else np.array([0.0])
    step = max(float(logs[-1] - logs[0]) / max(len(logs) - 1, 1), 0.3)
    return np.array([np.log10(s) if s > 0 else logs[0] - step for s in strengths])


def _lambda_ticks(ax: Axes, x: Array, labels: Sequence[str]) -> None:
    """A tick at each place, in order, that is far enough from the last one for its label."""
    kept: list[int] = []
    for i, place in enumerate(x):
        if not kept or place - x[kept[-1]] >= 0.1 * (x[-1] - x[0]):
            kept.append(i)
    ax.set_xticks([float(x[i]) for i in kept], [labels[i] for i in kept])
    ax.xaxis.set_minor_locator(NullLocator())
    if len(x) > 5:
        ax.tick_params(axis="x", labelrotation=30)


def train_and_test(
    title: str, panels: Sequence[tuple[str, int | None, Array, Array]], *, is_accuracy: bool, unit: str
) -> Figure:
    """Small train (dashed) and test (solid) curves, one panel for each lambda, on shared axes.

    Each panel is its title, its arm's slot, and the mean curves of train and test, (n_epochs,).
    """
    n_columns = min(len(panels), 4)
    n_rows = -(-len(panels) // n_columns)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(
            width=2.1 * n_columns + 0.5,
            height=1.65 * n_rows + 0.75,
            nrows=n_rows,
            ncols=n_columns,
            sharex=True,
            sharey=True,
            squeeze=False,
        )
        for ax, (name, slot, train, test) in zip(axes.flat, panels, strict=False):
            epochs = np.arange(1, len(test) + 1)
            ax.plot(epochs, train, color=LIGHT["muted"], linestyle=(0, (4, 2)), linewidth=1.1, label="train")
            ax.plot(epochs, test, color=colour(slot) if slot else LIGHT["ink"], linewidth=1.3, label="test")
            ax.set_title(name, fontweight="normal", fontsize=8.5)
            _epoch_axis(ax, len(test), 4)
        for ax in axes.flat[len(panels) :]:
            ax.set_visible(False)
        _cut(axes[0, 0], [curve for *_, train, test in panels for curve in (train, test)], is_accuracy)
        axes[0, 0].legend(fontsize=7.5, loc="lower right" if is_accuracy else "upper right")
        figure.supxlabel("epoch", fontsize=8.5)
        figure.supylabel(unit, fontsize=8.5)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure


def heat_map(title: str, l1: Sequence[str], l2: Sequence[str], means: Array, *, is_accuracy: bool, unit: str) -> Figure:
    """A metric over l1 (across) and l2 (up), with contours where few are missing; the best cell framed.

    `means` is (len(l2), len(l1)); nan is a combination not run.
    """
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure(width=5.2, height=3.6)
        cmap = _HEAT if is_accuracy else _HEAT.reversed()
        shown = means * 100 if is_accuracy else means
        grid = ax.pcolormesh(np.ma.masked_invalid(shown), cmap=cmap, edgecolors=LIGHT["paper"], linewidth=0.8)
        centres_x, centres_y = np.arange(len(l1)) + 0.5, np.arange(len(l2)) + 0.5
        is_dense = np.isfinite(means).mean() >= (0.75 if means.size >= 20 else 1)  # few cells with holes draw nonsense
        if min(means.shape) >= 3 and is_dense and np.nanmin(means) < np.nanmax(means):
            ax.contour(
                centres_x, centres_y, np.ma.masked_invalid(shown), 5, colors="#f73203", linewidths=0.7, alpha=0.8
            )
        if means.size <= 42:
            middle = (np.nanmin(shown) + np.nanmax(shown)) / 2
            for (i, j), value in np.ndenumerate(shown):
                if np.isfinite(value):
                    is_light = (value > middle) == is_accuracy
                    text = f"{value:.2f}" if is_accuracy else f"{value:.4f}"
                    tint = "#010101" if is_light else "#fefefe"
                    ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7.5, color=tint)
        i, j = np.unravel_index(np.nanargmax(means if is_accuracy else -means), means.shape)
        ax.add_patch(Rectangle((float(j), float(i)), 1, 1, fill=False, edgecolor="#f73203", linewidth=2))
        ax.set_xticks(centres_x[:: 1 + len(l1) // 9], l1[:: 1 + len(l1) // 9])
        ax.set_yticks(centres_y[:: 1 + len(l2) // 12], l2[:: 1 + len(l2) // 12])
        if len(l1) > 5:
            ax.tick_params(axis="x", labelrotation=30)
        ax.grid(visible=False)
        ax.set(title=title, xlabel="L1", ylabel="L2")
        bar = figure.colorbar(grid, ax=ax, label=unit)
        bar.outline.set_visible(False)
    return figure


# ---- studies


@dataclass(frozen=True)
class TrialPoint:
    """One trial: its parameters and its objectives' values; those of a pruned trial are what it reported last."""

    number: int
    params: dict[str, Any]
    values: tuple[float, ...]
    is_pruned: bool


def study_history(
    title: str, unit: str, points: Sequence[TrialPoint], failed: Sequence[int], *, minimize: bool, is_accuracy: bool
) -> Figure:
    """The objective by trial, the best so far as steps; `failed` trials are crosses at the foot."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure()
        complete = [p for p in points if not p.is_pruned]
        if complete:
            best = np.minimum if minimize else np.maximum
            at, values = [p.number for p in complete], best.accumulate([p.values[0] for p in complete])
            end = max([p.number for p in points] + list(failed))
            ax.step([*at, end], [*values, values[-1]], where="post", color=LIGHT["ink"], lw=1, label="best so far")
        _trials(ax, [p.number for p in points], [p.values[0] for p in points], points)
        if failed:
            ax.plot(failed, [0.03] * len(failed), "x", color=LIGHT["muted"], transform=ax.get_xaxis_transform())
            ax.plot([], [], "x", color=LIGHT["muted"], label="failed")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        _objective_axis(ax, [p.values[0] for p in points], is_accuracy)
        ax.set(title=title, xlabel="trial", ylabel=unit)
        _legend_below(figure, ax)
    return figure


def study_parameter(
    title: str, name: str, unit: str, points: Sequence[TrialPoint], best: int | None, *, is_accuracy: bool
) -> Figure:
    """The objective against one parameter, the trial `best` ringed.

    A number has an axis, of its logarithm where it spans more than a factor of 30; a choice, or a whole number of few
    values, has columns.
    """
    given = [p.params[name] for p in points]
    values = [p.values[0] for p in points]
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure()
        if _is_choice(given):
            choices = sorted(set(given), key=lambda v: (not _is_number(v), v if _is_number(v) else str(v)))
            # Trials of one choice stand beside each other, not upon each other.
            x = np.array([choices.index(v) + 0.3 * ((0.618 * k) % 1 - 0.5) for k, v in enumerate(given)])
            ax.set_xticks(range(len(choices)), [str(c) for c in choices], rotation=30 if len(choices) > 6 else 0)
            ax.set_xlim(-0.5, len(choices) - 0.5)
            ax.grid(visible=False, axis="x")
            label = name
        else:
            x, label = np.array(given, float), name
            positive = x[x > 0]
            if positive.size and x.min() >= 0 and positive.max() > 30 * positive.min():
                has_zero = positive.size < x.size
                label = f"{name} (log axis{'; 0 set apart' if has_zero else ''})"
                x = _log_places(given)
                zero = float(x.min()) if has_zero else None
                _decades(ax, float(np.log10(positive.min())), float(np.log10(positive.max())), zero)
        if best is not None:
            chosen = next(k for k, p in enumerate(points) if p.number == best)
            _ring(ax, float(x[chosen]), values[chosen], 11, "best")
        _trials(ax, list(x), values, points)
        _objective_axis(ax, values, is_accuracy)
        ax.set(title=title, xlabel=label, ylabel=unit)
        _legend_below(figure, ax)
    return figure


def pareto_front(title: str, units: Sequence[str], points: Sequence[TrialPoint], front: Sequence[int]) -> Figure:
    """The first two objectives of each trial; the trials of the `front`, in order, are connected."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure(height=3.6)
        by_number = {p.number: p.values[:2] for p in points}
        others = [value for number, value in by_number.items() if number not in front]
        if others:
            ax.plot(*zip(*others, strict=True), "o", color=LIGHT["muted"], mfc="none", ms=5, label="dominated")
        ax.plot(*zip(*(by_number[n] for n in front), strict=True), "-o", color=LIGHT["ink"], lw=1, ms=5, label="front")
        for n in front if len(front) <= 12 else ():
            ax.annotate(str(n), by_number[n], xytext=(4, 4), textcoords="offset points", fontsize=7)
        ax.xaxis.set_major_locator(_ticks(6))
        ax.yaxis.set_major_locator(_ticks(6))
        for axis, unit in zip((ax.xaxis, ax.yaxis), units, strict=False):
            axis.set_major_formatter(_PERCENT if unit.endswith("%") else ScalarFormatter(useOffset=False))
        ax.set(title=title, xlabel=units[0], ylabel=units[1])
        _legend_below(figure, ax)
    return figure


def _trials(ax: Axes, x: Sequence[float], y: Sequence[float], points: Sequence[TrialPoint]) -> None:
    """Trials as marks: complete ones full, pruned ones hollow."""
    size = 5.0 if len(points) <= 100 else 3.0
    for is_pruned, marker, label in ((True, "D", "pruned: its last value"), (False, "o", "complete")):
        at = [k for k, p in enumerate(points) if p.is_pruned == is_pruned]
        if at:
            tint = LIGHT["muted" if is_pruned else "ink"]
            xs, ys = [x[k] for k in at], [y[k] for k in at]
            ax.plot(xs, ys, marker, color=tint, mfc="none" if is_pruned else tint, ms=size - is_pruned, label=label)


def _objective_axis(ax: Axes, values: Sequence[float], is_accuracy: bool) -> None:
    """A share in %; anything else on a log axis where it is positive and spans more than a factor of 5."""
    if is_accuracy:
        ax.yaxis.set_major_locator(_ticks(6))
        ax.yaxis.set_major_formatter(_PERCENT)
    elif values and min(values) > 0 and max(values) > 5 * min(values):
        ax.set_yscale("log")
        ax.set_ylim(min(values) / 1.3, max(values) * 1.3)
        _plain_log_ticks(ax)
    else:
        ax.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_choice(values: Sequence[Any]) -> bool:
    if not all(map(_is_number, values)):
        return True
    return len(set(values)) <= 6 and all(isinstance(v, int) for v in values)


def _decades(ax: Axes, low: float, high: float, zero: float | None) -> None:
    """Ticks at the powers of ten of an axis of logarithms, and one at the place of 0, if it has any."""
    exponents = [float(e) for e in np.arange(np.floor(low), np.ceil(high) + 1) if zero is None or e > zero + 0.2]
    exponents = exponents[:: 1 + len(exponents) // 9]
    at = exponents if zero is None else [zero, *exponents]
    ax.set_xticks(at, [("0" if e == zero else f"{10**e:g}") for e in at])
    ax.xaxis.set_minor_locator(NullLocator())


def _legend_below(figure: Figure, ax: Axes) -> None:
    handles, _ = ax.get_legend_handles_labels()
    if handles:
        figure.legend(loc="outside lower center", ncols=3, fontsize=7.5, handletextpad=0.4, columnspacing=1.2)


# ---- why L1 zeroes weights and L2 shrinks them


def penalties() -> Figure:
    """|w| and w²/2 beside their gradients: L1 pulls equally hard at every size, L2 less and less."""
    w = np.linspace(-2, 2, 401)
    with matplotlib.rc_context(_STYLE):
        figure, (left, right) = _figure(width=6.4, height=2.75, ncols=2)
        left.plot(w, np.abs(w), color=colour(2), linestyle=DASHES[2], label="L1: |w|")
        left.plot(w, w**2 / 2, color=colour(1), label="L2: w²/2")
        left.set(title="The penalty", xlabel="weight w", ylabel="penalty")
        left.legend(loc="upper center")
        for half in (w[w < 0], w[w > 0]):
            right.plot(half, np.sign(half), color=colour(2), linestyle=DASHES[2])
        right.plot(w, w, color=colour(1))
        right.set(title="Its pull on the weight", xlabel="weight w", ylabel="gradient")
        right.set_ylim(-2.1, 2.1)
        right.annotate("L1: the same at every size,\nso small weights reach 0", (1.1, 1.0), (-1.9, 1.45), fontsize=7.5)
        right.annotate("L2: fades with w,\nso weights only shrink", (0.2, -0.9), (0.2, -1.75), fontsize=7.5)
    return figure


def contours() -> Figure:
    """A loss's contours meet L1's diamond at a corner, where one weight is 0, and L2's disc beside it.

    The loss is a quadratic with its minimum outside both; each optimum is computed, not drawn by eye.
    """
    hessian, minimum = np.array([[1.0, 0.25], [0.25, 1.6]]), np.array([1.6, 0.45])
    optima = {"L1": _lasso(hessian, minimum, 1.0), "L2": _ridge(hessian, minimum, 0.75)}
    x, y = np.meshgrid(np.linspace(-1.3, 2.4, 200), np.linspace(-1.3, 1.7, 200))
    d = np.stack([x - minimum[0], y - minimum[1]])
    loss = 0.5 * np.einsum("iab,ij,jab->ab", d, hessian, d)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(width=6.4, height=2.95, ncols=2)
        for ax, (name, w), slot in zip(axes, optima.items(), (2, 1), strict=True):
            touched = float(0.5 * (w - minimum) @ hessian @ (w - minimum))
            levels = touched * np.array([0.08, 0.4, 1.0, 1.9, 3.1])
            ax.contour(x, y, loss, levels, colors=LIGHT["muted"], linewidths=[0.8, 0.8, 1.5, 0.8, 0.8])
            if name == "L1":
                r = np.abs(w).sum()
                ax.fill([r, 0, -r, 0], [0, r, 0, -r], color=colour(slot), alpha=0.25)
                title = f"L1 ends at ({w[0]:.2f}, {w[1]:.2f})"
            else:
                angle = np.linspace(0, 2 * np.pi, 200)
                r = np.linalg.norm(w)
                ax.fill(r * np.cos(angle), r * np.sin(angle), color=colour(slot), alpha=0.25)
                title = f"L2 ends at ({w[0]:.2f}, {w[1]:.2f})"
            ax.axhline(0, color=LIGHT["muted"], linewidth=0.6)
            ax.axvline(0, color=LIGHT["muted"], linewidth=0.6)
            ax.plot(*minimum, "+", color=LIGHT["ink"], markersize=8)
            ax.plot(*w, "o", color=colour(slot), markersize=6)
            ax.set(title=title, xlabel="weight w₁", ylabel="weight w₂", aspect="equal")
            ax.set(xlim=(-1.3, 2.4), ylim=(-1.3, 1.7))
    return figure


def _lasso(hessian: Array, minimum: Array, strength: float) -> Array:
    """argmin of the quadratic + strength * |w|₁, by proximal gradient steps (soft thresholds)."""
    w, step = np.zeros(2), 1 / np.linalg.eigvalsh(hessian)[-1]
    for _ in range(500):
        w = w - step * hessian @ (w - minimum)
        w = np.sign(w) * np.maximum(np.abs(w) - step * strength, 0)
    return w


def _ridge(hessian: Array, minimum: Array, strength: float) -> Array:
    return np.linalg.solve(hessian + strength * np.eye(2), hessian @ minimum)


def histograms(arms: Sequence[tuple[str, int, Array]]) -> Figure:
    """How many weights have each value, a row for each arm (label, slot, weights), counts on one square-root scale."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure(height=max(_HEIGHT, 0.9 + 0.42 * len(arms)))
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
        ax.set_yticks(range(len(arms))[::-1], [_folded(label) for label, *_ in arms], fontsize=7.5)
        for (_, slot, _), label in zip(arms, ax.get_yticklabels(), strict=True):
            label.set_gid(f"label-arm-{slot}")
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.set_xlim(-1.07 * reach, 1.07 * reach)
        ax.set_ylim(-0.1, len(arms) + 0.5)
    return figure


def _folded(label: str, width: int = 18) -> str:
    """A label as lines of whole parts, each up to `width` characters where its parts allow."""
    lines = [""]
    for part in label.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return "\n".join(lines)


def magnitudes(arms: Sequence[tuple[str, int, Array]], near_zero: float) -> Figure:
    """The weights' magnitudes from largest to smallest, on a log axis; exact zeros end the line."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure()
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
        ax.text(1, near_zero * 1.12, "near zero below", fontsize=7.5, color=LIGHT["muted"], va="bottom")
        ax.set_yscale("log")
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 1e-8), high)
        _plain_log_ticks(ax)
        ax.set(title="Weights by size", xlabel="weights, largest first, %", ylabel="magnitude |w|")
        ax.set_xlim(0, 100)
    return figure


def kernel_map(title: str, layers: Sequence[tuple[str, Array]], near_zero: float) -> Figure:
    """Each layer's kernels (out, in) by their largest |w|; dead kernels, wholly below `near_zero`, crossed out."""
    with matplotlib.rc_context(_STYLE):
        most = max(sizes.shape[1] for _, sizes in layers)
        widths = [max(sizes.shape[1], 0.75 * most) for _, sizes in layers]
        figure, axes = _figure(width=9.2, height=2.5, ncols=len(layers), width_ratios=widths, squeeze=False)
        top = max(float(sizes.max()) for _, sizes in layers) or 1.0
        scale = LogNorm(near_zero, max(top, 2 * near_zero))
        for ax, (name, sizes) in zip(axes.flat, layers, strict=True):
            grid = ax.imshow(
                np.maximum(sizes, near_zero), cmap=_HEAT.reversed(), norm=scale, interpolation="nearest", aspect="auto"
            )
            out, into = np.nonzero(sizes < near_zero)
            if out.size:
                ax.scatter(into, out, marker="x", s=9, color="#f73203", linewidths=0.9)
            ax.set_title(f"{name}\n{out.size} of {sizes.size} dead", fontsize=8, fontweight="normal")
            ax.grid(visible=False)
            ax.set(xticks=[], yticks=[])
        axes[0, 0].set_ylabel("output channel", fontsize=8)
        figure.supxlabel("input channel", fontsize=8)
        bar = figure.colorbar(grid, ax=list(axes.flat), label="largest |w| of the kernel", format=_PLAIN)
        bar.outline.set_visible(False)
        bar.minorticks_off()
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure


# ---- mistakes


def confusion(title: str, counts: Array, names: Sequence[str]) -> Figure:
    """Actual class (down) against predicted (across): mistakes in % of the class, the diagonal not coloured."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _figure(width=4.7, height=4.1)
        rates = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        wrong = np.where(np.eye(len(counts), dtype=bool), np.nan, rates)
        top = max(float(np.nanmax(wrong)), 1e-9)
        ax.imshow(np.ma.masked_invalid(wrong), cmap=_HEAT.reversed(), vmin=0, vmax=top)
        for (i, j), rate in np.ndenumerate(rates):
            if i == j:
                text, tint = f"{rate:.1f}", LIGHT["muted"]
            else:
                text, tint = f"{rate:.1f}" if rate >= 0.05 else "", "#fefefe" if rate > top / 2 else "#010101"
            if len(counts) <= 12:
                ax.text(j, i, text, ha="center", va="center", fontsize=7, color=tint)
        ax.set_xticks(range(len(names)), names, rotation=0 if len(names[0]) < 3 else 45)
        ax.set_yticks(range(len(names)), names)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set(title=title, xlabel="predicted", ylabel="actual (each row: % of its images)")
    return figure


def mistakes(title: str, images: Array, captions: Sequence[str]) -> Figure:
    """Up to 25 misclassified images (n, H, W) with a caption each, for a paper."""
    with matplotlib.rc_context(_STYLE):
        n_rows = -(-len(images) // 5)
        figure, axes = _figure(width=5, height=1.16 * n_rows + 0.4, nrows=n_rows, ncols=5, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, image, caption in zip(axes.flat, images, captions, strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set_title(caption, fontsize=7, fontweight="normal", loc="center", pad=3)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure


# ---- out


def save(picture: Picture, folder: Path, prefix: str) -> str:
    """Writes NAME.svg and NAME.png into `folder`; returns the SVG for the page, its ids made unique by `prefix`."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        picture.figure.savefig(buffer, format="svg", metadata={"Date": None, "Title": picture.alt})
        svg = buffer.getvalue()
        (folder / f"{picture.name}.svg").write_text(svg, encoding="utf-8")
        picture.figure.set_layout_engine("none")  # as just laid out
        picture.figure.savefig(folder / f"{picture.name}.png", dpi=160)
    return inline_svg(svg, picture.alt, prefix)


def inline_svg(svg: str, alt: str, prefix: str) -> str:
    """A matplotlib SVG for the inside of a page: themed colours, the page's font, unique ids, alt text, arm classes."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<title>.*?</title>", "", body, count=1, flags=re.S)
    body = re.sub(r"<style type=.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', body)
    assert box is not None
    opening = (
        f'<svg class="figure" role="img" aria-label="{escape(alt)}" {box[0]} '
        f'style="max-width: {1.5 * float(box[1]):.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = re.sub(r"<svg[^>]*>", lambda _: opening, body, count=1)
    body = re.sub(r'id="[a-z]+-arm-(\d+)"', r'class="arm arm-\1"', body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", r"font-size: \2; \1", body)
    body = re.sub(r"base64,[^\"]*", lambda data: "".join(data[0].split()), body)
    for name, value in LIGHT.items():
        body = body.replace(value, f"var(--{name})")
    # A hundredth of a point is finer than any screen; text keeps its digits.
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)
    return re.sub(r"\s*\n\s*", " ", body)


def sprite_sheet(images: Array, n_columns: int) -> str:
    """Grey images (n, H, W) uint8, `n_columns` in a row, as the data: address of one PNG."""
    n, h, w = images.shape
    n_rows = -(-n // n_columns)
    padded = np.zeros((n_rows * n_columns, h, w), np.uint8)
    padded[:n] = images
    sheet = padded.reshape(n_rows, n_columns, h, w).transpose(0, 2, 1, 3).reshape(n_rows * h, n_columns * w)
    return "data:image/png;base64," + base64.b64encode(_png(sheet)).decode()


def _png(grey: Array) -> bytes:
    """A greyscale PNG: signature, header, one deflated stream of unfiltered rows, end."""
    h, w = grey.shape
    rows = np.concatenate([np.zeros((h, 1), np.uint8), grey], axis=1).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
