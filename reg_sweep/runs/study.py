"""Writes study.json, a study's record, and reads it without Optuna.

The reader returns a study's trials, their ranking, and the parameters that differ.
"""

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast, get_args

from reg_sweep.runs import validation
from reg_sweep.runs.discovery import folders_with, real_path
from reg_sweep.runs.files import replacing
from reg_sweep.runs.ranking import Outcome, Point, points, ranked
from reg_sweep.runs.record import STUDY_FILE, RecordError
from reg_sweep.runs.validation import MAX_WHOLE, Between, Count, Name, Reading, ValidationError, nearest

STUDY_SCHEMA = 1
MAX_STUDY = 64_000_000  # bytes of a study.json: some 10,000 trials that reported a hundred epochs each
MAX_VALUE = 1e100  # of an objective or parameter that is drawn and ranked
MAX_SEEDS = 10_000  # of a design: every arm has a score for each seed in memory
Seeds = Annotated[int, Between(2, MAX_SEEDS, "a whole number")]
TrialState = Literal["complete", "pruned", "failed", "running", "waiting"]
TRIAL_STATES: tuple[TrialState, ...] = get_args(TrialState)
Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
Kind = Literal["search", "grid", "until_verdict"]


class TrialJson(TypedDict):
    """A trial in study.json. Non-finite values are null, because JSON has no infinity."""

    number: Count
    state: TrialState
    params: dict[str, Any]
    values: list[float | None] | None  # of each objective; null unless it is complete, or pruned after a report
    steps: list[tuple[int, float | None]]  # the reported values, by step
    directory: str | None  # relative to the sweep's
    message: str | None  # a failed trial's error line
    constraints: NotRequired[dict[str, float | None]]  # by name; satisfied if all are 0 or less
    attributes: NotRequired[dict[str, Any]]  # the app's own attributes, and the values of fixed keys


class DesignJson(TypedDict):
    """The design that a study fixed before its first run; its looks and `max_seeds` may have been extended."""

    looks: list[Seeds]
    max_seeds: Seeds
    alpha: Annotated[float, Between(1e-12, 0.5)]
    margin: Annotated[float, Between(1e-300, 1e39)] | None  # in the metric's unit
    variance: Literal["moderated", "plain"]
    question: NotRequired[Literal["better", "equivalent", "not_worse"]]
    pairing: NotRequired[Literal["seeds", "none"]]
    spending: NotRequired[Literal["open", "all"]]
    earlier_variance: NotRequired[Annotated[float, Between(1e-300, 1e78)]]  # of a paired difference
    noise_from: NotRequired[Name]  # the earlier study's folder
    in_order: NotRequired[bool]  # the study ends with the first arm that is not worse
    metric: Name
    first_seed: Count
    baseline: dict[str, Any]
    arms: list[dict[str, Any]]  # without the baseline


class ArmLookJson(TypedDict):
    """An arm at a look that judged it: its paired difference from the baseline. Unknown values are null."""

    params: dict[str, Any]
    decision: Name  # 'undecided' while the arm needs more seeds
    verdict: NotRequired[Name]  # the final word, if no analysis follows
    n_seeds: Count  # pairs in which both runs ended with a finite value
    n_diverged: Count
    n_failed: Count
    estimate: Reading | None
    ci_low: Reading | None
    ci_high: Reading | None


class LookJson(TypedDict):
    """A completed look (interim analysis), with the arms that were undecided before it."""

    seeds: Seeds
    arms: list[ArmLookJson]


class StudyJson(TypedDict):
    """study.json. Optional keys were added later; a study without `kind` is a search or a grid."""

    schema: int
    study: Name
    directions: list[Direction]
    command: str | None  # runs the best trial, or those of the Pareto front
    importances: dict[str, float]  # each parameter's share; empty if unknown
    trials: list[TrialJson]
    kind: NotRequired[Kind]
    replicates: NotRequired[list[str]]  # parameters over which a point's value is averaged
    best: NotRequired[list[int]]  # the best trial, or all trials of the Pareto front or of the best point
    design: NotRequired[DesignJson]  # only with until_verdict
    looks: NotRequired[list[LookJson]]  # only with until_verdict


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
    """Makes a study's record in the current schema; `verdict` holds design and looks of a study with until_verdict."""
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
    """The text of study.json, which can always be read back.

    Values that readers would refuse are replaced by the nearest valid ones. If the text is too long, each trial keeps
    only its last report.
    """
    text = _json(study, study["trials"])
    return text if len(text) <= MAX_STUDY else _json(study, [{**t, "steps": t["steps"][-1:]} for t in study["trials"]])


