"""Scores of arms over seeds: as one array with pairs, failed and diverged seeds, and how lost seeds limit a claim."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

from reg_sweep.stats.estimates import DivergenceTest, divergence_test, finite_scores
from reg_sweep.stats.moderation import Floats, Pairing
from reg_sweep.stats.verdict import Verdict

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

    def failed(self, row: int, among: int | None = None) -> tuple[int, ...]:
        """The seeds, among the first `among`, on which an arm failed."""
        return self._where((self.reported[row] & np.isnan(self.values[row]))[:among])

    def diverged(self, row: int, among: int | None = None) -> tuple[int, ...]:
        """The seeds, among the first `among`, on which an arm diverged."""
        return self._where(np.isinf(self.values[row])[:among])

    def finite(self, row: int) -> tuple[int, ...]:
        """The seeds on which an arm has a finite score."""
        return self._where(np.isfinite(self.values[row]))

    def missing(self, row: int, among: int | None = None, *, paired: bool = True) -> tuple[int, ...]:
        """The baseline's seeds, among the first `among`, without a finite score of the arm.

        Without pairing, only seeds whose run ended without a score.
        """
        finite = np.isfinite(self.values)
        lacks = finite[0] & ~finite[row] if paired else self.reported[row] & ~finite[row]
        return self._where(lacks & (np.arange(lacks.size) < (lacks.size if among is None else among)))

    def ended(self, row: int, pairing: Pairing) -> tuple[Floats, Floats]:
        """The arm's and the baseline's scores, including nan and infinite; if paired, on the seeds that both ran."""
        if pairing == "none":
            return self.values[row][self.reported[row]], self.values[0][self.reported[0]]
        both = self.reported[row] & self.reported[0]
        return self.values[row][both], self.values[0][both]

    def has_lost_alone(self, row: int) -> bool:
        """Whether the arm or the baseline failed or diverged on a seed that the other one never ran."""
        is_lost = self.reported & ~np.isfinite(self.values)
        return bool(((is_lost[row] & ~self.reported[0]) | (is_lost[0] & ~self.reported[row])).any())

    def means(self, row: int, among: int | None = None, *, paired: bool = True) -> tuple[float, float]:
        """The arm's and the baseline's mean score over their pairs, of the first `among` seeds; unpaired, over all."""
        ours, theirs = self.values[row, :among], self.values[0, :among]
        if not paired:
            means = [float(np.mean(x[np.isfinite(x)])) if np.isfinite(x).any() else nan for x in (ours, theirs)]
            return means[0], means[1]
        both = np.isfinite(ours) & np.isfinite(theirs)
        return (float(np.mean(ours[both])), float(np.mean(theirs[both]))) if both.any() else (nan, nan)

    def differences(self, row: int, among: int | None = None) -> tuple[tuple[int, float], ...]:
        """(seed, arm minus baseline) of each pair, of the first `among` seeds."""
        d = self.values[row, :among] - np.where(np.isfinite(self.values[0, :among]), self.values[0, :among], nan)
        return tuple((seed, float(x)) for seed, x in zip(self.seeds, d, strict=False) if np.isfinite(x))

    def _where(self, holds: NDArray[np.bool_]) -> tuple[int, ...]:
        return tuple(self.seeds[i] for i in np.flatnonzero(holds))


def scores_of(
    table: Any, score: str | None = None, arm: str | Sequence[str] | None = None, seed: str = "seed"
) -> dict[Any, dict[int, float]]:
    """Scores as arm -> seed -> score, from a nested mapping or a data frame of pandas, polars or pyarrow.

    With `score` the frame is long, one row per run. Without it the frame is wide, one column per arm and one row per
    seed. The seed is in the column `seed` or in the index; a null score is a seed that the arm does not have.

    Args:
        table: the mapping, or the frame.
        score: the column of scores; null means a failed run, infinite a diverged run.
        arm: the columns that make an arm, whose name is their value, or a tuple of several values; None: the only
            column that is neither score nor seed.
        seed: the column of seeds.

    Raises:
        ValueError: a column is missing, a cell is not a score or not a seed, or two rows have the same arm and seed.
    """
    if hasattr(table, "collect"):  # a lazy frame
        table = table.collect()
    if not hasattr(table, "columns"):
        return _of_mapping(table)
    if score is None:
        seeds = _column(table, seed) if seed in _columns(table) else getattr(table, "index", None)
        if seeds is None:
            raise ValueError(_no_column("seed", seed, table))
        numbers = [_seed(value, f"row {row}") for row, value in enumerate(seeds, 1)]
        wide = {name: zip(numbers, _column(table, name), strict=True) for name in _columns(table) if name != seed}
        return {
            name: _of_seeds((c for c in cells if not _is_null(c[1])), f"column {name!r}")
            for name, cells in wide.items()
        }
    scores = _column(table, score)
    names = [arm] if isinstance(arm, str) else list(arm or _only_arm(table, score, seed))
    cells = zip(*(_column(table, name) for name in names), strict=True)
    found: dict[Any, dict[int, float]] = {}
    rows: dict[tuple[Any, int], int] = {}
    for row, (values, of_seed, value) in enumerate(zip(cells, _column(table, seed), scores, strict=True), 1):
        if any(_is_null(v) for v in values):
            raise ValueError(
                f"row {row}: {names[[_is_null(v) for v in values].index(True)]} must name an arm, got none"
            )
        key = (values if len(values) > 1 else values[0], _seed(of_seed, f"row {row}"))
        if key in rows:
            raise ValueError(
                f"rows must be one for each arm and seed, got {rows[key]} and {row} for {key[0]!r} and seed {key[1]}:"
                " keep the last epoch of each run, and average runs that repeat a seed"
            )
        rows[key] = row
        found.setdefault(key[0], {})[key[1]] = _score(value, f"row {row}")
    return found


def _of_mapping(table: Any) -> dict[Any, dict[int, float]]:
    if not hasattr(table, "items"):
        kind = type(table).__name__
        raise ValueError(f"scores must be a mapping (arm -> seed -> score) or a data frame, got {kind}")
    found = {}
    for name, of_seeds in table.items():
        if not hasattr(of_seeds, "items"):
            kind = type(of_seeds).__name__
            raise ValueError(f"scores of {name!r} must be a mapping, such as {{1: 0.98, 2: 0.97}} by seed, got {kind}")
        found[name] = _of_seeds(((_seed(s, repr(name)), v) for s, v in of_seeds.items()), repr(name))
    return found


def _of_seeds(cells: Iterable[tuple[int, Any]], place: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for seed, value in cells:
        if seed in found:
            raise ValueError(f"{place} must have one score for each seed, got two for seed {seed}")
        found[seed] = _score(value, f"{place}, seed {seed}")
    return found


def _score(value: Any, place: str) -> float:
    if _is_null(value):
        return nan
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: score must be a number, got {value!r}") from None


def _seed(value: Any, place: str) -> int:
    try:
        number = int(value)
        if not isinstance(value, bool | np.bool_) and (isinstance(value, str) or number == value):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{place}: seed must be a whole number, got {value!r}")


def _is_null(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _columns(table: Any) -> list[Any]:
    return list(getattr(table, "column_names", table.columns))  # pyarrow's columns are the cells


def _column(table: Any, name: Any) -> list[Any]:
    n = _columns(table).count(name)
    if n == 1:
        cells = table[name]
        return list(cells.to_pylist() if hasattr(cells, "to_pylist") else cells)
    if n == 0 and name in getattr(getattr(table, "index", None), "names", ()):
        return list(table.index.get_level_values(name))
    raise ValueError(_no_column("column", name, table) if n == 0 else f"column {name!r} must occur once, got {n}")


def _no_column(what: str, name: Any, table: Any) -> str:
    return f"{what} must be one of the columns ({', '.join(map(str, _columns(table)[:20]))}), got {name!r}"


def _only_arm(table: Any, score: str, seed: str) -> list[Any]:
    rest = [name for name in _columns(table) if name not in (score, seed)]
    if len(rest) != 1:
        known = ", ".join(map(str, rest[:20])) or "no other column"
        raise ValueError(f"arm must name the columns that make an arm, got none: there are {known}")
    return rest


def verdict_after_losses(
    shown: Verdict, arm: ArrayLike, baseline: ArrayLike, level: float, pairing: Pairing = "seeds"
) -> tuple[Verdict, DivergenceTest]:
    """The verdict on an arm after counting lost seeds, and the test of divergence.

    1. If one side diverges significantly more often, that is the verdict: 'worse by divergence', or 'better by fewer
       divergences'.
    2. Otherwise, if a seed of either side failed or diverged, the arm is 'undecided'. The means cover the seeds that
       went well, and leave out what a side may be bad at. Train failed seeds again.
    3. Otherwise, what the means show.

    The test is exact and two-sided (`estimates.divergence_test`). Failed seeds count against the side that it favours:
    as diverged there, and as not diverged on the other, so that no retraining can overturn it.

    Args:
        shown: what the means alone show, see `family.claims`.
        arm, baseline: scores on the same seeds, (n_seeds,): nan where a seed failed, infinite where it diverged.
        level: the level of the test: alpha, divided by its correction.
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
        return (Verdict.WORSE_BY_DIVERGENCE if excess > 0 else Verdict.BETTER_BY_DIVERGENCE), test
    is_whole = np.isfinite(ours).all() and np.isfinite(theirs).all()
    return (shown if is_whole else Verdict.UNDECIDED), test


