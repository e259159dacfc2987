"""Writes runs that another program trains: `record_run`.

run.json             status, config, seed, last values: `reading.RecordedRun`
metrics.csv          one row per epoch, with the logged names
predictions.npz      if the program provides them; see `arrays`
"""

import csv
import io
import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, cast

from reg_sweep.config.rules import ConfigError
from reg_sweep.runs import files, validation
from reg_sweep.runs.folders import differences
from reg_sweep.runs.reading import MAX_COLUMNS, RecordedRun, Row, read_recorded, read_rows
from reg_sweep.runs.record import MAX_RECORD, METRICS_FILE, RUN_FILE, SCHEMA, RecordError, Status
from reg_sweep.runs.validation import MAX_WHOLE


class Recording:
    """A run that is being recorded: see `record_run`. `rows` are the logged epochs."""

    def __init__(self, folder: Path, record: RecordedRun, rows: list[Row]) -> None:
        """Continues after `rows`."""
        self.folder = folder
        self.record, self.rows = record, rows
        self._columns = list(dict.fromkeys(["epoch", *(name for row in rows for name in row)]))
        self._is_replaying = (
            True  # a resumed program may start before the last logged epoch: its checkpoint may be older
        )

    @property
    def is_complete(self) -> bool:
        """Whether the run had already completed or diverged, so that nothing is left to train."""
        return self.record["status"] in ("complete", "diverged")

    @property
    def epochs_done(self) -> float:
        """The last logged epoch; 0 if there is none."""
        last = self.rows[-1]["epoch"] if self.rows else 0.0
        assert last is not None
        return int(last) if last == int(last) else last

    def log(self, epoch: float, /, **metrics: float | None) -> None:
        """Logs an epoch's values, under any names, and flushes them to disk.

        A resumed program may log an epoch again: its row and all later ones are replaced.

        Raises:
            ConfigError: the run is complete, epochs are not in ascending order, or a value is not a number.
        """
        row = self._checked(epoch, metrics)
        kept = [r for r in self.rows if cast(float, r["epoch"]) < epoch] if self._is_replaying else self.rows
        columns = [*self._columns, *(name for name in row if name not in self._columns)]
        if len(columns) > MAX_COLUMNS:
            raise ConfigError(f"metrics must have at most {MAX_COLUMNS:,} names, got {len(columns):,}")
        if columns != self._columns or len(kept) < len(self.rows) or not self.rows:
            _write_rows(self.folder, columns, [*kept, row])
        else:
            with (self.folder / METRICS_FILE).open("a", encoding="utf-8", newline="") as file:
                file.write(_lines(columns, [row]))
                file.flush()
                os.fsync(file.fileno())
        self.rows, self._columns, self._is_replaying = [*kept, row], columns, False

    def predictions(self, predicted: Any, label: Any, probability: Any = None) -> None:
        """Records the predicted class of each test image, its true class, and the prediction's probability."""
        from reg_sweep.runs.arrays import write_predictions

        write_predictions(self.folder, predicted=predicted, label=label, probability=probability)

    def _checked(self, epoch: float, metrics: Mapping[str, float | None]) -> Row:
        if self.is_complete:
            raise ConfigError(
                f"{self.folder} must be unfinished to log epoch {epoch}, got a {self.record['status']} run: skip the"
                " run if run.is_complete, or record in another folder"
            )
        value = _number("epoch", epoch)
        if value is None or not math.isfinite(value) or value < 0:
            raise ConfigError(f"epoch must be a finite number of at least 0, got {epoch!r}")
        if not self._is_replaying and value <= self.epochs_done:
            raise ConfigError(f"epoch must be above {self.epochs_done}, the last logged one, got {epoch!r}")
        if "epoch" in metrics:
            raise ConfigError("epoch must be given once, got a metric with that name too: choose another name")
        for name in metrics:
            if not name or not name.isprintable() or len(name) > 300:
                raise ConfigError(f"a metric's name must be one line of 1 to 300 characters, got {name[:80]!r}")
        return {"epoch": value} | {name: _number(name, v) for name, v in metrics.items()}


