"""The forest plot: every arm's difference from the baseline, with its interval, its seeds and the margin."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.insights import Effect, Effects, effects
from reg_sweep.comparison.sentences import heading, is_known, level, points, signed, words
from reg_sweep.comparison.sentences import margin as margin_text
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.figures.differences import NARROWEST, ForestArm, ForestPanel, forest
from reg_sweep.report.figures.theme import Picture
from reg_sweep.report.scale import Scale, scale
from reg_sweep.runs.record import Metric
from reg_sweep.stats.verdict import Mark

TICK_WIDTH = 3.3  # of a character of a tick's label, in % of the axis
N_ROWS = 20  # up to so many arms are all drawn
N_NEAREST = 10  # of more arms, drawn in addition to all that differ
N_MOST = 80


@dataclass(frozen=True)
class ForestCell:
    """One arm in one outcome: text, and places in percent of the axis.

    `ends` are the interval's, None without one; `dots` the seeds'.
    """

    estimate: str
    interval: str
    mark: Mark
    place: float
    ends: tuple[float, float] | None
    dots: list[float]
    alt: str


@dataclass(frozen=True)
class ForestRow:
    """One arm: its key on the page, its colour's place, its verdict, and a cell for each outcome (None: not known)."""

    label: str
    key: int | None
    slot: int | None
    verdict: str
    cells: list[ForestCell | None]


@dataclass(frozen=True)
class ForestAxis:
    """One outcome's column: what it is, its ticks as places and numbers, and the margin's ends, None without one.

    `on_paper` are the ticks that have room where the axis is half as wide.
    """

    title: str
    note: str
    zero: float
    ticks: list[tuple[float, str]]
    on_paper: list[tuple[float, str]]
    margin: tuple[float, float] | None
    right_is_better: bool


@dataclass(frozen=True)
class ForestSection:
    """The plot's columns and rows, best first; `picture` is the same as files."""

    axes: list[ForestAxis]
    rows: list[ForestRow]
    marks: list[tuple[Mark, str]]
    chosen: str
    caption: str
    picture: Picture


def forest_section(comparison: Comparison, canvas: Canvas) -> ForestSection | None:
    """The forest of a comparison, None where no arm can be paired with the baseline.

    With more than `N_ROWS` arms it shows those that differ and, of the rest, those nearest to a verdict; best first.
    """
    found = effects(comparison)
    if not found or not found[0].is_judged or comparison.baseline is None:
        return None
    judged = found[0]
    sign = 1 if judged.metric.higher_is_better else -1
    leader = next((arm for arm in comparison.ranked if arm is not comparison.baseline), None)
    drawn_arms, chosen = _drawn(judged.of_arms, leader)
    of_arms = sorted(drawn_arms, key=lambda e: -sign * e.estimate)
    shown = [[_effect_of(of_metric, e) for e in of_arms] for of_metric in found]
    scales = [_scale(of_metric, own) for of_metric, own in zip(found, shown, strict=True)]
    rows = [
        ForestRow(
            label=e.arm.label,
            key=canvas.key(e.arm),
            slot=canvas.slot(e.arm),
            verdict=e.arm.verdict or "",
            cells=[_cell(o.metric, own[i], s) for o, own, s in zip(found, shown, scales, strict=True)],
        )
        for i, e in enumerate(of_arms)
    ]
    axes = [_axis(of_metric, s) for of_metric, s in zip(found, scales, strict=True)]
    marks = legend((e.mark, _said(e)) for own in shown for e in own if e)
    caption = _caption(comparison, found, axes[0].margin)
    draw = partial(
        forest,
        f"Difference from the baseline, {comparison.baseline.label}",
        [_panel(o, own, s, a) for o, own, s, a in zip(found, shown, scales, axes, strict=True)],
        [row.label for row in rows],
        marks,
    )
    alt = "Difference from the baseline. " + " ".join(f"{r.label}: {r.cells[0].alt}" for r in rows if r.cells[0])
    picture = canvas.file_picture("differences", draw, alt)
    return ForestSection(axes, rows, marks, chosen, caption, picture)


