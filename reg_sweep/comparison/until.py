"""The looks of a study until a verdict, judged again from its scores by the design that it fixed beforehand."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm, Verdict
from reg_sweep.comparison.judgement import differences
from reg_sweep.comparison.results import Result
from reg_sweep.comparison.tables import Comparison, arrange, rejudge
from reg_sweep.runs.record import METRIC
from reg_sweep.runs.study import UNDECIDED, ArmLook, Design, Study
from reg_sweep.stats import estimates as stats
from reg_sweep.stats import sequential
from reg_sweep.stats.family import Family
from reg_sweep.stats.moderation import Variance
from reg_sweep.stats.power import Plan, plan_of

Key = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Point:
    """An arm at a look of so many `seeds`: of `n_pairs` seeds, the mean difference to the baseline and its interval.

    The interval is the simultaneous one of all arms and looks, and p what belongs to it; nan where nothing is known.
    `plan` is the look's test of the arm, None without spread.
    """

    seeds: int
    n_pairs: int
    estimate: float
    ci_low: float
    ci_high: float
    p: float
    equivalence: stats.Difference
    decision: str
    plan: Plan | None


@dataclass
class Path:
    """An arm over the looks at which it was judged. `recorded` are the decisions that study.json holds of them."""

    params: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    n_diverged: int = 0
    n_failed: int = 0

    @property
    def decision(self) -> str:
        """What its last look decided."""
        return self.points[-1].decision if self.points else UNDECIDED

    @property
    def is_open(self) -> bool:
        """Whether no look has decided it."""
        return self.decision == UNDECIDED

    @property
    def agrees(self) -> bool:
        """Whether every look decides what the study itself decided."""
        return self.recorded == [p.decision for p in self.points]


def paths(study: Study, scores: Mapping[int, float]) -> list[Path]:
    """Each arm's path over the looks that a study has done, in the order of its design.

    An arm is judged until a look decides it, on the seeds that it and the baseline ended with a number. One that
    diverged on a seed is judged by how often it does, and by nothing else (`sequential.Design.look_at`).

    Args:
        scores: by the numbers of trials, what their runs' records say; for all others the study's own value counts.

    Raises:
        ValueError: the study has no design, or one that `sequential.Design` refuses.
    """
    recorded = study.design
    if recorded is None:
        raise ValueError(f"study {study.name} must have a design to be judged by")
    design = _tested(recorded)
    values = _values(study, scores)
    found = [Path(params) for params in recorded.arms]
    decided_at: dict[int, int] = {}
    for position, look in enumerate(study.looks):
        at_look = values[:, : look.seeds]
        family, words = design.look_at(at_look, position, decided_at, study.directions[0] == "maximize")
        said = {_key(arm.params): arm for arm in look.arms}
        for i, path in enumerate(found):
            if i in decided_at:
                continue
            path.points.append(_point(family, i, look.seeds, str(words[i])))
            path.n_diverged = int(np.isinf(at_look[i + 1]).sum())
            path.n_failed = int(np.isnan(at_look[i + 1]).sum())
            path.recorded.append(_said(said.get(_key(path.params))))
            if path.decision != UNDECIDED:
                decided_at[i] = look.seeds
    return found


def _tested(recorded: Design) -> sequential.Design:
    return sequential.Design(recorded.looks, recorded.alpha, recorded.margin, cast(Variance, recorded.variance))


def scores_of(study: Study, runs: Mapping[int, Result]) -> dict[int, float]:
    """What the runs' records say of the metric that the study judges by; runs and answer by the numbers of trials."""
    metric = None if study.design is None else METRIC.get(study.design.metric)
    if metric is None:
        return {}
    return {number: run.value(metric) for number, run in runs.items() if run.status == "complete"}


