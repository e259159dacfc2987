"""Arms: which runs are replicates of one, what they say together, and how two arms differ.

An arm is everything but the seed.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison import stats
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_METRICS, Epoch, Result, WeightShares
from reg_sweep.records import METRICS_FILE, Metric, RecordError, Status


@dataclass(frozen=True)
class Contrast:
    """An arm against the baseline, on the `n_seeds` that both have.

    `mean` and `baseline_mean` are the metric over these seeds; `by_image` tells that McNemar's test was used.
    """

    mean: float
    baseline_mean: float
    difference: stats.Difference
    p_adjusted: float
    verdict: stats.Verdict
    n_seeds: int
    by_image: bool

    @property
    def is_tied(self) -> bool:
        """Whether several seeds differ from the baseline by the same, so that there is no interval and no p."""
        return self.n_seeds > 1 and math.isnan(self.difference.p)


@dataclass
class Arm:
    """One compared combination: its complete runs by seed, and what they say.

    An estimate is None without runs. `n_repeated` counts the complete runs that repeat a seed, and so are left out.
    `score` is the mean of the metric that selects.
    """

    digest: str
    config: dict[str, Any]
    label: str
    replicates: list[Result]
    n_by_status: Counter[Status]
    n_repeated: int
    estimates: dict[Metric, stats.Estimate | None]
    score: float
    contrast: Contrast | None = None

    def values(self, metric: Metric, epoch: Epoch = "last") -> list[float]:
        """A metric of each replicate."""
        return [r.value(metric, epoch) for r in self.replicates]

    def mean(self, metric: Metric) -> float:
        """The estimated mean of a test metric; nan without runs."""
        estimate = self.estimates[metric]
        return math.nan if estimate is None else estimate.mean

    def curves(self, metric: Metric) -> NDArray[np.float64]:
        """(n_replicates, n_epochs), nan where a run has no such epoch."""
        length = max((len(r.curves) for r in self.replicates), default=0)
        rows = np.full((len(self.replicates), length), math.nan)
        for row, r in zip(rows, self.replicates, strict=True):
            row[: len(r.curves)] = r.curve(metric)
        return rows

    @property
    def weight_shares(self) -> WeightShares:
        """The means over the replicates that count their weights."""
        shares = [r.weight_shares for r in self.replicates]
        return WeightShares(
            zero=mean_of_known(s.zero for s in shares),
            near_zero=mean_of_known(s.near_zero for s in shares),
            dead=mean_of_known(s.dead for s in shares),
        )

    @property
    def best_test(self) -> float:
        """The mean over runs of the best test accuracy of any epoch: optimistic, since test chose the epoch."""
        tops = [np.nanmax(r.curve(TEST_ACCURACY), initial=-math.inf) for r in self.replicates]
        return mean_of_known(t if math.isfinite(t) else math.nan for t in map(float, tops))

    @property
    def has_diverged(self) -> bool:
        """Whether a run of it diverged."""
        return self.n_by_status["diverged"] > 0


def mean_of_known(values: Iterable[float]) -> float:
    """The mean of the values that are known; nan if none is."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def make_arm(
    runs: list[Result], label: str, metric: Metric, selector: Metric, epoch: Epoch, problems: list[str]
) -> Arm:
    """The arm of runs that share its digest, judged by `metric` and ranked by `selector`, not yet compared."""
    replicates, n_repeated = _replicates(runs, metric, epoch, problems)
    estimates = {}
    for test_metric in TEST_METRICS:
        values = [v for r in replicates if math.isfinite(v := r.value(test_metric, epoch))]
        estimates[test_metric] = stats.mean_interval(values) if values else None
    return Arm(
        digest=runs[0].arm,
        config=runs[0].config,
        label=label,
        replicates=replicates,
        n_by_status=Counter(r.status for r in runs),
        n_repeated=n_repeated,
        estimates=estimates,
        score=mean_of_known(r.value(selector, epoch) for r in replicates),
    )


def _replicates(runs: list[Result], metric: Metric, epoch: Epoch, problems: list[str]) -> tuple[list[Result], int]:
    """The complete runs of an arm, one for each seed, in the order of seeds; and how many more repeat a seed.

    A run is left out whose metric is not a number, or whose metrics.csv does not end where its record does.
    """
    by_seed: dict[int, Result] = {}
    n_repeated = 0
    for r in sorted(runs, key=lambda r: r.ended):
        if r.status != "complete":
            continue
        n_epochs = r.last.get("epoch") if r.last is not None else None
        if not math.isfinite(r.value(metric, epoch)):
            problems.append(f"{r.path}: complete, but its {metric.name} is missing or not a finite number: left out")
        elif len(r.curves) != n_epochs:
            problems.append(
                f"{r.path / METRICS_FILE}: {len(r.curves)} readable epochs, but run.json tells of {n_epochs}: left out"
            )
        else:
            n_repeated += r.seed in by_seed
            by_seed[r.seed] = r
    return [by_seed[seed] for seed in sorted(by_seed)], n_repeated


# ---- two arms


@dataclass(frozen=True)
class Paired:
    """Two arms on the seeds that both have: a metric's values, (2, n_seeds), and what they differ by.

    `by_image` tells that the one seed in common was compared image by image; the equivalence test then has no p.
    """

    values: NDArray[np.float64]
    difference: stats.Difference
    p_equivalence: float
    by_image: bool


def paired(
    arm: Arm, base: Arm, metric: Metric, epoch: Epoch, margin: float, n_test: int, problems: list[str]
) -> Paired | None:
    """An arm against another on the seeds in common; None if there are none."""
    ours, theirs = ({r.seed: r for r in a.replicates} for a in (arm, base))
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    values = np.array([[runs[s].value(metric, epoch) for s in seeds] for runs in (ours, theirs)])
    # The predictions are those of the last epoch, and tell accuracies alone.
    if len(seeds) == 1 and metric == TEST_ACCURACY and epoch == "last":
        by_image = _difference_by_image(ours[seeds[0]], theirs[seeds[0]], n_test, problems)
        if by_image is not None:
            return Paired(values, by_image, math.nan, by_image=True)
    a, b = values
    return Paired(values, stats.paired_difference(a, b), stats.equivalence_p(a, b, margin), by_image=False)


def _difference_by_image(ours: Result, theirs: Result, n_test: int, problems: list[str]) -> stats.Difference | None:
    try:
        a, b = (read_predictions(r.path, n_test) for r in (ours, theirs))
    except RecordError as error:
        note(problems, error)
        return None
    if not np.array_equal(a.label, b.label):
        note(problems, other_labels(ours.path))
        return None
    return stats.paired_accuracy_difference(a.correct, b.correct)
