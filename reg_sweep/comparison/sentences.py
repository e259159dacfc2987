"""Sentences about a comparison's numbers, and the format of numbers for readers."""

import math
from collections import Counter

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.runs.ranking import decimal_text
from reg_sweep.runs.record import STATUSES, Metric, Status
from reg_sweep.stats import estimates as stats
from reg_sweep.stats.judgement import ALPHA, Finding, level_text
from reg_sweep.stats.verdict import Verdict

DASH = "–"
N_NAMED = 3  # arms in a headline


# ---- numbers


def is_known(x: float | None) -> bool:
    """Whether a number is known."""
    return x is not None and not math.isnan(x)


def score(metric: Metric, x: float, *, unit: bool = False) -> str:
    """A metric's value: accuracy in %, loss as it is."""
    if not is_known(x):
        return DASH
    if metric.unit in ("share", "percent"):
        return f"{_factor(metric) * x:.2f}" + ("%" if unit else "")
    return decimal_text(x, metric.digits)


def _factor(metric: Metric) -> int:
    return 100 if metric.unit == "share" else 1


def signed(metric: Metric, x: float) -> str:
    """A difference: in points of accuracy, or in loss; without a sign where it rounds to zero."""
    if not is_known(x):
        return DASH
    digits = 2 if points(metric) else metric.digits
    text = decimal_text(_factor(metric) * x, digits, "+")
    return text.replace("-", "−") if float(text) else text[1:]


def size(metric: Metric, x: float) -> str:
    """The size of a difference, without its sign."""
    return signed(metric, abs(x)).removeprefix("+")


def points(metric: Metric) -> str:
    """The unit after a difference of the metric; empty for losses."""
    return " points" if metric.unit in ("share", "percent") else ""