def _json(study: StudyJson, trials: list[TrialJson]) -> str:
    known: list[TrialJson] = [{**t, "steps": [s for s in t["steps"] if abs(s[0]) <= MAX_WHOLE]} for t in trials]
    return json.dumps(nearest({**study, "trials": known}), indent=1, allow_nan=False) + "\n"


def write_study(folder: Path, study: StudyJson) -> None:
    """Writes a sweep's study.json atomically."""
    text = study_json(study)
    with replacing(folder / STUDY_FILE) as file:
        file.write(text.encode())


@dataclass(frozen=True)
class Trial:
    """One trial of a study.

    `values` are a complete trial's objectives, nan if not finite. `last` is the last reported value, or nan.
    `directory` is the run's; `message` is the reason for a failure. A trial that violates a constraint is not feasible.
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
class StudyDesign:
    """The design of a sequential study: see `DesignJson`. `arms` excludes the baseline."""

    looks: tuple[int, ...]
    max_seeds: int
    alpha: float
    margin: float | None
    variance: str
    metric: str
    first_seed: int
    baseline: dict[str, Any]
    arms: list[dict[str, Any]]
    question: str = "better"
    pairing: str = "seeds"
    earlier_variance: float | None = None
    noise_from: str = ""
    in_order: bool = False
    spending: str = "open"


@dataclass(frozen=True)
class ArmLook:
    """An arm at a look: the decision, and its paired difference from the baseline; nan if unknown.

    `decision` is a word of `stats.verdict.Verdict`. The interval is simultaneous over all arms and looks.
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
    """A completed look (interim analysis), with the arms that were undecided before it."""

    seeds: int
    arms: list[ArmLook]


@dataclass(frozen=True)
class Study:
    """A study as recorded in study.json: the trials by number, and each parameter's importance, if known.

    `command` runs the best trial or those of the Pareto front again; it is empty if the study recorded none. `kind` is
    the purpose of the study: to search, to run a given grid, or to judge arms until a verdict. Only the last kind has a
    `design` and `looks`.
    """

    path: Path
    name: str
    directions: list[Direction]
    importances: dict[str, float]
    trials: list[Trial]
    command: str = ""
    kind: Kind = "search"
    design: StudyDesign | None = None
    looks: list[Look] = field(default_factory=list)
    replicates: list[str] = field(default_factory=list)

    @property
    def ranked_points(self) -> list[Point]:
        """The points with finite values that satisfy all constraints, best first; see `reg_sweep.runs.ranking`."""
        complete = (t for t in self.trials if t.state == "complete")
        outcomes = [Outcome(t.number, t.params, t.values, t.is_feasible) for t in complete]
        return ranked(points(outcomes, self.replicates), self.directions)

    @property
    def ranked(self) -> list[Trial]:
        """The trials of the ranked points, best point first; with several objectives, those of the Pareto front."""
        by_number = {t.number: t for t in self.trials}
        return [by_number[n] for point in self.ranked_points for n in point.numbers]

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters that differ among the trials, most important first."""
        values: dict[str, set[str]] = {}
        for t in self.trials:
            for name, value in t.params.items():
                values.setdefault(name, set()).add(repr(value))
        differing = [name for name, found in values.items() if len(found) > 1]
        return sorted(differing, key=lambda name: -self.importances.get(name, 0.0))

    @property
    def has_replicates(self) -> bool:
        """Whether the study also varied a replicate parameter, such as the seed."""
        return not set(self.replicates).isdisjoint(self.parameters)


def read_study(path: Path) -> Study:
    """Reads and checks a study.json.

    Raises:
        RecordError: the file is truncated, of a newer schema, or not a study's record.
    """
    try:
        facts = validation.read_json(path, MAX_STUDY)
        schema = facts.get("schema")
        if isinstance(schema, int) and schema > STUDY_SCHEMA:
            newer = f"schema {schema}, this one reads up to {STUDY_SCHEMA}"
            raise RecordError(f"{path}: written by a newer reg_sweep ({newer}): upgrade reg_sweep")
        validation.check(facts, StudyJson)
        _check_study(cast(StudyJson, facts))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a readable study ({validation.one_line(error)})") from None
    return _study(path.parent, cast(StudyJson, facts))


def _check_study(facts: StudyJson) -> None:
    """Checks the rules that a type can't express."""
    n_objectives = len(facts["directions"])
    if n_objectives == 0:
        raise ValidationError("directions must name minimize or maximize, got none")
    numbers = {t["number"] for t in facts["trials"]}
    if len(numbers) < len(facts["trials"]):
        raise ValidationError("trials must have different numbers, got a number twice")
    for t in facts["trials"]:
        if t["state"] == "complete" and len(t["values"] or ()) != n_objectives:
            raise ValidationError(
                f"trial {t['number']} must have {n_objectives} values to be complete, got {len(t['values'] or ())}"
            )
    design = facts.get("design")
    if design is not None:
        _check_design(facts, design, [look["seeds"] for look in facts.get("looks") or ()])


