"""Uses another study's results: trials for a search to learn from, or a noise estimate for a verdict.

The trials are added to the study with a mark; they are never counted, ranked or shown as its own.
"""

import csv
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString, Sweep
from hydra.errors import HydraException

from reg_sweep.hydra_app.overrides import defaults
from reg_sweep.runs.addresses import public_location
from reg_sweep.runs.record import STUDY_FILE, RecordError
from reg_sweep.runs.study import Direction, read_study
from reg_sweep.search.compose import App
from reg_sweep.search.console import typed_text
from reg_sweep.search.optuna_internals import holds
from reg_sweep.search.parameter import split_params
from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.sequential import SEED
from reg_sweep.search.settings import StudyError
from reg_sweep.search.storage import (
    IDENTITY,
    LEARNED,
    STORAGE_FILE,
    opened_storage,
    own_trials,
    sqlite_url,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """A point with its values from another study or a table."""

    label: str  # 'trial 3', 'line 4'
    params: dict[str, Any]
    values: list[float]


def learned(plan: StudyPlan, app: App) -> "list[FrozenTrial]":
    """The trials of `hydra.sweeper.learn_from` that lie in this space, marked as another study's.

    Raises:
        StudyError: they can't be read, none is in this space, the direction differs, or the sampler does not learn.
    """
    import optuna

    source = plan.settings.learn_from
    if source is None:
        return []
    said = f"hydra.sweeper.learn_from={public_location(source)}"
    its = plan.sampler()
    if plan.until is not None or isinstance(its, optuna.samplers.RandomSampler | optuna.samplers.QMCSampler):
        name = "until_verdict" if plan.until is not None else type(its).__name__
        raise StudyError(f"{said}: {name} learns nothing from other trials: leave it out, or choose another sampler")
    directory = Path(app.config.hydra.runtime.cwd)
    directions, known = _known(source, directory, plan)
    if directions is not None and directions != plan.settings.directions:
        wanted = ", ".join(plan.settings.directions)
        raise StudyError(f"{said} has the direction {', '.join(directions)}, but this study has {wanted}")
    found, why_not = [], ""
    for row in known:
        try:
            found.append(_told(row, plan, f"{public_location(source)}, {row.label}"))
        except StudyError as error:
            why_not = why_not or f"{row.label}: {error}"
    if not found:
        raise StudyError(f"{said} has no trial in this space: {why_not or 'it has none with a value'}")
    if why_not:
        log.info("%s: %d of %d trials are in this space; %s", said, len(found), len(known), why_not)
    return found


def earlier_variance(plan: StudyPlan, app: App) -> float | None:
    """The variance of a paired difference in the study of `hydra.sweeper.noise_from`; None if it is not set.

    Raises:
        StudyError: that study can't be read, did not judge, had other settings, or allows no estimate.
    """
    source = plan.settings.noise_from
    if source is None or plan.until is None:
        return None
    from reg_sweep.stats.moderation import mean_variance

    folder, said = Path(app.config.hydra.runtime.cwd) / source, f"hydra.sweeper.noise_from={source}"
    try:
        study = read_study(folder / STUDY_FILE)
    except RecordError as error:
        raise StudyError(f"hydra.sweeper.noise_from must be the folder of a study with a verdict: {error}") from None
    design = study.design
    if design is None:
        raise StudyError(f"{said} must be a study with a verdict (until_verdict or confirm), got a {study.kind}")
    if changes := _other_settings(folder, study.name, {*design.baseline, *plan.space.parameters}, plan, app):
        raise StudyError(
            f"{said} was trained with other settings: {'; '.join(changes)}: choose a study with the same data, model"
            " and recipe, or leave it out"
        )
    scores: dict[str, dict[int, float]] = {}
    for trial in study.trials:
        if trial.state == "complete" and math.isfinite(trial.values[0]):
            params = {name: value for name, value in trial.params.items() if name != SEED}
            scores.setdefault(typed_text(params), {})[trial.params[SEED]] = trial.values[0]
    base = scores.pop(typed_text(design.baseline), {})
    pairs = [[arm.get(seed, math.nan) - value for seed, value in base.items()] for arm in scores.values()]
    variance = mean_variance(pairs) if base and pairs else math.nan
    if not variance > 0:
        raise StudyError(
            f"{said} allows no estimate of the noise: it needs an arm whose differences from the baseline vary over at"
            " least two seeds"
        )
    return variance


def _other_settings(folder: Path, name: str, varied: set[str], plan: StudyPlan, app: App) -> list[str]:
    """The settings in which the study in a folder differs from this one, apart from those that vary between arms."""
    import optuna

    if not (folder / STORAGE_FILE).is_file():
        raise StudyError(f"hydra.sweeper.noise_from must be a study with its {STORAGE_FILE}, got {folder}")
    with opened_storage(sqlite_url(folder / STORAGE_FILE)) as storage:
        then = optuna.load_study(study_name=name, storage=storage).user_attrs.get(IDENTITY)
    now, own = plan.identity(app.config), {} if plan.until is None else plan.until.identity()
    then, default = dict(then) if isinstance(then, Mapping) else {}, defaults(app.config)
    return [
        f"{key} was {then.get(key, 'not there')}, is {now.get(key, 'not there')}"
        for key in sorted(then.keys() | now.keys() - own.keys())
        if key not in own
        and not any(f"{key.lstrip('+')}.".startswith(f"{swept}.") for swept in varied)
        and then.get(key, default.get(key)) != now.get(key)
    ]


def _told(row: Known, plan: StudyPlan, label: str) -> "FrozenTrial":
    """A known point as a trial.

    Raises:
        StudyError: it is not in this space, or has no finite value.
    """
    import optuna

    point = plan.space.point(row.params, "learn_from")
    names = plan.space.names_at(point)
    missing = [name for name in names if name not in point]
    if missing:
        raise StudyError(f"it has no {', '.join(missing)}")
    if len(row.values) != len(plan.settings.directions) or not all(map(math.isfinite, row.values)):
        raise StudyError("it has no finite value for each objective")
    spaces = {name: plan.space.parameters[name].distribution for name in names}
    for name in names:
        if not holds(spaces[name], point[name]):
            raise StudyError(f"{name} must be {plan.space.parameters[name]}, got {point[name]}")
    params = {name: point[name] for name in names}
    return optuna.trial.create_trial(
        params=params, distributions=spaces, values=row.values, user_attrs={LEARNED: label}
    )


def _known(source: str, directory: Path, plan: StudyPlan) -> tuple[list[Direction] | None, list[Known]]:
    """The directions, if known, and the trials, read from a study's folder, its storage, or a CSV table."""
    path = directory / source
    if path.is_dir() or path.name == STUDY_FILE:
        try:
            read = read_study(path / STUDY_FILE if path.is_dir() else path)
        except RecordError as error:
            raise StudyError(f"hydra.sweeper.learn_from: {error}") from None
        complete = [t for t in read.trials if t.state == "complete" and t.is_feasible]
        return read.directions, [Known(f"trial {t.number}", t.params, list(t.values)) for t in complete]
    if path.suffix.lower() in (".csv", ".tsv"):
        return None, _table(path, plan)
    return _stored(source if "://" in source else _address(path))


def _address(path: Path) -> str:
    file, mark, name = str(path).partition("#")
    if not Path(file).is_file():
        raise StudyError(
            f"hydra.sweeper.learn_from must be a study's folder, storage or CSV file, got {path}, which does not exist"
        )
    with Path(file).open("rb") as opened:
        is_sqlite = opened.read(6) == b"SQLite"
    return (sqlite_url(Path(file)) if is_sqlite else file) + mark + name


def _stored(address: str) -> tuple[list[Direction] | None, list[Known]]:
    """The trials of one study in a storage; if there are several, '#NAME' after the address selects it."""
    import optuna

    location, _, name = address.partition("#")
    with opened_storage(location) as storage:
        names = optuna.get_all_study_names(storage)
        if (name or len(names) == 1) and (not name or name in names):
            study = optuna.load_study(study_name=name or names[0], storage=storage)
            directions: list[Direction] = ["minimize" if d.name == "MINIMIZE" else "maximize" for d in study.directions]
            complete = [t for t in own_trials(study) if t.state.name == "COMPLETE"]
            known = [Known(f"trial {t.number}", split_params(t.params, t.user_attrs), list(t.values)) for t in complete]
            return directions, known
    raise StudyError(
        f"hydra.sweeper.learn_from: {public_location(location)} has the studies {', '.join(names) or 'none'}: write"
        f" hydra.sweeper.learn_from='{public_location(location)}#NAME'"
    )


def _table(path: Path, plan: StudyPlan) -> list[Known]:
    """The rows of a CSV file that has a column for each parameter, and 'value' or the objectives' names for values."""
    said = f"hydra.sweeper.learn_from: {path}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except (OSError, ValueError, csv.Error) as error:
        raise StudyError(f"{said} can't be read: {' '.join(str(error).split())}") from None
    columns = list(rows[0]) if rows else []
    n, given = len(plan.settings.directions), plan.settings.metric_names
    wanted = list(given) if given is not None else ["value"] if n == 1 else [f"values_{i}" for i in range(n)]
    lacks = [name for name in wanted if name not in columns]
    if lacks:
        raise StudyError(f"{said} must have the columns {', '.join(wanted)}, got {', '.join(columns) or 'no row'}")
    keys = {key for name in plan.space.parameters for key in name.split(",")} & set(columns)
    known = []
    for line, row in enumerate(rows, 2):
        try:
            values = [float(row[name]) for name in wanted]
        except (TypeError, ValueError):
            values = []
        params = {key: _read_cell(row[key]) for key in keys if row[key] not in ("", None)}
        known.append(Known(f"line {line}", params, values))
    return known


def _read_cell(text: str) -> Any:
    """Parses a cell as Hydra parses a value: a number, true or false, null, or text."""
    try:
        value = OverridesParser.create().parse_override(f"x={text}").value()
    except HydraException:
        return text
    return text if isinstance(value, Sweep | QuotedString) else value
