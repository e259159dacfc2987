"""Comparisons: the arms that saw the same images, each judged against one baseline, the best first."""

import math
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from reg_sweep.comparison.arms import Arm, make_arm
from reg_sweep.comparison.baseline import ArmError, default_baseline, named_baseline
from reg_sweep.comparison.judgement import ALPHA, judge, winners_headline
from reg_sweep.comparison.labels import GROUPS_WITH_OWN_SETTINGS, arm_labels, data_labels, flatten
from reg_sweep.comparison.results import TEST_ACCURACY, DataIdentity, Epoch, Result
from reg_sweep.comparison.wording import count
from reg_sweep.runs.record import METRIC, Metric, Status
from reg_sweep.stats.moderation import Variance
from reg_sweep.stats.selection import Headline
from reg_sweep.stats.sequential import Design


@dataclass
class Comparison:
    """The arms of the same data, the best first, compared with `baseline`.

    `label` names the data, and sets it apart from that of the other comparisons. `margin` is None where equivalence is
    not asked for. `trials` are the runs by which a search explored: they are no arms, and nothing is judged by them.
    `notes` are sentences that a reader needs to judge the numbers. `is_baseline_named` tells that the reader chose it.
    `design` is that of the study until a verdict that judged the arms, None without one; `n_looks` of its looks are
    done.
    """

    data: DataIdentity
    label: str
    metric: Metric
    epoch: Epoch
    margin: float | None
    variance: Variance
    arms: list[Arm]
    trials: list[Result]
    n_by_status: Counter[Status]
    notes: list[str] = field(default_factory=list)
    baseline: Arm | None = None
    is_baseline_named: bool = False
    design: Design | None = None
    n_looks: int = 0

    @property
    def alpha(self) -> float:
        """The error of what is tested beside the verdict: of 5% what the last look may spend, where looks ended it."""
        return ALPHA if self.design is None else self.design.level(self.n_looks - 1)

    @property
    def selected_on(self) -> Literal["val", "test"]:
        """Which images chose the best arm: val, or test where there are no val images."""
        return _selected_on(self.data)

    @property
    def selector(self) -> Metric:
        """The metric that ranks the arms; with `best_val` the val loss, which chose the epochs too."""
        return _selector(self.data, self.metric, self.epoch)

    @property
    def measured(self) -> list[Arm]:
        """The arms that have a complete run."""
        return [arm for arm in self.arms if arm.replicates]

    @property
    def ranked(self) -> list[Arm]:
        """The arms that may be best, the best first: the baseline, unless it diverged, and those that are ranked."""
        return [arm for arm in self.measured if _may_be_best(arm, self.baseline)]

    @property
    def best(self) -> Arm | None:
        """The ranked arm with the largest lead over the baseline; the baseline itself where none leads."""
        return next((arm for arm in self.arms if arm.replicates and _may_be_best(arm, self.baseline)), None)

    @property
    def n_seeds(self) -> int:
        """The seeds by which arms are judged: the baseline's."""
        return 0 if self.baseline is None else len(self.baseline.replicates)

    @property
    def winners_headline(self) -> Headline | None:
        """The best of the other arms' lead on test, corrected for having been chosen."""
        leader = next((arm for arm in self.ranked if arm is not self.baseline), None)
        if leader is None or self.baseline is None:
            return None
        return winners_headline(self.ranked, leader, self.baseline, self.metric, self.epoch, self.variance)

    @property
    def listed(self) -> list[Arm]:
        """The arms that are more than trials which a study gave up."""
        return [arm for arm in self.arms if arm.replicates or set(arm.n_by_status) != {"pruned"}]

    @property
    def held_fixed(self) -> dict[str, Any]:
        """The settings, flattened, that all arms share.

        One that belongs to a choice of its group, such as a ghost batch size, is shared by the arms that made it.
        """
        flat = [flatten(arm.config) for arm in self.arms]
        held = {}
        for key in dict.fromkeys(k for f in flat for k in f):
            values = [f.get(key) for f in flat]
            if key.startswith(GROUPS_WITH_OWN_SETTINGS):
                values = [v for v in values if v is not None] or [None]
            if all(v == values[0] for v in values):
                held[key] = values[0]
        return held


