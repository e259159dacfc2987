"""Facts across arms: steadiness, agreement of loss and accuracy, weights, the exercises' claims, effects."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.claims import ClaimResult, Part, Word, is_exercise, roughness
from reg_sweep.comparison.compare import Comparison, paired
from reg_sweep.comparison.labels import listed, spelled
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_LOSS, Result, WeightShares
from reg_sweep.comparison.sentences import count, error, is_known, level, possible, signed
from reg_sweep.runs.record import Metric
from reg_sweep.stats.family import Family, compare_arms, compare_scores
from reg_sweep.stats.judgement import ALPHA
from reg_sweep.stats.moderation import Pairing
from reg_sweep.stats.verdict import Mark

N_NAMED = 4  # arms in a sentence


@dataclass(frozen=True)
class ClaimText:
    """An exercise's claim as text: its number, its word, and a line for each part."""

    number: int
    text: str
    word: str
    parts: list[str]


# ---- steadiness, loss and accuracy compared: exploratory, outside the verdict's error


def _against(comparison: Comparison, base: Arm, value: Callable[[Result], float]) -> tuple[list[Arm], Family | None]:
    """The ranked arms that have a value on all seeds, and their family of differences; None without any."""
    arms = [arm for arm in comparison.ranked if arm is not base and arm.seeds == base.seeds]
    d = paired(arms, base, value)
    is_known_of = np.asarray(np.isfinite(d).all(axis=1))
    arms = [arm for arm, known in zip(arms, is_known_of, strict=True) if known]
    return arms, compare_arms(d[is_known_of], ALPHA, None, comparison.variance) if arms else None


@dataclass(frozen=True)
class Spread:
    """How rough an arm's curve of test accuracy is: its spread over the last quarter of the epochs / the baseline's.

    The interval's ends are nan where there is none.
    """

    ratio: float
    low: float
    high: float

    def finding_on(self, is_rougher: bool) -> str:
        """The finding on the claim that the arm's curve is rougher, or smoother, than the baseline's."""
        sign = 1 if is_rougher else -1
        low, high = sorted(sign * (x - 1) for x in (self.low, self.high))
        if low > 0:  # nan is neither
            return "is seen"
        if high < 0:
            return "is contradicted"
        return "is not shown" if sign * (self.ratio - 1) > 0 else "is not seen"


def spreads(comparison: Comparison, base: Arm) -> dict[str, Spread]:
    """The relative spread of each ranked arm, by digest; none where curves are too short or seeds are missing."""
    arms, family = _against(comparison, base, roughness)
    if family is None:
        return {}
    ends = np.array([family.noise.mean, *family.interval])
    with np.errstate(over="ignore"):
        ratios = np.exp(ends)  # (3, n_arms)
    return {arm.digest: Spread(*map(float, ratios[:, i])) for i, arm in enumerate(arms)}


def steadiness(comparison: Comparison, base: Arm) -> str:
    """The spread of test accuracy over the last quarter of the epochs, relative to the baseline's."""
    found = spreads(comparison, base)
    if not found:
        return ""
    arms = sorted((arm for arm in comparison.ranked if arm.digest in found), key=lambda arm: found[arm.digest].ratio)
    ends = [("steadiest", arms[0])] + ([("roughest", arms[-1])] if len(arms) > 1 else [])
    named = "; ".join(f"{word} {arm.label}, {spread_text(found[arm.digest])}" for word, arm in ends)
    n = len(base.replicates[0].curves) // 4
    n_others = sum(arm is not base for arm in comparison.measured)
    left = n_others - len(arms)
    without = f" Unknown for {count(left, 'arm')}: seeds are missing, or there is no spread." if left else ""
    return (
        f"Exploratory: spread of test accuracy over the last {n} epochs relative to the baseline, {base.label}, "
        f"over {comparison.n_seeds} seeds: {named}.{without}"
    )


def spread_text(spread: Spread) -> str:
    """'0.90 times (95% interval 0.41 to 2.00)'."""
    low, mean, high = (f"{x:.2f}" if x < 100 else "over 100" for x in (spread.low, spread.ratio, spread.high))
    return f"{mean} times ({f'95% interval {low} to {high}' if is_known(spread.low) else 'no interval'})"


