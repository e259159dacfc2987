"""Helpers for axes: ticks and their labels, scales, marks."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from reg_sweep.report.figures.theme import LIGHT

Array = NDArray[Any]

PERCENT = FuncFormatter(lambda share, _: _minus(f"{100 * share:.6g}"))
_ROUNDEST_FIRST = "1.0 2.0 5.0 3.0 7.0 1.5"  # the leading digits of ticks
PLAIN = FuncFormatter(lambda value, _: _minus(f"{value:g}"))


def _minus(number: str) -> str:
    """A number with the minus sign of the page; an exponent keeps its hyphen."""
    return f"−{number[1:]}" if number.startswith("-") else number


def ticks(n: int) -> MaxNLocator:
    """At most `n` intervals between round numbers."""
    return MaxNLocator(nbins=n, steps=[1, 2, 5, 10])


def epoch_axis(ax: Axes, n_epochs: int, n_ticks: int) -> None:
    """Epochs counted from 1, a tick at the first and then at round ones."""
    ax.xaxis.set_major_locator(FixedLocator(epoch_ticks(n_epochs, n_ticks)))
    ax.set_xlim(epoch_range(n_epochs))


def epoch_ticks(n_epochs: int, n_ticks: int) -> list[int]:
    """The first epoch, and about `n_ticks` round ones."""
    step = next((k for k in (1, 2, 5, 10, 20, 50, 100) if n_epochs / k <= n_ticks), 200)
    return sorted({1, *range(step, n_epochs + 1, step)})


def epoch_range(n_epochs: int) -> tuple[float, float]:
    """The ends of an axis of epochs."""
    return 1 - 0.02 * n_epochs, n_epochs * 1.02


def later_range(curves: Sequence[Array], *, is_accuracy: bool) -> tuple[float, float] | None:
    """The range of the curves since the first quarter of the epochs, as an axis' ends; None without known values.

    A loss has a log axis, on which only positive values are.
    """
    # Even with three epochs the first would flatten the others.
    starts = [max(len(curve) // 4, int(len(curve) > 2)) for curve in curves]
    tails = np.concatenate([curve[n:] for curve, n in zip(curves, starts, strict=True)] or [np.array([])])
    tails = tails[np.isfinite(tails) & (is_accuracy | (tails > 0))]
    if not tails.size:
        return None
    if not is_accuracy:
        room = max((tails.max() / tails.min()) ** 0.08, 1.0002)
        return float(tails.min() / room), float(tails.max() * room)
    low, high = float(np.quantile(tails, 0.02)), float(tails.max())
    room = max(high - low, 0.002)
    return max(low - 0.25 * room, 0.0), min(high + 0.12 * room, 1.0)


def outside_text(curves: Sequence[Array], ends: tuple[float, float]) -> str:
    """'epochs 1 to 3 lie outside, in part': the first epochs that an axis leaves out of curves; empty for none."""
    out = [int(at) for c in curves for at in np.flatnonzero((c < ends[0]) | (c > ends[1])) + 1]
    if not out:
        return ""
    if max(out) > 1:
        return f"epochs 1 to {max(out)} lie outside, in part"
    return "epoch 1 lies outside" if len(out) == len(curves) else "epoch 1 lies outside, in part"


def plain_log_ticks(ax: Axes, which: Literal["x", "y"] = "y") -> None:
    """Two to seven labelled ticks at plain numbers on a logarithmic axis, however narrow."""
    axis, ends = (ax.xaxis, ax.get_xlim()) if which == "x" else (ax.yaxis, ax.get_ylim())
    axis.set_major_locator(FixedLocator(log_ticks(*ends)))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Two to seven plain numbers on a logarithmic axis, however narrow."""
    steps = [m * 10.0**e for e in range(-9, 7) for m in (1, 1.5, 2, 3, 5, 7)]
    inside = [s for s in steps if low <= s <= high]
    for kept in (("1.0", "2.0", "3.0", "5.0"), ("1.0", "3.0"), ("1.0",)):
        if len(inside) > 7:
            inside = [s for s in inside if f"{s:e}"[:3] in kept]
    inside = inside[:: 1 + len(inside) // 8]
    if len(inside) < 3:  # so narrow that the axis is nearly linear
        inside = [float(s) for s in ticks(5).tick_values(low, high) if low <= s <= high]
    return inside


def ring(ax: Axes, x: float, y: float, size: float, label: str) -> None:
    """A ring around a point, solid for the best and dashed for any other choice."""
    dash = "solid" if label == "best" else (0, (2, 1.5))
    ax.scatter(
        [x], [y], s=size**2, facecolors="none", edgecolors=LIGHT["ink"], linewidths=1, linestyles=[dash], clip_on=False
    )


def log_places(strengths: Sequence[float]) -> Array:
    """log10 of each lambda; 0, which has none, one step to the left of the smallest."""
    positive = sorted({s for s in strengths if s > 0})
    logs = np.log10(positive) if positive else np.array([0.0])
    step = max(float(logs[-1] - logs[0]) / max(len(logs) - 1, 1), 0.3)
    return np.array([np.log10(s) if s > 0 else logs[0] - step for s in strengths])


def decades(axis: Axis, strengths: Sequence[float], n: int = 9) -> None:
    """At most `n` ticks at powers of ten of an axis of `log_places`, and one at the place of 0, if a strength is 0.

    Where the strengths span less than a factor of 30, plain numbers between the powers of ten are also ticks.
    """
    places = log_places(strengths)
    zero = float(places.min()) if min(strengths) <= 0 < max(strengths) else None
    positive = [s for s in strengths if s > 0] or [1.0]
    low, high = min(positive), max(positive)
    values = [10.0**e for e in np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)]
    if high < 30 * low:
        values = apart(log_ticks(low * 0.97, high * 1.03), float(np.ptp(places)) / min(n, 6))
    room = max(0.2, 0.12 * float(np.ptp(places)))  # for the label of 0
    values = [v for v in values if zero is None or np.log10(v) > zero + room]
    values = values[-1 :: -(1 + (len(values) - 1) // n)][::-1]
    at, labels = [float(np.log10(v)) for v in values], [f"{v:g}" for v in values]
    axis.set_ticks(at if zero is None else [zero, *at], labels=labels if zero is None else ["0", *labels])
    axis.set_minor_locator(NullLocator())


def apart(values: Sequence[float], least: float) -> list[float]:
    """The values whose logarithms are at least `least` apart, the rounder ones first."""
    kept: list[float] = []
    for value in sorted(values, key=lambda v: (_ROUNDEST_FIRST.find(f"{v:.1e}"[:3]) % 99, v)):
        if all(abs(np.log10(value / other)) >= least for other in kept):
            kept.append(value)
    return sorted(kept)


def near_best(values: Array, *, higher_is_better: bool) -> tuple[float, float]:
    """The range of values that colours distinguish: from the best to three times as far as the best third reaches.

    Evenly spread values are all distinguished; a few far worse values do not use up the colours.
    """
    costs = values[np.isfinite(values)] * (-1 if higher_is_better else 1)
    best, worst = float(costs.min()), float(costs.max())
    limit = min(best + 3 * (float(np.quantile(costs, 1 / 3)) - best), worst)
    limit = limit if limit > best else worst
    return (-limit, -best) if higher_is_better else (best, limit)
