"""A study's points, ranked and as text: those that break a constraint are left out, a point's replicates averaged.

A seed is drawn, not chosen: the best of several seeds is luck that does not repeat. So a point is ranked by its mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context
from typing import Any

from reg_sweep.runs.record import METRIC


@dataclass(frozen=True)
class Outcome:
    """A complete trial: its number, its parameters, its objectives, and whether it kept all constraints."""

    number: int
    params: Mapping[str, Any]
    values: Sequence[float]
    is_feasible: bool = True


@dataclass(frozen=True)
class Point:
    """One trial, or all trials that differ only in their replicate: `values` are the means over replicates."""

    numbers: tuple[int, ...]
    params: dict[str, Any]  # without those that vary over replicates
    values: tuple[float, ...]
    n_replicates: int
    is_feasible: bool


def points(outcomes: Iterable[Outcome], replicates: Sequence[str]) -> list[Point]:
    """The points of a study whose every trial ended with finite values, in the order of their first trials.

    Args:
        outcomes: the complete trials.
        replicates: parameters such as the seed. Without any, each trial is a point of its own.
    """
    found: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        kept = tuple(sorted((k, v) for k, v in outcome.params.items() if k not in replicates))
        found.setdefault(kept if replicates else (outcome.number,), []).append(outcome)
    return [_point(its, replicates) for its in found.values() if all(math.isfinite(v) for o in its for v in o.values)]


def _point(its: Sequence[Outcome], replicates: Sequence[str]) -> Point:
    # A replicate that was run twice counts once: else it would weigh more than the others.
    by_replicate: dict[tuple[Any, ...], list[Sequence[float]]] = {}
    for outcome in its:
        by_replicate.setdefault(tuple(outcome.params.get(name) for name in replicates), []).append(outcome.values)
    means = [list(map(_mean, zip(*values, strict=True))) for values in by_replicate.values()]
    return Point(
        numbers=tuple(sorted(o.number for o in its)),
        params={k: v for k, v in its[0].params.items() if k not in replicates},
        values=tuple(map(_mean, zip(*means, strict=True))),
        n_replicates=len(by_replicate),
        is_feasible=all(o.is_feasible for o in its),
    )


def _mean(values: Sequence[float]) -> float:
    """Divided before it is summed: the sum of numbers such as 1e308 would be infinite."""
    return math.fsum(v / len(values) for v in values)


def ranked(found: Sequence[Point], directions: Sequence[str]) -> list[Point]:
    """The points that keep all constraints, best first; of several objectives the Pareto front, by the first.

    A point that lacks replicates is ranked behind all that have more: a seed that failed must not help it. Of several
    objectives such a point is left out.
    """
    signs = [1 if d == "minimize" else -1 for d in directions]
    feasible = [p for p in found if p.is_feasible]
    costs = {p.numbers: [sign * v for sign, v in zip(signs, p.values, strict=True)] for p in feasible}
    if len(signs) > 1:
        most = max((p.n_replicates for p in feasible), default=0)
        whole = [p for p in feasible if p.n_replicates == most]
        feasible = [p for p in whole if not any(_beats(costs[q.numbers], costs[p.numbers]) for q in whole)]
    return sorted(feasible, key=lambda p: (-p.n_replicates, costs[p.numbers]))


def _beats(cost: Sequence[float], other: Sequence[float]) -> bool:
    return cost != other and all(a <= b for a, b in zip(cost, other, strict=True))


# ---- as text, on pages and terminals alike


def decimal_text(x: float, digits: int = 4, sign: str = "") -> str:
    """'0.1234'; a number too large to be read so, such as a diverging run's loss, as '1.01e+28'."""
    return f"{x:{sign}.{digits}f}" if abs(x) < 1e9 else f"{x:{sign}.3g}"


def lambda_text(strength: float, digits: int = 3) -> str:
    """A lambda as a plain decimal down to 0.0001, below that with an exponent: 0.000173, 3.79e-06."""
    if 0 < strength < 1e-4:
        return f"{strength:.{digits}g}"
    text = f"{Context(prec=digits).create_decimal(repr(float(strength))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parameter_text(value: Any, digits: int = 3) -> str:
    """A parameter's value as text: a number with a fraction to `digits` significant digits, anything else as it is."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    text = lambda_text(abs(value), max(digits, len(str(int(abs(value))))))
    return f"-{text}" if value < 0 else text


def is_share(objective: str) -> bool:
    """Whether an objective is a share of 1, shown in %, and its differences in points."""
    return objective == "zero_share" or (objective in METRIC and METRIC[objective].unit == "share")
