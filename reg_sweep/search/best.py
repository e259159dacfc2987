"""Writes a search's best points as experiment files, and judges them on seeds that the search did not use.

The values of selected points have selection bias. So a confirming sweep trains the best points and the baseline on
fresh seeds.
"""

import logging
import math
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.overrides import (
    experiment_yaml,
    missing_overrides,
    search_path,
    settled_overrides,
    whole_lists,
    written_overrides,
)
from reg_sweep.runs.files import clear_temporaries, replacing
from reg_sweep.runs.ranking import Point
from reg_sweep.runs.study import LookJson
from reg_sweep.search.compose import App
from reg_sweep.search.console import best_first, difference_text, final_verdict, last_look, params_text, values_text
from reg_sweep.search.parameter import Parameter, split_params
from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.sequential import SEED, analyses_of, make_design
from reg_sweep.search.settings import StudyError, located
from reg_sweep.search.storage import BEST_FILE, LEARNED, StudyPlace, job_facts, own_trials
from reg_sweep.stats.verdict import Verdict

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

STUDY_GROUP = "study"  # the config group whose files make a command a study; best.yaml must not choose one
CLUSTER_GROUP = "cluster"  # the config group of launcher presets; best.yaml must not choose one either
CONFIRM_FOLDER = "confirm"  # within the search's directory
N_CONFIRMED = 3
# Settings that the confirming sweep sets itself instead of taking them from the search's command.
_OWN = ("confirm", "until_verdict", "study_name", "enqueue", "baseline", "first_seed", "n_trials", "pruner", "extend")


# ---- experiment files


def write_experiments(best: Sequence[Point], plan: StudyPlan, place: StudyPlace, app: App) -> list[str]:
    """Writes each best point as an experiment file. Call it under the study's lock.

    Returns the command that runs them all, or one for each; an empty list if a program started the sweep.
    """
    arguments: dict[str, list[str]] = {}
    folder = (place.directory / BEST_FILE).parent
    folder.mkdir(exist_ok=True)
    clear_temporaries(folder)
    for point in best:
        name = "best" if len(plan.settings.directions) == 1 else f"best_{point.numbers[0]}"
        written = plan.space.overrides(point.params)
        job = app.job_config(written)
        kept = app.parsed(_experiment(written, job, app))
        is_group = partial(app.is_group, job)
        with replacing(folder / f"{name}.yaml") as file:
            package, _, rest = experiment_yaml(kept, is_group).partition("\n")  # Hydra needs it in the first line
            file.write(f"{package}\n# {_origin(point, plan, place)}\n{rest}".encode())
        # A file can't delete a key of the config.
        deleted = [str(o.input_line) for o in kept if o.is_delete() and not is_group(o.key_or_group)]
        arguments[name] = [*deleted, *_overruled(job, name, deleted, place, app)]
    if app.typed is None:
        log.info("best:      %s", ", ".join(str(folder / f"{name}.yaml") for name in arguments))
        return []
    if len(set(map(tuple, arguments.values()))) == 1:
        arguments = {",".join(arguments): next(iter(arguments.values()))}
    start = [*app.typed.app, *app.typed.flags, *search_path(app.config.hydra.runtime, str(place.directory.absolute()))]
    return [shlex.join([*start, f"{_group(app)}={name}", *own]) for name, own in arguments.items()]


def _origin(point: Point, plan: StudyPlan, place: StudyPlace) -> str:
    """'study l1_search: trial 7, value 0.06'."""
    values = values_text(point.values)
    if not plan.replicates:
        return f"study {place.name}: trial {point.numbers[0]}, value {values}"
    names, numbers = ", ".join(plan.replicates), ", ".join(map(str, point.numbers))
    return f"study {place.name}: trials {numbers}, mean value {values} over {names}"


def _group(app: App) -> str:
    return "experiment" if "experiment" in app.config.hydra.runtime.choices else "+experiment"


def _overruled(job: DictConfig, name: str, deleted: Sequence[str], place: StudyPlace, app: App) -> list[str]:
    """Overrides for values that the experiment file can't set, because a main config with _self_ last overrides it."""
    compose = partial(app.run_config, folders=[str(place.directory.absolute())])
    written = [f"{_group(app)}={name}", *deleted]
    try:
        return missing_overrides(job, job.hydra.runtime.choices, written, compose, {*_apart(app), "experiment"})
    except HydraException as error:  # one of the user's files sets keys of the sweeper
        log.warning("the best run's config does not compose without the sweeper: %s", str(error).splitlines()[0])
        return []


