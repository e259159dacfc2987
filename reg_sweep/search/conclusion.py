"""The end of a study: what came of it, in words, in study.json and as the best trial's experiment file."""

import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.command_line import app_command, config_flags
from reg_sweep.hydra_app.overrides import experiment_yaml, missing_overrides, search_path, whole_lists
from reg_sweep.runs.files import clear_temporaries, replacing
from reg_sweep.runs.ranking import Point, points, ranked
from reg_sweep.runs.record import RUN_FILE
from reg_sweep.runs.study import (
    DesignJson,
    Direction,
    Kind,
    LookJson,
    StudyJson,
    TrialJson,
    TrialState,
    new_study,
    write_study,
)
from reg_sweep.search.compose import App
from reg_sweep.search.importance import importances
from reg_sweep.search.optuna_internals import claimed
from reg_sweep.search.replicates import outcomes
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import split_params
from reg_sweep.search.storage import ERROR, OWN_ATTRIBUTES, StudyPlace, job_facts, public_location
from reg_sweep.search.study import StudyPlan, failed
from reg_sweep.search.text import outcome_text, params_text, standing_text, table_text, values_text

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

BEST_FILE = "experiment/best.yaml"
RESULTS_FILE = "optimization_results.yaml"
STUDY_GROUP = "study"  # the config group whose files make a command a study; best.yaml must not be one again
CLUSTER_GROUP = "cluster"  # likewise, of presets of launchers
N_LISTED = 10
RETRY = "hydra.sweeper.retry_failed=true tries them again, once what made them fail is mended"

