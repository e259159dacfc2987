"""What a study leaves: study.json, both ways, for those that have no Optuna.

The reader gives a study's trials, how they rank, and which parameters differ among them.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast, get_args

from reg_sweep.files import replacing
from reg_sweep.ranking import Outcome, Point, points, ranked
from reg_sweep.records import STUDY_FILE, RecordError

STUDY_SCHEMA = 1
TrialState = Literal["complete", "pruned", "failed", "running", "waiting"]
TRIAL_STATES: tuple[TrialState, ...] = get_args(TrialState)
Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Kind = Literal["search", "grid", "until_verdict"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What a look says of an arm: a claim of comparison's, or one of these.
UNDECIDED = "undecided"
EQUIVALENT = "shown equivalent"  # the one word of a design that has an interval of its own
WORSE_BY_DIVERGENCE = "worse by divergence"


class TrialJson(TypedDict):
    """A trial in study.json. What is not finite is null, for JSON has no infinity."""

    number: int
    state: TrialState
    params: dict[str, Any]
    values: list[float | None] | None  # of each objective; null unless it is complete, or pruned after a report
    steps: list[tuple[int, float | None]]  # what it reported, by step
    directory: str | None  # relative to the sweep's
    message: str | None  # a failed trial's last line
    constraints: NotRequired[dict[str, float | None]]  # by name; kept where all are 0 or less
    attributes: NotRequired[dict[str, Any]]  # what the app noted, and the values that every trial shares


class DesignJson(TypedDict):
    """What a study until a verdict fixed before its first run; its looks and `max_seeds` may have been continued."""

    looks: list[int]
    max_seeds: int
    alpha: float
    margin: float | None  # in the metric's unit
    variance: str
    metric: str
    first_seed: int
    baseline: dict[str, Any]
    arms: list[dict[str, Any]]  # without the baseline


class ArmLookJson(TypedDict):
    """An arm at a look that judged it: its paired difference to the baseline. What can't be told is null."""

    params: dict[str, Any]
    decision: str
    n_seeds: int  # pairs that both ended with a finite value
    n_diverged: int
    n_failed: int
    estimate: float | None
    ci_low: float | None
    ci_high: float | None


class LookJson(TypedDict):
    """A look that was done: the arms that were undecided before it."""

    seeds: int
    arms: list[ArmLookJson]


class StudyJson(TypedDict):
    """study.json. The keys that need not be there came later; a study without `kind` was a search or a grid."""

    schema: int
    study: str
    directions: list[Direction]
    command: str | None  # runs the best trial, or those of a Pareto front
    importances: dict[str, float]  # each parameter's share; empty where it can't be told
    trials: list[TrialJson]
    kind: NotRequired[Kind]
    replicates: NotRequired[list[str]]  # parameters over which a point's value is a mean
    best: NotRequired[list[int]]  # the best trial; of a Pareto front, or of a point's replicates, all of them
    design: NotRequired[DesignJson]  # until_verdict alone, as the next
    looks: NotRequired[list[LookJson]]


def new_study(
    name: str,
    directions: list[Direction],
    trials: list[TrialJson],
    importances: Mapping[str, float],
    command: str | None,
    kind: Kind = "search",
    verdict: tuple[DesignJson, list[LookJson]] | None = None,
    replicates: Sequence[str] = (),
    best: Sequence[int] = (),
) -> StudyJson:
    """A study's record, of the schema that this version writes; `verdict` are design and looks of until_verdict."""
    record: StudyJson = {
        "schema": STUDY_SCHEMA,
        "study": name,
        "directions": directions,
        "command": command,
        "importances": dict(importances),
        "trials": trials,
        "kind": kind,
        "replicates": list(replicates),
        "best": list(best),
    }
    if verdict is not None:
        record["design"], record["looks"] = verdict
    return record


