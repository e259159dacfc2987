"""The pictures of one study's trials, with their captions and their words."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from reg_sweep.comparison.results import Result
from reg_sweep.comparison.sentences import count
from reg_sweep.report.figures import studies as figures
from reg_sweep.report.figures.axes import Array, near_best
from reg_sweep.report.figures.studies import TrialPoint, is_choice, is_number
from reg_sweep.report.figures.theme import MARKERS, Draw, Picture
from reg_sweep.runs.ranking import is_share, parameter_text
from reg_sweep.runs.study import Study
from reg_sweep.stats.surface import quadratic_surface

N_PARAMETERS = 8  # of a study, drawn
LAMBDAS = ("l1", "l2")
CARRIED = 0.5  # the share of the spread at left-out points that a drawn surface predicts


@dataclass(frozen=True)
class Objective:
    """An objective of a study. Shares are shown in %."""

    name: str
    is_share: bool
    at_best_val: bool = False

    @property
    def words(self) -> str:
        """'val loss', or 'val accuracy at the best epoch on val'."""
        return self.name.replace("multiply_adds", "multiply-adds").replace("_", " ") + (
            " at the best epoch on val" if self.at_best_val else ""
        )

    @property
    def unit(self) -> str:
        """'val accuracy, %', for a heading or an axis."""
        return f"{self.words}, %" if self.is_share else self.words

    def text(self, value: float) -> str:
        """A value without its unit."""
        if not math.isfinite(value):
            return "not finite"
        if abs(value) >= 1e4 and value == int(value):  # a count, such as multiply-adds
            return f"{value:,.0f}"
        return f"{100 * value:.2f}" if self.is_share else f"{value:#.4g}"

    def texts(self, values: Sequence[float]) -> list[str]:
        """Values as texts, with up to four more digits where they are needed to distinguish different values."""
        texts = [self.text(v) for v in values]
        n_apart = len({v for v in values if math.isfinite(v)})
        for more in range(1, 5):
            if len({t for t, v in zip(texts, values, strict=True) if math.isfinite(v)}) == n_apart:
                break
            form = f".{2 + more}f" if self.is_share else f"#.{4 + more}g"
            texts = [f"{100 * v if self.is_share else v:{form}}" if math.isfinite(v) else self.text(v) for v in values]
        return texts


def objective(name: str, *, at_best_val: bool = False) -> Objective:
    """An objective by its name: a metric, `zero_share`, or another number that a user's own app returns."""
    return Objective(name, is_share(name), at_best_val)


@dataclass(frozen=True)
class _Drawn:
    """A study to be drawn, with its number on the page."""

    number: int
    study: Study
    objectives: list[Objective]
    points: list[TrialPoint]

    def picture(self, name: str, draw: Draw, alt: str, caption: str = "", *, wide: bool = False) -> Picture:
        return Picture(f"trials-{self.number}-{name}", alt, draw, f"t{self.number}{name}", caption, wide)

    @property
    def best(self) -> int | None:
        """The number of the best trial, where there is one."""
        ranked = self.study.ranked
        return ranked[0].number if ranked else None


def pictures(
    number: int, study: Study, objectives: list[Objective], runs: Mapping[int, Result], text: str
) -> Iterator[Picture]:
    """A study's history, both lambdas and each parameter, or its Pareto front; `text` describes its trials."""
    drawn = _Drawn(number, study, objectives, _points(study))
    if not drawn.points:
        return
    if len(study.directions) > 1:
        if study.ranked:
            yield _front(drawn)
        return
    yield _history(drawn, epochs_of(study, runs), text)
    names = [name for name in study.parameters if name not in study.replicates]
    on_plane = [p for p in drawn.points if all(_is_lambda(p.params.get(key)) for key in LAMBDAS)]
    if study.kind == "search" and set(LAMBDAS) <= set(names) and _spreads(on_plane):
        yield _plane(drawn, on_plane, names)
    for name, in_file in _in_files(names[:N_PARAMETERS]).items():
        having = [p for p in drawn.points if name in p.params]
        if len({repr(p.params[name]) for p in having}) > 1:
            yield _parameter(drawn, name, in_file, having)


