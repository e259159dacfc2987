"""Runs in folders of files: Lightning's CSVLogger, Hugging Face's Trainer, Hydra apps, and record_run's records."""

import json
import math
import pickletools
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from reg_sweep.readers import names
from reg_sweep.readers.cells import read_table
from reg_sweep.readers.foreign import ForeignRun, ReadError, Series, flat_settings, number, plain, read_yaml, text
from reg_sweep.readers.names import path_settings
from reg_sweep.readers.stores import objective_name
from reg_sweep.runs import validation
from reg_sweep.runs.arrays import BROKEN_ARCHIVE
from reg_sweep.runs.reading import RecordedError, read_record, read_recorded, read_rows
from reg_sweep.runs.record import RUN_FILE, STUDY_FILE, RecordError
from reg_sweep.runs.study import Study, read_study
from reg_sweep.runs.validation import ValidationError, one_line

METRICS_FILES = ("metrics.json", "metrics.csv", "results.json", "results.csv", "metrics.jsonl", "scores.json")
MAX_STATE = 64_000_000  # bytes of a trainer_state.json
MAX_ARGUMENTS = 4_000_000  # of a training_args.bin
_HYDRA = Path(".hydra", "config.yaml")
_UNNAMED = "the objective"  # what the sweeper calls an objective that its app does not name


# ---- histories and values of a metrics file


def metrics_of(path: Path) -> tuple[dict[str, Series], dict[str, float]]:
    """The metrics in a file of one run: a history where it has steps, else single values; nested names get dots.

    Raises:
        ReadError: it can't be read.
    """
    table = read_table(path)
    steps = [c for c in table.columns.values() if names.role(c.name) == "step" and c.is_numeric]
    step = min(steps, key=lambda c: names.step_rank(c.name), default=None)
    is_history = table.n_rows > 1
    history, scores = {}, {}
    for column in table.columns.values():
        if column is step or column.numbers is None:
            continue
        known = [(n, float(v)) for n, v in enumerate(column.values) if v is not None]
        if is_history:
            places = range(1, table.n_rows + 1) if step is None else step.values
            points = [(float(places[n]), v) for n, v in known if places[n] is not None]
            if points:
                history[column.name] = Series.of([s for s, _ in points], [v for _, v in points])
        elif known:
            scores[column.name] = known[-1][1]
    return history, scores


# ---- Lightning


def is_lightning_run(folder: Path) -> bool:
    """Whether Lightning's CSVLogger wrote the folder."""
    return (folder / "metrics.csv").is_file() and (folder / "hparams.yaml").is_file()


def lightning_run(folder: Path, root: Path) -> ForeignRun:
    """The run of a CSVLogger: its hyperparameters, those of a Hydra app around it, and what its path says.

    Raises:
        ReadError: its files can't be read.
    """
    history, scores = metrics_of(folder / "metrics.csv")
    settings = _around(folder, root)
    with suppress(FileNotFoundError):
        if (folder / "hparams.yaml").stat().st_size > 0:
            settings |= _yaml_settings(folder / "hparams.yaml")
    return ForeignRun("Lightning", folder, settings, scores, history)


def _yaml_settings(path: Path) -> dict[str, Any]:
    try:
        return flat_settings(read_yaml(path))
    except ReadError as error:
        if "got NoneType" in str(error):  # `{}`, or nothing: no hyperparameters were saved
            return {}
        raise


def _around(folder: Path, root: Path) -> dict[str, Any]:
    """The settings of the nearest Hydra config at or above a folder, else those that its path names."""
    for above in (folder, *folder.parents):
        if (above / _HYDRA).is_file():
            return _yaml_settings(above / _HYDRA)
        if above == root:
            break
    return path_settings(folder.relative_to(root) / "metrics")


# ---- Hugging Face


def huggingface_run(folder: Path, root: Path, states: Sequence[Path]) -> ForeignRun:
    """The run of a Trainer, from the most advanced of its own state and its checkpoints' states.

    The arguments are found in training_args.bin without unpickling it: see `plain_arguments`. A state that ends before
    its `max_steps` is still running, unless it stopped early on purpose.

    Raises:
        ReadError: its files can't be read.
    """
    found = [state for state in map(_state, states) if state is not None]
    if not found:
        raise ReadError(f"{states[0]}: must be a Trainer's state with a log_history, got something else")
    state = max(found, key=lambda s: number(s.get("global_step")) or 0.0)
    points: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, float] = {}
    for row in state["log_history"]:
        step = number(row.get("step"))
        for name, value in row.items():
            score = number(value)
            if score is None or name in ("step", "epoch"):
                continue
            if step is None:
                scores[text(name)] = score
            else:
                points.setdefault(text(name), []).append((step, score))
    settings = path_settings(folder.relative_to(root) / "trainer_state.json")
    for arguments in [p.parent / "training_args.bin" for p in states]:
        if arguments.is_file():
            settings |= plain_arguments(arguments)
            break
    done, planned = (number(state.get(key)) for key in ("global_step", "max_steps"))
    stopped = (
        isinstance(state.get("stateful_callbacks"), dict) and "EarlyStoppingCallback" in state["stateful_callbacks"]
    )
    is_done = done is None or not planned or done >= planned or stopped
    return ForeignRun(
        "Hugging Face",
        folder,
        settings,
        scores,
        {name: Series.of([s for s, _ in its], [v for _, v in its]) for name, its in points.items()},
        status="complete" if is_done else "running",
        message="" if is_done else f"it ends at step {done:g} of {planned:g}",
        seconds=scores.get("train_runtime", math.nan),
    )


