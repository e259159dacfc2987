"""MLflow's file store, and runs in SQLite: MLflow's, Trackio's and Optuna's databases, opened read-only."""

import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reg_sweep.readers import names
from reg_sweep.readers.foreign import (
    MAX_FILE,
    MAX_METRICS,
    ForeignRun,
    ReadError,
    Series,
    flat_settings,
    number,
    plain,
    read_yaml,
    status_of,
    text,
)
from reg_sweep.runs import validation
from reg_sweep.runs.validation import ValidationError, one_line

MAX_RUNS = 100_000
MAX_POINTS = 50_000_000
_ENDED = {3: "FINISHED", 4: "FAILED", 5: "KILLED", 1: "RUNNING", 2: "SCHEDULED"}
_ATTEMPTS = 10_000  # SQLite's steps between two checks of whether a query takes too long
_MOST_STEPS = 200_000

METRIC_NAMES = "study:metric_names"  # Optuna's attribute of a study whose objectives have names

Points = dict[str, list[tuple[float, float]]]


def typed(value: str) -> Any:
    """A parameter that a program wrote as text, as the number or truth value that it stands for."""
    word = value.strip()
    if word in ("True", "False"):
        return word == "True"
    if word == "None":
        return None
    try:
        found = float(word) if word[:1] in "+-.0123456789" else math.nan
    except ValueError:
        found = math.nan
    return plain(found) if math.isfinite(found) else text(value)


# ---- MLflow's file store


def is_mlflow_run(folder: Path) -> bool:
    """Whether a folder is a run of MLflow's file store."""
    return (folder / "meta.yaml").is_file() and ((folder / "metrics").is_dir() or (folder / "params").is_dir())


