"""A search's best points judged on seeds that it did not use: as one more sweep, until a verdict.

What a search chose was lucky on its seed. Here its best few points meet the baseline on fresh ones.
"""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

from reg_sweep.hydra_app.command_line import app_command, config_flags
from reg_sweep.hydra_app.internals import element_text
from reg_sweep.hydra_app.overrides import search_path
from reg_sweep.search.compose import App
from reg_sweep.search.replicates import SEED
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import Parameter
from reg_sweep.search.storage import StudyPlace
from reg_sweep.search.study import StudyPlan
from reg_sweep.search.text import best_first, params_text, values_text
from reg_sweep.search.until import looks_of, make_design
from reg_sweep.search.verdict import difference_text, last_look

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

FOLDER = "confirm"  # within the search's directory
N_CONFIRMED = 3
# What the search's command may have set otherwise, and the confirming sweep sets itself.
_OWN = ("confirm", "until_verdict", "study_name", "enqueue", "baseline", "first_seed", "n_trials", "pruner", "extend")


def check_confirmable(plan: StudyPlan, app: App) -> None:
    """Refuses, before the search begins, what could not be confirmed at its end.

    Raises:
        StudyError: it is no search of one objective on one seed, or it has no baseline or no design.
    """
    settings, names = plan.settings, plan.space.parameters.keys()
    if settings.zip or settings.custom_search_space is not None:
        raise StudyError("hydra.sweeper.confirm is for a search without hydra.sweeper.zip and custom_search_space")
    varied = {*names, *(settings.params or {})}
    if plan.until is not None or len(settings.directions) != 1 or plan.replicates or SEED in varied:
        raise StudyError("hydra.sweeper.confirm is for a search with one objective, on the one seed of its config")
    if OmegaConf.select(app.config, SEED, default=None) is None:
        raise StudyError(f"hydra.sweeper.confirm trains on fresh seeds: the app's config needs a key {SEED}")
    if settings.baseline is None or settings.baseline.keys() != names:
        raise StudyError(
            f"hydra.sweeper.baseline must have a value for each of {', '.join(names)} to confirm by, got"
            f" {params_text(settings.baseline or {}) or 'none'}: for example 'hydra.sweeper.baseline={{l1: 0}}'"
        )
    make_design(settings.design)


@dataclass(frozen=True)
class Confirmation:
    """The sweep that judges a search's winner."""

    winner: "FrozenTrial"
    overrides: list[str]
    command: list[str]  # starts the sweep, as a process of its own


def confirmation(study: "optuna.Study", plan: StudyPlan, place: StudyPlace, app: App) -> Confirmation | None:
    """The sweep that judges the best distinct points against the baseline; None where nothing beat it.

    Its overrides are those of the search's command, with arms in the place of the space.
    """
    baseline = plan.settings.baseline
    assert baseline is not None  # checked before the search began
    parameters = plan.space.parameters
    best = [t for t in best_first(study.get_trials(deepcopy=False), plan.settings.directions) if _is_whole(t, plan)]
    points = [{name: _text(p, baseline[name]) for name, p in parameters.items()}]
    winners: list[FrozenTrial] = []
    for trial in best:
        point = {name: _text(p, trial.params[name]) for name, p in parameters.items()}
        if point not in points and len(winners) < N_CONFIRMED:
            points.append(point)
            winners.append(trial)
    if not winners:
        return None
    values = {name: list(dict.fromkeys(point[name] for point in points)) for name in parameters}
    arms = [{name: text for name, text in point.items() if len(values[name]) > 1} for point in points]
    listed = ",".join("{" + ",".join(f"{name}: {text}" for name, text in arm.items()) + "}" for arm in arms)
    hydra = app.config.hydra
    overrides = [
        *_kept([*hydra.overrides.hydra, *hydra.overrides.task], parameters),
        *(f"{p.key}={','.join(values[name])}" for name, p in parameters.items()),
        *plan.settings.confirm_with,
        "hydra.sweeper.until_verdict=true",
        "hydra.sweeper.confirm=false",
        f"hydra.sweep.dir={_quoted(f'{hydra.sweep.dir}/{FOLDER}')}",
        f"hydra.sweeper.study_name={_quoted(f'{place.name}_{FOLDER}')}",
        f"hydra.sweeper.first_seed={app.config[SEED] + 1}",
        f"hydra.sweeper.enqueue=[{listed}]",
        *(f"hydra.sweeper.{name}=null" for name in ("baseline", "n_trials", "pruner")),
    ]
    folders = [a for a in search_path(hydra.runtime) if not a.startswith("hydra.searchpath=")]
    command = [sys.executable, *app_command()[1:], "-m", *config_flags(), *folders, *overrides]
    return Confirmation(winners[0], overrides, command)


def say_confirmed(confirmed: Confirmation, confirming: "optuna.Study", search: App, app: App) -> None:
    """Prints the search's value of its winner beside what fresh seeds say of it."""
    looks = looks_of(confirming)
    if not looks:
        return
    seeds, arm = last_look(looks[0]["arms"][0]["params"], looks)  # the winner comes first of all arms
    assert arm is not None
    searched, judged = (OmegaConf.select(a.config, "objective", default="value") for a in (search, app))
    first = app.config.hydra.sweeper.first_seed
    log.info(
        "the search's winner: trial %d, %s\n  in the search, on seed %s: %s %s\n  on the fresh seeds %d to %d:"
        " %s %s against the baseline (%s): %s",
        *(confirmed.winner.number, params_text(confirmed.winner.params)),
        *(search.config[SEED], searched, values_text(confirmed.winner.values)),
        *(first, first + seeds - 1, judged, *difference_text(arm), arm["decision"]),
    )


def _is_whole(trial: "FrozenTrial", plan: StudyPlan) -> bool:
    return math.isfinite(trial.values[0]) and trial.params.keys() >= plan.space.parameters.keys()


def _kept(overrides: Sequence[str], parameters: Mapping[str, Parameter]) -> list[str]:
    """The command's overrides that hold for the confirming sweep too: neither its space, nor what that one sets."""
    gone = {*parameters, SEED, "hydra.sweep.dir", *(f"hydra.sweeper.{name}" for name in _OWN)}
    return [o for o in overrides if o.partition("=")[0].lstrip("+~") not in gone]


def _text(parameter: Parameter, value: Any) -> str:
    """A value as it is typed: one of the space's, or a baseline outside of it."""
    if parameter.texts:
        return parameter.texts[value] if value in parameter.texts else element_text(value)
    return parameter.override(value).partition("=")[2]


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
