"""Prints the results of a study and writes them to study.json and optimization_results.yaml."""

import logging
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

import reg_sweep
from reg_sweep.runs.addresses import public_location, typed_path
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
from reg_sweep.search.best import write_experiments
from reg_sweep.search.compose import App
from reg_sweep.search.console import (
    effort_text,
    lost_pairs,
    more_seeds_text,
    outcome_text,
    params_text,
    standing_text,
    table_text,
    verdict_table,
)
from reg_sweep.search.parameter import split_params
from reg_sweep.search.plan import Budget, StudyPlan, failed, outcomes
from reg_sweep.search.sequential import SEED, analyses_of
from reg_sweep.search.settings import StudyError
from reg_sweep.search.storage import (
    NO_VALUE,
    OWN_ATTRIBUTES,
    RESULTS_FILE,
    StudyPlace,
    error_of,
    job_facts,
    locked,
    own_trials,
)

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from reg_sweep.stats.surface import Column

log = logging.getLogger(__name__)

N_LISTED = 10
RETRY = "fix the cause, then retry with hydra.sweeper.retry_failed=true"
MAX_SEEDS = "hydra.sweeper.design.max_seeds="
# The names of trial states: Optuna's to ours.
TRIAL_WORDS: dict[str, TrialState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


# ---- a search or a grid


def conclude(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App, end: Budget | None = None) -> None:
    """Prints a study's results and the next commands; writes the experiment files, then study.json.

    `end` is the budget that ended the study before its last trial, if any.

    Raises:
        StudyError: too many trials failed. All files are written first.
    """
    trials, directions = own_trials(study), plan.settings.directions
    finished = [t for t in trials if t.state.is_finished()]
    has_best, names = plan.settings.has_objective and not plan.replicates, plan.metric_names(app.config)
    standing = standing_text(finished, directions if has_best else [], names)
    log.info("study %s: %d trials%s", place.name, len(finished), standing)
    # A diverged run may report infinity: the sampler learns from it, but it can't be a best run.
    tried = points(outcomes(trials), plan.replicates) if plan.settings.has_objective else []
    front = ranked(tried, directions)
    best = front if len(directions) > 1 else front[:1]
    commands: list[str] = []
    if best:
        log.info("%s\n%s", _heading(plan), table_text(front[:N_LISTED], names))
        with writing_in(study, place.directory):
            commands = write_experiments(best, plan, place, app)
        for typed in commands:
            log.info("run it:    %s%s", typed, " -m" if len(best) > len(commands) else "")
    elif tried:
        log.warning("no trial satisfies all constraints: there is no best one")
    elif plan.settings.has_objective and any(t.state.name == "COMPLETE" for t in trials):
        log.warning("no trial has a finite value: there is no best one")
    # study.json contains the commands, so it is written after the experiment files.
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
    _log_places(place, numbers)
    refuse_failures(plan, trials, end)
    log_end(end, plan, trials, app)


@contextmanager
def writing_in(study: "optuna.Study", *folders: Any) -> Iterator[None]:
    """Locks the study to write its files, and removes temporary files that a killed process left in `folders`."""
    with locked(study):
        for folder in folders:
            clear_temporaries(folder)
        yield


def _log_places(place: StudyPlace, numbers: Sequence[int]) -> None:
    """Prints the commands that show more; the report's only if the app writes run records."""
    if any((place.directory / str(n) / RUN_FILE).exists() for n in numbers):
        log.info("report:    python -m reg_sweep.report %s", shlex.quote(typed_path(place.directory)))
    log.info("dashboard: optuna-dashboard %s", shlex.quote(public_location(place.location)))


def write_report(folder: Path) -> None:
    """Writes the study's page, `folder`/report/index.html, by running the report's command in a new process.

    Search and report share nothing but records. If the page can't be written, the study is complete all the same: this
    only warns.
    """
    paths = [str(Path(reg_sweep.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-m", "reg_sweep.report", str(folder), "--out", str(folder / "report")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        log.info("report:    %s", typed_path(folder / "report" / "index.html"))
    else:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        log.warning("no report: %s", said)


def log_end(end: Budget | None, plan: StudyPlan, trials: "Sequence[FrozenTrial]", app: App) -> None:
    """Prints which budget ended a study, and the command that continues it."""
    if end is None:
        return
    again = app.again(end.more)
    log.info("ended by %s; %d trials are left; continue with:\n%s", end.said, plan.n_unfinished(trials), again)


def refuse_failures(plan: StudyPlan, trials: "Sequence[FrozenTrial]", end: Budget | None = None) -> None:
    """Raises if too many trials failed or some have not ended.

    Raises:
        StudyError: more trials failed than the settings allow, or trials are left.
    """
    its = failed(trials)
    if plan.too_many_failed(trials):
        most, rate = plan.settings.max_failures, plan.settings.max_failure_rate
        limit = f"max_failure_rate={rate:g}" if most is None or len(its) <= most else f"max_failures={most}"
        raise StudyError(
            f"{len(its)} of {plan.n_planned(trials)} trials failed, more than hydra.sweeper.{limit} allows: trial"
            f" {its[-1].number} {outcome_text(its[-1])}; {RETRY}"
        )
    if its and not plan.settings.has_objective:  # a plain grid of Hydra's ends like this
        raise StudyError(
            f"{len(its)} of {plan.n_planned(trials)} jobs failed, job {its[-1].number} {outcome_text(its[-1])}; {RETRY}"
        )
    if its:
        log.warning("%s failed; %s", "1 trial" if len(its) == 1 else f"{len(its):,} trials", RETRY)
    if end is None and (n_left := plan.n_unfinished(trials)) > 0:
        raise StudyError(f"the study is not finished: {n_left} of {plan.n_planned(trials)} trials are left")


def _heading(plan: StudyPlan) -> str:
    if len(plan.settings.directions) > 1:
        return "Pareto front"
    return f"best points, by the mean over {', '.join(plan.replicates)}" if plan.replicates else "best trials"


def _write_results(
    best: Sequence[Point], attributes: Mapping[int, Mapping[str, Any]], plan: StudyPlan, place: StudyPlace
) -> None:
    """Writes optimization_results.yaml in the format of Hydra's own Optuna sweeper, for programs that read it."""
    found = [{"params": split_params(p.params, attributes[p.numbers[0]]), "values": list(p.values)} for p in best]
    results: dict[str, Any] = {"name": "optuna", "solutions": found}
    if len(plan.settings.directions) == 1:
        results = {"name": "optuna", "best_params": found[0]["params"], "best_value": best[0].values[0]}
    with replacing(place.directory / RESULTS_FILE) as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(results)).encode())


# ---- a verdict


def conclude_verdict(
    study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App, end: Budget | None = None
) -> None:
    """Prints each arm's verdict, the number of runs saved, and the next command; writes study.json.

    No trial is called best or written as an experiment: a single seed's luck would select it.

    Raises:
        StudyError: too many trials failed. All files are written first.
    """
    assert plan.until is not None
    trials = own_trials(study)
    design, looks = plan.until.record(study, app.config)
    record = study_record(study, {}, kind=plan.kind, verdict=(design, looks), replicates=[SEED])
    with writing_in(study, place.directory):
        write_study(place.directory, record)
    refuse_failures(plan, trials, end)
    log.info(
        "verdict of study %s by %s, each arm against %s\n%s",
        *(place.name, design["metric"], params_text(design["baseline"]), verdict_table(design, looks)),
    )
    for line in lost_pairs(design, trials):
        log.warning(line)
    log.info(effort_text(design, trials))
    undecided = [plan.space.split(arm) for arm in plan.until.undecided(analyses_of(study))]
    if undecided and end is None:
        more = f"{MAX_SEEDS}{2 * design['max_seeds']}"
        log.info("%s", more_seeds_text(design, undecided, more if app.typed is None else app.typed.again(more)))
    _log_places(place, [t.number for t in trials])
    log_end(end, plan, trials, app)


# ---- importance


def importances(points: Sequence[Point], trials: "Sequence[FrozenTrial]", n_objectives: int) -> dict[str, float]:
    """Each parameter's share of the variance, largest first, by functional ANOVA; empty if it can't be estimated.

    A random forest is fitted to the points' values, which are means over replicates (`stats.surface`). Parameters with
    a log distribution enter as logarithms. With several objectives, shares are averaged. Optuna's default, PED-ANOVA,
    answers another question: which parameters distinguish the best tenth of the trials. It needs at least five of them.

    Args:
        points: the points that were tried.
        trials: all of the study's trials, whose distributions define the space.
        n_objectives: the number of values of a point.
    """
    from reg_sweep.stats import surface  # imported here: importing a Hydra plugin must not import numpy

    spaces = {name: d for t in trials for name, d in t.distributions.items()}
    columns = {
        name: _column(spaces[name], [p.params[name] for p in points])
        for name in spaces
        if points and all(name in p.params for p in points) and len({p.params[name] for p in points}) > 1
    }
    if len(columns) < 2:
        return {}
    values = [_between_0_and_1([p.values[objective] for p in points]) for objective in range(n_objectives)]
    shares = [s for s in (surface.importances(list(columns.values()), v) for v in values) if s]
    means = {name: math.fsum(s[i] for s in shares) / len(shares) for i, name in enumerate(columns) if shares}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def _column(space: "BaseDistribution", values: Sequence[Any]) -> "Column":
    """A parameter's values, encoded for the forest."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from reg_sweep.stats.surface import Column

    if isinstance(space, CategoricalDistribution):
        names = list(dict.fromkeys(map(repr, [*space.choices, *values])))
        return Column.of_choices([names.index(repr(v)) for v in values], len(names))
    assert isinstance(space, FloatDistribution | IntDistribution)
    scale = math.log if space.log and min(values) > 0 else float
    # An extended study may have trials outside its latest bounds.
    scaled = _between_0_and_1([*map(scale, values), scale(space.low), scale(space.high)])
    return Column.of_numbers(scaled[: len(values)])


def _between_0_and_1(values: Sequence[float]) -> list[float]:
    """Rescales values, which changes no share. They are halved first, because the span of huge ones would overflow."""
    low, span = min(values) / 2, max(values) / 2 - min(values) / 2
    return [(v / 2 - low) / span if span > 0 else 0.0 for v in values]


# ---- study.json


def study_record(
    study: "optuna.Study",
    shares: Mapping[str, float],
    command: str | None = None,
    kind: Kind = "search",
    verdict: tuple[DesignJson, list[LookJson]] | None = None,
    replicates: Sequence[str] = (),
    best: Sequence[int] = (),
) -> StudyJson:
    """The contents of study.json for a study.

    Args:
        study: the study.
        shares: the importance of each parameter.
        command: the command that runs the best trial.
        kind: of the study.
        verdict: with `until_verdict`, the design and the interim analyses.
        replicates: the parameters over which a point's value is averaged.
        best: the numbers of the best trials.
    """
    directions: dict[str, Direction] = {"MINIMIZE": "minimize", "MAXIMIZE": "maximize"}
    trials = [_trial_record(t) for t in own_trials(study)]
    named = [directions[d.name] for d in study.directions]
    return new_study(study.study_name, named, trials, shares, command, kind, verdict, replicates, best)


def _trial_record(trial: "FrozenTrial") -> TrialJson:
    params = split_params(trial.params, trial.user_attrs)
    is_none = NO_VALUE in trial.user_attrs
    record: TrialJson = {
        "number": trial.number,
        "state": TRIAL_WORDS[trial.state.name],
        "params": params,
        "values": None if trial.values is None else [None if is_none else _finite(v) for v in trial.values],
        "steps": [(step, _finite(value)) for step, value in sorted(trial.intermediate_values.items())],
        "directory": job_facts(trial).get("directory"),
        "message": error_of(trial),
    }
    if (
        trial.constraints
    ):  # minus infinity, which JSON lacks, becomes the smallest number: it satisfies the constraint too
        record["constraints"] = {k: _finite(max(v, -sys.float_info.max)) for k, v in trial.constraints.items()}
    notes = {k: _json(v) for k, v in trial.user_attrs.items() if k not in {*OWN_ATTRIBUTES, *params}}
    if notes:
        record["attributes"] = notes
    return record


def _json(value: Any) -> Any:
    """A value from the storage, with null for the infinite numbers and NaN that JSON can't hold."""
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_json, value))
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
