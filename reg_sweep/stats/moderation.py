"""How noisy each arm's paired differences are, with the noise of the table's other arms as a guide.

Three seeds say little of an arm's own variance; the arms of a table share most of theirs. Each variance is shrunk
towards the table's mean variance (empirical Bayes: Smyth 2004, Statistical Applications in Genetics and Molecular
Biology 3(1), article 3, as limma does for genes), and gets the degrees of freedom that this estimate has.

Smyth's genes are independent of one another and come in thousands. Arms are few, their noise differs, and their
differences share the baseline's runs. Three things differ from limma for that, each because the false claims of a
table otherwise exceed 5% in simulation (docs/statistics.md):

- The prior's degrees of freedom d0 are at most `MAX_PRIOR_DF`: a few arms can't prove that they are equally noisy.
- The prior's scale is the mean variance, not limma's geometric mean: a noisy arm then pulls it up.
- The degrees of freedom are Satterthwaite's for the weighted sum of dependent variances, not d0 + n - 1, which counts
  the baseline's runs once for every arm.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import polygamma, psi

Floats = NDArray[np.float64]
Variance = Literal["moderated", "plain"]

# The largest d0 at which no simulated table with one arm, or the baseline, threefold as noisy claims too much.
MAX_PRIOR_DF = 8.0
# Two differences to one baseline correlate 1/2 where all arms are equally noisy; their variances correlate its square.
SQUARED_CORRELATION = 0.25
# Below three variances the spread of their logarithms says nothing of d0.
_FEWEST_FOR_PRIOR = 3
# Equal differences of decimal scores differ in the scores' last bits: the scores, up to 100 or so, aren't known here.
_ROUNDING, _SMALLEST_SCORE = 1e-9, 1e-3


@dataclass(frozen=True)
class Noise:
    """Of each arm's paired differences: arrays of shape (..., n_arms), nan where nothing is known.

    mean: the mean difference. n: the pairs. own_variance: the sample variance s^2. variance: what stands in its place
    in standard errors, s^2 itself if plain. df: the degrees of freedom of `variance`. prior_df: d0, of shape (...,).
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


def noise(differences: ArrayLike, method: Variance = "moderated") -> Noise:
    """The mean and the variance of each arm's paired differences to the baseline.

    Moderated, of arms j with n_j pairs, nu_j = n_j - 1 and sample variances s_j^2:

        s0^2 = sum nu_j s_j^2 / sum nu_j                       the table's mean variance
        v_i  = (d0 s0^2 + nu_i s_i^2) / (d0 + nu_i)            = sum_j a_ij s_j^2
        df_i = v_i^2 / (r (sum_j a_ij s_j^2 / sqrt(nu_j))^2 + (1 - r) sum_j a_ij^2 s_j^4 / nu_j)

    with r = `SQUARED_CORRELATION`, df_i at most d0 + nu_i, and d0 as `prior_df` finds it. With one arm, or d0 = 0,
    v_i = s_i^2 and df_i = nu_i: Student's paired t.

    An arm whose differences are all equal up to rounding has no variance, moderated or not, and does not enter s0^2:
    scores counted in few images tie by chance, and networks that learned nothing always do.

    Args:
        differences: (..., n_arms, n_seeds), arm minus baseline on the same seed; nan where either is missing.

    Raises:
        ValueError: `differences` has no axis for arms and seeds, holds an infinite number, or `method` is unknown.
    """
    d = _differences(differences)
    if method not in ("moderated", "plain"):
        raise ValueError(f"variance must be moderated or plain, got {method!r}")
    present = ~np.isnan(d)
    n = present.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where an arm has no pairs: nan is the answer
        mean = np.where(present, d, 0.0).sum(axis=-1) / n
        squares = (np.where(present, d - mean[..., None], 0.0) ** 2).sum(axis=-1)
        size = np.where(present, np.abs(d), 0.0).max(axis=-1)
        highest, lowest = np.where(present, d, -np.inf).max(axis=-1), np.where(present, d, np.inf).min(axis=-1)
        is_spread = highest - lowest > _ROUNDING * np.maximum(size, _SMALLEST_SCORE)
        own = np.where((n > 1) & is_spread, squares / (n - 1), np.nan)
    nu = np.where(np.isnan(own), np.nan, n - 1.0)
    if method == "plain":
        return Noise(mean, n, own, own, nu, np.zeros(n.shape[:-1]))
    d0 = prior_df(own, nu)
    variance, df = _shrink(own, nu, d0[..., None])
    return Noise(mean, n, own, variance, df, d0)


