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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from reg_sweep.config import ConfigError, arm_digest

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one directory
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
STATUSES = ("running", "complete", "pruned", "diverged", "failed")
METRICS = (
    "epoch",  # counted from 1
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "penalty",
    "seconds",
    "images_per_s",
)

RUN_FILE = "run.json"
METRICS_FILE = "metrics.csv"
PREDICTIONS_FILE = "predictions.npz"
WEIGHTS_FILE = "weights.safetensors"
CHECKPOINT_FILE = "checkpoint.pt"
LOCK_FILE = ".lock"
STUDY_FILE = "study.json"  # in a sweep's directory: what the study found, for readers without Optuna


class RecordError(Exception):
    """A run's directory that can't be read. The message names the file and what is wrong with it."""


@dataclass
class Run:
    """One run as it lies on disk.

    `record` is run.json: schema, status, name, config, digest, data (name, source, fingerprint, n_train, n_val,
    n_test, mean, std), epochs_done, last and best_val (rows of metrics.csv, or null), weights (n, n_zero, n_near_zero,
    n_kernels, n_dead_kernels), layers, n_parameters, versions, git_commit, device, seconds, started, ended, command,
    message, trial.
    `metrics` are the rows of metrics.csv: an absent value is None, a value that is not finite is itself.
    """

    path: Path
    record: dict[str, Any]
    metrics: list[dict[str, float | None]] = field(default_factory=list)

    @property
    def status(self) -> str:
        return self.record["status"]

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def arm(self) -> str:
        """Replicates of one arm share this digest."""
        return arm_digest(self.config)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file beside `path` that replaces it, synced to disk, when the block ends well.

    A half-written `path` can't exist.

    Raises:
        OSError: the disk is full or not writable; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_record(directory: Path, record: dict[str, Any]) -> None:
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


def write_metrics(directory: Path, rows: list[dict[str, float | None]]) -> None:
    """Writes metrics.csv anew, atomically: its heading and `rows`."""
    with replacing(directory / METRICS_FILE) as file:
        lines = [",".join(METRICS), *(_line(row) for row in rows)]
        file.write(("\n".join(lines) + "\n").encode())


def append_metrics(directory: Path, row: dict[str, float | None]) -> None:
    """Adds one epoch's row to metrics.csv and flushes it to disk."""
    with (directory / METRICS_FILE).open("a") as file:
        file.write(_line(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _line(row: dict[str, float | None]) -> str:
    return ",".join("" if row[name] is None else repr(row[name]) for name in METRICS)


def write_predictions(directory: Path, **arrays: Any) -> None:
    """Writes predictions.npz: predicted, probability and label of each test image; `index` into a parent, or None."""
    import numpy as np  # the report's other readers do without

    with replacing(directory / PREDICTIONS_FILE) as file:
        np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def write_weights(directory: Path, model: Any) -> None:
    """Writes weights.safetensors: a torch module's parameters and buffers by name."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(directory / WEIGHTS_FILE) as file:
        file.write(save(tensors))


@contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Holds a run's directory for this process, making it if need be; the hold ends with the process at the latest.

    Raises:
        ConfigError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_FILE).open("w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{directory} must be free, got one in which another process trains: wait, or choose another name"
            ) from None
        for half_written in directory.glob(".*.tmp"):  # by a process that was killed
            half_written.unlink()
        try:
            yield
        finally:
            if [path.name for path in directory.iterdir()] == [LOCK_FILE]:  # nothing came of it
                (directory / LOCK_FILE).unlink()
                directory.rmdir()


def read_record(directory: Path) -> dict[str, Any]:
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
    return record


def read_metrics(directory: Path) -> list[dict[str, float | None]]:
    """Reads metrics.csv; a torn last line, or one that does not parse, ends it. No file: no rows."""
    rows: list[dict[str, float | None]] = []
    try:
        with (directory / METRICS_FILE).open(newline="", errors="replace") as file:
            lines = csv.reader(line for line in file if line.endswith("\n"))
            names = next(lines, [])
            for values in lines:
                if len(values) != len(names):
                    break
                rows.append({n: float(v) if v else None for n, v in zip(names, values, strict=True)})
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
