"""One look at the arms of a study: the scores of their trials, handed to a design, and what it says as a record.

The design's class is named in the config, so that a study can be judged by any; here is what one must offer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reg_sweep.study_record import EQUIVALENT, UNDECIDED, WORSE_BY_DIVERGENCE, ArmLookJson, LookJson


class Noise(Protocol):
    """The paired differences of each arm, summed up."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of shape (n_arms,)."""


class Family(Protocol):
    """What a look has found."""

    @property
    def noise(self) -> Noise:
        """Each arm's mean."""

    @property
    def interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Each arm's simultaneous 1 - alpha interval, low and high."""

    @property
    def equivalence_interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Each arm's simultaneous 1 - 2 alpha interval: the one that lies within the margin where that was shown."""


class Design(Protocol):
    """When to look, and what a look says: differences are (n_arms, n_seeds), nan where there is no pair."""

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of seeds, ascending."""

    @property
    def alpha(self) -> float:
        """The error of the whole study."""

    @property
    def margin(self) -> float | None:
        """The largest difference that does not matter."""

    @property
    def variance(self) -> str:
        """How noise is estimated."""

    def until(self, max_seeds: int) -> "Design":
        """The design with its last look there."""

    def judge(self, differences: NDArray[np.float64], look: int) -> Family:
        """Estimates and intervals at a look, by its position."""

    def decide(self, differences: NDArray[np.float64], look: int, higher_is_better: bool) -> NDArray[np.str_]:
        """A word for each arm; 'undecided' asks for more seeds."""

    def correction(self, look: int, n_arms: int) -> float:
        """By what an arm's p at this look is multiplied before it is compared with alpha."""


def take_look(
    design: Design,
    position: int,
    arms: Sequence[Mapping[str, Any]],
    values: ArrayLike,
    decided_at: Mapping[int, int],
    higher_is_better: bool,
) -> LookJson:
    """Judges the arms that are undecided by their paired differences to the baseline, at the look of this position.

    An arm with a diverged seed is judged by how often it diverges alone, `p_divergence`, with the correction of the
    look: the mean of the seeds that went well says nothing of an arm that may go wrong.

    Args:
        arms: parameters of each; the first is the baseline.
        values: (n_arms, n_seeds), nan where a seed failed, infinite where it diverged.
        decided_at: the seeds of the look that decided an arm, by its position among those that are not the baseline.
    """
    scores = np.array(values, dtype=np.float64)
    finite = np.where(np.isfinite(scores), scores, np.nan)
    differences = finite[1:] - finite[:1]  # (n_arms - 1, n_seeds)
    for i, n in decided_at.items():
        differences[i, n:] = np.nan  # an arm that was decided is looked at no more
    decisions = design.decide(differences, position, higher_is_better)
    family = design.judge(differences, position)
    intervals = {EQUIVALENT: family.equivalence_interval}
    found: list[ArmLookJson] = []
    for i in range(len(differences)):
        if i in decided_at:
            continue
        decision, n_diverged = str(decisions[i]), int(np.isinf(scores[i + 1]).sum())
        low, high = intervals.get(decision, family.interval)  # the one that belongs to the claim
        if n_diverged > 0:
            p = p_divergence(scores[i + 1], scores[0]) * design.correction(position, len(differences))
            decision = WORSE_BY_DIVERGENCE if p <= design.alpha else UNDECIDED
        found.append(
            {
                "params": dict(arms[i + 1]),
                "decision": decision,
                "n_seeds": int(np.isfinite(differences[i]).sum()),
                "n_diverged": n_diverged,
                "n_failed": int(np.isnan(scores[i + 1]).sum()),
                "estimate": _finite(family.noise.mean[i]),
                "ci_low": _finite(low[i]),
                "ci_high": _finite(high[i]),
            }
        )
    return {"seeds": design.looks[position], "arms": found}


def p_divergence(arm: NDArray[np.float64], baseline: NDArray[np.float64]) -> float:
    """The p of 'the arm diverges no more often than the baseline': the exact sign test over their common seeds.

    P(X >= b), X heads of b + c fair coins: on b seeds the arm alone diverged, on c the baseline alone.
    """
    known = ~np.isnan(arm) & ~np.isnan(baseline)
    b = int((known & np.isinf(arm) & ~np.isinf(baseline)).sum())
    c = int((known & np.isinf(baseline) & ~np.isinf(arm)).sum())
    n_tails: int = sum(math.comb(b + c, k) for k in range(b, b + c + 1))
    return n_tails / float(2 ** (b + c))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
