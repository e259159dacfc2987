"""The files of a run's directory: the types of its record, the rules for a record, and how it is written.

run.json             status, config, data, summary, versions: `RunRecord`
metrics.csv          one row per epoch, columns METRICS: `MetricsRow`
predictions.npz      the prediction for each test image; see `arrays`
weights.safetensors  the final weights; see `arrays`
checkpoint.pt        while the run is unfinished

Readers are in `reading`. `new_record` refuses a run whose record the readers would refuse.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast, get_args

from reg_sweep.config.rules import ConfigError
from reg_sweep.runs import validation
from reg_sweep.runs.files import replacing
from reg_sweep.runs.validation import (
    MAX_READING,
    MAX_WHOLE,
    Between,
    Count,
    Name,
    NImages,
    Reading,
    Seconds,
    Share,
    ValidationError,
    nearest,
    visible,
)

SCHEMA = 1
Status = Literal["running", "complete", "pruned", "diverged", "failed"]
STATUSES: tuple[Status, ...] = get_args(Status)
MAX_RECORD = 4_000_000  # bytes of a run.json; usually a few thousand
MAX_METRICS = 64_000_000  # bytes of a metrics.csv: 400,000 epochs
MAX_MESSAGE = 10_000  # characters of a message; the rest is cut
MAX_LAYERS = 5_000  # rows of the table of layers; the rest is cut
MAX_INDEX = 2**31  # largest index of an image in its parent data set
MAX_CLASSES = 4096  # the report's confusion matrix has the square of this
_MAX_BEGUN = MAX_RECORD // 4  # bytes of a new record, which leaves room for its results


class MetricsRow(TypedDict):
    """One epoch: the columns of metrics.csv. Losses are means over a split's images, accuracies are shares of them.

    Values of splits without images, and values not known yet, are None.
    """

    epoch: Annotated[float, Between(0, 1e9)]  # a whole number, counted from 1
    lr: Reading
    train_loss: Reading | None
    train_accuracy: Share | None
    val_loss: Reading | None
    val_accuracy: Share | None
    test_loss: Reading | None
    test_accuracy: Share | None
    penalty: Reading | None
    seconds: Seconds | None
    images_per_s: Reading | None


METRICS: tuple[str, ...] = tuple(MetricsRow.__annotations__)
OWN_PENALTY = "penalties."  # prefix of the column of a custom penalty


Side = Annotated[int, Between(1, 100_000, "a whole number")]


class DataFacts(TypedDict):
    """A run's data. `mean` and `std` are per channel, of train pixels scaled to [0, 1]. Old records lack `in_shape`."""

    name: Name
    source: Name
    fingerprint: Name
    n_train: NotRequired[NImages]
    n_val: NImages
    n_test: NImages
    n_classes: NotRequired[NImages]
    mean: list[float]
    std: list[float]
    in_shape: NotRequired[list[Side]]
    class_names: NotRequired[list[Name]]


class WeightCounts(TypedDict):
    """The numbers of weights, kernels and output channels, and of those at zero, near zero (`NEAR_ZERO`) or dead.

    If L1 acts on channels or on norms' scales, `multiply_adds` counts those for one image without the zero channels.
    """

    n: Count
    n_zero: Count
    n_near_zero: Count
    n_kernels: Count
    n_dead_kernels: Count
    n_channels: NotRequired[Count]
    n_dead_channels: NotRequired[Count]
    multiply_adds: NotRequired[Count]


class LayerFacts(TypedDict):
    """A row of the table of layers. `receptive_field` is its side in input pixels, None if unknown."""

    name: Name
    output: list[int]
    n_parameters: Count
    receptive_field: Count | None


class DeviceFacts(TypedDict):
    """Torch's device, the number of CPU threads, the processor's name; `population` if runs were computed together."""

    name: str
    threads: int
    processor: str
    population: NotRequired[bool]


