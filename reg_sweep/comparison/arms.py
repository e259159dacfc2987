"""From runs to arms: which runs are replicates of one arm, what the arm is called, and how arms compare.

An arm is everything but the seed. Arms are compared within a `Table`: the same images to train on, to choose by and to
test on, and one baseline.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison import stats
from reg_sweep.comparison.labels import GROUPS_WITH_OWN_SETTINGS, arm_labels, data_labels, flatten
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.records import METRICS_FILE, RecordError, Run

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
TEST_METRICS = ("test_accuracy", "test_loss")
EPOCHS = ("last", "best_val")

_ALPHA = 0.05


class ArmError(ValueError):
    """A baseline that names no arm, or several. The message is one line and names the arms there are."""


@dataclass(frozen=True)
class Data:
    """What runs were trained, chosen and tested on. Equal for runs that may be compared.

    `n_train` is None where a record does not count its train images.
    """

    name: str = field(compare=False)
    source: str = field(compare=False)
    fingerprint: str
    n_train: int | None
    label_noise: float
    n_val: int
    n_test: int


@dataclass(frozen=True)
class Result:
    """What the report keeps of one run: a few kilobytes, so that 10,000 of them fit.

    `data` is None where the run never came to it. `last` and `best_val` are rows of metrics.csv. `curves`
    (n_epochs, len(CURVES)) holds nan where a value is absent.
    """

    path: Path
    status: str
    seed: int
    arm: str
    config: dict[str, Any]
    data: Data | None
    last: dict[str, Any] | None
    best_val: dict[str, Any] | None
    curves: NDArray[np.float32]
    weights: dict[str, Any] | None
    layers: Any
    n_parameters: int | None
    seconds: float
    ended: str
    command: str
    message: str

    def value(self, metric: str, epoch: str = "last") -> float:
        """A metric at the last epoch or at the one that val chose; nan where it is absent."""
        row = self.best_val if epoch == "best_val" and self.best_val is not None else self.last
        value = None if row is None else row.get(metric)
        return math.nan if value is None else float(value)

    def curve(self, metric: str) -> NDArray[np.float32]:
        return self.curves[:, CURVES.index(metric)]

    def share(self, part: str, whole: str) -> float:
        """A share of the weights or kernels that the record counts; nan where it does not."""
        if self.weights is None or not self.weights.get(whole):
            return math.nan
        return float(self.weights[part]) / float(self.weights[whole])


def result(run: Run) -> Result:
    """The facts of a run that the report needs.

    Raises:
        RecordError: the record lacks what the report needs.
    """
    record = run.record
    try:
        config = run.config
        data = _data(record["data"] or {}, config)
        float(config["l1"]), float(config["l2"]), config["norm"]["name"], config["penalty"]["name"]  # what labels need
        if run.status == "complete" and data is None:
            raise ValueError("a complete run tells its data")
        curves = np.array([[_number(row.get(name)) for name in CURVES] for row in run.metrics], np.float32)
        command = record.get("command") or ""
        return Result(
            path=run.path,
            status=run.status,
            seed=int(run.seed),
            arm=run.arm,
            config=config,
            data=data,
            last=record.get("last") or (run.metrics[-1] if run.metrics else None),
            best_val=record.get("best_val"),
            curves=curves.reshape(-1, len(CURVES)),
            weights=record.get("weights"),
            layers=record.get("layers"),
            n_parameters=record.get("n_parameters"),
            seconds=_number(record.get("seconds")),
            ended=str(record.get("ended") or ""),
            command=command if isinstance(command, str) else " ".join(map(str, command)),
            message=str(record.get("message") or ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{run.path}: incomplete record ({type(error).__name__}: {error})") from None


def _data(facts: dict[str, Any], config: dict[str, Any]) -> Data | None:
    if not {"name", "source", "fingerprint", "n_val", "n_test"} <= facts.keys():
        return None
    n_train = facts.get("n_train")
    return Data(
        name=str(facts["name"]),
        source=str(facts["source"]),
        fingerprint=str(facts["fingerprint"]),
        n_train=None if n_train is None else int(n_train),
        label_noise=float(config["data"].get("label_noise") or 0.0),
        n_val=int(facts["n_val"]),
        n_test=int(facts["n_test"]),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


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
    """One compared combination: its complete runs by seed, and what they say. An estimate is None without runs."""

    digest: str
    config: dict[str, Any]
    label: str
    replicates: list[Result]
    n_by_status: Counter[str]
    estimates: dict[str, stats.Estimate | None] = field(default_factory=dict)
    score: float = math.nan  # the mean of the metric that selects
    contrast: Contrast | None = None

    def values(self, metric: str, epoch: str = "last") -> list[float]:
        return [r.value(metric, epoch) for r in self.replicates]

    def mean(self, values: Iterable[float]) -> float:
        """The mean of the values that are known; nan if none is."""
        known = [v for v in values if not math.isnan(v)]
        return sum(known) / len(known) if known else math.nan

    def curves(self, metric: str) -> NDArray[np.float64]:
        """(n_replicates, n_epochs), nan where a run has no such epoch."""
        length = max((len(r.curves) for r in self.replicates), default=0)
        rows = np.full((len(self.replicates), length), math.nan)
        for row, r in zip(rows, self.replicates, strict=True):
            row[: len(r.curves)] = r.curve(metric)
        return rows

    @property
    def best_test(self) -> float:
        """The mean over runs of the best test accuracy of any epoch: optimistic, since test chose the epoch."""
        tops = [np.nanmax(r.curve("test_accuracy"), initial=-math.inf) for r in self.replicates]
        return self.mean(t if math.isfinite(t) else math.nan for t in map(float, tops))

    @property
    def has_diverged(self) -> bool:
        return self.n_by_status["diverged"] > 0


@dataclass
class Table:
    """The arms of the same data, the best first, compared with `baseline`.

    `label` names the data, and sets it apart from that of the other tables. `selected_on` tells which images chose the
    best arm: val, or test where there are no val images. `notes` are sentences that a reader needs to judge the
    numbers. `is_baseline_named` tells that the reader chose the baseline.
    """

    data: Data
    label: str
    metric: str
    epoch: str
    margin: float
    selected_on: Literal["val", "test"]
    arms: list[Arm]
    baseline: Arm | None
    n_by_status: Counter[str]
    notes: list[str]
    is_baseline_named: bool = False

    @property
    def higher_is_better(self) -> bool:
        return self.metric.endswith("accuracy")

    @property
    def selector(self) -> str:
        """The metric that ranks the arms."""
        return self.metric.replace("test", self.selected_on)

    @property
    def measured(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.replicates]

    @property
    def best(self) -> Arm | None:
        """The arm with the best score; one with a diverged run can't be best."""
        return next((arm for arm in self.measured if not arm.has_diverged and not math.isnan(arm.score)), None)

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


