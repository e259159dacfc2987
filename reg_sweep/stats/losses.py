"""Lost and outlying seeds: when a mean does not represent the arm, and the failure rate that can't be excluded."""

from math import sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, stdtrit

from reg_sweep.stats.estimates import DivergenceTest, divergence_test, finite_scores
from reg_sweep.stats.moderation import Pairing

WORSE_BY_DIVERGENCE = "worse by divergence"
BETTER_BY_DIVERGENCE = "better by fewer divergences"


def claim_after_losses(
    word: str, arm: ArrayLike, baseline: ArrayLike, level: float, is_gain: bool, pairing: Pairing = "seeds"
) -> tuple[str, DivergenceTest]:
    """The word for an arm after counting lost seeds, and the test of divergence. Its means alone show `word`.

    1. Where one side diverges significantly more often, that is the verdict: 'worse by divergence', or 'better by
       fewer divergences'.
    2. Else, where a seed of either side failed, nothing is: 'undecided'. What it would have scored is not known, and
       runs may fail because they are bad. Train it again.
    3. Else, where the two sides diverged on different seeds (unpaired: on different numbers of them), nothing is: the
       means are of the seeds that went well, and leave out what one side is bad at.
    4. Else, where both diverged on the same seeds, a difference may be shown on the others, but neither equivalence
       nor non-inferiority: so few divergences don't show that both diverge equally often.

    The test is exact and two-sided (`estimates.divergence_test`). Failed seeds count against the side that it favours:
    as diverged there, and as not diverged on the other, so that no retraining can overturn it.

    Args:
        word: what the means show, a word of `family.claims` or 'undecided'.
        arm, baseline: scores on the same seeds, (n_seeds,): nan where a seed failed, infinite where it diverged.
        level: the level of the test: alpha, divided by its correction.
        is_gain: whether the arm's mean is on the better side: what 'real but smaller than the margin' falls back to.
    """
    ours, theirs = np.asarray(arm, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    lost, lost_there = np.isinf(ours), np.isinf(theirs)
    failed, failed_there = np.isnan(ours), np.isnan(theirs)
    excess = int(lost.sum()) - int(lost_there.sum())
    if excess > 0:
        test = divergence_test(lost, lost_there | failed_there, pairing)
    else:
        test = divergence_test(lost | failed if excess < 0 else lost, lost_there, pairing)
    if excess * test.direction > 0 and test.p <= level:
        return (WORSE_BY_DIVERGENCE if excess > 0 else BETTER_BY_DIVERGENCE), test
    if failed.any() or failed_there.any():
        return "undecided", test
    differ = bool((lost != lost_there).any()) if pairing == "seeds" else excess != 0
    if differ:
        return "undecided", test
    if not lost.any():
        return word, test
    if word == "real but smaller than the margin":
        return ("better" if is_gain else "worse"), test
    return (word if word in ("better", "worse") else "undecided"), test


def failure_rate_bound(n_failed: int, n: int, level: float = 0.95) -> float:
    """The rate of failure that n seeds with n_failed failures can't exclude: Clopper and Pearson's upper bound.

    One-sided: the rate at which n_failed or fewer failures have probability 1 - level. Without a failure it is
    1 - (1 - level)^(1/n): 0.63 of three seeds, 0.31 of eight, 0.14 of twenty. It holds for any kind of
    failure: divergence, a crash, a collapse to a tenth of the accuracy.

    Raises:
        ValueError: n is below 1, n_failed is none of n, or the level is no share.
    """
    if not (n >= 1 and 0 <= n_failed <= n):
        raise ValueError(f"n_failed must be one of n of at least 1, got {n_failed!r} of {n!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level!r}")
    return float(betaincinv(n_failed + 1, n - n_failed, level)) if n_failed < n else 1.0


def stray_seeds(values: ArrayLike, resolution: float = 0.0, alarm: float = 0.01) -> tuple[int, ...]:
    """Positions of outlying scores, for which the mean does not represent the arm; empty for fewer than five scores.

    Rosner's generalized ESD test (1983, Technometrics 25, 165-172), which finds several strays at once, of up to a
    quarter of the seeds. Of the k values left the one farthest from their mean is taken away, again and again, and

        R = |x - mean| / sd    against    (k - 1) t / sqrt((k - 2 + t^2) k),    t = t(1 - alarm / (2 k), k - 2)

    The strays are all that were taken away up to the last step at which R is larger. On normal noise some seed is
    called a stray in a share of at most `alarm` of arms of 5 to 7 seeds, and in at most 1.5 times that of up to 30.

    Args:
        resolution: the smallest step of the metric, 1 / n_images for an accuracy: the sd counts as no smaller, so that
            one image more or fewer beside equal scores is no stray.

    Raises:
        ValueError: a value is not finite.
    """
    x = finite_scores("values", values)
    left, taken, n_strays = list(range(x.size)), [], 0
    for _ in range(max(1, x.size // 4) if x.size >= 5 else 0):
        rest = x[left]
        sd = max(float(rest.std(ddof=1)), resolution)
        off = np.abs(rest - rest.mean())
        farthest, n = int(off.argmax()), len(left)
        if not sd > 0:
            break
        t = float(stdtrit(n - 2, 1 - alarm / (2 * n)))
        taken.append(left.pop(farthest))
        if off[farthest] / sd > (n - 1) * t / sqrt((n - 2 + t**2) * n):
            n_strays = len(taken)
    return tuple(sorted(taken[:n_strays]))
