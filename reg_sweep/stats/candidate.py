"""One candidate of a research loop, judged after each seed: keep, discard, or run one more.

Its level and the noise of its differences come from running estimates over the loop's history. Pure Python: the loop's
command is started thousands of times, and importing NumPy would take longer than the whole start.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, isfinite, lgamma, log, pi, sqrt
from statistics import NormalDist, fmean
from typing import Literal, get_args

Control = Literal["fdr", "any"]
# gamma_j is nearly flat over this many first tests: few loops are shorter, and the first test deserves no larger share.
FLAT_FOR = 20
_GAMMA = 0.5 * sqrt(FLAT_FOR + 0.5)
# W_0 / alpha: the share of the error that a loop starts with; each keep earns more.
FIRST_WEALTH = 0.9
# Degrees of freedom: the pilot's weight before there is any history, and the memory of the two pools.
PILOT_DF, LONG_DF, RECENT_DF = 8.0, 200.0, 15.0
# The pilot loses one degree of freedom for every so many in the history.
PILOT_FADES = 3.0
FEWEST_RECENT_DF = 5.0
# The kurtosis of the noise: its initial value; then, for the long and the recent history, the degrees of freedom that
# the initial value counts as, and the number remembered.
FIRST_KURTOSIS = 1.02
KURTOSIS_MEMORY = ((100.0, 400.0), (40.0, 20.0))
LoopQuestion = Literal["better", "not_worse"]
LoopVerdict = Literal["keep", "discard", "run"]
# A keep also needs Student's t test on the candidate's own differences, at this level.
OWN_LEVEL = 0.015
# Normal quantiles. NOISIER: a candidate's noise is larger than the pool's (one-sided 10%). HOPE: a candidate may still
# succeed at the last look (8%).
NOISIER, HOPE = 1.2816, 1.4
# A candidate worse by this many pooled standard deviations is broken: its noise says nothing about the others'.
BROKEN = 20.0
_MOST_LOOKS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40)
# The error that the looks at two and at three seeds may spend; later ones share the rest.
_EARLY = (0.02, 0.08)
_WORD: dict[LoopQuestion, str] = {"better": "better", "not_worse": "not worse"}


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
        test: t, counted from 1 in the order in which candidates began. kept: tau_j, ascending and below `test`: the
            number of candidates begun when the j-th was kept, which is at least its own number.
    """
    if control == "any":
        return error * gamma(test)
    spent = FIRST_WEALTH * gamma(test)
    if kept:
        spent += (1 - FIRST_WEALTH) * gamma(test - kept[0]) + sum(gamma(test - tau) for tau in kept[1:])
    return error * spent


def prior_worth(kurtosis: float) -> float:
    """3 + 1.5 / (H - 1), the degrees of freedom that a pool of that kurtosis is worth to the next candidate.

    A t distribution with 4 + 2 / (H - 1) degrees of freedom has that kurtosis. Fewer are used so that the error also
    holds where a few candidates are far noisier than the rest, which no t distribution describes.
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
class NoiseHistory:
    """The noise of the paired differences of a loop's candidates, over its whole history.

    s0^2 is the larger of two pooled variances within candidates: of all history, where the pilot's 2 s_B^2 (two
    unpaired runs) counts for `PILOT_DF` degrees of freedom at first and for none once the history has 24; and of the
    recent `RECENT_DF`, so that growing noise is noticed. Its worth in degrees of freedom is

        d0 = min(their number, 3 + 1.5 / (H - 1)),

    with H the kurtosis of the history, long or recent, whichever is larger: where some candidates are noisier than
    others, or tails are heavy, a pool says less about the next one. A candidate whose differences are all equal has no
    noise, and does not enter; nor does one that is worse by 20 standard deviations.

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


class LoopError(ValueError):
    """A score or a question that does not fit the loop. The message is one line: what, rule, value, remedy."""


@dataclass(frozen=True)
class Rules:
    """Everything that a loop's answers depend on, except its scores.

    error: the share of keeps that may be false, on average (`control="fdr"`), or the largest probability of any false
    keep (`control="any"`). margin: the loss that does not matter, in the score's unit, for the question `not_worse`.
    max_seeds: the most seeds that a candidate gets. first_seed: the lowest seed in use.

    Raises:
        LoopError: a rule is out of its range.
    """

    error: float = 0.05
    control: Control = "fdr"
    higher_is_better: bool = True
    margin: float | None = None
    max_seeds: int = 10
    first_seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.error < 0.5:
            raise LoopError(f"error must be above 0 and below 0.5, got {self.error!r}: 0.05 is usual")
        if self.control not in get_args(Control):
            raise LoopError(f"control must be fdr or any, got {self.control!r}")
        if self.margin is not None and not (isfinite(self.margin) and self.margin > 0):
            raise LoopError(f"margin must be a finite number above 0, got {self.margin!r}")
        if self.max_seeds not in _MOST_LOOKS[2:]:
            allowed = ", ".join(map(str, _MOST_LOOKS[2:]))
            raise LoopError(f"max_seeds must be one of {allowed}, got {self.max_seeds!r}: 10 is usual")
        if self.first_seed < 0:
            raise LoopError(f"first_seed must be at least 0, got {self.first_seed!r}")

    @cached_property
    def looks(self) -> dict[int, float]:
        """The seeds after which a candidate is judged, each with its share of the candidate's level."""
        late = [n for n in _MOST_LOOKS[2:] if n <= self.max_seeds]
        return {2: _EARLY[0], 3: _EARLY[1]} | {n: (1 - sum(_EARLY)) / len(late) for n in late}


