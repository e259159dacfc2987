"""Running estimates of a loop of experiments: the level of each test, and the noise of differences.

Pure Python: a loop's command answers thousands of times, and starts faster than NumPy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, lgamma, log, pi, sqrt
from statistics import NormalDist
from typing import Literal

Control = Literal["fdr", "any"]

# gamma_j is nearly flat over the first so many tests: hardly a loop is shorter, and its first test is no better.
FLAT_FOR = 20
_GAMMA = 0.5 * sqrt(FLAT_FOR + 0.5)
# W_0 / alpha: the share of the error that a loop starts with; what it keeps earns the rest.
FIRST_WEALTH = 0.9
# Degrees of freedom: what the pilot is worth before there is any history, and the memory of the two pools.
PILOT_DF, LONG_DF, RECENT_DF = 8.0, 200.0, 15.0
# The pilot loses a degree of freedom for so many of the history.
PILOT_FADES = 3.0
FEWEST_RECENT_DF = 5.0
# The kurtosis of noise, of long and of recent history: what it begins with, for how many degrees of freedom that
# counts, and how many it remembers.
FIRST_KURTOSIS = 1.02
KURTOSIS_MEMORY = ((100.0, 400.0), (40.0, 20.0))


def student_tail(t: float, df: float) -> float:
    """P(T > t) of Student's t: I_x(df/2, 1/2) / 2 with x = df / (df + t^2), for t of at least 0."""
    if t < 0:
        return 1 - student_tail(-t, df)
    square = t * t
    x, y = df / (df + square), square / (df + square)
    if y == 0:
        return 0.5
    a, b = df / 2, 0.5
    front = exp(a * log(x) + b * log(y) + lgamma(a + b) - lgamma(a) - lgamma(b))
    if x < (a + 1) / (a + b + 2):
        return 0.5 * front * _beta_fraction(a, b, x) / a
    return 0.5 * (1 - front * _beta_fraction(b, a, y) / b)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 300):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + term * d), 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return value


def student_quantile(tail: float, df: float) -> float:
    """The t with P(T > t) = `tail`, for a `tail` in (0, 0.5).

    Newton's method from the normal quantile, which is smaller: the tail is convex there, so that it rises to the root.
    """
    t = NormalDist().inv_cdf(1 - tail)
    scale = exp(lgamma((df + 1) / 2) - lgamma(df / 2)) / sqrt(df * pi)
    for _ in range(100):
        density = scale * (1 + t * t / df) ** (-(df + 1) / 2)
        step = (student_tail(t, df) - tail) / density
        t += step
        if step <= 1e-9 * t:
            break
    return t


def gamma(j: int) -> float:
    """The share of an error that the j-th test may spend: sqrt(h + 1/2) / 2 (j + h)^(-3/2) with h = `FLAT_FOR`.

    They sum to at most 1: x^(-3/2) is convex, hence at j + h at most its mean over j + h +- 1/2.
    """
    x = j + FLAT_FOR
    return _GAMMA / (x * sqrt(x))


def level(test: int, kept: Sequence[int], error: float, control: Control) -> float:
    """The level of a loop's test, so that at most a share `error` of what it keeps is false, on average.

    LORD++ (Ramdas, Yang, Wainwright and Jordan 2017, after Javanmard and Montanari 2018):

        alpha_t = W_0 gamma_t + (alpha - W_0) gamma_{t - tau_1} + alpha sum over j >= 2 of gamma_{t - tau_j}

    with W_0 = `FIRST_WEALTH` alpha and tau_j the tests after which the j-th was kept. `any` controls the chance of any
    false keep instead: alpha_t = alpha gamma_t, and a keep earns nothing.

    Args:
        test: t, counted from 1 in the order in which candidates began. kept: tau_j, ascending and below `test`: how
            many had begun when a candidate was kept, which is no fewer than where it stands among them.
    """
    if control == "any":
        return error * gamma(test)
    spent = FIRST_WEALTH * gamma(test)
    if kept:
        spent += (1 - FIRST_WEALTH) * gamma(test - kept[0]) + sum(gamma(test - tau) for tau in kept[1:])
    return error * spent


