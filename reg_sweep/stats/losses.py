"""Seeds that were lost: diverged, or failed. What may be said of an arm's mean when some of its seeds have no score."""

import numpy as np
from numpy.typing import ArrayLike

from reg_sweep.stats.estimates import DivergenceTest, divergence_test
from reg_sweep.stats.moderation import Pairing

WORSE_BY_DIVERGENCE = "worse by divergence"
BETTER_BY_DIVERGENCE = "better by fewer divergences"


def claim_after_losses(
    word: str, arm: ArrayLike, baseline: ArrayLike, level: float, is_gain: bool, pairing: Pairing = "seeds"
) -> tuple[str, DivergenceTest]:
    """The word for an arm whose means showed `word`, once lost seeds are counted, and the test of divergence.

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