def _apart(app: App) -> set[str]:
    """The keys that a best run must not take from its trial: those of the study's directory, study and launcher."""
    raw = OmegaConf.to_container(app.config.hydra.sweep, resolve=False)
    assert isinstance(raw, dict)
    choices = app.config.hydra.runtime.choices
    launched = {CLUSTER_GROUP} if choices.get("hydra/launcher") != "basic" and CLUSTER_GROUP in choices else set()
    return {*re.findall(r"\$\{([\w.]+)\}", raw["dir"]), STUDY_GROUP, *launched}


def _experiment(written: list[str], job: DictConfig, app: App) -> list[str]:
    """The overrides that turn the app's own config into a trial's config, `job`.

    `written` turned the study's config into it. Settings of the study's file outside the space are included, because
    the experiment must not choose that file: it would be a study again.
    """
    ignored = _apart(app)
    kept = [o for o, p in zip(written, app.parsed(written), strict=True) if p.key_or_group not in ignored]
    kept = whole_lists(kept, job)
    if STUDY_GROUP in app.config.hydra.runtime.choices:
        kept += missing_overrides(job, job.hydra.runtime.choices, kept, app.run_config, ignored)
    return kept


# ---- confirmation on fresh seeds


def check_judging(plan: StudyPlan, app: App) -> None:
    """Refuses, before a study begins, a search that could not be confirmed, and design settings that have no effect.

    Raises:
        StudyError: a search to be confirmed has several seeds, no baseline or no valid design; or a design setting was
            typed for a study that does not judge.
    """
    if plan.settings.confirm:
        _check_confirmable(plan, app)
    elif plan.until is None:
        typed = written_overrides(app.config.hydra, "hydra")
        number = next((o for o in typed if o.lstrip("+").startswith("hydra.sweeper.design.")), None)
        if number is not None:
            remedy = "name seeds, such as seed=1,2,3,4,5" if plan.kind == "grid" else "add hydra.sweeper.confirm=true"
            raise StudyError(f"{number} must be left out of a study without a verdict: leave it out, or {remedy}")


def _check_confirmable(plan: StudyPlan, app: App) -> None:
    settings = plan.settings
    if settings.custom_search_space is not None:
        raise StudyError("hydra.sweeper.confirm needs a search without hydra.sweeper.custom_search_space")
    names = [key for name in plan.space.parameters for key in name.split(",")]
    if plan.until is not None or plan.replicates or SEED in {*names, *(settings.params or {})}:
        raise StudyError("hydra.sweeper.confirm needs a search that uses a single seed, the one in its config")
    if OmegaConf.select(app.config, SEED, default=None) is None:
        raise StudyError(f"hydra.sweeper.confirm trains on fresh seeds: the app's config needs the key {SEED}")
    if settings.baseline is None or settings.baseline.keys() != set(_keys_at(settings.baseline, plan)):
        raise StudyError(
            f"hydra.sweeper.baseline must have a value for each of {', '.join(names)} to confirm a search, got"
            f" {params_text(settings.baseline or {}) or 'none'}: {_baseline_remedy(plan)}"
        )
    if settings.confirm_then is not None:
        located("confirm_then", settings.confirm_then)
    plan.space.point(settings.baseline, "baseline")  # refuses values that zipped keys never have together
    make_design(settings.design)


def _keys_at(point: Mapping[str, Any], plan: StudyPlan) -> list[str]:
    """The keys that a point must have."""
    return [key for name in plan.space.names_at(point) for key in name.split(",")]


def _baseline_remedy(plan: StudyPlan) -> str:
    """The text to type for a baseline of this space, for example one with each key's first value."""
    given, node = plan.settings.baseline or {}, "hydra.sweeper.baseline"
    first = {name: (p.listed() or [0])[0] for name, p in plan.space.parameters.items()}
    examples = {
        key.lstrip("+"): text
        for name, p in plan.space.parameters.items()
        for key, text in (p.typed(first[name]) if p.listed() else {p.key: "0"}).items()
    }
    if not given:
        example = ", ".join(f"{key}: {examples[key]}" for key in _keys_at(first, plan))
        return f"for example {shlex.quote(f'{node}={{{example}}}')}"
    # Hydra merges a mapping into that of the study's file, whose other keys remain unless they are deleted.
    wanted = _keys_at(given, plan)
    changes = [f"~{node}.{name}" for name in given if name not in wanted]
    changes += [f"+{node}.{key}={examples[key]}" for key in wanted if key not in given]
    return f"for example, add {' '.join(map(shlex.quote, changes))}"