def prior_worth(kurtosis: float) -> float:
    """3 + 1.5 / (H - 1), the degrees of freedom that a pool of that kurtosis is worth to the next candidate.

    A t distribution has that kurtosis with 4 + 2 / (H - 1). Fewer hold where a few candidates are far noisier than the
    rest, which no t distribution is like.
    """
    return 3 + 1.5 / max(kurtosis - 1, 0.01)


@dataclass
class _Kurtosis:
    """H, the ratio E[v^2] / E[v]^2 of the variances v that differences have: 1 where all are equally noisy and normal.

    Of a candidate with f degrees of freedom and a variance r times the pool's, r^2 f / (f + 2) has mean H. Weighted by
    f, it starts at `FIRST_KURTOSIS` with `weight` degrees of freedom, and remembers `memory` of them.
    """

    weight: float
    memory: float
    total: float = 0.0
    df: float = 0.0

    def add(self, ratio: float, df: int) -> None:
        keep = min(1.0, self.memory / (self.df + df))
        self.total = keep * (self.total + df * ratio * ratio * df / (df + 2))
        self.df = keep * (self.df + df)

    @property
    def value(self) -> float:
        return (self.weight * FIRST_KURTOSIS + self.total) / (self.weight + self.df)


@dataclass
class _Pool:
    """A sum of squares and its degrees of freedom, which decay to at most `memory`."""

    memory: float
    squares: float = 0.0
    df: float = 0.0

    def add(self, squares: float, df: int) -> None:
        keep = min(1.0, self.memory / (self.df + df))
        self.squares, self.df = keep * (self.squares + squares), keep * (self.df + df)


@dataclass
class Noise:
    """The noise of the paired differences of a loop's candidates, over its whole history.

    s0^2 is the larger of two pooled variances within candidates: of all history, where the pilot's 2 s_B^2 (two runs
    that don't pair) counts for `PILOT_DF` degrees of freedom at first and for none after 24 of the history; and of the
    recent `RECENT_DF`, so that noise that grows is noticed. Its worth in degrees of freedom is

        d0 = min(their number, 3 + 1.5 / (H - 1)),

    with H the kurtosis of the history, long or recent, whichever is larger: where some candidates are noisier than
    others, or tails are heavy, a pool says less of the next one. A candidate whose
    differences are all equal has no noise, and does not enter; nor does one that is worse by 20 standard deviations.

    pilot_variance: s_B^2, of the first baseline's runs.
    """

    pilot_variance: float
    _long: _Pool = field(default_factory=lambda: _Pool(LONG_DF))
    _recent: _Pool = field(default_factory=lambda: _Pool(RECENT_DF))
    _kurtosis: list[_Kurtosis] = field(default_factory=lambda: [_Kurtosis(*memory) for memory in KURTOSIS_MEMORY])

    @property
    def prior(self) -> tuple[float, float]:
        """(s0^2, d0) for the next candidate."""
        pilot = max(PILOT_DF - self._long.df / PILOT_FADES, 0.0)
        df = pilot + self._long.df
        variance = (pilot * 2 * self.pilot_variance + self._long.squares) / df
        if self._recent.df >= FEWEST_RECENT_DF:
            variance = max(variance, self._recent.squares / self._recent.df)
        return variance, min(df, prior_worth(max(kurtosis.value for kurtosis in self._kurtosis)))

    def add(self, squares: float, df: int, prior_variance: float) -> None:
        """Adds a candidate's sum of squares around its mean; the candidate was judged with this s0^2."""
        for kurtosis in self._kurtosis:
            kurtosis.add(squares / df / prior_variance, df)
        for pool in (self._long, self._recent):
            pool.add(squares, df)
