"""Planning of more seeds: the smallest difference that an arm's seeds can show, and what more of them gain and cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm, mean_of_known
from reg_sweep.comparison.commands import next_seeds, sequential_study
from reg_sweep.comparison.compare import Comparison, differences
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.comparison.results import TEST_ACCURACY, Result
from reg_sweep.comparison.sentences import bounds, count, is_known, margin, points, size, words
from reg_sweep.runs.record import RecordError
from reg_sweep.stats.crossed import Crossed, crossed_difference
from reg_sweep.stats.family import Question
from reg_sweep.stats.judgement import ALPHA
from reg_sweep.stats.power import MOST_SEEDS, Chance, Plan, chance_to_beat
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

POWER = 0.8
SECOND_ALPHA = ALPHA / 2  # error of all follow-up studies on fresh seeds of a judged table together
N_PLANNED = 12  # arms whose cost is worked out for a sentence


@dataclass(frozen=True)
class Outlook:
    """An arm against the baseline, on the `n_seeds` that both have; unpaired, on the arm's.

    Attributes:
        difference: the observed mean difference.
        smallest: the smallest difference that this many seeds show with power `POWER`, averaged over the plausible
            spreads; nan where they show nothing. smallest_range: the same for a small and for a large spread.
        power_if_equal: where only equivalence or non-inferiority was asked, the probability that this many seeds show
            it of an arm exactly as good as the baseline; nan where a difference was asked. `smallest` is then nan.
        is_settled: whether a difference, or equivalence, was shown.
        seeds: the number of fresh seeds at which a sequential study would settle the arm if the observed difference is
            the true one; within a sequential study, the seeds of its later look that would. None if the arm is settled,
            the number is unknown, or it exceeds `power.MOST_SEEDS`.
        hours: the time of these runs, including the baseline's, from past runs' times; nan where no time is recorded.
        commands: start a sequential study on fresh seeds. The present seeds were already judged: testing them again
            with more would err more often than the table says. All such studies together have half of a table's error.
        max_seeds: the `max_seeds` to continue a sequential study with, by its own command.
        chance: the chances on a new seed; None without pairs.
        crossed: None where predictions of several seeds are not available.
    """

    arm: Arm
    n_seeds: int
    difference: float
    smallest: float
    smallest_range: tuple[float, float]
    is_settled: bool
    seeds: int | None
    chance: Chance | None
    crossed: Crossed | None
    power_if_equal: float = math.nan
    hours: float = math.nan
    commands: list[str] = field(default_factory=list)
    max_seeds: int | None = None


def outlooks(comparison: Comparison, problems: list[str], n_arms: int) -> list[Outlook]:
    """The outlook of the first `n_arms` arms that are compared with the baseline, in the order of the comparison.

    An arm's noise and correction are the verdict's, in a sequential study those of the arm's last look. Problems with
    predictions are added to `problems`.
    """
    base = comparison.baseline
    if base is None:
        return []
    rivals = [arm for arm in comparison.measured if arm is not base and _seen(arm, base, comparison).size]
    if not rivals:
        return []
    outcomes = _Outcomes(comparison, problems)
    alpha = SECOND_ALPHA / max(1, sum(map(_is_open, rivals)))
    return [_outlook(arm, base, comparison, _seen(arm, base, comparison), outcomes, alpha) for arm in rivals[:n_arms]]


def _seen(arm: Arm, base: Arm, comparison: Comparison) -> NDArray[np.float64]:
    """The differences on the seeds in common, (n_seeds,); without pairs, the mean difference for each of its runs."""
    if not comparison.is_paired:
        found = arm.contrast
        return np.full(0 if found is None else found.pairs, math.nan if found is None else found.difference.mean)
    d = differences([arm], base, comparison.metric, comparison.epoch)[0]
    return np.asarray(d[~np.isnan(d)], dtype=np.float64)


def _is_open(arm: Arm) -> bool:
    """Whether more seeds may settle an arm."""
    is_settled = arm.verdict is not None and arm.verdict.is_settled
    return arm.finding is not None and arm.finding.plan is not None and not is_settled and not arm.has_diverged


def _outlook(
    arm: Arm, base: Arm, comparison: Comparison, seen: NDArray[np.float64], outcomes: "_Outcomes", alpha: float
) -> Outlook:
    """seen: the paired differences, (n_seeds in common,). alpha: the error of the arm's study on fresh seeds."""
    plan = None if arm.finding is None else arm.finding.plan
    is_settled = arm.verdict is not None and arm.verdict.is_settled
    open_plan = plan if _is_open(arm) else None
    seeds, is_same_study = (None, False) if open_plan is None else _seeds_to_settle(open_plan, seen, comparison, alpha)
    first = next_seeds(comparison.arms, 1)[0]
    is_once = seeds is not None and not is_same_study
    n_new = 0 if seeds is None else seeds if is_once else seeds - seen.size
    asked, nothing = _fresh_design(comparison, alpha), (math.nan, math.nan)
    of_difference, of_margin = (plan, None) if asked.question == "better" else (None, plan)
    return Outlook(
        arm=arm,
        n_seeds=seen.size,
        difference=float(seen.mean()),
        smallest=of_difference.smallest_difference(seen.size, POWER) if of_difference else math.nan,
        smallest_range=of_difference.smallest_difference_range(seen.size, POWER) if of_difference else nothing,
        power_if_equal=of_margin.power_to_settle(asked.question, asked.margin, seen.size) if of_margin else math.nan,
        is_settled=is_settled,
        seeds=seeds,
        chance=chance_to_beat(seen, comparison.metric.higher_is_better, _level(arm, comparison))
        if comparison.is_paired
        else None,
        crossed=outcomes.crossed(arm, base) if comparison.is_paired else None,
        hours=_hours(arm, base, n_new),
        commands=sequential_study([base, arm], asked, first, n_new) if is_once else [],
        max_seeds=max(seeds, comparison.design.max_seeds) if seeds and comparison.design and is_same_study else None,
    )


