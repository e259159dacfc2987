"""A judgement: the finding for each arm against the baseline, and what the error was split over."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields, replace
from math import isnan, nan
from types import MappingProxyType
from typing import Generic, TypeVar

from reg_sweep.stats.estimates import Difference
from reg_sweep.stats.family import Question
from reg_sweep.stats.moderation import Pairing, Variance
from reg_sweep.stats.power import Plan
from reg_sweep.stats.scores import Key
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

ALPHA = 0.05
UNKNOWN = Difference(nan, nan, nan, nan, 0)
Name = TypeVar("Name", bound=Hashable)


def level_text(alpha: float) -> str:
    """'95%': the level of an interval that errs with this probability."""
    return f"{100 * (1 - alpha):.4g}%"


@dataclass(frozen=True)
class Interim:
    """An arm at one interim analysis of a sequential design: after `seeds` seeds, `pairs` of them complete.

    `difference` has the simultaneous interval of all arms and analyses and the p that belongs to it, `equivalence` the
    interval that lies within the margin exactly where equivalence is shown. `verdict` is UNDECIDED where the arm needs
    more seeds; so is `decision`, at the design's own error, which ends an arm's training. They differ where the table
    is judged at a smaller error.
    """

    seeds: int
    pairs: int
    difference: Difference
    equivalence: Difference
    p_not_worse: float
    verdict: Verdict
    decision: Verdict
    plan: Plan | None


@dataclass(frozen=True)
class Finding:
    """The finding for one arm against the baseline.

    Attributes:
        verdict: the word, and everything that depends on it.
        mean, baseline_mean: the mean scores over the pairs; nan without a pair.
        difference: arm minus baseline over the pairs, with the simultaneous interval of all arms (and interim
            analyses) and the corrected p that belongs to it: p <= alpha exactly where the interval excludes 0.
        alone: the difference as if this were the only arm, analysed once: for details, not for a verdict.
        equivalence: the interval that lies within the margin exactly where its corrected p is at most alpha.
        p_not_worse: the corrected p of 'it is worse by the margin or more'; `equivalence` holds the bound.
        pairs: the number of seeds on which both have a finite score.
        missing: the baseline's seeds on which this arm has no finite score.
        failed, diverged: this arm's seeds that failed, or diverged.
        p_divergence: the corrected two-sided p of 'both diverge equally often'; nan where neither ever diverged.
        plan: the test, for planning more seeds; None without spread.
        path: its interim analyses, in order; empty where all was analysed once.
        by_image: whether two trained models were compared over test images (McNemar), because there is only one seed.
        by_seed: (seed, difference) of each pair that was judged.
        question: what was asked, see `judge`.
    """

    verdict: Verdict
    mean: float = nan
    baseline_mean: float = nan
    difference: Difference = UNKNOWN
    alone: Difference = UNKNOWN
    equivalence: Difference = UNKNOWN
    p_not_worse: float = nan
    pairs: int = 0
    missing: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    p_divergence: float = nan
    plan: Plan | None = None
    path: tuple[Interim, ...] = ()
    by_image: bool = False
    by_seed: tuple[tuple[int, float], ...] = ()
    question: Question = "better"

    @property
    def evidence(self) -> Difference:
        """The difference with the interval and the p that the verdict rests on, which always agree with it.

        Those of equivalence or non-inferiority where only this was asked or shown. Divergence has a p and no interval.
        There is no p where the seeds in common are not a fair sample.
        """
        if self.verdict.is_of_divergence:
            return replace(self.difference, ci_low=nan, ci_high=nan, p=self.p_divergence)
        found = self.equivalence if self.rests_on_margin else self.difference
        if not self.is_fair_sample:
            return replace(found, p=nan)
        return replace(found, p=self.p_not_worse) if self.question == "not_worse" else found

    @property
    def rests_on_margin(self) -> bool:
        """Whether the verdict rests on `equivalence` alone: it was shown, or nothing else was asked."""
        return not self.by_image and (self.question != "better" or self.verdict.has_one_margin)

    @property
    def is_fair_sample(self) -> bool:
        """Whether the seeds in common can be tested: none was lost, or a verdict was reached in spite of the lost ones.

        An arm's lost seeds may be its worst.
        """
        if self.verdict is Verdict.NOT_RANKED or self.verdict.is_of_divergence:
            return False
        return self.verdict.is_settled or not (self.missing or self.failed or self.diverged)

    def evidence_level(self, alpha: float) -> str:
        """The nominal level of the interval of `evidence`: '95%', or that of `equivalence`."""
        return self.equivalence_level(alpha) if self.rests_on_margin else level_text(alpha)

    def equivalence_level(self, alpha: float) -> str:
        """The nominal level of `equivalence`: of 5%, '90%', or '94%' where the arm is judged by its own variance."""
        share = 1.0 if self.plan is None else self.plan.one_sided_share
        return level_text(2 * alpha * share)

    @property
    def is_tied(self) -> bool:
        """Whether several seeds all have the same difference from the baseline, so there is no interval and no p."""
        return self.pairs > 1 and isnan(self.difference.p) and self.verdict is not Verdict.ONE_SEED

    @property
    def is_compared(self) -> bool:
        """Whether the arm has a pair with the baseline, or diverged: divergence is also compared."""
        return self.pairs > 0 or bool(self.diverged) or not isnan(self.p_divergence)

    @property
    def n_expected(self) -> int:
        """The number of seeds that it should have been judged on: `pairs`, and those that are missing."""
        return self.pairs + len(self.missing)


@dataclass(frozen=True)
class Judgement(Generic[Key]):
    """The findings for all arms against `baseline`, and what the error was split over.

    Attributes:
        arms: each arm but the baseline, in the order of the scores, and its finding.
        seeds: the baseline's seeds with a finite score: those that every arm should have.
        failed, diverged: the baseline's seeds that failed, or diverged.
        alpha: the probability of any false statement here.
        margin: the largest difference that does not matter, in the score's unit; None: equivalence is not tested.
        variance, question, pairing: see `judge`.
        design: the sequential design that judged; None where all was analysed once.
        n_looks: how many of its interim analyses are done.
        n_split: the number of arms that the error is split over; in a design all of its arms.
        exploratory: why these figures are not a verdict; empty if they are.
    """

    baseline: Key
    arms: Mapping[Key, Finding]
    seeds: tuple[int, ...]
    failed: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    higher_is_better: bool = True
    alpha: float = ALPHA
    margin: float | None = None
    variance: Variance = "moderated"
    question: Question = "better"
    pairing: Pairing = "seeds"
    design: Design | None = None
    n_looks: int = 0
    n_split: int = 0
    exploratory: str = ""

    def renamed(self, names: Mapping[Key, Name]) -> "Judgement[Name]":
        """The judgement with arms renamed; arms without a new name are left out."""
        arms = {names[arm]: finding for arm, finding in self.arms.items() if arm in names}
        same = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("baseline", "arms")}
        return Judgement(baseline=names[self.baseline], arms=MappingProxyType(arms), **same)

    @property
    def compares_models(self) -> bool:
        """Whether the baseline has a single run, so that trained models are compared, not methods."""
        return len(self.seeds) == 1 and not self.diverged
