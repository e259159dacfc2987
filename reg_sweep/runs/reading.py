"""Tolerant readers of runs: a killed run is read as far as it got, and a bad file affects only its own run."""

import csv
import io
import json
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, cast

from reg_sweep.config.digest import arm_digest, comparable
from reg_sweep.runs import validation
from reg_sweep.runs.discovery import folders_with
from reg_sweep.runs.record import (
    MAX_METRICS,
    MAX_RECORD,
    METRICS,
    METRICS_FILE,
    OWN_PENALTY,
    RUN_FILE,
    SCHEMA,
    MetricsRow,
    RecordError,
    RunRecord,
    Status,
    check_record,
)
from reg_sweep.runs.validation import MAX_WHOLE, Between, Name, Seconds, ValidationError


@dataclass
class Run:
    """One run as stored on disk.

    `metrics` are the rows of metrics.csv. Missing values are None; non-finite values are kept.
    """

    path: Path
    record: RunRecord
    metrics: list[MetricsRow] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The run's status."""
        return self.record["status"]

    @property
    def config(self) -> dict[str, Any]:
        """All settings, as returned by `to_dict`."""
        return self.record["config"]

    @property
    def seed(self) -> int:
        """The seed of every random draw of the run."""
        seed: int = self.config["seed"]
        return seed

    @property
    def arm(self) -> str:
        """A digest that all replicates of one arm share."""
        return arm_digest(self.config)


class RecordedError(RecordError):
    """The record was written by `record_run`: `read_recorded` reads it."""


def read_record(directory: Path, *, raw: bool = False) -> RunRecord:
    """Reads and checks run.json. Control characters in its texts are escaped, unless `raw`.

    Raises:
        RecordError: the file is missing, truncated, of a newer schema, or not a record.
    """
    path = directory / RUN_FILE
    try:
        record = validation.read_json(path, MAX_RECORD, raw=raw)
        schema = record.get("schema")
        if record.get("kind") == "record_run":
            raise RecordedError(f"{path}: recorded by record_run, not by the trainer")
        if not isinstance(schema, int):
            raise RecordError(f"{path}: not a record of reg_sweep")
        if schema > SCHEMA:
            newer = f"schema {schema}, this one reads up to {SCHEMA}"
            raise RecordError(f"{path}: written by a newer reg_sweep ({newer}): upgrade reg_sweep")
        if isinstance(record.get("command"), list):  # the first version stored a list of words
            record["command"] = shlex.join(map(str, record["command"]))
        check_record(record)
        for strength in ("l1", "l2"):  # a double is precise enough to compare and to draw
            record["config"][strength] = float(record["config"][strength])
    except ValidationError as error:
        raise RecordError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None
    return cast(RunRecord, record)


_ACCURACIES = [name for name in METRICS if name.endswith("_accuracy")]


def is_metrics_column(name: str) -> bool:
    """Whether metrics.csv may have a column of this name."""
    return name in METRICS or (name.startswith(OWN_PENALTY) and name.removeprefix(OWN_PENALTY).isidentifier())


def is_metrics(path: Path) -> bool:
    """Whether a path is a file that begins like a run's metrics.csv, or is empty."""
    heading = ",".join(METRICS).encode()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(heading)) in (b"", heading)


def read_metrics(directory: Path) -> list[MetricsRow]:
    """Reads metrics.csv up to the first incomplete or invalid line; no rows if there is no file.

    An empty value is None.

    Raises:
        RecordError: it is not a regular file, it is too large, or an accuracy is not a share.
    """
    path = directory / METRICS_FILE
    rows: list[MetricsRow] = []
    try:
        text = validation.read_bytes(path, MAX_METRICS).decode(errors="replace")
        lines = csv.reader(line for line in io.StringIO(text, newline="") if line.endswith("\n"))
        names = next(lines, [])
        columns = {name for name in names if is_metrics_column(name)}
        for values in lines:
            if len(values) != len(names):
                break
            read = {n: float(v) if v else None for n, v in zip(names, values, strict=True) if n in columns}
            row: dict[str, float | None] = dict.fromkeys(METRICS) | read
            for name in _ACCURACIES:
                share = row[name]
                if share is not None and (share < 0 or share > 1):
                    raise ValidationError(f"must be a share from 0 to 1, got {share}", f"{name} in row {len(rows) + 1}")
            rows.append(cast(MetricsRow, row))
    except FileNotFoundError:
        pass
    except (ValidationError, OSError) as error:
        raise RecordError(f"{path}: {error}") from None
    except (ValueError, csv.Error):  # the rows before the damage are valid
        pass
    return rows


def read_run(directory: str | Path) -> Run:
    """Reads one run's directory.

    Raises:
        RecordError: its run.json can't be read.
    """
    directory = Path(directory)
    return Run(directory, read_record(directory), read_metrics(directory))


# ---- runs of other programs, written by record_run

MAX_COLUMNS = 1_000  # of their metrics.csv
Row = dict[str, float | None]


class RecordedRun(TypedDict):
    """run.json of another program's run; `kind` distinguishes it from the trainer's. Unknown values are null."""

    schema: int
    kind: Literal["record_run"]
    status: Status
    name: Name
    config: dict[str, Any]
    seed: Annotated[int, Between(0, MAX_WHOLE, "a whole number")]
    last: dict[str, float | None] | None
    seconds: Seconds
    started: str
    ended: str | None
    command: str
    message: str | None