def epochs_of(study: Study, runs: Mapping[int, Result]) -> dict[int, tuple[int, int]]:
    """The epochs that each ended trial took, and would have taken had it not been pruned, where its run is known."""
    ended = {t.number: t.state for t in study.trials if t.state in ("complete", "pruned", "failed")}
    return {
        n: (len(r.curves), int(r.config["epochs"]) if ended[n] == "pruned" else len(r.curves))
        for n, r in sorted(runs.items())
        if n in ended
    }


def _in_files(parameters: list[str]) -> dict[str, str]:
    """A short, unique name for each parameter in its picture's file name."""
    short = {name: re.sub(r"\W+", "-", name)[:40] for name in parameters}
    taken = Counter(["history", "l1-l2", *short.values()])
    return {name: f"{s}-{n}" if taken[s] > 1 or len(s) == 40 else s for n, (name, s) in enumerate(short.items(), 1)}


def _points(study: Study) -> list[TrialPoint]:
    """The trials that can be drawn: complete ones, and pruned ones at what they reported last."""
    points = []
    for t in study.trials:
        values = t.values if t.state == "complete" else (t.last,) if t.state == "pruned" else ()
        if values and all(map(math.isfinite, values)):
            points.append(TrialPoint(t.number, t.params, values, t.state == "pruned"))
    return points


# ---- one objective


def _history(drawn: _Drawn, epochs: dict[int, tuple[int, int]], text: str) -> Picture:
    """By trial; and by epochs spent, where trials took different numbers of them."""
    study, (searched,) = drawn.study, drawn.objectives
    title = f"{study.name}: trial by trial"
    is_uneven = len(set(epochs.values())) > 1
    draw = partial(
        figures.history,
        title,
        searched.unit,
        drawn.points,
        [t.number for t in study.trials if t.state == "failed"],
        epochs if is_uneven else None,
        minimize=study.directions == ["minimize"],
        is_accuracy=searched.is_share,
    )
    caption = ""
    if is_uneven:
        caption = "Left: by trial. Right: by the epochs spent on it and on all before it."
        n_unknown = sum(p.number not in epochs for p in drawn.points)
        if n_unknown:
            caption += f" {count(n_unknown, 'trial')} whose run was not read: on the left only."
    return drawn.picture("history", draw, f"{title}. {text} {caption}".rstrip(), caption, wide=is_uneven)


def _parameter(drawn: _Drawn, name: str, in_file: str, having: list[TrialPoint]) -> Picture:
    """The objective against one parameter of the trials that have it; the best of all ringed if it is one of them."""
    (searched,) = drawn.objectives
    title = f"{drawn.study.name}: {name}"
    best = next((p for p in having if p.number == drawn.best), None)
    ringed = None if best is None else best.number
    draw = partial(figures.parameter, title, name, searched.unit, having, ringed, is_accuracy=searched.is_share)
    alt = f"{title}. {searched.unit} against {name} of {len(having)} trials"
    if best is not None:
        alt += f"; the best has {name} {parameter_text(best.params[name])}"
    return drawn.picture(in_file, draw, f"{alt}.", _ring_text(best))


def _ring_text(best: TrialPoint | None) -> str:
    return "" if best is None else f"Ring: the best, trial {best.number}."


def _is_lambda(value: Any) -> bool:
    return is_number(value) and value >= 0


def _spreads(points: list[TrialPoint]) -> bool:
    """Whether points lie at several places along both lambdas, and some of them are complete."""
    several = all(len({p.params[key] for p in points}) > 1 for key in LAMBDAS)
    return several and not all(p.is_pruned for p in points)


