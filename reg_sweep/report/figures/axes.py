"""What axes share: ticks and their labels, scales, marks."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from reg_sweep.report.figures.theme import LIGHT

Array = NDArray[Any]

PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.6g}")
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def ticks(n: int) -> MaxNLocator:
    """At most `n` intervals between round numbers."""
    return MaxNLocator(nbins=n, steps=[1, 2, 5, 10])


def epoch_axis(ax: Axes, n_epochs: int, n_ticks: int) -> None:
    """Epochs counted from 1, a tick at the first and then at round ones."""
    step = next((k for k in (1, 2, 5, 10, 20, 50, 100) if n_epochs / k <= n_ticks), 200)
    ax.xaxis.set_major_locator(FixedLocator(sorted({1, *range(step, n_epochs + 1, step)})))
    ax.set_xlim(1 - 0.02 * n_epochs, n_epochs * 1.02)


def plain_log_ticks(ax: Axes, which: Literal["x", "y"] = "y") -> None:
    """Two to seven labelled ticks at plain numbers on a logarithmic axis, however narrow."""
    axis, (low, high) = (ax.xaxis, ax.get_xlim()) if which == "x" else (ax.yaxis, ax.get_ylim())
    steps = [m * 10.0**e for e in range(-9, 7) for m in (1, 1.5, 2, 3, 5, 7)]
    inside = [s for s in steps if low <= s <= high]
    for kept in (("1.0", "2.0", "3.0", "5.0"), ("1.0", "3.0"), ("1.0",)):
        if len(inside) > 7:
            inside = [s for s in inside if f"{s:e}"[:3] in kept]
    inside = inside[:: 1 + len(inside) // 8]
    if len(inside) < 3:  # so narrow that the axis is nearly linear
        inside = [s for s in ticks(5).tick_values(low, high) if low <= s <= high]
    axis.set_major_locator(FixedLocator(inside))
    axis.set_major_formatter(PLAIN)
    axis.set_minor_locator(NullLocator())


def ring(ax: Axes, x: float, y: float, size: float, label: str) -> None:
    """A ring around a point, solid for the best and dashed for any other choice."""
    dash = "solid" if label == "best" else (0, (2, 1.5))
    ax.scatter([x], [y], s=size**2, facecolors="none", edgecolors=LIGHT["ink"], linewidths=1, linestyles=[dash])


def log_places(strengths: Sequence[float]) -> Array:
    """log10 of each lambda; 0, which has none, one step to the left of the smallest."""
    positive = sorted({s for s in strengths if s > 0})
    logs = np.log10(positive) if positive else np.array([0.0])
    step = max(float(logs[-1] - logs[0]) / max(len(logs) - 1, 1), 0.3)
    return np.array([np.log10(s) if s > 0 else logs[0] - step for s in strengths])


def decades(axis: Axis, strengths: Sequence[float], n: int = 9) -> None:
    """At most `n` ticks at powers of ten of an axis of `log_places`, and one at the place of 0, if a strength is 0."""
    places = log_places(strengths)
    zero = float(places.min()) if min(strengths) <= 0 < max(strengths) else None
    logs = [np.log10(s) for s in strengths if s > 0] or [0.0]
    exponents = [float(e) for e in np.arange(np.floor(min(logs)), np.ceil(max(logs)) + 1)]
    room = max(0.2, 0.12 * float(np.ptp(places)))  # for the label of 0
    exponents = [e for e in exponents if zero is None or e > zero + room]
    exponents = exponents[-1 :: -(1 + (len(exponents) - 1) // n)][::-1]
    at = exponents if zero is None else [zero, *exponents]
    axis.set_ticks(at, labels=[("0" if e == zero else f"{10**e:g}") for e in at])
    axis.set_minor_locator(NullLocator())


def near_best(values: Array, *, higher_is_better: bool) -> tuple[float, float]:
    """The least and the greatest value that colours tell apart: the best, and 3 times as far as the best third reaches.

    Values that spread evenly are all told apart; some that are far worse do not take the colours from the rest.
    """
    costs = values[np.isfinite(values)] * (-1 if higher_is_better else 1)
    best, worst = float(costs.min()), float(costs.max())
    limit = min(best + 3 * (float(np.quantile(costs, 1 / 3)) - best), worst)
    limit = limit if limit > best else worst
    return (-limit, -best) if higher_is_better else (best, limit)
