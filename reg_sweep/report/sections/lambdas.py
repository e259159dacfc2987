"""How much: arms that differ only in l1, in l2 or in both, as lambda studies, heat maps and small curves."""

import math
import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np

from reg_sweep.comparison.arms import Arm, families
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import listed
from reg_sweep.comparison.results import TEST_METRICS
from reg_sweep.comparison.sentences import bounds, count, points, score, signed, words
from reg_sweep.config.regularizers import penalty_strengths
from reg_sweep.report.canvas import Canvas, seeds_text
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures.arms import LambdaPoint
from reg_sweep.report.figures.lambdas import Panel, heat_map, train_and_test
from reg_sweep.report.figures.theme import Picture
from reg_sweep.runs.ranking import lambda_text
from reg_sweep.runs.record import Metric
from reg_sweep.stats import estimates as stats
from reg_sweep.stats import selection

_OWN_STRENGTH = re.compile(r"penalties\.(\w+)\.strength")
N_FAMILIES = 4  # lambda studies drawn for each of l1 and l2
N_CURVED = 2  # of these with small curves, which take longest to draw
MAX_SETTING = 1e12  # of another program's setting that is drawn
N_PANELS = 12  # of small curves, one for each lambda
N_OPEN = 6  # pictures in sight: of more, the others are folded


@dataclass(frozen=True)
class LambdasSection:
    """The pictures; `left_out` says which studies are not drawn, empty if all are."""

    pictures: list[Picture]
    left_out: str = ""

    @property
    def n_open(self) -> int:
        """The number of pictures that are not folded."""
        return N_OPEN if len(self.pictures) > N_OPEN + 2 else len(self.pictures)


def lambdas(comparison: Comparison, canvas: Canvas) -> LambdasSection:
    """The studies of each lambda, the heat maps of both, and small curves of accuracy and loss for each lambda."""
    studies: list[tuple[int, Picture]] = []
    small: list[Picture] = []
    if not comparison.has_images:
        return _of_settings(comparison, canvas)
    own = dict.fromkeys(
        key for arm in comparison.measured for key in penalty_strengths(arm.config)
    )  # L1 and L2 come first
    found = {_named(key): _families(comparison, (key,)) for key in own}
    for key, families_of in zip(own, list(found.values()), strict=True):
        studied = families_of[:N_FAMILIES]
        studies += [(n, _study(comparison, canvas, key, family, n)) for n, family in enumerate(studied, 1)]
        for number, family in enumerate(studied[:N_CURVED], 1):
            small += [_train_and_test(canvas, key, family, number, metric) for metric in TEST_METRICS]
    found["L1 and L2"] = _families(comparison, ("l1", "l2"))
    maps = [(n, _heat_map(comparison, canvas, f, n)) for n, f in enumerate(found["L1 and L2"][:N_FAMILIES], 1)]
    drawn = [*studies, *maps]
    if len(drawn) + len(small) > N_OPEN + 2:  # the first of each kind is in sight
        drawn.sort(key=lambda of: of[0])
    said = [_left_out({name: len(its) for name, its in found.items()})]
    if any(len(its) > N_CURVED for name, its in found.items() if name != "L1 and L2"):
        said.append(f"For each lambda, only the first {N_CURVED} studies have train and test curves.")
    return LambdasSection([*(picture for _, picture in drawn), *small], " ".join(filter(None, said)))


def _of_settings(comparison: Comparison, canvas: Canvas) -> LambdasSection:
    """The same of another program's numeric settings: a study of each, and heat maps of pairs."""
    held = comparison.held_fixed
    keys = [k for k in dict.fromkeys(k for a in comparison.measured for k in a.config) if k not in held]
    keys = [k for k in keys if all(_is_number(a.config.get(k)) for a in comparison.measured)]
    found = {key: _families(comparison, (key,)) for key in keys}
    studies = [
        _study(comparison, canvas, key, family, number)
        for key, families_of in found.items()
        for number, family in enumerate(families_of[:N_FAMILIES], 1)
    ]
    maps: list[Picture] = []
    for pair in combinations(keys, 2):
        for number, family in enumerate(_families(comparison, pair)[:N_FAMILIES], len(maps) + 1):
            maps.append(_heat_map(comparison, canvas, family, number, pair))
    return LambdasSection([*studies, *maps[:N_FAMILIES]], _left_out({name: len(its) for name, its in found.items()}))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_SETTING