def study_json(study: StudyJson) -> str:
    """A study's record as the text of its file.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(study, indent=1, allow_nan=False) + "\n"


def write_study(folder: Path, study: StudyJson) -> None:
    """Writes a sweep's study.json, whole or not at all."""
    text = study_json(study)
    with replacing(folder / STUDY_FILE) as file:
        file.write(text.encode())


@dataclass(frozen=True)
class Trial:
    """One trial of a study.

    `values` are a complete trial's objectives, nan where one is not finite. `last` is what the trial reported last,
    or nan. `directory` is its run's; `message` why it failed. One that broke a constraint is not feasible.
    """

    number: int
    state: TrialState
    params: dict[str, Any]
    values: tuple[float, ...]
    last: float
    directory: Path | None
    message: str
    is_feasible: bool = True


@dataclass(frozen=True)
class Design:
    """How a study until a verdict judges: see `DesignJson`. `arms` are without the baseline."""

    looks: tuple[int, ...]
    max_seeds: int
    alpha: float
    margin: float | None
    variance: str
    metric: str
    first_seed: int
    baseline: dict[str, Any]
    arms: list[dict[str, Any]]


@dataclass(frozen=True)
class ArmLook:
    """An arm at a look: what was decided, and its paired difference to the baseline; nan where it can't be told.

    `decision` is 'better', 'worse', 'shown equivalent', 'real but smaller than the margin', 'worse by divergence' or
    'undecided'. The interval is the simultaneous one of all arms and looks.
    """

    params: dict[str, Any]
    decision: str
    n_seeds: int
    n_diverged: int
    n_failed: int
    estimate: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class Look:
    """A look that was done, after so many seeds: the arms that were undecided before it."""

    seeds: int
    arms: list[ArmLook]


@dataclass(frozen=True)
class Study:
    """What a sweep's study.json tells: the trials in the order of their numbers; each parameter's share, if known.

    `command` runs the best trial, or those of a Pareto front, again; empty where the study did not tell one. `kind`
    says what the study was for: to search, to try a grid that somebody named, or to judge arms until a verdict; the
    last alone has a `design`, and `looks`.
    """

    path: Path
    name: str
    directions: list[Direction]
    importances: dict[str, float]
    trials: list[Trial]
    command: str = ""
    kind: Kind = "search"
    design: Design | None = None
    looks: list[Look] = field(default_factory=list)
    replicates: list[str] = field(default_factory=list)

    @property
    def ranked_points(self) -> list[Point]:
        """The points with finite values that keep all constraints, best first; see `reg_sweep.ranking`."""
        complete = (t for t in self.trials if t.state == "complete")
        outcomes = [Outcome(t.number, t.params, t.values, t.is_feasible) for t in complete]
        return ranked(points(outcomes, self.replicates), self.directions)

    @property
    def ranked(self) -> list[Trial]:
        """The trials of the ranked points, best point first; of several objectives those of the Pareto front."""
        by_number = {t.number: t for t in self.trials}
        return [by_number[n] for point in self.ranked_points for n in point.numbers]

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters that differ among the trials, the most important first."""
        values: dict[str, set[str]] = {}
        for t in self.trials:
            for name, value in t.params.items():
                values.setdefault(name, set()).add(repr(value))
        differing = [name for name, found in values.items() if len(found) > 1]
        return sorted(differing, key=lambda name: -self.importances.get(name, 0.0))

    @property
    def has_replicates(self) -> bool:
        """Whether the study varied the seed too, and so is an experiment rather than a search."""
        return not set(self.replicates).isdisjoint(self.parameters)


def read_study(path: Path) -> Study:
    """Reads a study.json.

    Raises:
        RecordError: it is torn, of a newer schema, or lacks what the report needs.
    """
    try:
        facts = json.loads(path.read_text())
        if facts["schema"] > STUDY_SCHEMA:
            newer = f"schema {facts['schema']}, this one reads up to {STUDY_SCHEMA}"
            raise RecordError(f"{path}: written by a newer reg_sweep ({newer})")
        directions = cast(list[Direction], [str(d) for d in facts["directions"]])
        if not directions or not set(directions) <= set(DIRECTIONS):
            raise ValueError(f"directions {directions}")
        trials = [_trial(t, path.parent, len(directions)) for t in facts["trials"]]
        importances = {str(name): float(share) for name, share in facts["importances"].items()}
        trials.sort(key=lambda t: t.number)
        command = str(facts.get("command") or "")
        # A study that does not tell was begun before a seed was no parameter, and shared the importance out among both.
        replicates = [name for name in facts.get("replicates", ["seed"]) if any(name in t.params for t in trials)]
        if not importances.keys().isdisjoint(replicates):
            importances = {}
        study = Study(path.parent, str(facts["study"]), directions, importances, trials, command, replicates=replicates)
        design = facts.get("design")
        return replace(
            study,
            kind=_kind(facts.get("kind"), study),
            design=None if design is None else _design(design),
            looks=[_look(look) for look in facts.get("looks") or []],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RecordError(f"{path}: not a readable study ({type(error).__name__}: {error})") from None


def _trial(facts: dict[str, Any], folder: Path, n_objectives: int) -> Trial:
    values = tuple(_number(v) for v in facts["values"] or ()) if facts["state"] == "complete" else ()
    if facts["state"] not in TRIAL_STATES or (facts["state"] == "complete" and len(values) != n_objectives):
        raise ValueError(f"trial {facts['number']} is {facts['state']} with {len(values)} values")
    params = _params(facts["params"])
    last = _number(facts["steps"][-1][1]) if facts["steps"] else math.nan
    directory = None if facts["directory"] is None else folder / facts["directory"]
    message, limits = str(facts["message"] or ""), (facts.get("constraints") or {}).values()
    is_feasible = all(limit is not None and limit <= 0 for limit in limits)
    return Trial(int(facts["number"]), facts["state"], params, values, last, directory, message, is_feasible)


def _kind(written: Any, study: Study) -> Kind:
    """A study's kind; where none is written, a seed among its parameters tells a grid from a search."""
    if written is None:
        return "grid" if study.has_replicates else "search"
    if written not in KINDS:
        raise ValueError(f"kind {written!r}")
    return cast(Kind, written)


