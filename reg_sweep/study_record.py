"""What a study leaves: study.json, both ways, for those that have no Optuna.

The reader gives a study's trials, how they rank, and which parameters differ among them.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast, get_args

from reg_sweep.files import replacing
from reg_sweep.records import STUDY_FILE, RecordError

STUDY_SCHEMA = 1
TrialState = Literal["complete", "pruned", "failed", "running", "waiting"]
TRIAL_STATES: tuple[TrialState, ...] = get_args(TrialState)
Direction = Literal["minimize", "maximize"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


class TrialJson(TypedDict):
    """A trial in study.json. What is not finite is null, for JSON has no infinity."""

    number: int
    state: TrialState
    params: dict[str, Any]
    values: list[float | None] | None  # of each objective; null unless it is complete, or pruned after a report
    steps: list[tuple[int, float | None]]  # what it reported, by step
    directory: str | None  # relative to the sweep's
    message: str | None  # a failed trial's last line


class StudyJson(TypedDict):
    """study.json."""

    schema: int
    study: str
    directions: list[Direction]
    command: str | None  # runs the best trial, or those of a Pareto front
    importances: dict[str, float]  # each parameter's share; empty where it can't be told
    trials: list[TrialJson]


def new_study(
    name: str,
    directions: list[Direction],
    trials: list[TrialJson],
    importances: Mapping[str, float],
    command: str | None,
) -> StudyJson:
    """A study's record, of the schema that this version writes."""
    return {
        "schema": STUDY_SCHEMA,
        "study": name,
        "directions": directions,
        "command": command,
        "importances": dict(importances),
        "trials": trials,
    }


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
    or nan. `directory` is its run's; `message` why it failed.
    """

    number: int
    state: TrialState
    params: dict[str, Any]
    values: tuple[float, ...]
    last: float
    directory: Path | None
    message: str


@dataclass(frozen=True)
class Study:
    """What a sweep's study.json tells: the trials in the order of their numbers; each parameter's share, if known.

    `command` runs the best trial, or those of a Pareto front, again; empty where the study did not tell one.
    """

    path: Path
    name: str
    directions: list[Direction]
    importances: dict[str, float]
    trials: list[Trial]
    command: str = ""

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials with finite values, best first; of several objectives the Pareto front, by the first."""
        signs = [1 if d == "minimize" else -1 for d in self.directions]
        costs = {
            t.number: [sign * v for sign, v in zip(signs, t.values, strict=True)]
            for t in self.trials
            if t.state == "complete" and all(map(math.isfinite, t.values))
        }

        def is_beaten(cost: list[float]) -> bool:
            return any(c != cost and all(a <= b for a, b in zip(c, cost, strict=True)) for c in costs.values())

        kept = costs if len(signs) == 1 else {n: c for n, c in costs.items() if not is_beaten(c)}
        return sorted((t for t in self.trials if t.number in kept), key=lambda t: costs[t.number])

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
        return "seed" in self.parameters


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
        return Study(path.parent, str(facts["study"]), directions, importances, trials, command)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise RecordError(f"{path}: not a readable study ({type(error).__name__}: {error})") from None


def _trial(facts: dict[str, Any], folder: Path, n_objectives: int) -> Trial:
    values = tuple(_number(v) for v in facts["values"] or ()) if facts["state"] == "complete" else ()
    if facts["state"] not in TRIAL_STATES or (facts["state"] == "complete" and len(values) != n_objectives):
        raise ValueError(f"trial {facts['number']} is {facts['state']} with {len(values)} values")
    params = {str(k): v if v is None or isinstance(v, int | float) else str(v) for k, v in facts["params"].items()}
    last = _number(facts["steps"][-1][1]) if facts["steps"] else math.nan
    directory = None if facts["directory"] is None else folder / facts["directory"]
    return Trial(int(facts["number"]), facts["state"], params, values, last, directory, str(facts["message"] or ""))


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