def _left_out(n_found: dict[str, int]) -> str:
    """'This page draws 4 of the 6 studies of L1 and 4 of the 9 studies of L2: first that of the best arm, ...'"""
    more = [f"{N_FAMILIES} of the {n:,} studies of {name}" for name, n in n_found.items() if n > N_FAMILIES]
    if not more:
        return ""
    order = "first that of the best arm, then those without the other penalty, then the largest"
    return f"This page draws {listed(more)}: {order}."


def _study(comparison: Comparison, canvas: Canvas, key: str, family: list[Arm], number: int) -> Picture:
    metric, name = comparison.selector, _named(key)
    scores = [[v for v in a.values(metric, comparison.epoch) if math.isfinite(v)] for a in family]
    strengths = [_value(a, key) for a in family]
    eligible = _eligible(family)
    choice, rule = _choice(comparison, family, eligible, strengths)
    points = [
        _point(comparison, canvas, arm, strength, values)
        for arm, strength, values in zip(family, strengths, scores, strict=True)
    ]
    title = f"Varying {name}: {_without(family[0], key)}".removesuffix(": ")
    draw = partial(figures.lambda_study, title, name, _unit(metric), points, choice, is_accuracy=metric.unit == "share")
    best_text, chosen_text = (f"{name} = {lambda_text(strengths[i])}" for i in (choice.best, choice.chosen))
    caption = f"{seeds_text(family)} per point. Best {words(metric)}: {best_text} (ring). "
    if choice.chosen == choice.best:
        caption += f"The one-standard-error rule chooses the same{rule}."
    else:
        caption += f"One-standard-error choice: {chosen_text} (dashed ring){rule}."
    if len(eligible) < len(family):
        left_out = ", ".join(lambda_text(s) for arm, s in zip(family, strengths, strict=True) if arm not in eligible)
        caption += f" Left out of the choice, since seeds are missing or diverged: {left_out}."
    return canvas.picture(f"study-{_named(key).lower()}-{number}", draw, f"{title}. {caption}", caption)


def _eligible(family: list[Arm]) -> list[Arm]:
    """The arms that may be chosen: without divergence and with all seeds; if there are none, all arms."""
    sound = [arm for arm in family if not arm.has_diverged]
    most = max((len(arm.replicates) for arm in sound), default=0)
    return [arm for arm in sound if len(arm.replicates) == most] or family


def _choice(
    comparison: Comparison, family: list[Arm], eligible: list[Arm], strengths: list[float]
) -> tuple[selection.LambdaChoice, str]:
    """The one-standard-error choice among the eligible arms, by positions in the family, and the error used, in words.

    With several seeds, the error is of the paired difference from the best. With one seed, and an accuracy, it is the
    binomial error over images.
    """
    metric = comparison.selector
    seeds = sorted({seed for arm in eligible for seed in arm.seeds})
    scores = np.full((len(family), len(seeds)), math.nan)
    for i, arm in enumerate(family):
        if arm in eligible:
            for r in arm.replicates:
                scores[i, seeds.index(r.seed)] = r.value(metric, comparison.epoch)
    if len(seeds) > 1:
        found = selection.paired_one_standard_error(strengths, scores, not metric.higher_is_better)
        return selection.LambdaChoice(found.best, found.chosen, math.nan), ", by the paired standard error over seeds"
    places = [i for i, arm in enumerate(family) if arm in eligible]
    error = None
    if metric.unit == "share":
        n_images = comparison.data.n_val if comparison.selected_on == "val" else comparison.data.n_test
        error = selection.binomial_standard_error(float(np.nanmax(scores)), n_images)
    alone = selection.one_standard_error(
        [strengths[i] for i in places], [scores[i] for i in places], not metric.higher_is_better, error
    )
    choice = selection.LambdaChoice(places[alone.best], places[alone.chosen], alone.threshold)
    return choice, "" if error is None else ", by the binomial standard error of the images"