def make_tables(
    results: list[Result],
    *,
    metric: str = "test_accuracy",
    epoch: str = "last",
    margin: float = 0.001,
    baseline: str | None = None,
    problems: list[str] | None = None,
) -> list[Table]:
    """One table for each `Data`, the one with most runs first.

    Runs that never came to their data (they failed before) belong to no table. What is wrong with a single run is
    added to `problems`.

    Raises:
        ArmError: `baseline` names no arm of any table, or several of one.
    """
    problems = [] if problems is None else problems
    by_data: dict[Data, list[Result]] = {}
    for r in results:
        if r.data is not None:
            by_data.setdefault(r.data, []).append(r)
    groups = sorted(by_data.items(), key=lambda item: len(item[1]), reverse=True)
    labels = data_labels([asdict(data) for data, _ in groups])
    tables = [
        _make_table(data, label, runs, metric, epoch, margin, problems)
        for (data, runs), label in zip(groups, labels, strict=True)
    ]
    chosen = [_find_baseline(table, baseline) for table in tables]
    if baseline is not None and tables and not any(chosen):
        known = "; ".join(dict.fromkeys(arm.label for table in tables for arm in table.measured[:20]))
        raise ArmError(f"--baseline must name one of the arms, got {baseline!r}: use one of {known}")
    for table, arm in zip(tables, chosen, strict=True):
        table.is_baseline_named = arm is not None
        table.baseline = arm or _default_baseline(table)
        _compare(table, problems)
    return tables


