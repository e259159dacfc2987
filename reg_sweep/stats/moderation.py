"""The noise of each arm's paired differences, estimated with the help of the table's other arms.

Three seeds say little about an arm's own variance; the arms of a table share most of theirs. Each variance is shrunk
towards the table's mean variance (empirical Bayes: Smyth 2004, Statistical Applications in Genetics and Molecular
Biology 3(1), article 3, as limma does for genes), and gets the degrees of freedom that this estimate has.

Smyth's genes are independent of one another and come in thousands. Arms are few, their noise differs, and their
differences share the baseline's runs. So three things differ from limma. Without any one of them, false claims exceed
5% of the tables in simulation (docs/statistics.md):

- The prior's degrees of freedom d0 are at most `MAX_PRIOR_DF`: a few arms can't prove that they are equally noisy.
- The prior's scale is the mean variance, not limma's geometric mean: a noisy arm then pulls it up.
- The degrees of freedom are Satterthwaite's for the weighted sum of dependent variances, not d0 + n - 1, which counts
  the baseline's runs once for every arm. How dependent they are is estimated (`squared_correlation`): arms that copy
  one another are one arm, however many there are.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import polygamma, psi

Floats = NDArray[np.float64]
Variance = Literal["moderated", "plain"]
Pairing = Literal["seeds", "none"]

# The largest d0 that keeps the error in every simulated table where one arm, or the baseline, is three times as noisy.
MAX_PRIOR_DF = 8.0
# Two differences from one baseline correlate 1/2 where all arms are equally noisy; their variances, its square.
LEAST_SQUARED_CORRELATION = 0.25
# The degrees of freedom that an earlier study's variance counts as: the most that keep the error in every simulated
# table where the earlier standard deviation is half the true one.
EARLIER_DF = 2.0
# Welch's estimated degrees of freedom are too many on average.
_SHARE_OF_WELCH = 0.9
# With fewer than three variances the spread of their logarithms says nothing about d0; two seeds always correlate 1 or
# -1.
_FEWEST_FOR_PRIOR = _FEWEST_FOR_CORRELATION = 3
# Equal differences of decimal scores differ in the scores' last bits: the scores, up to 100 or so, aren't known here.
_ROUNDING, _SMALLEST_SCORE = 1e-9, 1e-3


@dataclass(frozen=True)
class Noise:
    """The noise of each arm's paired differences: arrays of shape (..., n_arms), nan where unknown.

    mean: the mean difference. n: the pairs. own_variance: the sample variance s^2. variance: the value used
    in standard errors, s^2 itself if plain. df: the degrees of freedom of `variance`. prior_df: d0, of shape (...,).

    Without pairing (`unpaired_noise`) n counts the arm's own seeds, and a variance is what pairs of independent runs
    would have: the arm's plus n / n_0 of the baseline's, so that variance / n is the squared standard error as usual.
    """

    mean: Floats
    n: NDArray[np.int64]
    own_variance: Floats
    variance: Floats
    df: Floats
    prior_df: Floats

    @property
    def standard_error(self) -> Floats:
        """sqrt(variance / n); nan where an arm has fewer than two pairs, or no spread."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(self.variance / self.n)