def seeds_to_settle(arm: Arm, comparison: Comparison) -> tuple[int | None, float, bool]:
    """The seeds that would settle an arm if the observed difference is the true one, and the hours of their runs.

    As in `Outlook`. None and nan if no number up to `power.MOST_SEEDS` would settle it, or if it is unknown. And
    whether these are seeds of the present study, not fresh ones.
    """
    base, plan = comparison.baseline, None if arm.finding is None else arm.finding.plan
    if base is None or plan is None:
        return None, math.nan, False
    seen = _seen(arm, base, comparison)
    alpha = SECOND_ALPHA / max(1, sum(map(_is_open, comparison.measured)))
    seeds, is_same_study = _seeds_to_settle(plan, seen, comparison, alpha) if seen.size else (None, False)
    if seeds is None:
        return None, math.nan, False
    return seeds, _hours(arm, base, seeds - seen.size if is_same_study else seeds), is_same_study


def _level(arm: Arm, comparison: Comparison) -> float:
    """The level of an interval outside the verdict; after interim analyses, that of the arm's last one."""
    finding, design = arm.finding, comparison.design
    return 0.95 if design is None or finding is None or not finding.path else design.coverage(len(finding.path) - 1)


def _common(arm: Arm, base: Arm) -> list[int]:
    """The seeds that both have, ascending."""
    return sorted({r.seed for r in arm.replicates} & {r.seed for r in base.replicates})


def _seeds_to_settle(
    plan: Plan, found: NDArray[np.float64], comparison: Comparison, alpha: float
) -> tuple[int | None, bool]:
    """The seeds of the look that would show the observed difference, or equivalence, and whether it is this study's.

    `alpha` is the error of a study on fresh seeds.
    """
    sign, design = 1 if comparison.metric.higher_is_better else -1, comparison.design
    gain = sign * float(found.mean())
    if design is not None:
        seeds = _look_to_settle(plan, gain, design, comparison.n_looks, len(comparison.arms) - 1)
        if seeds is not None or design.spending == "open":
            return seeds, True
    return _look_to_settle(plan, gain, _fresh_design(comparison, alpha), 0, 1), False


def _question(comparison: Comparison) -> Question:
    return "better" if comparison.judgement is None else comparison.judgement.question


def _fresh_design(comparison: Comparison, alpha: float) -> Design:
    """The design of a study on fresh seeds that asks what the table asked, at an error of `alpha`."""
    judged = comparison.judgement
    if judged is None:
        return Design(alpha=alpha, margin=comparison.margin)
    return Design(
        alpha=alpha, margin=judged.margin, variance=judged.variance, question=judged.question, pairing=judged.pairing
    )


def _look_to_settle(plan: Plan, gain: float, design: Design, n_looks: int, n_arms: int) -> int | None:
    """The seeds of the first future look that would settle the arm.

    The looks are the planned ones, then ones that double the number of seeds. Each look's power is computed alone, as
    if no other were to come, so it is at worst too low.
    """
    while design.looks[-1] <= MOST_SEEDS:
        for look in range(n_looks, len(design.looks)):
            n, at = design.looks[look], replace(plan, correction=design.correction(look, n_arms))
            if at.power_to_settle(design.question, design.margin, n, gain) >= POWER:
                return n
        if design.spending == "all":
            return None
        n_looks, design = len(design.looks), design.until(2 * design.max_seeds)
    return None


