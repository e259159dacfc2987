"""A run's facts as a comparison needs them: what it was tested on, what it scored, what became of its weights.

For another program's run, the score is the metric that judges, and the settings are the config.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from reg_sweep.readers import names
from reg_sweep.readers.choose import Choice, ScoredRun
from reg_sweep.readers.foreign import Floats
from reg_sweep.runs.reading import Run
from reg_sweep.runs.record import METRIC, DataFacts, LayerFacts, Metric, MetricsRow, RunRecord, Status, WeightCounts

Epoch = Literal["last", "best_val"]
EPOCHS: tuple[Epoch, ...] = get_args(Epoch)
TEST_ACCURACY, TEST_LOSS = METRIC["test_accuracy"], METRIC["test_loss"]
TEST_METRICS = (TEST_ACCURACY, TEST_LOSS)
# Shares of the final weights, by the record's names. A table judged by one of them is exploratory.
WEIGHT_METRICS = {
    name: Metric(name, "test", "share", higher_is_better=True)
    for name in ("n_zero", "n_near_zero", "n_dead_kernels", "n_dead_channels")
}
CURVES = tuple(METRIC.values())  # the columns of `Result.curves`
_values = itemgetter(*(metric.name for metric in CURVES))
MAX_STEPS = 400  # in a table's curves; longer ones are thinned evenly


def is_of_weights(metric: Metric) -> bool:
    """Whether a metric counts final weights; another program's score of the same name does not."""
    return metric == WEIGHT_METRICS.get(metric.name)


@dataclass(frozen=True)
class DataIdentity:
    """The identity of the data that a run was trained on, chosen on and tested on. Equal for runs that may be compared.

    `n_train` is None where a record does not count its train images. Another program's runs are known by their scores
    alone: `kind` is 'scores', and nothing is counted.
    """

    name: str = field(compare=False)
    source: str = field(compare=False)
    fingerprint: str
    n_train: int | None
    label_noise: float
    n_val: int
    n_test: int
    kind: Literal["images", "scores"] = "images"


@dataclass(frozen=True)
class WeightShares:
    """The shares of weights at zero and near it, of dead kernels and output channels; nan where none is counted."""

    zero: float
    near_zero: float
    dead: float
    dead_channels: float


@dataclass(frozen=True)
class Result:
    """One run's results, as a comparison keeps them: a few kilobytes, so that 10,000 fit.

    `data` is None if the run never loaded its data. `last` and `best_val` are rows of metrics.csv. `curves` (n_epochs,
    len(CURVES)) holds nan where a value is absent. `trial_params` are what a study proposed, None for a run that is not
    a trial; `bought_by` names the sequential study that decided to train it. `class_names` are those that the data
    names, by label. `environment` describes what the run was computed on: device, processor, threads, ranks, versions
    of libraries, commit; facts missing from its record are absent.

    A run of another program has the metrics `columns`, the first of which judges it, at the steps `steps` of a `clock`;
    `place` is its place in the file `path`.
    """

    path: Path
    status: Status
    seed: int
    arm: str
    config: dict[str, Any]
    data: DataIdentity | None
    last: MetricsRow | None
    best_val: MetricsRow | None
    curves: NDArray[np.float32]
    weights: WeightCounts | None
    layers: list[LayerFacts]
    n_parameters: int | None
    seconds: float
    ended: str
    command: str
    message: str
    environment: Mapping[str, str]
    trial_params: Mapping[str, Any] | None
    bought_by: str = ""
    class_names: tuple[str, ...] = ()
    columns: tuple[Metric, ...] = CURVES
    steps: tuple[float, ...] = ()
    clock: str = "epoch"
    place: str = ""

    @property
    def key(self) -> tuple[Path, str]:
        """Identity of the run: its place."""
        return self.path, self.place

    def value(self, metric: Metric, epoch: Epoch = "last") -> float:
        """A metric at the last epoch or at the one that val chose; nan where it is absent.

        Weights are counted at the end of a run only, as shares of all weights or kernels.
        """
        if is_of_weights(metric):
            shares: tuple[float, ...] = astuple(self.weight_shares)
            return shares[list(WEIGHT_METRICS).index(metric.name)]
        row = self.best_val if epoch == "best_val" and self.best_val is not None else self.last
        return _number(metric.of(row))

    def curve(self, metric: Metric) -> NDArray[np.float32]:
        """A metric of each epoch, (n_epochs,); nan where the run lacks the metric."""
        if metric not in self.columns:
            return np.full(len(self.curves), math.nan, np.float32)
        return self.curves[:, self.columns.index(metric)]

    @property
    def is_foreign(self) -> bool:
        """Whether another program trained it."""
        return self.data is not None and self.data.kind == "scores"

    @property
    def weight_shares(self) -> WeightShares:
        """The record's counts of weights and kernels, as shares."""
        counts = self.weights
        if counts is None:
            return WeightShares(math.nan, math.nan, math.nan, math.nan)
        n, n_kernels, n_channels = counts["n"], counts["n_kernels"], counts.get("n_channels", 0)
        return WeightShares(
            zero=counts["n_zero"] / n if n else math.nan,
            near_zero=counts["n_near_zero"] / n if n else math.nan,
            dead=counts["n_dead_kernels"] / n_kernels if n_kernels else math.nan,
            dead_channels=counts.get("n_dead_channels", 0) / n_channels if n_channels else math.nan,
        )