def agreement(comparison: Comparison, base: Arm) -> str:
    """Reports whether each arm's mean test loss and mean test accuracy point the same way."""
    epoch = comparison.epoch
    arms, by_accuracy = _against(comparison, base, lambda r: r.value(TEST_ACCURACY, epoch))
    others, by_loss = _against(comparison, base, lambda r: r.value(TEST_LOSS, epoch))
    if by_accuracy is None or by_loss is None or arms != others:
        return ""
    gain, cost = by_accuracy.noise.mean.round(4), by_loss.noise.mean.round(TEST_LOSS.digits)  # as they are shown
    apart = [i for i in range(len(arms)) if gain[i] * cost[i] > 0]
    n_equal = sum(gain[i] == 0 or cost[i] == 0 for i in range(len(arms)))
    equal = f", and in {count(n_equal, 'arm')} one of the two means equals the baseline's" if n_equal else ""
    if not apart:
        where = _all(len(arms)) if not n_equal else f"{count(len(arms) - n_equal, 'other arm')}"
        if n_equal == len(arms):
            return ""
        return f"Exploratory: mean test loss and mean test accuracy agree in {where}{equal}."
    named = [
        f"{arms[i].label} ({signed(TEST_ACCURACY, float(gain[i]))} points, {signed(TEST_LOSS, float(cost[i]))} in loss)"
        for i in apart[:N_NAMED]
    ]
    more = f" and {len(apart) - N_NAMED} more" if len(apart) > N_NAMED else ""
    return (
        f"Exploratory: mean test loss and mean test accuracy contradict each other in {', '.join(named)}{more}{equal}."
    )


def error_text(comparison: Comparison, *, has_steadiness: bool, has_loss: bool) -> str:
    """States the errors of the tests of accuracy and, where a page shows them, of loss and steadiness.

    Loss has the table's error, and no interval in a sequential study; steadiness is tested once, at `ALPHA`.
    """
    own, is_sequential = error(comparison), comparison.design is not None
    is_alike = own == ALPHA and not is_sequential
    also = ["steadiness"] * (has_steadiness and is_alike) + ["loss"] * (has_loss and not is_sequential)
    have = f"{listed(['Accuracy', *also])} {'each have' if also else 'has'}"
    text = f"{have} an error of {100 * own:.3g}% over all arms{' and looks' if is_sequential else ''}"
    return f"{text}{f'; steadiness has {100 * ALPHA:g}%' if has_steadiness and not is_alike else ''}."


def _all(n: int) -> str:
    return "the other arm" if n == 1 else f"all {n} other arms"


# ---- the weights


def weights(comparison: Comparison) -> list[str]:
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
    return [f"Arms with weights of exactly 0 or dead kernels, most first: {', '.join(named)}{more}.{most}"]


def _zeroed(shares: WeightShares) -> str:
    parts = [(shares.zero, "of the weights exactly 0"), (shares.dead, "of the kernels dead")]
    parts.append((shares.dead_channels, "of the channels"))
    return ", ".join(f"{_percent(share)} {what}" for share, what in parts if share > 0)


def _percent(share: float) -> str:
    return "< 0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


# ---- the exercises' claims


def published(comparison: Comparison, claims: list[ClaimResult]) -> str:
    """The exercises' conclusions that these arms support, contradict or leave open; empty for other networks."""
    if not is_exercise(comparison) or len(comparison.measured) < 2:
        return ""
    if not claims:
        return (
            "None of the exercises' conclusions can be tested on these arms: they compare arms without a penalty, with "
            "L1 alone, with L2 alone and with both, which are not all here."
        )
    untested: dict[str, list[ClaimResult]] = {}
    for f in (f for f in claims if f.why):
        untested.setdefault(f.why, []).append(f)
    if len(untested) == 1 and all(f.why for f in claims):
        return f"None of the exercises' conclusions can be tested on these runs: {claims[0].why}."
    n_of = Counter(f.word for f in claims)
    each: dict[Word, str] = {"supported": "supported", "contradicted": "contradicted", "open": "left open"}
    tally = listed([f"{spelled(n_of[word]).lower() if n_of[word] else 'none'} {said}" for word, said in each.items()])
    said = [f"Of the exercises' conclusions, {spelled(len(claims)).lower()} can be tested on these arms: {tally}."]
    for why, its in untested.items():
        named = listed([f"({f.claim.number}) '{f.claim.text}'" for f in its])
        said.append(f"{named} {'is' if len(its) == 1 else 'are'} not tested, since {why}.")
    said += [_claim_sentence(f) for f in claims if not f.why]
    return " ".join([*said, "These tests are exploratory, with an error of their own, separate from the verdict's."])


