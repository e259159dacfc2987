"""Mistakes in strangers' runs, caught before any verdict: one run twice, repeats, maxima over test epochs."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from reg_sweep.readers import names
from reg_sweep.readers.choose import Choice, ScoredRun
from reg_sweep.readers.foreign import Series

_VERSIONS = re.compile(r"(^|[._])(version|git_commit|commit|git_hash|git_sha)$|_version$|^versions?\.", re.IGNORECASE)


def caught(choice: Choice) -> Choice:
    """The choice with identical runs counted once and repeats averaged, and a note for each mistake that was found."""
    notes: list[str] = []
    runs = _without_copies(choice, notes)
    runs = _averaged(choice, runs, notes)
    for check in (_on_same_arms, _on_maximum, _on_lengths, _on_versions):
        notes += check(replace(choice, runs=runs))
    if choice.is_unpaired:
        notes.append(
            "Not paired: "
            + ("the runs have no seeds" if choice.said.find("seed: none") >= 0 else "the arms share no seed")
            + ", so arms are compared by Welch's test, which needs more runs than a paired test."
        )
    return replace(choice, runs=runs, notes=[*choice.notes, *notes])


def _arm(run: ScoredRun) -> str:
    return repr((run.dataset, sorted(run.arm.items(), key=str)))


def _label(run: ScoredRun) -> str:
    return ", ".join(f"{k}={v}" for k, v in run.arm.items()) or "the arm"


def _history(run: ScoredRun, choice: Choice) -> bytes:
    """The score's history to the last digit, without its steps; empty if it can't distinguish runs."""
    series = run.run.history.get(choice.score.name)
    if series is None or series.values.size < 2 or np.unique(series.values).size < 2:
        return b""
    return series.values.tobytes()


def _without_copies(choice: Choice, notes: list[str]) -> list[ScoredRun]:
    """The runs without exact copies of another run of their arm: a copy is not a second seed."""
    kept: list[ScoredRun] = []
    seen: dict[tuple[str, bytes], ScoredRun] = {}
    copies: list[tuple[ScoredRun, ScoredRun]] = []
    for run in choice.runs:
        history = _history(run, choice)
        first = seen.setdefault((_arm(run), history), run) if history else run
        if first is run:
            kept.append(run)
        else:
            copies.append((first, run))
    for first, copy in copies[:3]:
        seeds = f"seeds {first.seed} and {copy.seed}" if first.seed != copy.seed else f"two runs of seed {copy.seed}"
        notes.append(
            f"Identical to the last digit: {seeds} of {_label(copy)} ({first.run.where}; {copy.run.where}). "
            "Either the seed isn't used, or one run was read twice; the two count as one."
        )
    if len(copies) > 3:
        notes.append(f"{len(copies) - 3:,} more runs repeat another to the last digit and are not counted.")
    return kept


def _averaged(choice: Choice, runs: list[ScoredRun], notes: list[str]) -> list[ScoredRun]:
    """The runs with those of one arm and seed averaged as one: repeats of a seed are not replicates."""
    groups: dict[tuple[str, int], list[ScoredRun]] = {}
    for run in runs:
        groups.setdefault((_arm(run), run.seed), []).append(run)
    averaged, n_repeats, shown = [], 0, ""
    for own in groups.values():
        done = [r for r in own if r.status == "complete"]
        if len(done) < 2:
            averaged.append(
                done[0] if done else max(own, key=lambda r: (r.status in ("failed", "diverged"), r.run.ended))
            )
            continue
        n_repeats += len(done)
        shown = shown or f"{_label(done[0])}, seed {done[0].seed}: {done[0].run.where}; {done[1].run.where}"
        mean = float(np.mean([r.value for r in done]))
        averaged.append(replace(done[0], value=mean, run=replace(done[0].run, history=_mean_history(done))))
    if n_repeats:
        notes.append(
            f"{n_repeats:,} runs repeat an arm and a seed, such as {shown}. Repeats of a seed are not replicates: they "
            "are averaged and count as one. If another setting distinguishes them, name it with --arm."
        )
    return averaged


def _mean_history(runs: list[ScoredRun]) -> dict[str, Series]:
    """The mean of the histories at the steps that all of them have."""
    found = {}
    for name, first in runs[0].run.history.items():
        others = [h for r in runs[1:] if (h := r.run.history.get(name)) is not None]
        if len(others) == len(runs) - 1 and all(np.array_equal(h.steps, first.steps) for h in others):
            found[name] = Series(first.steps, np.mean([first.values, *(h.values for h in others)], axis=0))
    return found


def _on_same_arms(choice: Choice) -> list[str]:
    """Arms whose runs are the same to the last digit on every seed that they share: the setting is not used."""
    by_arm: dict[str, dict[int, bytes]] = {}
    labels: dict[str, str] = {}
    for run in choice.runs:
        if history := _history(run, choice):
            by_arm.setdefault(_arm(run), {})[run.seed] = history
            labels[_arm(run)] = _label(run)
    owners: dict[tuple[int, bytes], list[str]] = {}
    for arm, histories in by_arm.items():
        for key in histories.items():
            owners.setdefault(key, []).append(arm)
    pairs = dict.fromkeys((arms[0], other) for arms in owners.values() for other in arms[1:])
    alike = [(a, b) for a, b in pairs if all(by_arm[a][s] == by_arm[b][s] for s in by_arm[a].keys() & by_arm[b].keys())]
    return [
        f"{labels[a]} and {labels[b]} are identical to the last digit on every seed: the program ignores what "
        "differs between them."
        for a, b in alike[:3]
    ]


def _on_maximum(choice: Choice) -> list[str]:
    """A note if the score is the best over test epochs, by its name or by the histories; otherwise none."""
    score = choice.score
    word = "maximum" if score.higher_is_better else "minimum"
    if names.is_optimistic(score.name):
        return [
            f"Optimistic: by its name, {score.name} is the {word} over epochs. It overstates every arm, noisy "
            "arms most: judge the last epoch, or the one that validation chose."
        ]
    best: Callable[[np.ndarray], float] = np.nanmax if score.higher_is_better else np.nanmin
    found, n = 0, 0
    for r in choice.runs:
        if r.status != "complete" or score.name in r.run.history:
            continue
        for series in r.run.history.values():
            known = series.values[np.isfinite(series.values)]
            if known.size > 2 and math.isclose(float(best(known)), r.value, rel_tol=1e-9):
                n += 1
                found += not math.isclose(float(known[-1]), r.value, rel_tol=1e-9)
                break
    if found and 2 * n >= len(choice.runs):
        return [
            f"Optimistic: {score.name} is the {word} of a history in {n:,} of {len(choice.runs):,} runs, and not "
            "its last value. The test data chose the epoch, which overstates every arm, noisy arms most."
        ]
    return []


def _on_lengths(choice: Choice) -> list[str]:
    done = [r for r in choice.runs if r.status == "complete" and choice.score.name in r.run.history]
    last = {r.seed: r for r in done}
    ends = sorted({float(r.run.history[choice.score.name].steps[-1]) for r in done})
    if len(ends) < 2 or not last:
        return []
    shortest = min(done, key=lambda r: float(r.run.history[choice.score.name].steps[-1]))
    return [
        f"Runs of different length: their last step is {ends[0]:g} to {ends[-1]:g}; the shortest is "
        f"{shortest.run.where}. "
        f"Judge all at one step with --at step={ends[0]:g}, unless they stopped early on purpose."
    ]


def _on_versions(choice: Choice) -> list[str]:
    found: dict[str, set[str]] = {}
    for r in choice.runs:
        for key, value in r.run.settings.items():
            if _VERSIONS.search(key):
                found.setdefault(key, set()).add(str(value))
    mixed = {k: v for k, v in found.items() if len(v) > 1 and k not in choice.arm_keys}
    return [
        f"Mixed versions: {key} is {', '.join(sorted(values)[:3])}{' and others' if len(values) > 3 else ''}. "
        "The version, not the settings, may explain a difference."
        for key, values in mixed.items()
    ]
