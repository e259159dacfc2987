"""What the comparison of arms has shown, in sentences: from the numbers alone."""

from collections import Counter

from reg_sweep.comparison.arms import Arm, Contrast
from reg_sweep.comparison.tables import Comparison
from reg_sweep.comparison.wording import (
    count,
    counts,
    interval_text,
    is_known,
    p_equation,
    points,
    score,
    signed,
    words,
)
from reg_sweep.records import Metric, Status


def nothing_to_compare(n_by_status: Counter[Status]) -> str:
    """What is said where no run is complete."""
    return f"No complete run yet ({counts(n_by_status)}): there is nothing to compare."


def sample_warning(comparisons: list[Comparison]) -> str:
    """What a reader must know of runs that saw the offline sample; empty if none did."""
    on_sample = [c for c in comparisons if c.data.source == "offline sample"]
    if not on_sample:
        return ""
    runs = (
        "these runs" if len(on_sample) == len(comparisons) else f"the runs on {'; '.join(c.label for c in on_sample)}"
    )
    missing = [name for name in dict.fromkeys(c.data.name for c in on_sample) if name != "mnist_5k"]
    why = f", since {' and '.join(missing)} was out of reach" if missing else ""
    return (
        f"Offline sample: {runs} saw 5,000 of MNIST's images{why}. Their results do not stand for the whole data set."
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def verdict(comparison: Comparison) -> tuple[str, str]:
    """What was found, in a sentence, and its evidence: from the numbers alone."""
    best, base, metric = comparison.best, comparison.baseline, comparison.metric
    if not comparison.measured or base is None:
        return nothing_to_compare(comparison.n_by_status), ""
    if len(comparison.measured) == 1:
        evidence = f"{_capital(_estimate_text(base, metric))}. There is nothing to compare it with."
        return f"Only one arm has complete runs: {base.label}.", evidence
    if best is None:
        return "Every arm has a run that diverged, so none is named best.", ""
    if best is base:
        return _verdict_for_baseline(comparison, base)
    versus = f"the baseline, {base.label}"
    if best.contrast is None:
        evidence = f"{_capital(_estimate_text(best, metric))}, against {_estimate_text(base, metric)}."
        return f"{best.label} is the best arm, but shares no seed with {versus}.", evidence
    finding = {
        "better": f"{best.label} is better than {versus}.",
        "worse": f"{best.label} looked best on {comparison.selected_on}, but is worse than {versus}.",
        "no difference shown": f"No difference shown between the best arm, {best.label}, and {versus}.",
        "shown equivalent": f"The best arm, {best.label}, is shown equivalent to {versus}, "
        f"within {margin(comparison)}.",
    }[best.contrast.verdict]
    return finding, _evidence(best, best.contrast, comparison)


def _verdict_for_baseline(comparison: Comparison, base: Arm) -> tuple[str, str]:
    finding = f"No arm beats the baseline, {base.label}, on {comparison.selected_on}."
    rival = next((a for a in comparison.measured if a.contrast is not None), None)
    if rival is None or rival.contrast is None:
        return finding, f"{_capital(_estimate_text(base, comparison.metric))}; no other arm shares a seed with it."
    found = {
        "better": "is better on test",
        "worse": "is worse",
        "no difference shown": "shows no difference",
        "shown equivalent": f"is shown equivalent within {margin(comparison)}",
    }[rival.contrast.verdict]
    return finding, f"The next, {rival.label}, {found}. {_evidence(rival, rival.contrast, comparison)}"


def _evidence(arm: Arm, contrast: Contrast, comparison: Comparison) -> str:
    """'Test accuracy 99.41 % against 99.30 %: +0.11 points (95% interval +0.03 to +0.19; 3 seeds; p = 0.030).'"""
    d, metric = contrast.difference, comparison.metric
    facts = []
    if is_known(d.ci_low):
        facts.append(f"95% interval {signed(metric, d.ci_low)} to {signed(metric, d.ci_high)}")
    uneven = len(arm.replicates) != contrast.n_seeds
    facts.append(count(contrast.n_seeds, "seed") + (" in common" if uneven else ""))
    if is_known(contrast.p_adjusted):
        n_compared = sum(a.contrast is not None and is_known(a.contrast.p_adjusted) for a in comparison.arms)
        test = "McNemar's " if contrast.by_image else ""
        corrected = f" after Holm's correction over {n_compared:,} arms" if n_compared > 1 else ""
        facts.append(f"{test}{p_equation(contrast.p_adjusted)}{corrected}")
    else:
        facts.append("no spread over seeds" if contrast.is_tied else "too few for an interval")
    means = f"{score(metric, contrast.mean, unit=True)} against {score(metric, contrast.baseline_mean, unit=True)}"
    text = f"{_capital(words(metric))} {means}: {signed(metric, d.mean)}{points(metric)} ({'; '.join(facts)})."
    if contrast.n_seeds == 1:
        text += " One seed compares two trained models, not two methods: add seeds, such as seed=1,2,3."
    return text


def margin(comparison: Comparison) -> str:
    """The equivalence margin: '±0.1 points' of accuracy, or '±0.001' of loss."""
    if comparison.metric.unit == "share":
        return f"±{100 * comparison.margin:g} points"
    return f"±{comparison.margin:g}"


def _estimate_text(arm: Arm, metric: Metric) -> str:
    estimate = arm.estimates[metric]
    if estimate is None:
        return f"{words(metric)} not measured"
    interval = interval_text(metric, estimate)
    interval = f"95% interval {interval}; " if interval else ""
    return f"{words(metric)} {score(metric, estimate.mean, unit=True)} ({interval}{count(estimate.n, 'seed')})"


def tally(comparison: Comparison) -> str:
    """'The 5 other arms against the baseline: 1 better, 1 worse, 3 with no difference shown.'"""
    found: Counter[str] = Counter(arm.contrast.verdict for arm in comparison.arms if arm.contrast is not None)
    if found.total() < 2:
        return ""
    names = {"no difference shown": "with no difference shown"}
    order = ("better", "worse", "shown equivalent", "no difference shown")
    parts = ", ".join(f"{found[w]:,} {names.get(w, w)}" for w in order if found[w])
    return f"The {found.total():,} other arms against the baseline: {parts}."


def compared(comparison: Comparison) -> str:
    """What was compared on which images, the baseline, and how the best arm was chosen."""
    data = comparison.data
    when = "the last epoch" if comparison.epoch == "last" else "the epoch that val chose"
    n_complete = sum(len(arm.replicates) for arm in comparison.arms)
    chosen = (
        f"The best arm was chosen on val ({data.n_val:,} images held out of train)"
        if comparison.selected_on == "val"
        else "The best arm was chosen on test, since no images are held out as val"
    )
    trained = "" if data.n_train is None else f"{data.n_train:,} train images, "
    noise = f"{100 * data.label_noise:g}% of them with a wrong label, " if data.label_noise else ""
    return (
        f"Compared: {count(len(comparison.measured), 'arm')}, {count(n_complete, 'complete run')} on {data.name} "
        f"({trained}{noise}{data.n_test:,} test images; {data.source}; fingerprint {data.fingerprint}). "
        f"{_baseline(comparison)}{chosen}, by its mean {words(comparison.selector)} at {when}; "
        "differences are on test at the same epoch."
    )


def _baseline(comparison: Comparison) -> str:
    """How the baseline came to be it."""
    base = comparison.baseline
    if base is None or len(comparison.measured) < 2:
        return ""
    if comparison.is_baseline_named:
        why = "as asked"
    elif base.config["l1"] == base.config["l2"] == 0:
        is_only = sum(a.config["l1"] == a.config["l2"] == 0 for a in comparison.measured) == 1
        why = "without L1 and L2" + ("" if is_only else " (of several, the commonest norm, then the most runs)")
    else:
        why = "the weakest penalty, since no arm is without L1 and L2"
    return f"The baseline is {base.label}: {why}. "
