"""The score of an arm that was chosen because it looked best, corrected for having been chosen.

The best of several arms on val was lucky there, and the same trained weights were lucky on test too: its test score
flatters, though test took no part in the choice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.moderation import Floats, Variance


@dataclass(frozen=True)
class Headline:
    """The chosen arm's mean, as it is and corrected: floats, or arrays of the batch's shape.

    estimate: its mean over the seeds. corrected: the mean that other seeds should show. ci_low..ci_high covers the
    arm's true mean with probability 1 - alpha, whichever arm was chosen and however; nan where nothing is known.
    """

    estimate: Floats
    corrected: Floats
    ci_low: Floats
    ci_high: Floats
    n_candidates: int

    @property
    def flattery(self) -> Floats:
        """By how much the estimate probably flatters: estimate - corrected."""
        return self.estimate - self.corrected


def headline(values: ArrayLike, chosen: ArrayLike, alpha: float = 0.05, variance: Variance = "moderated") -> Headline:
    """The chosen arm's value with an interval that being chosen can't spoil, and shrunk for having been chosen.

    Interval: the simultaneous one over all m candidates, x_i +- t(1 - alpha / (2 m), df_i) se_i. All m cover at once
    with probability 1 - alpha, so the chosen arm's does too, whatever the rule, and though val and test luck correlate.

    Corrected: the best of m equal arms is above the truth by what the luckiest of m draws. Of the arms' means x_i with
    mean g, the part of their spread that is more than luck is kept (empirical Bayes):

        corrected = g + B (x_chosen - g)        B = max(0, 1 - (MS / n) / variance of the x_i)

    where MS is the mean square of what arm and seed leave unexplained (the luck that all arms share on a seed moves
    none above the others) and n the seeds. With two arms B rests on a single difference; with one arm corrected is
    the estimate.

    Args:
        values: (..., n_candidates, n_seeds): for 'how much better than the baseline' each candidate's paired
            differences, without the baseline; for 'how good' their scores, and then variance='plain', since scores of
            one seed share more luck than moderation allows for. Candidates are all arms that could have been chosen.
        chosen: the position of the chosen candidate, of shape (...,).

    Raises:
        ValueError: `chosen` is none of the candidates, a value is missing, or as `compare_arms`.
    """
    x = np.asarray(values, dtype=np.float64)
    position = np.asarray(chosen)
    family = compare_arms(x, alpha, variance=variance)
    m, n = x.shape[-2:]
    if np.any((position < 0) | (position >= m)):
        raise ValueError(f"chosen must be a position from 0 to {m - 1}, got {position.tolist()}")
    if np.isnan(x).any():
        raise ValueError("values must have every seed of every candidate, got nan: leave out arms that lack seeds")
    means = x.mean(axis=-1)  # (..., n_candidates)
    estimate, low, high = (
        np.take_along_axis(a, position[..., None], axis=-1)[..., 0] for a in (means, *family.interval)
    )
    return Headline(estimate, _shrunk(x, estimate) if m > 1 and n > 1 else estimate, low, high, m)


def _shrunk(x: Floats, estimate: Floats) -> Floats:
    """`headline`'s corrected: g + B (estimate - g)."""
    m, n = x.shape[-2:]
    means, grand = x.mean(axis=-1), x.mean(axis=(-2, -1))
    left = x - means[..., None] - x.mean(axis=-2)[..., None, :] + grand[..., None, None]
    luck = (left**2).sum(axis=(-2, -1)) / ((m - 1) * (n - 1)) / n
    spread = means.var(axis=-1, ddof=1)
    kept = np.where(spread > 0, np.maximum(0.0, 1 - luck / np.where(spread > 0, spread, 1.0)), 0.0)
    shrunk: Floats = grand + kept * (estimate - grand)
    return shrunk
