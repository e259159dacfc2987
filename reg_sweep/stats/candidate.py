"""One candidate of a research loop, judged after each seed: keep, discard, or run one more."""

from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, sqrt
from statistics import fmean
from typing import Literal, get_args

from reg_sweep.stats.online import Control, student_tail

Question = Literal["better", "not_worse"]
Verdict = Literal["keep", "discard", "run"]

# A keep also needs Student's t test on the candidate's own differences, at this level.
OWN_LEVEL = 0.015
# Normal quantiles: a candidate's noise is larger than the pool's (one-sided 10%); it may yet reach the last look (8%).
NOISIER, HOPE = 1.2816, 1.4
# A candidate worse by so many standard deviations of the pool broke something: its noise says nothing about others'.
BROKEN = 20.0
_MOST_LOOKS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32, 40)
# The error that the looks at two and at three seeds may spend; later ones share the rest.
_EARLY = (0.02, 0.08)


_WORD: dict[Question, str] = {"better": "better", "not_worse": "not worse"}


class LoopError(ValueError):
    """A score or a question that does not fit the loop. The message is one line: what, rule, value, remedy."""


@dataclass(frozen=True)
class Rules:
    """All that a loop's answers depend on, except its scores.

    error: of all that is kept, at most this share is false on average (`control="fdr"`), or the chance of any false
    keep (`control="any"`). margin: the loss that does not matter, in the score's unit, for the question `not_worse`.
    max_seeds: the most seeds that a candidate gets. first_seed: seeds are counted from here.
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
    question: Question
    baseline: int
    test: int
    level: float
    noise: tuple[float, float]
    seeds: tuple[int, ...]
    scores: dict[int, float] = field(default_factory=dict)
    differences: list[float] = field(default_factory=list)
    verdict: Verdict = "run"
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


def judged(c: Candidate, rules: Rules) -> tuple[Verdict, str]:
    """The verdict on a candidate from its seeds so far, and the reason in words.

    With n differences d, their mean m (plus the margin, for `not_worse`) and the variance v of `Candidate.spread`, it
    is kept at a look with the share w_n of its level alpha if P(T > m sqrt(n / v)) <= w_n alpha and its own t test has
    p <= `OWN_LEVEL`: no other candidate's noise speaks for one that is all noise. It is given up when its mean, raised
    by `HOPE` standard deviations of what the seeds to come may add, would still miss the last look's boundary.
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
    # The pool's degrees of freedom, even if this candidate looks noisier: more seeds may show that it is not.
    if hoped <= 0 or student_tail(hoped, c.noise[1] + n - 1) > looks[last] * c.level:
        return "discard", f"no prospect of being shown {_WORD[c.question]} after {n} seeds"
    return "run", ""
