"""Folders of runs: unique names, and whether a folder already contains this run or another one."""

import os
import re
import secrets
import string
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from reg_sweep.config.digest import comparable, digest, recorded_runtime
from reg_sweep.config.rules import ConfigError
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
_SWEEP_FILE = "multirun.yaml"  # written by Hydra; it names the sweeper
_OF_A_STUDY = re.compile(rb"reg_sweep_plugins(?!\.population)")  # excludes the launcher, which a grid may have too
_OF_A_NAME = string.ascii_lowercase + string.digits
_ABOUT_TO_BEGIN = ", about to begin\n"
_STUDY_FILES = (STUDY_FILE, "study.db", "study.log")
# Written by Hydra or by logging, which follow links and overwrite without asking.
_LOG_FILE = "train.log"
_LOGGED = re.compile(rb"\d{4}-\d\d-\d\d \d\d:")  # the start of our log lines
_HYDRAS = (".hydra", _LOG_FILE, _SWEEP_FILE)
_HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


def work_in(directory: Path) -> Work | None:
    """The kind of work whose files are in `directory`; None if there are none."""
    if files_of_a_run(directory):
        return "run"
    sweep = _start_of(directory / _SWEEP_FILE)
    if _OF_A_STUDY.search(sweep) or any((directory / name).exists() for name in _STUDY_FILES):
        return "study"
    return "grid" if sweep or any(directory.glob(f"*/{RUN_FILE}")) else None


def check_own(directory: Path, work: Work) -> None:
    """Refuses a folder that contains another kind of work, or files that must not be overwritten.

    Raises:
        ConfigError: the folder contains other work, a link in place of one of our files, or another app's config.
    """
    written = [*_HYDRAS, *_OF_A_RUN, *(f".hydra/{name}" for name in _HYDRA_FILES)]
    for path in (directory / name for name in written):
        if path.is_symlink():
            raise ConfigError(f"{path} must be a plain file, got a link: remove it, or choose another name=...")
    found = work_in(directory)
    if found not in (None, work):
        this = "run" if work == "run" else "sweep"
        raise ConfigError(f"{directory} must be new or hold this {this}, got {_NAMES[found]}: choose another name=...")
    for path, mark in ((directory / ".hydra" / "config.yaml", b"\nl1:"), (directory / _SWEEP_FILE, b"reg_sweep")):
        if (start := _start_of(path)) and mark not in b"\n" + start:
            raise ConfigError(f"{path} must belong to this program, got another app's: choose another name=...")
    config, *others = (directory / ".hydra" / name for name in _HYDRA_FILES)  # in the order in which they are written
    for path in others:
        if path.exists() and not config.exists():
            raise ConfigError(f"{path} must belong to this program, got another app's: choose another name=...")


def check_log(directory: Path) -> None:
    """Refuses a folder whose train.log another program wrote. Call it before the first line is logged.

    Raises:
        ConfigError: our log would be appended to another program's.
    """
    start = _start_of(directory / _LOG_FILE)
    if start and not _LOGGED.match(start) and work_in(directory) is None:
        path = directory / _LOG_FILE
        raise ConfigError(f"{path} must belong to this program, got another's: choose another name=...")


def begin_sweep(directory: Path, work: Work) -> bool:
    """Reserves `directory` for this grid or study, if it contains no other work. If two begin at once, one is refused.

    Hydra's `multirun.yaml` serves as the mark. It is created here atomically unless it exists; Hydra replaces it later.
    Returns whether it was created: `withdraw_sweep` removes it if the sweep never begins.

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
        mark.rename(target)  # the file system does not support links
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
    """Whether a sweep has begun in `directory`; the mark of one that is about to begin does not count."""
    start = _start_of(directory / _SWEEP_FILE)
    return bool(start) and not start.endswith(_ABOUT_TO_BEGIN.encode())


def withdraw_sweep(directory: Path) -> None:
    """Removes the mark of a sweep that never began, and the folder if it is empty."""
    with suppress(OSError):
        if _start_of(directory / _SWEEP_FILE).endswith(_ABOUT_TO_BEGIN.encode()):
            (directory / _SWEEP_FILE).unlink()
            directory.rmdir()


def _start_of(path: Path) -> bytes:
    """A file's first bytes; empty if there is no file or it is not a plain one."""
    try:
        with open_regular(path) as file:
            return file.read(100_000)
    except (OSError, ValidationError):
        return b""


def new_name() -> str:
    """The default name: the time to the second, and six random letters or digits.

    There are two billion combinations: if 1,000 jobs of a cluster start within one second, two get the same name only
    once in 4,000 times.
    """
    own = "".join(secrets.choice(_OF_A_NAME) for _ in range(6))
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{own}"


def files_of_a_run(directory: Path) -> list[str]:
    """The names of a run's files in `directory`, its record first."""
    return [name for name in _OF_A_RUN if (directory / name).exists()]


def record_of_same_run(config: dict[str, Any], own: str, directory: Path) -> RunRecord | None:
    """The record in `directory` of the run with this config (as a dict) and its digest; None if there is none.

    Raises:
        ConfigError: the record has another config, is unreadable or missing: nothing there may be overwritten.
    """
    left = files_of_a_run(directory)
    if not left:
        return None
    if left[0] != RUN_FILE:
        raise ConfigError(
            f"{directory} must be new or hold this run, got {', '.join(left)} without a {RUN_FILE} that shows which"
            f" run they belong to: choose another name=..., or remove {directory}"
        )
    try:
        record = read_record(directory)
    except RecordError as error:
        raise ConfigError(f"{error}: choose another name=..., or remove {directory}") from None
    if record["digest"] != own:
        difference = differences(comparable(record["config"]), comparable(config))
        raise ConfigError(
            f"{directory} must be new or hold this run, got a run with another config "
            f"({', '.join(difference[:4])}): choose another name=..."
        )
    return record


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The differences between two configs, such as 'l1 0.001 there, 0.01 here'."""
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

    The jobs of an extended grid get new numbers, so a run is found by its digest instead; finished runs are preferred.
    Its `runtime` settings must also be the same, although digests ignore most of them. A new run's folder is named by
    its job number or, if another run has that folder, by its digest, so that no two jobs share a folder.
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
    """Whether the run in `directory` has this digest; only parses a record that contains it."""
    try:
        if wanted.encode() not in (directory / RUN_FILE).read_bytes():
            return False
        return read_record(directory)["digest"] == wanted
    except (OSError, RecordError):
        return False