def prior_df(variances: ArrayLike, df: ArrayLike) -> Floats:
    """d0, the degrees of freedom that the other arms are worth in an arm's variance: 0 to `MAX_PRIOR_DF`.

    The logarithms of equally noisy arms' variances spread by trigamma(nu/2), and what they spread beyond it is
    trigamma(d0/2) (Smyth 2004, section 6.2). Where they spread no further, or are fewer than three, d0 is
    `MAX_PRIOR_DF`; of a single arm it is 0.

    Args:
        variances: (..., n_arms), nan where there is none. df: their degrees of freedom, of the same shape.
    """
    s2, nu = np.asarray(variances, dtype=np.float64), np.asarray(df, dtype=np.float64)
    known = ~np.isnan(s2)
    m = known.sum(axis=-1)
    log_s2 = np.log(np.where(known, s2, 1.0))
    # Arms of different length: each log variance is freed of its own expectation first.
    half = np.where(known, nu, 2.0) / 2
    sizes, which = np.unique(half, return_inverse=True)  # few: the polygammas are slow
    expected, scatter = (f[which].reshape(half.shape) for f in (psi(sizes) - np.log(sizes), polygamma(1, sizes)))
    e = np.where(known, log_s2 - expected, 0.0)
    centre = e.sum(axis=-1) / np.maximum(m, 1)
    spread = (np.where(known, e - centre[..., None], 0.0) ** 2).sum(axis=-1) / np.maximum(m - 1, 1)
    by_chance = np.where(known, scatter, 0.0).sum(axis=-1) / np.maximum(m, 1)
    excess = spread - by_chance
    least = float(polygamma(1, MAX_PRIOR_DF / 2))  # the excess whose d0 is the cap
    estimate = 2 * inverse_trigamma(np.maximum(excess, least))
    d0 = np.where(m < _FEWEST_FOR_PRIOR, MAX_PRIOR_DF, np.minimum(estimate, MAX_PRIOR_DF))
    return np.where(m < 2, 0.0, d0)


def inverse_trigamma(y: ArrayLike) -> Floats:
    """x with trigamma(x) = y, for y > 0: Newton on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    target = np.asarray(y, dtype=np.float64)
    x = 0.5 + 1 / target
    for _ in range(20):  # from this start it rises monotonically, and is exact to 1e-10 within 10
        trigamma = polygamma(1, x)
        x = x + trigamma * (1 - trigamma / target) / polygamma(2, x)
    return x


def _shrink(own: Floats, nu: Floats, d0: Floats) -> tuple[Floats, Floats]:
    """The moderated variances and their Satterthwaite degrees of freedom, each of shape (..., n_arms)."""
    known = ~np.isnan(own)
    s2, nu_ = np.where(known, own, 0.0), np.where(known, nu, 1.0)
    # Of every arm j, as if its weight were its share of the pool: the sums that the three formulas of `noise` need.
    share = np.where(known, nu_, 0.0) / np.maximum(np.where(known, nu_, 0.0).sum(axis=-1, keepdims=True), 1.0)
    pooled = (share * s2).sum(axis=-1, keepdims=True)
    rooted = (share * s2 / np.sqrt(nu_)).sum(axis=-1, keepdims=True)
    squared = (share**2 * s2**2 / nu_).sum(axis=-1, keepdims=True)
    w = d0 / (d0 + nu_)  # the pool's weight in v_i
    variance = w * pooled + (1 - w) * s2
    own_weight = w * share + (1 - w)
    dependent = w * rooted + (1 - w) * s2 / np.sqrt(nu_)
    independent = w**2 * squared + (own_weight**2 - (w * share) ** 2) * s2**2 / nu_
    spread = SQUARED_CORRELATION * dependent**2 + (1 - SQUARED_CORRELATION) * independent
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.minimum(variance**2 / spread, d0 + nu_)
    return np.where(known, variance, np.nan), np.where(known, df, np.nan)


def _differences(values: ArrayLike) -> Floats:
    d = np.asarray(values, dtype=np.float64)
    if d.ndim < 2 or d.shape[-1] == 0:
        raise ValueError(f"differences must have a row for each arm and a column for each seed, got shape {d.shape}")
    if np.isinf(d).any():
        raise ValueError("differences must hold finite numbers, or nan where a seed is missing, got inf")
    return d
