"""Summaries of a loop: facts for programs, text for the terminal, and a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from html import escape
from math import floor, log10, sqrt
from pathlib import Path
from typing import Any

from reg_sweep import __version__
from reg_sweep.loop.ledger import Ledger
from reg_sweep.runs.files import replacing
from reg_sweep.stats.candidate import Candidate, LoopError
from reg_sweep.stats.loop import BASELINE, Loop, path, seeds_to_see

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 960, 300, 70, 40, 16
_CROWD = 300  # with more candidates than this, discarded ones are drawn as points without intervals
_STYLE = """
:root { --ink: #1b1f24; --muted: #6a737d; --line: #d5dae0; --paper: #fff; --keep: #0b7a4b; --naive: #c2410c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --muted: #a4adb8; --line: #343a42; --paper: #14171b; --keep: #4ad295; --naive: #fb923c }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
svg { width: 100%; min-width: 48rem; height: auto } svg text { font-size: 12px; fill: var(--muted) }
.note { color: var(--muted); max-width: 46rem } .wide { overflow-x: auto }
.wide td { white-space: nowrap } .wide td:nth-child(2), .wide td:last-child { white-space: normal; min-width: 11rem }
@media print { svg { min-width: 0 } .wide td { white-space: normal } }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
.keep td { color: var(--keep); font-weight: 600 }
"""


def facts(ledger: Ledger, gain: float | None = None) -> dict[str, Any]:
    """The facts of a loop, for programs; `gain` is in the score's unit.

    Raises:
        LoopError: a gain is given, and it is not above 0, the baseline is not measured, or its scores are all equal.
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
    """Formats facts as lines of text."""
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
    if gain is not None and loop.baseline.missing:
        n = len(loop.baseline.missing)
        raise LoopError(f"--gain needs a measured {BASELINE}, got {n} of its runs missing: run reg-sweep-loop baseline")
    if gain is not None and (noise is None or noise["sd"] == 0):
        raise LoopError(
            f"--gain needs a {BASELINE} whose scores differ, got one score on all seeds: does its command use {{seed}}?"
        )
    if noise is None or noise["sd"] == 0 or loop.baseline.missing:
        return []
    gains = [gain] if gain is not None else [k * noise["sd"] for k in (1, 2, 3)]
    return [{"gain": x, "seeds": seeds_to_see(loop, x)} for x in gains]


def write_page(ledger: Ledger, out: Path) -> None:
    """Writes the page. An older one is replaced only once this one is complete.

    Raises:
        OSError: it can't be written.
    """
    with replacing(out) as file:
        file.write(_page(ledger).encode("utf-8", "backslashreplace"))


def _page(ledger: Ledger) -> str:
    loop, name = ledger.loop, escape(ledger.score)
    tried = loop.candidates
    kept = [c for c in tried if c.verdict == "keep"]
    shown = [c for c in tried if len(c.differences) >= 2]
    rules = loop.rules
    promise = (
        "of the kept changes are false, on average"
        if rules.control == "fdr"
        else "chance that any kept change is false"
    )
    better = "higher" if rules.higher_is_better else "lower"
    parts = [
        f"<h1>{len(tried):,} {_plural(len(tried), 'change')} tried, {len(kept):,} kept</h1>",
        f"<p>{_gained(loop, name)} At most {rules.error:.0%} {promise}. This covers the noise of seeds, not of the"
        " data.</p>",
        "<h2>Candidates in order</h2>",
        _candidates(loop, shown, name) if shown else "<p>No candidate has two seeds yet.</p>",
        "<p class=note>Improvement over the baseline at the time, with a 95% interval that ignores other candidates."
        " Green: kept. A keep needs a much smaller error than 5%, so an interval above 0 is not enough. Kept changes"
        " were partly lucky (selection bias), so rely on the gain on the held-out seeds below.</p>",
        f"<h2>The baseline's path ({better} is better)</h2>",
        _way(loop, name),
        "<p class=note>Solid: each baseline's mean on the held-out seeds, which no decision uses. Dashed: the best"
        " single score so far, which a loop without a judge would claim; it improves even by luck alone.</p>",
        "<h2>Runs</h2>",
        _runs(loop),
        f"<h2>All candidates</h2><div class=wide tabindex=0 role=region aria-label=Candidates>{_table(loop)}</div>"
        if tried
        else "",
        f"<p class=note>{escape(ledger.path.name)}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, reg_sweep {__version__}",
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{len(kept):,} of {len(tried):,} kept</title><style>{_STYLE}</style><body>{''.join(parts)}\n"
    )


def _gained(loop: Loop, name: str) -> str:
    last = path(loop)[-1]
    if last.gain is None or last.ci_low is None or last.ci_high is None:
        score = "not measured" if last.score is None else f"{last.score:.5g}"
        return f"The baseline's {name} on the held-out seeds: {score}."
    interval = f"{last.ci_low:+.3g} to {last.ci_high:+.3g}"
    return f"{name} has changed by {last.gain:+.3g} (95% interval {interval}) on {last.n} held-out seeds."


# ---- figures


@dataclass(frozen=True)
class _Axes:
    """Maps data to pixels of a figure: x from 0.5 to n + 0.5, y from low to high."""

    n: int
    low: float
    high: float

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 10) * (value - 0.5) / max(self.n, 1)

    def y(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (self.high - inside) / (self.high - self.low)

    def frame(self, x_label: str, y_label: str) -> str:
        """The grid, ticks and labels, as SVG."""
        parts = []
        for tick in _ticks(self.low, self.high):
            y = self.y(tick)
            parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
        for tick in _ticks(1, self.n) if self.n > 1 else [1]:
            if tick == round(tick) and tick >= 1:
                place = f'x="{self.x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}"'
                parts.append(f'<text {place} text-anchor="middle">{tick:.0f}</text>')
        parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{x_label}</text>')
        middle = (_HEIGHT - _BOTTOM) / 2
        parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{y_label}</text>')
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** floor(log10((high - low) / 4))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= 6)
    first = floor(low / step)
    return [k * step for k in range(first, first + 9) if low <= k * step <= high]


