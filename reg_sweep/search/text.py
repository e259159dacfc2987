"""What came of a study's trials, as text and as study.json."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_sweep.search.settings import ERROR, job_facts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def params_text(params: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def values_text(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.6g}" for v in values)


def outcome_text(trial: "FrozenTrial") -> str:
    if trial.state.name == "PRUNED":
        return "pruned" if trial.last_step is None else f"pruned at step {trial.last_step}"
    if trial.state.name == "FAIL":
        return f"failed: {trial.user_attrs.get(ERROR, 'for an unknown reason')}"
    return values_text(trial.values)


def standing_text(finished: Sequence["FrozenTrial"], directions: list[str]) -> str:
    best = best_first(finished, directions)
    parts = [f"best {values_text(best[0].values)} (trial {best[0].number})"] if best and len(directions) == 1 else []
    for state, word in (("PRUNED", "pruned"), ("FAIL", "failed")):
        parts.append(f"{sum(t.state.name == state for t in finished)} {word}")
    return "".join(f", {p}" for p in parts)


def best_first(trials: Sequence["FrozenTrial"], directions: list[str]) -> list["FrozenTrial"]:
    """The completed trials, best first (of several objectives, by the first)."""
    sign = 1 if directions[0] == "minimize" else -1
    return sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: sign * t.values[0])


def table_text(trials: Sequence["FrozenTrial"]) -> str:
    names = sorted({name for t in trials for name in t.params})
    rows = [["trial", "value", *names]]
    for t in trials:
        params = (params_text({"": t.params[n]})[1:] if n in t.params else "" for n in names)
        rows.append([str(t.number), values_text(t.values), *params])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


TRIAL_WORDS = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def study_json(study: "optuna.Study", importances: Mapping[str, float], command: str | None = None) -> str:
    """A study as a file for those that have no Optuna: names, trials, what each reported. Infinity becomes null.

    A trial's directory is relative to the sweep's; its message is a failed trial's last line. `command` runs the best
    trial, or those of a Pareto front.
    """

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    trials = [
        {
            "number": t.number,
            "state": TRIAL_WORDS[t.state.name],
            "params": t.params,
            "values": None if t.values is None else list(map(finite, t.values)),
            "steps": [[step, finite(value)] for step, value in sorted(t.intermediate_values.items())],
            "directory": job_facts(t).get("directory"),
            "message": t.user_attrs.get(ERROR),
        }
        for t in study.get_trials(deepcopy=False)
    ]
    facts: dict[str, Any] = {
        "schema": 1,
        "study": study.study_name,
        "directions": [d.name.lower() for d in study.directions],
    }
    facts |= {"command": command, "importances": dict(importances), "trials": trials}
    return json.dumps(facts, indent=1, allow_nan=False) + "\n"
