"""A run's directory: what is written there, atomically, and how it is read back, tolerantly.

run.json             status, config, data, summary, versions; see `Run`
metrics.csv          one row an epoch, columns METRICS
predictions.npz      predicted (n_test,), probability (n_test,), label (n_test,)
weights.safetensors  the final weights
checkpoint.pt        while the run is unfinished
"""

import csv
import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast, get_args

from reg_sweep.config import arm_digest, digest
from reg_sweep.files import replacing

SCHEMA = 1
Status = Literal["running", "complete", "pruned", "diverged", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)


class MetricsRow(TypedDict):
    """One epoch, and the columns of metrics.csv. Losses are means over a split's images, accuracies shares of them.

    A split without images has None; so has what is not known yet.
    """

    epoch: float  # a whole number, counted from 1
    lr: float
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    penalty: float | None
    seconds: float | None
    images_per_s: float | None


METRICS: tuple[str, ...] = tuple(MetricsRow.__annotations__)


class DataFacts(TypedDict):
    """What a run was trained and judged on. `mean` and `std`: of the train pixels scaled to [0, 1], per channel.

    `in_shape` is an image's (C, H, W); the first records lack it.
    """

    name: str
    source: str
    fingerprint: str
    n_train: int
    n_val: int
    n_test: int
    n_classes: int
    mean: list[float]
    std: list[float]
    in_shape: NotRequired[list[int]]


class WeightCounts(TypedDict):
    """Weights of the weight tensors, those at zero and near it (`config.NEAR_ZERO`); kernels, and the dead ones."""

    n: int
    n_zero: int
    n_near_zero: int
    n_kernels: int
    n_dead_kernels: int


class LayerFacts(TypedDict):
    """A row of the table of layers. `receptive_field` is a side in input pixels, None where it can't be told."""

    name: str
    output: list[int]
    n_parameters: int
    receptive_field: int | None


class DeviceFacts(TypedDict):
    """Where a run computed: torch's device, its CPU threads, the processor's name."""

    name: str
    threads: int
    processor: str


class TrialFacts(TypedDict):
    """The trial of a study that a run belongs to."""

    study: str
    number: int
    params: dict[str, Any]


