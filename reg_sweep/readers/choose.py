"""Chooses the score that is judged, the seeds and arms of its runs, and the point of a run's history that counts."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from reg_sweep.readers import names
from reg_sweep.readers.foreign import ForeignRun, ReadError, Wanted
from reg_sweep.runs.record import Status
from reg_sweep.runs.validation import MAX_READING

Unit = Literal["share", "percent", "number"]
N_NAMED = 8  # names listed in a message


@dataclass(frozen=True)
class Score:
    """The score that judges the runs. `digits`: decimal places that show its spread over runs."""

    name: str
    higher_is_better: bool
    unit: Unit
    digits: int


@dataclass(frozen=True)
class ScoredRun:
    """A run as a comparison needs it: `value` at the step where it is judged; nan where it has none."""

    run: ForeignRun
    seed: int
    arm: dict[str, Any]
    dataset: str
    value: float
    status: Status
    message: str = ""


@dataclass(frozen=True)
class Choice:
    """Other programs' runs, read in one way.

    Attributes:
        said: how they were read, in a sentence.
        flags: the options that say the same, for a reader to change.
        curves: the metrics with a history that are shown, the score first.
        is_unpaired: whether no arm shares a seed with another.
        problems: runs that were left out, and why, one line each.
    """

    score: Score
    runs: list[ScoredRun]
    said: str
    flags: str
    arm_keys: list[str]
    curves: list[str]
    clock: str = "step"
    is_unpaired: bool = False
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class _Chosen:
    """The choices so far, and the sentences about them."""

    wanted: Wanted
    runs: list[ForeignRun]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def choose(runs: Sequence[ForeignRun], wanted: Wanted) -> Choice:
    """The runs with their arms, seeds and scores.

    Raises:
        ReadError: a requested name does not exist, or something can't be inferred; the message says what to type.
    """
    so_far = _Chosen(wanted, list(runs))
    score, higher = _score(so_far)
    seeds, seed_text = _seeds(so_far)
    so_far.runs = _without_seeds(so_far.runs, seeds)
    datasets, dataset_key = _datasets(so_far)
    keys, left = _arm_keys(so_far, datasets, dataset_key)
    at, at_text = _place(so_far.runs, wanted.at, score, so_far.notes)
    scored = []
    for run, seed, dataset in zip(so_far.runs, seeds, datasets, strict=True):
        if seed is None:
            so_far.problems.append(f"{run.where}: it names no seed: left out")
            continue
        arm = {k: run.settings.get(k) for k in keys if k in run.settings}
        value, status, why = _value_at(run, score, at)
        if status == "complete" and not math.isfinite(value) and score not in run.metrics:
            so_far.problems.append(f"{run.where}: it has no {score}: left out")
            continue
        scored.append(ScoredRun(run, seed, arm, dataset, value, status, why or run.message))
    if not scored:
        raise ReadError(f"{so_far.runs[0].where}: no run has both a seed and a score, {score}: " + _try(so_far))
    said = [
        f"arms: {', '.join(keys) or 'none, since nothing differs but the seed'}",
        f"seed: {seed_text}",
        f"score: {score}, {'higher' if higher else 'lower'} is better",
        at_text,
    ]
    if dataset_key:
        said.append(f"a table for each {dataset_key}")
    if left:
        said.append(f"not counted as arms: {_listed(left)}")
    flags = ["--score", f"{score}:{'max' if higher else 'min'}", "--seed", _flag(seed_text), "--at", at]
    flags += ["--arm", ",".join(keys)] if keys else []
    return Choice(
        score=Score(score, higher, *_unit(score, scored)),
        runs=scored,
        said="; ".join(said),
        flags=shlex.join(flags),
        arm_keys=keys,
        curves=_curves(scored, score),
        clock=Counter(r.run.clock for r in scored).most_common(1)[0][0],
        is_unpaired=seed_text.startswith("none") or _is_unpaired(scored),
        notes=so_far.notes,
        problems=so_far.problems,
    )


def _try(so_far: _Chosen) -> str:
    known = list(dict.fromkeys(m for run in so_far.runs for m in run.metrics))
    return f"name the score with --score, one of {_listed(known)}" if known else "no metric was found in them"


def _listed(found: Iterable[str], n: int = N_NAMED) -> str:
    every = list(found)
    more = f" and {len(every) - n:,} more" if len(every) > n else ""
    return ", ".join(every[:n]) + more


# ---- the score


def _score(so_far: _Chosen) -> tuple[str, bool]:
    wanted, runs = so_far.wanted, so_far.runs
    n_with = Counter(name for run in runs for name in run.metrics)
    if wanted.score is not None:
        if wanted.score not in n_with:
            has = _listed(sorted(n_with, key=names.preference)) or "none"
            raise ReadError(f"--score must name a metric of the runs, got {wanted.score!r}: they have {has}")
        name = wanted.score
    else:
        known = [m for m in n_with if names.direction(m) is not None and names.role(m) == ""]
        enough = [m for m in known if 2 * n_with[m] >= max(n_with[k] for k in known)]
        if not enough:
            what = _listed(n_with) if n_with else "no column of numbers"
            raise ReadError(
                f"{runs[0].path}: no metric has a name that says what it scores, got {what}: "
                "name the score and its direction, such as --score NAME:max or --score NAME:min"
            )
        name = min(enough, key=names.preference)
    higher = names.direction(name) if wanted.higher_is_better is None else wanted.higher_is_better
    if higher is None:
        raise ReadError(f"--score must say whether a higher {name} is better, got {name}: add :max or :min to it")
    return name, higher


def _unit(name: str, runs: list[ScoredRun]) -> tuple[Unit, int]:
    """The unit of a score, and the decimal places that show its spread.

    Raises:
        ReadError: some are shares and others percent.
    """
    known = [r for r in runs if math.isfinite(r.value)]
    values = np.array([r.value for r in known], np.float64)
    if values.size == 0:
        return "number", 4
    spread = float(np.std(values)) or float(np.max(np.abs(values))) or 1.0
    digits = int(np.clip(2 - math.floor(math.log10(spread)), 0, 12))
    if not names.is_accuracy(name) or float(values.min()) < 0 or float(values.max()) > 100:
        return "number", digits
    if float(values.max()) <= 1:
        return "share", 2
    small = values <= 1
    if small.any() and float(np.median(values[~small])) > 20 and float(np.median(values[small])) > 0.2:
        a, b = (next(r for r in known if (r.value <= 1) == is_small) for is_small in (True, False))
        raise ReadError(
            f"{name} must be a share in all runs, or percent in all, got {a.value:g} in {a.run.where} and "
            f"{b.value:g} in {b.run.where}: use one of the two"
        )
    return "percent", max(2, min(digits, 4))


# ---- seeds


def _seeds(so_far: _Chosen) -> tuple[list[int | None], str]:
    """Each run's seed, None where it has none; and where the seeds come from."""
    wanted, runs = so_far.wanted.seed, so_far.runs
    if wanted == "none":
        return list(range(1, len(runs) + 1)), "none, so runs are not paired"
    if wanted is not None:
        if not any(wanted in run.settings for run in runs):
            known = _listed(dict.fromkeys(k for run in runs for k in run.settings))
            raise ReadError(f"--seed must name a setting of the runs, got {wanted!r}: they have {known or 'none'}")
        keys = [wanted] * len(runs)
    else:
        keys = [_seed_key(run) for run in runs]
    if not any(keys):
        known = _listed(dict.fromkeys(k for run in runs for k in run.settings)) or "no setting"
        raise ReadError(
            f"{runs[0].path}: a setting must name the seed of its runs, got {known}: name it with --seed NAME, or use "
            "--seed none if the runs of an arm are repeats without seeds (they are compared unpaired)"
        )
    found = [run.settings.get(key) if key else None for run, key in zip(runs, keys, strict=True)]
    text = ", ".join(dict.fromkeys(k for k in keys if k))
    if all(v is None or (isinstance(v, int) and not isinstance(v, bool)) for v in found):
        return found, text
    distinct = sorted({str(v) for v in found if v is not None})
    number = {v: n for n, v in enumerate(distinct, 1)}
    so_far.notes.append(
        f"The seeds are not whole numbers and were counted from 1: {_listed(f'{n} is {v}' for v, n in number.items())}."
    )
    return [None if v is None else number[str(v)] for v in found], text