def _claim_sentence(finding: ClaimResult) -> str:
    claim = finding.claim
    word = "left open" if finding.word == "open" else finding.word
    said = f"({claim.number}) '{claim.text}' is {word}"
    tested = list(zip(claim.parts, finding.mean, finding.low, finding.high, strict=True))
    by_measure: dict[str, list[str]] = {}
    for part, mean, _, _ in tested:
        by_measure.setdefault(part.measure.name, []).append(_gain(part.measure.name, mean))
    rivals = list(dict.fromkeys(part.rival.label for part in claim.parts))
    arms = list(dict.fromkeys(part.arm.label for part in claim.parts))
    means = "; ".join(f"{_MEASURED[name]} {listed(values)}{_UNITS[name]}" for name, values in by_measure.items())
    n_shown = sum(low > part.least for part, _, low, _ in tested)
    n_wrong = sum(high < part.most for part, _, _, high in tested)
    wrong = f" and {spelled(n_wrong).lower()} to be false" if n_wrong else ""
    shown = f"{'is' if n_shown < 2 else 'are'} shown to hold{wrong}"
    n = spelled(len(tested)).lower()
    if n_shown == len(tested):
        tests = f"its test {shown}" if n_shown == 1 else f"all {n} of its tests {shown}"
    else:
        of = "its test" if len(tested) == 1 else f"of its {n} tests, {spelled(n_shown).lower() if n_shown else 'none'}"
        tests = f"{of} {shown}" if len(tested) > 1 else f"its test is not shown to hold{wrong}"
    return f"{said}: {listed(arms)} against {listed(rivals)}, {means}; {tests}."


_MEASURED = {
    "accuracy": "accuracy",
    "loss": "loss",
    "steadiness": "last-quarter spread",
    "dead kernels": "dead kernels",
    "dead channels": "dead channels",
}
_UNITS = {"accuracy": " points", "loss": "", "steadiness": " times theirs"}
_UNITS |= {"dead kernels": "% of the kernels", "dead channels": "% of the channels"}


def _gain(name: str, x: float) -> str:
    """A gain in the unit of its measure: a loss and a spread are better where they are lower."""
    if not is_known(x):
        return "?"
    if name == "accuracy":
        return signed(TEST_ACCURACY, x)
    if name == "loss":
        return signed(TEST_LOSS, -x)
    if name == "steadiness":
        return f"{math.exp(-x):.2f}"
    text = f"{100 * x:+.1f}"
    return text.replace("-", "−") if float(text) else text[1:]


def claim_text(finding: ClaimResult) -> ClaimText:
    """A claim, with one line for each of its tests."""
    claim = finding.claim
    if finding.why:
        return ClaimText(claim.number, claim.text, finding.word, [f"Not tested: {finding.why}."])
    ends = zip(claim.parts, finding.mean, finding.low, finding.high, strict=True)
    parts = [_part_text(part, mean, low, high) for part, mean, low, high in ends]
    return ClaimText(claim.number, claim.text, finding.word, parts)


def _part_text(part: Part, mean: float, low: float, high: float) -> str:
    """'accuracy, bn · L1 0.001 against bn: +0.02 points (-0.05 to +0.09; needed: above 0)'."""
    name = part.measure.name
    unit = " times the spread" if name == "steadiness" else _UNITS[name]
    # A gain lowers a loss and a spread: the ends swap, so that the interval starts with its lower end.
    first, last = (high, low) if name in ("loss", "steadiness") else (low, high)
    interval = f"{_gain(name, first)} to {_gain(name, last)}" if is_known(low) else "no interval"
    needed = f"; needed: above {signed(TEST_ACCURACY, part.least)}" if part.least else ""
    return f"{name}, {part.arm.label} against {part.rival.label}: {_gain(name, mean)}{unit} ({interval}{needed})"


# ---- effects, metric by metric


