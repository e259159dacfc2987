"""Why L1 zeroes weights and L2 shrinks them: the two pictures that the page shows beside its own results."""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reg_sweep.report.figures.theme import DASHES, LIGHT, STYLE, Picture, colour, new_figure

Array = NDArray[Any]


def textbook_pictures() -> list[Picture]:
    """The penalties and their pull, and where a loss first touches the set that each allows."""
    return [
        Picture(
            "why-penalty",
            "Left: the L1 penalty |w| is a V, the L2 penalty w²/2 a parabola. Right: L1's gradient is -1 or +1 at "
            "every size, L2's is w.",
            penalties,
            "why-penalty",
            wide=True,
        ),
        Picture(
            "why-contours",
            "A loss's elliptic contours first touch L1's diamond at its corner on an axis, where one weight is 0, and "
            "L2's disc off the axes, where both weights are smaller and neither is 0.",
            contours,
            "why-contours",
            "Contours of a loss, its minimum at the cross, and the set that each penalty allows. They touch at the "
            "diamond's corner, where w₂ is 0, and at the disc beside it, where neither is.",
            wide=True,
        ),
    ]


def penalties() -> Figure:
    """|w| and w²/2 beside their gradients: L1 pulls equally hard at every size, L2 less and less."""
    w = np.linspace(-2, 2, 401)
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = new_figure(width=6.4, height=2.75, ncols=2)
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
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(width=6.4, height=2.95, ncols=2)
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
