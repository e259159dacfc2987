"""Conclusions in sentences, from tested numbers: does each regularizer help, is training steadier, do loss and
accuracy agree, how do the weights differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.claims import Finding, Part, findings, roughness
from reg_sweep.comparison.compare import Comparison, differences, paired
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_LOSS, Result, WeightShares
from reg_sweep.comparison.sentences import (
    count,
    difference_interval,
    is_known,
    margin,
    p_equation,
    points,
    possible,
    signed,
    words,
)
from reg_sweep.runs.record import Metric
from reg_sweep.stats.family import Family, compare_arms
from reg_sweep.stats.judgement import ALPHA
from reg_sweep.stats.verdict import Mark, Verdict

N_NAMED = 4  # arms in a sentence

Evidence = Literal["arms", "curves", "weights"]


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the part of the page that shows its evidence."""

    text: str
    evidence: Evidence


@dataclass(frozen=True)
class ClaimText:
    """An exercise's claim as text: its number, its word, and a line for each part."""

    number: int
    text: str
    word: str
    parts: list[str]


@dataclass(frozen=True)
class Conclusions:
    """The sentences about the arms, and the exercises' claims."""

    sentences: list[Sentence]
    claims: list[ClaimText]


def conclusions(comparison: Comparison) -> Conclusions:
    """The conclusions about a table's arms; with one seed or one arm, only those about weights."""
    base, sentences = comparison.baseline, []
    if not comparison.has_images:
        return Conclusions([], [])
    if base is not None and comparison.n_seeds > 1 and len(comparison.measured) > 1:
        sentences += [Sentence(text, "arms") for text in _regularizers(comparison, base)]
        sentences += [Sentence(text, "curves") for text in (_steadiness(comparison, base),) if text]
        sentences += [Sentence(text, "arms") for text in (_agreement(comparison, base),) if text]
    sentences += [Sentence(text, "weights") for text in _weights(comparison)]
    return Conclusions(sentences, [_claim_text(f, comparison) for f in findings(comparison)])


# ---- does each regularizer help?


def _regularizers(comparison: Comparison, base: Arm) -> list[str]:
    """A sentence for each regularizer that is the only difference between some arms and the baseline."""
    kinds: dict[str, Callable[[Arm], bool]] = {
        "L1 alone": lambda a: _lambdas(a) == (True, False) and _norm(a) == _norm(base),
        "L2 alone": lambda a: _lambdas(a) == (False, True) and _norm(a) == _norm(base),
        "L1 and L2 together": lambda a: _lambdas(a) == (True, True) and _norm(a) == _norm(base),
        "Ghost batches": lambda a: _lambdas(a) == _lambdas(base) and a.config["norm"]["name"] == "gbn",
    }
    if _lambdas(base) != (False, False):
        del kinds["L1 alone"], kinds["L2 alone"], kinds["L1 and L2 together"]
    if base.config["norm"]["name"] == "gbn":
        del kinds["Ghost batches"]
    sentences = []
    for name, belongs in kinds.items():
        arms = [a for a in comparison.measured if a is not base and belongs(a)]
        if arms:
            sentences.append(_helps(name, arms, base, comparison))
    return sentences


def _lambdas(arm: Arm) -> tuple[bool, bool]:
    return arm.config["l1"] > 0, arm.config["l2"] > 0


def _norm(arm: Arm) -> str:
    return repr(arm.config["norm"])


