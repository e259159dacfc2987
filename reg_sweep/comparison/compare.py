"""Comparisons: the arms of a table, judged once against one baseline, the best first."""

import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm, make_arm
from reg_sweep.comparison.grouping import Table, make_tables
from reg_sweep.comparison.labels import GROUPS_WITH_OWN_SETTINGS, arm_labels, flatten
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.comparison.question import ArmError, Asked, default_baseline, named_baseline, quoted
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_METRICS, DataIdentity, Epoch, Result, is_of_weights
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.runs.record import METRIC, Metric, RecordError, Status
from reg_sweep.stats.judge import judge
from reg_sweep.stats.judgement import ALPHA, Finding, Judgement
from reg_sweep.stats.moderation import Variance
from reg_sweep.stats.selection import ShrunkenEstimate, shrunken_estimate
from reg_sweep.stats.sequential import Design


@dataclass(frozen=True)
class Comparison:
    """A table: the arms that saw the same data, the best first, judged once against `baseline`.

    Attributes:
        label: names the data, and sets the table apart from the others.
        trials: the runs of searches: they are not arms and are not judged.
        judgement: the findings for all arms, by digest; None where no arm has a complete run.
        is_baseline_named: whether the reader, or the study, chose the baseline.
        study: the study that made these runs: sequential, a grid, or a search, whose runs are its trials; or None.
        newest: when the last of its runs ended, as ISO 8601; empty where none has.
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
    newest: str = ""

    @property
    def design(self) -> Design | None:
        """The sequential design that judged the arms; None where all were analysed once."""
        return None if self.judgement is None else self.judgement.design

    @property
    def n_looks(self) -> int:
        """The number of that design's interim analyses so far."""
        return 0 if self.judgement is None else self.judgement.n_looks

    @property
    def alpha(self) -> float:
        """The error of tests outside the verdict: 5%, or in a sequential design the last interim analysis's share."""
        return ALPHA if self.design is None else self.design.level(self.n_looks - 1)

    @property
    def selected_on(self) -> Literal["val", "test"]:
        """The images that chose the best arm: val, or test if there are no val images."""
        return "val" if self.data.n_val > 0 else "test"

    @property
    def has_images(self) -> bool:
        """Whether this project's trainer made the runs, so that they have images, norms and penalties."""
        return self.data.kind == "images"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that every arm's row shows: both test metrics, or another program's score."""
        return TEST_METRICS if self.has_images else (self.metric,)

    @property
    def selector(self) -> Metric:
        """The metric that ranks the arms; with `best_val` the val loss, which also chose the epochs."""
        return _selector(self.data, self.metric, self.epoch)

    @property
    def measured(self) -> list[Arm]:
        """The arms that have a complete run."""
        return [arm for arm in self.arms if arm.replicates]

    @property
    def ranked(self) -> list[Arm]:
        """The arms that may be best, best first: the ranked arms, and the baseline unless it diverged."""
        return [arm for arm in self.measured if _may_be_best(arm, self.baseline)]

    @property
    def best(self) -> Arm | None:
        """The ranked arm with the largest lead over the baseline; the baseline itself where none leads."""
        return next((arm for arm in self.arms if arm.replicates and _may_be_best(arm, self.baseline)), None)

    @property
    def is_paired(self) -> bool:
        """Whether arms are compared with the baseline seed by seed."""
        return self.judgement is None or self.judgement.pairing == "seeds"

    @property
    def compares_models(self) -> bool:
        """Whether the baseline has a single run, so that trained models are compared, not methods."""
        return self.judgement is not None and self.judgement.compares_models

    @property
    def n_seeds(self) -> int:
        """The number of seeds that arms are judged on: the baseline's."""
        return 0 if self.baseline is None else len(self.baseline.replicates)

    @cached_property
    def shrunken(self) -> ShrunkenEstimate | None:
        """The lead on test of the best of the other arms, and its shrunken estimate, corrected for selection.

        None with a single candidate (no selection), a single seed (unknown noise), or without pairs.
        """
        candidates = [arm for arm in self.ranked if arm is not self.baseline]
        if len(candidates) < 2 or self.n_seeds < 2 or self.baseline is None or not self.is_paired:
            return None
        values = differences(candidates, self.baseline, self.metric, self.epoch)
        return None if np.isnan(values).any() else shrunken_estimate(values, 0, ALPHA, self.variance)

    @property
    def listed(self) -> list[Arm]:
        """The arms, without trials that a study pruned."""
        return [arm for arm in self.arms if arm.replicates or set(arm.n_by_status) != {"pruned"}]

    @property
    def held_fixed(self) -> dict[str, Any]:
        """The settings, flattened, that all arms share.

        A setting that exists under one choice only, such as a ghost batch size, is compared only among arms with that
        choice.
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
    trials: Collection[Path] = (),
    studies: Sequence[StudyRuns] = (),
    problems: list[str] | None = None,
    together: bool = False,
    seen_before: Callable[[Comparison, Arm], str] = lambda comparison, baseline: "",
    **asked: Any,
) -> list[Comparison]:
    """The tables of all runs (`grouping.make_tables`), each judged against its own baseline, the newest first.

    A sequential study's runs are judged by its design; an arm outside it is in another table, with its own error.

    Args:
        trials: the folders of runs that belong to searches.
        problems: a list to which a line is added for each problem with a single run.
        together: whether runs of several protocols share the table of their data.
        seen_before: why a table against this baseline is no longer a valid test; empty where it is (`earlier`).
        asked: the fields of `Asked`.

    Raises:
        ArmError: `baseline` names no arm of any comparison, or several of one.
    """
    problems, wanted = [] if problems is None else problems, Asked(**asked)
    explored = {os.path.realpath(path) for path in trials}
    found = make_tables(results, studies, explored, together=together)
    return _all_judged([_comparison(table, wanted, problems) for table in found], wanted, seen_before, problems)


def _comparison(table: Table, asked: Asked, problems: list[str]) -> Comparison:
    """The arms of a table, not yet judged."""
    data, study = table.data, table.study
    fixed = None if study is None or study.study.design is None else METRIC.get(study.study.design.metric)
    metric = asked.metric or (fixed if fixed in TEST_METRICS else TEST_ACCURACY)
    epoch, variance = asked.epoch or "last", asked.variance or "moderated"
    if data.kind == "scores":
        metric, epoch = (*table.runs, *table.trials)[0].columns[0], "last"
    arms = _arms(data, table.runs, metric, epoch, problems)
    statuses = Counter(r.status for r in table.runs)
    untested = sum(r.best_val is not None and metric.of(r.best_val) is None for r in table.runs)
    if epoch == "best_val" and untested:
        problems.append(
            f"{table.label}: runs without a test value at their best epoch: {untested}; use test_epochs=every"
        )
    called, margin = table.label, asked.margin_of(metric)
    found = Comparison(data, called, metric, epoch, margin, variance, arms, table.trials, statuses)
    return replace(found, study=study, newest=table.newest)


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


def _all_judged(
    tables: list[Comparison], asked: Asked, seen_before: Callable[[Comparison, Arm], str], problems: list[str]
) -> list[Comparison]:
    wanted = asked.baseline
    chosen = [None if wanted is None else named_baseline(c.arms, wanted) for c in tables]
    if wanted is not None and any(c.measured for c in tables) and not any(chosen):
        known = quoted(arm.label for c in tables for arm in c.measured)
        raise ArmError(f"--baseline must name one of the arms, got {wanted!r}: use one of {known}")
    n_judged = sum(len(c.measured) > 1 for c in tables)
    alpha = ALPHA / max(n_judged, 1) if asked.error == "all" else ALPHA
    return [_judged(c, arm, asked, alpha, seen_before, problems) for c, arm in zip(tables, chosen, strict=True)]


def _judged(
    c: Comparison,
    named: Arm | None,
    asked: Asked,
    alpha: float,
    seen_before: Callable[[Comparison, Arm], str],
    problems: list[str],
) -> Comparison:
    """The comparison with its judgement: by the design of the runs' sequential study, else in one analysis."""
    sequential = c.study if c.study is not None and c.study.study.design is not None else None
    if sequential is not None:
        sequential = sequential.judged_at(alpha)
        c = replace(c, study=sequential)
        base = next((arm for arm in c.measured if arm.digest == sequential.baseline), None)
        reason = _not_asked_by(sequential, base, named, asked)
        if base is not None and not reason:
            return _by_design(c, sequential, base, is_named=named is base or base is not default_baseline(c.arms))
    else:
        base, reason = None, ""
    base = named or base or default_baseline(c.arms)
    if base is None:
        return _arranged(c)
    reason = reason or _lost_study(c)
    reason = reason or ("the weights are secondary to the test accuracy" if is_of_weights(c.metric) else "")
    judgement = judge(
        {arm.digest: arm.scores(c.metric, c.epoch) for arm in c.arms},
        base.digest,
        higher_is_better=c.metric.higher_is_better,
        margin=c.margin,
        variance=c.variance,
        question=asked.question or "better",
        pairing=asked.pairing or ("none" if _shares_no_seed(c) else "seeds"),
        correct=_correct(c, base, problems) if len(base.seeds) == 1 and c.has_images else None,
        exploratory=reason or (seen_before(c, base) if sequential is None else ""),
        alpha=alpha,
    )
    return _arranged(_with(c, base, judgement, is_baseline_named=named is not None))


