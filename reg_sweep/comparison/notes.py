"""The notes that a reader needs to weigh a table's numbers: repeats, selection on test, missing seeds, divergence."""

import math
import statistics

from reg_sweep.comparison.arms import Arm, families
from reg_sweep.comparison.commands import rebuilt
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import listed
from reg_sweep.comparison.sentences import count, is_boundless, pairing_text, score
from reg_sweep.stats.estimates import noisier, pair_correlation
from reg_sweep.stats.scores import failure_rate_bound, stray_seeds


def notes(comparison: Comparison) -> list[str]:
    """All notes of a table, in the order in which the page lists them."""
    return [
        *_on_ignored_norms(comparison),
        *_on_repeats(comparison.arms),
        *_on_selection(comparison),
        *_on_seeds(comparison),
        *_on_noise(comparison),
        *_on_divergence(comparison),
        *_on_design(comparison),
        *_on_rare_failures(comparison),
        *_on_strays(comparison),
        *_on_pairs(comparison),
        *_on_own_code(comparison),
    ]


def _on_own_code(comparison: Comparison) -> list[str]:
    """Arms of one seed whose settings can't be composed into a command; a page never repeats a record's own command."""
    if not comparison.has_images or comparison.n_seeds > 1 or len(comparison.measured) < 2:
        return []
    own = [arm.label for arm in comparison.measured if rebuilt(arm.config) is None]
    if not own:
        return []
    return [
        f"{_listed(own)}: no command can be composed, because the settings need code of your own or an earlier "
        "version. For more seeds, repeat your own command with another seed=."
    ]


_SURELY = 0.001  # an arm is called noisier only if p is below this
_NORM_SETTINGS = ("norm.name", "norm.ghost_batch_size", "norm.groups")


def _on_ignored_norms(comparison: Comparison) -> list[str]:
    """Arms of another norm with the same layers: the model does not use the norm that it is given, or gbn is plain bn.

    A layer norm over channels is torch's group norm with one group, so these two may be recorded alike.
    """
    if not comparison.has_images:
        return []
    ignored: list[str] = []
    for family in families(comparison.measured, _NORM_SETTINGS):
        by_layers: dict[str, list[Arm]] = {}
        for arm in family:
            if layers := arm.replicates[0].layers:
                by_layers.setdefault(repr(layers), []).append(arm)
        for alike in by_layers.values():
            if len({str(arm.config["norm"]["name"]).replace("ln", "gn") for arm in alike}) > 1:
                ignored += [arm.label for arm in alike]
    found = []
    if ignored:
        found.append(
            f"The model ignores norm: {_listed(ignored)} have the same layers, so they are the same network under "
            "different names. Make the model build its norm layers from the norm that it is given."
        )
    own = ((arm.label, arm.config) for arm in comparison.measured)
    whole = [label for label, config in own if config["norm"].get("ghost_batch_size") == config["batch_size"]]
    if whole:
        found.append(
            f"One ghost batch is the whole batch in {_listed(whole)}, so its norm is plain batch norm. Lower "
            "norm.ghost_batch_size, or raise batch_size."
        )
    return found


def _on_repeats(arms: list[Arm]) -> list[str]:
    return [
        f"{arm.label}: {arm.n_repeated} {'run repeats' if arm.n_repeated == 1 else 'runs repeat'} a seed; "
        "only the run that ended last counts."
        for arm in arms
        if arm.n_repeated
    ]


def _on_selection(comparison: Comparison) -> list[str]:
    if comparison.data.n_val > 0 or not comparison.measured or not comparison.has_images:
        return []
    found = [
        "Chosen on test: without val images the best arm and the lambdas were chosen by the same test images that "
        "judge them, so a lead is optimistic."
    ]
    if comparison.epoch == "best_val":
        found.append("Runs without val images count at their last epoch.")
    return found


def _on_seeds(comparison: Comparison) -> list[str]:
    """Notes on the arms that lack seeds and are not ranked, and on the limits of one seed or of equal differences."""
    found, base, n = [], comparison.baseline, comparison.n_seeds
    lacking = [arm for arm in comparison.measured if arm.missing and not arm.has_diverged]
    if lacking:
        counts = [(arm.label, arm.finding) for arm in lacking]
        each = [f"{called} ({f.pairs} of {count(f.n_expected, 'seed')})" for called, f in counts if f is not None]
        over = pairing_text(comparison, "the seeds in common", "the seeds that are left")
        found.append(
            f"Not ranked, since the missing seeds may be the unlucky ones: {_listed(each)}. "
            f"Their differences are over {over}."
        )
    tied = [arm.label for arm in comparison.measured if arm.contrast is not None and arm.contrast.is_tied]
    if tied:
        found.append(
            f"No spread over seeds in {_listed(tied)}: every seed has the same difference from the baseline, so "
            "there is no interval and no p. Neither a difference nor equivalence is shown."
        )
    wide = [
        arm.label
        for arm in comparison.measured
        if arm.contrast is not None and is_boundless(comparison.metric, arm.contrast.difference)
    ]
    if wide:
        found.append(
            f"{count(n, 'seed').capitalize()} are too few to judge {_listed(wide)}: the interval is wider than any "
            "possible difference of accuracies."
        )
    if base is not None and comparison.compares_models and len(comparison.measured) > 1:
        over = " Intervals and p are over the test images (McNemar's exact test)." if comparison.has_images else ""
        found.append(
            f"One seed compares two trained models, not two methods: another seed would give other models.{over}"
        )
    return found


