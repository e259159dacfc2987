"""Folders of runs: unique names, and whether a folder already holds this run or another one."""

import os
import re
import secrets
import string
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from reg_sweep.config.schema import ConfigError, comparable, digest, recorded_runtime
from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import (
    BEST_VAL_FILE,
    CHECKPOINT_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    RUN_FILE,
    STUDY_FILE,
    WEIGHTS_FILE,
    RecordError,
    RunRecord,
)
from reg_sweep.runs.validation import ValidationError, open_regular

_OF_A_RUN = (
    RUN_FILE,
    METRICS_FILE,
    CHECKPOINT_FILE,
    PREDICTIONS_FILE,
    WEIGHTS_FILE,
    BEST_VAL_FILE,
)
Work = Literal["run", "grid", "study"]
_NAMES: dict[Work, str] = {"run": "a single run", "grid": "a sweep's runs", "study": "a study"}
_SWEEP_FILE = "multirun.yaml"  # Hydra's own, which names the sweeper
_OF_A_STUDY = re.compile(rb"reg_sweep_plugins(?!\.population)")  # a grid's launcher is among them, too
_OF_A_NAME = string.ascii_lowercase + string.digits
_ABOUT_TO_BEGIN = ", about to begin\n"
_STUDY_FILES = (STUDY_FILE, "study.db", "study.log")
# Written by Hydra or by logging, which follow links and ask nothing.
_LOG_FILE = "train.log"
_LOGGED = re.compile(rb"\d{4}-\d\d-\d\d \d\d:")  # how our lines begin
_HYDRAS = (".hydra", _LOG_FILE, _SWEEP_FILE)
_HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


def work_in(directory: Path) -> Work | None:
    """The kind of work that `directory` holds files of; None if it holds none."""
    if files_of_a_run(directory):
        return "run"
    sweep = _start_of(directory / _SWEEP_FILE)
    if _OF_A_STUDY.search(sweep) or any((directory / name).exists() for name in _STUDY_FILES):
        return "study"
    return "grid" if sweep or any(directory.glob(f"*/{RUN_FILE}")) else None


def check_own(directory: Path, work: Work) -> None:
    """Refuses a folder that holds another kind of work, or files that must not be overwritten.

    Raises:
        ConfigError: the folder holds another kind of work, a link where a file of ours goes, or another app's config.
    """
    written = [*_HYDRAS, *_OF_A_RUN, *(f".hydra/{name}" for name in _HYDRA_FILES)]
    for path in (directory / name for name in written):
        if path.is_symlink():
            raise ConfigError(f"{path} must be no link, got one: remove it, or choose another name=...")
    found = work_in(directory)
    if found not in (None, work):
        this = "very run" if work == "run" else "sweep"
        raise ConfigError(f"{directory} must be new or hold this {this}, got {_NAMES[found]}: choose another name=...")
    for path, mark in ((directory / ".hydra" / "config.yaml", b"\nl1:"), (directory / _SWEEP_FILE, b"reg_sweep")):
        if (start := _start_of(path)) and mark not in b"\n" + start:
            raise ConfigError(f"{path} must be of this program, got another app's: choose another name=...")
    config, *others = (directory / ".hydra" / name for name in _HYDRA_FILES)  # in the order in which they are made
    for path in others:
        if path.exists() and not config.exists():
            raise ConfigError(f"{path} must be of this program, got another app's: choose another name=...")


def check_log(directory: Path) -> None:
    """Refuses a folder without any work of ours whose train.log is not ours: to be asked before the first line.

    Raises:
        ConfigError: it would be written on.
    """
    start = _start_of(directory / _LOG_FILE)
    if start and not _LOGGED.match(start) and work_in(directory) is None:
        raise ConfigError(f"{directory / _LOG_FILE} must be of this program, got another's: choose another name=...")