def mlflow_run(folder: Path) -> ForeignRun | None:
    """A run of MLflow's file store; None for a deleted one.

    Raises:
        ReadError: its files can't be read.
    """
    meta = read_yaml(folder / "meta.yaml")
    if meta.get("lifecycle_stage") == "deleted":
        return None
    settings = {}
    for path in _files(folder / "params"):
        settings[text(path.relative_to(folder / "params"))] = typed(_read(path).strip())
    history = {}
    for path in _files(folder / "metrics")[:MAX_METRICS]:
        points = [_mlflow_point(line) for line in _read(path).splitlines()]
        known = [p for p in points if p is not None]
        if known:
            history[text(path.relative_to(folder / "metrics"))] = logged_series(known)
    status = meta.get("status")
    start, end = (number(meta.get(key)) for key in ("start_time", "end_time"))
    return ForeignRun(
        "MLflow",
        folder,
        {**settings, "run_name": plain(meta.get("run_name"))},
        history=history,
        status=status_of(_ENDED.get(status, "") if isinstance(status, int) else str(status)),
        seconds=(end - start) / 1000 if start is not None and end is not None and end >= start else math.nan,
        ended=str(end or ""),
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []


def _read(path: Path) -> str:
    try:
        return validation.read_bytes(path, MAX_FILE).decode(errors="replace")
    except (ValidationError, OSError) as error:
        raise ReadError(f"{path}: unreadable ({one_line(error)})") from None


def _mlflow_point(line: str) -> tuple[float, float] | None:
    """'timestamp value step', or an older 'timestamp value'."""
    parts = line.split()
    try:
        return (float(parts[2]) if len(parts) > 2 else math.nan), float(parts[1])
    except (ValueError, IndexError):
        return None


def logged_series(points: list[tuple[float, float]]) -> Series:
    """The points by step or, if all have the same step, in the order in which they were logged."""
    steps = [step for step, _ in points]
    if len(points) > 1 and (len(set(steps)) == 1 or any(math.isnan(s) for s in steps)):
        steps = [float(n) for n in range(len(points))]
    elif any(math.isnan(s) for s in steps):
        steps = [0.0]
    return Series.of(steps, [value for _, value in points])


# ---- SQLite


def sqlite_runs(path: Path) -> tuple[str, list[ForeignRun]]:
    """The runs in a SQLite database of MLflow, Trackio or Optuna, and which of them it is.

    Raises:
        ReadError: it is locked or damaged, or another program's.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=2.0)) as connection:
            _limit(connection)
            connection.execute("PRAGMA query_only = 1")
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for kind, needed, read in _DATABASES:
                if needed <= tables:
                    return kind, read(connection, path)
    except sqlite3.Error as error:
        raise ReadError(f"{path}: must be a readable database ({one_line(error)}): close what writes to it") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ReadError(f"{path}: must be a whole database ({one_line(error)})") from None
    raise ReadError(f"{path}: must be a database of MLflow, Trackio or Optuna, got tables of another program")


def require_few(n_runs: int, path: Path) -> None:
    """Refuses a storage with more runs than a page can compare: what it left out would change the verdict.

    Raises:
        ReadError: there are more than MAX_RUNS.
    """
    if n_runs > MAX_RUNS:
        raise ReadError(f"{path}: must have at most {MAX_RUNS:,} runs, got more: copy those that you compare")


def _limit(connection: sqlite3.Connection) -> None:
    """Ends queries that never end: a stranger's database may hold views and triggers."""
    n = 0

    def watch() -> int:
        nonlocal n
        n += 1
        return n > _MOST_STEPS

    connection.set_progress_handler(watch, _ATTEMPTS)


def _mlflow(connection: sqlite3.Connection, path: Path) -> list[ForeignRun]:
    runs: dict[str, ForeignRun] = {}
    rows = connection.execute(
        "SELECT run_uuid, name, status, start_time, end_time FROM runs WHERE lifecycle_stage = 'active'"
    )
    for uuid, name, status, start, end in rows.fetchmany(MAX_RUNS + 1):
        seconds = (end - start) / 1000 if isinstance(start, int) and isinstance(end, int) else math.nan
        settings = {"run_name": text(name)} if name else {}
        place = f"run {text(uuid)[:12]}"
        runs[uuid] = ForeignRun(
            "MLflow", path, settings, status=status_of(str(status)), seconds=seconds, place=place, ended=str(end or "")
        )
    require_few(len(runs), path)
    for uuid, key, value in connection.execute("SELECT run_uuid, key, value FROM params"):
        if uuid in runs:
            runs[uuid].settings[text(key)] = typed(str(value))
    points: dict[str, Points] = {uuid: {} for uuid in runs}
    metrics = connection.execute(
        "SELECT run_uuid, key, value, is_nan, step FROM metrics ORDER BY timestamp LIMIT ?", (MAX_POINTS,)
    )
    for uuid, key, value, is_nan, step in metrics:
        if uuid in points:
            score = math.nan if is_nan else float(value)
            points[uuid].setdefault(text(key), []).append((float(step), score))
    for uuid, its in points.items():
        runs[uuid].history = {name: logged_series(found) for name, found in its.items()}
    return list(runs.values())


def _trackio(connection: sqlite3.Connection, path: Path) -> list[ForeignRun]:
    key = "run_id" if "run_id" in _columns(connection, "metrics") else "run_name"
    runs: dict[str, ForeignRun] = {}
    points: dict[str, Points] = {}
    rows = connection.execute(f"SELECT {key}, run_name, step, metrics FROM metrics ORDER BY id LIMIT ?", (MAX_POINTS,))
    for run, name, step, content in rows:
        runs.setdefault(run, ForeignRun("Trackio", path, {"run_name": text(name)}, place=f"run {text(name)}"))
        its = points.setdefault(run, {})
        for metric, value in _json(content).items():
            score = number(value)
            if score is not None:
                its.setdefault(text(metric), []).append((float(step), score))
    for run, name, content in connection.execute(f"SELECT {key}, run_name, config FROM configs"):
        owner = runs.setdefault(run, ForeignRun("Trackio", path, {"run_name": text(name)}, place=f"run {text(name)}"))
        owner.settings |= {k: v for k, v in flat_settings(_json(content)).items() if not k.startswith("_")}
    for run, its in points.items():
        runs[run].history = {
            name: Series.of([s for s, _ in found], [v for _, v in found]) for name, found in its.items()
        }
    return list(runs.values())


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _json(content: Any) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ---- Optuna


def _optuna(connection: sqlite3.Connection, path: Path) -> list[ForeignRun]:
    called = dict(connection.execute("SELECT study_id, study_name FROM studies").fetchall())
    attributes = _attributes(connection, "study_user_attributes")
    objective_names = {
        study: found
        for study, its in _attributes(connection, "study_system_attributes").items()
        if isinstance(found := its.get(METRIC_NAMES), list)
    }
    objectives: dict[int, dict[int, str]] = {}
    for study, objective, direction in connection.execute(
        "SELECT study_id, objective, direction FROM study_directions"
    ):
        objectives.setdefault(study, {})[objective] = str(direction)
    trials: dict[int, ForeignRun] = {}
    studies: dict[int, int] = {}
    for trial, n, study, state in connection.execute("SELECT trial_id, number, study_id, state FROM trials"):
        named = {"study": text(called.get(study, ""))} if len(called) > 1 else {}
        run = ForeignRun("Optuna", path, named, status=trial_status(str(state)), place=f"trial {n}")
        its = attributes.get(study, {})
        run.is_trial, run.bought_by = is_search(its), sequential(its, text(called.get(study, "")))
        trials[trial], studies[trial] = run, study
    for trial, name, value, distribution in connection.execute(
        "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params"
    ):
        if trial in trials:
            trials[trial].settings[text(name)] = _parameter(value, distribution)
    for table in ("trial_user_attributes",):
        for trial, key, value in connection.execute(f"SELECT trial_id, key, value_json FROM {table}"):
            if trial in trials:
                add_attribute(trials[trial], key, _decoded(value))
    for trial, objective, value, kind in connection.execute(
        "SELECT trial_id, objective, value, value_type FROM trial_values"
    ):
        if trial in trials:
            found = {"INF_POS": math.inf, "INF_NEG": -math.inf}.get(kind, value)
            study = studies[trial]
            name = objective_name(objective, objectives.get(study, {}), objective_names.get(study, ()))
            trials[trial].scores[name] = float(found)
    return with_seeds(list(trials.values()))


def _attributes(connection: sqlite3.Connection, table: str) -> dict[int, dict[str, Any]]:
    """The attributes of each study, by its number."""
    found: dict[int, dict[str, Any]] = {}
    if _columns(connection, table):
        for study, key, value in connection.execute(f"SELECT study_id, key, value_json FROM {table}"):
            found.setdefault(study, {})[text(key)] = _decoded(value)
    return found


def objective_name(objective: int, directions: Mapping[int, str], called: Sequence[object] = ()) -> str:
    """The name of an objective: that of the study, if it gave any. It says the direction where the name does not."""
    is_maximized = directions.get(objective, "").upper() == "MAXIMIZE"
    name = text(called[objective]) if objective < len(called) else ""
    if name and names.direction(name) is is_maximized and names.role(name) == "":
        return name
    name = name or ("value" if len(directions) < 2 else f"value_{objective}")
    return f"{name} ({'maximized' if is_maximized else 'minimized'})"


def is_search(attributes: Mapping[str, Any]) -> bool:
    """Whether a study with these attributes is a search of `hydra/sweeper=optuna_study`, whose trials explore.

    A grid and a sequential study planned their arms; another program's study does not say.
    """
    searcher = attributes.get("searcher")
    is_own = "reg_sweep" in attributes and isinstance(searcher, str)
    return is_own and "looks" not in attributes and not str(searcher).startswith("GridSampler")


def sequential(attributes: Mapping[str, Any], name: str) -> str:
    """The name of a study with these attributes if `hydra/sweeper=optuna_study` judges its arms by a design; or ''."""
    return name if "reg_sweep" in attributes and "looks" in attributes else ""


def with_seeds(trials: list[ForeignRun]) -> list[ForeignRun]:
    """The trials of a storage; a search's trial without a seed counts as a run with a seed of its own."""
    for n, run in enumerate(trials):
        if run.is_trial and not any(names.role(name) == "seed" for name in run.settings):
            run.settings["seed"] = n
    return trials


def trial_status(state: str) -> Any:
    """The status of a trial's state."""
    return {"COMPLETE": "complete", "FAIL": "failed", "PRUNED": "pruned"}.get(state.upper(), "running")


def add_attribute(run: ForeignRun, key: str, value: Any) -> None:
    """Adds an attribute as a setting or, if it is a number named like a score, a score; skips the sweeper's notes."""
    if key == "job" and isinstance(value, Mapping) and "attempt" in value:
        return
    score = number(value)
    if score is not None and names.direction(key) is not None and names.role(key) == "":
        run.scores[text(key)] = score
    else:
        run.settings |= flat_settings({key: value})


def _parameter(value: Any, distribution: str) -> Any:
    found = _json(distribution)
    attributes = found.get("attributes", {})
    choices = attributes.get("choices") if isinstance(attributes, dict) else None
    if isinstance(choices, list):
        return plain(choices[int(value)]) if 0 <= int(value) < len(choices) else None
    return plain(float(value))


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return text(value)


_DATABASES: list[tuple[str, set[str], Callable[[sqlite3.Connection, Path], list[ForeignRun]]]] = [
    ("MLflow's database", {"runs", "params", "metrics", "experiments"}, _mlflow),
    ("Optuna's database", {"studies", "trials", "trial_params", "trial_values"}, _optuna),
    ("Trackio's database", {"metrics", "configs"}, _trackio),
]
