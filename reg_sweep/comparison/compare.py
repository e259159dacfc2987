"""Comparisons: the arms that saw the same images, judged once against one baseline, the best first."""

import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm, make_arm
from reg_sweep.comparison.baseline import ArmError, default_baseline, named_baseline
from reg_sweep.comparison.labels import GROUPS_WITH_OWN_SETTINGS, arm_labels, data_labels, flatten
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.comparison.results import TEST_ACCURACY, DataIdentity, Epoch, Result
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.runs.record import METRIC, Metric, RecordError, Status
from reg_sweep.stats.judge import judge
from reg_sweep.stats.judgement import ALPHA, Finding, Judgement
from reg_sweep.stats.moderation import Variance
from reg_sweep.stats.selection import Headline, headline
from reg_sweep.stats.sequential import Design


@dataclass(frozen=True)
class Comparison:
    """A table: the arms that saw the same data, the best first, judged once against `baseline`.

    Attributes:
        label: names the data, and sets the table apart from the others.
        trials: the runs by which a search explored: they are no arms, and nothing is judged by them.
        judgement: of all arms, by their digests; None where no arm has a complete run.
        is_baseline_named: whether the reader, or the study, chose the baseline.
        study: the study until a verdict that bought these runs; None where nobody looked before the end.
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
    baseline: Arm | None = None
    is_baseline_named: bool = False
    judgement: Judgement[str] | None = None
    study: StudyRuns | None = None

    @property
    def design(self) -> Design | None:
        """The sequential design that judged the arms; None where all were analysed once."""
        return None if self.judgement is None else self.judgement.design

    @property
    def n_looks(self) -> int:
        """How many looks of that design are done."""
        return 0 if self.judgement is None else self.judgement.n_looks

    @property
    def alpha(self) -> float:
        """The error of tests beside the verdict: of 5% what the last look may spend, where looks ended it."""
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

    @cached_property
    def shrunken(self) -> Headline | None:
        """The lead on test of the best of the other arms, with its shrunken estimate: it was chosen among them.

        None where it was chosen from nothing, or one seed tells nothing of luck.
        """
        candidates = [arm for arm in self.ranked if arm is not self.baseline]
        if len(candidates) < 2 or self.n_seeds < 2 or self.baseline is None:
            return None
        values = differences(candidates, self.baseline, self.metric, self.epoch)
        return None if np.isnan(values).any() else headline(values, 0, ALPHA, self.variance)

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
    studies: Sequence[StudyRuns] = (),
    problems: list[str] | None = None,
) -> list[Comparison]:
    """One comparison for each `DataIdentity`, the one with most runs first.

    `trials` are the folders of the runs that only explored. Runs that never came to their data (they failed before)
    belong to no comparison. Whatever is wrong with a single run is added to `problems`.

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
    return [
        _judged(comparison, arm, [s for s in studies if s.saw(comparison.data)], problems)
        for comparison, arm in zip(comparisons, chosen, strict=True)
    ]


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


def _judged(c: Comparison, named: Arm | None, studies: Sequence[StudyRuns], problems: list[str]) -> Comparison:
    """The comparison with its judgement: by the design of the study that bought its runs, else of all at once."""
    for study in studies:
        base = _baseline_of(study, c, named)
        if base is not None:
            return _by_design(c, study, base, is_named=named is base or base is not default_baseline(c.arms))
    base = named or default_baseline(c.arms)
    if base is None:
        return _arranged(c)
    scores = {arm.digest: arm.scores(c.metric, c.epoch) for arm in c.arms}
    judgement = judge(
        scores,
        base.digest,
        higher_is_better=c.metric.higher_is_better,
        margin=c.margin,
        variance=c.variance,
        correct=_correct(c, base, problems) if len(base.seeds) == 1 else None,
    )
    return _arranged(_with(c, base, judgement, is_baseline_named=named is not None))


def _baseline_of(found: StudyRuns, c: Comparison, named: Arm | None) -> Arm | None:
    """The baseline of a study that judges this comparison; None where it does not."""
    design = found.study.design
    if design is None or not found.study.looks or c.metric.name != design.metric or c.epoch != "last":
        return None
    arm_of = {arm.digest: arm for arm in c.measured}
    base = arm_of.get(found.digest_of(design.baseline))
    if base is None or not arm_of.keys() <= found.digests or named not in (None, base):
        return None
    return base