@dataclass(frozen=True)
class Confirmation:
    """The sweep that judges a search's winner."""

    winner: "FrozenTrial"
    overrides: list[str]
    command: list[str] | None  # starts the sweep in a new process; None if a program started the search


def confirmation(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App) -> Confirmation | None:
    """The sweep that judges the best distinct points against the baseline; None if none differs from it.

    It has the overrides of the search's command, with arms instead of the space.
    """
    assert plan.settings.baseline is not None  # checked before the search began
    parameters, under = plan.space.parameters, plan.space.conditions
    baseline = plan.space.point(plan.settings.baseline, "baseline")
    points = [_typed(baseline, parameters)]
    winners: list[FrozenTrial] = []
    for trial in _candidates(study, plan):
        point = _typed(trial.params, parameters)
        if _is_whole(trial, plan) and point not in points and len(winners) < N_CONFIRMED:
            points.append(point)
            winners.append(trial)
    if not winners:
        return None
    values = {name: _distinct([p[name] for p in points if name in p]) for name in parameters}
    # A single value is fixed for all arms, unless only some arms have the key or it varies together with others.
    swept = {name for name, found in values.items() if len(found) > 1 or name in under or "," in name}
    arms = [{k: t for name in point if name in swept for k, t in point[name].items()} for point in points]
    listed = ",".join(
        "{" + ",".join(f"{k.lstrip('+')}: {_literal(text)}" for k, text in arm.items()) + "}" for arm in arms
    )
    hydra = app.config.hydra
    overrides = [
        *_kept([*settled_overrides(hydra, "hydra"), *settled_overrides(hydra, "task")], parameters),
        *(line for name, found in values.items() if found for line in _swept(found, name in swept)),
        *plan.settings.confirm_with,
        "hydra.sweeper.until_verdict=true",
        "hydra.sweeper.confirm=false",
        f"hydra.sweep.dir={_quoted(f'{hydra.sweep.dir}/{CONFIRM_FOLDER}')}",
        f"hydra.sweeper.study_name={_quoted(f'{place.name}_{CONFIRM_FOLDER}')}",
        f"hydra.sweeper.first_seed={app.config[SEED] + 1}",
        f"hydra.sweeper.enqueue=[{listed}]",
        *(f"hydra.sweeper.{name}=null" for name in ("baseline", "n_trials", "pruner")),
    ]
    if app.typed is None:
        return Confirmation(winners[0], overrides, None)
    folders = [a for a in search_path(hydra.runtime) if not a.startswith("hydra.searchpath=")]
    command = [sys.executable, *app.typed.app[1:], "-m", *app.typed.flags, *folders, *overrides]
    return Confirmation(winners[0], overrides, command)


def _literal(text: str) -> str:
    """A value as it must be typed, escaped so that ${...} is resolved in the job, not in the sweeper's settings."""
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return _quoted(escaped) if escaped != text and text[0] == "$" else escaped


def _candidates(study: "optuna.Study", plan: StudyPlan) -> "list[FrozenTrial]":
    """The completed trials, best first.

    With two objectives, these are the trials of the Pareto front, sorted by the second objective. Trials whose first
    objective is worse than the best by more than twice the design's margin are left out: each has only one seed, but
    so large a loss is unlikely to vanish on others.
    """
    directions = plan.settings.directions
    if len(directions) == 1:
        return best_first(own_trials(study), directions)
    front = best_first([t for t in study.best_trials if LEARNED not in t.user_attrs], directions)
    margin = make_design(plan.settings.design).margin
    reach = math.inf if margin is None else 2 * margin
    near = [t for t in front if abs(t.values[0] - front[0].values[0]) <= reach]
    return best_first(near, directions, by=1)


