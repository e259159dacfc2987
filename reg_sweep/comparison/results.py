"""A run's facts as a comparison needs them: what it was tested on, what it scored, what became of its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reg_sweep.records import METRIC, LayerFacts, Metric, MetricsRow, RecordError, Run, Status, WeightCounts

Epoch = Literal["last", "best_val"]
EPOCHS: tuple[Epoch, ...] = get_args(Epoch)
TEST_ACCURACY, TEST_LOSS = METRIC["test_accuracy"], METRIC["test_loss"]
TEST_METRICS = (TEST_ACCURACY, TEST_LOSS)
CURVES = tuple(METRIC.values())  # the columns of `Result.curves`


@dataclass(frozen=True)
class DataIdentity:
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
class WeightShares:
    """The shares of weights at zero and near it, and of kernels that are dead; nan where a record counts none."""

    zero: float
    near_zero: float
    dead: float


@dataclass(frozen=True)
class Result:
    """What a comparison keeps of one run: a few kilobytes, so that 10,000 of them fit.

    `data` is None where the run never came to it. `last` and `best_val` are rows of metrics.csv. `curves`
    (n_epochs, len(CURVES)) holds nan where a value is absent. `trial_params` are what a study proposed; None of a run
    that is no trial. `environment` tells by what the run was computed: device, processor, threads, the versions of
    libraries, commit; what its record does not tell is absent.
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

    def value(self, metric: Metric, epoch: Epoch = "last") -> float:
        """A metric at the last epoch or at the one that val chose; nan where it is absent."""
        row = self.best_val if epoch == "best_val" and self.best_val is not None else self.last
        return _number(metric.of(row))

    def curve(self, metric: Metric) -> NDArray[np.float32]:
        """A metric of each epoch, (n_epochs,)."""
        return self.curves[:, CURVES.index(metric)]

    @property
    def weight_shares(self) -> WeightShares:
        """What the record counts, as shares."""
        counts = self.weights
        if counts is None:
            return WeightShares(math.nan, math.nan, math.nan)
        n, n_kernels = counts.get("n"), counts.get("n_kernels")
        return WeightShares(
            zero=float(counts["n_zero"]) / n if n else math.nan,
            near_zero=float(counts["n_near_zero"]) / n if n else math.nan,
            dead=float(counts["n_dead_kernels"]) / n_kernels if n_kernels else math.nan,
        )


def result(run: Run) -> Result:
    """The facts of a run that a comparison needs.

    Raises:
        RecordError: the record lacks what a comparison needs.
    """
    record = run.record
    try:
        config = run.config
        data = _data_identity(record["data"] or {}, config)
        float(config["l1"]), float(config["l2"]), config["norm"]["name"], config["penalty"]["name"]  # what labels need
        if run.status == "complete" and data is None:
            raise ValueError("a complete run tells its data")
        curves = np.array([[_number(metric.of(row)) for metric in CURVES] for row in run.metrics], np.float32)
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
            layers=record.get("layers") or [],
            n_parameters=record.get("n_parameters"),
            seconds=_number(record.get("seconds")),
            ended=str(record.get("ended") or ""),
            command=_command(record.get("command")),
            message=str(record.get("message") or ""),
            environment=_environment(record),
            trial_params=_trial_params(record.get("trial")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{run.path}: incomplete record ({type(error).__name__}: {error})") from None


def _data_identity(facts: Mapping[str, Any], config: Mapping[str, Any]) -> DataIdentity | None:
    if not {"name", "source", "fingerprint", "n_val", "n_test"} <= facts.keys():
        return None
    n_train = facts.get("n_train")
    return DataIdentity(
        name=str(facts["name"]),
        source=str(facts["source"]),
        fingerprint=str(facts["fingerprint"]),
        n_train=None if n_train is None else int(n_train),
        label_noise=float(config["data"].get("label_noise") or 0.0),
        n_val=int(facts["n_val"]),
        n_test=int(facts["n_test"]),
    )


def _environment(record: Mapping[str, Any]) -> dict[str, str]:
    """By what a run was computed, as far as its record tells."""
    device = record.get("device") or {}
    facts = {"device": device.get("name"), "processor": device.get("processor"), "threads": device.get("threads")}
    facts |= record.get("versions") or {}
    facts["commit"] = record.get("git_commit")
    return {name: str(value) for name, value in facts.items() if value is not None}


def _trial_params(trial: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if trial is None else dict(trial.get("params") or {})


def _command(recorded: Any) -> str:
    """The command as one line; some records hold it as a list of words."""
    return recorded if isinstance(recorded, str) else " ".join(map(str, recorded or ()))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