def _on_noise(comparison: Comparison) -> list[str]:
    """The arms whose intervals one far noisier arm makes at least twice as wide, through moderated variances."""
    judgement = comparison.judgement
    if judgement is None or judgement.variance == "plain" or not comparison.is_paired:
        return []
    spread = {
        arm.label: ([d for _, d in arm.contrast.by_seed], arm.contrast.plan.sd)
        for arm in comparison.measured
        if arm.contrast is not None and arm.contrast.plan is not None and arm.contrast.pairs > 2
    }
    if len(spread) < 2:
        return []
    noisiest = max(spread, key=lambda label: statistics.stdev(spread[label][0]))
    widened: dict[str, float] = {}
    for label, (values, sd) in spread.items():
        times, p = noisier(spread[noisiest][0], values)
        if p < _SURELY and sd > 2 * statistics.stdev(values):
            widened[label] = times
    if not widened:
        return []
    is_one = len(widened) == 1
    option = "--variance plain" if judgement.design is None else "hydra.sweeper.design.variance=plain"
    return [
        f"The differences of {noisiest} spread {'' if is_one else 'up to '}{max(widened.values()):.0f} times as far as "
        f"those of {_listed(list(widened))}, and moderated variances share this noise: {'its' if is_one else 'their'} "
        f"{'interval is' if is_one else 'intervals are'} far wider than {'its' if is_one else 'their'} seeds imply. "
        f"This makes no claim false, but hides differences. If you expect such an arm, set {option} before the first "
        "run."
    ]


def _on_divergence(comparison: Comparison) -> list[str]:
    diverged = [arm for arm in comparison.arms if arm.has_diverged]
    if not diverged:
        return []
    each = [f"{arm.label} ({len(arm.diverged)} of {count(len(arm.tried), 'seed')})" for arm in diverged]
    means = (
        "Their means cover only the other seeds and are not tested. Instead, how"
        if any(arm.replicates for arm in diverged)
        else "How"
    )
    return [
        f"Diverged: {_listed(each)}. {means} often "
        "an arm diverges is compared with the baseline, in both directions (exact sign test; at least six seeds)."
    ]


def _on_design(comparison: Comparison) -> list[str]:
    """A note on the choices fixed before the runs, and those made with the report."""
    judgement, study = comparison.judgement, comparison.study
    if judgement is None or len(comparison.measured) < 2:
        return []
    if judgement.exploratory:
        return [f"Exploratory, since {judgement.exploratory}: means and intervals, no verdict."]
    design = judgement.design
    if design is not None and study is not None:
        looks = listed(list(map(str, design.looks)))
        return [
            f"Judged by the design of the study {study.study.name}: one error of {100 * judgement.alpha:g}% over all "
            f"arms and the looks at {looks} seeds. A decided arm was not trained further. "
            f"Fixed before the first run: metric, epoch, margin, baseline, {judgement.variance} variances, pairing "
            f"({judgement.pairing}) and question ({judgement.question})."
        ]
    if comparison.n_seeds < 2:
        return []
    return [
        f"Chosen for the report, not before the runs: metric, epoch, margin, baseline, {judgement.variance} "
        f"variances, pairing ({judgement.pairing}) and question ({judgement.question})."
    ]


def _on_rare_failures(comparison: Comparison) -> list[str]:
    """The failure rate that a verdict on means can't exclude."""
    good = [arm for arm in comparison.measured if arm.verdict is not None and arm.verdict.is_no_loss]
    whole = [arm for arm in good if arm.contrast is not None and not arm.has_diverged]
    if not whole:
        return []
    n = min(len(arm.replicates) for arm in whole)
    rate = f"a failure rate of up to {failure_rate_bound(0, n):.0%}"
    return [f"{count(n, 'seed')} without a failure leave {rate} possible: a rare collapse would not show."]


def _on_strays(comparison: Comparison) -> list[str]:
    """The arms with an outlying seed, which their mean does not represent."""
    found, metric = [], comparison.metric
    for arm in comparison.measured:
        values = arm.values(metric, comparison.epoch)
        step = 1 / comparison.data.n_test if metric.unit == "share" and comparison.has_images else 0.0
        far = [arm.replicates[i] for i in stray_seeds(values, step)]
        if far:
            each = (f"seed {r.seed}: {score(metric, r.value(metric, comparison.epoch), unit=True)}" for r in far)
            seeds = ", ".join(each)
            found.append(f"{arm.label} ({seeds})")
    return [f"The mean does not represent {_listed(found)}: these seeds lie far from the others."] if found else []


def _on_pairs(comparison: Comparison) -> list[str]:
    """The correlation of pairs, on which the gain from pairing depends."""
    base, judgement = comparison.baseline, comparison.judgement
    if base is None or judgement is None or not comparison.is_paired or comparison.n_seeds < 3:
        return []
    theirs = base.scores(comparison.metric, comparison.epoch)
    found = []
    for arm in comparison.measured:
        ours = arm.scores(comparison.metric, comparison.epoch)
        common = [s for s in ours if s in theirs and math.isfinite(ours[s]) and math.isfinite(theirs[s])]
        if arm is not base and len(common) > 2:
            r = pair_correlation([ours[s] for s in common], [theirs[s] for s in common]).r
            found += [r] if math.isfinite(r) else []
    if not found:
        return []
    low, high = (f"{r:.2f}".replace("-", "−") for r in (min(found), max(found)))
    over = f" over {count(len(found), 'arm')}" if len(found) > 1 else ""
    of = f"{low if low == high else f'{low} to {high}'}{over}"
    return [
        f"On the same seed, an arm's score and the baseline's correlate by {of}. The nearer to 1, the more pairing by "
        "seed narrows an interval; at 0 it gains nothing."
    ]


def _listed(labels: list[str]) -> str:
    return listed(labels, 3)
