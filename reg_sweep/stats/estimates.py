"""Arrays in, estimates out: the report's intervals and tests. Independent of files and plots.

The unit is the run: an array holds one score for each replicate (seed) of an arm, and two arms are compared on the
same seeds, position by position. With a single seed the unit is the test image (`mcnemar`,
`paired_accuracy_difference`), and two trained models are compared, not two methods.
"""

from dataclasses import dataclass
from math import atanh, isfinite, nan, sqrt, tanh

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betaincinv, fdtrc, ndtri, stdtr, stdtrit

from reg_sweep.stats.moderation import Pairing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` replicates, its confidence interval, and the replicates' standard deviation `sd`."""

    mean: float
    ci_low: float
    ci_high: float
    sd: float
    n: int


@dataclass(frozen=True)
class Band:
    """`Estimate` for each epoch: arrays of shape (n_epochs,). `n` counts the replicates that reached the epoch."""

    mean: Floats
    ci_low: Floats
    ci_high: Floats
    n: NDArray[np.int64]


@dataclass(frozen=True)
class Difference:
    """The mean of a - b over `n` pairs, its confidence interval, and the two-sided p of 'there is no difference'."""

    mean: float
    ci_low: float
    ci_high: float
    p: float
    n: int


@dataclass(frozen=True)
class McNemar:
    """The numbers of images that only a and only b classify correctly, and the two-sided exact p."""

    n_only_a: int
    n_only_b: int
    p: float


@dataclass(frozen=True)
class Correlation:
    """A correlation over `n` pairs and its interval; nan where there are too few, or no spread."""

    r: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True)
class DivergenceTest:
    """The numbers of seeds that only a and only b lost (without pairing: that each lost), and the two-sided exact p.

    direction is 1 where a lost more often, -1 where b did, 0 where neither.
    """

    n_only_a: int
    n_only_b: int
    p: float
    direction: int


def mean_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean and its Student t interval: mean +- t(1 - (1-level)/2, n-1) sd / sqrt(n), sd with n-1.

    With n = 1 the spread is unknown: sd and interval are nan. Equal values have an sd of 0, but no interval either:
    ties do not show how far the next value may lie.

    Raises:
        ValueError: `values` is empty or holds a number that is not finite, or the level is not between 0 and 1.
    """
    x = finite_scores("values", values)
    half = float(_t_quantile(level, x.size - 1)) * (standard_error_of(x) or nan)
    mean = float(x.mean())
    sd = float(x.std(ddof=1)) if x.size > 1 else nan
    return Estimate(mean, mean - half, mean + half, sd, x.size)


def mean_band(values: ArrayLike, level: float = 0.95) -> Band:
    """`mean_interval` of each column of `values` (n_replicates, n_epochs), where nan means that a run ended earlier.

    An epoch that one replicate reached, or several with one value, has a mean and a nan interval; one that none
    reached has a nan mean.

    Raises:
        ValueError: `values` does not have two axes, or the level is not between 0 and 1.
    """
    x = np.asarray(values, dtype=np.float64)  # (n_replicates, n_epochs)
    if x.ndim != 2:
        raise ValueError(f"values must have a row for each replicate and a column for each epoch, got shape {x.shape}")
    present = ~np.isnan(x)
    n = present.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 where too few replicates are left: nan is the answer
        mean = np.where(present, x, 0.0).sum(axis=0) / n
        variance = np.where(present, (x - mean) ** 2, 0.0).sum(axis=0) / np.where(n > 1, n - 1, nan)
        is_spread = np.where(present, x, -np.inf).max(axis=0) > np.where(present, x, np.inf).min(axis=0)
        half = _t_quantile(level, n - 1) * np.sqrt(np.where(is_spread, variance, nan) / n)
    return Band(mean, mean - half, mean + half, n)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Difference:
    """The mean of d = a - b, paired by position, with the paired t test: t = mean(d) / (sd(d) / sqrt(n)).

    Interval and p are nan for n = 1, and where all differences are equal up to rounding: accuracies on few test images
    tie by chance, and networks that learned nothing always tie. A t interval without spread would claim a certainty
    that nothing supports.

    Raises:
        ValueError: the arrays differ in length, are empty, or hold a number that is not finite, or the level is not
        between 0 and 1.
    """
    d = paired_scores(a, b)
    mean, error = float(d.mean()), standard_error_of(d) or nan
    half = float(_t_quantile(level, d.size - 1)) * error
    p = 2 * _t_tail(-abs(mean), error, d.size - 1)
    return Difference(mean, mean - half, mean + half, p, d.size)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test of two models on the same test images (McNemar 1947).

    If the models are equally accurate, an image that only one of them gets right is a's with probability 1/2. p is the
    two-sided binomial test of n_only_a among these images, and 1 if there are none. It compares two trained models, not
    two methods: another seed is another model.

    Raises:
        ValueError: the arrays are not boolean, differ in length, or are empty.
    """
    from scipy.stats import binomtest  # takes half a second to import, which few judgements need

    a, b = _paired_outcomes(correct_a, correct_b)
    n_only_a, n_only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = n_only_a + n_only_b
    return McNemar(n_only_a, n_only_b, float(binomtest(n_only_a, n).pvalue) if n > 0 else 1.0)


def paired_accuracy_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, level: float = 0.95, correction: float = 1.0
) -> Difference:
    """The accuracy of a minus that of b on the same test images: for arms of one run each.

    mean is the plain difference (n_only_a - n_only_b) / n, and p is `mcnemar`'s times the correction, at most 1. The
    interval has level 1 - (1 - level) / correction, and is Bonett and Price's (2012, Journal of Educational and
    Behavioral Statistics 37, 479-488), Wald's after one image is added to either kind of disagreement:
    d +- z sqrt((p_a + p_b - d^2) / (n + 2)) with p_a = (n_only_a + 1) / (n + 2), p_b likewise, d = p_a - p_b. It keeps
    its level where models disagree on few images. There, Wald's own interval covers far too seldom, and without
    disagreements it has no width.

    The interval excludes 0 exactly where p <= 1 - level. If p is above, the interval is extended to 0. If p is not
    above but the interval contains 0, the end beyond 0 is replaced by the exact one, (2 share - 1) (n_only_a +
    n_only_b) / n, where share is the Clopper-Pearson limit of a's share in the disagreements. The interval covers new
    test images for these two models, not new seeds.

    Args:
        correction: the number of arms that share the error 1 - level.

    Raises:
        ValueError: as `mcnemar`, the correction is below 1, or the level is not between 0 and 1.
    """
    if not correction >= 1:
        raise ValueError(f"correction must be at least 1, got {correction!r}: the number of arms tested")
    test = mcnemar(correct_a, correct_b)
    n, tail = np.asarray(correct_a).size, (1 - _upper(level)) / correction
    p_a, p_b = (test.n_only_a + 1) / (n + 2), (test.n_only_b + 1) / (n + 2)
    d = p_a - p_b
    half = float(ndtri(1 - tail)) * sqrt((p_a + p_b - d**2) / (n + 2))
    low, high, p = max(d - half, -1.0), min(d + half, 1.0), min(1.0, correction * test.p)
    if p > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    elif low <= 0 <= high:
        n_either = test.n_only_a + test.n_only_b
        share = share_interval(max(test.n_only_a, test.n_only_b), n_either, 1 - 2 * tail)[0]
        least = max((2 * share - 1) * n_either / n, float(np.finfo(float).tiny))
        low, high = (least, high) if test.n_only_a > test.n_only_b else (low, -least)
    return Difference((test.n_only_a - test.n_only_b) / n, low, high, p, n)


def share_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a probability after `count` successes in n (Clopper and Pearson 1934); coverage >= level.

    At the low end, `count` or more successes have probability (1 - level) / 2; at the high end, `count` or fewer have.

    Raises:
        ValueError: n is below 1, the count is not from 0 to n, or the level is not between 0 and 1.
    """
    if not (n >= 1 and 0 <= count <= n):
        raise ValueError(f"count must be from 0 to n, and n at least 1, got {count!r} of {n!r}")
    tail = 1 - _upper(level)
    low = float(betaincinv(count, n - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return low, high


def pair_correlation(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Correlation:
    """The correlation of two arms' scores on the same seeds, on which the gain from pairing depends.

    If both arms are equally noisy, the variance of a paired difference is 1 - r times that of two independent runs: at
    r = 0 pairing gains nothing, and costs half of the degrees of freedom. The interval is Fisher's, tanh(atanh r +- z /
    sqrt(n - 3)), for at least four pairs. r and interval are nan where an arm has no spread. This is only for the
    reader: pairing is chosen before the runs, never by this correlation.

    Raises:
        ValueError: the arrays differ in length, are empty, or hold a number that is not finite, or the level is not
        between 0 and 1.
    """
    paired_scores(a, b)
    x, y = (finite_scores(name, v) for name, v in (("a", a), ("b", b)))
    if x.size < 2 or not standard_error_of(x) > 0 or not standard_error_of(y) > 0:
        return Correlation(nan, nan, nan, x.size)
    r = min(1.0, max(-1.0, float(np.corrcoef(x, y)[0, 1])))
    if x.size < 4 or abs(r) == 1:
        return Correlation(r, nan, nan, x.size)
    half = float(ndtri(_upper(level))) / sqrt(x.size - 3)
    return Correlation(r, tanh(atanh(r) - half), tanh(atanh(r) + half), x.size)


def noisier(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """The ratio of the standard deviations of `a` and `b`, and the one-sided p of 'a is not noisier' (F test).

    Both are nan where one has fewer than two values, or `b` has no spread.

    Raises:
        ValueError: `a` or `b` is empty or holds a number that is not finite.
    """
    x, y = finite_scores("a", a), finite_scores("b", b)
    if min(len(x), len(y)) < 2 or not y.std() > 0:
        return nan, nan
    ratio = float(x.var(ddof=1) / y.var(ddof=1))
    return sqrt(ratio), float(fdtrc(len(x) - 1, len(y) - 1, ratio))


def exceeds_range(ci_low: float, ci_high: float, lowest: float, highest: float) -> bool:
    """Whether an interval exceeds the possible differences of two scores from lowest to highest.

    Such an interval says nothing about the arm: two seeds, with one degree of freedom, give differences of accuracies
    between -257 and +254 points. False where the metric has no bounds, or the interval is nan.
    """
    width = highest - lowest
    return isfinite(width) and (ci_low < -width or ci_high > width)


def divergence_test(lost_a: ArrayLike, lost_b: ArrayLike, pairing: Pairing = "seeds") -> DivergenceTest:
    """The exact two-sided test of 'a and b lose seeds equally often'; a run that diverged or failed is lost.

    With pairing it is the sign test: if both lose equally often, each of the n_only_a + n_only_b seeds that only one
    lost is a's with probability 1/2. It takes at least six to reach 0.05. Seeds that both lost carry no information.
    Without pairing it is Fisher's exact test of the two counts.

    Raises:
        ValueError: the arrays are not boolean, are empty, or, paired, differ in length.
    """
    if pairing == "none":
        from scipy.stats import fisher_exact  # likewise

        a, b = (_outcomes(lost, "runs") for lost in (lost_a, lost_b))
        n_a, n_b = int(a.sum()), int(b.sum())
        p = float(fisher_exact([[n_a, a.size - n_a], [n_b, b.size - n_b]]).pvalue)
        return DivergenceTest(n_a, n_b, min(p, 1.0), _sign(n_a * b.size - n_b * a.size))
    a, b = _paired_outcomes(lost_a, lost_b, "seeds")
    n_only_a, n_only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = n_only_a + n_only_b
    p = min(1.0, 2 * float(bdtr(min(n_only_a, n_only_b), n, 0.5)))
    return DivergenceTest(n_only_a, n_only_b, p, _sign(n_only_a - n_only_b))


def finite_scores(name: str, values: ArrayLike) -> Floats:
    """The values as an array; raises ValueError unless they are a list of finite numbers."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise ValueError(f"{name} must be a list of at least one number, got shape {x.shape}")
    if not np.isfinite(x).all():
        at = int(np.flatnonzero(~np.isfinite(x))[0])
        raise ValueError(
            f"{name} must hold finite numbers, got {x[at]} at position {at}: leave such runs out, and count them"
        )
    return x


def paired_scores(a: ArrayLike, b: ArrayLike) -> Floats:
    """The differences a - b, position by position; exactly equal where they are equal up to rounding.

    Raises:
        ValueError: the arrays differ in length, are empty, or hold a number that is not finite.
    """
    x, y = finite_scores("a", a), finite_scores("b", b)
    if x.size != y.size:
        raise ValueError(f"a and b must pair position by position, got {x.size} and {y.size} scores")
    d = x - y
    # Equal differences of decimal scores differ in their last bits.
    rounding = 8 * np.finfo(float).eps * max(np.abs(x).max(), np.abs(y).max())
    return np.full_like(d, d[0]) if np.ptp(d) <= rounding else d


def _paired_outcomes(
    outcome_a: ArrayLike, outcome_b: ArrayLike, of: str = "images"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(outcome_a), np.asarray(outcome_b)
    if a.dtype != np.bool_ or b.dtype != np.bool_:  # classes passed as outcomes would still give a p
        raise ValueError(f"outcomes must be boolean, got {a.dtype} and {b.dtype}: pass predicted == label")
    if a.ndim != 1 or a.size == 0 or a.shape != b.shape:
        raise ValueError(f"outcomes must be about the same {of}, got shapes {a.shape} and {b.shape}")
    return a, b


def _outcomes(outcome: ArrayLike, of: str) -> NDArray[np.bool_]:
    a = np.asarray(outcome)
    if a.dtype != np.bool_ or a.ndim != 1 or a.size == 0:
        raise ValueError(f"outcomes must be a list of booleans, one for each of the {of}, got {a.dtype} {a.shape}")
    return a


def _sign(n: int) -> int:
    return (n > 0) - (n < 0)


def standard_error_of(x: Floats) -> float:
    """sd / sqrt(n); exactly 0 for equal values, whose computed mean may be off by a rounding; nan for n = 1."""
    if x.size == 1:
        return nan
    return float(x.std(ddof=1)) / sqrt(x.size) if np.ptp(x) > 0 else 0.0


def _upper(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level!r}")
    return (1 + level) / 2


def _t_quantile(level: float, df: ArrayLike) -> Floats:
    """The half-width of an interval of this level, in standard errors; nan where df is below 1."""
    df = np.asarray(df, dtype=np.float64)
    quantile: Floats = stdtrit(np.where(df > 0, df, nan), _upper(level))
    return quantile


def _t_tail(excess: float, error: float, df: int) -> float:
    """P(T <= excess / error) for Student's T; nan at df 0 and where the error is unknown."""
    return nan if df == 0 else float(stdtr(df, excess / error))