def _seed_key(run: ForeignRun) -> str:
    known = [k for k, v in run.settings.items() if names.role(k) == "seed" and v is not None]
    return min(known, key=lambda k: (names.seed_rank(k), k.count(".")), default="")


def _without_seeds(runs: list[ForeignRun], seeds: list[int | None]) -> list[ForeignRun]:
    """The runs with names such as `bn-seed1` cut to `bn`, which seeds share, if every run's name ends in its seed."""
    cut: dict[str, list[str]] = {}
    for key in [k for k, v in runs[0].settings.items() if isinstance(v, str)]:
        found = [_cut(run.settings.get(key), seed) for run, seed in zip(runs, seeds, strict=True)]
        if all(found):
            cut[key] = found
    if not cut:
        return runs
    return [
        replace(run, settings=run.settings | {key: values[n] for key, values in cut.items()})
        for n, run in enumerate(runs)
    ]


def _cut(value: object, seed: int | None) -> str:
    """A name without the seed at its end; empty where it does not end in it."""
    match = re.fullmatch(rf"(.*?[^\d\W_])[-_ ./]*(?:seed|s)?[-_=]?0*{seed}", str(value), re.IGNORECASE)
    return match[1] if match is not None and seed is not None else ""


def _flag(seed_text: str) -> str:
    return "none" if seed_text.startswith("none") else seed_text.split(",")[0]