def _check_design(facts: StudyJson, design: DesignJson, done: list[int]) -> None:
    looks = design["looks"]
    if design["margin"] is None and design.get("question", "better") != "better":
        raise ValidationError("design.margin must be a number unless the question is better, got null")
    if not looks or any(b <= a for a, b in pairwise(looks)):
        raise ValidationError(f"design.looks must ascend, got {looks[:20]}")
    if done != looks[: len(done)]:
        raise ValidationError(f"looks must be at the design's numbers of seeds, {looks[:20]}, got {done[:20]}")
    for t in facts["trials"]:
        seed = t["params"].get("seed")
        if not isinstance(seed, int):
            raise ValidationError(f"trial {t['number']} must have a whole number for a seed, got {reprlib.repr(seed)}")


def _study(folder: Path, facts: StudyJson) -> Study:
    design, importances = facts.get("design"), facts["importances"]
    # Older studies lack `replicates`: their seed was an ordinary parameter, with a share of the importance.
    replicates = [n for n in facts.get("replicates", ["seed"]) if any(n in t["params"] for t in facts["trials"])]
    study = Study(
        path=folder,
        name=facts["study"],
        directions=facts["directions"],
        importances=importances if importances.keys().isdisjoint(replicates) else {},
        trials=sorted((_trial(t, folder) for t in facts["trials"]), key=lambda t: t.number),
        command=facts["command"] or "",
        replicates=replicates,
        design=None if design is None else _design(design),
        looks=[Look(look["seeds"], [_arm_look(arm) for arm in look["arms"]]) for look in facts.get("looks") or ()],
    )
    # Without a recorded kind, a seed among the parameters distinguishes a grid from a search.
    return replace(study, kind=facts.get("kind") or ("grid" if study.has_replicates else "search"))


def _trial(facts: TrialJson, folder: Path) -> Trial:
    limits = facts.get("constraints", {}).values()
    return Trial(
        number=facts["number"],
        state=facts["state"],
        params=_params(facts["params"]),
        values=tuple(map(_number, facts["values"] or ())) if facts["state"] == "complete" else (),
        last=_number(facts["steps"][-1][1]) if facts["steps"] else math.nan,
        directory=None if facts["directory"] is None else folder / facts["directory"],
        message=facts["message"] or "",
        is_feasible=all(limit is not None and limit <= 0 for limit in limits),
    )


def _design(facts: DesignJson) -> StudyDesign:
    baseline, arms = _params(facts["baseline"]), [_params(arm) for arm in facts["arms"]]
    return StudyDesign(**{**facts, "looks": tuple(facts["looks"]), "baseline": baseline, "arms": arms})  # type: ignore[arg-type]


def _arm_look(facts: ArmLookJson) -> ArmLook:
    return ArmLook(
        params=_params(facts["params"]),
        decision=facts["decision"],
        n_seeds=facts["n_seeds"],
        n_diverged=facts["n_diverged"],
        n_failed=facts["n_failed"],
        estimate=_number(facts["estimate"]),
        ci_low=_number(facts["ci_low"]),
        ci_high=_number(facts["ci_high"]),
    )


def _params(facts: dict[str, Any]) -> dict[str, Any]:
    """A trial's parameters; values that can't be drawn on an axis, such as lists, become text."""
    return {k: _param(v) for k, v in facts.items()}


def _param(value: Any) -> Any:
    if isinstance(value, int) and abs(value) > 2**53:  # too large to be exact as a double
        return float(value)
    return value if value is None or (isinstance(value, int | float) and abs(value) <= MAX_VALUE) else str(value)


def read_studies(*roots: str | Path, problems: list[str]) -> list[Study]:
    """All studies under `roots`, in the order of their folders; unreadable ones are reported in `problems`."""
    paths: dict[Path, Path] = {}
    for folder in folders_with(STUDY_FILE, *roots, problems=problems):
        path = folder / STUDY_FILE
        paths.setdefault(real_path(path), path)
    studies: list[Study] = []
    for path in paths.values():
        try:
            studies.append(read_study(path))
        except RecordError as error:
            problems.append(str(error))
    return studies


def _number(value: float | None) -> float:
    """A value; nan if it is not finite or too large for an axis."""
    return math.nan if value is None or abs(value) > MAX_VALUE else float(value)