def failure_rate_bound(n_failed: int, n: int, level: float = 0.95) -> float:
    """The failure rate that n seeds with n_failed failures can't exclude: Clopper and Pearson's upper bound.

    One-sided: the rate at which n_failed or fewer failures have probability 1 - level. Without a failure it is
    1 - (1 - level)^(1/n): 0.63 of three seeds, 0.31 of eight, 0.14 of twenty. It holds for any kind of
    failure: divergence, a crash, a collapse to a tenth of the accuracy.

    Raises:
        ValueError: n is below 1, n_failed is not from 0 to n, or the level is not between 0 and 1.
    """
    if not (n >= 1 and 0 <= n_failed <= n):
        raise ValueError(f"n_failed must be from 0 to n, and n at least 1, got {n_failed!r} of {n!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level!r}")
    return float(betaincinv(n_failed + 1, n - n_failed, level)) if n_failed < n else 1.0


def stray_seeds(values: ArrayLike, resolution: float = 0.0, alarm: float = 0.01) -> tuple[int, ...]:
    """Positions of outlying scores, for which the mean does not represent the arm; empty for fewer than five scores.

    Rosner's generalized ESD test (1983, Technometrics 25, 165-172), which finds several strays at once, up to a quarter
    of the seeds. The value farthest from the mean is removed repeatedly. With k values left,

        R = |x - mean| / sd    against    (k - 1) t / sqrt((k - 2 + t^2) k),    t = t(1 - alarm / (2 k), k - 2)

    The strays are all values removed up to the last step at which R is larger. On normal noise, at most a share `alarm`
    of arms with 5 to 7 seeds has any stray, and at most 1.5 times that share with up to 30 seeds.

    Args:
        resolution: the smallest step of the metric, 1 / n_images for an accuracy: the sd counts as no smaller, so that
            a score one image away from otherwise equal scores is not a stray.

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
