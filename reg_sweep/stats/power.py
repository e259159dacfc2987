"""Power: the smallest visible difference, the seeds that would settle a comparison, and the outlook for a new seed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, chdtri, nctdtr, stdtrit

from reg_sweep.stats.estimates import share_interval
from reg_sweep.stats.family import ONE_SIDED_SHARE, Family, Question
from reg_sweep.stats.moderation import Floats, rounding

# The most seeds that are ever advised.
MOST_SEEDS = 1000
_LARGEST_SHIFT = 30.0
# Gauss's rule for a mean over the quantiles of the spread.
_NODES, _HALVES = np.polynomial.legendre.leggauss(64)
_QUANTILES, _WEIGHTS = (1 + _NODES) / 2, _HALVES / 2


@dataclass(frozen=True)
class Share:
    """The share `count` of `n` seeds, and the exact interval of the probability for a new seed."""

    count: int
    n: int
    ci_low: float
    ci_high: float

    @property
    def share(self) -> float:
        """count / n."""
        return self.count / self.n


@dataclass(frozen=True)
class Chance:
    """The chances that the arm beats the baseline on a seed, ties with it, and loses to it.

    Ties are neither half a win nor half a loss: near 100% they are the most frequent outcome. `probability`, `ci_low`,
    `ci_high` and `n_wins` are those of the wins.
    """

    win: Share
    tie: Share
    loss: Share

    @property
    def probability(self) -> float:
        """The share of seeds on which the arm won."""
        return self.win.share

    @property
    def ci_low(self) -> float:
        """The low end of the probability that the arm beats the baseline on a new seed."""
        return self.win.ci_low

    @property
    def ci_high(self) -> float:
        """The high end of the probability that the arm beats the baseline on a new seed."""
        return self.win.ci_high

    @property
    def n_wins(self) -> int:
        """The seeds on which the arm won."""
        return self.win.count

    @property
    def n_ties(self) -> int:
        """The seeds on which arm and baseline were equal."""
        return self.tie.count

    @property
    def n(self) -> int:
        """The seeds that both have."""
        return self.win.n


@dataclass(frozen=True)
class Plan:
    """The planned test: paired t of an arm whose differences have standard deviation `sd`.

    alpha: the table's error. correction: the arms it is split over (m), or `Design.correction` at a look. prior_df:
    the degrees of freedom that the table's other arms add to n - 1: for a moderated arm df - (n - 1), else 0. sd_df:
    the degrees of freedom with which `sd` was estimated; infinite where it is known. one_sided_share: the share of the
    error that one-sided tests use, see `Family.one_sided_share`.

    The spread of few seeds may be off threefold, and power falls faster below the plan than it rises above. So all
    powers here are averaged over the plausible true spreads, sigma^2 = sd^2 sd_df / chi^2 with sd_df degrees of
    freedom: assurance (O'Hagan, Stevens and Campbell 2005, Pharmaceutical Statistics 4, 187-201). Over many studies
    planned this way, the share that show their planned difference equals the requested power, for any true spread,
    since the distribution of sd / sigma does not depend on it.

    Raises:
        ValueError: a field is out of its range.
    """

    sd: float
    alpha: float = 0.05
    correction: float = 1.0
    prior_df: float = 0.0
    sd_df: float = inf
    one_sided_share: float = ONE_SIDED_SHARE

    def __post_init__(self) -> None:
        if not (isfinite(self.sd) and self.sd > 0):
            raise ValueError(f"sd must be a finite number above 0, got {self.sd!r}: it takes two seeds that differ")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be above 0 and below 0.5, got {self.alpha!r}: 0.05 is usual")
        if not self.correction >= 1:
            raise ValueError(f"correction must be at least 1, got {self.correction!r}: the number of arms tested")
        if not self.prior_df >= 0:
            raise ValueError(f"prior_df must be at least 0, got {self.prior_df!r}")
        if not self.sd_df > 0:
            raise ValueError(f"sd_df must be above 0, got {self.sd_df!r}")

    def power(self, difference: float, n: int) -> float:
        """P(the corrected two-sided test shows a difference), with n seeds: noncentral t, delta sqrt(n) / sigma.

        Raises:
            ValueError: n is below 2.
        """
        df = self._df(n)
        limit = float(stdtrit(df, 1 - self.alpha / (2 * self.correction)))
        shifts, weights = self._shifts(abs(difference), n)
        found = 1 - _noncentral_t(df, shifts, limit) + _noncentral_t(df, shifts, -limit)
        return float(weights @ found)

    def equivalence_power(self, margin: float, n: int, difference: float = 0.0) -> float:
        """P(the corrected test shows the difference to lie within the margin), with n seeds; a lower bound.

        Both one-sided tests pass: at least P(T(margin + delta) > t) + P(T(margin - delta) > t) - 1.

        Raises:
            ValueError: n is below 2.
        """
        failed, weights = zip(*(self._misses(margin + s * difference, n) for s in (1, -1)), strict=True)
        return float(weights[0] @ np.maximum(0.0, 1 - failed[0] - failed[1]))

    def not_worse_power(self, margin: float, n: int, difference: float = 0.0) -> float:
        """P(the corrected one-sided test shows the arm to be worse by less than the margin), with n seeds.

        difference: how much better the arm is, below 0 where it is worse.

        Raises:
            ValueError: n is below 2.
        """
        missed, weights = self._misses(margin + difference, n)
        return float(weights @ (1 - missed))

    def power_to_settle(self, question: Question, margin: float | None, n: int, gain: float = 0.0) -> float:
        """P(n seeds settle the question), if the arm is better than the baseline by `gain`; 0 below two seeds."""
        if n < 2:
            return 0.0
        if question == "not_worse" and margin is not None:
            return self.not_worse_power(margin, n, gain)
        within = 0.0 if margin is None else self.equivalence_power(margin, n, abs(gain))
        return within if question == "equivalent" else max(self.power(gain, n), within)

    def smallest_difference(self, n: int, power: float = 0.8) -> float:
        """The smallest difference that n seeds show with this power; nan for fewer than two seeds.

        Raises:
            ValueError: the power is not between 0 and 1.
        """
        _check_power(power)
        return nan if n < 2 else self.sd * _smallest_ratio(replace(self, sd=1.0), n, power)

    def smallest_difference_range(self, n: int, power: float = 0.8, level: float = 0.9) -> tuple[float, float]:
        """`smallest_difference` if the true spread were at the low and at the high end of its interval of this level.

        The interval is sd sqrt(sd_df / chi^2): with three seeds and a level of 0.9 from 0.58 to 4.4 times sd.

        Raises:
            ValueError: the power is not between 0 and 1.
        """
        if not self.sd_df < inf:
            return self.smallest_difference(n, power), self.smallest_difference(n, power)
        tail = (1 - level) / 2
        ends = (self.sd * sqrt(self.sd_df / float(chdtri(self.sd_df, q))) for q in (tail, 1 - tail))
        low, high = (replace(self, sd=sd, sd_df=inf).smallest_difference(n, power) for sd in ends)
        return low, high

    def _misses(self, distance: float, n: int) -> tuple[Floats, Floats]:
        """P(a one-sided test, at this distance from its margin, does not pass), for each spread; and their weights."""
        df = self._df(n)
        shifts, weights = self._shifts(distance, n)
        level = self.alpha * self.one_sided_share / self.correction
        return _noncentral_t(df, shifts, float(stdtrit(df, 1 - level))), weights

    def _shifts(self, difference: float, n: int) -> tuple[Floats, Floats]:
        """delta sqrt(n) / sigma for each spread that sigma may have, and the weights of these spreads."""
        shift = difference * sqrt(n) / self.sd
        if not self.sd_df < inf:
            return np.array([shift]), np.ones(1)
        return shift * np.sqrt(chdtri(self.sd_df, _QUANTILES) / self.sd_df), _WEIGHTS

    def _df(self, n: int) -> float:
        if n < 2:
            raise ValueError(f"n must be at least 2 seeds, got {n!r}")
        return n - 1 + self.prior_df


@lru_cache(maxsize=10_000)
def _smallest_ratio(plan: Plan, n: int, power: float) -> float:
    """The smallest difference in units of the spread, which the arms of a table share if they have as many seeds."""
    high = plan.sd
    while plan.power(high, n) < power:
        high *= 2
    return _root(lambda d: plan.power(d, n) - power, 0.0, high)


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    """The root of an increasing f, to a relative 1e-6, by the Illinois variant of false position.

    scipy.optimize could do this, but takes a sixth of a second to import.
    """
    at_low, at_high, x, side = f(low), f(high), high, 0
    while high - low > 1e-6 * high:
        before, x = x, (low * at_high - high * at_low) / (at_high - at_low)
        at = f(x)
        if at == 0 or abs(x - before) <= 1e-7 * x:
            break
        if at > 0:
            high, at_high, at_low, side = x, at, at_low / (2 if side > 0 else 1), 1
        else:
            low, at_low, at_high, side = x, at, at_high / (2 if side < 0 else 1), -1
    return x


def plan_of(family: Family, i: int) -> Plan | None:
    """The test of the arm at this position; None where it has no spread to plan with."""
    variance, df, n = (float(a[i]) for a in (family.noise.variance, family.noise.df, family.noise.n))
    if not variance > 0:
        return None
    correction, one_sided_share = float(np.max(family.correction)), float(family.one_sided_share)
    return Plan(sqrt(variance), family.alpha, correction, max(df - (n - 1), 0.0), df, one_sided_share)


def chance_to_beat(differences: ArrayLike, higher_is_better: bool = True, level: float = 0.95) -> Chance:
    """The probabilities that the arm wins, ties and loses on a new seed: exact for any noise.

    Each is a binomial share of the n seeds with Clopper and Pearson's interval (`estimates.share_interval`), which
    covers with probability `level` at least, each by itself. A normal model of the differences would give narrower
    intervals, but ignores ties: it covers only 0.85 where a quarter of the seeds tie.

    Args:
        differences: (n_seeds,), arm minus baseline on the same seed; equal up to rounding is a tie.
        level: after looks of a sequential design `Design.coverage(look)`, which covers at all looks together.

    Raises:
        ValueError: `differences` is empty or holds a number that is not finite, or the level is not between 0 and 1.
    """
    d = np.asarray(differences, dtype=np.float64) * (1 if higher_is_better else -1)
    if d.ndim != 1 or d.size == 0 or not np.isfinite(d).all():
        raise ValueError("differences must be a list of at least one finite number: leave missing seeds out")
    least = rounding(d)
    counts = (int((d > least).sum()), int((np.abs(d) <= least).sum()), int((d < -least).sum()))
    win, tie, loss = (Share(k, d.size, *share_interval(k, d.size, level)) for k in counts)
    return Chance(win, tie, loss)


def _noncentral_t(df: float, shifts: Floats, t: float) -> Floats:
    """P((Z + shift) / sqrt(chi2 / df) <= t). Far out, where scipy's series fails, Z is negligible."""
    negative = shifts < 0
    size, at = np.abs(shifts), np.where(negative, -t, t)
    near = nctdtr(df, np.minimum(size, _LARGEST_SHIFT), at)  # nan for t below 0 far in the tail: p is below 1e-5
    far = np.where(at > 0, chdtrc(df, df * (size / np.where(at > 0, at, 1.0)) ** 2), 0.0)
    p = np.where(size < _LARGEST_SHIFT, np.clip(np.nan_to_num(near), 0.0, 1.0), far)
    return np.where(negative, 1 - p, p)


def _check_power(power: float) -> None:
    if not 0 < power < 1:
        raise ValueError(f"power must be above 0 and below 1, got {power!r}: 0.8 is usual")
