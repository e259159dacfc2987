"""Trials in, figures out: a study's history, its objective over its parameters, its Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation

from reg_sweep.report.figures.axes import PERCENT, PLAIN, Array, decades, log_places, plain_log_ticks, ring, ticks
from reg_sweep.report.figures.theme import (
    HEAT,
    LIGHT,
    MARKERS,
    PAGE_WIDTH,
    STYLE,
    WIDTH,
    folded,
    heading,
    new_figure,
    place_legend,
)

SURFACE = "#f73202"  # as the contours of a heat map


@dataclass(frozen=True)
class TrialPoint:
    """One trial: its parameters and its objectives' values; those of a pruned trial are what it reported last."""

    number: int
    params: dict[str, Any]
    values: tuple[float, ...]
    is_pruned: bool


# ---- the best so far


def history(
    title: str,
    unit: str,
    points: Sequence[TrialPoint],
    failed: Sequence[int],
    epochs: Mapping[int, tuple[int, int]] | None = None,
    *,
    minimize: bool,
    is_accuracy: bool,
) -> Figure:
    """The objective by trial, the best so far as steps; `failed` trials are crosses at the foot.

    With `epochs` (those that each trial took, and those that it would have taken unpruned) a second panel shows the
    objective by epochs spent, trial after trial; the dashed line is the best so far without pruning.
    """
    by_trial = {n: float(n) for n in [*(p.number for p in points), *failed]}
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(
            width=WIDTH if epochs is None else PAGE_WIDTH, ncols=1 if epochs is None else 2, sharey=True, squeeze=False
        )
        ax = axes[0, 0]
        _best_so_far(ax, by_trial, points, minimize, color=LIGHT["ink"], label="best so far")
        _trials(ax, [by_trial[p.number] for p in points], [p.values[0] for p in points], points)
        if failed:
            ax.plot(failed, [0.03] * len(failed), "x", color=LIGHT["muted"], transform=ax.get_xaxis_transform())
            ax.plot([], [], "x", color=LIGHT["muted"], label="failed")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.set(title=heading(title, figure), xlabel="trial", ylabel=unit)
        _objective_axis(ax, [p.values[0] for p in points], is_accuracy)
        if epochs is None:
            place_legend(figure, ax)
        else:
            _by_epochs(axes[0, 1], points, epochs, minimize)
            place_legend(figure, ax, axes[0, 1])
    return figure


def _by_epochs(ax: Axes, points: Sequence[TrialPoint], epochs: Mapping[int, tuple[int, int]], minimize: bool) -> None:
    numbers = sorted(epochs)
    spent, unpruned = (
        dict(zip(numbers, map(float, accumulate(epochs[n][k] for n in numbers)), strict=True)) for k in (0, 1)
    )
    known = [p for p in points if p.number in epochs]
    end, whole = spent[numbers[-1]], unpruned[numbers[-1]]
    _best_so_far(ax, spent, known, minimize, color=LIGHT["ink"])
    title = "by epochs spent"
    if whole > end:
        style: dict[str, Any] = {"color": LIGHT["muted"], "linestyle": (0, (4, 2)), "label": "if nothing were pruned"}
        _best_so_far(ax, unpruned, known, minimize, **style)
        ax.axvspan(end, whole, facecolor=LIGHT["grid"], edgecolor="none", zorder=0, label="epochs saved by pruning")
        title += f": pruning saved {whole - end:,.0f} of {whole:,.0f}"
    _trials(ax, [spent[p.number] for p in known], [p.values[0] for p in known], known, is_named=False)
    ax.set_title(title, fontweight="normal", fontsize=7.5)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.set_xlabel("epochs, trial after trial")
    ax.tick_params(labelleft=True)


def _best_so_far(ax: Axes, at: Mapping[int, float], points: Sequence[TrialPoint], minimize: bool, **style: Any) -> None:
    """The best complete value as steps over the places of the trials, to the last place of all."""
    complete = [p for p in points if not p.is_pruned]
    if complete:
        best = np.minimum if minimize else np.maximum
        values = best.accumulate([p.values[0] for p in complete])
        places = [at[p.number] for p in complete]
        ax.step([*places, max(at.values())], [*values, values[-1]], where="post", lw=1, **style)


# ---- against parameters


