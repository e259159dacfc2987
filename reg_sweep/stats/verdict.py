"""The possible verdicts with everything that depends on the word alone, and the judgement: a finding for each arm."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from math import isnan, nan
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

from reg_sweep.stats.estimates import Difference
from reg_sweep.stats.family import Question
from reg_sweep.stats.moderation import Pairing, Variance
from reg_sweep.stats.power import Plan
from reg_sweep.stats.scores import Key
from reg_sweep.stats.sequential import Design

Tone = Literal["better", "worse", ""]
Mark = Literal["better", "worse", "equivalent", "small", "open", "unranked", "untested"]
ALPHA = 0.05
UNKNOWN = Difference(nan, nan, nan, nan, 0)
Name = TypeVar("Name", bound=Hashable)


class Verdict(StrEnum):
    """The verdicts on an arm against the baseline, in the order of a tally.

    A member is its word: `Verdict.BETTER == "better"`.

    Attributes:
        value: the word, the same on the page, in exports, in records and on the terminal.
        tone: the colour of a claim about methods; '' where none was shown.
        mark: its shape in the forest plot.
        is_settled: whether more seeds would add nothing.
        in_tally: the words after the number of such arms in a tally.
        sentence: the verdict on `{arm}` and `{baseline}`; `{margin}` is the equivalence margin in words.
        clause: the same with 'it', as a clause.
    """

    tone: Tone
    mark: Mark
    is_settled: bool
    in_tally: str
    sentence: str
    clause: str

    def __new__(
        cls, word: str, tone: Tone, mark: Mark, is_settled: bool, in_tally: str, sentence: str, clause: str
    ) -> "Verdict":
        """Makes a member whose value is its word."""
        self = str.__new__(cls, word)
        self._value_ = word
        self.tone, self.mark, self.is_settled = tone, mark, is_settled
        self.in_tally, self.sentence, self.clause = in_tally or word, sentence, clause
        return self

    BETTER = ("better", "better", "better", True, "", "{arm} is better than {baseline}.", "it is better")
    BETTER_BY_DIVERGENCE = (
        *("better by fewer divergences", "better", "better", True, ""),
        "{arm} is better than {baseline}: it diverges on fewer seeds.",
        "it diverges on fewer seeds",
    )
    SMALL = (
        *("real but smaller than the margin", "", "small", True, "with a real difference smaller than the margin"),
        "Between {arm} and {baseline}: a real difference, smaller than the margin of {margin}.",
        "there is a real difference, smaller than the margin of {margin}",
    )
    EQUIVALENT = (
        *("shown equivalent", "", "equivalent", True, ""),
        "{arm} is shown equivalent to {baseline}, within {margin}.",
        "it is shown equivalent within {margin}",
    )
    NOT_WORSE = (
        *("shown not worse", "", "equivalent", True, ""),
        "{arm} is shown not worse than {baseline}, by a margin of {margin}.",
        "it is shown not worse by a margin of {margin}",
    )
    NO_DIFFERENCE = (
        *("no difference shown", "", "open", False, "with no difference shown"),
        "No difference shown between {arm} and {baseline}.",
        "no difference is shown",
    )
    WORSE = ("worse", "worse", "worse", True, "", "{arm} is worse than {baseline}.", "it is worse")
    WORSE_BY_DIVERGENCE = (
        *("worse by divergence", "worse", "worse", True, ""),
        "{arm} is worse than {baseline}: it diverges on more seeds.",
        "it diverges on more seeds",
    )
    MODELS_DIFFER = (
        *("these two models differ", "", "open", False, "whose model differs from the baseline's"),
        "One seed, so two trained models, {arm} and {baseline}: these two models differ. Methods need more seeds.",
        "these two models differ",
    )
    MODELS_ALIKE = (
        *("no difference between these two models", "", "open", False, "whose model shows no difference"),
        "One seed, so two trained models, {arm} and {baseline}: no difference between these two models is shown. "
        "Methods need more seeds.",
        "no difference between these two models is shown",
    )
    ONE_SEED = (
        *("one seed, not tested", "", "open", False, "not tested"),
        "One seed shows nothing about {arm} and {baseline}.",
        "one seed shows nothing",
    )
    EXPLORATORY = (
        *("exploratory", "", "untested", False, "exploratory"),
        "{arm} and {baseline} were not compared by this question beforehand: the figures are exploratory.",
        "the figures are exploratory",
    )
    NOT_RANKED = (
        *("not ranked", "", "unranked", False, ""),
        "{arm} is not ranked against {baseline}: seeds are missing, failed or diverged.",
        "it is not ranked",
    )
    UNDECIDED = (
        *("undecided", "", "open", False, ""),
        "{arm} is undecided against {baseline} so far.",
        "it is undecided so far",
    )

    @classmethod
    def of(cls, word: str) -> "Verdict":
        """The member with this word.

        Raises:
            ValueError: there is none.
        """
        for verdict in cls:
            if verdict.value == word:
                return verdict
        raise ValueError(f"verdict must be one of {', '.join(v.value for v in cls)}, got {word!r}")

    def at_the_end(self, question: str, *, has_lost: bool) -> "Verdict":
        """The verdict where no look follows: an undecided arm is not ranked if seeds of it or the baseline are lost.

        If none is, no difference is shown, where the question was one of a difference.
        """
        if self is not Verdict.UNDECIDED:
            return self
        return Verdict.NOT_RANKED if has_lost else Verdict.NO_DIFFERENCE if question == "better" else self

    @property
    def shows_difference(self) -> bool:
        """Whether a difference between methods that matters was shown, in either direction."""
        return self.tone != ""

    @property
    def is_of_divergence(self) -> bool:
        """Whether it is about how often runs diverge, and not about means."""
        return self in (Verdict.WORSE_BY_DIVERGENCE, Verdict.BETTER_BY_DIVERGENCE)

    @property
    def has_one_margin(self) -> bool:
        """Whether it rests on the interval of equivalence or non-inferiority alone."""
        return self in (Verdict.EQUIVALENT, Verdict.NOT_WORSE)

    @property
    def is_no_loss(self) -> bool:
        """Whether it was shown that the arm is not worse by a margin that matters."""
        return self.tone == "better" or self in (Verdict.EQUIVALENT, Verdict.SMALL, Verdict.NOT_WORSE)

    @property
    def is_within_margin(self) -> bool:
        """Whether the difference was shown to lie within the margin."""
        return self in (Verdict.EQUIVALENT, Verdict.SMALL)


@dataclass(frozen=True)
class Interim:
    """An arm at one interim analysis of a sequential design, at so many `seeds`, `pairs` of them complete.

    `difference` has the simultaneous interval of all arms and analyses and the p that belongs to it, `equivalence` the
    interval that lies within the margin exactly where equivalence is shown. `verdict` is UNDECIDED where the arm needs
    more seeds.
    """

    seeds: int
    pairs: int
    difference: Difference
    equivalence: Difference
    p_not_worse: float
    verdict: Verdict
    plan: Plan | None


@dataclass(frozen=True)
class Finding:
    """The finding for one arm against the baseline.

    Attributes:
        verdict: the word, and all that depends on it.
        mean, baseline_mean: the mean scores over the pairs; nan without a pair.
        difference: arm minus baseline over the pairs, with the simultaneous interval of all arms (and interim
            analyses) and the corrected p that belongs to it: p <= alpha exactly where the interval leaves out 0.
        alone: the difference as if this were the only arm, analysed once: for details, not for a verdict.
        equivalence: the interval that lies within the margin exactly where its corrected p is at most alpha.
        p_not_worse: the corrected p of 'it is worse by the margin or more'; `equivalence` holds the bound.
        pairs: the number of seeds on which both have a finite score.
        missing: the baseline's seeds on which this arm has no finite score.
        failed, diverged: this arm's seeds that failed, or diverged.
        p_divergence: the corrected two-sided p of 'both diverge equally often'; nan where neither ever diverged.
        plan: the test, for planning more seeds; None without spread.
        path: its interim analyses, in order; empty where all was analysed once.
        by_image: whether two trained models were compared over test images (McNemar), for want of seeds.
        by_seed: (seed, difference) of each pair that was judged.
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

    @property
    def equivalence_level(self) -> float:
        """The nominal level of `equivalence` in percent: 90, or 94 where the arm is judged by its own variance."""
        share = 1.0 if self.plan is None else self.plan.one_sided_share
        return round(100 * (1 - 2 * ALPHA * share), 6)

    @property
    def is_tied(self) -> bool:
        """Whether several seeds all have the same difference from the baseline, so there is no interval and no p."""
        return self.pairs > 1 and isnan(self.difference.p)

    @property
    def is_compared(self) -> bool:
        """Whether the arm has a pair with the baseline, or diverged, which is compared too."""
        return self.pairs > 0 or bool(self.diverged) or not isnan(self.p_divergence)

    @property
    def is_tested(self) -> bool:
        """Whether this arm was tested."""
        return not isnan(self.difference.p) or not isnan(self.p_divergence)


@dataclass(frozen=True)
class Judgement(Generic[Key]):
    """The findings for all arms against `baseline`, and what the error was split over.

    Attributes:
        arms: each arm but the baseline, in the order of the scores, and its finding.
        seeds: the baseline's seeds with a finite score: those that every arm is asked for.
        failed, diverged: the baseline's seeds that failed, or diverged.
        alpha: the probability of any false statement here.
        margin: the largest difference that does not matter, in the score's unit; None asks no equivalence.
        variance, question, pairing: see `judge`.
        design: the sequential design that judged, None where all was analysed once.
        n_looks: how many of its interim analyses are done.
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
    exploratory: str = ""

    def renamed(self, names: Mapping[Key, Name]) -> "Judgement[Name]":
        """The judgement with arms renamed; arms without a new name are left out."""
        arms = {names[arm]: finding for arm, finding in self.arms.items() if arm in names}
        same = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("baseline", "arms")}
        return Judgement(baseline=names[self.baseline], arms=MappingProxyType(arms), **same)

    @property
    def n_split(self) -> int:
        """The number of arms that the error is split over."""
        return sum(finding.is_tested for finding in self.arms.values())
