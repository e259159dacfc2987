"""What each arm's comparison with the baseline could have seen, and what more of it would bring and cost."""

import math
from dataclasses import dataclass, field
from itertools import count as count_from

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm, mean_of_known
from reg_sweep.comparison.commands import more_seeds
from reg_sweep.comparison.crossed import Crossed, crossed_difference
from reg_sweep.comparison.family import Family, claims, compare_arms
from reg_sweep.comparison.moderation import Variance
from reg_sweep.comparison.planning import Chance, Plan, chance_to_beat
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.comparison.results import TEST_ACCURACY, Result
from reg_sweep.comparison.tables import Comparison
from reg_sweep.records import RecordError

POWER = 0.8
_ALPHA = 0.05


@dataclass(frozen=True)
class Outlook:
    """An arm against the baseline, on the `n_seeds` that both have.

    difference: the mean that was seen. smallest: the smallest difference that so many seeds show with power `POWER`;
    nan where they show nothing. is_settled: whether a difference, or equivalence, was shown. seeds: how many would
    settle it if the arm differs by what was seen; None where it is settled, where nothing can be told, and where it
    takes more than `planning.MOST_SEEDS`. hours: of the runs that lack, the baseline's too, by what the runs took; nan
    where no record tells. commands train them. crossed: None where predictions of several seeds are not at hand.
    """

    arm: Arm
    n_seeds: int
    difference: float
    smallest: float
    is_settled: bool
    seeds: int | None
    chance: Chance
    crossed: Crossed | None
    hours: float = math.nan
    commands: list[str] = field(default_factory=list)


def outlooks(
    comparison: Comparison, problems: list[str], n_arms: int, variance: Variance = "moderated"
) -> list[Outlook]:
    """The outlook of the first `n_arms` arms that share a seed with the baseline, in the order of the comparison.

    The noise of an arm is that of the verdict: moderated by all arms of the table. What is wrong with predictions is
    added to `problems`.
    """
    base = comparison.baseline
    if base is None:
        return []
    rivals = [arm for arm in comparison.measured if arm is not base and _common(arm, base)]
    if not rivals:
        return []
    differences = paired_differences(rivals, base, comparison)
    family = compare_arms(differences, _ALPHA, comparison.margin, variance)
    words = claims(family, comparison.metric.higher_is_better)
    found = []
    outcomes = _Outcomes(comparison, problems)
    for i, arm in enumerate(rivals[:n_arms]):
        known = differences[i][~np.isnan(differences[i])]
        plan = _plan(family, i)
        is_settled = bool(words[i] != "no difference shown")
        seeds = None if plan is None or is_settled else _seeds_to_settle(plan, known, comparison.margin)
        missing = _new_seeds(arm, base, 0 if seeds is None else seeds - known.size)
        found.append(
            Outlook(
                arm=arm,
                n_seeds=known.size,
                difference=float(known.mean()),
                smallest=math.nan if plan is None else plan.smallest_difference(known.size, POWER),
                is_settled=is_settled,
                seeds=seeds,
                chance=chance_to_beat(known, comparison.metric.higher_is_better),
                crossed=outcomes.crossed(arm, base),
                hours=_hours(arm, base, len(missing)),
                commands=more_seeds([_command(base), _command(arm)], missing),
            )
        )
    return found


def paired_differences(arms: list[Arm], base: Arm, comparison: Comparison) -> NDArray[np.float64]:
    """(n_arms, n_seeds of the baseline): arm minus baseline on the same seed, nan where the arm lacks it."""
    metric, epoch = comparison.metric, comparison.epoch
    seeds = [r.seed for r in base.replicates]
    theirs = np.array([r.value(metric, epoch) for r in base.replicates])
    rows = np.full((len(arms), len(seeds)), math.nan)
    for row, arm in zip(rows, arms, strict=True):
        ours = {r.seed: r.value(metric, epoch) for r in arm.replicates}
        row[:] = [ours.get(seed, math.nan) for seed in seeds] - theirs
    return rows


def _common(arm: Arm, base: Arm) -> list[int]:
    """The seeds that both have, ascending."""
    return sorted({r.seed for r in arm.replicates} & {r.seed for r in base.replicates})


def _plan(family: Family, i: int) -> Plan | None:
    """The test of the arm at this position; None where it has no spread to plan with."""
    variance, df, n = (float(a[i]) for a in (family.noise.variance, family.noise.df, family.noise.n))
    if not variance > 0:
        return None
    correction = float(np.max(family.correction))
    return Plan(math.sqrt(variance), family.alpha, correction, max(df - (n - 1), 0.0))


def _seeds_to_settle(plan: Plan, differences: NDArray[np.float64], margin: float | None) -> int | None:
    """The fewest seeds, more than there are, that show a difference as large as the one seen, or equivalence."""
    seen, n = abs(float(differences.mean())), differences.size
    ways = [plan.seeds_for_difference(seen, POWER)]
    if margin is not None:
        ways.append(plan.seeds_for_equivalence(margin, seen, POWER))
    known = [w for w in ways if w is not None]
    return max(min(known), n + 1) if known else None


def _new_seeds(arm: Arm, base: Arm, n: int) -> list[int]:
    """The next `n` seeds that neither arm has."""
    first = max(r.seed for a in (arm, base) for r in a.replicates) + 1
    return [seed for seed, _ in zip(count_from(first), range(n), strict=False)]


def _hours(arm: Arm, base: Arm, n_seeds: int) -> float:
    if n_seeds == 0:
        return math.nan
    return n_seeds * sum(mean_of_known(r.seconds for r in a.replicates) for a in (arm, base)) / 3600


def _command(arm: Arm) -> str:
    return arm.replicates[0].command


class _Outcomes:
    """Which test images each run got right, read once: the baseline's runs pair with those of every arm."""

    def __init__(self, comparison: Comparison, problems: list[str]) -> None:
        # The predictions are those of the last epoch, and tell accuracies alone.
        self._is_told = comparison.metric == TEST_ACCURACY and comparison.epoch == "last"
        self._n_test, self._problems = comparison.data.n_test, problems
        self._read: dict[int, NDArray[np.bool_] | None] = {}
        self._labels: NDArray[np.int64] | None = None

    def crossed(self, arm: Arm, base: Arm) -> Crossed | None:
        """The arm against the baseline over seeds and images; None with one seed, or without predictions."""
        if not self._is_told or len(_common(arm, base)) < 2:
            return None
        ours, theirs = ({r.seed: r for r in a.replicates} for a in (arm, base))
        pairs = [(self._correct(ours[s]), self._correct(theirs[s])) for s in _common(arm, base)]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if len(known) < len(pairs):
            return None
        found = crossed_difference(np.stack([a for a, _ in known]), np.stack([b for _, b in known]))
        return found if math.isfinite(found.ci_low) else None

    def _correct(self, run: Result) -> NDArray[np.bool_] | None:
        key = id(run)
        if key not in self._read:
            self._read[key] = self._outcome(run)
        return self._read[key]

    def _outcome(self, run: Result) -> NDArray[np.bool_] | None:
        try:
            predictions = read_predictions(run.path, self._n_test)
        except RecordError as error:
            note(self._problems, error)
            return None
        if self._labels is None:
            self._labels = predictions.label
        if not np.array_equal(self._labels, predictions.label):
            note(self._problems, other_labels(run.path))
            return None
        return predictions.correct
