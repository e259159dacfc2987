"""What axes share: ticks and their labels, scales, marks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
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


def plain_log_ticks(ax: Axes) -> None:
    """Two to seven labelled ticks at plain numbers on a logarithmic axis, however narrow."""
    low, high = ax.get_ylim()
    steps = [m * 10.0**e for e in range(-9, 7) for m in (1, 1.5, 2, 3, 5, 7)]
    inside = [s for s in steps if low <= s <= high]
    for kept in (("1.0", "2.0", "3.0", "5.0"), ("1.0", "3.0"), ("1.0",)):
        if len(inside) > 7:
            inside = [s for s in inside if f"{s:e}"[:3] in kept]
    inside = inside[:: 1 + len(inside) // 8]
    if len(inside) < 3:  # so narrow that the axis is nearly linear
        inside = [s for s in ticks(5).tick_values(low, high) if low <= s <= high]
    ax.yaxis.set_major_locator(FixedLocator(inside))
    ax.yaxis.set_major_formatter(PLAIN)
    ax.yaxis.set_minor_locator(NullLocator())


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
