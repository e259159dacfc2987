"""Scores of arms over seeds as one array, with pairs, failed seeds and diverged seeds."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import nan
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from reg_sweep.stats.moderation import Floats, Pairing

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Scores(Generic[Key]):
    """The scores of arms over seeds, as an array.

    Attributes:
        names: the arms, the baseline first.
        seeds: in ascending order.
        values: (1 + n_arms, n_seeds), nan where a run failed or there is none, infinite where it diverged.
        reported: (1 + n_arms, n_seeds), whether there is a run at all.
    """

    names: list[Key]
    seeds: list[int]
    values: Floats
    reported: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: Mapping[Key, Mapping[int, float]], baseline: Key) -> "Scores[Key]":
        """The array of a nested mapping, arm -> seed -> score."""
        names = [baseline, *(name for name in scores if name != baseline)]
        seeds = sorted({seed for name in names for seed in scores[name]})
        column = {seed: i for i, seed in enumerate(seeds)}
        values = np.full((len(names), len(seeds)), nan)
        reported = np.zeros(values.shape, dtype=bool)
        for row, name in enumerate(names):
            for seed, score in scores[name].items():
                values[row, column[seed]], reported[row, column[seed]] = float(score), True
        return cls(names, seeds, values, reported)

    def failed(self, row: int) -> tuple[int, ...]:
        """The seeds on which an arm failed."""
        return self._where(self.reported[row] & np.isnan(self.values[row]))

    def diverged(self, row: int) -> tuple[int, ...]:
        """The seeds on which an arm diverged."""
        return self._where(np.isinf(self.values[row]))

    def finite(self, row: int) -> tuple[int, ...]:
        """The seeds on which an arm has a finite score."""
        return self._where(np.isfinite(self.values[row]))

    def missing(self, row: int, among: int | None = None, *, paired: bool = True) -> tuple[int, ...]:
        """The baseline's seeds, among the first `among`, without a finite score of the arm.

        Of runs that are not paired only those that ended without a score.
        """
        finite = np.isfinite(self.values)
        lacks = finite[0] & ~finite[row] if paired else self.reported[row] & ~finite[row]
        return self._where(lacks & (np.arange(lacks.size) < (lacks.size if among is None else among)))

    def ended(self, row: int, pairing: Pairing) -> tuple[Floats, Floats]:
        """The arm's and the baseline's scores, also nan and infinite ones; if paired, on the seeds that both ran."""
        if pairing == "none":
            return self.values[row][self.reported[row]], self.values[0][self.reported[0]]
        both = self.reported[row] & self.reported[0]
        return self.values[row][both], self.values[0][both]

    def has_lost_alone(self, row: int) -> bool:
        """Whether the arm or the baseline failed or diverged on a seed that the other one never ran."""
        is_lost = self.reported & ~np.isfinite(self.values)
        return bool(((is_lost[row] & ~self.reported[0]) | (is_lost[0] & ~self.reported[row])).any())

    def means(self, row: int, among: int | None = None) -> tuple[float, float]:
        """The arm's and the baseline's mean score over their pairs, of the first `among` seeds."""
        ours, theirs = self.values[row, :among], self.values[0, :among]
        both = np.isfinite(ours) & np.isfinite(theirs)
        return (float(np.mean(ours[both])), float(np.mean(theirs[both]))) if both.any() else (nan, nan)

    def _where(self, holds: NDArray[np.bool_]) -> tuple[int, ...]:
        return tuple(self.seeds[i] for i in np.flatnonzero(holds))
