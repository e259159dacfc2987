"""Arms: grouping runs into replicates, their means, and differences between arms.

An arm is everything but the seed.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.labels import flatten
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_METRICS, Epoch, Result, WeightShares
from reg_sweep.runs.record import METRICS_FILE, Metric, Status
from reg_sweep.stats import estimates as stats
from reg_sweep.stats.judgement import Finding
from reg_sweep.stats.verdict import Verdict


@dataclass(frozen=True, eq=False)
class Arm:
    """One compared combination: its complete runs by seed, and the judge's finding.

    Attributes:
        estimates: the mean over seeds of each test metric, or of another program's score; None without runs.
        score: the mean of the metric that selects.
        n_repeated: the number of complete runs left out because they repeat a seed.
        places: where all its runs are.
        tried, failed, diverged: the seeds that were run, those that failed and never completed, those that diverged.
        finding: the result against the baseline; None for the baseline itself, and before the table is judged.
        lead: its lead over the baseline in the selecting metric, on the baseline's seeds; nan unless ranked.
    """

    digest: str
    config: dict[str, Any]
    label: str
    replicates: list[Result]
    n_by_status: Counter[Status]
    n_repeated: int
    estimates: dict[Metric, stats.Estimate | None]
    score: float
    places: list[tuple[Path, str]]
    tried: list[int]
    failed: list[int]
    diverged: list[int]
    finding: Finding | None = None
    lead: float = math.nan

    @property
    def verdict(self) -> Verdict | None:
        """The verdict; None for the baseline, and before the table is judged."""
        return None if self.finding is None else self.finding.verdict

    @property
    def is_compared(self) -> bool:
        """Whether it has seeds in common with the baseline, or either diverged: otherwise it is not ranked."""
        return self.finding is not None and self.finding.is_compared

    @property
    def contrast(self) -> Finding | None:
        """The finding, for an arm that has seeds in common with the baseline; else None."""
        return self.finding if self.finding is not None and self.finding.pairs else None

    @property
    def missing(self) -> tuple[int, ...]:
        """The baseline's seeds that this arm lacks."""
        return () if self.finding is None else self.finding.missing

    def scores(self, metric: Metric, epoch: Epoch) -> dict[int, float]:
        """Its scores by seed, as the judge takes them: nan where the run failed, infinite where it diverged."""
        ended = {r.seed: r.value(metric, epoch) for r in self.replicates}
        return dict.fromkeys(self.failed, math.nan) | ended | dict.fromkeys(self.diverged, math.inf)

    @property
    def is_ranked(self) -> bool:
        """Whether it may be best: no seed of it or the baseline was lost."""
        return not math.isnan(self.lead) and self.verdict is not Verdict.NOT_RANKED

    @property
    def seeds(self) -> list[int]:
        """The seeds of its replicates."""
        return [r.seed for r in self.replicates]

    def values(self, metric: Metric, epoch: Epoch = "last") -> list[float]:
        """Each replicate's value of a metric."""
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
            dead_channels=mean_of_known(s.dead_channels for s in shares),
        )

    @property
    def best_test(self) -> float:
        """The mean over runs of the best test accuracy of any epoch: optimistic, since test chose the epoch."""
        tops = [np.nanmax(r.curve(TEST_ACCURACY), initial=-math.inf) for r in self.replicates]
        return mean_of_known(t if math.isfinite(t) else math.nan for t in map(float, tops))

    @property
    def has_diverged(self) -> bool:
        """Whether any of its runs diverged."""
        return bool(self.diverged)


def families(arms: Iterable[Arm], keys: Collection[str]) -> list[list[Arm]]:
    """Groups of arms whose configs differ only in these keys; a key 'group.' covers all settings of a group."""
    found: dict[str, list[Arm]] = {}
    below = tuple(key for key in keys if key.endswith("."))
    for arm in arms:
        rest = {k: v for k, v in flatten(arm.config).items() if k not in keys and not k.startswith(below)}
        found.setdefault(repr(sorted(rest.items())), []).append(arm)
    return list(found.values())


def mean_of_known(values: Iterable[float]) -> float:
    """The mean of the values that are known; nan if none is."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else math.nan


def make_arm(
    runs: list[Result], label: str, metric: Metric, selector: Metric, epoch: Epoch, problems: list[str]
) -> Arm:
    """An arm from runs that share a digest: judged by `metric`, ranked by `selector`, not yet compared."""
    replicates, n_repeated = _replicates(runs, metric, epoch, problems)
    estimates = {}
    for shown in (metric,) if runs[0].is_foreign else dict.fromkeys([*TEST_METRICS, metric]):
        values = [v for r in replicates if math.isfinite(v := r.value(shown, epoch))]
        estimates[shown] = stats.mean_interval(values) if values else None
    return Arm(
        digest=runs[0].arm,
        config=runs[0].config,
        label=label,
        replicates=replicates,
        n_by_status=Counter(r.status for r in runs),
        n_repeated=n_repeated,
        estimates=estimates,
        score=mean_of_known(r.value(selector, epoch) for r in replicates),
        places=[r.key for r in runs],
        tried=sorted({r.seed for r in runs}),
        failed=sorted({r.seed for r in runs if r.status == "failed"} - {r.seed for r in replicates}),
        diverged=sorted({r.seed for r in runs if r.status == "diverged"}),
    )


def _replicates(runs: list[Result], metric: Metric, epoch: Epoch, problems: list[str]) -> tuple[list[Result], int]:
    """An arm's complete runs, one per seed, ordered by seed; and the number left out because they repeat a seed.

    Runs are left out if their metric is not a number, or if metrics.csv and the record disagree on the last epoch.
    """
    by_seed: dict[int, Result] = {}
    n_repeated = 0
    for r in sorted(runs, key=lambda r: r.ended):
        if r.status != "complete":
            continue
        n_epochs = r.last.get("epoch") if r.last is not None else None
        if not math.isfinite(r.value(metric, epoch)):
            problems.append(f"{r.path}: complete, but its {metric.name} is missing or not a finite number: left out")
        elif not r.is_foreign and len(r.curves) != n_epochs:
            problems.append(
                f"{r.path / METRICS_FILE}: {len(r.curves)} readable epochs, but run.json has {n_epochs}: left out"
            )
        else:
            n_repeated += r.seed in by_seed
            by_seed[r.seed] = r
    return [by_seed[seed] for seed in sorted(by_seed)], n_repeated