def make_comparisons(
    results: list[Result],
    *,
    metric: Metric = TEST_ACCURACY,
    epoch: Epoch = "last",
    margin: float | None = None,
    variance: Variance = "moderated",
    baseline: str | None = None,
    trials: Collection[Path] = (),
    problems: list[str] | None = None,
) -> list[Comparison]:
    """One comparison for each `DataIdentity`, the one with most runs first.

    `trials` are the folders of the runs that only explored. Runs that never came to their data (they failed before)
    belong to no comparison. What is wrong with a single run is added to `problems`.

    Raises:
        ArmError: `baseline` names no arm of any comparison, or several of one.
    """
    problems = [] if problems is None else problems
    explored = {os.path.realpath(path) for path in trials}
    by_data: dict[DataIdentity, list[Result]] = {}
    for r in results:
        if r.data is not None:
            by_data.setdefault(r.data, []).append(r)
    groups = sorted(by_data.items(), key=lambda item: len(item[1]), reverse=True)
    labels = data_labels([asdict(data) for data, _ in groups])
    comparisons = []
    for (data, runs), label in zip(groups, labels, strict=True):
        judged = [r for r in runs if os.path.realpath(r.path) not in explored]
        arms = _arms(data, judged, metric, epoch, problems)
        own_trials = [r for r in runs if os.path.realpath(r.path) in explored]
        statuses = Counter(r.status for r in judged)
        comparisons.append(Comparison(data, label, metric, epoch, margin, variance, arms, own_trials, statuses))
    chosen = [None if baseline is None else named_baseline(c.arms, baseline) for c in comparisons]
    if baseline is not None and any(c.measured for c in comparisons) and not any(chosen):
        known = "; ".join(dict.fromkeys(arm.label for c in comparisons for arm in c.measured[:20]))
        raise ArmError(f"--baseline must name one of the arms, got {baseline!r}: use one of {known}")
    for comparison, arm in zip(comparisons, chosen, strict=True):
        comparison.is_baseline_named = arm is not None
        comparison.baseline = arm or default_baseline(comparison.arms)
        _judge(comparison, problems)
    return comparisons


def _arms(data: DataIdentity, runs: list[Result], metric: Metric, epoch: Epoch, problems: list[str]) -> list[Arm]:
    by_arm: dict[str, list[Result]] = {}
    for r in runs:
        by_arm.setdefault(r.arm, []).append(r)
    selector = _selector(data, metric, epoch)
    labels = arm_labels([own[0].config for own in by_arm.values()])
    return [
        make_arm(own, called, metric, selector, epoch, problems)
        for own, called in zip(by_arm.values(), labels, strict=True)
    ]


def rejudge(comparison: Comparison, baseline: Arm, problems: list[str]) -> None:
    """Judges all arms anew, against another baseline."""
    comparison.baseline = baseline
    for arm in comparison.arms:
        arm.contrast, arm.verdict, arm.missing, arm.lead, arm.p_divergence = None, None, (), math.nan, math.nan
    _judge(comparison, problems)


def _judge(comparison: Comparison, problems: list[str]) -> None:
    """Judges the arms against the baseline, and arranges them."""
    base, c = comparison.baseline, comparison
    if base is not None:
        judge(
            c.arms,
            base,
            metric=c.metric,
            selector=c.selector,
            epoch=c.epoch,
            margin=c.margin,
            variance=c.variance,
            n_test=c.data.n_test,
            problems=problems,
        )
    arrange(c)