def _design(facts: dict[str, Any]) -> Design:
    return Design(
        looks=tuple(int(n) for n in facts["looks"]),
        max_seeds=int(facts["max_seeds"]),
        alpha=float(facts["alpha"]),
        margin=None if facts["margin"] is None else float(facts["margin"]),
        variance=str(facts["variance"]),
        metric=str(facts["metric"]),
        first_seed=int(facts["first_seed"]),
        baseline=_params(facts["baseline"]),
        arms=[_params(arm) for arm in facts["arms"]],
    )


def _look(facts: dict[str, Any]) -> Look:
    arms = [
        ArmLook(
            params=_params(arm["params"]),
            decision=str(arm["decision"]),
            n_seeds=int(arm["n_seeds"]),
            n_diverged=int(arm["n_diverged"]),
            n_failed=int(arm["n_failed"]),
            estimate=_number(arm["estimate"]),
            ci_low=_number(arm["ci_low"]),
            ci_high=_number(arm["ci_high"]),
        )
        for arm in facts["arms"]
    ]
    return Look(int(facts["seeds"]), arms)


def _params(facts: dict[str, Any]) -> dict[str, Any]:
    return {str(k): v if v is None or isinstance(v, int | float) else str(v) for k, v in facts.items()}


def read_studies(*roots: str | Path, problems: list[str]) -> list[Study]:
    """Every study under `roots`, in the order of their folders; one that can't be read is named in `problems`."""
    paths: dict[Path, Path] = {}
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            if STUDY_FILE in files:
                path = Path(folder) / STUDY_FILE
                paths.setdefault(path.resolve(), path)
    studies = []
    for path in paths.values():
        try:
            studies.append(read_study(path))
        except RecordError as error:
            problems.append(str(error))
    return studies


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