def _hours(arm: Arm, base: Arm, n_seeds: int) -> float:
    if n_seeds == 0:
        return math.nan
    return n_seeds * sum(mean_of_known(r.seconds for r in a.replicates) for a in (arm, base)) / 3600


# ---- in words


def visible_text(comparison: Comparison, others: list[Arm]) -> str:
    """The smallest difference that these seeds could have shown."""
    metric = comparison.metric
    judged = [a for a in others if a.verdict is not Verdict.NOT_RANKED and a.contrast is not None]
    plans = [(a.finding.plan, a.contrast.pairs) for a in judged if a.finding is not None and a.contrast is not None]
    if not judged:
        return ""
    n = sorted({n for _, n in plans})
    seeds = count(n[0], "seed") if len(n) == 1 else f"{n[0]} to {count(n[-1], 'seed')}"
    question = _question(comparison)
    if question != "better":
        power = [plan.power_to_settle(question, comparison.margin, n) for plan, n in plans if plan is not None]
        return power_text(question, margin(comparison), power, f"With {seeds}")
    found = [plan.smallest_difference(n, POWER) for plan, n in plans if plan is not None]
    known = [x for x in found if math.isfinite(x)]
    if not known:
        return f"{seeds} give no estimate of how small a difference they could have shown."
    if metric.unit == "share" and min(known) >= 1:
        return f"With {seeds}, even the largest possible difference would be shown less than four times in five."
    unit = points(metric) or f" in {words(metric)}"
    low, high = (size(metric, x) for x in (min(known), max(known)))
    seen = f"{high}{unit}" if low == high else f"{low} to {high}{unit}, depending on the arm,"
    missed = "a smaller one would mostly be missed"
    if n_beyond := sum(x > bounds(metric)[1] for x in known):
        seen = f"{low}{unit} or more, depending on the arm,"
        missed = f"for {count(n_beyond, 'arm')} even the largest possible one would mostly be missed"
    return f"With {seeds}, a true difference of {seen} would be shown four times in five; {missed}."


def power_text(question: Question, margin: str, powers: Sequence[float], with_seeds: str) -> str:
    """'With 6 seeds, an arm as good as the baseline is shown not worse by ±1 points with a probability of 83%.'"""
    if not powers:
        return ""
    shown = f"not worse by a margin of {margin}" if question == "not_worse" else f"equivalent within {margin}"
    low, high = (f"{100 * f(powers):.0f}%" for f in (min, max))
    of = high if low == high else f"{low} to {high}, depending on the arm"
    return f"{with_seeds}, an arm exactly as good as the baseline is shown {shown} with a probability of {of}."


def cost_text(comparison: Comparison, others: list[Arm]) -> str:
    """The seeds and hours that would settle the arms of which nothing is shown."""
    is_open = (Verdict.NO_DIFFERENCE, Verdict.UNDECIDED)
    unsettled = [a for a in others if a.verdict in is_open and a.finding is not None and a.finding.plan is not None]
    planned = [(arm, *seeds_to_settle(arm, comparison)) for arm in unsettled[:N_PLANNED]]
    known = [(arm, n, hours, is_same) for arm, n, hours, is_same in planned if n is not None]
    if not planned:
        return ""
    if not known:
        return f"If the true differences are those seen, no open arm would be settled by {MOST_SEEDS:,} seeds."
    arm, n, hours, is_same_study = min(known, key=lambda of: of[1])
    fresh = "seeds in all" if is_same_study else "fresh seeds of it and of the baseline"
    said = f"If its true difference is the one seen, {arm.label} would be settled by about {n} {fresh}{_time(hours)}"
    dearest = max(known, key=lambda of: of[1])
    if dearest[1] > n:
        said += f"; {dearest[0].label} takes {dearest[1]:,}{_time(dearest[2])}"
    if len(known) < len(planned):
        said += f"; {count(len(planned) - len(known), 'arm')} would take more than {MOST_SEEDS:,}"
    return f"{said}."


def _time(hours: float) -> str:
    if not is_known(hours):
        return ""
    minutes = 60 * hours
    if hours >= 48:
        return f" ({hours / 24:,.0f} days)"
    if minutes >= 90:
        return f" ({hours:.1f} hours)"
    return f" ({count(round(minutes), 'minute')})" if minutes >= 1 else ""


class _Outcomes:
    """The test images that each run got right, read once, since the baseline's runs pair with every arm's."""

    def __init__(self, comparison: Comparison, problems: list[str]) -> None:
        # Predictions exist for the last epoch only, and give accuracy only.
        self._is_told = comparison.metric == TEST_ACCURACY and comparison.epoch == "last" and comparison.has_images
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
