"""A study's printed output: points, trials, tables, one line per finished trial, and the verdict on each arm."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from reg_sweep.runs.ranking import Point, is_share, parameter_text
from reg_sweep.runs.study import ArmLookJson, DesignJson, Direction, LookJson
from reg_sweep.search.parameter import split_params
from reg_sweep.search.storage import NO_VALUE, error_of
from reg_sweep.stats.verdict import Verdict

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

Params = dict[str, Any]


def params_text(params: Mapping[str, Any], digits: int = 3) -> str:
    """'l1=0.001 norm=bn', with numbers formatted as on the page."""
    return " ".join(f"{k}={parameter_text(v, digits)}" for k, v in params.items())


def typed_text(params: Mapping[str, Any]) -> str:
    """Parameters to six digits, for a study's identity and errors, where two points must not look alike."""
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def points_texts(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """`params_text` of several points, with more digits if two would look alike."""
    for digits in (3, 6, 17):
        texts = [params_text(p, digits) for p in points]
        if len(set(texts)) == len(texts):
            break
    return texts


def values_text(values: Sequence[float], names: Sequence[str] | None = None) -> str:
    """Objectives, such as 'val loss 0.116113, zero share 4.38%'; without names, numbers to six digits."""
    named = zip(names if names is not None else [""] * len(values), values, strict=True)
    return ", ".join(f"{name.replace('_', ' ')} {_value_text(v, name)}".lstrip() for name, v in named)


def _value_text(value: float, name: str) -> str:
    return f"{100 * value:.2f}%" if is_share(name) else f"{value:.6g}"


def outcome_text(trial: "FrozenTrial", names: Sequence[str] | None = None) -> str:
    """The outcome of a finished trial: its values, 'pruned at step 3' or 'failed: why'."""
    if trial.state.name == "PRUNED":
        return "pruned" if trial.last_step is None else f"pruned at step {trial.last_step}"
    if trial.state.name == "FAIL":
        return f"failed: {error_of(trial) or 'for an unknown reason'}"
    return "done" if NO_VALUE in trial.user_attrs else values_text(trial.values, names)


def best_first(trials: Sequence["FrozenTrial"], directions: list[Direction], by: int = 0) -> list["FrozenTrial"]:
    """The completed trials that satisfy all constraints, best first by objective number `by`."""
    sign = 1 if directions[by] == "minimize" else -1
    complete = (t for t in trials if t.state.name == "COMPLETE" and is_feasible(t))
    return sorted(complete, key=lambda t: sign * t.values[by])


def is_feasible(trial: "FrozenTrial") -> bool:
    """Whether a trial satisfies all of its constraints."""
    return all(limit <= 0 for limit in trial.constraints.values())


def table_text(points: Sequence[Point], objectives: Sequence[str] | None = None) -> str:
    """Points as a table, one per line, in the given order; the cell of a parameter that a point lacks is empty."""
    names = sorted({name for p in points for name in p.params})
    are_means = any(len(p.numbers) > 1 for p in points)
    heading = "value" if objectives is None else ", ".join(o.replace("_", " ") for o in objectives)
    rows = [["trials", f"mean {heading}", *names] if are_means else ["trial", heading, *names]]
    for p in points:
        params = (parameter_text(p.params[n]) if n in p.params else "" for n in names)
        values = map(_value_text, p.values, objectives or [""] * len(p.values))
        rows.append([", ".join(map(str, p.numbers)), ", ".join(values), *params])
    return columns_text(rows)


def columns_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


class Standing:
    """The best trial so far and the numbers of pruned and failed trials, updated trial by trial."""

    def __init__(self, directions: list[Direction], names: Sequence[str] | None = None) -> None:
        """With several objectives, or none, no trial is called the best."""
        self._directions, self._names = directions, names
        self._best: FrozenTrial | None = None
        self._ended = {"PRUNED": 0, "FAIL": 0}

    def add(self, trial: "FrozenTrial") -> None:
        """Counts a finished trial; of equally good trials, the first remains the best."""
        if trial.state.name in self._ended:
            self._ended[trial.state.name] += 1
        elif len(self._directions) == 1:
            ranked = best_first([trial] if self._best is None else [self._best, trial], self._directions)
            self._best = ranked[0] if ranked else None

    def __str__(self) -> str:
        """', best val loss 0.06 (trial 3), 2 pruned, 0 failed'."""
        best = self._best
        parts = [] if best is None else [f"best {values_text(best.values, self._names)} (trial {best.number})"]
        parts += [f"{self._ended['PRUNED']} pruned", f"{self._ended['FAIL']} failed"]
        return "".join(f", {part}" for part in parts)


def standing_text(
    finished: Iterable["FrozenTrial"], directions: list[Direction], names: Sequence[str] | None = None
) -> str:
    """`Standing` of these trials, as text."""
    standing = Standing(directions, names)
    for trial in finished:
        standing.add(trial)
    return str(standing)


class Progress:
    """A context manager that logs each trial that ends and, on a terminal, shows the running ones in a changing line.

    If the terminal is closed or can't be written to, lines are lost and the study continues.
    """

    def __init__(
        self,
        total: int,
        directions: list[Direction],
        finished: set[int],
        stream: TextIO | None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Counts to `total`.

        Args:
            directions: of the objectives; without any, no trial is called the best.
            finished: the numbers of trials that ended earlier; they get no line.
            stream: shows the changing line if it is a terminal.
            names: of the objectives, if they are known.
        """
        self._total = total
        self._terminal = stream if stream is not None and not stream.closed and stream.isatty() else None
        self._earlier, self._seen = finished, set[int]()
        self._start_s = time.monotonic()
        self._names = names
        self._standing = Standing(directions, names)

    def __enter__(self) -> "Progress":
        """Shows nothing before the first update."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the changing line."""
        self._write("\x1b[K")

    def update(self, trials: Sequence["FrozenTrial"]) -> None:
        """Logs the trials that have ended since the last call, and shows those that run.

        `trials` are all of the study's, including those of workers and other machines.
        """
        self._total = max(self._total, len(trials))  # with until_verdict, trials are added while the study runs
        new = [t for t in trials if t.number not in self._seen and t.state.is_finished()]
        for trial in sorted(new, key=lambda t: t.number not in self._earlier):
            self._seen.add(trial.number)
            self._standing.add(trial)
            if trial.number not in self._earlier:
                self._write("\x1b[K")
                log.info(
                    "trial %d: %s: %s | %d of %d%s%s",
                    *(trial.number, params_text(trial.params), outcome_text(trial, self._names)),
                    *(len(self._seen), self._total, self._standing, self._left()),
                )
        running = [t for t in trials if t.state.name == "RUNNING"]
        if running:
            self._show("; ".join(map(self._doing, running)))

    def report(self, number: int, params: Mapping[str, Any], value: float, step: int) -> None:
        """Shows the value that a running trial reported."""
        self._show(f"trial {number}: {params_text(params)}, {values_text([value], self._names)} at step {step}")

    def _show(self, doing: str) -> None:
        # The cursor returns to the start of the line, so that the next line overwrites it.
        self._write(f"\x1b[K{doing} | {len(self._seen)} of {self._total}{self._standing}{self._left()}\r")

    def _write(self, text: str) -> None:
        if self._terminal is not None:
            with suppress(OSError, ValueError):  # it has been closed
                self._terminal.write(text)
                self._terminal.flush()

    def _left(self) -> str:
        # Only trials of this start count: earlier ones may have run on another machine.
        done = len(self._seen) - len(self._earlier)
        if done == 0 or len(self._seen) >= self._total:
            return ""
        seconds = (time.monotonic() - self._start_s) / done * (self._total - len(self._seen))
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"

    def _doing(self, trial: "FrozenTrial") -> str:
        step = trial.last_step
        told = "" if step is None else values_text([trial.intermediate_values[step]], self._names)
        return f"trial {trial.number}: {params_text(trial.params)}{told and f', {told} at step {step}'}"


def verdict_table(design: DesignJson, looks: Sequence[LookJson]) -> str:
    """A table with one line per arm: its seeds, its difference from the baseline with the interval, and the verdict.

    The interval is that of `Finding.evidence`, simultaneous over all arms and interim analyses.
    """
    from reg_sweep.stats.sequential import Design

    alpha, question = design["alpha"], design.get("question", "better")
    planned = Design(tuple(design["looks"]), alpha, design["margin"], design["variance"], question)
    of_equivalence = 1 - planned.equivalence_error(len(design["arms"]))
    level = f"{100 * (1 - alpha):g}% interval ({100 * of_equivalence:g}% if equivalent)"
    rows = [["arm", "seeds", "difference", level, "verdict"]]
    for params, text in zip(design["arms"], points_texts(design["arms"]), strict=True):
        seeds, arm = last_look(params, looks)
        if arm is None:
            rows.append([text, "", "", "", "not analysed yet"])
            continue
        lost = [f"{n} of {seeds} {word}" for n, word in ((arm["n_diverged"], "diverged"), (arm["n_failed"], "failed"))]
        word = final_verdict(arm, seeds, question)
        is_given_up = arm["decision"] == Verdict.UNDECIDED and seeds < looks[-1]["seeds"]
        said = ", ".join([word, *["given up"] * is_given_up, *(text for text in lost if not text.startswith("0 "))])
        rows.append([text, str(seeds), *difference_text(arm, design["metric"]), said])
    return columns_text(rows)


def last_look(params: Mapping[str, Any], looks: Sequence[LookJson]) -> tuple[int, ArmLookJson | None]:
    """An arm's latest interim analysis: the number of seeds and the finding; 0 and None if there was none."""
    for look in reversed(looks):
        for arm in look["arms"]:
            if arm["params"] == params:
                return look["seeds"], arm
    return 0, None


def final_verdict(arm: ArmLookJson, n_seeds: int, question: str) -> Verdict:
    """The recorded verdict if no analysis follows the one at `n_seeds`; older records have only the decision."""
    if "verdict" in arm:
        return Verdict.of(arm["verdict"])
    return Verdict.of(arm["decision"]).at_the_end(question, has_lost=arm["n_seeds"] < n_seeds)


def difference_text(arm: ArmLookJson, metric: str) -> tuple[str, str]:
    """'+0.12 points' and '-0.04 to +0.28' for a share, '+0.0012' for another metric; a dash if unknown.

    Intervals of shares are cut at 100 points, the largest possible difference.
    """
    reach = 1.0 if is_share(metric) else math.inf
    ends = (None if v is None else min(max(v, -reach), reach) for v in (arm["ci_low"], arm["ci_high"]))
    numbers = (arm["estimate"], *ends)
    estimate, low, high = (None if v is None else _signed(v, metric) for v in numbers)
    unit = " points" if is_share(metric) else ""
    return f"{estimate}{unit}" if estimate else "-", "-" if low is None or high is None else f"{low} to {high}"


def _signed(value: float, metric: str) -> str:
    text = f"{100 * value:+.2f}" if is_share(metric) else f"{value:+.4g}"
    return text if float(text) else text[1:]


def lost_pairs(design: DesignJson, trials: "Sequence[FrozenTrial]") -> list[str]:
    """Warnings about seeds that can't be compared because the baseline failed or diverged on them."""
    params = {t.number: split_params(t.params, t.user_attrs) for t in trials}
    baseline = [t for t in trials if design["baseline"].items() <= params[t.number].items()]
    failed = sum(t.state.name in ("FAIL", "PRUNED") for t in baseline)
    diverged = sum(t.state.name == "COMPLETE" and not math.isfinite(t.value or 0.0) for t in baseline)
    counts = ((failed, "failed"), (diverged, "diverged"))
    return [
        f"the baseline {word} on {n} of {len(baseline)} seeds, on which no arm can be compared"
        for n, word in counts
        if n
    ]


def effort_text(design: DesignJson, trials: "Sequence[FrozenTrial]") -> str:
    """The number of runs, and how many the interim analyses saved."""
    n, whole = sum(t.state.is_finished() for t in trials), design["max_seeds"] * (1 + len(design["arms"]))
    return f"{n} runs; {design['max_seeds']} seeds of every arm would have been {whole}: {max(whole - n, 0)} saved"


def more_seeds_text(design: DesignJson, undecided: Sequence[Params], command: str) -> str:
    """How to give undecided arms more seeds: by the command or, if the whole error rate is spent, by a new study."""
    arms = "; ".join(map(params_text, undecided))
    if "spending" not in design:
        return f"more seeds for {arms}:\n{command}"
    fresh = design["first_seed"] + design["max_seeds"]
    return (
        f"the whole error rate is spent: to give {arms} more seeds, start a new study in another folder (name=), with"
        f" hydra.sweeper.first_seed={fresh}"
    )