# Optuna's names of a trial's states as ours.
TRIAL_WORDS: dict[str, TrialState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


def conclude(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App) -> None:
    """Prints what came of a study and the next commands; writes the experiment files, then study.json.

    Raises:
        StudyError: too many trials failed; everything is written before.
    """
    trials, directions = study.get_trials(deepcopy=False), plan.settings.directions
    finished = [t for t in trials if t.state.is_finished()]
    standing = standing_text(finished, [] if plan.replicates else directions)
    log.info("study %s: %d trials%s", place.name, len(finished), standing)
    # A diverged run may well tell infinity: a result, which the sampler learns from, but nothing to run again.
    tried = points(outcomes(trials), plan.replicates)
    front = ranked(tried, directions)
    best = front if len(directions) > 1 else front[:1]
    commands: list[str] = []
    if best:
        log.info("%s\n%s", _heading(plan), table_text(front[:N_LISTED]))
        commands = _write_experiments(study, best, plan, place, app)
        for typed in commands:
            log.info("run it:    %s%s", typed, " -m" if len(best) > len(commands) else "")
    elif tried:
        log.warning("no trial keeps all constraints: there is no best one")
    elif any(t.state.name == "COMPLETE" for t in trials):
        log.warning("no trial has a finite value: there is no best one")
    # The command is in the file, too: so it is written after the experiments, and by one replacement.
    shares = importances(tried, trials, len(directions))
    numbers = [number for point in best for number in point.numbers]
    its_command = commands[0] if len(commands) == 1 else None
    record = study_record(study, shares, its_command, plan.kind, replicates=plan.replicates, best=numbers)
    with writing_in(study, place.directory):
        if best:
            _write_results(best, {t.number: t.user_attrs for t in trials}, plan, place)
        write_study(place.directory, record)
    if shares:
        log.info("importance of each parameter (fANOVA): %s", params_text(shares))
    if any((place.directory / str(n) / RUN_FILE).exists() for n in numbers):  # the app is ours, and keeps records
        log.info("report:    python -m reg_sweep.report %s", os.path.relpath(place.directory))
    log.info("dashboard: optuna-dashboard %s", public_location(place.location))
    refuse_failures(plan, trials)


@contextmanager
def writing_in(study: "optuna.Study", folder: Path) -> Iterator[None]:
    """One process at a time writes a study's files in a folder of its sweep; what a killed one left is cleared away."""
    with claimed(study):
        clear_temporaries(folder)
        yield


def refuse_failures(plan: StudyPlan, trials: "Sequence[FrozenTrial]") -> None:
    """Ends a study of which too many trials failed, or some have not ended; says how failed ones are tried again.

    Raises:
        StudyError: they are more than the settings allow, or trials are left.
    """
    its = failed(trials)
    if plan.too_many_failed(trials):
        raise StudyError(
            f"{len(its)} of {plan.n_planned(trials)} trials failed, more than hydra.sweeper.max_failure_rate="
            f"{plan.settings.max_failure_rate:g} allows: trial {its[-1].number} {outcome_text(its[-1])}; {RETRY}"
        )
    if its:
        log.warning("%s failed; %s", "1 trial" if len(its) == 1 else f"{len(its):,} trials", RETRY)
    if (n_left := plan.n_unfinished(trials)) > 0:
        raise StudyError(f"the study is not finished: {n_left} of {plan.n_planned(trials)} trials are left")


def study_record(
    study: "optuna.Study",
    shares: Mapping[str, float],
    command: str | None = None,
    kind: Kind = "search",
    verdict: tuple[DesignJson, list[LookJson]] | None = None,
    replicates: Sequence[str] = (),
    best: Sequence[int] = (),
) -> StudyJson:
    """A study as what study.json holds; `verdict` is what one until a verdict has fixed and found.

    `replicates` are the parameters over which a point's value is a mean, `best` the numbers of the best trials.
    """
    directions: dict[str, Direction] = {"MINIMIZE": "minimize", "MAXIMIZE": "maximize"}
    trials = [_trial_record(t) for t in study.get_trials(deepcopy=False)]
    named = [directions[d.name] for d in study.directions]
    return new_study(study.study_name, named, trials, shares, command, kind, verdict, replicates, best)


def _trial_record(trial: "FrozenTrial") -> TrialJson:
    params = split_params(trial.params, trial.user_attrs)
    record: TrialJson = {
        "number": trial.number,
        "state": TRIAL_WORDS[trial.state.name],
        "params": params,
        "values": None if trial.values is None else list(map(_finite, trial.values)),
        "steps": [(step, _finite(value)) for step, value in sorted(trial.intermediate_values.items())],
        "directory": job_facts(trial).get("directory"),
        "message": trial.user_attrs.get(ERROR),
    }
    if trial.constraints:  # the smallest number that JSON has is kept as surely as minus infinity
        record["constraints"] = {k: _finite(max(v, -sys.float_info.max)) for k, v in trial.constraints.items()}
    notes = {k: _json(v) for k, v in trial.user_attrs.items() if k not in {*OWN_ATTRIBUTES, *params}}
    if notes:
        record["attributes"] = notes
    return record


def _json(value: Any) -> Any:
    """What a storage held, which may be infinite, for JSON, which may not."""
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_json, value))
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _heading(plan: StudyPlan) -> str:
    if len(plan.settings.directions) > 1:
        return "Pareto front"
    return f"best points, by the mean over {', '.join(plan.replicates)}" if plan.replicates else "best trials"


def _origin(point: Point, plan: StudyPlan, place: StudyPlace) -> str:
    """'study l1_search: trial 7, value 0.06'."""
    values = values_text(point.values)
    if not plan.replicates:
        return f"study {place.name}: trial {point.numbers[0]}, value {values}"
    names, numbers = ", ".join(plan.replicates), ", ".join(map(str, point.numbers))
    return f"study {place.name}: trials {numbers}, mean value {values} over {names}"