@contextmanager
def record_run(folder: str | Path, config: Any, seed: int) -> Iterator[Recording]:
    """Records a run of your own training loop so that it can be read, compared and judged.

        with record_run("runs/gbn-1", {"norm": "gbn", "lr": 0.1}, seed=1) as run:
            for epoch in range(run.epochs_done + 1, 11):
                ...
                run.log(epoch, val_accuracy=accuracy, val_loss=loss)

    The run's status is *running* until the block ends, and remains so if it is killed or interrupted. It becomes
    *failed* if the block raises, *diverged* if a last value is nan or infinite, otherwise *complete*. The same call in
    the same folder resumes the run: `run.epochs_done` is the last logged epoch. A finished run is never changed.

    Args:
        folder: the folder for the run's files; created if missing.
        config: the run's settings except the seed: a mapping, a dataclass or an argparse.Namespace of plain values.
            Runs with equal settings are replicates of one arm.
        seed: the seed of the run's random draws.

    Raises:
        ConfigError: a setting or the seed can't be recorded, another process records in the folder, or the folder
            contains another run.
    """
    directory = Path(folder).absolute()
    settings = _settings(config, seed)
    with files.locked_directory(directory):
        record, rows = _begun(directory, settings, seed)
        run = Recording(directory, record, rows)
        if run.is_complete:
            yield run
            return
        started = monotonic()
        _write(directory, record)
        if rows:  # removes an incomplete last line
            _write_rows(directory, list(dict.fromkeys(name for row in rows for name in row)), rows)
        message = None
        status: Status = "failed"
        try:
            yield run
            last = run.rows[-1].values() if run.rows else ()
            has_diverged = any(v is not None and not math.isfinite(v) for v in last)
            status = "diverged" if has_diverged else "complete"
        except Exception as error:
            message = f"{type(error).__name__}: {validation.one_line(error)}"
            raise
        except BaseException:  # interrupted: the same call resumes it
            status = "running"
            raise
        finally:
            _end(run, status, message, monotonic() - started)


def _begun(directory: Path, config: dict[str, Any], seed: int) -> tuple[RecordedRun, list[Row]]:
    """The record in the folder or a new one, and the logged rows."""
    record: RecordedRun = {
        "schema": SCHEMA,
        "kind": "record_run",
        "status": "running",
        "name": directory.name,
        "config": config,
        "seed": seed,
        "last": None,
        "seconds": 0.0,
        "started": _now(),
        "ended": None,
        "command": shlex.join([Path(sys.executable).name, *map(str, getattr(sys, "argv", ()))]),
        "message": None,
    }
    if not (directory / RUN_FILE).exists():
        for name in (METRICS_FILE, ".hydra"):
            if (directory / name).exists():
                raise ConfigError(
                    f"{directory} must be new, got a folder with another program's {name}: choose another"
                )
        return record, []
    try:
        there = read_recorded(directory, raw=True)
    except RecordError as error:
        raise ConfigError(f"{error}: choose another folder") from None
    changed = differences({"seed": there["seed"], **there["config"]}, {"seed": seed, **config})
    if changed:
        raise ConfigError(f"{directory} holds another run ({'; '.join(changed[:5])}): choose another folder")
    if there["status"] in ("complete", "diverged"):
        return there, read_rows(directory)
    return {**there, "status": "running", "message": None, "ended": None}, read_rows(directory)


def _end(run: Recording, status: Status, message: str | None, seconds: float) -> None:
    record = run.record
    record["status"], record["message"] = status, message
    record["seconds"] += seconds
    record["last"] = run.rows[-1] if run.rows else None
    record["ended"] = None if status == "running" else _now()
    _write(run.folder, record)


def _settings(config: Any, seed: Any) -> dict[str, Any]:
    """The config as plain values that a record can hold."""
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    elif not isinstance(config, Mapping) and hasattr(config, "__dict__"):
        config = vars(config)
    if not isinstance(config, Mapping):
        raise ConfigError(f"config must be a mapping of settings, got {type(config).__name__}")
    settings = cast(dict[str, Any], _plain(config, "config"))
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) <= MAX_WHOLE:
        raise ConfigError(f"seed must be a whole number of at least 0, got {seed!r}")
    if settings.pop("seed", seed) != seed:
        raise ConfigError(f"seed must be the same as in the config, {config['seed']!r}, got {seed!r}")
    try:
        validation.parse_json(json.dumps(settings).encode())
    except ValueError as error:
        raise ConfigError(f"config must be readable from its record: {validation.one_line(error)}") from None
    return settings


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{place}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{place}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    item = value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value  # a numpy number
    if item is None or isinstance(item, bool | int | float | str):
        return item
    raise ConfigError(f"{place} must be a plain value (number, text, list or mapping), got {type(value).__name__}")


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigError(f"{name} must be a number, got {validation.visible(repr(value)[:80])}") from None


def _write(directory: Path, record: RecordedRun) -> None:
    content = json.dumps(validation.nearest(record), indent=1, allow_nan=False).encode() + b"\n"
    if len(content) > MAX_RECORD:
        raise ConfigError(f"config must take at most {MAX_RECORD:,} bytes, got {len(content):,}")
    with files.replacing(directory / RUN_FILE) as file:
        file.write(content)


def _write_rows(directory: Path, columns: list[str], rows: list[Row]) -> None:
    with files.replacing(directory / METRICS_FILE) as file:
        heading = io.StringIO(newline="")
        csv.writer(heading, lineterminator="\n").writerow(columns)
        file.write((heading.getvalue() + _lines(columns, rows)).encode())


def _lines(columns: list[str], rows: list[Row]) -> str:
    cells = ([row.get(name) for name in columns] for row in rows)
    return "".join(",".join("" if v is None else repr(v) for v in line) + "\n" for line in cells)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