def legend(drawn: Iterable[tuple[Mark, str]]) -> list[tuple[Mark, str]]:
    """Each mark that is drawn and its words, in the order of `Mark`: several verdicts may share a mark."""
    words_of: dict[Mark, dict[str, None]] = {}
    for mark, said in drawn:
        words_of.setdefault(mark, {})[said] = None
    return [(mark, " or ".join(words_of[mark])) for mark in get_args(Mark) if mark in words_of]


def _drawn(found: Sequence[Effect], leader: Arm | None) -> tuple[list[Effect], str]:
    """The arms that are drawn, and how they were chosen, in words; empty where all are.

    The headline names the `leader`, so it is always among them.
    """
    if len(found) <= N_ROWS:
        return list(found), ""
    differing = sorted(filter(_differs, found), key=lambda e: -abs(e.estimate))
    shown = differing[: N_MOST - N_NEAREST]
    rest = sorted((e for e in found if not _differs(e)), key=lambda e: (e.arm is not leader, _p(e)))
    nearest = rest[: max(N_ROWS - len(shown), N_NEAREST)]
    n = len(shown)
    which = f"the {n} arms that differ" if n == len(differing) else f"the {n} of {len(differing):,} that differ most"
    near = f"the {len(nearest)} nearest to a verdict"
    if nearest and nearest[0].arm is leader:
        near = f"the leading one and the {len(nearest) - 1} nearest to a verdict"
    near = f"of the other {len(rest):,}, {near}" if shown else f"of {len(rest):,} arms, {near}"
    parts = [*([which] if shown else []), *([near] if nearest else [])]
    return [*shown, *nearest], f"Shown: {' and '.join(parts)}; the table below has all {len(found):,}."


def _differs(effect: Effect) -> bool:
    return effect.arm.verdict is not None and effect.arm.verdict.shows_difference


def _p(effect: Effect) -> float:
    """The p of what was asked of an arm, its difference or its non-inferiority; the largest where there is none."""
    contrast = effect.arm.contrast
    if contrast is None:
        return math.inf
    p = contrast.difference.p if contrast.question == "better" else contrast.evidence.p
    return p if is_known(p) else math.inf


def _effect_of(of_metric: Effects, effect: Effect) -> Effect | None:
    return next((e for e in of_metric.of_arms if e.arm is effect.arm and is_known(e.estimate)), None)


def _scale(of_metric: Effects, effects: list[Effect | None]) -> Scale:
    known = [e for e in effects if e is not None]
    values = [v for e in known for v in (e.estimate, e.low, e.high, *(d for _, d in e.seeds))]
    ends = () if of_metric.margin is None else (-of_metric.margin, of_metric.margin)
    return scale([*values, *ends], 0.0)


def _cell(metric: Metric, effect: Effect | None, axis: Scale) -> ForestCell | None:
    if effect is None:
        return None
    has_interval = is_known(effect.low)
    interval = f"{signed(metric, effect.low)} to {signed(metric, effect.high)}" if has_interval else ""
    without = "no spread over seeds" if effect.is_tied else "no interval"
    over = " over test images" if effect.by_image else ""
    seeds = ", ".join(f"seed {seed} {signed(metric, d)}" for seed, d in effect.seeds)
    said = f"{signed(metric, effect.estimate)}, {_said(effect)}"
    return ForestCell(
        estimate=signed(metric, effect.estimate),
        interval=interval or (without if effect.is_tied else ""),
        mark=effect.mark,
        place=axis.place(effect.estimate),
        ends=(axis.place(effect.low), axis.place(effect.high)) if has_interval else None,
        dots=[axis.place(d) for _, d in effect.seeds],
        alt=f"{said}; {f'{effect.level} interval{over} {interval}' if interval else without}; {seeds}.",
    )