def noise(differences: ArrayLike, method: Variance = "moderated", earlier_variance: float | None = None) -> Noise:
    """The mean and the variance of each arm's paired differences from the baseline.

    Moderated, of arms j with n_j pairs, nu_j = n_j - 1 and sample variances s_j^2:

        s0^2 = sum nu_j s_j^2 / sum nu_j                       the table's mean variance
        v_i  = (d0 s0^2 + nu_i s_i^2) / (d0 + nu_i)            = sum_j a_ij s_j^2
        df_i = v_i^2 / (r (sum_j a_ij s_j^2 / sqrt(nu_j))^2 + (1 - r) sum_j a_ij^2 s_j^4 / nu_j)

    with r as `squared_correlation` estimates it, at least `LEAST_SQUARED_CORRELATION`; df_i at most d0 + nu_i; and d0
    as `prior_df` finds it. With one arm, or two seeds, d0 = 0, v_i = s_i^2 and df_i = nu_i: Student's paired t.

    With an `earlier_variance` s_e^2, which must be fixed before the first run, each arm's estimate is then

        v_i' = (df_i v_i + 2 s_e^2) / (df_i + 2),    df_i' = df_i + 2

    An arm whose differences are all equal up to rounding has no variance, moderated or not, and does not enter s0^2:
    scores counted in few images tie by chance, and networks that learned nothing always do.

    Args:
        differences: (..., n_arms, n_seeds), arm minus baseline on the same seed; nan where either is missing.
        earlier_variance: the variance of a paired difference in an earlier study (`mean_variance`), or None.

    Raises:
        ValueError: `differences` has no axis for arms and seeds, holds an infinite number, or `method` is unknown.
    """
    check_variance(method)
    x = _Sample.of(_table("differences", differences))
    variance, df, d0 = x.own, x.nu, np.zeros(x.n.shape[:-1])
    if method == "moderated":
        d0 = prior_df(x.own, x.nu)
        r = np.maximum(squared_correlation(x.deviations, x.n), LEAST_SQUARED_CORRELATION)
        variance, df = _shrink(x.own, x.nu, d0[..., None], r[..., None])
    if earlier_variance is not None:
        variance = (df * variance + EARLIER_DF * earlier_variance) / (df + EARLIER_DF)
        df = df + EARLIER_DF
    return Noise(x.mean, x.n, x.own, variance, df, d0)


def mean_variance(differences: ArrayLike) -> float:
    """The mean variance of paired differences, sum nu_j s_j^2 / sum nu_j over the arms; nan where none has a spread.

    Args:
        differences: (n_arms, n_seeds), as `noise` takes them.

    Raises:
        ValueError: `differences` has no axis for arms and seeds, or holds an infinite number.
    """
    x = _Sample.of(_table("differences", differences))
    known = ~np.isnan(x.own)
    return float(np.average(x.own[known], weights=x.nu[known])) if known.any() else float("nan")


def unpaired_noise(scores: ArrayLike, method: Variance = "moderated") -> Noise:
    """The mean and the variance of each arm's difference from the baseline, as if no two runs shared a seed.

    Welch's test, with the arms' variances v_i and degrees of freedom df_i of `noise` in place of s_i^2 and n_i - 1:

        se_i^2 = v_i / n_i + s_0^2 / n_0
        df     = 0.9 se_i^4 / ((v_i / n_i)^2 / df_i + (s_0^2 / n_0)^2 / (n_0 - 1)),    at least the smaller of the two

    Here the v_i are moderated by the variances of the arms' own scores, which for arms that are independent correlate 0
    and not 1/2. The baseline keeps its own: it is in every difference, and where it is noisier than its arms, drawing
    it towards them would make all of them look better or worse at once. With one arm this is Welch's test itself. Runs
    that do share the luck of their seeds get too large a standard error, never too small a one.

    Args:
        scores: (..., 1 + n_arms, n_seeds), the baseline's first; nan where a run is missing.

    Raises:
        ValueError: as `noise`, or there is no arm except the baseline.
    """
    check_variance(method)
    values = _table("scores", scores)
    if values.shape[-2] < 2:
        raise ValueError(f"scores must have a row for the baseline and one for each arm, got shape {values.shape}")
    arms, base = _Sample.of(values[..., 1:, :]), _Sample.of(values[..., :1, :])
    variance, df, d0 = arms.own, arms.nu, np.zeros(arms.n.shape[:-1])
    if method == "moderated":
        d0 = prior_df(arms.own, arms.nu)
        r = squared_correlation(arms.deviations, arms.n)
        variance, df = _shrink(arms.own, arms.nu, d0[..., None], r[..., None])
    with np.errstate(divide="ignore", invalid="ignore"):
        ours, theirs = variance / arms.n, base.own / base.n
        squared_error = ours + theirs
        welch = squared_error**2 / (ours**2 / df + theirs**2 / base.nu)
        df = np.maximum(_SHARE_OF_WELCH * welch, np.minimum(df, base.nu))
        own = arms.own + theirs * arms.n
    return Noise(arms.mean - base.mean, arms.n, own, squared_error * arms.n, df, d0)