def _state(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(validation.read_bytes(path, MAX_STATE))
    except (ValidationError, OSError, ValueError, RecursionError) as error:
        raise ReadError(f"{path}: must be JSON ({one_line(error)})") from None
    if not isinstance(found, dict) or not isinstance(found.get("log_history"), list):
        return None
    found["log_history"] = [row for row in found["log_history"] if isinstance(row, dict)]
    return found


_PUSHES = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG1", "FLOAT", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "UNICODE"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_ARGUMENTS = {
    *("seed", "data_seed", "learning_rate", "weight_decay", "per_device_train_batch_size", "num_train_epochs"),
    *("max_steps", "warmup_steps", "warmup_ratio", "lr_scheduler_type", "optim", "adam_beta1", "adam_beta2"),
    *("adam_epsilon", "max_grad_norm", "label_smoothing_factor", "gradient_accumulation_steps", "fp16", "bf16"),
}


def plain_arguments(path: Path) -> dict[str, Any]:
    """The plain values among the arguments in a training_args.bin, by name.

    The file is a pickle, which could run anything, so it is never loaded: its instructions are listed, and a name
    followed by a plain value is an argument.
    """
    found: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((n for n in archive.namelist() if n.endswith("data.pkl")), "")
            if not name or archive.getinfo(name).file_size > MAX_ARGUMENTS:
                return {}
            content = archive.read(name)
        key: Any = None
        for operation, argument, _ in pickletools.genops(content):
            if operation.name in _PUSHES or operation.name in _CONSTANTS:
                value = _CONSTANTS.get(operation.name, argument)
                if key in _ARGUMENTS and key not in found:
                    found[key] = plain(value)
                    key = None
                else:
                    key = value if isinstance(value, str) else None
            elif operation.name not in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
                key = None
    except BROKEN_ARCHIVE:
        return found
    return found


# ---- Hydra


def is_hydra_job(folder: Path) -> bool:
    """Whether a Hydra app ran in the folder."""
    return (folder / _HYDRA).is_file()


def hydra_run(folder: Path, metrics_file: str | None) -> ForeignRun | None:
    """The run of a Hydra app's job; None where it has no metrics file.

    Raises:
        ReadError: its files can't be read.
    """
    found = (
        sorted(folder.glob(metrics_file)) if metrics_file else [p for n in METRICS_FILES if (p := folder / n).is_file()]
    )
    settings = _yaml_settings(folder / _HYDRA)
    if not found:
        if metrics_file is None:
            return None
        return ForeignRun("Hydra", folder, settings, status="failed", message=f"it has no {metrics_file}")
    history, scores = metrics_of(found[0])
    return ForeignRun("Hydra", folder, settings, scores, history, bought_by=_bought_by(folder.parent / STUDY_FILE))


def _bought_by(study: Path) -> str:
    """The name of the sequential study above a job's folder; empty where there is none."""
    try:
        return _sequential(study, study.stat().st_mtime_ns)
    except (OSError, RecordError):  # a damaged study is reported where it is read itself
        return ""


@lru_cache(maxsize=8)
def _sequential(study: Path, _changed_ns: int) -> str:
    found = read_study(study)
    return "" if found.design is None else found.name


# ---- this project's records of other programs


def recorded_run(folder: Path) -> ForeignRun | None:
    """A run that `record_run` recorded; None if the folder holds the trainer's own run.

    Raises:
        ReadError: its record or its metrics can't be read.
    """
    try:
        read_record(folder)
    except RecordedError:
        pass
    except RecordError:
        return None
    else:
        return None
    try:
        record, rows = read_recorded(folder), read_rows(folder)
    except RecordError as error:
        raise ReadError(str(error)) from None
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "epoch" and value is not None and row["epoch"] is not None:
                points.setdefault(text(name), []).append((row["epoch"], value))
    return ForeignRun(
        "record_run",
        folder,
        flat_settings(record["config"]) | {"seed": record["seed"]},
        history={name: Series.of([s for s, _ in its], [v for _, v in its]) for name, its in points.items()},
        status=record["status"],
        seconds=record["seconds"],
        ended=record["ended"] or "",
        message=record["message"] or "",
        clock="epoch",
        bought_by=_bought_by(folder.parent / STUDY_FILE),
    )


def study_runs(study: Study) -> list[ForeignRun]:
    """The trials of a study.json of any app: parameters and objectives; empty if this project's trainer ran them.

    The objective is called what the study's design calls it. A trial without a seed among its parameters is
    exploratory: it counts as a run with a seed of its own.
    """
    if any(t.directory is not None and (t.directory / RUN_FILE).exists() for t in study.trials):
        return []
    metric = "" if study.design is None else study.design.metric
    named = [] if metric in ("", _UNNAMED) else [metric]
    directions = dict(enumerate(study.directions))
    called = [objective_name(n, directions, named) for n in directions]
    runs = []
    for trial in study.trials:
        if trial.state == "waiting":
            continue
        has_seed = any(names.role(name) == "seed" for name in trial.params)
        own = {} if has_seed else {"seed": trial.number if study.kind == "search" else 0}
        is_finite = all(map(math.isfinite, trial.values))
        runs.append(
            ForeignRun(
                "study.json",
                trial.directory or study.path,
                flat_settings(trial.params) | own,
                dict(zip(called, trial.values, strict=False)),
                status="diverged" if trial.state == "complete" and not is_finite else trial.state,
                place="" if trial.directory is not None else f"trial {trial.number}",
                message=trial.message,
                is_trial=study.kind == "search",
            )
        )
    return runs