def judge_by_design(comparison: Comparison, study: Study, runs: Mapping[int, Result], problems: list[str]) -> bool:
    """Gives a comparison the margin, the baseline, the verdicts and the intervals of a study until a verdict.

    Only where the comparison is the study's: judged by its metric at the last epoch, with no arm beside the study's,
    and no other baseline asked for. An arm is ranked if it has the seeds that the design asked of it: a decided arm
    trains no more. Returns whether it was done.
    """
    design = study.design
    if design is None or not study.looks or comparison.metric.name != design.metric or comparison.epoch != "last":
        return False
    digest_of = {_key(t.params): runs[t.number].arm for t in study.trials if t.number in runs}
    arm_of = {arm.digest: arm for arm in comparison.measured}
    base = arm_of.get(digest_of.get(_key(design.baseline), ""))
    if base is None or not arm_of.keys() <= set(digest_of.values()):
        return False
    if comparison.baseline is not base and comparison.is_baseline_named:
        return False
    comparison.is_baseline_named |= comparison.baseline is not base  # the study named it
    comparison.margin, comparison.variance = design.margin, cast(Variance, design.variance)
    comparison.design, comparison.n_looks = _tested(design), len(study.looks)
    rejudge(comparison, base, problems)
    for path in paths(study, scores_of(study, runs)):
        arm = arm_of.get(digest_of.get(_key(path.params), ""))
        if arm is not None and path.points:
            _judge_arm(arm, path, base, comparison, design.first_seed)
    arrange(comparison)
    comparison.notes.append(
        f"Judged by the design of the study {study.name}: one error of {100 * design.alpha:g}% over all arms and its "
        f"looks at {', '.join(map(str, design.looks))} seeds. An arm that was decided trained no more."
    )
    return True


def _judge_arm(arm: Arm, path: Path, base: Arm, comparison: Comparison, first_seed: int) -> None:
    point = path.points[-1]
    arm.plan = point.plan
    asked = range(first_seed, first_seed + point.seeds)
    arm.missing = tuple(seed for seed in base.seeds if seed in asked and seed not in arm.seeds)
    arm.verdict = cast(Verdict, point.decision)
    if path.is_open:
        arm.verdict = "not ranked" if arm.missing or arm.has_diverged else "no difference shown"
    if arm.contrast is not None:
        shown = stats.Difference(point.estimate, point.ci_low, point.ci_high, point.p, point.n_pairs)
        arm.contrast = replace(arm.contrast, difference=shown, equivalence=point.equivalence, n_seeds=point.n_pairs)
    if not arm.missing and not arm.has_diverged:
        found = differences([arm], base, comparison.selector, comparison.epoch)[0]
        known = found[~np.isnan(found)]
        sign = 1 if comparison.selector.higher_is_better else -1
        arm.lead = sign * float(known.mean()) if known.size else math.nan


def _said(arm: ArmLook | None) -> str:
    return "nothing" if arm is None else arm.decision


def _point(family: Family, i: int, seeds: int, decision: str) -> Point:
    low, high = family.interval
    mean, p, n = float(family.noise.mean[i]), float(family.p[i]), int(family.noise.n[i])
    within = tuple(float(a[i]) for a in family.equivalence_interval)
    equivalence = stats.Difference(mean, within[0], within[1], float(family.p_equivalence[i]), n)
    return Point(seeds, n, mean, float(low[i]), float(high[i]), p, equivalence, decision, plan_of(family, i))


def _values(study: Study, scores: Mapping[int, float]) -> NDArray[np.float64]:
    """(1 + n_arms, n_seeds): nan where a seed failed or is missing, infinite where it diverged."""
    design = study.design
    assert design is not None
    n_seeds = max((look.seeds for look in study.looks), default=0)
    rows = {_key(params): i for i, params in enumerate([design.baseline, *design.arms])}
    values = np.full((len(rows), n_seeds), np.nan)
    for trial in study.trials:
        row = rows.get(_key(trial.params))
        column = int(trial.params.get("seed", -1)) - design.first_seed
        if trial.state == "complete" and row is not None and 0 <= column < n_seeds:
            value = scores.get(trial.number, math.nan)
            value = value if math.isfinite(value) else trial.values[0]
            values[row, column] = value if math.isfinite(value) else math.inf
    return values


def _key(params: Mapping[str, Any]) -> Key:
    """An arm's parameters, whatever its seed."""
    return tuple(sorted((name, value) for name, value in params.items() if name != "seed"))
