"""Choosing an arm: the strongest penalty that is as good as the best, and the selection bias of a chosen arm's score.

The best of several arms on val was lucky there, and the same trained weights were lucky on test too: its test score
is biased upwards, though test took no part in the choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reg_sweep.stats.estimates import finite_scores, paired_scores, standard_error_of
from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.moderation import Floats, Variance


@dataclass(frozen=True)
class PairedLambdaChoice:
    """Indices of the lambda with the best mean and of the chosen one, and which lambdas are within one error of it."""

    best: int
    chosen: int
    allowed: tuple[bool, ...]


@dataclass(frozen=True)
class LambdaChoice:
    """Indices of the lambda with the best mean and of the chosen one, and the worst mean that may be chosen."""

    best: int
    chosen: int
    threshold: float


@dataclass(frozen=True)
class ShrunkenEstimate:
    """The chosen arm's mean, as measured and corrected for selection: floats, or arrays of the batch's shape.

    estimate: its mean over the seeds. corrected: the mean to expect from other seeds. ci_low..ci_high covers the arm's
    true mean with probability 1 - alpha, however the arm was chosen; nan where nothing is known.
    """

    estimate: Floats
    corrected: Floats
    ci_low: Floats
    ci_high: Floats
    n_candidates: int


def shrunken_estimate(
    values: ArrayLike, chosen: ArrayLike, alpha: float = 0.05, variance: Variance = "moderated"
) -> ShrunkenEstimate:
    """The chosen arm's mean, shrunk to correct for selection, with an interval that selection does not invalidate.

    Interval: the simultaneous one over all m candidates, x_i +- t(1 - alpha / (2 m), df_i) se_i. All m cover at once
    with probability 1 - alpha, so the chosen arm's does too, for any rule of choice, and although the luck on val and
    on test correlates.

    Corrected: the best of m equal arms exceeds the truth by the luck of the luckiest. The arms' means x_i are shrunk
    towards their mean g, keeping the part of their spread that exceeds luck (empirical Bayes):

        corrected = g + B (x_chosen - g)        B = max(0, 1 - (MS / n) / variance of the x_i)

    where MS is the residual mean square after arm and seed effects (luck that all arms share on a seed favours none)
    and n the number of seeds. With two arms B rests on a single difference; with one arm corrected is the estimate.

    Args:
        values: (..., n_candidates, n_seeds). To estimate a gain over the baseline: each candidate's paired differences,
            without the baseline. To estimate a score: the scores, with variance='plain', since scores of one seed
            share more luck than moderation allows for. Candidates are all arms that could have been chosen.
        chosen: the position of the chosen candidate, of shape (...,).

    Raises:
        ValueError: `chosen` is not one of the candidates, a value is missing, or as in `compare_arms`.
    """
    x = np.asarray(values, dtype=np.float64)
    position = np.asarray(chosen)
    family = compare_arms(x, alpha, variance=variance)
    m, n = x.shape[-2:]
    if np.any((position < 0) | (position >= m)):
        raise ValueError(f"chosen must be a position from 0 to {m - 1}, got {position.tolist()}")
    if np.isnan(x).any():
        raise ValueError("values must have every seed of every candidate, got nan: leave out arms that lack seeds")
    means = x.mean(axis=-1)  # (..., n_candidates)
    estimate, low, high = (
        np.take_along_axis(a, position[..., None], axis=-1)[..., 0] for a in (means, *family.interval)
    )
    return ShrunkenEstimate(estimate, _shrunk(x, estimate) if m > 1 and n > 1 else estimate, low, high, m)


def _shrunk(x: Floats, estimate: Floats) -> Floats:
    """`ShrunkenEstimate.corrected`: g + B (estimate - g)."""
    m, n = x.shape[-2:]
    means, grand = x.mean(axis=-1), x.mean(axis=(-2, -1))
    left = x - means[..., None] - x.mean(axis=-2)[..., None, :] + grand[..., None, None]
    luck = (left**2).sum(axis=(-2, -1)) / ((m - 1) * (n - 1)) / n
    spread = means.var(axis=-1, ddof=1)
    kept = np.where(spread > 0, np.maximum(0.0, 1 - luck / np.where(spread > 0, spread, 1.0)), 0.0)
    shrunk: Floats = grand + kept * (estimate - grand)
    return shrunk


def one_standard_error(
    strengths: ArrayLike,
    scores: Sequence[ArrayLike],
    lower_is_better: bool = True,
    standard_error: float | None = None,
) -> LambdaChoice:
    """The strongest penalty whose mean score is within one standard error of the best mean.

    Breiman, Friedman, Olshen and Stone 1984, 3.4.3; Hastie, Tibshirani and Friedman 2009, 7.10. The standard error is
    the best lambda's, sd / sqrt(n) over its replicates, or `standard_error` where one is given (with one replicate
    each: `binomial_standard_error` of the best accuracy). Where neither is known, threshold is nan and the best is
    chosen. Of equal best means, the strongest penalty's counts as best.

    Args:
        strengths: the lambdas, (n_lambdas,).
        scores: for each lambda the scores of its replicates.

    Raises:
        ValueError: lengths differ, or a number is not finite.
    """
    lambdas = finite_scores("strengths", strengths)
    if len(scores) != lambdas.size:
        raise ValueError(f"scores must hold one array for each of {lambdas.size} strengths, got {len(scores)}")
    if standard_error is not None and not (isfinite(standard_error) and standard_error >= 0):
        raise ValueError(f"standard_error must be a finite number of at least 0, got {standard_error!r}")
    replicates = [finite_scores(f"scores[{i}]", values) for i, values in enumerate(scores)]
    losses = np.array([x.mean() for x in replicates]) * (1 if lower_is_better else -1)
    best = _strongest(lambdas, losses == losses.min())
    error = standard_error_of(replicates[best]) if standard_error is None else standard_error
    limit = float(losses[best]) + error
    chosen = best if np.isnan(limit) else _strongest(lambdas, losses <= limit)
    return LambdaChoice(best, chosen, limit if lower_is_better else -limit)


def paired_one_standard_error(
    strengths: ArrayLike, scores: ArrayLike, lower_is_better: bool = True
) -> PairedLambdaChoice:
    """The strongest penalty whose difference from the best, on the same seeds, is at most its own standard error.

    As `one_standard_error`, but a seed's luck, which all lambdas share, does not widen what may be chosen: lambda j
    with loss x_j is allowed if mean(x_j - x_best) <= sd(x_j - x_best) / sqrt(n), over their n common seeds. The best is
    taken among the lambdas with the most seeds, so that a missing bad seed never makes one best. With one common seed
    or equal differences nothing is known about the error, and a lambda is allowed if it is as good as the best.

    Args:
        strengths: the lambdas, (n_lambdas,).
        scores: (n_lambdas, n_seeds), nan where a seed is missing.

    Raises:
        ValueError: shapes do not fit, a score is infinite, or no lambda has a score.
    """
    lambdas, x = finite_scores("strengths", strengths), np.asarray(scores, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] != lambdas.size:
        raise ValueError(f"scores must have a row for each of {lambdas.size} strengths, got shape {x.shape}")
    if np.isinf(x).any():
        raise ValueError("scores must hold finite numbers, or nan where a seed is missing, got inf")
    n = (~np.isnan(x)).sum(axis=1)
    if n.max(initial=0) == 0:
        raise ValueError("scores must hold at least one score, got none")
    complete = n == n.max()
    losses = np.where(complete, np.where(np.isnan(x), 0.0, x).sum(axis=1) / n.max(), np.inf)
    losses = losses if lower_is_better else np.where(complete, -losses, np.inf)
    best = _strongest(lambdas, losses == losses.min())
    allowed = [j == best or _within_its_error(x[j], x[best], lower_is_better) for j in range(lambdas.size)]
    return PairedLambdaChoice(best, _strongest(lambdas, np.array(allowed)), tuple(allowed))


def binomial_standard_error(accuracy: float, n: int) -> float:
    """The standard error of an accuracy measured on n images: sqrt(accuracy (1 - accuracy) / n).

    Raises:
        ValueError: the accuracy is not a share between 0 and 1, or n is below 1.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy must be a share between 0 and 1, got {accuracy!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n!r}")
    return sqrt(accuracy * (1 - accuracy) / n)


def _within_its_error(x: Floats, best: Floats, lower_is_better: bool) -> bool:
    common = ~np.isnan(x) & ~np.isnan(best)
    if not common.any():
        return False
    d = paired_scores(x[common], best[common]) * (1 if lower_is_better else -1)
    error = standard_error_of(d)
    return bool(d.mean() <= (0.0 if np.isnan(error) else error))


def _strongest(lambdas: Floats, allowed: NDArray[np.bool_]) -> int:
    return int(np.argmax(np.where(allowed, lambdas, -np.inf)))
