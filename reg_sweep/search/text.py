"""What came of a study's trials, as text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_sweep.runs.ranking import Point
from reg_sweep.runs.study import Direction
from reg_sweep.search.storage import ERROR

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def params_text(params: Mapping[str, Any]) -> str:
    """'l1=0.001 norm=bn'."""
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def values_text(values: Sequence[float]) -> str:
    """One or more objectives, to six digits."""
    return ", ".join(f"{v:.6g}" for v in values)


def outcome_text(trial: "FrozenTrial") -> str:
    """How a finished trial ended: its values, 'pruned at step 3' or 'failed: why'."""
    if trial.state.name == "PRUNED":
        return "pruned" if trial.last_step is None else f"pruned at step {trial.last_step}"
    if trial.state.name == "FAIL":
        return f"failed: {trial.user_attrs.get(ERROR, 'for an unknown reason')}"
    return values_text(trial.values)


class Standing:
    """How the trials that have ended stand, trial by trial: a study of thousands counts none of them again."""

    def __init__(self, directions: list[Direction]) -> None:
        """Of several objectives, or of none, no trial is the best."""
        self._directions = directions
        self._best: FrozenTrial | None = None
        self._ended = {"PRUNED": 0, "FAIL": 0}

    def add(self, trial: "FrozenTrial") -> None:
        """Counts a trial that has ended; of equally good ones the first stays the best."""
        if trial.state.name in self._ended:
            self._ended[trial.state.name] += 1
        elif len(self._directions) == 1:
            ranked = best_first([trial] if self._best is None else [self._best, trial], self._directions)
            self._best = ranked[0] if ranked else None

    def __str__(self) -> str:
        """', best 0.06 (trial 3), 2 pruned, 0 failed'."""
        best = self._best
        parts = [] if best is None else [f"best {values_text(best.values)} (trial {best.number})"]
        parts += [f"{self._ended['PRUNED']} pruned", f"{self._ended['FAIL']} failed"]
        return "".join(f", {part}" for part in parts)


def standing_text(finished: Iterable["FrozenTrial"], directions: list[Direction]) -> str:
    """How finished trials stand, as `Standing` tells it."""
    standing = Standing(directions)
    for trial in finished:
        standing.add(trial)
    return str(standing)


def best_first(trials: Sequence["FrozenTrial"], directions: list[Direction]) -> list["FrozenTrial"]:
    """The completed trials that kept all constraints, best first (of several objectives, by the first)."""
    sign = 1 if directions[0] == "minimize" else -1
    complete = (t for t in trials if t.state.name == "COMPLETE" and is_feasible(t))
    return sorted(complete, key=lambda t: sign * t.values[0])


def is_feasible(trial: "FrozenTrial") -> bool:
    """Whether a trial kept all constraints that were told for it."""
    return all(limit <= 0 for limit in trial.constraints.values())


def table_text(points: Sequence[Point]) -> str:
    """Points as a table, a line each, in the order given; a parameter that a point does not have stays empty."""
    names = sorted({name for p in points for name in p.params})
    are_means = any(len(p.numbers) > 1 for p in points)
    rows = [["trials", "mean value", *names] if are_means else ["trial", "value", *names]]
    for p in points:
        params = (params_text({"": p.params[n]})[1:] if n in p.params else "" for n in names)
        rows.append([", ".join(map(str, p.numbers)), values_text(p.values), *params])
    return columns_text(rows)


def columns_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