class RunRecord(TypedDict):
    """run.json. `last` and `best_val` are rows of metrics.csv: the last epoch's, and the one with the best val loss."""

    schema: int
    status: Status
    name: str
    config: dict[str, Any]
    digest: str
    data: DataFacts
    epochs_done: int
    last: MetricsRow | None
    best_val: MetricsRow | None
    weights: WeightCounts | None
    layers: list[LayerFacts]
    n_parameters: int | None
    versions: dict[str, str]
    git_commit: str | None
    device: DeviceFacts
    seconds: float
    started: str
    ended: str | None
    command: str
    message: str | None
    trial: TrialFacts | None


Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv that runs are judged by."""

    name: str
    split: Split
    unit: Literal["share", "nats"]
    higher_is_better: bool

    def of(self, row: MetricsRow | None) -> float | None:
        """Its value in a row; None where it is absent."""
        return None if row is None else cast(dict[str, float | None], row).get(self.name)

    def on(self, split: Split) -> "Metric":
        """The same quantity on another split."""
        return METRIC[self.name.replace(self.split, split)]


def _metrics() -> Iterator[Metric]:
    for split in get_args(Split):
        yield Metric(f"{split}_loss", split, "nats", higher_is_better=False)
        yield Metric(f"{split}_accuracy", split, "share", higher_is_better=True)


METRIC: dict[str, Metric] = {metric.name: metric for metric in _metrics()}

RUN_FILE = "run.json"
METRICS_FILE = "metrics.csv"
PREDICTIONS_FILE = "predictions.npz"
WEIGHTS_FILE = "weights.safetensors"
CHECKPOINT_FILE = "checkpoint.pt"
STUDY_FILE = "study.json"  # in a sweep's directory: what the study found, for readers without Optuna


class RecordError(Exception):
    """A run's directory that can't be read. The message names the file and what is wrong with it."""


@dataclass
class Run:
    """One run as it lies on disk.

    `metrics` are the rows of metrics.csv: an absent value is None, a value that is not finite is itself.
    """

    path: Path
    record: RunRecord
    metrics: list[MetricsRow] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """How the run stands."""
        return self.record["status"]

    @property
    def config(self) -> dict[str, Any]:
        """All settings, as `config.to_dict` writes them."""
        return self.record["config"]

    @property
    def seed(self) -> int:
        """What every random draw of the run follows from."""
        seed: int = self.config["seed"]
        return seed

    @property
    def arm(self) -> str:
        """Replicates of one arm share this digest."""
        return arm_digest(self.config)


def new_record(
    *,
    name: str,
    config: dict[str, Any],
    data: DataFacts,
    versions: dict[str, str],
    git_commit: str | None,
    device: DeviceFacts,
    started: str,
    command: str,
    trial: TrialFacts | None,
) -> RunRecord:
    """The record of a run that is about to begin, or to continue: nothing measured yet."""
    return {
        "schema": SCHEMA,
        "status": "running",
        "name": name,
        "config": config,
        "digest": digest(config),
        "data": data,
        "epochs_done": 0,
        "last": None,
        "best_val": None,
        "weights": None,
        "layers": [],
        "n_parameters": None,
        "versions": versions,
        "git_commit": git_commit,
        "device": device,
        "seconds": 0.0,
        "started": started,
        "ended": None,
        "command": command,
        "message": None,
        "trial": trial,
    }


def write_record(directory: Path, record: RunRecord) -> None:
    """Writes run.json, atomically. Numbers that are not finite become null: JSON has no word for them."""
    text = json.dumps(_finite(record), indent=1, allow_nan=False)
    with replacing(directory / RUN_FILE) as file:
        file.write(text.encode() + b"\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def write_metrics(directory: Path, rows: list[MetricsRow]) -> None:
    """Writes metrics.csv anew, atomically: its heading and `rows`."""
    with replacing(directory / METRICS_FILE) as file:
        lines = [",".join(METRICS), *(_line(row) for row in rows)]
        file.write(("\n".join(lines) + "\n").encode())


def append_metrics(directory: Path, row: MetricsRow) -> None:
    """Adds one epoch's row to metrics.csv and flushes it to disk."""
    with (directory / METRICS_FILE).open("a") as file:
        file.write(_line(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _line(row: MetricsRow) -> str:
    values = cast(dict[str, float | None], row)
    return ",".join("" if values[name] is None else repr(values[name]) for name in METRICS)


def write_predictions(directory: Path, **arrays: Any) -> None:
    """Writes predictions.npz: predicted, probability and label of each test image; `index` into a parent, or None."""
    import numpy as np  # the report's other readers do without

    with replacing(directory / PREDICTIONS_FILE) as file:
        np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def write_weights(directory: Path, tensors: dict[str, Any]) -> None:
    """Writes weights.safetensors: a model's parameters and buffers by name, as numpy arrays."""
    import numpy as np  # the report's other readers do without
    from safetensors.numpy import save

    # safetensors writes an array's memory as it lies: a channels_last weight would come back with its axes mixed up.
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(directory / WEIGHTS_FILE) as file:
        file.write(save(tensors))


def read_record(directory: Path) -> RunRecord:
    """Reads run.json.

    Raises:
        RecordError: it is missing, torn, of a newer schema, or lacks what every record has.
    """
    path = directory / RUN_FILE
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: unreadable ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise RecordError(f"{path}: not a record of reg_sweep")
    if record["schema"] > SCHEMA:
        raise RecordError(
            f"{path}: written by a newer reg_sweep (schema {record['schema']}, this one reads up to {SCHEMA})"
        )
    missing = {"status", "config", "data"} - record.keys()
    if missing or record["status"] not in STATUSES:
        raise RecordError(f"{path}: incomplete record (missing or unknown: {', '.join(sorted(missing)) or 'status'})")
    return cast(RunRecord, record)


def read_metrics(directory: Path) -> list[MetricsRow]:
    """Reads metrics.csv; a torn last line, or one that does not parse, ends it. No file: no rows."""
    rows: list[MetricsRow] = []
    try:
        with (directory / METRICS_FILE).open(newline="", errors="replace") as file:
            lines = csv.reader(line for line in file if line.endswith("\n"))
            names = next(lines, [])
            for values in lines:
                if len(values) != len(names):
                    break
                row = {n: float(v) if v else None for n, v in zip(names, values, strict=True)}
                rows.append(cast(MetricsRow, row))
    except FileNotFoundError:
        pass
    except (ValueError, csv.Error):  # what stands before the damage is still good
        pass
    return rows


def read_run(directory: str | Path) -> Run:
    """Reads one run's directory.

    Raises:
        RecordError: its run.json can't be read.
    """
    directory = Path(directory)
    return Run(directory, read_record(directory), read_metrics(directory))


def find_runs(*roots: str | Path) -> Iterator[Path]:
    """The run directories under each root, the root itself included, in the order of their names."""
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted((f for f in folders if not f.startswith(".")), key=_natural)
            if RUN_FILE in files:
                yield Path(folder)


def _natural(name: str) -> tuple[bool, int, str]:
    """Sorts job directories 2 before 10, and numbers before names."""
    return (False, int(name), "") if name.isdecimal() else (True, 0, name)


def read_runs(*roots: str | Path, problems: list[str] | None = None) -> list[Run]:
    """Reads every run under `roots`. A record that can't be read is named in `problems`, or in a warning."""
    runs = []
    for directory in find_runs(*roots):
        try:
            runs.append(read_run(directory))
        except RecordError as error:
            if problems is None:
                warnings.warn(str(error), stacklevel=2)
            else:
                problems.append(str(error))
    return runs
