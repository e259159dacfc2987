"""One look at the arms of a study: the scores of their trials, handed to a design, and what it says as a record.

The design's class is named in the config, so that a study can be judged by any; here is what one must offer.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reg_sweep.runs.study import EQUIVALENT, ArmLookJson, LookJson


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

    def look_at(
        self, scores: NDArray[np.float64], look: int, decided_at: Mapping[int, int], higher_is_better: bool
    ) -> tuple[Family, NDArray[np.str_]]:
        """Estimates and intervals at a look, by its position, and a word for each arm; 'undecided' asks for more seeds.

        Scores are (1 + n_arms, n_seeds), the baseline's first: nan where a seed failed, infinite where it diverged.
        """


def take_look(
    design: Design,
    position: int,
    arms: Sequence[Mapping[str, Any]],
    values: ArrayLike,
    decided_at: Mapping[int, int],
    higher_is_better: bool,
) -> LookJson:
    """Judges the arms that are undecided by their scores beside the baseline's, at the look of this position.

    Args:
        arms: parameters of each; the first is the baseline.
        values: (n_arms, n_seeds), nan where a seed failed, infinite where it diverged.
        decided_at: the seeds of the look that decided an arm, by its position among those that are not the baseline.
    """
    scores = np.array(values, dtype=np.float64)
    family, decisions = design.look_at(scores, position, decided_at, higher_is_better)
    intervals = {EQUIVALENT: family.equivalence_interval}
    is_pair = np.isfinite(scores[1:]) & np.isfinite(scores[0])
    found: list[ArmLookJson] = []
    for i in range(len(is_pair)):
        if i in decided_at:
            continue
        decision = str(decisions[i])
        low, high = intervals.get(decision, family.interval)  # the one that belongs to the claim
        found.append(
            {
                "params": dict(arms[i + 1]),
                "decision": decision,
                "n_seeds": int(is_pair[i].sum()),
                "n_diverged": int(np.isinf(scores[i + 1]).sum()),
                "n_failed": int(np.isnan(scores[i + 1]).sum()),
                "estimate": _finite(family.noise.mean[i]),
                "ci_low": _finite(low[i]),
                "ci_high": _finite(high[i]),
            }
        )
    return {"seeds": design.looks[position], "arms": found}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