def parameter(
    title: str, name: str, unit: str, points: Sequence[TrialPoint], best: int | None, *, is_accuracy: bool
) -> Figure:
    """The objective against one parameter, the trial `best` ringed.

    A number has an axis, logarithmic if it spans more than a factor of 30 (a lambda: 3). A choice, or a whole number of
    few values, has columns.
    """
    given = [p.params[name] for p in points]
    values = [p.values[0] for p in points]
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure()
        if is_choice(given):
            choices = in_order(given)
            # Trials of one choice are spread sideways, so that they do not overlap.
            x = np.array([choices.index(v) + 0.3 * ((0.618 * k) % 1 - 0.5) for k, v in enumerate(given)])
            names = [folded(str(c), 24, 1) for c in choices]
            is_crowded = len(names) > 6 or len(names) * max(map(len, names)) > 36  # letters beside each other
            ax.set_xticks(range(len(names)), names, rotation=30 if is_crowded else 0)
            ax.set_xlim(-0.5, len(choices) - 0.5)
            ax.grid(visible=False, axis="x")
            label = name
        else:
            x, label = np.array(given, float), name
            positive = x[x > 0]
            wide = 3 if name in ("l1", "l2") else 30
            if positive.size and x.min() >= 0 and positive.max() > wide * positive.min():
                label = f"{name} (log axis{'; 0 set apart' if positive.size < x.size else ''})"
                x = log_places(given)
                decades(ax.xaxis, given)
            else:
                ax.xaxis.set_major_locator(ticks(6))
                ax.xaxis.set_major_formatter(PLAIN)
        if best is not None:
            chosen = next(k for k, p in enumerate(points) if p.number == best)
            ring(ax, float(x[chosen]), values[chosen], 11, "best")
        _trials(ax, list(x), values, points)
        _objective_axis(ax, values, is_accuracy)
        ax.set(title=heading(title, figure), xlabel=label, ylabel=unit)
        place_legend(figure, ax)
    return figure


def lambda_plane(
    title: str,
    unit: str,
    points: Sequence[TrialPoint],
    shape: str | None,
    best: int | None,
    limits: tuple[float, float],
    surface: Callable[[Array, Array], Array] | None,
    *,
    minimize: bool,
    is_accuracy: bool,
) -> Figure:
    """The objective as colour over l1 and l2 on log axes, 0 set apart; the darkest is the best, and `best` is ringed.

    Args:
        points: trials that have both lambdas. Pruned ones are hollow and have no colour.
        shape: the parameter of at most 8 values shown by the marks' shapes.
        limits: the least and the greatest value that colours distinguish.
        surface: the objective at (log10 l1, log10 l2), drawn as contours within the complete trials.
    """
    l1, l2 = ([float(p.params[key]) for p in points] for key in ("l1", "l2"))
    x, y = log_places(l1), log_places(l2)
    factor = 100 if is_accuracy else 1
    kinds = in_order([p.params[shape] for p in points if shape in p.params]) if shape is not None else [None]
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=3.2)
        colours = matplotlib.cm.ScalarMappable(
            matplotlib.colors.Normalize(factor * limits[0], factor * limits[1]), HEAT if minimize else HEAT.reversed()
        )
        for marker, kind in zip(MARKERS, kinds, strict=False):
            its = [k for k, p in enumerate(points) if shape is None or (shape in p.params and p.params[shape] == kind)]
            pruned, full = ([k for k in its if points[k].is_pruned is which] for which in (True, False))
            ax.scatter(x[pruned], y[pruned], 14, marker=marker, facecolors="none", edgecolors=LIGHT["muted"], lw=0.7)
            tints = colours.to_rgba(np.array([factor * points[k].values[0] for k in full]))
            ax.scatter(x[full], y[full], 32, marker=marker, c=tints, edgecolors=LIGHT["ink"], linewidths=0.6, zorder=3)
            if kind is not None:
                ax.plot([], [], marker, color=LIGHT["ink"], mfc="none", ms=5, label=f"{kind}")
        if any(p.is_pruned for p in points):
            ax.plot([], [], "o", color=LIGHT["muted"], mfc="none", ms=3.5, label="small, hollow: pruned")
        if best is not None:
            chosen = next(k for k, p in enumerate(points) if p.number == best)
            ring(ax, x[chosen], y[chosen], 12, "best")
            ax.plot([], [], "o", color=LIGHT["ink"], mfc="none", ms=8, label="best")
        if surface is not None:
            _contours(ax, [k for k, p in enumerate(points) if not p.is_pruned], x, y, l1, l2, surface, factor)
        decades(ax.xaxis, l1, 4)
        decades(ax.yaxis, l2, 6)
        for places, limit in ((x, ax.set_xlim), (y, ax.set_ylim)):  # contours would cut the outermost marks
            room = 0.07 * float(np.ptp(places))
            limit(float(places.min()) - room, float(places.max()) + room)
        names = [f"{key} (log axis{'; 0 set apart' if 0 in its else ''})" for key, its in (("l1", l1), ("l2", l2))]
        ax.set(title=heading(title, figure), xlabel=names[0], ylabel=names[1])
        values = [p.values[0] for p in points if not p.is_pruned]
        bar = figure.colorbar(colours, ax=ax, label=unit, extend=beyond(values, limits), format=PLAIN)
        bar.outline.set_visible(False)
        place_legend(figure, ax)
    return figure