def _make_table(
    data: Data, label: str, results: list[Result], metric: str, epoch: str, margin: float, problems: list[str]
) -> Table:
    by_arm: dict[str, list[Result]] = {}
    for r in results:
        by_arm.setdefault(r.arm, []).append(r)
    labels = arm_labels([runs[0].config for runs in by_arm.values()])
    notes: list[str] = []
    arms = []
    for (digest, runs), called in zip(by_arm.items(), labels, strict=True):
        replicates, n_repeated = _replicates(runs, metric, epoch, problems)
        arm = Arm(digest, runs[0].config, called, replicates, Counter(r.status for r in runs))
        if n_repeated:
            runs_repeat = "run repeats" if n_repeated == 1 else "runs repeat"
            notes.append(f"{called}: {n_repeated} {runs_repeat} a seed; the one that ended last counts.")
        for name in TEST_METRICS:
            values = [v for v in arm.values(name, epoch) if math.isfinite(v)]
            arm.estimates[name] = stats.mean_interval(values) if values else None
        arms.append(arm)
    if data.n_val == 0 and any(arm.replicates for arm in arms):
        notes.append(
            "Chosen on test: without val images the best arm and the lambdas were chosen by the same test images that "
            "judge them, so a lead is optimistic."
        )
        if epoch == "best_val":
            notes.append("Runs without val images count at their last epoch.")
    table = Table(
        data=data,
        label=label,
        metric=metric,
        epoch=epoch,
        margin=margin,
        selected_on="val" if data.n_val > 0 else "test",
        arms=arms,
        baseline=None,
        n_by_status=Counter(r.status for r in results),
        notes=notes,
    )
    for arm in arms:
        arm.score = arm.mean(arm.values(table.selector, epoch))
    sign = -1 if table.higher_is_better else 1
    arms.sort(key=lambda a: (not a.replicates, math.isnan(a.score), sign * a.score if not math.isnan(a.score) else 0))
    diverged = [arm.label for arm in table.measured if arm.has_diverged]
    if diverged:
        notes.append(
            f"Some runs diverged in {_listed(diverged)}: the means there are of the runs that did not, "
            "and such an arm can't be best."
        )
    return table


def _replicates(runs: list[Result], metric: str, epoch: str, problems: list[str]) -> tuple[list[Result], int]:
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
            problems.append(f"{r.path}: complete, but its {metric} is missing or not a finite number: left out")
        elif len(r.curves) != n_epochs:
            problems.append(
                f"{r.path / METRICS_FILE}: {len(r.curves)} readable epochs, but run.json tells of {n_epochs}: left out"
            )
        else:
            n_repeated += r.seed in by_seed
            by_seed[r.seed] = r
    return [by_seed[seed] for seed in sorted(by_seed)], n_repeated


# ---- the baseline


_BASELINE_NORMS = ("bn", "none", "gbn", "gn", "ln", "in")


def _default_baseline(table: Table) -> Arm | None:
    """The arm without L1 and L2 that has the norm most arms use; without any such arm the one with the weakest penalty.

    Nothing here looks at a result: where arms tie, an order fixed beforehand decides.
    """
    norms = Counter(arm.config["norm"]["name"] for arm in table.arms)

    def rank(arm: Arm) -> tuple[float, int, int, int, str]:
        norm = arm.config["norm"]["name"]
        order = _BASELINE_NORMS.index(norm) if norm in _BASELINE_NORMS else len(_BASELINE_NORMS)
        strength = float(arm.config["l1"]) + float(arm.config["l2"])
        return strength, -norms[norm], order, -arm.n_by_status.total(), arm.label

    return min(table.measured, key=rank, default=None)


def _find_baseline(table: Table, wanted: str | None) -> Arm | None:
    """The measured arm that `wanted` names: by its label, or by settings such as `norm=bn,l1=0,l2=0`."""
    if wanted is None:
        return None
    named = [arm for arm in table.measured if _squeeze(arm.label) == _squeeze(wanted)]
    if not named and "=" in wanted:
        settings = dict(part.split("=", 1) for part in wanted.split(",") if "=" in part)
        named = [arm for arm in table.measured if _has_settings(flatten(arm.config), settings)]
    if len(named) > 1:
        raise ArmError(
            f"--baseline must name one arm, got {wanted!r}, which {len(named)} have: "
            f"use one of {'; '.join(arm.label for arm in named)}"
        )
    return named[0] if named else None


