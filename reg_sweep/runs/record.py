"""A run's directory: what is written there, atomically, and how it is read back, tolerantly.

run.json             status, config, data, summary, versions; see `Run`
metrics.csv          one row an epoch, columns METRICS
predictions.npz      what was predicted of each test image; see `arrays`
weights.safetensors  the final weights; likewise
checkpoint.pt        while the run is unfinished
"""

import csv
import io
import json
import os
import shlex
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast, get_args

from reg_sweep.config.schema import arm_digest, digest
from reg_sweep.runs import validation
from reg_sweep.runs.config_facts import ConfigFacts
from reg_sweep.runs.discovery import folders_with
from reg_sweep.runs.files import replacing
from reg_sweep.runs.frame import frame
from reg_sweep.runs.validation import Between, BorderError, Count, Name, NImages, Reading, Seconds

SCHEMA = 1
Status = Literal["running", "complete", "pruned", "diverged", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
MAX_RECORD = 4_000_000  # bytes of a run.json; ours have some thousands
MAX_METRICS = 64_000_000  # of a metrics.csv: 400,000 epochs
MAX_MESSAGE = 10_000  # characters of a message that are kept


class MetricsRow(TypedDict):
    """One epoch, and the columns of metrics.csv. Losses are means over a split's images, accuracies shares of them.

    A split without images has None; so has what is not known yet.
    """

    epoch: Annotated[float, Between(0, 1e9)]  # a whole number, counted from 1
    lr: Reading
    train_loss: Reading | None
    train_accuracy: Reading | None
    val_loss: Reading | None
    val_accuracy: Reading | None
    test_loss: Reading | None
    test_accuracy: Reading | None
    penalty: Reading | None
    seconds: Seconds | None
    images_per_s: Reading | None


METRICS: tuple[str, ...] = tuple(MetricsRow.__annotations__)


class DataFacts(TypedDict):
    """What a run was trained and judged on. `mean` and `std`: of the train pixels scaled to [0, 1], per channel.

    `in_shape` is an image's (C, H, W); the first records lack it.
    """

    name: Name
    source: Name
    fingerprint: Name
    n_train: NotRequired[NImages]
    n_val: NImages
    n_test: NImages
    n_classes: NotRequired[Count]
    mean: list[float]
    std: list[float]
    in_shape: NotRequired[list[int]]


class WeightCounts(TypedDict):
    """Weights of the weight tensors, those at zero and near it (`config.NEAR_ZERO`); kernels, and the dead ones."""

    n: Count
    n_zero: Count
    n_near_zero: Count
    n_kernels: Count
    n_dead_kernels: Count


class LayerFacts(TypedDict):
    """A row of the table of layers. `receptive_field` is a side in input pixels, None where it can't be told."""

    name: Name
    output: list[int]
    n_parameters: Count
    receptive_field: Count | None


class DeviceFacts(TypedDict):
    """Where a run computed: torch's device, its CPU threads, the processor's name."""

    name: str
    threads: int
    processor: str


class TrialFacts(TypedDict):
    """The trial of a study that a run belongs to."""

    study: str
    number: Count
    params: dict[str, Any]


class RunRecord(TypedDict):
    """run.json. `last` and `best_val` are rows of metrics.csv: the last epoch's, and the one with the best val loss.

    `data` is null in the record of a run that never came to its data.
    """

    schema: int
    status: Status
    name: str
    config: dict[str, Any]
    digest: str
    data: DataFacts
    epochs_done: Count
    last: MetricsRow | None
    best_val: MetricsRow | None
    weights: WeightCounts | None
    layers: list[LayerFacts]
    n_parameters: Count | None
    versions: dict[str, str]
    git_commit: str | None
    device: DeviceFacts
    seconds: Seconds
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
    """Writes run.json, atomically. Numbers that are not finite become null: JSON has no word for them.

    A message is cut, and what of it is no UTF-8 replaced, so that any error's can be read back.
    """
    message = record["message"]
    if message is not None:
        record = {**record, "message": message[:MAX_MESSAGE].encode(errors="replace").decode().replace("\0", "?")}
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


def read_record(directory: Path) -> RunRecord:
    """Reads run.json, and checks it.

    Raises:
        RecordError: it is missing, torn, of a newer schema, or not what a record is.
    """
    path = directory / RUN_FILE
    try:
        record = validation.read_json(path, MAX_RECORD)
        schema = record.get("schema")
        if not isinstance(schema, int):
            raise RecordError(f"{path}: not a record of reg_sweep")
        if schema > SCHEMA:
            newer = f"schema {schema}, this one reads up to {SCHEMA}"
            raise RecordError(f"{path}: written by a newer reg_sweep ({newer})")
        return _checked(record)
    except BorderError as error:
        raise RecordError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None


def _checked(record: dict[str, Any]) -> RunRecord:
    if isinstance(record.get("command"), list):  # the first records held its words
        record["command"] = " ".join(map(str, record["command"]))
    came_to_data = record.get("status") == "complete" or bool(record.get("data", True))
    validation.check(record, RunRecord, but=() if came_to_data else ("data",))
    validation.check(record["config"], ConfigFacts, "config")
    if record["status"] == "complete" and record["data"]["n_test"] == 0:
        raise BorderError("data.n_test must be at least 1 in a complete run, got 0")
    try:
        if not {"'", '"', "\\"}.isdisjoint(record["command"]):  # without them every text is words
            shlex.split(record["command"])
    except ValueError as error:
        raise BorderError(f"command must be words that a shell reads, got one with {error}") from None
    return cast(RunRecord, record)


def read_metrics(directory: Path) -> list[MetricsRow]:
    """Reads metrics.csv; a torn last line, or one that does not parse, ends it. No file: no rows.

    What a row does not tell is None.

    Raises:
        RecordError: there is something else in its place, or it is larger than any history.
    """
    path = directory / METRICS_FILE
    rows: list[MetricsRow] = []
    try:
        text = validation.read_bytes(path, MAX_METRICS).decode(errors="replace")
        lines = csv.reader(line for line in io.StringIO(text, newline="") if line.endswith("\n"))
        names, columns = next(lines, []), frozenset(METRICS)
        for values in lines:
            if len(values) != len(names):
                break
            told = {n: float(v) if v else None for n, v in zip(names, values, strict=True) if n in columns}
            rows.append(cast(MetricsRow, dict.fromkeys(METRICS) | told))
    except FileNotFoundError:
        pass
    except (BorderError, OSError) as error:
        raise RecordError(f"{path}: {error}") from None
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


def find_runs(*roots: str | Path, problems: list[str] | None = None) -> Iterator[Path]:
    """The run directories under each root, the root itself included, in the order of their names.

    What is passed over although it may hold runs is named in `problems`: see `tree.folders_with`.
    """
    return folders_with(RUN_FILE, *roots, problems=problems)


class Runs(list[Run]):
    """Runs, in the order of their folders."""

    def to_frame(self) -> Any:
        """A pandas DataFrame: a row a run, its `path` and its record, nested keys with dots (`last.val_loss`)."""
        return frame({"path": str(run.path), **run.record} for run in self)


def read_runs(*roots: str | Path, problems: list[str] | None = None) -> Runs:
    """Reads every run under `roots`. A record that can't be read is named in `problems`, or in a warning."""
    runs = Runs()
    for directory in find_runs(*roots, problems=problems):
        try:
            runs.append(read_run(directory))
        except RecordError as error:
            if problems is None:
                warnings.warn(str(error), stacklevel=2)
            else:
                problems.append(str(error))
    return runs
