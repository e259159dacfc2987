"""Where in its history a run is judged: at its last step, at a given one, or where another metric is best."""

import math
from collections.abc import Sequence

import numpy as np

from reg_sweep.readers import names
from reg_sweep.readers.run import ForeignRun, ReadError
from reg_sweep.runs.record import Status
from reg_sweep.runs.validation import MAX_READING


def place_of(runs: Sequence[ForeignRun], wanted: str | None, score: str, notes: list[str]) -> tuple[str, str]:
    """The place in the history, and its words; `notes` gets what makes it optimistic.

    Raises:
        ReadError: it is none that there is.
    """
    at = wanted or "last"
    has_history = any(score in run.history for run in runs)
    if at == "last":
        return at, "each run at its last step" if has_history else "each run's only value"
    kind, _, rest = at.replace("best:", "best=", 1).partition("=")
    if kind == "step" and rest:
        try:
            step = float(rest)
        except ValueError:
            step = math.nan
        if not math.isfinite(step):
            raise ReadError(f"--at must be last, best:METRIC or step=N, got {at!r}: name the step by its number")
        _require_history(has_history, score, at)
        return at, f"each run at step {rest}"
    if kind == "best" and rest:
        metric = rest.removesuffix(":min").removesuffix(":max")
        if not any(metric in run.history for run in runs):
            known = ", ".join(list(dict.fromkeys(m for run in runs for m in run.history))[:8]) or "none"
            raise ReadError(f"--at best:METRIC must name a metric with a history, got {metric!r}: there is {known}")
        _require_history(has_history, score, at)
        if not rest.endswith((":min", ":max")) and names.direction(metric) is None:
            raise ReadError(f"--at must say whether a higher {metric} is better, got {at!r}: add :max or :min to it")
        if metric == score:
            notes.append(
                f"Optimistic: each run is judged at the step where {score} itself is best, which overstates every arm, "
                "noisy arms most. Choose the step by another metric, or judge the last: --at last."
            )
        return at, f"each run at its best {metric}"
    raise ReadError(f"--at must be last, best:METRIC or step=N, got {at!r}")


def _require_history(has_history: bool, score: str, at: str) -> None:
    if not has_history:
        raise ReadError(f"--at must be last where {score} has no history, got {at!r}: leave it out")


def value_at(run: ForeignRun, score: str, at: str) -> tuple[float, Status, str]:
    """A run's score where it is judged, its status after a look at that score, and why it changed."""
    series = run.history.get(score)
    if series is None:
        value, before = run.scores.get(score, math.nan), False
    else:
        value = series.at(step) if (step := _step(run, score, at)) is not None else series.last
        before = bool(np.isfinite(series.values).any())
    if run.status != "complete":
        return value, run.status, ""
    if abs(value) > MAX_READING or (math.isnan(value) and before and at == "last"):
        return value, "diverged", f"its {score} is not finite at the end"
    if math.isnan(value) and at != "last":
        return value, "failed", f"it has no {score} at {at}"
    if math.isnan(value) and (score in run.metrics or run.scores or run.history):
        return value, "failed", f"it has no {score}"
    return value, "complete", ""


def _step(run: ForeignRun, score: str, at: str) -> float | None:
    """The step that `at` names; None for the last."""
    if at == "last":
        return None
    if at.startswith("step="):
        return float(at.removeprefix("step="))
    rest = at.removeprefix("best:").removeprefix("best=")
    metric = rest.removesuffix(":min").removesuffix(":max")
    is_higher = rest.endswith(":max") or (not rest.endswith(":min") and bool(names.direction(metric)))
    chooser, judged = run.history.get(metric), run.history.get(score)
    if chooser is None or judged is None:
        return math.nan
    both = np.isin(chooser.steps, judged.steps) & np.isfinite(chooser.values)
    if not both.any():
        return math.nan
    values = np.where(both, chooser.values if is_higher else -chooser.values, -math.inf)
    return float(chooser.steps[int(np.argmax(values))])
