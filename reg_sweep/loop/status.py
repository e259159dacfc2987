"""A loop in numbers: kept changes, cost, noise, and the level of the next candidate."""

from difflib import get_close_matches
from math import sqrt
from typing import Any

from reg_sweep.loop.ledger import Ledger
from reg_sweep.stats.candidate import LoopError
from reg_sweep.stats.loop import BASELINE, Loop, path, seeds_to_see


def facts(ledger: Ledger, gain: float | None = None) -> dict[str, Any]:
    """The facts of a loop, for programs; `gain` is in the score's unit.

    Raises:
        LoopError: the gain is not above 0, or the baseline is not measured and its noise unknown.
    """
    loop = ledger.loop
    rules, baseline = loop.rules, loop.baseline
    runs = sum(len(c.scores) for c in loop.candidates)
    return {
        "score": ledger.score,
        "better": "higher" if rules.higher_is_better else "lower",
        "error": rules.error,
        "control": rules.control,
        "margin": rules.margin,
        "max_seeds": rules.max_seeds,
        "tried": len(loop.candidates),
        "kept": [c.change for c in loop.candidates if c.verdict == "keep"],
        "discarded": sum(c.verdict == "discard" for c in loop.candidates),
        "undecided": [
            {"change": c.change, "next_seed": c.seeds[len(c.scores)]} for c in loop.candidates if c.verdict == "run"
        ],
        "baseline": {"change": baseline.change, "runs": len(baseline.scores), "missing_seeds": baseline.missing},
        "level_of_next": loop.next_level,
        "noise": _noise(loop),
        "runs": {
            "candidates": runs,
            "baselines": sum(len(b.scores) for b in loop.baselines.all),
            "with_all_seeds": rules.max_seeds * len(loop.candidates),
        },
        "path": [vars(step) for step in path(loop)],
        "to_see": _to_see(loop, gain),
        "torn_lines": ledger.torn,
    }


def one_change(ledger: Ledger, change: str) -> dict[str, Any]:
    """The facts of one change, for each time it was tried.

    Raises:
        LoopError: no such change was tried.
    """
    found = [c for c in ledger.loop.candidates if c.change == change]
    if not found:
        near = get_close_matches(change, [c.change for c in ledger.loop.candidates], 1)
        hint = f"did you mean {near[0]!r}?" if near else "see reg-sweep-loop status"
        raise LoopError(f"--change must be one that was tried, got {change!r}: {hint}")
    tries = []
    for c in found:
        answer = ledger.loop.answer(c)
        about = {"digest": c.digest, "question": c.question, "scores": c.scores, "interval": answer.interval}
        tries.append(about | vars(answer))
    return {"change": change, "tries": tries}


def text_of(found: dict[str, Any]) -> str:
    """Facts as lines for a person."""
    if "tries" in found:
        return "\n".join(_one_try(t) for t in found["tries"])
    runs, baseline, noise = found["runs"], found["baseline"], found["noise"]
    promise = "of the kept changes are false, on average" if found["control"] == "fdr" else "chance of any false keep"
    lines = [
        f"score      {found['score']}, {found['better']} is better; at most {found['error']:.0%} {promise}",
        f"tried      {found['tried']:,}: {len(found['kept'])} kept, {found['discarded']:,} discarded",
        *(f"undecided  {c['change']}: seed {c['next_seed']} is next" for c in found["undecided"]),
        *(f"kept       {change}" for change in found["kept"]),
        f"baseline   {baseline['change']}, {baseline['runs']} runs"
        + (f", {len(baseline['missing_seeds'])} missing" if baseline["missing_seeds"] else ""),
        f"runs       {runs['candidates']:,} of candidates (all seeds for all: {runs['with_all_seeds']:,}),"
        f" {runs['baselines']:,} of baselines",
        f"level      {found['level_of_next']:.2g} for the next candidate",
    ]
    last = found["path"][-1]
    if last["gain"] is not None:
        interval = f"{last['ci_low']:+.4g} to {last['ci_high']:+.4g}"
        lines.append(f"gained     {last['gain']:+.4g} ({interval}) on {last['n']} held-out seeds")
    if noise is not None:
        lines.append(f"noise      sd {noise['sd']:.4g} of a paired difference")
    for x in found["to_see"]:
        cost = f"{x['seeds']} seeds" if x["seeds"] is not None else f"more than {found['max_seeds']} seeds"
        lines.append(f"to see     a gain of {x['gain']:.4g}: {cost} (with 80% chance)")
    if found["torn_lines"]:
        lines.append(f"torn       lines {', '.join(map(str, found['torn_lines']))}: left by a killed program, ignored")
    return "\n".join(lines)


def _one_try(t: dict[str, Any]) -> str:
    scores = ", ".join(f"{score:.6g} on seed {seed}" for seed, score in t["scores"].items())
    return f"{t['verdict']} {t['change']}: {t['reason']}; {scores or 'no score'}"


def _noise(loop: Loop) -> dict[str, float] | None:
    noise = loop.baselines.noise
    if noise is None:
        return None
    variance, df = noise.prior
    return {"sd": sqrt(variance), "df": df}


def _to_see(loop: Loop, gain: float | None) -> list[dict[str, Any]]:
    """The number of seeds for a gain; by default for gains of one, two and three standard deviations."""
    noise = _noise(loop)
    if gain is not None and not gain > 0:
        raise LoopError(f"--gain must be above 0, got {gain}")
    if noise is None or noise["sd"] == 0 or loop.baseline.missing:
        if gain is not None:
            raise LoopError(f"--gain needs a measured {BASELINE}: {len(loop.baseline.missing)} runs are missing")
        return []
    gains = [gain] if gain is not None else [k * noise["sd"] for k in (1, 2, 3)]
    return [{"gain": x, "seeds": seeds_to_see(loop, x)} for x in gains]
