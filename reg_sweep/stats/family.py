"""Tests of a table's arms against one baseline, with one error rate for the whole table.

All arms' claims hold at once: with probability 1 - alpha, no arm of the table is falsely called better, worse,
equivalent, or different. p, interval and word agree, since all follow from one Bonferroni correction over arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from reg_sweep.stats.moderation import Floats, Noise, Pairing, Variance, check_pairing, noise, unpaired_noise
from reg_sweep.stats.verdict import Verdict

Question = Literal["better", "equivalent", "not_worse"]

# Judged by its own variance, a skewed arm against a symmetric baseline errs in one direction with probability up to
# 0.08 instead of 0.05. In a table of skewed arms, 'not worse' errs with probability up to 0.06.
ONE_SIDED_SHARE, NOT_WORSE_SHARE = 0.6, 0.8


@dataclass(frozen=True)
class Family:
    """The arms of a table against their baseline: arrays of shape (..., n_arms), nan where nothing can be said.

    correction is m: alpha is divided by it. These belong together: `p` and `interval`; `p_equivalence` and
    `equivalence_interval`; `p_not_worse` and `not_worse_bound`. `p_alone` and `interval_alone` treat the arm as the
    only one: for details, not for a verdict. question says which of them is the claim.

    One-sided tests (equivalence, not worse) use `ONE_SIDED_SHARE` of the error where arms are judged by their own
    variances: a skewed arm's mean and variance err together, and in one direction. Where variances are moderated, 'not
    worse' alone uses `NOT_WORSE_SHARE`.
    """

    noise: Noise
    correction: float | NDArray[np.int64]
    alpha: float
    margin: float | None
    question: Question = "better"

    @property
    def p(self) -> Floats:
        """The corrected p of 'there is no difference': min(1, m p_alone)."""
        p: Floats = np.minimum(self.correction * self.p_alone, 1.0)
        return p

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """The simultaneous 1 - alpha interval, low and high. It excludes 0 exactly where p <= alpha."""
        return self._within(self.alpha / (2 * self.correction))

    @property
    def p_equivalence(self) -> Floats:
        """The corrected p of 'the difference is the margin or more', in either direction; nan without a margin."""
        return self._p_beyond(np.abs(self.noise.mean))

    @property
    def equivalence_interval(self) -> tuple[Floats, Floats]:
        """The simultaneous interval of both one-sided tests: within the margin exactly where p_equivalence <= alpha.

        Its level is 1 - 2 alpha, or 1 - 1.2 alpha where arms are judged by their own variances (for the question
        'not_worse' 1 - 1.6 alpha, or 1 - 1.2 alpha).
        """
        return self._within(self.alpha / self._one_sided_correction)

    @property
    def one_sided_share(self) -> Floats:
        """The share of the error that one-sided tests use: less than 1 where arms have their own variances, (...,)."""
        of_moderated, of_own = (one_sided_share(is_own, self.question) for is_own in (False, True))
        share: Floats = np.where(self.noise.prior_df == 0, of_own, of_moderated)
        return share

    @property
    def _one_sided_correction(self) -> Floats:
        factor: Floats = self.correction / self.one_sided_share[..., None]
        return factor

    def p_not_worse(self, higher_is_better: bool = True) -> Floats:
        """The corrected p of 'the arm is worse by the margin or more'; nan without a margin.

        It is never larger than `p_equivalence`, which has to exclude the other side too.
        """
        return self._p_beyond(-self.noise.mean if higher_is_better else self.noise.mean)

    def not_worse_bound(self, higher_is_better: bool = True) -> Floats:
        """The simultaneous one-sided bound of how much worse the arm may be: the lowest difference to expect.

        It is above -margin exactly where p_not_worse <= alpha. Where lower is better it is the highest difference, and
        below the margin.
        """
        low, high = self.equivalence_interval
        return low if higher_is_better else high

    @property
    def p_alone(self) -> Floats:
        """The p of 'there is no difference', not corrected."""
        with np.errstate(divide="ignore", invalid="ignore"):
            p: Floats = 2 * stdtr(self.noise.df, -np.abs(self.noise.mean) / self.noise.standard_error)
            return p

    @property
    def interval_alone(self) -> tuple[Floats, Floats]:
        """The 1 - alpha interval of the arm, not corrected."""
        return self._within(self.alpha / 2)

    def _p_beyond(self, loss: Floats) -> Floats:
        """The corrected one-sided p of 'this loss is the margin or more'."""
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = loss - (np.nan if self.margin is None else self.margin)
            p = stdtr(self.noise.df, excess / self.noise.standard_error)
        corrected: Floats = np.minimum(self._one_sided_correction * p, 1.0)
        return corrected

    def _within(self, tail: float | Floats) -> tuple[Floats, Floats]:
        half = stdtrit(self.noise.df, 1 - np.asarray(tail)) * self.noise.standard_error
        return self.noise.mean - half, self.noise.mean + half


def compare_arms(
    differences: ArrayLike,
    alpha: float = 0.05,
    margin: float | None = None,
    variance: Variance = "moderated",
    correction: float | None = None,
    question: Question = "better",
    earlier_variance: float | None = None,
) -> Family:
    """Tests each arm's mean difference from the baseline against 0 and against the margin, corrected for m arms.

    With se_i and df_i from `moderation.noise` and t(q, df) Student's quantile:

        interval     d_i +- t(1 - alpha / (2 m), df_i) se_i          p_i = min(1, m 2 P(T > |d_i| / se_i))
        equivalence  d_i +- t(1 - h alpha / m, df_i) se_i            p_i = min(1, m / h P(T > (margin - |d_i|) / se_i))
        not worse    d_i - t(1 - h alpha / m, df_i) se_i             p_i = min(1, m / h P(T > (margin + d_i) / se_i))

    m counts the arms with at least two seeds. h is `one_sided_share`: less than 1 where arms are judged by their own
    variances (a single arm, two seeds, variance='plain'). The first two may be read at alpha together (question
    'better'): an arm's claims can't both be false, since a difference of 0 is within the margin. The probability of any
    false one is at most alpha / m for an arm and alpha for the table, under any dependence and for any missing seeds.
    'Not worse' is one-sided non-inferiority. It is a separate question, chosen before the runs, since an arm that is
    worse by the margin may also be falsely called not worse with probability alpha / m. `Family.correction` is the m
    used.

    Bonferroni, not Holm: Holm's p has no interval that excludes 0 exactly when it is small, so a page that shows both
    would contradict itself. Not Dunnett, whose constants need one variance and one number of seeds for all arms.

    Args:
        differences: (..., n_arms, n_seeds), arm minus baseline on the same seed; nan where either is missing.
        margin: the largest difference that does not matter, in the metric's unit; None: equivalence is not tested.
        correction: m, where other arms belong to the family too, or a design of several looks splits alpha further
            (`sequential.Design.correction`); any number of at least 1.
        question: what is asked of each arm, which `claims` answers: 'better' (a difference, and equivalence where
            there is a margin), 'equivalent' or 'not_worse' alone.
        earlier_variance: see `moderation.noise`.

    Raises:
        ValueError: alpha is out of range, the margin is not above 0 or is missing where the question needs it, or as in
        `moderation.noise`.
    """
    check_level_and_margin(alpha, margin)
    check_question(question, margin)
    return _family(noise(differences, variance, earlier_variance), alpha, margin, correction, question)


def compare_scores(
    scores: ArrayLike,
    alpha: float = 0.05,
    margin: float | None = None,
    variance: Variance = "moderated",
    correction: float | None = None,
    question: Question = "better",
    pairing: Pairing = "seeds",
    earlier_variance: float | None = None,
) -> Family:
    """`compare_arms` of scores, (..., 1 + n_arms, n_seeds), the baseline's first; nan where a run is missing.

    pairing is chosen before the runs. 'seeds' compares an arm with the baseline on the same seed, which removes the
    luck that both share. 'none' treats all runs as independent, with Welch's test of moderated variances
    (`moderation.unpaired_noise`): right where arms have different seeds, or where a seed's luck is known not to carry
    over between arms. An `earlier_variance` is one of paired differences, and is ignored without pairs.

    Raises:
        ValueError: as `compare_arms`, or the pairing is unknown.
    """
    check_pairing(pairing)
    x = np.asarray(scores, dtype=np.float64)
    if pairing == "seeds":
        d = x[..., 1:, :] - x[..., :1, :]
        return compare_arms(d, alpha, margin, variance, correction, question, earlier_variance)
    check_level_and_margin(alpha, margin)
    check_question(question, margin)
    return _family(unpaired_noise(x, variance), alpha, margin, correction, question)


def _family(x: Noise, alpha: float, margin: float | None, correction: float | None, question: Question) -> Family:
    m = np.maximum((x.n > 1).sum(axis=-1, keepdims=True), 1) if correction is None else correction
    return Family(x, m, alpha, margin, question)


def claims(family: Family, higher_is_better: bool = True) -> NDArray[np.str_]:
    """The word of a `Verdict` for each arm, of shape (..., n_arms), which answers the family's question only.

    'real but smaller than the margin' means both: the difference is not 0, and lies within the margin. 'no difference
    shown' is not evidence of equivalence; arms with one seed or without spread also get it. If the question is only
    equivalence or non-inferiority, differences are not tested: an arm that does not show it is 'undecided'.
    """
    within = family.p_equivalence <= family.alpha
    if family.question == "equivalent":
        return np.where(within, Verdict.EQUIVALENT, Verdict.UNDECIDED)
    if family.question == "not_worse":
        is_shown = family.p_not_worse(higher_is_better) <= family.alpha
        return np.where(is_shown, Verdict.NOT_WORSE, Verdict.UNDECIDED)
    differs = family.p <= family.alpha
    is_gain = (family.noise.mean > 0) == higher_is_better
    words = [Verdict.SMALL, Verdict.EQUIVALENT, Verdict.BETTER, Verdict.WORSE]
    return np.select([differs & within, within, differs & is_gain, differs], words, Verdict.NO_DIFFERENCE)


def one_sided_share(is_own: bool, question: str) -> float:
    """The share of the error that one-sided tests use where arms have their own variances, or moderated ones."""
    return ONE_SIDED_SHARE if is_own else NOT_WORSE_SHARE if question == "not_worse" else 1.0


def check_question(question: str, margin: float | None) -> None:
    """Raises ValueError for an unknown question, or one that lacks its margin."""
    if question not in ("better", "equivalent", "not_worse"):
        raise ValueError(f"question must be better, equivalent or not_worse, got {question}")
    if question != "better" and margin is None:
        raise ValueError(
            f"margin must be a number where the question is {question}, got None: name the largest harmless loss"
        )


def check_level_and_margin(alpha: float, margin: float | None) -> None:
    """Raises ValueError unless alpha is a valid error and the margin is above 0."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be above 0 and below 0.5, got {alpha!r}: 0.05 is usual")
    if margin is not None and not (isfinite(margin) and margin > 0):
        raise ValueError(
            f"margin must be a finite number above 0, got {margin!r}: name the largest difference that does not matter"
        )


