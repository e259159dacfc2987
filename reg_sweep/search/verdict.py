"""The end of a study until a verdict: what was decided on each arm, what it took, and the command that goes on."""

import logging
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_sweep.hydra_app.command_line import app_command, continuing_arguments, place_overrides
from reg_sweep.runs.record import RUN_FILE
from reg_sweep.runs.study import ArmLookJson, DesignJson, LookJson, write_study
from reg_sweep.search.compose import App
from reg_sweep.search.conclusion import refuse_failures, study_record, writing_in
from reg_sweep.search.replicates import SEED
from reg_sweep.search.storage import StudyPlace, public_location
from reg_sweep.search.study import StudyPlan
from reg_sweep.search.text import columns_text, params_text

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

MAX_SEEDS = "hydra.sweeper.design.max_seeds="


def conclude_verdict(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App) -> None:
    """Prints each arm's verdict, what was saved, and the next command; writes study.json.

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
        log.info("undecided: %s; go on with\n%s", "; ".join(map(params_text, undecided)), _further(design, app))
    if any((place.directory / str(t.number) / RUN_FILE).exists() for t in trials):  # the app is ours
        log.info("report:    python -m reg_sweep.report %s", os.path.relpath(place.directory))
    log.info("dashboard: optuna-dashboard %s", public_location(place.location))


def verdict_table(design: DesignJson, looks: Sequence[LookJson]) -> str:
    """A line for each arm: the seeds it took, its difference to the baseline with the interval, and the verdict.

    The interval is the one that belongs to the verdict, simultaneous over all arms and looks: of an arm that is shown
    equivalent the 1 - 2 alpha interval, which lies within the margin.
    """
    level = f"{100 * (1 - design['alpha']):g}% interval ({100 * (1 - 2 * design['alpha']):g}% if equivalent)"
    rows = [["arm", "seeds", "difference", level, "verdict"]]
    for params in design["arms"]:
        seeds, arm = last_look(params, looks)
        if arm is None:
            rows.append([params_text(params), "", "", "", "not looked at yet"])
            continue
        lost = [f"{n} of {seeds} {word}" for n, word in ((arm["n_diverged"], "diverged"), (arm["n_failed"], "failed"))]
        said = ", ".join([arm["decision"], *(text for text in lost if not text.startswith("0 "))])
        rows.append([params_text(params), str(seeds), *difference_text(arm), said])
    return columns_text(rows)


def last_look(params: Mapping[str, Any], looks: Sequence[LookJson]) -> tuple[int, ArmLookJson | None]:
    """The look that judged an arm last: its seeds, and what it found; 0 and None where there was none."""
    for look in reversed(looks):
        for arm in look["arms"]:
            if arm["params"] == params:
                return look["seeds"], arm
    return 0, None


def difference_text(arm: ArmLookJson) -> tuple[str, str]:
    """'+0.0012' and '-0.0004 to +0.0028'; a dash where there is too little to tell."""
    estimate, low, high = (None if v is None else f"{v:+.4g}" for v in (arm["estimate"], arm["ci_low"], arm["ci_high"]))
    return estimate or "-", "-" if low is None or high is None else f"{low} to {high}"


def _lost_pairs(design: DesignJson, trials: "Sequence[FrozenTrial]") -> list[str]:
    """What the baseline lacks: a seed on which it failed or diverged compares nothing."""
    baseline = [t for t in trials if all(t.params.get(k) == v for k, v in design["baseline"].items())]
    failed = sum(t.state.name in ("FAIL", "PRUNED") for t in baseline)
    diverged = sum(t.state.name == "COMPLETE" and not math.isfinite(t.value or 0.0) for t in baseline)
    counts = ((failed, "failed"), (diverged, "diverged"))
    return [f"the baseline {word} on {n} of {len(baseline)} seeds, which compare nothing" for n, word in counts if n]


def _effort(design: DesignJson, trials: "Sequence[FrozenTrial]") -> str:
    n, whole = sum(t.state.is_finished() for t in trials), design["max_seeds"] * (1 + len(design["arms"]))
    return f"{n} runs; {design['max_seeds']} seeds of every arm would have been {whole}: {whole - n} saved"


def _further(design: DesignJson, app: App) -> str:
    """The command that was typed, to twice as many seeds."""
    more = continuing_arguments(place_overrides(app.config, "sweep"), f"{MAX_SEEDS}{2 * design['max_seeds']}")
    return shlex.join([*app_command(), *more])