@dataclass
class Candidate:
    """A change that is tried against one baseline. `differences` are improvements: above 0 is better.

    test: its number in the loop, from 1. level: the error that it may spend. noise: (s0^2, d0) when it began.
    """

    change: str
    digest: str | None
    question: LoopQuestion
    baseline: int
    test: int
    level: float
    noise: tuple[float, float]
    seeds: tuple[int, ...]
    scores: dict[int, float] = field(default_factory=dict)
    differences: list[float] = field(default_factory=list)
    verdict: LoopVerdict = "run"
    reason: str = ""
    is_superseded: bool = False

    @property
    def mean(self) -> float:
        """The mean difference, above 0 where it is better."""
        return fmean(self.differences)

    @property
    def squares(self) -> float:
        """The sum of squares around the mean; 0 for differences that are equal up to rounding."""
        d = self.differences
        size = max(map(abs, self.scores.values()))
        if max(d) - min(d) <= 1e-12 * size:
            return 0.0
        mean = self.mean
        return sum((x - mean) ** 2 for x in d)

    @property
    def spread(self) -> tuple[float, float]:
        """(variance, degrees of freedom) for standard errors: moderated, its own where that is clearly larger.

        (d0 s0^2 + (n - 1) s^2) / (d0 + n - 1) with d0 + n - 1 degrees of freedom (Smyth 2004), unless s^2 exceeds the
        90% point of chi^2 / (n - 1) times s0^2, by Wilson and Hilferty's approximation: then s^2 with n - 1.
        """
        prior, d0 = self.noise
        f = len(self.differences) - 1
        if f == 0:
            return prior, d0
        squares, scale = self.squares, 2 / (9 * f)
        if squares > f * prior * (1 - scale + NOISIER * sqrt(scale)) ** 3:
            return squares / f, f
        return (d0 * prior + squares) / (d0 + f), d0 + f


@dataclass(frozen=True)
class Answer:
    """The verdict (keep, discard, or run `seed`), its reason, and the estimate so far, None where there is none.

    change: the change to run; `BASELINE` of `stats.loop` where the baseline is measured first. n: the number of seeds.
    mean: its score minus the baseline's, in the score's unit, with its standard error and degrees of freedom.
    """

    verdict: LoopVerdict
    change: str
    reason: str
    seed: int | None = None
    n: int = 0
    mean: float | None = None
    standard_error: float | None = None
    df: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean, of this candidate and look alone; None for fewer than two seeds."""
        if self.mean is None or self.standard_error is None or self.df is None:
            return None
        half = student_quantile(0.025, self.df) * self.standard_error
        return self.mean - half, self.mean + half


def judged(c: Candidate, rules: Rules) -> tuple[LoopVerdict, str]:
    """The verdict on a candidate from its seeds so far, and the reason in words.

    With n differences d, their mean m (plus the margin, for `not_worse`) and the variance v of `Candidate.spread`, it
    is kept at a look with the share w_n of its level alpha if P(T > m sqrt(n / v)) <= w_n alpha and its own t test has
    p <= `OWN_LEVEL`, so that the others' low noise can't carry a very noisy candidate. It is discarded when its mean,
    raised by `HOPE` standard deviations of what the remaining seeds may add, would still miss the last look's boundary.
    """
    looks = rules.looks
    n = len(c.differences)
    if n not in looks:
        return "run", ""
    if n >= 2 and c.question == "better" and not any(c.differences):
        return "discard", f"the same scores as the baseline's on {n} seeds"
    mean = c.mean + (rules.margin or 0.0) * (c.question == "not_worse")
    variance, df = c.spread
    error = sqrt(variance / n)
    if mean > 0 and student_tail(mean / error, df) <= looks[n] * c.level:
        own = sqrt(c.squares / (n - 1) / n)
        if own == 0 or student_tail(mean / own, n - 1) <= OWN_LEVEL:
            return "keep", f"{_WORD[c.question]} after {n} seeds"
    last = rules.max_seeds
    if n == last:
        return "discard", f"not shown {_WORD[c.question]} with {n} seeds"
    hoped = (mean + HOPE * sqrt(variance * (1 / n - 1 / last))) / sqrt(variance / last)
    # The pool's degrees of freedom, even if this candidate looks noisier: more seeds may show otherwise.
    if hoped <= 0 or student_tail(hoped, c.noise[1] + n - 1) > looks[last] * c.level:
        return "discard", f"no prospect of being shown {_WORD[c.question]} after {n} seeds"
    return "run", ""