def _plane(drawn: _Drawn, points: list[TrialPoint], names: list[str]) -> Picture:
    """The objective over l1 and l2 for trials that do not form a grid."""
    study, (searched,) = drawn.study, drawn.objectives
    minimize = study.directions == ["minimize"]
    title = f"{study.name}: l1 and l2"
    shape = _shape(points, names)
    complete = [p for p in points if not p.is_pruned]
    limits = near_best(np.array([p.values[0] for p in complete]), higher_is_better=not minimize)
    best = next((p for p in points if p.number == drawn.best), None)
    surface, carried = _surface(complete, shape, best, limits)
    draw = partial(
        figures.lambda_plane,
        title,
        searched.unit,
        points,
        shape,
        None if best is None else best.number,
        limits,
        surface,
        minimize=minimize,
        is_accuracy=searched.is_share,
    )
    caption = f"Darker is better{'' if shape is None else f'; the shape is the {shape}'}. "
    caption += f"{_ring_text(best)} ".lstrip()
    far = sum(figures.beyond([p.values[0]], limits) != "neither" for p in complete)
    if far:
        end = searched.text(limits[1] if minimize else limits[0])
        caption += f"Colours end at {end}, for {count(far, 'trial')} that did worse. "
    where = (
        f"{title}. {searched.unit} of {count(len(complete), 'complete trial')}, {len(points) - len(complete)} pruned"
    )
    if best is not None:
        at = ", ".join(f"{k} {parameter_text(best.params[k])}" for k in (*LAMBDAS, *([shape] if shape else [])))
        where += f"; the best, {searched.text(best.values[0])}, at {at}"
    return drawn.picture("l1-l2", draw, f"{where}. {caption}{carried}", caption + carried)


def _shape(points: list[TrialPoint], names: list[str]) -> str | None:
    """The choice shown by the shape of marks: the norm, else the most important parameter with few values."""
    choices = [n for n in ("norm", *names) if n in names and n not in LAMBDAS and all(n in p.params for p in points)]
    given = {n: [p.params[n] for p in points] for n in choices}
    return next((n for n, its in given.items() if is_choice(its) and 1 < len(set(its)) <= len(MARKERS)), None)


def _surface(
    complete: list[TrialPoint], shape: str | None, best: TrialPoint | None, limits: tuple[float, float]
) -> tuple[Callable[[Array, Array], Array] | None, str]:
    """The objective as a surface over both lambdas at the best's choice, if the trials support one; and a caption."""
    held = [p for p in complete if all(p.params[key] > 0 for key in LAMBDAS)]
    groups = [None if shape is None else p.params[shape] for p in held]
    x, y = (np.log10([p.params[key] for p in held]) for key in LAMBDAS)
    found = quadratic_surface(x, y, np.clip([p.values[0] for p in held], *limits), groups)
    group = None if shape is None or best is None else best.params[shape]
    if found is None or group not in found.levels:
        return None, "No surface is drawn: too few complete trials."
    if found.explained < CARRIED:
        share = f"{max(found.explained, 0):.0%}"
        return None, f"No surface is drawn: a quadratic explains only {share} of the spread at left-out trials."
    whose = "" if shape is None else f" for {shape} {group}"
    share = f"{found.explained:.0%} of the spread at left-out trials"
    return lambda u, v: found.at(u, v, group), f"Contours: a quadratic{whose}, which explains {share}."


# ---- several objectives


def _front(drawn: _Drawn) -> Picture:
    objectives, ranked = drawn.objectives, drawn.study.ranked_points
    title = f"{drawn.study.name}: the Pareto front"
    on_front = {n for point in ranked for n in point.numbers}
    means = [TrialPoint(point.numbers[0], point.params, point.values, False) for point in ranked]
    points = [p for p in drawn.points if len(p.values) == len(objectives) and p.number not in on_front]
    minimize = [d == "minimize" for d in drawn.study.directions]
    units = [o.unit for o in objectives]
    draw = partial(figures.pareto_front, title, units, [*points, *means], [p.number for p in means], minimize)
    better = " and ".join(
        f"{o.words} {'falls' if low else 'rises'}" for o, low in zip(objectives, minimize, strict=True)
    )
    caption = f"Better is where {better}."
    if len(objectives) > 2:
        caption += f" Shown: the first two of {len(objectives)} objectives; the front is over all of them."
    for k, o in enumerate(objectives[:2]):
        n_zero = sum(p.values[k] == 0 for p in [*points, *means])
        if n_zero:
            caption += f" {count(n_zero, 'trial')} ended with a {o.words} of exactly 0 (ticks)."
    ends = "; ".join(f"trial {p.number}: {_values_text(objectives, p.values)}" for p in (means[0], means[-1]))
    n = len(points) + len(means)
    return drawn.picture("front", draw, f"{title}. {len(means)} of {n} trials, from {ends}. {caption}", caption)


def _values_text(objectives: Sequence[Objective], values: Sequence[float]) -> str:
    return ", ".join(f"{o.unit} {o.text(v)}" for o, v in zip(objectives, values, strict=True))