def _helps(name: str, arms: list[Arm], base: Arm, comparison: Comparison) -> str:
    """'L1 alone: no difference shown (+0.02 points, 95% interval ...).' With several arms, a tally."""
    is_one = name in ("L1 alone", "L2 alone")
    forms = ("helps", "hurts", "makes", "costs", "is") if is_one else ("help", "hurt", "make", "cost", "are")
    helps, hurts, makes, costs, is_ = forms
    if len(arms) > 1:
        better = [a for a in arms if a.verdict is not None and a.verdict.tone == "better"]
        worse = [a for a in arms if a.verdict is not None and a.verdict.tone == "worse"]
        shown = f"better at {_some(better)}" if better else "better at none"
        said = f"{name}, at {len(arms)} settings, against {base.label}: shown {shown}"
        said += f"; worse at {_some(worse)}" if worse else ""
        best = next((a for a in comparison.ranked if a in arms), None)
        return f"{said}.{'' if best is None else f' The best of them, {best.label}: {_by(best, comparison)}.'}"
    (arm,) = arms
    found = {
        Verdict.BETTER: f"{name} {helps}",
        Verdict.BETTER_BY_DIVERGENCE: f"{name} {helps}: fewer runs diverge",
        Verdict.WORSE: f"{name} {hurts}",
        Verdict.WORSE_BY_DIVERGENCE: f"{name} {hurts}: runs diverge where the baseline's do not",
        Verdict.EQUIVALENT: f"{name} {makes} no difference that matters, within {margin(comparison)}",
        Verdict.NOT_WORSE: f"{name} {costs} nothing that matters, within {margin(comparison)}",
        Verdict.SMALL: f"{name} {makes} a real difference, smaller than {margin(comparison)}",
        Verdict.NO_DIFFERENCE: f"{name} {is_} not shown to help or to hurt",
        Verdict.UNDECIDED: f"{name} {is_} not shown to be within the margin",
        Verdict.EXPLORATORY: f"{name}, exploratory",
    }.get(arm.verdict or Verdict.NOT_RANKED, f"{name} can't be judged: seeds are missing or diverged")
    return f"{found} ({arm.label} against {base.label}: {_by(arm, comparison)})."


def _by(arm: Arm, comparison: Comparison) -> str:
    """'+0.11 points of test accuracy, 95% interval +0.03 to +0.19, p = 0.030'."""
    if arm.contrast is None:
        return "no seed in common"
    d, metric = arm.contrast.difference, comparison.metric
    of = f"{points(metric)} of {words(metric)}" if points(metric) else f" in {words(metric)}"
    if not is_known(d.p):
        return f"{signed(metric, d.mean)}{of}, no interval"
    return f"{signed(metric, d.mean)}{of}, 95% interval {difference_interval(metric, d)}, {p_equation(d.p)}"


def _some(arms: list[Arm]) -> str:
    named = ", ".join(a.label for a in arms[:N_NAMED])
    return named + (f" and {len(arms) - N_NAMED} more" if len(arms) > N_NAMED else "")


# ---- steadiness, loss beside accuracy: exploratory, beside the verdict's error


def _against(comparison: Comparison, base: Arm, value: Callable[[Result], float]) -> tuple[list[Arm], Family | None]:
    """The ranked arms that have a value on all seeds, and their family of differences; None without any."""
    arms = [arm for arm in comparison.ranked if arm is not base and arm.seeds == base.seeds]
    d = paired(arms, base, value)
    is_known_of = np.asarray(np.isfinite(d).all(axis=1))
    arms = [arm for arm, known in zip(arms, is_known_of, strict=True) if known]
    return arms, compare_arms(d[is_known_of], ALPHA, None, comparison.variance) if arms else None


def _steadiness(comparison: Comparison, base: Arm) -> str:
    """The spread of test accuracy over the last quarter of the epochs, relative to the baseline's."""
    arms, family = _against(comparison, base, roughness)
    if family is None:
        return ""
    order = np.argsort(family.noise.mean)
    ends = [("steadiest", order[0])] + ([("roughest", order[-1])] if len(arms) > 1 else [])
    named = "; ".join(f"{word} {_spread(arms[i], family, int(i))}" for word, i in ends)
    n = len(base.replicates[0].curves) // 4
    n_others = sum(arm is not base for arm in comparison.measured)
    left = n_others - len(arms)
    without = f" Unknown for {count(left, 'arm')}: seeds are missing, or there is no spread." if left else ""
    return (
        f"Exploratory: spread of test accuracy over the last {n} epochs relative to the baseline, {base.label}, "
        f"over {comparison.n_seeds} seeds: {named}.{without}"
    )


def _spread(arm: Arm, family: Family, i: int) -> str:
    (low, high), mean = family.interval, float(family.noise.mean[i])
    if not is_known(float(low[i])):
        return f"{arm.label}, {math.exp(mean):.2f} times (no interval)"
    return f"{arm.label}, {math.exp(mean):.2f} times (95% interval {math.exp(low[i]):.2f} to {math.exp(high[i]):.2f})"