def _point(comparison: Comparison, canvas: Canvas, arm: Arm, strength: float, values: list[float]) -> LambdaPoint:
    shares = arm.weight_shares
    return LambdaPoint(
        strength=strength,
        label=lambda_text(strength),
        slot=canvas.slot(arm),
        selector=_possible(stats.mean_interval(values), comparison.selector),
        test=arm.mean(comparison.metric) if comparison.selected_on == "val" else math.nan,
        near_zero=shares.near_zero,
        zero=shares.zero,
        dead=shares.dead,
    )


def _possible(estimate: stats.Estimate, metric: Metric) -> stats.Estimate:
    """The estimate with its interval clipped to the metric's possible values: Student's t of few seeds exceeds them."""
    low, high = bounds(metric)
    return replace(estimate, ci_low=max(estimate.ci_low, low), ci_high=min(estimate.ci_high, high))


def _train_and_test(canvas: Canvas, key: str, family: list[Arm], number: int, metric: Metric) -> Picture:
    panels = []
    chosen = np.unique(np.linspace(0, len(family) - 1, N_PANELS).round().astype(int))
    for arm in (family[i] for i in chosen):
        train, test = (stats.mean_band(arm.curves(metric.on(split))).mean for split in ("train", "test"))
        panels.append(Panel(f"{_named(key)} {lambda_text(_value(arm, key))}", canvas.slot(arm), train, test))
    is_share, what = metric.unit == "share", words(metric).removeprefix("test ")
    title = f"Train and test {what} for each {key.upper()}: {_without(family[0], key)}"
    unit = f"{what}, %" if is_share else what
    draw = partial(train_and_test, title, panels, is_accuracy=is_share, unit=unit)
    gaps = ", ".join(f"{p.title}: {signed(metric, float(p.train[-1] - p.test[-1]))}{points(metric)}" for p in panels)
    caption = f"{seeds_text(family)} a panel."
    if len(panels) < len(family):
        caption += f" {len(panels)} of {len(family)} lambdas, from the smallest to the largest."
    alt = f"{title}. Train minus test at the last epoch {gaps}."
    return canvas.picture(f"study-{_named(key).lower()}-{number}-{what}", draw, alt, caption, wide=True)


def _named(key: str) -> str:
    """A lambda's symbol, an own penalty's name; another program's setting by its own name."""
    own = _OWN_STRENGTH.fullmatch(key)
    return own[1] if own else key.upper() if key in ("l1", "l2") else key


def _value(arm: Arm, key: str) -> float:
    """An arm's lambda; 0 where it is without this own penalty."""
    return penalty_strengths(arm.config).get(key, 0.0) if _OWN_STRENGTH.fullmatch(key) else float(arm.config[key])


def _varied(arms: list[Arm], key: str) -> list[list[Arm]]:
    """Arms that differ only in a lambda. Arms without an own penalty belong to each of its sets of arguments."""
    own = _OWN_STRENGTH.fullmatch(key)
    if own is None:
        return families(arms, (key,))
    found = []
    for family in families(arms, (f"penalties.{own[1]}.",)):
        without = [arm for arm in family if _value(arm, key) == 0]
        found += [[*without, *its] for its in families((arm for arm in family if arm not in without), (key,))]
    return found


