"""The notes that a reader needs to weigh a table's numbers: repeats, selection on test, missing seeds, divergence."""

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.sentences import count


def notes(comparison: Comparison) -> list[str]:
    """All notes of a table, in the order in which the page lists them."""
    return [
        *_on_repeats(comparison.arms),
        *_on_selection(comparison),
        *_on_seeds(comparison),
        *_on_divergence(comparison),
        *_on_design(comparison),
    ]


def _on_repeats(arms: list[Arm]) -> list[str]:
    return [
        f"{arm.label}: {arm.n_repeated} {'run repeats' if arm.n_repeated == 1 else 'runs repeat'} a seed; "
        "the one that ended last counts."
        for arm in arms
        if arm.n_repeated
    ]


def _on_selection(comparison: Comparison) -> list[str]:
    if comparison.data.n_val > 0 or not comparison.measured:
        return []
    found = [
        "Chosen on test: without val images the best arm and the lambdas were chosen by the same test images that "
        "judge them, so a lead is optimistic."
    ]
    if comparison.epoch == "best_val":
        found.append("Runs without val images count at their last epoch.")
    return found


def _on_seeds(comparison: Comparison) -> list[str]:
    """Which arms are not ranked for want of seeds, and what one seed or equal ones can't tell."""
    found, base, n = [], comparison.baseline, comparison.n_seeds
    lacking = [arm for arm in comparison.measured if arm.missing and not arm.has_diverged]
    if lacking:
        each = [f"{arm.label} ({n - len(arm.missing)} of {count(n, 'seed')})" for arm in lacking]
        found.append(
            f"Not ranked, since the seeds that are missing may be the unlucky ones: {_listed(each)}. "
            "Their differences are on the seeds in common."
        )
    tied = [arm.label for arm in comparison.measured if arm.contrast is not None and arm.contrast.is_tied]
    if tied:
        found.append(
            f"No spread over seeds in {_listed(tied)}: every seed has the same difference from the baseline, from "
            "which no interval and no p can be had. Neither a difference nor equivalence is shown."
        )
    if base is not None and n == 1 and len(comparison.measured) > 1:
        found.append(
            "One seed compares two trained models, not two methods: another seed would give other models. Intervals "
            "and p are over the test images (McNemar's exact test)."
        )
    return found


def _on_divergence(comparison: Comparison) -> list[str]:
    diverged = [arm for arm in comparison.arms if arm.has_diverged]
    if not diverged:
        return []
    each = [f"{arm.label} ({len(arm.diverged)} of {count(len(arm.tried), 'seed')})" for arm in diverged]
    return [
        f"Diverged: {_listed(each)}. The means there are of the seeds that did not; such an arm is never best nor "
        "better, and is judged by how often it diverges where the baseline does not (exact sign test; it takes at "
        "least five seeds)."
    ]


def _on_design(comparison: Comparison) -> list[str]:
    design, study = comparison.design, comparison.study
    if design is None or study is None:
        return []
    return [
        f"Judged by the design of the study {study.study.name}: one error of {100 * design.alpha:g}% over all arms and "
        f"its looks at {', '.join(map(str, design.looks))} seeds. An arm that was decided trained no more."
    ]


def _listed(labels: list[str], n: int = 3) -> str:
    more = f" and {len(labels) - n} more" if len(labels) > n else ""
    return ", ".join(labels[:n]) + more