def p_text(p: float) -> str:
    """'0.12', '0.012' or '< 0.001'."""
    return DASH if not is_known(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_equation(p: float) -> str:
    """'p = 0.12' or 'p < 0.001'."""
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def interval_text(metric: Metric, estimate: stats.Estimate) -> str:
    """'99.40 to 99.54', clipped to possible accuracies or losses; empty with one run."""
    if not is_known(estimate.ci_low):
        return ""
    low, high = bounds(metric)
    return f"{score(metric, max(estimate.ci_low, low))} to {score(metric, min(estimate.ci_high, high))}"


def bounds(metric: Metric) -> tuple[float, float]:
    """The smallest and the largest value that a metric can have."""
    if metric.unit == "number":
        return -math.inf, math.inf
    return 0.0, {"share": 1.0, "percent": 100.0}.get(metric.unit, math.inf)


def difference_interval(metric: Metric, difference: stats.Difference) -> str:
    """'+0.03 to +0.19', clipped to possible differences of accuracies; empty where there is none."""
    if not is_known(difference.ci_low):
        return ""
    return " to ".join(signed(metric, possible(metric, end)) for end in (difference.ci_low, difference.ci_high))


def is_boundless(metric: Metric, difference: stats.Difference) -> bool:
    """Whether an interval says nothing: it contains 0 and exceeds every possible difference of two accuracies."""
    low, high = difference.ci_low, difference.ci_high
    return metric.unit == "share" and low <= 0 <= high and stats.exceeds_range(low, high, 0, 1)


def possible(metric: Metric, difference: float) -> float:
    """A difference, clipped to possible differences of accuracies."""
    reach = bounds(metric)[1]
    return min(max(difference, -reach), reach)


def count(n: int, noun: str, plural: str | None = None) -> str:
    """'1 seed', '2 seeds', '1,000 seeds'."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def counts(n_by_status: Counter[Status]) -> str:
    """'3 complete, 1 diverged'."""
    return ", ".join(f"{n_by_status[s]:,} {s}" for s in statuses(n_by_status))


def statuses(n_by_status: Counter[Status]) -> list[Status]:
    """The statuses that occur, in the order of the page."""
    return [s for s in (*STATUSES[1:], STATUSES[0]) if n_by_status[s]]


def words(metric: Metric) -> str:
    """'test accuracy', 'zero weights'; another program's score by its own name."""
    if metric.split == "score":
        return metric.name
    of_weights = {"n_zero": "zero weights", "n_near_zero": "weights near zero"}
    return of_weights.get(metric.name, metric.name.removeprefix("n_").replace("_", " "))


def heading(metric: Metric) -> str:
    """'Test accuracy'; another program's score by its own name."""
    return words(metric) if metric.split == "score" else words(metric).capitalize()


def measured_on(comparison: Comparison) -> str:
    """'on test'; 'by val_acc' where another program's score is all that is known."""
    return "on test" if comparison.has_images else f"by {words(comparison.metric)}"


# ---- the verdict


def nothing_to_compare(n_by_status: Counter[Status], n_trials: int = 0) -> str:
    """The sentence in place of a verdict, where there is no complete run to judge."""
    if n_trials and not n_by_status.total():
        return f"A search of {count(n_trials, 'trial')}: trials are exploratory and not judged."
    if n_by_status["complete"]:
        return f"No complete run can be used ({counts(n_by_status)}): see what was left out, and why."
    return f"No complete run yet ({counts(n_by_status)}): there is nothing to compare."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def verdict(comparison: Comparison) -> tuple[str, str]:
    """The verdict in a sentence, and its evidence."""
    best, base, metric = comparison.best, comparison.baseline, comparison.metric
    if not comparison.measured or base is None:
        return nothing_to_compare(comparison.n_by_status, len(comparison.trials)), ""
    own = f"{_estimate_text(base, metric)}."
    own = _capital(own) if comparison.has_images else own
    if len(comparison.measured) == 1:
        only = "One arm" if len(comparison.arms) == 1 else "Only one arm has complete runs"
        return f"{only}: {base.label}.", f"{own} There is nothing to compare it with."
    leader = next((arm for arm in comparison.ranked if arm is not base), None)
    if leader is None or leader.contrast is None:
        seeds = f"all of its {comparison.n_seeds} seeds" if comparison.n_seeds > 1 else "its seed"
        clean = " without a divergence" if any(arm.has_diverged for arm in comparison.measured) else ""
        why = f": none has {seeds}{clean}" if comparison.is_paired else ": each of them lost a seed"
        if base.failed or base.has_diverged:
            how = "diverged" if base.has_diverged else "failed"
            why = f", which {how} on {len(base.diverged or base.failed)} of its {count(len(base.tried), 'seed')}"
        finding = f"No arm is ranked against the baseline, {base.label}{why}."
        return " ".join([finding, *_named(comparison, None)]), f"{own}{_on_common_seeds(comparison)}"
    if (why := exploratory(comparison)) and leader.contrast.verdict is Verdict.EXPLORATORY:
        return (
            f"Exploratory, no verdict: {why}.",
            f"{leader.label} against {base.label}: {_evidence(leader, leader.contrast, comparison)}",
        )
    if comparison.compares_models:
        models = leader.contrast.verdict.sentence.format(arm=leader.label, baseline=f"the baseline, {base.label}")
        finding = " ".join([models, *_named(comparison, leader)])
        return finding, _evidence(leader, leader.contrast, comparison)
    if best is base:
        finding, evidence = _verdict_for_baseline(leader, leader.contrast, base, comparison)
        return " ".join([finding, *_named(comparison, leader if leader.verdict is Verdict.BETTER else None)]), evidence
    finding = " ".join([_finding(leader, leader.contrast.verdict, base, comparison), *_named(comparison, leader)])
    evidence = f"{_evidence(leader, leader.contrast, comparison)} {_shrunken(comparison)}"
    return finding, evidence.strip()


def shown_arms(comparison: Comparison) -> list[tuple[str, list[Arm]]]:
    """The arms that were shown to differ, in groups named by their verdict, the largest differences first.

    Of a single seed: those whose model differs from the baseline's.
    """
    wanted = ("better", Verdict.BETTER.tone), ("worse", Verdict.WORSE.tone)
    arms = comparison.measured
    groups = [(word, [arm for arm in arms if arm.verdict and arm.verdict.tone == tone]) for word, tone in wanted]
    groups.append(("different models", [arm for arm in arms if arm.verdict is Verdict.MODELS_DIFFER]))
    return [(word, sorted(found, key=lambda arm: -_size(arm))) for word, found in groups if found]


def shown_text(arm: Arm, comparison: Comparison) -> str:
    """'gn (−80.12 points)': an arm that was shown to differ, and by how much."""
    if arm.contrast is None or (arm.verdict is not None and arm.verdict.is_of_divergence):
        return f"{arm.label} (by how often it diverges)"
    metric = comparison.metric
    return f"{arm.label} ({signed(metric, arm.contrast.difference.mean)}{points(metric)})"


def _size(arm: Arm) -> float:
    if arm.contrast is None or (arm.verdict is not None and arm.verdict.is_of_divergence):
        return math.inf
    return abs(arm.contrast.difference.mean)


def _named(comparison: Comparison, subject: Arm | None) -> list[str]:
    """The sentences of a headline on the other arms: which are better, and which are worse, even if none is."""
    said, groups = [], shown_arms(comparison)
    for word, found in groups:
        others = [arm for arm in found if arm is not subject]
        names = ", ".join(shown_text(arm, comparison) for arm in others[:N_NAMED])
        more = f" and {len(others) - N_NAMED:,} more" if len(others) > N_NAMED else ""
        also = "Also " if len(others) < len(found) else ""
        if others:
            said.append(f"{_capital(f'{also}{word}')}: {names}{more}.")
    judged = [arm for arm in comparison.measured if arm.is_compared and not arm.missing]
    asks = comparison.judgement is not None and comparison.judgement.question == "better"
    if asks and comparison.n_seeds > 1 and len(judged) > 1 and not any(word == "worse" for word, _ in groups):
        said.append("None is shown worse.")
    return said


def _on_common_seeds(comparison: Comparison) -> str:
    """The largest gain and loss, where no arm is ranked; empty where none has seeds of the baseline."""
    sign = 1 if comparison.metric.higher_is_better else -1
    gains = [
        (sign * c.difference.mean, arm, count(c.pairs, "seed"))
        for arm in comparison.measured
        if (c := arm.contrast) is not None and is_known(c.difference.mean) and not c.verdict.is_settled
    ]
    if not gains:
        return ""
    (_, first, seeds), (loss, last, its) = max(gains, key=lambda g: g[0]), min(gains, key=lambda g: g[0])
    common = pairing_text(comparison, "in common", "that are left")
    said = f" On the {seeds} {common} the largest gain is {shown_text(first, comparison)}"
    if last is not first and loss < 0:
        over = "" if its == seeds else f" over {its}"
        said += f", the largest loss {shown_text(last, comparison)}{over}"
    return f"{said}, not tested."


def exploratory(comparison: Comparison) -> str:
    """Why a table's figures give no verdict; empty where they do."""
    return "" if comparison.judgement is None else comparison.judgement.exploratory


def _finding(best: Arm, verdict: Verdict, base: Arm, comparison: Comparison) -> str:
    versus = f"the baseline, {base.label}"
    if verdict is Verdict.WORSE:
        return f"{best.label} looked best {_chosen_on(comparison)}, but is worse than {versus}."
    the = "The" if verdict.sentence.startswith("{arm}") else "the"
    name = best.label if verdict is Verdict.BETTER else f"{the} best arm, {best.label},"
    return verdict.sentence.format(arm=name, baseline=versus, margin=margin(comparison))


def _verdict_for_baseline(leader: Arm, contrast: Finding, base: Arm, comparison: Comparison) -> tuple[str, str]:
    found = contrast.verdict.clause.format(margin=margin(comparison))
    selector = comparison.selector
    behind = (
        f"is {size(selector, leader.lead)}{points(selector)} of {words(selector)} behind the baseline"
        if leader.lead < 0
        else f"equals the baseline in {words(selector)}"
    )
    is_ranked_all = all(arm in comparison.ranked for arm in comparison.measured)
    which = "No arm" if is_ranked_all else f"No arm with all {comparison.n_seeds} seeds"
    finding = f"{which} beats the baseline, {base.label}, {_chosen_on(comparison)}"
    finding += f", though {leader.label} is better on test." if leader.verdict is Verdict.BETTER else "."
    where = "on test " if comparison.has_images else ""
    evidence = f"The next best, {leader.label}, {behind}; {where}{found}. {_evidence(leader, contrast, comparison)}"
    return finding, evidence


def _chosen_on(comparison: Comparison) -> str:
    return f"on {comparison.selected_on}" if comparison.has_images else measured_on(comparison)


def _evidence(arm: Arm, contrast: Finding, comparison: Comparison) -> str:
    """'Test accuracy 99.41% against 99.30%: +0.11 points (95% interval +0.03 to +0.19; p = 0.030; 3 seeds).'"""
    metric, facts = comparison.metric, []
    over = " over the test images" if contrast.by_image else ""
    bound = {Verdict.NOT_WORSE: f", not worse by a margin of {margin(comparison)}"}
    bound |= dict.fromkeys((Verdict.EQUIVALENT, Verdict.SMALL), f" within {margin(comparison)}")
    where = bound.get(contrast.verdict, "")
    shown = [(contrast.evidence_level(error(comparison)), contrast.evidence, where if contrast.rests_on_margin else "")]
    if contrast.verdict is Verdict.SMALL:
        shown.append((contrast.equivalence_level(error(comparison)), contrast.equivalence, where))
    if contrast.verdict.is_of_divergence:
        facts.append(own_evidence(contrast, comparison))
        shown = []
    for said, d, where in shown:
        if is_known(d.p):
            test = "McNemar's " if contrast.by_image else ""
            facts.append(f"{said} interval{over} {difference_interval(metric, d)}{where}, {test}{p_equation(d.p)}")
    if not facts:
        facts.append("no spread over seeds" if contrast.is_tied else "no interval")
    elif said := split_over(comparison):
        facts.append(f"corrected for {said}")
    facts.append(pairing_text(comparison, count(contrast.pairs, "seed")))
    means = f"{score(metric, contrast.mean, unit=True)} against {score(metric, contrast.baseline_mean, unit=True)}"
    by = f"{signed(metric, contrast.difference.mean)}{points(metric)}"
    return f"{heading(metric)} {means}: {by} ({'; '.join(facts)})."


def own_evidence(finding: Finding, comparison: Comparison) -> str:
    """The evidence of a verdict that does not rest on the test of a difference alone; empty for the others.

    '90% −0.05 to +0.04, p 0.010' of equivalence or non-inferiority, 'sign test p 0.031' of divergence.
    """
    if finding.verdict.is_of_divergence:
        return f"sign test p {p_text(finding.evidence.p)}"
    if not (finding.rests_on_margin or finding.verdict.is_within_margin) or not finding.is_fair_sample:
        return ""
    d = finding.evidence if finding.rests_on_margin else finding.equivalence
    of_level = finding.equivalence_level(error(comparison))
    return f"{of_level} {difference_interval(comparison.metric, d)}, p {p_text(d.p)}"


def pairing_text(comparison: Comparison, paired: str, unpaired: str = "not paired") -> str:
    """`paired`, or `unpaired` where arms are compared without pairs."""
    return paired if comparison.is_paired else unpaired


def _shrunken(comparison: Comparison) -> str:
    """The winner's lead, corrected for selection; empty where there was only one candidate."""
    found, metric = comparison.shrunken, comparison.metric
    if found is None:
        return ""
    nothing = signed(metric, -0.0)
    before, after = (
        signed(metric, float(x)).replace(nothing, signed(metric, 0.0)) for x in (found.estimate, found.corrected)
    )
    if before == after:
        return ""
    figures = f"{after}{points(metric)} instead of {before}."
    if (found.corrected < found.estimate) == metric.higher_is_better:
        is_ahead = found.estimate != 0 and (found.estimate > 0) == metric.higher_is_better
        how = "overstates its lead" if is_ahead else "looks better than it is"
        return f"The best of {found.n_candidates:,} arms {how}: corrected for the choice, {figures}"
    where = f"{found.n_candidates:,} arms {measured_on(comparison)}"
    return f"It scores below the average of the {where}; shrunk towards it: {figures}"


def error(comparison: Comparison) -> float:
    """The probability of any false statement on a table's differences."""
    return ALPHA if comparison.judgement is None else comparison.judgement.alpha


def level(comparison: Comparison) -> str:
    """'95%': the level of the intervals of a table's differences."""
    return level_text(error(comparison))


def n_corrected(comparison: Comparison) -> int:
    """The number of arms that the error is split over."""
    return 0 if comparison.judgement is None else comparison.judgement.n_split


def split_over(comparison: Comparison) -> str:
    """'5 arms', or '5 arms and 3 looks' in a sequential study; empty for one arm judged once."""
    parts = [(n_corrected(comparison), "arm"), (comparison.n_looks, "look")]
    return " and ".join(count(n, of) for n, of in parts if n > 1)


def margin(comparison: Comparison) -> str:
    """The equivalence margin: '±0.1 points' of accuracy, or '±0.001' of loss; empty where none was asked for."""
    if comparison.margin is None:
        return ""
    if comparison.metric.unit == "share":
        return f"±{100 * comparison.margin:g} points"
    return f"±{comparison.margin:g}{points(comparison.metric)}"


def _estimate_text(arm: Arm, metric: Metric) -> str:
    estimate = arm.estimates[metric]
    if estimate is None:
        return f"{words(metric)} not measured"
    interval = interval_text(metric, estimate)
    interval = f"95% interval {interval}; " if interval else ""
    return f"{words(metric)} {score(metric, estimate.mean, unit=True)} ({interval}{count(estimate.n, 'seed')})"


def tally(comparison: Comparison) -> str:
    """'The 5 other arms against the baseline, on test: 1 better, 1 worse, 3 with no difference shown.'"""
    found = Counter(a.verdict for a in comparison.arms if a.verdict is not None and (a.replicates or a.is_compared))
    if found.total() < 2:
        return ""
    parts = ", ".join(f"{found[verdict]:,} {verdict.in_tally}" for verdict in Verdict if found[verdict])
    return f"The {found.total():,} other arms against the baseline, {measured_on(comparison)}: {parts}."