def squared_correlation(deviations: ArrayLike, n: ArrayLike) -> Floats:
    """The squared correlation r of the arms' values on a seed, for each table: the correlation of their variances.

    With z_js the deviation of arm j on seed s from the arm's mean, divided by sqrt(sum_s z_js^2), and m arms:

        r = rho^2,   rho = (sum_s (sum_j z_js)^2 - m) / (m (m - 1))           the mean correlation of two arms

    The mean of the signed correlations has little bias; the mean of their squares would be 1 / nu too large. One pair
    of arms says too little about its correlation, so r is then |rho|. Two seeds say nothing, so r is 1, as if all arms
    were copies. Seeds that one of two arms lacks count as 0, as they should: such arms' variances share less.

    Args:
        deviations: (..., n_arms, n_seeds), 0 where a seed is missing; an arm without spread is left out.
        n: the seeds that each arm has, (..., n_arms).
    """
    z = np.asarray(deviations, dtype=np.float64)
    length = np.sqrt((z**2).sum(axis=-1, keepdims=True))
    known = length[..., 0] > 0
    m = known.sum(axis=-1)
    unit = z / np.where(length > 0, length, 1.0)
    shared = (unit.sum(axis=-2) ** 2).sum(axis=-1) - m
    rho = np.abs(shared / np.maximum(m * (m - 1), 1))
    n_seeds = np.where(known, n, 0).max(axis=-1)
    r = np.where(m == 2, rho, rho**2)
    return np.where(m < 2, 0.0, np.where(n_seeds < _FEWEST_FOR_CORRELATION, 1.0, np.minimum(r, 1.0)))


def prior_df(variances: ArrayLike, df: ArrayLike) -> Floats:
    """d0, the degrees of freedom that the other arms are worth in an arm's variance: 0 to `MAX_PRIOR_DF`.

    The logarithms of equally noisy arms' variances spread by trigamma(nu/2), and what they spread beyond it is
    trigamma(d0/2) (Smyth 2004, section 6.2). Where they spread no further, or are fewer than three, d0 is
    `MAX_PRIOR_DF`. It is 0 for a single arm, and where no arm has more than two seeds: how dependent the arms are can't
    be estimated then, and a pool that counts as a single arm costs power.

    Args:
        variances: (..., n_arms), nan where there is none. df: their degrees of freedom, of the same shape.
    """
    s2, nu = np.asarray(variances, dtype=np.float64), np.asarray(df, dtype=np.float64)
    known = ~np.isnan(s2)
    m = known.sum(axis=-1)
    log_s2 = np.log(np.where(known, s2, 1.0))
    # Arms may have different numbers of seeds, so each log variance's own expectation is subtracted first.
    half = np.where(known, nu, 2.0) / 2
    sizes, which = np.unique(half, return_inverse=True)  # few distinct sizes: polygamma is slow
    expected, scatter = (f[which].reshape(half.shape) for f in (psi(sizes) - np.log(sizes), polygamma(1, sizes)))
    e = np.where(known, log_s2 - expected, 0.0)
    centre = e.sum(axis=-1) / np.maximum(m, 1)
    spread = (np.where(known, e - centre[..., None], 0.0) ** 2).sum(axis=-1) / np.maximum(m - 1, 1)
    by_chance = np.where(known, scatter, 0.0).sum(axis=-1) / np.maximum(m, 1)
    excess = spread - by_chance
    is_capped = (m < _FEWEST_FOR_PRIOR) | (excess <= float(polygamma(1, MAX_PRIOR_DF / 2)))
    d0 = np.full(np.shape(excess), MAX_PRIOR_DF)
    d0[~is_capped] = 2 * inverse_trigamma(excess[~is_capped])
    most = np.where(known, nu, 0.0).max(axis=-1)
    return np.where((m < 2) | (most < _FEWEST_FOR_CORRELATION - 1), 0.0, d0)