def _contours(
    ax: Axes,
    complete: Sequence[int],
    x: Array,
    y: Array,
    l1: Sequence[float],
    l2: Sequence[float],
    surface: Callable[[Array, Array], Array],
    factor: int,
) -> None:
    """The surface's contours where complete trials without a 0 lie around it."""
    held = [k for k in complete if l1[k] > 0 and l2[k] > 0]
    mesh = np.meshgrid(*(np.linspace(a[held].min(), a[held].max(), 60) for a in (x, y)))
    triangle = np.asarray(Triangulation(x[held], y[held]).get_trifinder()(*mesh))  # -1 outside
    height = np.ma.masked_where(triangle < 0, factor * surface(*mesh))
    lines = ax.contour(*mesh, height, 5, colors=SURFACE, linewidths=0.8)
    ax.clabel(lines, fontsize=7, fmt="%.4g", zorder=2.5)  # below the marks


def beyond(values: Sequence[float], limits: tuple[float, float]) -> Literal["neither", "min", "max"]:
    """At which end a colour bar has an arrow, for values that lie beyond."""
    if min(values) < limits[0]:
        return "min"
    return "max" if max(values) > limits[1] else "neither"


# ---- two objectives


def pareto_front(
    title: str,
    units: Sequence[str],
    points: Sequence[TrialPoint],
    front: Sequence[int],
    minimize: Sequence[bool],
) -> Figure:
    """The first two objectives of each trial, the `front` of two as steps; arrows point to each axis's better side.

    The steps bound what no trial reached. Each trial at 0 has a tick in a rug. With more objectives the first two do
    not define a front, and no line is drawn.
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=2.8)
        by_number = {p.number: p.values[:2] for p in points}
        others = [value for number, value in by_number.items() if number not in front]
        if others:
            ax.plot(*zip(*others, strict=True), "o", color=LIGHT["muted"], mfc="none", ms=5, mew=0.8, label="dominated")
        at = sorted(by_number[n] for n in front)
        ax.plot(*zip(*at, strict=True), "o", color=LIGHT["ink"], ms=5, label="front")
        _front_axis(ax, "x", units[0], [p.values[0] for p in points])
        _front_axis(ax, "y", units[1], [p.values[1] for p in points])
        if len(units) == 2:
            ax.step(*zip(*at, strict=True), where="post" if minimize[0] else "pre", color=LIGHT["ink"], lw=1)
        labels = [f"← better     {u}" if low else f"{u}     better →" for u, low in zip(units, minimize, strict=True)]
        ax.set(title=heading(title, figure), xlabel=labels[0], ylabel=labels[1])
        _rug(ax, list(by_number.values()))
        _number(figure, ax, {n: by_number[n] for n in front if len(front) <= 12})
        place_legend(figure, ax)
    return figure


def _number(figure: Figure, ax: Axes, places: Mapping[int, tuple[float, ...]]) -> None:
    """Puts each place's number on the first of its four sides with free space; leaves it out if there is none."""
    width, height = 72 * 0.78 * figure.get_size_inches()  # points, about
    at = {n: ax.transAxes.inverted().transform(ax.transData.transform(v)) * (width, height) for n, v in places.items()}
    taken = [(x - 2.5, x + 2.5, y - 3) for x, y in at.values()]  # left, right and foot: those of the marks, at first
    for n, place in places.items():
        text, (x, y) = str(n), at[n]
        reach = 4.5 * len(text)
        for dx, dy in ((4, 4), (4, -10), (-4 - reach, 4), (-4 - reach, -10)):
            left, foot = x + dx, y + dy
            if all(abs(foot - f) > 8 or left > right or left + reach < start for start, right, f in taken):
                taken.append((left, left + reach, foot))
                ax.annotate(text, (place[0], place[1]), xytext=(dx, dy), textcoords="offset points", fontsize=7)
                break