def _is_unpaired(runs: list[ScoredRun]) -> bool:
    """Whether arms share no seed at all, and have several each."""
    by_arm: dict[str, set[int]] = {}
    for r in runs:
        by_arm.setdefault(repr((r.dataset, r.arm)), set()).add(r.seed)
    n = sum(len(seeds) for seeds in by_arm.values())
    return len(by_arm) > 1 and n > len(by_arm) and len(set().union(*by_arm.values())) == n


# ---- data sets and arms


def _datasets(so_far: _Chosen) -> tuple[list[str], str]:
    """The name of each run's data, and the setting that names it; empty where they do not differ."""
    for key in dict.fromkeys(k for run in so_far.runs for k in run.settings if names.role(k) == "dataset"):
        if key in (so_far.wanted.arms or ()):
            continue
        found = [str(run.settings.get(key, "")) for run in so_far.runs]
        if 1 < len(set(found)) <= len(found) // 2:
            return found, key
    return [""] * len(so_far.runs), ""


def _arm_keys(so_far: _Chosen, datasets: list[str], dataset_key: str) -> tuple[list[str], list[str]]:
    """The settings that make an arm, and those that differ but do not count."""
    runs, wanted = so_far.runs, so_far.wanted
    known = list(dict.fromkeys(k for run in runs for k in run.settings))
    if wanted.arms is not None:
        missing = [k for k in wanted.arms if k not in known]
        if missing:
            raise ReadError(f"--arm must name settings of the runs, got {missing[0]!r}: they have {_listed(known)}")
        return list(wanted.arms), []
    differing = [k for k in known if k != dataset_key and len({repr(run.settings.get(k)) for run in runs}) > 1]
    seeds = {k for k in differing if names.role(k) == "seed" or k == wanted.seed}
    candidates = [k for k in differing if k not in seeds and names.role(k) in ("", "id", "dataset")]
    left = [k for k in differing if k not in seeds and k not in candidates]
    kept = []
    for key in candidates:
        n_values = len({repr(run.settings.get(key)) for run in runs})
        is_own = 2 * n_values > len(runs) and len(runs) > 3
        if is_own and (names.role(key) == "id" or not names.is_hyperparameter(key)):
            left.append(key)
        else:
            kept.append(key)
    if not kept:
        kept = [k for k in candidates if names.role(k) != "id"] or candidates[:1]
        left = [k for k in left if k not in kept]
    without_names = [k for k in kept if names.role(k) != "id"]
    if without_names and _n_arms(runs, without_names) >= _n_arms(runs, kept):
        left += [k for k in kept if k not in without_names]
        kept = without_names
    return kept, left


def _n_arms(runs: list[ForeignRun], keys: list[str]) -> int:
    return len({repr([run.settings.get(k) for k in keys]) for run in runs})


def _curves(runs: list[ScoredRun], score: str) -> list[str]:
    """The score, and the first five other metrics with a history, in the order of `names.preference`."""
    n_with = Counter(m for r in runs for m, s in r.run.history.items() if s.steps.size > 1)
    others = [m for m in n_with if m != score and names.direction(m) is not None and 2 * n_with[m] >= len(runs)]
    return [score, *sorted(others, key=names.preference)[:5]]


def _place(runs: Sequence[ForeignRun], wanted: str | None, score: str, notes: list[str]) -> tuple[str, str]:
    """The place in the history where runs are judged, and its words; if it is optimistic, `notes` gets a note.

    Raises:
        ReadError: there is no such place.
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
            known = _listed(dict.fromkeys(m for run in runs for m in run.history)) or "none"
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


def _value_at(run: ForeignRun, score: str, at: str) -> tuple[float, Status, str]:
    """A run's score where it is judged, its status given that score, and why the status changed."""
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
