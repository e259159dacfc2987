"""The results of a study: printed, and written as study.json and optimization_results.yaml."""

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
from reg_sweep.runs.files import clear_temporaries, replacing
from reg_sweep.runs.ranking import Point, points, ranked
from reg_sweep.runs.record import RUN_FILE
from reg_sweep.runs.study import (
    ArmLookJson,
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
from reg_sweep.search.best import Confirmation, write_experiments
from reg_sweep.search.compose import App
from reg_sweep.search.console import columns_text, outcome_text, params_text, standing_text, table_text, values_text
from reg_sweep.search.importance import importances
from reg_sweep.search.optuna_internals import locked
from reg_sweep.search.plan import StudyPlan, failed, outcomes
from reg_sweep.search.sequential import SEED, analyses_of
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import split_params
from reg_sweep.search.storage import OWN_ATTRIBUTES, StudyPlace, error_of, job_facts, public_location
from reg_sweep.stats.verdict import Verdict

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

RESULTS_FILE = "optimization_results.yaml"
N_LISTED = 10
RETRY = "fix the cause, then hydra.sweeper.retry_failed=true tries them again"
MAX_SEEDS = "hydra.sweeper.design.max_seeds="
# Optuna's names of a trial's states as ours.
TRIAL_WORDS: dict[str, TrialState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


# ---- a search or a grid


def conclude(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App) -> None:
    """Prints a study's results and the next commands; writes the experiment files, then study.json.

    Raises:
        StudyError: too many trials failed; everything is written before.
    """
    trials, directions = study.get_trials(deepcopy=False), plan.settings.directions
    finished = [t for t in trials if t.state.is_finished()]
    standing = standing_text(finished, [] if plan.replicates else directions)
    log.info("study %s: %d trials%s", place.name, len(finished), standing)
    # A diverged run may report infinity: a result, from which the sampler learns, but nothing to run again.
    tried = points(outcomes(trials), plan.replicates)
    front = ranked(tried, directions)
    best = front if len(directions) > 1 else front[:1]
    commands: list[str] = []
    if best:
        log.info("%s\n%s", _heading(plan), table_text(front[:N_LISTED]))
        with writing_in(study, place.directory):
            commands = write_experiments(best, plan, place, app)
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
    _log_places(place, numbers)
    refuse_failures(plan, trials)


@contextmanager
def writing_in(study: "optuna.Study", *folders: Any) -> Iterator[None]:
    """One process at a time writes a study's files; removes the temporary files that a killed one left in folders."""
    with locked(study):
        for folder in folders:
            clear_temporaries(folder)
        yield


def _log_places(place: StudyPlace, numbers: Sequence[int]) -> None:
    """Prints the commands that show more; the report's only if the app writes records."""
    if any((place.directory / str(n) / RUN_FILE).exists() for n in numbers):
        log.info("report:    python -m reg_sweep.report %s", os.path.relpath(place.directory))
    log.info("dashboard: optuna-dashboard %s", public_location(place.location))


def write_report(folder: Path) -> None:
    """Writes the study's page, `folder`/report/index.html, by the report's own command, in a process of its own.

    A search needs no figures, and a report no search: they share records alone. A page that can't be written costs a
    warning: the study is whole.
    """
    paths = [str(Path(reg_sweep.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-P", "-m", "reg_sweep.report", str(folder), "--out", str(folder / "report")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        log.info("report:    %s", os.path.relpath(folder / "report" / "index.html"))
    else:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        log.warning("no report: %s", said)


def refuse_failures(plan: StudyPlan, trials: "Sequence[FrozenTrial]") -> None:
    """Ends a study in which too many trials failed, or some have not ended.

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


def _heading(plan: StudyPlan) -> str:
    if len(plan.settings.directions) > 1:
        return "Pareto front"
    return f"best points, by the mean over {', '.join(plan.replicates)}" if plan.replicates else "best trials"


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


# ---- a verdict


def conclude_verdict(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App) -> None:
    """Prints each arm's verdict, the runs that were saved, and the next command; writes study.json.

    No trial is the best, and none is written as an experiment: one seed's luck would choose it.

    Raises:
        StudyError: too many trials failed; everything is written before.
    """
    assert plan.until is not None
    trials = study.get_trials(deepcopy=False)
    design, looks = plan.until.record(study, app.config)
    record = study_record(study, {}, kind="until_verdict", verdict=(design, looks), replicates=[SEED])
    with writing_in(study, place.directory):
        write_study(place.directory, record)
    refuse_failures(plan, trials)
    log.info(
        "verdict of study %s by %s, each arm against %s\n%s",
        *(place.name, design["metric"], params_text(design["baseline"]), verdict_table(design, looks)),
    )
    for line in _lost_pairs(design, trials):
        log.warning(line)
    log.info(_effort(design, trials))
    undecided = plan.until.undecided(looks)
    if undecided:
        more = f"{MAX_SEEDS}{2 * design['max_seeds']}"
        command = more if app.typed is None else app.typed.again(more)
        log.info("undecided: %s; for more seeds\n%s", "; ".join(map(params_text, undecided)), command)
    _log_places(place, [t.number for t in trials])


def log_confirmed(
    confirmed: Confirmation, confirming: "optuna.Study", search: App, app: App, place: StudyPlace
) -> None:
    """Prints the search's value of its winner beside its verdict on fresh seeds."""
    looks = analyses_of(confirming)
    if not looks:
        return
    seeds, arm = last_look(looks[0]["arms"][0]["params"], looks)  # the winner comes first of all arms
    assert arm is not None
    swept = OmegaConf.select(search.config, "hydra.sweeper.params.objective")  # several, where the space sets them
    found, judged = (OmegaConf.select(a.config, "objective", default="value") for a in (search, app))
    searched = str(found if swept is None else swept).strip("[]").replace(",", ", ")
    first = app.config.hydra.sweeper.first_seed
    log.info(
        "the search's winner: trial %d, %s\n  in the search, on seed %s: %s %s\n  on the fresh seeds %d to %d:"
        " %s %s against the baseline (%s): %s",
        *(confirmed.winner.number, params_text(confirmed.winner.params)),
        *(search.config[SEED], searched, values_text(confirmed.winner.values)),
        *(first, first + seeds - 1, judged, *difference_text(arm), arm["decision"]),
    )
    if len(confirmed.winner.values) > 1:
        _log_first_shown(confirming, looks, searched.rpartition(", ")[2], place)


def _log_first_shown(confirming: "optuna.Study", looks: Sequence[LookJson], sorted_by: str, place: StudyPlace) -> None:
    """Prints which arm is the first, in the order of the search's second objective, that is not worse."""
    tried: list[str] = []
    for params in [arm["params"] for arm in looks[0]["arms"]]:
        _, arm = last_look(params, looks)
        assert arm is not None
        if arm["decision"] in (Verdict.NOT_WORSE, Verdict.BETTER, Verdict.EQUIVALENT, Verdict.SMALL):
            runs = [t for t in confirming.get_trials(deepcopy=False) if params.items() <= t.params.items()]
            places = [os.path.relpath(place.directory / job_facts(t).get("directory", "")) for t in runs]
            log.info(
                "smallest by %s that is %s: %s%s\n  its networks without zero channels:\n"
                "python -m reg_sweep.compact %s",
                *(sorted_by, arm["decision"], params_text(params)),
                f"; tried beyond it: {'; '.join(tried)}" if tried else "",
                shlex.join(places),
            )
            return
        tried.append(f"{params_text(params)} {arm['decision']}")
    log.info("by %s no arm is shown not worse: %s", sorted_by, "; ".join(tried))


def verdict_table(design: DesignJson, looks: Sequence[LookJson]) -> str:
    """A line for each arm: its seeds, its difference to the baseline with the interval, and the verdict.

    The interval belongs to the verdict, and is simultaneous over all arms and interim analyses: for an arm that is
    shown equivalent that of `Family.equivalence_interval`, which lies within the margin.
    """
    from reg_sweep.stats.family import ONE_SIDED_SHARE

    is_own = design["variance"] == "plain" or len(design["arms"]) == 1
    one_sided = design["alpha"] * (ONE_SIDED_SHARE if is_own else 1)
    level = f"{100 * (1 - design['alpha']):g}% interval ({100 * (1 - 2 * one_sided):g}% if equivalent)"
    rows = [["arm", "seeds", "difference", level, "verdict"]]
    for params in design["arms"]:
        seeds, arm = last_look(params, looks)
        if arm is None:
            rows.append([params_text(params), "", "", "", "not analysed yet"])
            continue
        lost = [f"{n} of {seeds} {word}" for n, word in ((arm["n_diverged"], "diverged"), (arm["n_failed"], "failed"))]
        said = ", ".join([arm["decision"], *(text for text in lost if not text.startswith("0 "))])
        rows.append([params_text(params), str(seeds), *difference_text(arm), said])
    return columns_text(rows)


def last_look(params: Mapping[str, Any], looks: Sequence[LookJson]) -> tuple[int, ArmLookJson | None]:
    """An arm's last interim analysis: its seeds and its finding; 0 and None if there was none."""
    for look in reversed(looks):
        for arm in look["arms"]:
            if arm["params"] == params:
                return look["seeds"], arm
    return 0, None


def difference_text(arm: ArmLookJson) -> tuple[str, str]:
    """'+0.0012' and '-0.0004 to +0.0028'; a dash where they are unknown."""
    estimate, low, high = (None if v is None else f"{v:+.4g}" for v in (arm["estimate"], arm["ci_low"], arm["ci_high"]))
    return estimate or "-", "-" if low is None or high is None else f"{low} to {high}"


def _lost_pairs(design: DesignJson, trials: "Sequence[FrozenTrial]") -> list[str]:
    """Warnings about seeds that can't be compared, because the baseline failed or diverged on them."""
    baseline = [t for t in trials if all(t.params.get(k) == v for k, v in design["baseline"].items())]
    failed = sum(t.state.name in ("FAIL", "PRUNED") for t in baseline)
    diverged = sum(t.state.name == "COMPLETE" and not math.isfinite(t.value or 0.0) for t in baseline)
    counts = ((failed, "failed"), (diverged, "diverged"))
    return [f"the baseline {word} on {n} of {len(baseline)} seeds, which compare nothing" for n, word in counts if n]


def _effort(design: DesignJson, trials: "Sequence[FrozenTrial]") -> str:
    n, whole = sum(t.state.is_finished() for t in trials), design["max_seeds"] * (1 + len(design["arms"]))
    return f"{n} runs; {design['max_seeds']} seeds of every arm would have been {whole}: {whole - n} saved"


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
    """A study as study.json holds it.

    Args:
        study: with all of its trials.
        shares: the importances of parameters.
        command: runs the best trial.
        kind: of the study.
        verdict: the design, and the interim analyses, of a study until a verdict.
        replicates: the parameters over which a point's value is a mean.
        best: the numbers of the best trials.
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
        "message": error_of(trial),
    }
    if trial.constraints:  # the smallest number that JSON has is kept as surely as minus infinity
        record["constraints"] = {k: _finite(max(v, -sys.float_info.max)) for k, v in trial.constraints.items()}
    notes = {k: _json(v) for k, v in trial.user_attrs.items() if k not in {*OWN_ATTRIBUTES, *params}}
    if notes:
        record["attributes"] = notes
    return record


def _json(value: Any) -> Any:
    """A storage's value, which may be infinite, for JSON, which may not."""
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_json, value))
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