def _said(effect: Effect) -> str:
    """A mark in words: the verdict's, where the verdict rests on the effect."""
    verdict = effect.arm.verdict
    return "a mean, not tested" if verdict is None or effect.mark != verdict.mark else verdict


def _axis(of_metric: Effects, axis: Scale) -> ForestAxis:
    metric = of_metric.metric
    factor = 100 if metric.unit == "share" else 1
    unit = f",{points(metric)}" if points(metric) else ""
    ticks = [(axis.place(t), f"{factor * t:+.4g}".replace("-", "−") if t else "0") for t in axis.ticks()]
    m = of_metric.margin
    return ForestAxis(
        title=f"{heading(metric)}{unit}",
        note="stretched around 0" if axis.is_stretched else "",
        zero=axis.place(0.0),
        ticks=_apart(ticks, axis.place(0.0), TICK_WIDTH),
        on_paper=_apart(ticks, axis.place(0.0), 2.2 * TICK_WIDTH),
        margin=None if m is None else (axis.place(-m), axis.place(m)),
        right_is_better=metric.higher_is_better,
    )


def _apart(ticks: list[tuple[float, str]], zero: float, width: float) -> list[tuple[float, str]]:
    """The ticks whose labels, `width` a character, don't overlap: zero, then those farthest from it."""
    kept: list[tuple[float, str]] = []
    for place, text in sorted(ticks, key=lambda t: (t[1] != "0", -abs(t[0] - zero))):
        if all(abs(place - at) >= width * (len(text) + len(other) + 1) / 2 for at, other in kept):
            kept.append((place, text))
    return sorted(kept)


def _caption(comparison: Comparison, found: list[Effects], shade: tuple[float, float] | None) -> str:
    """The caption: what is drawn, what the error is split over, and how to read the second outcome."""
    judged, of_level = words(found[0].metric), _levels(found[0]) or level(comparison)
    if any(e.by_image for e in found[0].of_arms):
        drawn = f"Line: the difference's {of_level} interval over test images, of two trained models."
    elif comparison.n_seeds > 1:
        of = "arms and looks" if comparison.n_looks > 1 else "arms"
        dots = "Dots: seeds. " if any(e.seeds for e in found[0].of_arms) else ""
        drawn = f"{dots}Line: the simultaneous {of_level} interval of all {of} together."
    else:
        drawn = "One seed has no interval."
    shaded = ""
    if shade is not None:
        is_seen = shade[1] - shade[0] >= NARROWEST
        of = f"the equivalence margin, {margin_text(comparison)}"
        shaded = f" Shaded: {of}." if is_seen else f" Too narrow to be seen here: {of}."
    beside = ""
    if len(found) > 1:
        other = words(found[1].metric)
        beside = f" {other.capitalize()} is shown for reference only: the verdict is by {judged} alone"
        if comparison.design is not None:
            beside += f". The study's interim analyses tested only {judged}, so {other} has no interval."
        elif any(is_known(e.low) for e in found[1].of_arms):
            own = "" if _levels(found[1]) == of_level else f"{_levels(found[1])} "
            beside += f", and these {own}intervals are exploratory."
        else:
            beside += "."
    return f"{drawn}{shaded}{beside}"


def _levels(of_metric: Effects) -> str:
    """'95%', or '92% or 94%': the levels of the intervals that are drawn; empty where there are none."""
    return " or ".join(sorted({e.level for e in of_metric.of_arms if is_known(e.low)}))


def _panel(of_metric: Effects, effects: list[Effect | None], axis: Scale, shown: ForestAxis) -> ForestPanel:
    arms = [
        None
        if e is None
        else ForestArm(
            axis.place(e.estimate),
            (axis.place(e.low), axis.place(e.high)) if is_known(e.low) else None,
            [axis.place(d) for _, d in e.seeds],
            e.mark,
        )
        for e in effects
    ]
    title = f"{shown.title}{f' ({shown.note})' if shown.note else ''}"
    return ForestPanel(title, arms, shown.ticks, shown.zero, shown.margin, of_metric.metric.higher_is_better)