def _typed(params: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> dict[str, dict[str, str]]:
    """A point as typed on the command line: by parameter, each key's text."""
    return {name: p.typed(params[name]) for name, p in parameters.items() if name in params}


def _distinct(values: list[dict[str, str]]) -> list[dict[str, str]]:
    return [value for i, value in enumerate(values) if value not in values[:i]]


def _swept(values: Sequence[Mapping[str, str]], is_swept: bool) -> list[str]:
    """The overrides of the confirming sweep for a parameter's values."""
    if is_swept and len(values) == 1:  # a value listed twice is a sweep of one choice; choice() does not accept null
        values = [*values, *values]
    return [f"{key}={','.join(value[key] for value in values)}" for key in values[0]]


def _is_whole(trial: "FrozenTrial", plan: StudyPlan) -> bool:
    return all(map(math.isfinite, trial.values)) and trial.params.keys() >= set(plan.space.names_at(trial.params))


def _kept(overrides: Sequence[str], parameters: Mapping[str, Parameter]) -> list[str]:
    """The command's overrides that also hold for the confirming sweep: without the space and `_OWN`."""
    swept = {key for name in parameters for key in name.split(",")}
    gone = {*swept, SEED, "hydra.sweep.dir", *(f"hydra.sweeper.{name}" for name in _OWN)}
    return [o for o in overrides if o.partition("=")[0].lstrip("+~") not in gone]


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def log_confirmed(
    confirmed: Confirmation, confirming: "optuna.Study", search: App, app: App, place: StudyPlace
) -> None:
    """Prints the winner's value in the search next to its verdict on fresh seeds."""
    looks = analyses_of(confirming)
    if not looks:
        return
    seeds, arm = last_look(looks[0]["arms"][0]["params"], looks)  # the winner comes first of all arms
    assert arm is not None
    swept = OmegaConf.select(search.config, "hydra.sweeper.params.objective")  # the space may set several
    found, judged = (OmegaConf.select(a.config, "objective", default="value") for a in (search, app))
    searched = str(found if swept is None else swept).strip("[]").replace(",", ", ")
    first = app.config.hydra.sweeper.first_seed
    question = OmegaConf.select(app.config, "hydra.sweeper.design.question", default=None)
    word = final_verdict(arm, seeds, question or "better")
    log.info(
        "the search's winner: trial %d, %s\n  in the search, on seed %s: %s\n  on the fresh seeds %d to %d:"
        " %s %s against the baseline (%s): %s",
        *(confirmed.winner.number, params_text(split_params(confirmed.winner.params, confirmed.winner.user_attrs))),
        *(search.config[SEED], _found_text(confirmed.winner.values, searched)),
        *(first, first + seeds - 1, judged.replace("_", " "), *difference_text(arm, judged), word),
    )
    if len(confirmed.winner.values) > 1:
        _log_first_shown(confirming, looks, searched.rpartition(", ")[2], search, place)


def _found_text(values: Sequence[float], searched: str) -> str:
    names = searched.split(", ")
    return values_text(values, names) if len(names) == len(values) else f"{searched} {values_text(values)}"


def _log_first_shown(
    confirming: "optuna.Study", looks: Sequence[LookJson], sorted_by: str, search: App, place: StudyPlace
) -> None:
    """Prints the first arm, in the order of the search's second objective, that is shown not worse.

    Calls `confirm_then` with the folders of its runs and prints what it returns.
    """
    tried: list[str] = []
    for params in [arm["params"] for arm in looks[0]["arms"]]:
        seeds, arm = last_look(params, looks)
        assert arm is not None
        if Verdict.of(arm["decision"]).is_no_loss:
            before = f"; tried before it: {'; '.join(tried)}" if tried else ""
            log.info(
                "first by %s that is %s: %s, on %d seeds%s",
                *(sorted_by, arm["decision"], params_text(params), seeds, before),
            )
            runs = [t for t in confirming.get_trials(deepcopy=False) if params.items() <= t.params.items()]
            then = search.config.hydra.sweeper.confirm_then
            if then is not None:
                folders = [place.directory / job_facts(t)["directory"] for t in runs if "directory" in job_facts(t)]
                log.info("%s", located("confirm_then", then)(folders))
            return
        tried.append(f"{params_text(params)} {arm['decision']} on {seeds} seeds")
    log.info("by %s no arm is shown not worse: %s", sorted_by, "; ".join(tried))
