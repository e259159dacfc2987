"""Ranks a study's points and formats them: replicates are averaged, and points that violate a constraint left out.

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
    """A complete trial: its number, parameters and objectives, and whether it satisfies all constraints."""

    number: int
    params: Mapping[str, Any]
    values: Sequence[float]
    is_feasible: bool = True


@dataclass(frozen=True)
class Point:
    """One trial, or all trials that differ only in replicate parameters; `values` are means over replicates."""

    numbers: tuple[int, ...]
    params: dict[str, Any]  # without replicate parameters
    values: tuple[float, ...]
    n_replicates: int
    is_feasible: bool


def points(outcomes: Iterable[Outcome], replicates: Sequence[str]) -> list[Point]:
    """The points of a study, in the order of their first trials, without points that have a non-finite value.

    Args:
        outcomes: the complete trials.
        replicates: the replicate parameters, such as the seed. Without any, each trial is a separate point.
    """
    found: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        kept = tuple(sorted((k, v) for k, v in outcome.params.items() if k not in replicates))
        found.setdefault(kept if replicates else (outcome.number,), []).append(outcome)
    return [_point(its, replicates) for its in found.values() if all(math.isfinite(v) for o in its for v in o.values)]


def _point(its: Sequence[Outcome], replicates: Sequence[str]) -> Point:
    # A replicate that was run twice counts once; otherwise it would have more weight than the others.
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
    """The mean. Divides before summing, because the sum of numbers such as 1e308 would be infinite."""
    return math.fsum(v / len(values) for v in values)


def ranked(found: Sequence[Point], directions: Sequence[str]) -> list[Point]:
    """The points that satisfy all constraints, best first; with several objectives, the Pareto front by the first one.

    A point that lacks replicates is ranked behind all points with more, so that a failed seed does not help it. With
    several objectives, such a point is left out.
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


# ---- as text, for pages and terminals


def decimal_text(x: float, digits: int = 4, sign: str = "") -> str:
    """'0.1234'; a very large number, such as a diverging run's loss, as '1.01e+28'."""
    return f"{x:{sign}.{digits}f}" if abs(x) < 1e9 else f"{x:{sign}.3g}"


def lambda_text(strength: float, digits: int = 3) -> str:
    """A lambda as a plain decimal down to 0.0001 and with an exponent below that: 0.000173, 3.79e-06."""
    if 0 < strength < 1e-4:
        return f"{strength:.{digits}g}"
    text = f"{Context(prec=digits).create_decimal(repr(float(strength))):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parameter_text(value: Any, digits: int = 3) -> str:
    """A parameter's value as text: floats to `digits` significant digits, anything else unchanged."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    text = lambda_text(abs(value), max(digits, len(str(int(abs(value))))))
    return f"-{text}" if value < 0 else text


def is_share(objective: str) -> bool:
    """Whether an objective is a share, which is shown in %, with differences in points."""
    return objective == "zero_share" or (objective in METRIC and METRIC[objective].unit == "share")
