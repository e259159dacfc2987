"""Why L1 zeroes weights and L2 shrinks them, in two pictures, and the cost functions as formulas."""

from collections.abc import Collection, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reg_sweep.report.figures.theme import DASHES, LIGHT, PAGE_WIDTH, PRINT_WIDTH, STYLE, Picture, colour, new_figure

Array = NDArray[Any]

# What training minimizes, and the pull of the penalty on a weight, in LaTeX that matplotlib draws too. p_i is the
# probability of the true class, for the N images of a batch; the sums are over the penalized weights w, and over the
# tensors t with n_t weights each.
Cost = tuple[str, str, str]
_L1 = {
    "textbook": (r"\lambda_1 \, \sum_{w} \, |w|", r"-\lambda_1 \, \mathrm{sign}(w)"),
    "notebook": (
        r"\lambda_1 \, \sum_{t} \, \dfrac{1}{n_t} \, \sum_{w \in t} \, |w|",
        r"-\dfrac{\lambda_1}{n_t} \, \mathrm{sign}(w)",
    ),
}
_L2 = r"\dfrac{\lambda_2}{2} \, \sum_{w} \, w^2"
_NOTEBOOK = (
    "its L1 takes the mean of |w| over the n weights of each tensor t, where the textbook's takes the sum, so the same "
    "strength pulls n times less on a weight; and it penalizes all parameters, those of the norm layers included."
)


def costs(forms: Collection[str]) -> tuple[tuple[Cost, ...], str]:
    """The cost functions of these forms of the penalties, and what their symbols mean."""
    said = (
        "J is the mean cross-entropy over the N images of a batch, p the probability of the true class; the sums are "
        "over the penalized weights w."
    )
    first, *others = [form for form in _L1 if form in forms] or ["textbook"]
    rows = [("no penalty", r"J = -\dfrac{1}{N} \sum_{i=1}^{N} \, \log p_i", "0"), *_costs_of(first)]
    rows += [(f"notebook's {name}", cost, pull) for form in others for name, cost, pull in _costs_of(form)[::2]]
    if "notebook" in forms:
        whose = "The notebook form is exercise B's" if others else "These penalties are those of exercise B's notebook"
        said += f" {whose}: {_NOTEBOOK}"
    return tuple(rows), said


def _costs_of(form: str) -> list[Cost]:
    """The penalties of a form: L1, L2, and both."""
    cost, pull = _L1[form]
    both = ("L1 and L2", rf"J + {cost} + {_L2}", rf"{pull} - \lambda_2 \, w")
    return [("L1", f"J + {cost}", pull), ("L2", f"J + {_L2}", r"-\lambda_2 \, w"), both]


def textbook_pictures() -> list[Picture]:
    """The penalties and their pull, and where a loss first touches the set that each allows."""
    return [
        Picture(
            "why-penalty",
            "Left: the L1 penalty |w| is a V, the L2 penalty w²/2 a parabola, both a parabola with the V's tip. Right: "
            "L1's gradient is -1 or +1 at every size, L2's is w, that of both is their sum.",
            penalties,
            "why-penalty",
            wide=True,
        ),
        Picture(
            "why-contours",
            "A loss's elliptic contours first touch L1's diamond at its corner on an axis, where one weight is 0, and "
            "L2's disc off the axes, where both weights are smaller and neither is 0. The set of both has corners and "
            "round sides: one weight is 0, and the other smaller than with L1 alone.",
            contours,
            "why-contours",
            "Contours of a loss, its minimum at the cross, and the set that each penalty allows. They touch at the "
            "diamond's corner, where w₂ is 0, and on the disc off the axes, where neither is 0. The set of both also "
            "has corners.",
            wide=True,
        ),
    ]


def cost_functions(rows: Sequence[Cost], width: float = PRINT_WIDTH) -> Figure:
    """A table: each penalty, the function that training minimizes, and its pull on a weight."""
    n = len(rows)
    with matplotlib.rc_context(STYLE):
        figure, ax = new_figure(width, 0.5 + 0.56 * n)
        ax.set_axis_off()
        ax.set(xlim=(0, 1), ylim=(n - 0.45, -1))
        for x, text in ((0.0, "Penalty"), (0.17, "Training minimizes"), (0.68, "The penalty's pull on a weight")):
            ax.text(x, -0.75, text, fontweight="bold", va="center")
        for row, (name, cost, pull) in enumerate(rows):
            ax.axhline(row - 0.45, color=LIGHT["grid"], linewidth=0.7)
            ax.text(0.0, row, name.replace("'s ", "'s\n"), va="center")
            for x, formula in ((0.17, cost), (0.68, pull)):
                ax.text(x, row, f"${formula}$", va="center", fontsize=10, parse_math=True)
    return figure