def _agreement(comparison: Comparison, base: Arm) -> str:
    """Whether the mean test loss and the mean test accuracy of an arm point the same way."""
    epoch = comparison.epoch
    arms, by_accuracy = _against(comparison, base, lambda r: r.value(TEST_ACCURACY, epoch))
    others, by_loss = _against(comparison, base, lambda r: r.value(TEST_LOSS, epoch))
    if by_accuracy is None or by_loss is None or arms != others:
        return ""
    gain, cost = by_accuracy.noise.mean, by_loss.noise.mean
    apart = [i for i in range(len(arms)) if gain[i] * cost[i] > 0]
    n_equal = sum(gain[i] == 0 or cost[i] == 0 for i in range(len(arms)))
    equal = f", and in {count(n_equal, 'arm')} one of the two means equals the baseline's" if n_equal else ""
    if not apart:
        where = _all(len(arms)) if not n_equal else f"{count(len(arms) - n_equal, 'other arm')}"
        if n_equal == len(arms):
            return ""
        return f"Exploratory: the means of test loss and test accuracy agree in {where}{equal}."
    named = [
        f"{arms[i].label} ({signed(TEST_ACCURACY, float(gain[i]))} points, {signed(TEST_LOSS, float(cost[i]))} in loss)"
        for i in apart[:N_NAMED]
    ]
    more = f" and {len(apart) - N_NAMED} more" if len(apart) > N_NAMED else ""
    return f"Exploratory: the means of test loss and test accuracy point apart in {', '.join(named)}{more}{equal}."


def _all(n: int) -> str:
    return "the other arm" if n == 1 else f"all {n} other arms"


# ---- the weights


def _weights(comparison: Comparison) -> list[str]:
    """The arms with weights of exactly 0 and dead kernels, those with the most first."""
    counted = [(a, a.weight_shares) for a in comparison.measured if is_known(a.weight_shares.zero)]
    if not counted:
        return []
    zeroed = sorted((x for x in counted if x[1].zero > 0 or x[1].dead > 0), key=lambda x: (-x[1].zero, -x[1].dead))
    near = sorted(counted, key=lambda x: -x[1].near_zero)
    is_alone = len(near) > 1 and near[0][1].near_zero > near[1][1].near_zero
    most = f" Most weights near zero: {near[0][0].label}, {100 * near[0][1].near_zero:.1f}%." if is_alone else ""
    if not zeroed:
        return [f"No arm has a weight of exactly 0 or a dead kernel.{most}"]
    named = [f"{arm.label} ({_zeroed(shares)})" for arm, shares in zeroed[:N_NAMED]]
    more = f" and {count(len(zeroed) - N_NAMED, 'more arm')}" if len(zeroed) > N_NAMED else ""
    return [f"Arms with zeroed weights, most first: {', '.join(named)}{more}.{most}"]


def _zeroed(shares: WeightShares) -> str:
    kernels = f", {_percent(shares.dead)} of the kernels dead" if shares.dead > 0 else ""
    return f"{_percent(shares.zero)} of the weights exactly 0{kernels}"


def _percent(share: float) -> str:
    return "< 0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


# ---- the exercises' claims


def _claim_text(finding: Finding, comparison: Comparison) -> ClaimText:
    claim = finding.claim
    if finding.why:
        return ClaimText(claim.number, claim.text, finding.word, [f"Not tested: {finding.why}."])
    ends = zip(claim.parts, finding.mean, finding.low, finding.high, strict=True)
    parts = [_part_text(part, mean, low, high) for part, mean, low, high in ends]
    return ClaimText(claim.number, claim.text, finding.word, parts)


def _part_text(part: Part, mean: float, low: float, high: float) -> str:
    """'accuracy, bn · L1 0.001 against bn: +0.02 points (−0.05 to +0.09; needed: above 0)'."""
    name = part.measure.name

    def text(x: float) -> str:
        if not is_known(x):
            return "?"
        if name == "accuracy":
            return signed(TEST_ACCURACY, x)
        if name == "loss":
            return signed(TEST_LOSS, -x)
        return f"{math.exp(-x):.2f}" if name == "steadiness" else f"{100 * x:+.1f}".replace("-", "−")

    unit = {"accuracy": " points", "loss": "", "steadiness": " times the spread", "dead kernels": "% of the kernels"}[
        name
    ]
    # A gain lowers a loss and a spread: the ends swap, so that the interval starts with its lower end.
    ends = (text(low), text(high)) if name in ("accuracy", "dead kernels") else (text(high), text(low))
    interval = f"{ends[0]} to {ends[1]}" if is_known(low) else "no interval"
    needed = f"; needed: above {signed(TEST_ACCURACY, part.least)}" if part.least else ""
    return f"{name}, {part.arm.label} against {part.rival.label}: {text(mean)}{unit} ({interval}{needed})"