def inverse_trigamma(y: ArrayLike) -> Floats:
    """x with trigamma(x) = y, for y > 0: Newton on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    target = np.asarray(y, dtype=np.float64)
    x = 0.5 + 1 / target
    for _ in range(20):  # from this start it rises monotonically, and is exact to 1e-10 within 10
        trigamma = polygamma(1, x)
        x = x + trigamma * (1 - trigamma / target) / polygamma(2, x)
    return x


@dataclass(frozen=True)
class _Sample:
    """Rows of numbers with gaps, summed up: deviations (..., n_rows, n_seeds) are 0 in a gap, the rest per row."""

    mean: Floats
    n: NDArray[np.int64]
    own: Floats
    nu: Floats
    deviations: Floats

    @staticmethod
    def of(d: Floats) -> "_Sample":
        present = ~np.isnan(d)
        n = present.sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where a row is empty: nan is the answer
            mean = np.where(present, d, 0.0).sum(axis=-1) / n
            deviations = np.where(present, d - mean[..., None], 0.0)
            highest, lowest = np.where(present, d, -np.inf).max(axis=-1), np.where(present, d, np.inf).min(axis=-1)
            is_spread = highest - lowest > rounding(np.where(present, d, 0.0))
            own = np.where((n > 1) & is_spread, (deviations**2).sum(axis=-1) / (n - 1), np.nan)
        nu = np.where(np.isnan(own), np.nan, n - 1.0)
        return _Sample(mean, n, own, nu, np.where(np.isnan(own)[..., None], 0.0, deviations))


def _shrink(own: Floats, nu: Floats, d0: Floats, r: Floats) -> tuple[Floats, Floats]:
    """The moderated variances and their Satterthwaite degrees of freedom, each of shape (..., n_arms)."""
    known = ~np.isnan(own)
    s2, nu_ = np.where(known, own, 0.0), np.where(known, nu, 1.0)
    # The sums over arms j in the three formulas of `noise`, with each arm's share of the pool as its weight.
    share = np.where(known, nu_, 0.0) / np.maximum(np.where(known, nu_, 0.0).sum(axis=-1, keepdims=True), 1.0)
    pooled = (share * s2).sum(axis=-1, keepdims=True)
    rooted = (share * s2 / np.sqrt(nu_)).sum(axis=-1, keepdims=True)
    squared = (share**2 * s2**2 / nu_).sum(axis=-1, keepdims=True)
    w = d0 / (d0 + nu_)  # the pool's weight in v_i
    variance = w * pooled + (1 - w) * s2
    own_weight = w * share + (1 - w)
    dependent = w * rooted + (1 - w) * s2 / np.sqrt(nu_)
    independent = w**2 * squared + (own_weight**2 - (w * share) ** 2) * s2**2 / nu_
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.minimum(variance**2 / (r * dependent**2 + (1 - r) * independent), d0 + nu_)
    return np.where(known, variance, np.nan), np.where(known, df, np.nan)


def rounding(differences: Floats) -> Floats:
    """The tolerance within which differences (..., n_seeds) count as equal, or as 0, of shape (...,)."""
    tolerance: Floats = _ROUNDING * np.maximum(np.abs(differences).max(axis=-1), _SMALLEST_SCORE)
    return tolerance


def check_variance(method: str) -> None:
    """Raises ValueError for an unknown method."""
    if method not in ("moderated", "plain"):
        raise ValueError(f"variance must be moderated or plain, got {method!r}")


def check_pairing(pairing: str) -> None:
    """Raises ValueError for an unknown pairing."""
    if pairing not in ("seeds", "none"):
        raise ValueError(f"pairing must be seeds or none, got {pairing}")


def _table(name: str, values: ArrayLike) -> Floats:
    d = np.asarray(values, dtype=np.float64)
    if d.ndim < 2 or d.shape[-1] == 0:
        raise ValueError(f"{name} must have a row for each arm and a column for each seed, got shape {d.shape}")
    if np.isinf(d).any():
        raise ValueError(f"{name} must hold finite numbers, or nan where a seed is missing, got inf")
    return d
