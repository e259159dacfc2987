"""What a comparison could have seen, how many seeds would settle it, and what a new seed will probably bring."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import chdtrc, nctdtr, ndtr, stdtrit

from reg_sweep.stats.family import Family

# The most seeds that `seeds_for_*` speak of: beyond, the answer is None, 'more than anybody trains'.
MOST_SEEDS = 1000
_LARGEST_SHIFT = 30.0


@dataclass(frozen=True)
class Chance:
    """P(arm beats baseline on a new seed), its interval, and the plain count: `n_wins` of `n`, `n_ties` equal."""

    probability: float
    ci_low: float
    ci_high: float
    n_wins: int
    n_ties: int
    n: int


@dataclass(frozen=True)
class Plan:
    """The test that is planned for: paired t of an arm whose differences have standard deviation `sd`.

    alpha: the table's error. correction: the arms it is split over (m), or `Design.correction` at a look. prior_df:
    the degrees of freedom that the table's other arms add to n - 1: of a moderated arm df - (n - 1), else 0.
    """

    sd: float
    alpha: float = 0.05
    correction: float = 1.0
    prior_df: float = 0.0

    def __post_init__(self) -> None:
        if not (isfinite(self.sd) and self.sd > 0):
            raise ValueError(f"sd must be a finite number above 0, got {self.sd!r}: it takes two seeds that differ")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be above 0 and below 0.5, got {self.alpha!r}: 0.05 is usual")
        if not self.correction >= 1:
            raise ValueError(f"correction must be at least 1, got {self.correction!r}: the number of arms tested")
        if not self.prior_df >= 0:
            raise ValueError(f"prior_df must be at least 0, got {self.prior_df!r}")

    def power(self, difference: float, n: int) -> float:
        """P(the corrected two-sided test shows a difference), with n seeds: noncentral t, delta sqrt(n) / sd."""
        df = self._df(n)
        limit = float(stdtrit(df, 1 - self.alpha / (2 * self.correction)))
        shift = abs(difference) * sqrt(n) / self.sd
        return 1 - _noncentral_t(df, shift, limit) + _noncentral_t(df, shift, -limit)

    def equivalence_power(self, margin: float, n: int, difference: float = 0.0) -> float:
        """P(the corrected test shows the difference to lie within the margin), with n seeds; at worst too low.

        Both one-sided tests pass: at least P(T(margin + delta) > t) + P(T(margin - delta) > t) - 1.
        """
        df = self._df(n)
        limit = float(stdtrit(df, 1 - self.alpha / self.correction))
        shifts = ((margin + s * difference) * sqrt(n) / self.sd for s in (1, -1))
        return max(0.0, 1 - sum(_noncentral_t(df, shift, limit) for shift in shifts))

    def smallest_difference(self, n: int, power: float = 0.8) -> float:
        """The smallest difference that n seeds show with this power; nan for fewer than two seeds."""
        _check_power(power)
        if n < 2:
            return nan
        high = self.sd
        while self.power(high, n) < power:
            high *= 2
        return float(brentq(lambda d: self.power(d, n) - power, 0.0, high, rtol=1e-6))

    def seeds_for_difference(self, difference: float, power: float = 0.8) -> int | None:
        """The fewest seeds that show this difference with this power; None: more than `MOST_SEEDS`."""
        _check_power(power)
        return _fewest(lambda n: self.power(difference, n) >= power)

    def seeds_for_equivalence(self, margin: float, difference: float = 0.0, power: float = 0.8) -> int | None:
        """The fewest seeds that show this difference to lie within the margin with this power; None as above.

        None too where the difference does not lie within the margin.
        """
        _check_power(power)
        if not (isfinite(margin) and margin > 0):
            raise ValueError(f"margin must be a finite number above 0, got {margin!r}")
        if abs(difference) >= margin:
            return None
        return _fewest(lambda n: self.equivalence_power(margin, n, difference) >= power)

    def _df(self, n: int) -> float:
        if n < 2:
            raise ValueError(f"n must be at least 2 seeds, got {n!r}")
        return n - 1 + self.prior_df


def plan_of(family: Family, i: int) -> Plan | None:
    """The test of the arm at this position; None where it has no spread to plan with."""
    variance, df, n = (float(a[i]) for a in (family.noise.variance, family.noise.df, family.noise.n))
    if not variance > 0:
        return None
    return Plan(sqrt(variance), family.alpha, float(np.max(family.correction)), max(df - (n - 1), 0.0))


def chance_to_beat(differences: ArrayLike, higher_is_better: bool = True, level: float = 0.95) -> Chance:
    """P(arm beats baseline on a new seed) = Phi(delta / sigma), for normal differences.

    The estimate is Phi(mean / sd). t = sqrt(n) mean / sd is noncentral t with n - 1 degrees of freedom around
    sqrt(n) delta / sigma; the interval holds the shifts at which t is in neither tail (Reiser and Guttman 1986,
    Technometrics 28, 253-257). Differences that are equal, or one alone, have a count and no probability.

    Args:
        differences: (n_seeds,), arm minus baseline on the same seed.

    Raises:
        ValueError: `differences` is empty or holds a number that is not finite.
    """
    d = np.asarray(differences, dtype=np.float64) * (1 if higher_is_better else -1)
    if d.ndim != 1 or d.size == 0 or not np.isfinite(d).all():
        raise ValueError("differences must be a list of at least one finite number: leave missing seeds out")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level!r}")
    wins, ties, n = int((d > 0).sum()), int((d == 0).sum()), d.size
    if n < 2 or np.ptp(d) <= 16 * np.finfo(float).eps * max(1.0, float(np.abs(d).max())):
        return Chance(nan, nan, nan, wins, ties, n)
    ratio = float(d.mean() / d.std(ddof=1))
    tail = (1 - level) / 2
    shifts = [_shift_at(ratio * sqrt(n), n - 1, q) / sqrt(n) for q in (1 - tail, tail)]
    return Chance(float(ndtr(ratio)), float(ndtr(shifts[0])), float(ndtr(shifts[1])), wins, ties, n)


def _shift_at(t: float, df: int, share: float) -> float:
    """The noncentrality at which this share of noncentral t lies below t: it falls as the shift rises."""
    low, high = t - 1, t + 1
    while _noncentral_t(df, low, t) < share:
        low -= 2 * (t - low)
    while _noncentral_t(df, high, t) > share:
        high += 2 * (high - t)
    return float(brentq(lambda shift: _noncentral_t(df, shift, t) - share, low, high, xtol=1e-9))


def _noncentral_t(df: float, shift: float, t: float) -> float:
    """P((Z + shift) / sqrt(chi2 / df) <= t). Where scipy's series gives up, far out, Z is nothing beside the shift."""
    if shift < 0:
        return 1 - _noncentral_t(df, -shift, -t)
    if shift < _LARGEST_SHIFT:
        p = float(nctdtr(df, shift, t))  # nan for t below 0 far in the tail, where p is below 1e-5
        return min(max(p, 0.0), 1.0) if isfinite(p) else 0.0
    return float(chdtrc(df, df * (shift / t) ** 2)) if t > 0 else 0.0


def _fewest(is_enough: Callable[[int], bool]) -> int | None:
    if not is_enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise ValueError(f"power must be above 0 and below 1, got {power!r}: 0.8 is usual")