@dataclass
class Recorded:
    """A run recorded by `record_run`. `metrics` are the rows of metrics.csv, with the logged names."""

    path: Path
    record: RecordedRun
    metrics: list[Row] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """The run's status."""
        return self.record["status"]

    @property
    def config(self) -> dict[str, Any]:
        """All settings except the seed."""
        return self.record["config"]

    @property
    def seed(self) -> int:
        """The seed of the run's random draws."""
        return self.record["seed"]

    @property
    def arm(self) -> str:
        """A digest of the config that all replicates of one arm share."""
        return sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:16]


def read_recorded(directory: Path, *, raw: bool = False) -> RecordedRun:
    """Reads and checks run.json of a recorded run.

    Raises:
        RecordError: the file is missing, truncated, of a newer schema, or not such a record.
    """
    path = directory / RUN_FILE
    try:
        record = validation.read_json(path, MAX_RECORD, raw=raw)
        schema = record.get("schema")
        if record.get("kind") != "record_run" or not isinstance(schema, int):
            raise RecordError(f"{path}: not a record of record_run")
        if schema > SCHEMA:
            newer = f"schema {schema}, this one reads up to {SCHEMA}"
            raise RecordError(f"{path}: written by a newer reg_sweep ({newer}): upgrade reg_sweep")
        validation.check(record, RecordedRun)
    except ValidationError as error:
        raise RecordError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None
    return cast(RecordedRun, record)


def read_rows(directory: Path) -> list[Row]:
    """Reads metrics.csv of a recorded run up to the first incomplete or invalid line; no rows if there is no file.

    Raises:
        RecordError: it is not a regular file, or too large.
    """
    path = directory / METRICS_FILE
    rows: list[Row] = []
    try:
        text = validation.read_bytes(path, MAX_METRICS).decode(errors="replace")
        lines = csv.reader(line for line in io.StringIO(text, newline="") if line.endswith("\n"))
        names = [validation.visible(name) for name in next(lines, [])]
        if len(names) > MAX_COLUMNS or names[:1] != ["epoch"]:
            return []
        for values in lines:
            if len(values) != len(names) or not values[0]:
                break
            rows.append({n: float(v) if v else None for n, v in zip(names, values, strict=True)})
    except FileNotFoundError:
        pass
    except (ValidationError, OSError) as error:
        raise RecordError(f"{path}: {error}") from None
    except (ValueError, csv.Error):  # the rows before the damage are valid
        pass
    return rows


# ---- a tree of runs


def find_runs(*roots: str | Path, problems: list[str] | None = None) -> Iterator[Path]:
    """The run directories under each root, and the root itself, in the order of their names.

    Skipped folders that may contain runs are added to `problems`: see `discovery.folders_with`.
    """
    return folders_with(RUN_FILE, *roots, problems=problems)


class Runs(list[Run | Recorded]):
    """Runs, in the order of their folders."""

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each run.

        The first columns are `arm` (the settings that differ among these runs), `seed`, `status`, the metrics of the
        last epoch (`last.val_loss`) and `path`. The rest of the record follows, with dots in nested keys.
        """
        labels = _labels(self)
        heads = ({"arm": labels[run.arm], "seed": run.seed, "status": run.status} for run in self)
        rows = [
            head | {"last": run.record["last"], "path": str(run.path)} for head, run in zip(heads, self, strict=True)
        ]
        table = frame(row | {**run.record} for row, run in zip(rows, self, strict=True))
        last = [name for name in table.columns if name.startswith("last.")]
        first = [name for name in ("arm", "seed", "status", *last, "path") if name in table.columns]
        return table[[*first, *(name for name in table.columns if name not in first)]]


def _labels(runs: Iterable[Run | Recorded]) -> dict[str, str]:
    """A text for each arm: the settings that differ among the arms."""
    settings = {
        run.arm: dict(_leaves(run.config if isinstance(run, Recorded) else comparable(run.config))) for run in runs
    }
    names = list(dict.fromkeys(name for of_arm in settings.values() for name in of_arm if name != "seed"))
    differing = [n for n in names if len({repr(of_arm.get(n)) for of_arm in settings.values()}) > 1] or names[:3]
    return {arm: ", ".join(f"{n}={of_arm[n]}" for n in differing if n in of_arm) for arm, of_arm in settings.items()}


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_runs(*roots: str | Path, problems: list[str] | None = None) -> Runs:
    """Reads all runs under `roots`, both the trainer's and those of `record_run`.

    Records that can't be read are added to `problems`, or reported in a warning if it is None.

    Raises:
        RecordError: there is no such folder.
    """
    for root in roots:
        if not Path(root).is_dir():
            raise RecordError(
                f"{root} must be a folder, got {'a file' if Path(root).exists() else 'none of that name'}"
            )
    runs = Runs()
    for directory in find_runs(*roots, problems=problems):
        try:
            runs.append(_read_either(directory))
        except RecordError as error:
            if problems is None:
                warnings.warn(str(error), stacklevel=2)
            else:
                problems.append(str(error))
    return runs


def _read_either(directory: Path) -> Run | Recorded:
    try:
        return read_run(directory)
    except RecordedError:
        return Recorded(directory, read_recorded(directory), read_rows(directory))


def frame(rows: Iterable[Mapping[str, Any]]) -> Any:
    """A DataFrame of nested rows: one column for each leaf, named by its path (`config.norm.name`).

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("to_frame() needs pandas, which is not installed: pip install pandas") from None
    return pd.json_normalize([dict(row) for row in rows])