def _heat_map(
    comparison: Comparison, canvas: Canvas, family: list[Arm], number: int, keys: tuple[str, str] = ("l1", "l2")
) -> Picture:
    metric = comparison.selector
    l1, l2 = (sorted({_value(a, k) for a in family}) for k in keys)
    means, as_good = np.full((len(l2), len(l1)), math.nan), np.zeros((len(l2), len(l1)), bool)
    set_aside = np.zeros((len(l2), len(l1)), bool)
    places = {arm.digest: (l2.index(_value(arm, keys[1])), l1.index(_value(arm, keys[0]))) for arm in family}
    eligible = _eligible(family)
    for arm in family:
        means[places[arm.digest]] = arm.score
        set_aside[places[arm.digest]] = arm not in eligible
    for arm in _as_good(comparison, eligible):
        as_good[places[arm.digest]] = True
    best = (max if metric.higher_is_better else min)(eligible, key=lambda a: a.score)
    names = [_named(key) for key in keys]
    title = f"Varying {' and '.join(names)}: {_without(family[0], *keys)}".removesuffix(": ")
    l1_labels, l2_labels = ([lambda_text(v) for v in values] for values in (l1, l2))
    draw = partial(
        heat_map,
        title,
        l1_labels,
        l2_labels,
        means,
        best=places[best.digest],
        as_good=as_good,
        set_aside=set_aside,
        is_accuracy=metric.unit == "share",
        unit=_unit(metric),
        names=(names[0], names[1]),
        higher_is_better=metric.higher_is_better,
        digits=metric.digits,
    )
    at_best = ", ".join(f"{_named(k)} {lambda_text(_value(best, k))}" for k in keys)
    caption = f"{seeds_text(family)} per cell. Best: {at_best} (framed), {score(metric, best.score, unit=True)}."
    if as_good.sum() > 1:
        caption += f" Thin frames: the {as_good.sum()} cells within one paired standard error of it."
    if len(eligible) < len(family):
        aside = count(len(family) - len(eligible), "cell")
        caption += f" Hatched: {aside} left out of the choice, since seeds are missing or diverged."
    return canvas.picture(f"heat-map-{number}", draw, f"{title}. {caption}", caption)


def _as_good(comparison: Comparison, eligible: list[Arm]) -> list[Arm]:
    """The arms within one standard error of the best, paired over seeds; none with a single seed."""
    metric = comparison.selector
    if len({tuple(arm.seeds) for arm in eligible}) > 1 or len(eligible[0].seeds) < 2:
        return []
    scores = np.array([arm.values(metric, comparison.epoch) for arm in eligible])
    if not np.isfinite(scores).all():
        return []
    order = np.arange(len(eligible))  # ties in strength do not matter here
    found = selection.paired_one_standard_error(order, scores, not metric.higher_is_better)
    return [arm for arm, is_allowed in zip(eligible, found.allowed, strict=True) if is_allowed]


def _unit(metric: Metric) -> str:
    return f"{words(metric)}, %" if metric.unit == "share" else words(metric)


def _families(comparison: Comparison, keys: tuple[str, ...]) -> list[list[Arm]]:
    """Arms that differ only in `keys`: at least three values of a single key, or two of each of a pair.

    The family of the best arm comes first, then those without the other penalty, then the largest. A family is in
    the order of its lambdas.
    """
    known = [arm for arm in comparison.measured if not math.isnan(arm.score)]
    least = 3 if len(keys) == 1 else 2

    def is_study(family: list[Arm]) -> bool:
        n_values = [len({_value(a, k) for a in family}) for k in keys]
        # Two searches of one lambda each are a cross, not a grid.
        is_grid = len(family) >= max(6, 0.5 * math.prod(n_values))
        return min(n_values) >= least and (len(keys) == 1 or is_grid)

    def rank(family: list[Arm]) -> tuple[bool, bool, int]:
        other = {"l1": "l2", "l2": "l1"}.get(keys[0]) if len(keys) == 1 else None
        is_alone = other is None or family[0].config.get(other, 0) == 0
        return comparison.best not in family, not is_alone, -len(family)

    found = _varied(known, keys[0]) if len(keys) == 1 else families(known, keys)
    studies = sorted(filter(is_study, found), key=rank)
    return [sorted(family, key=lambda a: [_value(a, k) for k in keys]) for family in studies]


def _without(arm: Arm, *keys: str) -> str:
    """An arm's label without its lambdas: the settings that a study holds fixed."""
    parts = arm.label.split(" · ")
    left_out = {_named(k) for k in keys} | {k.rpartition(".")[2].replace("_", " ") for k in keys}
    return " · ".join(p for p in parts if p.rpartition(" ")[0] not in left_out)