def arrange(comparison: Comparison) -> None:
    """Puts the best arm first: ranked, not ranked, without a complete run; and says what a reader needs to know."""
    base, c = comparison.baseline, comparison
    sign = 1 if c.selector.higher_is_better else -1

    def place(arm: Arm) -> tuple[bool, bool, float, float]:
        # Of arms with the baseline's own mean the baseline comes first: none leads.
        lead = 0.0 if arm is base else arm.lead
        is_ranked = _may_be_best(arm, base)
        score = -sign * arm.score if not math.isnan(arm.score) else math.inf
        return not arm.replicates, not is_ranked, (-lead if is_ranked else score), float(arm is not base)

    c.arms.sort(key=place)
    c.notes = [
        *_notes_on_repeats(c.arms),
        *_notes_on_selection(c.data, c.arms, c.epoch),
        *_notes_on_seeds(c),
        *_notes_on_divergence(c),
    ]


def _may_be_best(arm: Arm, base: Arm | None) -> bool:
    return not arm.has_diverged if arm is base else arm.is_ranked


def _selector(data: DataIdentity, metric: Metric, epoch: Epoch) -> Metric:
    return METRIC["val_loss"] if epoch == "best_val" and data.n_val > 0 else metric.on(_selected_on(data))


def _selected_on(data: DataIdentity) -> Literal["val", "test"]:
    return "val" if data.n_val > 0 else "test"


def _notes_on_repeats(arms: list[Arm]) -> list[str]:
    return [
        f"{arm.label}: {arm.n_repeated} {'run repeats' if arm.n_repeated == 1 else 'runs repeat'} a seed; "
        "the one that ended last counts."
        for arm in arms
        if arm.n_repeated
    ]


def _notes_on_selection(data: DataIdentity, arms: list[Arm], epoch: Epoch) -> list[str]:
    if data.n_val > 0 or not any(arm.replicates for arm in arms):
        return []
    notes = [
        "Chosen on test: without val images the best arm and the lambdas were chosen by the same test images that "
        "judge them, so a lead is optimistic."
    ]
    if epoch == "best_val":
        notes.append("Runs without val images count at their last epoch.")
    return notes


def _notes_on_seeds(comparison: Comparison) -> list[str]:
    """Which arms are not ranked for want of seeds, and what one seed or equal ones can't tell."""
    notes, base, n = [], comparison.baseline, comparison.n_seeds
    lacking = [arm for arm in comparison.measured if arm.missing and not arm.has_diverged]
    if lacking:
        each = [f"{arm.label} ({n - len(arm.missing)} of {count(n, 'seed')})" for arm in lacking]
        notes.append(
            f"Not ranked, since the seeds that are missing may be the unlucky ones: {_listed(each)}. "
            "Their differences are on the seeds in common."
        )
    tied = [arm.label for arm in comparison.measured if arm.contrast is not None and arm.contrast.is_tied]
    if tied:
        notes.append(
            f"No spread over seeds in {_listed(tied)}: every seed has the same difference from the baseline, from "
            "which no interval and no p can be had. Neither a difference nor equivalence is shown."
        )
    if base is not None and n == 1 and len(comparison.measured) > 1:
        notes.append(
            "One seed compares two trained models, not two methods: another seed would give other models. Intervals "
            "and p are over the test images (McNemar's exact test)."
        )
    return notes


def _notes_on_divergence(comparison: Comparison) -> list[str]:
    diverged = [arm for arm in comparison.arms if arm.has_diverged]
    if not diverged:
        return []
    each = [f"{arm.label} ({len(arm.diverged)} of {count(len(arm.tried), 'seed')})" for arm in diverged]
    return [
        f"Diverged: {_listed(each)}. The means there are of the seeds that did not; such an arm is never best nor "
        "better, and is judged by how often it diverges where the baseline does not (exact sign test; it takes at "
        "least five seeds)."
    ]


def _listed(labels: list[str], n: int = 3) -> str:
    more = f" and {len(labels) - n} more" if len(labels) > n else ""
    return ", ".join(labels[:n]) + more