def _range(values: Sequence[float], *also: float, cut_off: float = 0.0) -> tuple[float, float]:
    """The range of the values with a margin, without the share `cut_off` at either end; it always includes `also`."""
    ordered = sorted(values)
    cut = int(len(ordered) * cut_off)
    inner = [*ordered[cut : len(ordered) - cut], *also]
    low, high = min(inner), max(inner)
    room = 0.08 * (high - low) or max(abs(high), 1e-9)
    return low - room, high + room


def _figure(alt: str, body: str) -> str:
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{alt}">{body}</svg>'
    return f'<div class=wide tabindex=0 role=region aria-label="Figure">{svg}</div>'


def _candidates(loop: Loop, shown: list[Candidate], name: str) -> str:
    intervals = {c.test: _improvement(loop, c) for c in shown}
    ends = [end for interval in intervals.values() for end in interval]
    means = (c.mean for c in shown if c.verdict == "keep")
    axes = _Axes(max(c.test for c in shown), *_range(ends, 0.0, *means, cut_off=0.1))
    parts = [axes.frame("candidate", f"improvement in {name}")]
    zero = axes.y(0)
    parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="var(--ink)"/>')
    for c in shown:
        (low, high), x = intervals[c.test], axes.x(c.test)
        is_kept, is_crowd = c.verdict == "keep", len(shown) > _CROWD
        colour, radius = ("var(--keep)", 4.5) if is_kept else ("var(--muted)", 1.5 if is_crowd else 2.5)
        title = f"<title>{escape(c.change)}: {c.verdict}, {escape(c.reason)}</title>"
        ends_at = f'y1="{axes.y(low):.1f}" y2="{axes.y(high):.1f}"'
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" {ends_at} stroke="{colour}"/>' if is_kept or not is_crowd else ""
        dot = f'<circle cx="{x:.1f}" cy="{axes.y(c.mean):.1f}" r="{radius}" fill="{colour}"/>'
        parts.append(f"<g>{title}{line}{dot}</g>")
    return _figure("Each candidate's improvement over its baseline, with intervals", "".join(parts))


def _improvement(loop: Loop, c: Candidate) -> tuple[float, float]:
    """The interval of a candidate with at least two seeds; above 0 is better."""
    low, high = loop.answer(c).interval or (c.mean, c.mean)
    return (low, high) if loop.rules.higher_is_better else (-high, -low)


