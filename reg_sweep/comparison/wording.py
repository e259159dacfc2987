"""Numbers as a reader sees them: scores, differences, intervals, p-values and counts as text."""

import math
from collections import Counter

from reg_sweep.runs.record import STATUSES, Metric, Status
from reg_sweep.stats import estimates as stats

DASH = "–"


def is_known(x: float | None) -> bool:
    """Whether a number is there."""
    return x is not None and not math.isnan(x)


def score(metric: Metric, x: float, *, unit: bool = False) -> str:
    """A metric's value: accuracy in %, loss as it is."""
    if not is_known(x):
        return DASH
    return (f"{100 * x:.2f}" + (" %" if unit else "")) if metric.unit == "share" else f"{x:.4f}"


def signed(metric: Metric, x: float) -> str:
    """A difference: in points of accuracy, or in loss."""
    if not is_known(x):
        return DASH
    text = f"{100 * x:+.2f}" if metric.unit == "share" else f"{x:+.4f}"
    return text.replace("-", "−")


def points(metric: Metric) -> str:
    """What follows a difference of the metric; nothing after one of losses."""
    return " points" if metric.unit == "share" else ""


def p_text(p: float) -> str:
    """'0.12', '0.012' or '< 0.001'."""
    return DASH if not is_known(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_equation(p: float) -> str:
    """'p = 0.12' or 'p < 0.001'."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def interval_text(metric: Metric, estimate: stats.Estimate) -> str:
    """'99.40 to 99.54', cut at what an accuracy or a loss can be; empty with one run."""
    if not is_known(estimate.ci_low):
        return ""
    high = min(estimate.ci_high, 1.0) if metric.unit == "share" else estimate.ci_high
    return f"{score(metric, max(estimate.ci_low, 0.0))} to {score(metric, high)}"


def difference_interval(metric: Metric, difference: stats.Difference) -> str:
    """'+0.03 to +0.19'; empty where there is none."""
    if not is_known(difference.ci_low):
        return ""
    return f"{signed(metric, difference.ci_low)} to {signed(metric, difference.ci_high)}"


def count(n: int, noun: str, plural: str | None = None) -> str:
    """'1 seed', '2 seeds', '1,000 seeds'."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def counts(n_by_status: Counter[Status]) -> str:
    """'3 complete, 1 diverged'."""
    return ", ".join(f"{n_by_status[s]:,} {s}" for s in statuses(n_by_status))


def statuses(n_by_status: Counter[Status]) -> list[Status]:
    """The statuses that some run has, in the order in which they are told."""
    return [s for s in (*STATUSES[1:], STATUSES[0]) if n_by_status[s]]


def words(metric: Metric) -> str:
    """'test accuracy'."""
    return metric.name.replace("_", " ")