class TrialFacts(TypedDict):
    """The study's trial that a run belongs to; `sequential` if the study judges its arms by a sequential design."""

    study: str
    number: Count
    params: dict[str, Any]
    sequential: NotRequired[bool]


Strength = Annotated[float, Between(0, 1e39)]


class ChosenFacts(TypedDict):
    """The choice of a group of settings."""

    name: Name


class PenaltyFacts(ChosenFacts):
    """A penalty's form and updates."""

    l1_update: Name
    l2_update: Name


class DataSettings(TypedDict):
    """The origin of a data set; `source` may also contain any arguments of a user's own function."""

    source: dict[str, Any]
    root: str
    label_noise: NotRequired[Share | None]


class ConfigFacts(TypedDict):
    """The settings that readers use. The others are not checked; they are only shown and used in digests."""

    l1: Strength
    l2: Strength
    seed: Annotated[int, Between(0, MAX_WHOLE, "a whole number")]
    epochs: Annotated[int, Between(1, 10**9, "a whole number")]
    norm: ChosenFacts
    penalty: PenaltyFacts
    data: DataSettings
    runtime: dict[str, Any]
    objective: NotRequired[Name | list[Name] | None]


class RunRecord(TypedDict):
    """run.json. `last` and `best_val` are rows of metrics.csv: the last epoch, and the one with the best val loss.

    `data` is null if the run ended before its data was loaded.
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
    """A column of metrics.csv, or another program's score (split 'score'). `digits` applies to the unit 'number'."""

    name: str
    split: Split | Literal["score"]
    unit: Literal["share", "nats", "percent", "number"]
    higher_is_better: bool
    digits: int = 4

    def of(self, row: MetricsRow | None) -> float | None:
        """The metric's value in a row; None if it is absent."""
        return None if row is None else cast(dict[str, float | None], row).get(self.name)

    def on(self, split: Split) -> "Metric":
        """The same quantity on another split; the metric itself if it has no split or is another program's score."""
        return self if self.split == "score" else METRIC.get(self.name.replace(self.split, split), self)


def _metrics() -> Iterator[Metric]:
    for split in get_args(Split):
        yield Metric(f"{split}_loss", split, "nats", higher_is_better=False)
        yield Metric(f"{split}_accuracy", split, "share", higher_is_better=True)


METRIC: dict[str, Metric] = {metric.name: metric for metric in _metrics()}

RUN_FILE = "run.json"
METRICS_FILE = "metrics.csv"
PREDICTIONS_FILE = "predictions.npz"
WEIGHTS_FILE = "weights.safetensors"
BEST_VAL_FILE = "weights_best_val.safetensors"  # of the epoch with the best val loss, if asked for
CHECKPOINT_FILE = "checkpoint.pt"
STUDY_FILE = "study.json"  # in a sweep's directory: the study's results, for readers without Optuna