def penalties() -> Figure:
    """Each penalty beside its gradient: L1 pulls equally hard at every size, L2 less and less, both as their sum.

    Both lambdas are 1.
    """
    w = np.linspace(-2, 2, 401)
    drawn = (
        ("L1: |w|", 2, np.abs(w), np.sign(w)),
        ("L2: w²/2", 1, w**2 / 2, w),
        ("both: |w| + w²/2", 3, np.abs(w) + w**2 / 2, np.sign(w) + w),
    )
    with matplotlib.rc_context(STYLE):
        figure, (left, right) = new_figure(width=PRINT_WIDTH, height=2.75, ncols=2)
        for label, slot, value, gradient in drawn:
            style: dict[str, Any] = {"color": colour(slot), "linestyle": DASHES[slot]}
            left.plot(w, value, label=label, **style)
            jumps = gradient[w > 0][0] > 0.5  # at 0, where there is no gradient
            for half in (w < 0, w > 0) if jumps else (np.isfinite(w),):
                right.plot(w[half], gradient[half], **style)
        left.set(title="The penalty", xlabel="weight w", ylabel="penalty")
        left.legend(loc="upper center")
        right.set(title="Its gradient", xlabel="weight w", ylabel="gradient")
        right.set_ylim(-3.2, 3.2)
        right.annotate("L1: the same at every size,\nso small weights reach 0", (1.1, 1.0), (-1.95, 2.1), fontsize=7.5)
        right.annotate("L2: fades with w,\nso weights only shrink", (0.2, -0.9), (0.12, -2.7), fontsize=7.5)
    return figure


def contours(width: float = PAGE_WIDTH) -> Figure:
    """A loss's contours meet the set that each penalty allows: L1's diamond at a corner, L2's disc off the axes.

    The loss is a quadratic with its minimum outside all sets; each optimum is computed, not drawn by eye.
    """
    hessian, minimum = np.array([[1.0, 0.25], [0.25, 1.6]]), np.array([1.6, 0.45])
    x, y = np.meshgrid(np.linspace(-1.3, 2.4, 200), np.linspace(-1.3, 1.7, 200))
    d = np.stack([x - minimum[0], y - minimum[1]])
    loss = 0.5 * np.einsum("iab,ij,jab->ab", d, hessian, d)
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(width=width, height=0.34 * width, ncols=3)
        panels = (("L1 ends", 2, 1.0, 0.0), ("L2 ends", 1, 0.0, 0.75), ("Both end", 3, 1.1, 0.4))
        for ax, (name, slot, l1, l2) in zip(axes, panels, strict=True):
            w = _optimum(hessian, minimum, l1, l2)
            touched = float(0.5 * (w - minimum) @ hessian @ (w - minimum))
            levels = touched * np.array([0.08, 0.4, 1.0, 1.9, 3.1])
            ax.contour(x, y, loss, levels, colors=LIGHT["muted"], linewidths=[0.8, 0.8, 1.5, 0.8, 0.8])
            allowed = float(l1 * np.abs(w).sum() + l2 / 2 * w @ w)
            penalty = l1 * (np.abs(x) + np.abs(y)) + l2 / 2 * (x**2 + y**2)
            ax.contourf(x, y, penalty, [-1, allowed], colors=[colour(slot)], alpha=0.25)
            ax.axhline(0, color=LIGHT["muted"], linewidth=0.6)
            ax.axvline(0, color=LIGHT["muted"], linewidth=0.6)
            ax.plot(*minimum, "+", color=LIGHT["ink"], markersize=8)
            ax.plot(*w, "o", color=colour(slot), markersize=6)
            title = f"{name} at ({w[0]:.2f}, {w[1]:.2g})"
            ax.set(title=title, xlabel="weight w₁", ylabel="weight w₂", aspect="equal")
            ax.set(xlim=(-1.3, 2.4), ylim=(-1.3, 1.7), xticks=[-1, 0, 1, 2], yticks=[-1, 0, 1])
    return figure


def _optimum(hessian: Array, minimum: Array, l1: float, l2: float) -> Array:
    """argmin of the quadratic + l1 |w|₁ + l2/2 |w|², by proximal gradient steps (soft thresholds)."""
    w, step = np.zeros(2), 1 / (np.linalg.eigvalsh(hessian)[-1] + l2)
    for _ in range(500):
        w = w - step * (hessian @ (w - minimum) + l2 * w)
        w = np.sign(w) * np.maximum(np.abs(w) - step * l1, 0)
    return w