def _way(loop: Loop, name: str) -> str:
    begins = [0, *(c.test for c in loop.candidates if c.verdict == "keep")]
    steps = [(at, s.score) for at, s in zip(begins, path(loop), strict=True) if s.score is not None]
    first = [next(iter(c.scores.values())) for c in loop.candidates if c.scores]
    best = _running_best(loop)
    if not steps or not first:
        return "<p>Nothing has been tried yet.</p>"
    n = len(loop.candidates)
    axes = _Axes(n, *_range([*(y for _, y in steps), *(y for _, y in best)]))
    parts = [axes.frame("candidate", name)]
    parts.append(_stairs(axes, [(float(x), y) for x, y in best], n, 'stroke="var(--naive)" stroke-dasharray="5 3"'))
    parts.append(_stairs(axes, [(float(x), y) for x, y in steps], n, 'stroke="var(--keep)" stroke-width="2.5"'))
    for x, y in steps:
        parts.append(f'<circle cx="{axes.x(max(x, 0.5)):.1f}" cy="{axes.y(y):.1f}" r="4" fill="var(--keep)"/>')
    end = _WIDTH - 14
    above = best[-1][1] > steps[-1][1]
    for label, y, colour, up in (
        ("claimed by the best score", best[-1][1], "naive", above),
        ("on held-out seeds", steps[-1][1], "keep", not above),
    ):
        place = f'x="{end}" y="{axes.y(y) + (-7 if up else 16):.1f}" text-anchor="end"'
        parts.append(f'<text {place} style="fill:var(--{colour})">{label}: {y:.5g}</text>')
    return _figure("The baseline's score on held-out seeds, and the running best single score", "".join(parts))


def _running_best(loop: Loop) -> list[tuple[int, float]]:
    """The best first score so far, starting with the first baseline's: (candidate, score) whenever it improves."""
    sign = 1 if loop.rules.higher_is_better else -1
    best = [(0, score) for score in list(loop.baselines.all[0].scores.values())[:1]]
    for c in loop.candidates:
        score = next(iter(c.scores.values()), None)
        if score is not None and (not best or sign * (score - best[-1][1]) > 0):
            best.append((c.test, score))
    return best


def _stairs(axes: _Axes, points: list[tuple[float, float]], n: int, style: str) -> str:
    places = []
    for (x, y), after in zip(points, [*(x for x, _ in points[1:]), n + 0.5], strict=True):
        places += [f"{axes.x(max(x, 0.5)):.1f},{axes.y(y):.1f}", f"{axes.x(after):.1f},{axes.y(y):.1f}"]
    return f'<polyline points="{" ".join(places)}" fill="none" {style}/>'


# ---- tables


def _runs(loop: Loop) -> str:
    n = sum(len(c.scores) for c in loop.candidates)
    of_baselines, all_seeds = (
        sum(len(b.scores) for b in loop.baselines.all),
        loop.rules.max_seeds * len(loop.candidates),
    )
    saved = f" ({1 - n / all_seeds:.0%} of them saved)" if all_seeds > n else ""
    rows = {
        "of candidates": f"{n:,}",
        "all seeds for every candidate": f"{all_seeds:,}{saved}",
        f"of baselines, {len(loop.baselines.all):,} in all": f"{of_baselines:,}",
    }
    return "<table>" + "".join(f"<tr><th>{what}<td>{number}" for what, number in rows.items()) + "</table>"


def _table(loop: Loop) -> str:
    rows = []
    for c in loop.candidates:
        a = loop.answer(c)
        mean = "" if a.mean is None else f"{a.mean:+.3g}"
        interval = "" if a.interval is None else f"{a.interval[0]:+.3g} to {a.interval[1]:+.3g}"
        cells = (str(c.test), escape(c.change), c.verdict, str(len(c.scores)), mean, interval, escape(a.reason))
        rows.append(f'<tr class="{c.verdict}">' + "".join(f"<td>{cell}" for cell in cells))
    gain = "above 0 is better" if loop.rules.higher_is_better else "below 0 is better"
    heads = "".join(
        f"<th>{h}" for h in ("", "change", "answer", "seeds", f"difference ({gain})", "95% interval", "why")
    )
    return f"<table><tr>{heads}{''.join(rows)}</table>"


def _plural(n: int, word: str) -> str:
    return word if n == 1 else f"{word}s"
