"""The possible verdicts, and everything that depends on the verdict alone."""

from enum import StrEnum
from typing import Literal

Tone = Literal["better", "worse", ""]
Mark = Literal["better", "worse", "equivalent", "small", "open", "unranked", "untested"]


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
        verb: what the arm's setting does, after its name; '' where nothing can be said of it.
    """

    tone: Tone
    mark: Mark
    is_settled: bool
    in_tally: str
    sentence: str
    clause: str
    verb: str

    def __new__(
        cls, word: str, tone: Tone, mark: Mark, is_settled: bool, in_tally: str, sentence: str, clause: str, verb: str
    ) -> "Verdict":
        """Makes a member whose value is its word."""
        self = str.__new__(cls, word)
        self._value_ = word
        self.tone, self.mark, self.is_settled = tone, mark, is_settled
        self.in_tally, self.sentence, self.clause, self.verb = in_tally or word, sentence, clause, verb
        return self

    BETTER = (
        *("better", "better", "better", True, ""),
        "{arm} is better than {baseline}.",
        "it is better",
        "helps",
    )
    BETTER_BY_DIVERGENCE = (
        *("better by fewer divergences", "better", "better", True, ""),
        "{arm} is better than {baseline}: it diverges on fewer seeds.",
        "it diverges on fewer seeds",
        "helps, since fewer runs diverge",
    )
    SMALL = (
        *("real but smaller than the margin", "", "small", True, "with a real difference smaller than the margin"),
        "A real difference, smaller than the margin of {margin}, between {arm} and {baseline}.",
        "there is a real difference, smaller than the margin of {margin}",
        "makes a real difference, smaller than {margin}",
    )
    EQUIVALENT = (
        *("shown equivalent", "", "equivalent", True, ""),
        "{arm} is shown equivalent to {baseline}, within {margin}.",
        "it is shown equivalent within {margin}",
        "makes no difference that matters, within {margin}",
    )
    NOT_WORSE = (
        *("shown not worse", "", "equivalent", True, ""),
        "{arm} is shown not worse than {baseline}, by a margin of {margin}.",
        "it is shown not worse by a margin of {margin}",
        "costs nothing that matters, within {margin}",
    )
    NO_DIFFERENCE = (
        *("no difference shown", "", "open", False, "with no difference shown"),
        "No difference shown between {arm} and {baseline}.",
        "no difference is shown",
        "is not shown to help or to hurt",
    )
    WORSE = (
        *("worse", "worse", "worse", True, ""),
        "{arm} is worse than {baseline}.",
        "it is worse",
        "hurts",
    )
    WORSE_BY_DIVERGENCE = (
        *("worse by divergence", "worse", "worse", True, ""),
        "{arm} is worse than {baseline}: it diverges on more seeds.",
        "it diverges on more seeds",
        "hurts, since runs diverge where the baseline's do not",
    )
    MODELS_DIFFER = (
        *("these two models differ", "", "open", False, "whose model differs from the baseline's"),
        "{arm} and {baseline}: these two models differ. One seed compares trained models; methods need more seeds.",
        "these two models differ",
        "gave a network that differs from the baseline's",
    )
    MODELS_ALIKE = (
        *("no difference between these two models", "", "open", False, "whose model shows no difference"),
        "{arm} and {baseline}: no difference between these two models is shown. One seed compares trained models; "
        "methods need more seeds.",
        "no difference between these two models is shown",
        "gave a network that is not shown to differ from the baseline's",
    )
    ONE_SEED = (
        *("one seed, not tested", "", "open", False, "not tested"),
        "One seed shows nothing about {arm} and {baseline}.",
        "one seed shows nothing",
        "is not tested",
    )
    EXPLORATORY = (
        *("exploratory", "", "untested", False, "exploratory"),
        "The figures are exploratory: this question was not asked beforehand of {arm} and {baseline}.",
        "the figures are exploratory",
        "is not judged",
    )
    NOT_RANKED = (
        *("not ranked", "", "unranked", False, ""),
        "{arm} is not ranked against {baseline}: seeds are missing, failed or diverged.",
        "it is not ranked",
        "",
    )
    UNDECIDED = (
        *("undecided", "", "open", False, ""),
        "{arm} is undecided against {baseline} so far.",
        "it is undecided so far",
        "is undecided so far",
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
        """The final verdict, when no look follows: an undecided arm is not ranked if it or the baseline lost seeds.

        Otherwise, no difference is shown if the question asked for a difference.
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