def _shares_no_seed(c: Comparison) -> bool:
    """Whether these are another program's arms, no two of which have a seed in common."""
    seeds = [seed for arm in c.arms for seed in arm.tried]
    return not c.has_images and 1 < len(c.arms) < len(seeds) == len(set(seeds))


def _lost_study(c: Comparison) -> str:
    """Why runs of a sequential study whose design was not read get no verdict; empty for other runs."""
    bought = {r.bought_by for arm in c.arms for r in arm.replicates} - {""}
    if c.study is not None or not bought:
        return ""
    return (
        f"the sequential study {min(bought)} decided how many runs there are, and its study.json was not read: name "
        "its folder once it has ended (a killed study resumes with its command)"
    )


def _not_asked_by(found: StudyRuns, base: Arm | None, named: Arm | None, asked: Asked) -> str:
    """How a question about a study's runs differs from its design's; empty where they agree."""
    design, name = found.study.design, found.study.name
    assert design is not None
    if not found.study.looks:
        return f"no interim analysis of the study {name} is done yet"
    if base is None:
        return f"no complete run of the baseline of the study {name} was read"
    if named is not None and named is not base:
        return f"the study {name} asked for another baseline, {base.label}"
    differs = asked.differs_from(design)
    return f"the study {name} asked another question ({differs})" if differs else ""