def _front_axis(ax: Axes, which: Literal["x", "y"], unit: str, values: Sequence[float]) -> None:
    """A share in %; anything else on a log axis where it spans more than a factor of 5, linear near 0 if it has 0."""
    axis, set_scale = (ax.xaxis, ax.set_xscale) if which == "x" else (ax.yaxis, ax.set_yscale)
    positive = [v for v in values if v > 0]
    is_wide = bool(positive) and min(values) >= 0 and max(positive) > 5 * min(positive)
    if unit.endswith("%"):
        axis.set_major_locator(ticks(6))
        axis.set_major_formatter(PERCENT)
    elif is_wide and len(positive) == len(values):
        set_scale("log")
        plain_log_ticks(ax, which)
    elif is_wide:
        set_scale("symlog", linthresh=min(positive))
    else:
        axis.set_major_locator(ticks(6))
        axis.set_major_formatter(PLAIN)


def _rug(ax: Axes, values: Sequence[tuple[float, ...]]) -> None:
    """A line at 0 of an axis on which trials are exactly 0, and a tick at its foot for each of them."""
    for k, marker, line, place in (
        (0, "_", ax.axvline, ax.get_yaxis_transform()),
        (1, "|", ax.axhline, ax.get_xaxis_transform()),
    ):
        zeros = [v[1 - k] for v in values if v[k] == 0]
        if zeros:
            line(0, color=LIGHT["muted"], lw=0.6, zorder=1)
            foot = [0.015] * len(zeros)
            xy = (foot, zeros) if k == 0 else (zeros, foot)
            label = f"ticks: {len(zeros)} at 0"
            ax.plot(*xy, marker, color=LIGHT["ink"], ms=6, mew=0.9, transform=place, label=label)


# ---- what they share


def _trials(
    ax: Axes, x: Sequence[float], y: Sequence[float], points: Sequence[TrialPoint], *, is_named: bool = True
) -> None:
    """Trials as marks: complete ones full, pruned ones hollow."""
    size = 5.0 if len(points) <= 100 else 3.0
    for is_pruned, marker, label in ((True, "D", "pruned: its last value"), (False, "o", "complete")):
        at = [k for k, p in enumerate(points) if p.is_pruned == is_pruned]
        if at:
            tint = LIGHT["muted" if is_pruned else "ink"]
            xs, ys = [x[k] for k in at], [y[k] for k in at]
            (marks,) = ax.plot(xs, ys, marker, color=tint, mfc="none" if is_pruned else tint, ms=size - is_pruned)
            if is_named:
                marks.set_label(label)


def _objective_axis(ax: Axes, values: Sequence[float], is_accuracy: bool) -> None:
    """A share in %; anything else on a log axis where it is positive and spans more than a factor of 5."""
    if is_accuracy:
        ax.yaxis.set_major_locator(ticks(6))
        ax.yaxis.set_major_formatter(PERCENT)
    elif values and min(values) > 0 and max(values) > 5 * min(values):
        ax.set_yscale("log")
        ax.set_ylim(min(values) / 1.3, max(values) * 1.3)
        plain_log_ticks(ax)
    else:
        ax.yaxis.set_major_formatter(PLAIN)


def is_number(value: Any) -> bool:
    """Whether a parameter's value is a number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_choice(values: Sequence[Any]) -> bool:
    """Whether a parameter of these values is a choice, or a whole number of few values, rather than a scale."""
    if not all(map(is_number, values)):
        return True
    return len(set(values)) <= 6 and all(isinstance(v, int) for v in values)


def in_order(values: Sequence[Any]) -> list[Any]:
    """The different values, numbers first and by size."""
    return sorted(set(values), key=lambda v: (not is_number(v), v if is_number(v) else str(v)))
