"""Each arm's paired difference to the baseline, in the test metric that is judged and in the other one beside it."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.judgement import ALPHA, differences
from reg_sweep.comparison.results import TEST_METRICS
from reg_sweep.comparison.tables import Comparison
from reg_sweep.comparison.wording import is_known
from reg_sweep.runs.record import Metric
from reg_sweep.stats.family import claims, compare_arms

Mark = Literal["better", "worse", "equivalent", "small", "open", "unranked", "untested"]

# How a verdict is drawn: shapes for what a reader must tell apart.
_MARKS: dict[str, Mark] = {
    "better": "better",
    "worse": "worse",
    "worse by divergence": "worse",
    "shown equivalent": "equivalent",
    "real but smaller than the margin": "small",
    "not ranked": "unranked",
}


@dataclass(frozen=True)
class Effect:
    """An arm minus the baseline: the mean over common seeds, its simultaneous 95% interval, and each seed's.

    The interval's ends are nan where there is none, as of seeds that are tied; `by_image` tells that it is over test
    images. `seeds` pairs a seed with its difference.
    """

    arm: Arm
    estimate: float
    low: float
    high: float
    seeds: tuple[tuple[int, float], ...]
    mark: Mark
    by_image: bool
    is_tied: bool


@dataclass(frozen=True)
class Outcome:
    """One test metric's effects, in the order of the arms. `margin` is None where equivalence is not asked for.

    `is_judged`: its effects are the verdict's own. The other metric's have an error of 5% of their own, over all arms,
    and decide nothing.
    """

    metric: Metric
    margin: float | None
    is_judged: bool
    effects: list[Effect]


def outcomes(comparison: Comparison, *, has_looks: bool = False) -> list[Outcome]:
    """The judged metric's outcome, then the other's, of all arms that share a seed with the baseline.

    `has_looks`: a sequential design judged the arms. It spent its error on the judged metric alone, so that the other
    has no interval.
    """
    base = comparison.baseline
    if base is None:
        return []
    arms = [arm for arm in comparison.measured if arm is not base and set(arm.seeds) & set(base.seeds)]
    if not arms:
        return []
    (other,) = (metric for metric in TEST_METRICS if metric != comparison.metric)
    found = [_judged(comparison, arms, base), _beside(comparison, other, arms, base, has_looks)]
    return [outcome for outcome in found if any(is_known(e.estimate) for e in outcome.effects)]


def _judged(comparison: Comparison, arms: list[Arm], base: Arm) -> Outcome:
    metric, effects = comparison.metric, []
    for arm, row in zip(arms, differences(arms, base, metric, comparison.epoch), strict=True):
        contrast, mark = arm.contrast, _MARKS.get(str(arm.verdict), "open")
        if contrast is not None:
            d = contrast.difference
            tested = (contrast.by_image, contrast.is_tied)
            effects.append(Effect(arm, d.mean, d.ci_low, d.ci_high, _by_seed(base, row), mark, *tested))
    return Outcome(metric, comparison.margin, True, effects)


def _beside(comparison: Comparison, metric: Metric, arms: list[Arm], base: Arm, has_looks: bool) -> Outcome:
    d = differences(arms, base, metric, comparison.epoch)
    d[~np.isfinite(d)] = math.nan  # a loss may be infinite where an accuracy is known
    family = compare_arms(d, ALPHA, None, comparison.variance)
    words, (low, high) = claims(family, metric.higher_is_better), family.interval
    effects = []
    for i, arm in enumerate(arms):
        mark = "untested" if has_looks else "unranked" if not arm.is_ranked else _MARKS.get(str(words[i]), "open")
        ends = (math.nan, math.nan) if has_looks else (float(low[i]), float(high[i]))
        seeds = _by_seed(base, d[i])
        is_tied = len(seeds) > 1 and math.isnan(low[i])
        effects.append(Effect(arm, float(family.noise.mean[i]), *ends, seeds, mark, False, is_tied))
    return Outcome(metric, None, False, effects)


def _by_seed(base: Arm, row: NDArray[np.float64]) -> tuple[tuple[int, float], ...]:
    return tuple((r.seed, float(v)) for r, v in zip(base.replicates, row, strict=True) if math.isfinite(v))


def difference_curves(arm: Arm, base: Arm, metric: Metric) -> NDArray[np.float64]:
    """Arm minus baseline at each epoch, (n_pairs, n_epochs): a row for each seed that both have, nan past an end."""
    ours, theirs = arm.curves(metric), base.curves(metric)
    n = min(ours.shape[1], theirs.shape[1])
    row_of = {seed: row for row, seed in enumerate(base.seeds)}
    pairs = [(i, row_of[seed]) for i, seed in enumerate(arm.seeds) if seed in row_of]
    return np.array([ours[i, :n] - theirs[j, :n] for i, j in pairs]).reshape(len(pairs), n)