class RecordError(Exception):
    """A file of a run or study can't be read. The message names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))  # a folder's name may contain any characters


# ---- rules


def check_record(record: dict[str, Any]) -> None:
    """Checks a record against its type and further rules; absent keys that may be null become null.

    Raises:
        ValidationError: the record breaks a rule; the message names the key.
    """
    came_to_data = record.get("status") == "complete" or bool(record.get("data", True))
    validation.check(record, RunRecord, but=() if came_to_data else ("data",))
    check_config(record["config"])
    if record["status"] == "complete" and record["data"]["n_test"] == 0:
        raise ValidationError("must be at least 1 in a complete run, got 0", "data.n_test")
    if came_to_data and len(record["data"].get("in_shape", "CHW")) != 3:
        raise ValidationError(f"must be three sizes, got {record['data']['in_shape'][:5]}", "data.in_shape")


def check_config(config: Any) -> None:
    """Checks the settings that readers use.

    Raises:
        ValidationError: a setting is missing, of another type, or out of range.
    """
    validation.check(config, ConfigFacts, "config")


# ---- writing


def new_record(
    *,
    name: str,
    config: dict[str, Any],
    digest: str,
    data: DataFacts,
    versions: dict[str, str],
    git_commit: str | None,
    device: DeviceFacts,
    started: str,
    command: str,
    trial: TrialFacts | None,
) -> RunRecord:
    """Makes the record of a run that is about to begin or resume, without results.

    `digest` is that of `config`.

    Raises:
        ConfigError: the record could not be read back.
    """
    record: RunRecord = {
        "schema": SCHEMA,
        "status": "running",
        "name": name,
        "config": config,
        "digest": digest,
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
    _require_recordable(lambda: check_record(validation.parse_json(_text(record, _MAX_BEGUN))))
    n_classes = data.get("n_classes", 1)
    if n_classes > MAX_CLASSES:
        raise ConfigError(f"data must have at most {MAX_CLASSES:,} classes, got {n_classes:,}: train on fewer")
    return record


def check_recordable(config: dict[str, Any]) -> None:
    """Refuses a run's config (as a dict) that could not be read back from its record.

    Raises:
        ConfigError: a text is too long or not Unicode, a number has more than 64 bits or is not finite, or the nesting
            is too deep.
    """
    _require_recordable(lambda: check_config(validation.parse_json(_text({"config": config}, _MAX_BEGUN))["config"]))


def _require_recordable(read: Callable[[], None]) -> None:
    try:
        read()
    except ValidationError as error:
        raise ConfigError(f"{error}: the run's record could not be read back") from None
    except (TypeError, ValueError, RecursionError) as error:
        said = validation.one_line(error)
        raise ConfigError(f"the config must be made of plain values that a record can hold, got {said}") from None


def write_record(directory: Path, record: RunRecord) -> None:
    """Writes run.json atomically, in a form that can be read back.

    Non-finite numbers become null, a long message or table of layers is cut, and invalid Unicode is escaped.
    """
    message = record["message"]
    layers: list[LayerFacts] = [{**layer, "name": layer["name"][:300]} for layer in record["layers"][:MAX_LAYERS]]
    written: RunRecord = {
        **record,
        "message": None if message is None else message[:MAX_MESSAGE],
        "layers": layers,
        "last": _within_range(record["last"]),
        "best_val": _within_range(record["best_val"]),
    }
    content = _text(nearest(written), MAX_RECORD)
    with replacing(directory / RUN_FILE) as file:
        file.write(content)


def _text(record: Mapping[str, Any], limit: int) -> bytes:
    content = json.dumps(record, indent=1, allow_nan=False).encode() + b"\n"
    if len(content) > limit:
        raise ValidationError(f"the config must take at most {limit:,} bytes, got {len(content):,}")
    return content


def _within_range(row: MetricsRow | None) -> MetricsRow | None:
    """A row without numbers that readers refuse: those beyond MAX_READING become None, like infinite ones."""
    if row is None:
        return None
    values = cast(dict[str, float | None], row).items()
    return cast(MetricsRow, {k: v if v is not None and abs(v) <= MAX_READING else None for k, v in values})


def write_metrics(directory: Path, rows: list[MetricsRow], own_penalties: Sequence[str] = ()) -> None:
    """Rewrites metrics.csv atomically, with its heading and `rows`."""
    with replacing(directory / METRICS_FILE) as file:
        lines = [",".join([*METRICS, *(f"{OWN_PENALTY}{name}" for name in own_penalties)]), *map(_line, rows)]
        file.write(("\n".join(lines) + "\n").encode())


def append_metrics(directory: Path, row: MetricsRow) -> None:
    """Appends one epoch's row to metrics.csv and flushes it to disk."""
    with (directory / METRICS_FILE).open("a") as file:
        file.write(_line(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _line(row: MetricsRow) -> str:
    values = cast(dict[str, float | None], row)
    own = (name for name in values if name.startswith(OWN_PENALTY))
    return ",".join("" if values[name] is None else repr(values[name]) for name in (*METRICS, *own))