def _by_design(c: Comparison, found: StudyRuns, base: Arm, *, is_named: bool) -> Comparison:
    judgement = found.judgement
    assert judgement is not None
    digests = {
        params: digest for params in (judgement.baseline, *judgement.arms) if (digest := found.digest_of(dict(params)))
    }
    c = replace(c, margin=judgement.margin, variance=judgement.variance)
    return _arranged(_with(c, base, judgement.renamed(digests), is_baseline_named=is_named))


def _with(c: Comparison, base: Arm, judgement: Judgement[str], *, is_baseline_named: bool) -> Comparison:
    c = replace(c, judgement=judgement)
    arms = [
        arm if arm is base else replace(arm, finding=(f := judgement.arms.get(arm.digest)), lead=_lead(arm, f, base, c))
        for arm in c.arms
    ]
    return replace(c, arms=arms, baseline=base, is_baseline_named=is_baseline_named)


def _lead(arm: Arm, finding: Finding | None, base: Arm, c: Comparison) -> float:
    """An arm's lead in the selecting metric: on the seeds it shares with the baseline or, unpaired, over all runs."""
    if arm.has_diverged or finding is None or finding.missing or not base.replicates:
        return math.nan
    sign = 1 if c.selector.higher_is_better else -1
    if not c.is_paired and finding.pairs:
        return sign * (arm.score - base.score)
    found = differences([arm], base, c.selector, c.epoch)[0]
    known = found[~np.isnan(found)]
    return sign * float(known.mean()) if known.size else math.nan


def _arranged(c: Comparison) -> Comparison:
    """The comparison with its arms sorted: ranked, best first; not ranked; without a complete run."""
    base = c.baseline
    sign = 1 if c.selector.higher_is_better else -1

    def place(arm: Arm) -> tuple[bool, bool, float, float]:
        # If an arm ties with the baseline, the baseline comes first: no arm leads.
        lead = 0.0 if arm is base else arm.lead
        is_ranked = _may_be_best(arm, base)
        score = -sign * arm.score if not math.isnan(arm.score) else math.inf
        return not arm.replicates, not is_ranked, (-lead if is_ranked else score), float(arm is not base)

    return replace(c, arms=sorted(c.arms, key=place))


def _may_be_best(arm: Arm, base: Arm | None) -> bool:
    return not arm.has_diverged if arm is base else arm.is_ranked


def _selector(data: DataIdentity, metric: Metric, epoch: Epoch) -> Metric:
    return (
        METRIC["val_loss"] if epoch == "best_val" and data.n_val > 0 else metric.on("val" if data.n_val > 0 else "test")
    )


# ---- differences of arms


def differences(arms: Sequence[Arm], base: Arm, metric: Metric, epoch: Epoch) -> NDArray[np.float64]:
    """Arm minus baseline, (n_arms, n_seeds): a column for each seed of the baseline, nan where the arm lacks it."""
    return paired(arms, base, lambda r: r.value(metric, epoch))


def paired(arms: Sequence[Arm], base: Arm, value: Callable[[Result], float]) -> NDArray[np.float64]:
    """The same for any value of a run."""
    theirs = [value(r) for r in base.replicates]
    rows = []
    for arm in arms:
        by_seed = {r.seed: value(r) for r in arm.replicates}
        rows.append([by_seed.get(r.seed, math.nan) - b for r, b in zip(base.replicates, theirs, strict=True)])
    return np.array(rows).reshape(len(arms), len(base.replicates))


# ---- one seed: which test images each model classifies correctly


def _correct(c: Comparison, base: Arm, problems: list[str]) -> dict[str, NDArray[np.bool_]]:
    """Each arm's correct images, for McNemar's test; predictions are of the last epoch, and give accuracy only."""
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