def _write_results(
    best: Sequence[Point], attributes: Mapping[int, Mapping[str, Any]], plan: StudyPlan, place: StudyPlace
) -> None:
    """Writes optimization_results.yaml as Hydra's own Optuna sweeper does, for programs that read it."""
    found = [{"params": split_params(p.params, attributes[p.numbers[0]]), "values": list(p.values)} for p in best]
    results: dict[str, Any] = {"name": "optuna", "solutions": found}
    if len(plan.settings.directions) == 1:
        results = {"name": "optuna", "best_params": found[0]["params"], "best_value": best[0].values[0]}
    with replacing(place.directory / RESULTS_FILE) as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(results)).encode())


def _write_experiments(
    study: "optuna.Study", best: Sequence[Point], plan: StudyPlan, place: StudyPlace, app: App
) -> list[str]:
    """Writes each best point as an experiment file; returns the command that runs all, or one for each."""
    arguments: dict[str, list[str]] = {}
    for point in best:
        name = "best" if len(plan.settings.directions) == 1 else f"best_{point.numbers[0]}"
        written = plan.space.overrides(point.params)
        job = app.job_config(written)
        kept = app.parsed(_experiment(written, job, app))
        is_group = partial(app.is_group, job)
        path = (place.directory / BEST_FILE).with_stem(name)
        path.parent.mkdir(exist_ok=True)
        with writing_in(study, path.parent), replacing(path) as file:
            package, _, rest = experiment_yaml(kept, is_group).partition("\n")  # Hydra reads it in the first line
            file.write(f"{package}\n# {_origin(point, plan, place)}\n{rest}".encode())
        # A file can't take a key out of the config.
        deleted = [str(o.input_line) for o in kept if o.is_delete() and not is_group(o.key_or_group)]
        arguments[name] = [*deleted, *_overruled(job, name, deleted, place, app)]
    if len(set(map(tuple, arguments.values()))) == 1:
        arguments = {",".join(arguments): next(iter(arguments.values()))}
    found = search_path(app.config.hydra.runtime, str(place.directory.absolute()))
    start = [*app_command(), *config_flags(), *found]
    return [shlex.join([*start, f"{_group(app)}={name}", *own]) for name, own in arguments.items()]


def _group(app: App) -> str:
    return "experiment" if "experiment" in app.config.hydra.runtime.choices else "+experiment"


def _overruled(job: DictConfig, name: str, deleted: Sequence[str], place: StudyPlace, app: App) -> list[str]:
    """What a job's experiment file sets in vain, as overrides: a main config with _self_ at its end wins over it."""
    compose = partial(app.run_config, folders=[str(place.directory.absolute())])
    written = [f"{_group(app)}={name}", *deleted]
    try:
        return missing_overrides(job, job.hydra.runtime.choices, written, compose, {*_apart(app), "experiment"})
    except HydraException as error:  # a file of the user's sets keys of the sweeper
        log.warning("the best run's config does not compose without the sweeper: %s", str(error).splitlines()[0])
        return []


def _apart(app: App) -> set[str]:
    """What a best run has not in common with its trial: it must neither lie where the study lies, nor be one again."""
    raw = OmegaConf.to_container(app.config.hydra.sweep, resolve=False)
    assert isinstance(raw, dict)
    choices = app.config.hydra.runtime.choices
    launched = {CLUSTER_GROUP} if choices.get("hydra/launcher") != "basic" and CLUSTER_GROUP in choices else set()
    return {*re.findall(r"\$\{([\w.]+)\}", raw["dir"]), STUDY_GROUP, *launched}


def _experiment(written: list[str], job: DictConfig, app: App) -> list[str]:
    """The overrides that make a trial's config, `job`, from the app's own; `written` made it from the study's.

    What a study's file sets beyond the space is written out, for the experiment must not be a study again.
    """
    ignored = _apart(app)
    kept = [o for o, p in zip(written, app.parsed(written), strict=True) if p.key_or_group not in ignored]
    kept = whole_lists(kept, job)
    if STUDY_GROUP in app.config.hydra.runtime.choices:
        kept += missing_overrides(job, job.hydra.runtime.choices, kept, app.run_config, ignored)
    return kept
