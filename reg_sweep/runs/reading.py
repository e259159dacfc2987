"""Tolerant readers of runs: a killed run is read as far as it got, and a bad file costs only its own run."""

import csv
import io
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from reg_sweep.config.schema import arm_digest
from reg_sweep.runs import validation
from reg_sweep.runs.discovery import folders_with
from reg_sweep.runs.record import (
    MAX_METRICS,
    MAX_RECORD,
    METRICS,
    METRICS_FILE,
    RUN_FILE,
    SCHEMA,
    MetricsRow,
    RecordError,
    RunRecord,
    Status,
    check_record,
)
from reg_sweep.runs.validation import ValidationError


@dataclass
class Run:
    """One run as stored on disk.

    `metrics` are the rows of metrics.csv: an absent value is None, and non-finite values are kept.
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
        """The seed of every random draw of the run."""
        seed: int = self.config["seed"]
        return seed

    @property
    def arm(self) -> str:
        """Replicates of one arm share this digest."""
        return arm_digest(self.config)


def read_record(directory: Path, *, raw: bool = False) -> RunRecord:
    """Reads run.json, and checks it. Control characters in its texts are escaped, unless `raw`.

    Raises:
        RecordError: it is missing, torn, of a newer schema, or no record.
    """
    path = directory / RUN_FILE
    try:
        record = validation.read_json(path, MAX_RECORD, raw=raw)
        schema = record.get("schema")
        if not isinstance(schema, int):
            raise RecordError(f"{path}: not a record of reg_sweep")
        if schema > SCHEMA:
            newer = f"schema {schema}, this one reads up to {SCHEMA}"
            raise RecordError(f"{path}: written by a newer reg_sweep ({newer})")
        if isinstance(record.get("command"), list):  # the first records held its words
            record["command"] = shlex.join(map(str, record["command"]))
        check_record(record)
        for strength in ("l1", "l2"):  # a double's digits are enough to compare and to draw
            record["config"][strength] = float(record["config"][strength])
    except ValidationError as error:
        raise RecordError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None
    return cast(RunRecord, record)


_ACCURACIES = [name for name in METRICS if name.endswith("_accuracy")]


def read_metrics(directory: Path) -> list[MetricsRow]:
    """Reads metrics.csv; a torn last line, or one that does not parse, ends it. No file: no rows.

    An empty value is None.

    Raises:
        RecordError: it is not a regular file, it is larger than any history, or an accuracy is not a share.
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
    except (ValueError, csv.Error):  # the rows before the damage are good
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

    Skipped folders that may hold runs are named in `problems`: see `discovery.folders_with`.
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