# ---- effects, metric by metric


@dataclass(frozen=True)
class Effect:
    """An arm minus the baseline: the mean over common seeds, its simultaneous 95% interval, and each seed's.

    The interval's ends are nan where there is none, such as for tied seeds; `by_image`: the interval is over test
    images. `seeds` pairs a seed with its difference.
    """

    arm: Arm
    estimate: float
    low: float
    high: float
    seeds: tuple[tuple[int, float], ...]
    mark: Mark
    by_image: bool
    is_tied: bool


@dataclass(frozen=True)
class Effects:
    """One test metric's effects, in the order of the arms. `margin` is None where equivalence is not asked for.

    `is_judged`: the verdict rests on them. The other metric's effects are exploratory: means and intervals, no word,
    and an error outside the verdict's.
    """

    metric: Metric
    margin: float | None
    is_judged: bool
    of_arms: list[Effect]


def effects(comparison: Comparison) -> list[Effects]:
    """The judged metric's effects, then the other test metric's, for all arms that were compared with the baseline."""
    base = comparison.baseline
    if base is None:
        return []
    arms = [arm for arm in comparison.measured if arm is not base and _is_compared(arm, base)]
    if not arms:
        return []
    others = [metric for metric in comparison.metrics if metric != comparison.metric][:1]
    found = [_judged(comparison, arms, base), *(_beside(comparison, other, arms, base) for other in others)]
    return [of_metric for of_metric in found if any(is_known(e.estimate) for e in of_metric.of_arms)]


def _is_compared(arm: Arm, base: Arm) -> bool:
    """Whether the arm shares a seed with the baseline, or was compared unpaired."""
    return bool(set(arm.seeds) & set(base.seeds)) or arm.contrast is not None


def _judged(comparison: Comparison, arms: list[Arm], base: Arm) -> Effects:
    metric, found = comparison.metric, []
    for arm, row in zip(arms, differences(arms, base, metric, comparison.epoch), strict=True):
        contrast = arm.contrast
        if contrast is not None:
            d, mark = contrast.difference, contrast.verdict.mark
            tested = (contrast.by_image, contrast.is_tied)
            ends = (possible(metric, d.ci_low), possible(metric, d.ci_high))
            found.append(Effect(arm, d.mean, *ends, _by_seed(base, row), mark, *tested))
    return Effects(metric, comparison.margin, True, found)


def _beside(comparison: Comparison, metric: Metric, arms: list[Arm], base: Arm) -> Effects:
    """A sequential design spends its error on the judged metric only, so the other metric has no interval."""
    d = differences(arms, base, metric, comparison.epoch)
    d[~np.isfinite(d)] = math.nan  # a loss may be infinite where an accuracy is known
    family = compare_arms(d, ALPHA, None, comparison.variance)
    low, high = family.interval
    found = []
    for i, arm in enumerate(arms):
        ends = (
            (math.nan, math.nan)
            if comparison.design is not None
            else (possible(metric, float(low[i])), possible(metric, float(high[i])))
        )
        seeds = _by_seed(base, d[i])
        is_tied = len(seeds) > 1 and math.isnan(low[i])
        found.append(Effect(arm, float(family.noise.mean[i]), *ends, seeds, "untested", False, is_tied))
    return Effects(metric, None, False, found)


def _by_seed(base: Arm, row: NDArray[np.float64]) -> tuple[tuple[int, float], ...]:
    return tuple((r.seed, float(v)) for r, v in zip(base.replicates, row, strict=True) if math.isfinite(v))


def difference_curves(arm: Arm, base: Arm, metric: Metric) -> NDArray[np.float64]:
    """Arm minus baseline at each epoch, (n_pairs, n_epochs): a row for each seed in common, nan past a run's end."""
    ours, theirs = arm.curves(metric), base.curves(metric)
    n = min(ours.shape[1], theirs.shape[1])
    row_of = {seed: row for row, seed in enumerate(base.seeds)}
    pairs = [(i, row_of[seed]) for i, seed in enumerate(arm.seeds) if seed in row_of]
    return np.array([ours[i, :n] - theirs[j, :n] for i, j in pairs]).reshape(len(pairs), n)