@dataclass(frozen=True)
class PartsTest:
    """The test of a statement with several parts: each part's mean gain and the ends of its interval, (..., n_parts).

    holds, is_wrong: whether the whole statement is shown, and whether the opposite of a part is; (...,).
    """

    mean: Floats
    low: Floats
    high: Floats
    holds: NDArray[np.bool_]
    is_wrong: NDArray[np.bool_]


def intersection_union(
    gains: ArrayLike,
    least: ArrayLike,
    most: ArrayLike,
    kinds: Sequence[str],
    alpha: float,
    variance: Variance = "moderated",
) -> PartsTest:
    """Tests a statement by the gains (..., k, n_seeds) of its k parts, all on the same seeds.

    With se and df from `moderation.noise`, taken over the parts of one kind (one outcome, one unit):

        low  = mean - t(1 - alpha, df) se         all low > least: it holds (Berger 1982, Technometrics 24, 295)
        high = mean + t(1 - alpha / k, df) se     any high < most: it is wrong

    A false statement is shown with probability at most alpha. One whose every gain is above its `most` is called wrong
    with probability at most alpha. A part with one seed or without spread leaves it open.

    Raises:
        ValueError: as `moderation.noise`.
    """
    x = np.asarray(gains, dtype=np.float64)
    mean, error, df = (np.full(x.shape[:-1], np.nan) for _ in range(3))
    for kind in dict.fromkeys(kinds):
        own = np.array([k == kind for k in kinds])
        found = noise(x[..., own, :], variance)
        mean[..., own], error[..., own], df[..., own] = found.mean, found.standard_error, found.df
    low = mean - stdtrit(df, 1 - alpha) * error
    high = mean + stdtrit(df, 1 - alpha / len(kinds)) * error
    holds = (low > least).all(axis=-1)
    return PartsTest(mean, low, high, holds, ~holds & (high < most).any(axis=-1))