def begin_sweep(directory: Path, work: Work) -> bool:
    """Makes `directory` this grid's or study's, if it holds no other work: of two that begin at once, one is refused.

    Hydra's `multirun.yaml` is the mark: it is made here, whole, unless it exists, and Hydra replaces it. Returns
    whether it was made: `withdraw_sweep` removes it if nothing began.

    Raises:
        ConfigError: as `check_own`.
    """
    check_own(directory, work)
    directory.mkdir(parents=True, exist_ok=True)
    mark, target = directory / f".{_SWEEP_FILE}.{secrets.token_hex(8)}", directory / _SWEEP_FILE
    is_made = False
    try:
        mark.write_text(f"# {'reg_sweep_plugins' if work == 'study' else 'reg_sweep'}: {_NAMES[work]}{_ABOUT_TO_BEGIN}")
        with suppress(FileExistsError):
            os.link(mark, target)
            is_made = True
    except OSError:
        if target.exists() or not mark.exists():
            raise
        mark.rename(target)  # a file system without links
        is_made = True
    finally:
        mark.unlink(missing_ok=True)
    try:
        check_own(directory, work)
    except ConfigError:
        if is_made:
            withdraw_sweep(directory)
        raise
    return is_made


def holds_sweep(directory: Path) -> bool:
    """Whether a sweep has begun in `directory`: the mark of one that is about to is not enough."""
    start = _start_of(directory / _SWEEP_FILE)
    return bool(start) and not start.endswith(_ABOUT_TO_BEGIN.encode())


def withdraw_sweep(directory: Path) -> None:
    """Removes what `begin_sweep` made of a sweep that never began, and the folder if it is empty."""
    with suppress(OSError):
        if _start_of(directory / _SWEEP_FILE).endswith(_ABOUT_TO_BEGIN.encode()):
            (directory / _SWEEP_FILE).unlink()
            directory.rmdir()


def _start_of(path: Path) -> bytes:
    """A file's first bytes; nothing where there is none, or no plain file."""
    try:
        with open_regular(path) as file:
            return file.read(100_000)
    except (OSError, ValidationError):
        return b""


def new_name() -> str:
    """The default name: the time to the second, and six letters or digits that distinguish starts within it.

    Six of 36 are two thousand million: 1,000 jobs of a cluster that start within one second get two equal names
    once in 4,000 times.
    """
    own = "".join(secrets.choice(_OF_A_NAME) for _ in range(6))
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{own}"


def files_of_a_run(directory: Path) -> list[str]:
    """The names of a run's files in `directory`, its record first."""
    return [name for name in _OF_A_RUN if (directory / name).exists()]


def record_of_same_run(config: dict[str, Any], own: str, directory: Path) -> RunRecord | None:
    """The record in `directory` of the run with this config (as a dict) and its digest; None where there is none.

    Raises:
        ConfigError: the record is of another config, unreadable or lost: nothing there may be overwritten.
    """
    left = files_of_a_run(directory)
    if not left:
        return None
    if left[0] != RUN_FILE:
        raise ConfigError(
            f"{directory} must be new or hold this very run, got {', '.join(left)} without the {RUN_FILE} that"
            f" says whose they are: choose another name=..., or remove {directory}"
        )
    try:
        record = read_record(directory)
    except RecordError as error:
        raise ConfigError(f"{error}: choose another name=..., or remove {directory}") from None
    if record["digest"] != own:
        difference = differences(comparable(record["config"]), comparable(config))
        raise ConfigError(
            f"{directory} must be new or hold this very run, got the run of another config "
            f"({', '.join(difference[:4])}): choose another name=..."
        )
    return record


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The differences between two configs, as 'l1 0.001 there, 0.01 here'."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} {a} there, {b} here")
    return found


def job_folder(sweep: Path, number: int, config: dict[str, Any]) -> str:
    """The folder within `sweep` of a grid's job with this config (as a dict).

    The jobs of an extended grid are numbered anew, so a run is found by its digest and not its number, finished runs
    first. Its settings of `runtime` must be the same too, though digests ignore most of them. A new run's folder is its
    job number or, if another run has that folder, its digest: no two jobs in any processes share a folder.
    """
    own, wanted = str(number), digest(config)
    if _holds(sweep / own, wanted):
        return own
    found = []
    for directory in sorted(path.parent for path in sweep.glob(f"*/{RUN_FILE}")):
        if _holds(directory, wanted):
            record = read_record(directory)
            if recorded_runtime(record["config"]) == recorded_runtime(config):
                found.append((record["status"] not in ("complete", "pruned"), directory.name))
    if found:
        return min(found)[1]
    return wanted if files_of_a_run(sweep / own) else own


def _holds(directory: Path, wanted: str) -> bool:
    """Whether the run in `directory` has this digest; its record is parsed only where that may be."""
    try:
        if wanted.encode() not in (directory / RUN_FILE).read_bytes():
            return False
        return read_record(directory)["digest"] == wanted
    except (OSError, RecordError):
        return False