def _by_design(c: Comparison, found: StudyRuns, base: Arm, *, is_named: bool) -> Comparison:
    judgement = found.judgement
    assert judgement is not None
    digests = {
        params: digest for params in (judgement.baseline, *judgement.arms) if (digest := found.digest_of(dict(params)))
    }
    by_digest = judgement.renamed(digests)
    c = replace(c, margin=judgement.margin, variance=judgement.variance, study=found)
    return _arranged(_with(c, base, by_digest, is_baseline_named=is_named))


def _with(c: Comparison, base: Arm, judgement: Judgement[str], *, is_baseline_named: bool) -> Comparison:
    arms = [
        arm if arm is base else replace(arm, finding=(f := judgement.arms.get(arm.digest)), lead=_lead(arm, f, base, c))
        for arm in c.arms
    ]
    return replace(c, arms=arms, baseline=base, judgement=judgement, is_baseline_named=is_baseline_named)


def _lead(arm: Arm, finding: Finding | None, base: Arm, c: Comparison) -> float:
    """How much better an arm is in the metric that selects, over the seeds that it was asked for."""
    if arm.has_diverged or finding is None or finding.missing or not base.replicates:
        return math.nan
    found = differences([arm], base, c.selector, c.epoch)[0]
    known = found[~np.isnan(found)]
    sign = 1 if c.selector.higher_is_better else -1
    return sign * float(known.mean()) if known.size else math.nan


def _arranged(c: Comparison) -> Comparison:
    """The comparison with the best arm first: ranked, not ranked, without a complete run."""
    base = c.baseline
    sign = 1 if c.selector.higher_is_better else -1

    def place(arm: Arm) -> tuple[bool, bool, float, float]:
        # Of arms with the baseline's own mean the baseline comes first: none leads.
        lead = 0.0 if arm is base else arm.lead
        is_ranked = _may_be_best(arm, base)
        score = -sign * arm.score if not math.isnan(arm.score) else math.inf
        return not arm.replicates, not is_ranked, (-lead if is_ranked else score), float(arm is not base)

    return replace(c, arms=sorted(c.arms, key=place))


def _may_be_best(arm: Arm, base: Arm | None) -> bool:
    return not arm.has_diverged if arm is base else arm.is_ranked


def _selector(data: DataIdentity, metric: Metric, epoch: Epoch) -> Metric:
    return METRIC["val_loss"] if epoch == "best_val" and data.n_val > 0 else metric.on(_selected_on(data))


def _selected_on(data: DataIdentity) -> Literal["val", "test"]:
    return "val" if data.n_val > 0 else "test"


# ---- differences of arms


def differences(arms: Sequence[Arm], base: Arm, metric: Metric, epoch: Epoch) -> NDArray[np.float64]:
    """Arm minus baseline, (n_arms, n_seeds): a column for each seed of the baseline, nan where the arm lacks it."""
    return paired(arms, base, lambda r: r.value(metric, epoch))


def paired(arms: Sequence[Arm], base: Arm, value: Callable[[Result], float]) -> NDArray[np.float64]:
    """The same of any value of a run."""
    theirs = [value(r) for r in base.replicates]
    rows = []
    for arm in arms:
        by_seed = {r.seed: value(r) for r in arm.replicates}
        rows.append([by_seed.get(r.seed, math.nan) - b for r, b in zip(base.replicates, theirs, strict=True)])
    return np.array(rows).reshape(len(arms), len(base.replicates))


# ---- one seed: which test images each model classifies correctly


def _correct(c: Comparison, base: Arm, problems: list[str]) -> dict[str, NDArray[np.bool_]]:
    """By arm, for McNemar's test; predictions are those of the last epoch, and tell accuracies alone."""
    if c.metric != TEST_ACCURACY or c.epoch != "last":
        return {}
    (theirs,) = base.replicates
    correct: dict[str, NDArray[np.bool_]] = {}
    for arm in c.arms:
        ours = next((r for r in arm.replicates if r.seed == theirs.seed), None)
        if arm is base or ours is None:
            continue
        try:
            a, b = (read_predictions(r.path, c.data.n_test) for r in (ours, theirs))
        except RecordError as error:
            note(problems, error)
            continue
        if not np.array_equal(a.label, b.label):
            note(problems, other_labels(ours.path))
            continue
        correct |= {arm.digest: a.correct, base.digest: b.correct}
    return correct