def result(run: Run) -> Result:
    """The facts of a run that a comparison needs."""
    record, config, trial = run.record, run.config, run.record["trial"]
    rows = np.array([_values(row) for row in run.metrics], np.float64)  # None becomes nan
    with np.errstate(over="ignore"):  # a loss beyond a float32 is infinite on any axis
        curves = rows.reshape(-1, len(CURVES)).astype(np.float32)
    return Result(
        path=run.path,
        status=run.status,
        seed=run.seed,
        arm=run.arm,
        config=config,
        data=_data_identity(record["data"], config) if record["data"] else None,
        last=record["last"] or (run.metrics[-1] if run.metrics else None),
        best_val=record["best_val"],
        curves=curves,
        weights=record["weights"],
        layers=record["layers"],
        n_parameters=record["n_parameters"],
        seconds=record["seconds"] or sum(row["seconds"] or 0.0 for row in run.metrics) or math.nan,
        ended=record["ended"] or "",
        command=record["command"],
        message=record["message"] or "",
        environment=_environment(record),
        trial_params=None if trial is None else trial["params"],
        bought_by=trial["study"] if trial is not None and trial.get("sequential") else "",
        class_names=tuple((record["data"] or {}).get("class_names", ())),
    )


def _data_identity(facts: DataFacts, config: Mapping[str, Any]) -> DataIdentity:
    return DataIdentity(
        name=facts["name"],
        source=facts["source"],
        fingerprint=facts["fingerprint"],
        n_train=facts.get("n_train"),
        label_noise=float(config["data"].get("label_noise") or 0.0),
        n_val=facts["n_val"],
        n_test=facts["n_test"],
    )


def _environment(record: RunRecord) -> dict[str, str]:
    """The hardware, software and commit that a run was computed with."""
    device, commit = record["device"], record["git_commit"]
    facts = {"device": device["name"], "processor": device["processor"], "threads": str(device["threads"])}
    facts["ranks"] = str(record["config"]["runtime"].get("ranks", 1))
    facts |= {"population": "yes"} if device.get("population") else {}
    return facts | record["versions"] | ({} if commit is None else {"commit": commit})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def strangers(choice: Choice, called: str) -> list[Result]:
    """The results of another program's runs; `called` names the runs where they name no data set."""
    score = choice.score
    columns = (
        Metric(score.name, "score", score.unit, score.higher_is_better, score.digits),
        *(_curve_metric(name, choice.runs) for name in choice.curves[1:]),
    )
    steps = {name: _steps([r for r in choice.runs if r.dataset == name], columns) for name in _datasets(choice)}
    shared = _shared(choice)
    return [_stranger(r, columns, steps[r.dataset], shared, called, choice) for r in choice.runs]


def _datasets(choice: Choice) -> list[str]:
    return list(dict.fromkeys(r.dataset for r in choice.runs))


def _stranger(
    r: ScoredRun, columns: tuple[Metric, ...], steps: Floats, shared: dict[str, Any], called: str, choice: Choice
) -> Result:
    run, name = r.run, columns[0].name
    curves = np.full((len(steps), len(columns)), math.nan, np.float32)
    for i, metric in enumerate(columns):
        series = run.history.get(metric.name)
        if series is not None and steps.size:
            places = np.searchsorted(steps, series.steps)
            is_on = (places < steps.size) & (steps[np.minimum(places, steps.size - 1)] == series.steps)
            with np.errstate(over="ignore"):
                curves[places[is_on], i] = series.values[is_on]
    last: dict[str, float] = {"epoch": float(run.n_steps)}
    last |= {metric.name: series.last for metric in columns if (series := run.history.get(metric.name)) is not None}
    last[name] = r.value
    return Result(
        path=run.path,
        status=r.status,
        seed=r.seed,
        arm=hashlib.sha256(json.dumps(r.arm, sort_keys=True, default=str).encode()).hexdigest()[:16],
        config=r.arm | shared,
        data=DataIdentity(r.dataset or called, run.source, r.dataset, None, 0.0, 0, 0, "scores"),
        last=cast(MetricsRow, last),
        best_val=None,
        curves=curves,
        weights=None,
        layers=[],
        n_parameters=None,
        seconds=run.seconds,
        ended=run.ended,
        command="",
        message=r.message,
        environment={},
        trial_params={k: v for k, v in r.arm.items() if k != "seed"} if run.is_trial else None,
        bought_by=run.bought_by,
        columns=columns,
        steps=tuple(steps.tolist()),
        clock=choice.clock,
        place=run.place,
    )


def _curve_metric(name: str, runs: Sequence[ScoredRun]) -> Metric:
    """A metric that is not the score: a share, or a number."""
    values = np.concatenate([s.values for r in runs if (s := r.run.history.get(name)) is not None] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    higher = bool(names.direction(name))
    if names.is_accuracy(name) and values.size and values.min() >= 0 and values.max() <= 1:
        return Metric(name, "score", "share", higher)
    return Metric(name, "score", "number", higher)


def _steps(runs: Sequence[ScoredRun], columns: Sequence[Metric]) -> Floats:
    """The steps at which any run measured the score or, if none did, any metric."""
    for kept in (columns[:1], columns):
        histories = [
            s.steps for r in runs for m in kept if (s := r.run.history.get(m.name)) is not None and s.steps.size > 1
        ]
        if histories:
            found = np.unique(np.concatenate(histories))
            places = np.unique(np.linspace(0, found.size - 1, min(found.size, MAX_STEPS)).round().astype(int))
            return np.asarray(found[places], np.float64)
    return np.zeros(0)


def _shared(choice: Choice) -> dict[str, Any]:
    """The settings that all runs share and that do not distinguish arms."""
    n, seen = len(choice.runs), Counter[tuple[str, str]]()
    values: dict[str, Any] = {}
    for r in choice.runs:
        for key, value in r.run.settings.items():
            if key not in choice.arm_keys and names.role(key) in ("", "dataset"):
                seen[key, repr(value)] += 1
                values[key] = value
    return {key: values[key] for (key, _), times in seen.items() if times == n}
