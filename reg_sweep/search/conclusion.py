"""The end of a study: what came of it, in words, in study.json and as the best trial's experiment file."""

import logging
import math
import os
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from reg_sweep.files import replacing
from reg_sweep.hydra_internals import element_text
from reg_sweep.overrides import experiment_yaml, missing_overrides, search_path
from reg_sweep.records import RUN_FILE
from reg_sweep.search.command import app_command
from reg_sweep.search.compose import App
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import Space
from reg_sweep.search.storage import ERROR, StudyPlace, job_facts, public_location
from reg_sweep.search.study import StudyPlan, failed
from reg_sweep.search.text import best_first, outcome_text, params_text, standing_text, table_text
from reg_sweep.study_record import (
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

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

BEST_FILE = "experiment/best.yaml"
STUDY_GROUP = "study"  # the config group whose files make a command a study; best.yaml must not be one again
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
    log.info("study %s: %d trials%s", place.name, len(finished), standing_text(finished, directions))
    ranked = study.best_trials if len(directions) > 1 else best_first(trials, directions)
    # A diverged run may well tell infinity: a result, which the sampler learns from, but nothing to run again.
    best = [t for t in ranked if all(map(math.isfinite, t.values))]
    command = None
    if best:
        log.info("%s\n%s", "best trials" if len(directions) == 1 else "Pareto front", table_text(best[:N_LISTED]))
        command = _write_experiments(best if len(directions) > 1 else best[:1], plan, place, app)
        log.info("run it:    %s%s", command, " -m" if len(directions) > 1 and len(best) > 1 else "")
    elif ranked:
        log.warning("no trial has a finite value: there is no best one")
    # The command is in the file, too: so it is written after the experiments, and by one replacement.
    importances = _importances(study, plan.space) if best else {}
    write_study(place.directory, study_record(study, importances, command, plan.kind))
    if importances:
        log.info("importance of each parameter: %s", params_text(importances))
    if any((place.directory / str(t.number) / RUN_FILE).exists() for t in best):  # the app is ours, and keeps records
        log.info("report:    python -m reg_sweep.report %s", os.path.relpath(place.directory))
    log.info("dashboard: optuna-dashboard %s", public_location(place.location))
    refuse_failures(plan, trials)


def refuse_failures(plan: StudyPlan, trials: "Sequence[FrozenTrial]") -> None:
    """Ends a study of which too many trials failed, or some have not ended; says how failed ones are tried again.

    Raises:
        StudyError: they are more than the settings allow, or trials are left.
    """
    if plan.too_many_failed(trials):
        its = failed(trials)
        raise StudyError(
            f"{len(its)} of {plan.n_planned(trials)} trials failed, more than hydra.sweeper.max_failure_rate="
            f"{plan.settings.max_failure_rate:g} allows: trial {its[-1].number} {outcome_text(its[-1])}; {RETRY}"
        )
    if failed(trials):
        log.warning("%d trials failed; %s", len(failed(trials)), RETRY)
    n_left = plan.n_planned(trials) - sum(t.state.is_finished() for t in trials)
    if n_left > 0:
        raise StudyError(f"the study is not finished: {n_left} of {plan.n_planned(trials)} trials are left")


def study_record(
    study: "optuna.Study",
    importances: Mapping[str, float],
    command: str | None = None,
    kind: Kind = "search",
    verdict: tuple[DesignJson, list[LookJson]] | None = None,
) -> StudyJson:
    """A study as what study.json holds; `verdict` is what one until a verdict has fixed and found."""
    directions: dict[str, Direction] = {"MINIMIZE": "minimize", "MAXIMIZE": "maximize"}
    trials = [_trial_record(t) for t in study.get_trials(deepcopy=False)]
    named = [directions[d.name] for d in study.directions]
    return new_study(study.study_name, named, trials, importances, command, kind, verdict)


def _trial_record(trial: "FrozenTrial") -> TrialJson:
    return {
        "number": trial.number,
        "state": TRIAL_WORDS[trial.state.name],
        "params": trial.params,
        "values": None if trial.values is None else list(map(_finite, trial.values)),
        "steps": [(step, _finite(value)) for step, value in sorted(trial.intermediate_values.items())],
        "directory": job_facts(trial).get("directory"),
        "message": trial.user_attrs.get(ERROR),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _importances(study: "optuna.Study", space: Space) -> dict[str, float]:
    """Each parameter's share in what the trials differ by; nothing where they can't tell."""
    import optuna

    # fANOVA shares out the variance of the values: one value, or the same everywhere, has none.
    finite = [t for t in study.get_trials(deepcopy=False) if t.values and all(map(math.isfinite, t.values))]
    if len(space.parameters) < 2 or len({tuple(t.values) for t in finite}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few trials make it inaccurate
        return optuna.importance.get_param_importances(study)


def _write_experiments(best: Sequence["FrozenTrial"], plan: StudyPlan, place: StudyPlace, app: App) -> str:
    """Writes each best trial as an experiment file; returns the command that runs them."""
    names = []
    for trial in best:
        names.append("best" if len(plan.settings.directions) == 1 else f"best_{trial.number}")
        kept = app.parsed(_experiment(trial, plan.space, app))
        path = (place.directory / BEST_FILE).with_stem(names[-1])
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as file:
            file.write(experiment_yaml(kept, lambda g: bool(app.loader.get_group_options(g))).encode())
    runtime = app.config.hydra.runtime
    found = search_path(runtime, str(place.directory.absolute()))
    group = "experiment" if "experiment" in runtime.choices else "+experiment"
    return shlex.join([*app_command(), *found, f"{group}={','.join(names)}"])


def _experiment(trial: "FrozenTrial", space: Space, app: App) -> list[str]:
    """The overrides that make a trial's config from the app's own.

    What a study's file sets beyond the space is written out, for the experiment must not be a study again.
    """
    raw = OmegaConf.to_container(app.config.hydra.sweep, resolve=False)
    assert isinstance(raw, dict)
    places = set(re.findall(r"\$\{([\w.]+)\}", raw["dir"]))  # a best run must not lie where the study lies
    ignored = {*places, STUDY_GROUP}
    written = space.overrides(trial.params)
    before = trial.params.keys() - space.parameters.keys()  # swept before the study was extended
    # An extended study may have its best trial from when it swept more: these values must not be lost.
    written += [f"{n}={element_text(trial.params[n])}" for n in sorted(before)]
    kept = [o for o, p in zip(written, app.parsed(written), strict=True) if p.key_or_group not in ignored]
    if STUDY_GROUP in app.config.hydra.runtime.choices:
        whole = app.job_config(written)
        kept += missing_overrides(whole, whole.hydra.runtime.choices, kept, app.run_config, ignored)
    return kept