@dataclass(frozen=True)
class Effect:
    """An arm minus the baseline: the mean over common seeds, its simultaneous interval, and each seed's.

    Where the table has no pairs, the mean is over all runs, and no seed has a difference. The interval's ends are nan
    where there is none, such as for tied seeds; `level` is the interval's, such as '95%'; `by_image`: the interval is
    over test images. `seeds` pairs a seed with its difference.
    """

    arm: Arm
    estimate: float
    low: float
    high: float
    level: str
    seeds: tuple[tuple[int, float], ...]
    mark: Mark
    by_image: bool
    is_tied: bool


@dataclass(frozen=True)
class Effects:
    """One test metric's effects, in the order of the arms. `margin` is None where equivalence is not asked for.

    `is_judged`: the verdict rests on them. The other metric's effects are exploratory: they have means and intervals,
    but no verdict, and their error is outside the verdict's.
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
    found = [_judged(comparison, arms), *(_beside(comparison, other, arms, base) for other in others)]
    return [of_metric for of_metric in found if any(is_known(e.estimate) for e in of_metric.of_arms)]


def _is_compared(arm: Arm, base: Arm) -> bool:
    """Whether the arm shares a seed with the baseline, or was compared unpaired."""
    return bool(set(arm.seeds) & set(base.seeds)) or arm.contrast is not None


def _judged(comparison: Comparison, arms: list[Arm]) -> Effects:
    """The difference's interval, or that of equivalence or non-inferiority if only this was asked."""
    metric, found = comparison.metric, []
    for arm in arms:
        contrast = arm.contrast
        if contrast is not None:
            is_of_margin = contrast.question != "better"
            d, mark = contrast.equivalence if is_of_margin else contrast.difference, contrast.verdict.mark
            own = contrast.evidence_level(error(comparison)) if is_of_margin else level(comparison)
            tested = (contrast.by_image, contrast.is_tied)
            ends = (possible(metric, d.ci_low), possible(metric, d.ci_high))
            found.append(Effect(arm, contrast.difference.mean, *ends, own, contrast.by_seed, mark, *tested))
    return Effects(metric, comparison.margin, True, found)


def _beside(comparison: Comparison, metric: Metric, arms: list[Arm], base: Arm) -> Effects:
    """The other metric's effects, paired as the judged metric's are.

    A sequential design spends its error on the judged metric only, so the other metric has no interval.
    """
    is_paired = comparison.is_paired
    seeds_of_all = base.seeds if is_paired else sorted({seed for arm in (base, *arms) for seed in arm.seeds})
    by_seed = [{r.seed: r.value(metric, comparison.epoch) for r in arm.replicates} for arm in (base, *arms)]
    x = np.array([[values.get(seed, math.nan) for seed in seeds_of_all] for values in by_seed])
    x[~np.isfinite(x)] = math.nan  # a loss may be infinite where an accuracy is known
    pairing: Pairing = "seeds" if is_paired else "none"
    family = compare_scores(x, error(comparison), None, comparison.variance, pairing=pairing)
    low, high = family.interval
    found = []
    for i, arm in enumerate(arms):
        ends = (
            (math.nan, math.nan)
            if comparison.design is not None
            else (possible(metric, float(low[i])), possible(metric, float(high[i])))
        )
        differences = zip(seeds_of_all, x[i + 1] - x[0], strict=True) if is_paired else ()
        seeds = tuple((seed, float(d)) for seed, d in differences if math.isfinite(d))
        is_tied = family.noise.n[i] > 1 and np.isfinite(x[0]).sum() > 1 and math.isnan(low[i])
        mean = float(family.noise.mean[i])
        found.append(Effect(arm, mean, *ends, level(comparison), seeds, "untested", False, bool(is_tied)))
    return Effects(metric, None, False, found)


def difference_curves(arm: Arm, base: Arm, metric: Metric) -> NDArray[np.float64]:
    """Arm minus baseline at each epoch, (n_pairs, n_epochs): a row for each seed in common, nan past a run's end."""
    ours, theirs = arm.curves(metric), base.curves(metric)
    n = min(ours.shape[1], theirs.shape[1])
    row_of = {seed: row for row, seed in enumerate(base.seeds)}
    pairs = [(i, row_of[seed]) for i, seed in enumerate(arm.seeds) if seed in row_of]
    return np.array([ours[i, :n] - theirs[j, :n] for i, j in pairs]).reshape(len(pairs), n)