def _squeeze(label: str) -> str:
    return "".join(label.lower().replace("·", " ").split())


def _has_settings(flat: dict[str, Any], settings: dict[str, str]) -> bool:
    for key, wanted in settings.items():
        key, wanted = key.strip(), wanted.strip()
        value = flat.get(key, flat.get(f"{key}.name"))
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if float(wanted) != value:
                    return False
            except ValueError:
                return False
        elif str(value).lower() != wanted.lower():
            return False
    return True


# ---- the comparison


def _compare(table: Table, problems: list[str]) -> None:
    """Gives every arm but the baseline its contrast; Holm's correction is over all of them."""
    base = table.baseline
    if base is None:
        return
    contrasted = [
        (arm, *found)
        for arm in table.measured
        if arm is not base and (found := _difference(arm, base, table, problems)) is not None
    ]
    p_adjusted = stats.holm([difference.p for *_, difference, _, _ in contrasted])
    p_equivalence = stats.holm([p for *_, p in contrasted])
    for (arm, pairs, difference, by_image, _), p, p_within in zip(contrasted, p_adjusted, p_equivalence, strict=True):
        word = stats.verdict(difference, float(p), float(p_within), table.higher_is_better, _ALPHA)
        mean, baseline_mean = pairs.mean(axis=1)
        arm.contrast = Contrast(mean, baseline_mean, difference, float(p), word, pairs.shape[1], by_image)
    seeds = [r.seed for r in base.replicates]
    uneven = [a.label for a in table.measured if [r.seed for r in a.replicates] != seeds]
    if uneven:
        table.notes.append(
            f"Not every arm has the baseline's seeds ({_listed(uneven)}): differences are paired on the seeds that "
            "both have."
        )
    tied = [arm.label for arm, *_ in contrasted if arm.contrast is not None and arm.contrast.is_tied]
    if tied:
        table.notes.append(
            f"No spread over seeds in {_listed(tied)}: every seed has the same difference from the baseline, from "
            "which no interval and no p can be had. Neither a difference nor equivalence is shown."
        )
    if any(arm.contrast is not None and arm.contrast.by_image for arm in table.arms):
        table.notes.append(
            "With one seed in common McNemar's exact test and an interval over the test images compare two trained "
            "models, not two methods: another seed would give other models."
        )


def _difference(
    arm: Arm, base: Arm, table: Table, problems: list[str]
) -> tuple[NDArray[np.float64], stats.Difference, bool, float] | None:
    """An arm against the baseline on the seeds in common; None if there are none.

    Returns the metric's values (2, n_seeds), the difference, whether it is by image, and the equivalence test's p.
    """
    ours, theirs = ({r.seed: r for r in a.replicates} for a in (arm, base))
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    pairs = np.array([[runs[s].value(table.metric, table.epoch) for s in seeds] for runs in (ours, theirs)])
    # The predictions are those of the last epoch, and tell accuracies alone.
    if len(seeds) == 1 and table.metric == "test_accuracy" and table.epoch == "last":
        by_image = _by_image(ours[seeds[0]], theirs[seeds[0]], table.data.n_test, problems)
        if by_image is not None:
            return pairs, by_image, True, math.nan
    a, b = pairs
    return pairs, stats.paired_difference(a, b), False, stats.equivalence_p(a, b, table.margin)


def _by_image(ours: Result, theirs: Result, n_test: int, problems: list[str]) -> stats.Difference | None:
    try:
        a, b = (read_predictions(r.path, n_test) for r in (ours, theirs))
    except RecordError as error:
        note(problems, error)
        return None
    if not np.array_equal(a.label, b.label):
        note(problems, other_labels(ours.path))
        return None
    return stats.paired_accuracy_difference(a.correct, b.correct)


def _listed(labels: list[str], n: int = 3) -> str:
    more = f" and {len(labels) - n} more" if len(labels) > n else ""
    return ", ".join(labels[:n]) + more
