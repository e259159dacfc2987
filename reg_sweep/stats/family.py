"""What a table of arms against one baseline has shown, with one error for all that it says.

Every arm's claims hold together: with probability 1 - alpha, no arm of the table is falsely called better, worse,
equivalent, or different at all. p, interval and word agree, because they are one statement: Bonferroni's, over arms.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr, stdtrit

from reg_sweep.stats.moderation import Floats, Noise, Variance, noise

Claim = Literal["better", "worse", "no difference shown", "shown equivalent", "real but smaller than the margin"]


@dataclass(frozen=True)
class Family:
    """The arms of a table against their baseline: arrays of shape (..., n_arms), nan where nothing can be said.

    correction is m, by which alpha is split over the arms. `p` and `interval` belong together, and `p_equivalence` and
    `equivalence_interval`; `p_alone` and `interval_alone` are the arm's as if it were the only one: for the details,
    not for a verdict.
    """

    noise: Noise
    correction: float | NDArray[np.int64]
    alpha: float
    margin: float | None

    @property
    def p(self) -> Floats:
        """The corrected p of 'there is no difference': min(1, m p_alone)."""
        p: Floats = np.minimum(self.correction * self.p_alone, 1.0)
        return p

    @property
    def interval(self) -> tuple[Floats, Floats]:
        """The simultaneous 1 - alpha interval, low and high. It leaves out 0 exactly where p <= alpha."""
        return self._within(self.alpha / (2 * self.correction))

    @property
    def p_equivalence(self) -> Floats:
        """The corrected p of 'the difference is the margin or more', either way; nan without a margin."""
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.abs(self.noise.mean) - (np.nan if self.margin is None else self.margin)
            p = stdtr(self.noise.df, excess / self.noise.standard_error)
        corrected: Floats = np.minimum(self.correction * p, 1.0)
        return corrected

    @property
    def equivalence_interval(self) -> tuple[Floats, Floats]:
        """The simultaneous 1 - 2 alpha interval. It lies within the margin exactly where p_equivalence <= alpha."""
        return self._within(self.alpha / self.correction)

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

    def _within(self, tail: float | Floats) -> tuple[Floats, Floats]:
        half = stdtrit(self.noise.df, 1 - np.asarray(tail)) * self.noise.standard_error
        return self.noise.mean - half, self.noise.mean + half


def compare_arms(
    differences: ArrayLike,
    alpha: float = 0.05,
    margin: float | None = None,
    variance: Variance = "moderated",
    correction: float | None = None,
) -> Family:
    """Tests each arm's mean difference to the baseline against 0 and against the margin, corrected for m arms.

    With se_i and df_i from `moderation.noise` and t(q, df) Student's quantile:

        interval     d_i +- t(1 - alpha / (2 m), df_i) se_i          p_i = min(1, m 2 P(T > |d_i| / se_i))
        equivalence  d_i +- t(1 - alpha / m, df_i) se_i              p_i = min(1, m P(T > (margin - |d_i|) / se_i))

    m counts the arms with at least two seeds. Both may be read at alpha: an arm's claims can't all be false, since a
    difference of 0 is within the margin; the chance of any false one is at most alpha / m for an arm, and alpha for
    the table, whatever depends on what and whichever seeds are missing.
    `Family.correction` is the m used.

    Bonferroni and not Holm: Holm's p has no interval that leaves out 0 exactly when it is small, and a page that shows
    both would contradict itself. Not Dunnett: his constants need one variance and one number of seeds for all arms.

    Args:
        differences: (..., n_arms, n_seeds), arm minus baseline on the same seed; nan where either is missing.
        margin: the largest difference that does not matter, in the metric's unit; None asks nothing of equivalence.
        correction: m, where other arms belong to the family too, or a design of several looks splits alpha further
            (`sequential.Design.correction`); any number of at least 1.

    Raises:
        ValueError: alpha is no share, the margin is not above 0, or as `moderation.noise`.
    """
    check_level_and_margin(alpha, margin)
    x = noise(differences, variance)
    m = np.maximum((x.n > 1).sum(axis=-1, keepdims=True), 1) if correction is None else correction
    return Family(x, m, alpha, margin)


def claims(family: Family, higher_is_better: bool = True) -> NDArray[np.str_]:
    """One `Claim` for each arm, of shape (..., n_arms).

    'real but smaller than the margin' is both: the difference is not 0, and lies within the margin. 'no difference
    shown' is no evidence of equivalence, and what an arm of one seed or without spread gets.
    """
    differs, within = family.p <= family.alpha, family.p_equivalence <= family.alpha
    is_gain = (family.noise.mean > 0) == higher_is_better
    words: list[Claim] = ["real but smaller than the margin", "shown equivalent", "better", "worse"]
    return np.select([differs & within, within, differs & is_gain, differs], words, "no difference shown")


def check_level_and_margin(alpha: float, margin: float | None) -> None:
    """Raises ValueError where alpha is no error of a table or the margin is not above 0."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must be above 0 and below 0.5, got {alpha!r}: 0.05 is usual")
    if margin is not None and not (isfinite(margin) and margin > 0):
        raise ValueError(
            f"margin must be a finite number above 0, got {margin!r}: name the largest difference that does not matter"
        )
