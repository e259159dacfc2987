"""Trials in, figures out: a study's history, its objective against each parameter, its Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from reg_sweep.report.figures.axes import PERCENT, log_places, plain_log_ticks, ring, ticks
from reg_sweep.report.figures.theme import LIGHT, STYLE, heading, new_figure, place_legend


@dataclass(frozen=True)
class TrialPoint:
    """One trial: its parameters and its objectives' values; those of a pruned trial are what it reported last."""

    number: int
    params: dict[str, Any]
    values: tuple[float, ...]
    is_pruned: bool


def history(
    title: str, unit: str, points: Sequence[TrialPoint], failed: Sequence[int], *, minimize: bool, is_accuracy: bool
) -> Figure:
    """The objective by trial, the best so far as steps; `failed` trials are crosses at the foot."""
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure()
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
        ax.set(title=heading(title, figure), xlabel="trial", ylabel=unit)
        place_legend(figure, ax)
    return figure


def parameter(
    title: str, name: str, unit: str, points: Sequence[TrialPoint], best: int | None, *, is_accuracy: bool
) -> Figure:
    """The objective against one parameter, the trial `best` ringed.

    A number has an axis, of its logarithm where it spans more than a factor of 30; a choice, or a whole number of few
    values, has columns.
    """
    given = [p.params[name] for p in points]
    values = [p.values[0] for p in points]
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure()
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
                x = log_places(given)
                zero = float(x.min()) if has_zero else None
                _decades(ax, float(np.log10(positive.min())), float(np.log10(positive.max())), zero)
        if best is not None:
            chosen = next(k for k, p in enumerate(points) if p.number == best)
            ring(ax, float(x[chosen]), values[chosen], 11, "best")
        _trials(ax, list(x), values, points)
        _objective_axis(ax, values, is_accuracy)
        ax.set(title=heading(title, figure), xlabel=label, ylabel=unit)
        place_legend(figure, ax)
    return figure


def pareto_front(title: str, units: Sequence[str], points: Sequence[TrialPoint], front: Sequence[int]) -> Figure:
    """The first two objectives of each trial; the trials of the `front`, in order, are connected."""
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(height=2.8)
        by_number = {p.number: p.values[:2] for p in points}
        others = [value for number, value in by_number.items() if number not in front]
        if others:
            ax.plot(*zip(*others, strict=True), "o", color=LIGHT["muted"], mfc="none", ms=5, label="dominated")
        ax.plot(*zip(*(by_number[n] for n in front), strict=True), "-o", color=LIGHT["ink"], lw=1, ms=5, label="front")
        for n in front if len(front) <= 12 else ():
            ax.annotate(str(n), by_number[n], xytext=(4, 4), textcoords="offset points", fontsize=7)
        ax.xaxis.set_major_locator(ticks(6))
        ax.yaxis.set_major_locator(ticks(6))
        for axis, unit in zip((ax.xaxis, ax.yaxis), units, strict=False):
            axis.set_major_formatter(PERCENT if unit.endswith("%") else ScalarFormatter(useOffset=False))
        ax.set(title=heading(title, figure), xlabel=units[0], ylabel=units[1])
        place_legend(figure, ax)
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
        ax.yaxis.set_major_locator(ticks(6))
        ax.yaxis.set_major_formatter(PERCENT)
    elif values and min(values) > 0 and max(values) > 5 * min(values):
        ax.set_yscale("log")
        ax.set_ylim(min(values) / 1.3, max(values) * 1.3)
        plain_log_ticks(ax)
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
