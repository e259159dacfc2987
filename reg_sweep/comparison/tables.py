"""Comparisons: the arms that saw the same images, ranked, and each against one baseline."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reg_sweep.comparison import stats
from reg_sweep.comparison.arms import Arm, Contrast, make_arm, paired
from reg_sweep.comparison.labels import GROUPS_WITH_OWN_SETTINGS, arm_labels, data_labels, flatten
from reg_sweep.comparison.results import TEST_ACCURACY, DataIdentity, Epoch, Result
from reg_sweep.records import Metric, Status

_ALPHA = 0.05


class ArmError(ValueError):
    """A baseline that names no arm, or several. The message is one line and names the arms there are."""


@dataclass
class Comparison:
    """The arms of the same data, the best first, compared with `baseline`.

    `label` names the data, and sets it apart from that of the other comparisons. `notes` are sentences that a reader
    needs to judge the numbers. `is_baseline_named` tells that the reader chose the baseline.
    """

    data: DataIdentity
    label: str
    metric: Metric
    epoch: Epoch
    margin: float
    arms: list[Arm]
    n_by_status: Counter[Status]
    notes: list[str]
    baseline: Arm | None = None
    is_baseline_named: bool = False

    @property
    def selected_on(self) -> Literal["val", "test"]:
        """Which images chose the best arm: val, or test where there are no val images."""
        return _selected_on(self.data)

    @property
    def selector(self) -> Metric:
        """The metric that ranks the arms."""
        return self.metric.on(self.selected_on)

    @property
    def measured(self) -> list[Arm]:
        """The arms that have a complete run."""
        return [arm for arm in self.arms if arm.replicates]

    @property
    def best(self) -> Arm | None:
        """The arm with the best score; one with a diverged run can't be best."""
        return next((arm for arm in self.measured if not arm.has_diverged and not math.isnan(arm.score)), None)

    @property
    def listed(self) -> list[Arm]:
        """The arms that are more than trials which a study gave up."""
        return [arm for arm in self.arms if arm.replicates or set(arm.n_by_status) != {"pruned"}]

    @property
    def held_fixed(self) -> dict[str, Any]:
        """The settings, flattened, that all arms share.

        One that belongs to a choice of its group, such as a ghost batch size, is shared by the arms that made it.
        """
        flat = [flatten(arm.config) for arm in self.arms]
        held = {}
        for key in dict.fromkeys(k for f in flat for k in f):
            values = [f.get(key) for f in flat]
            if key.startswith(GROUPS_WITH_OWN_SETTINGS):
                values = [v for v in values if v is not None] or [None]
            if all(v == values[0] for v in values):
                held[key] = values[0]
        return held


def make_comparisons(
    results: list[Result],
    *,
    metric: Metric = TEST_ACCURACY,
    epoch: Epoch = "last",
    margin: float = 0.001,
    baseline: str | None = None,
    problems: list[str] | None = None,
) -> list[Comparison]:
    """One comparison for each `DataIdentity`, the one with most runs first.

    Runs that never came to their data (they failed before) belong to none. What is wrong with a single run is added
    to `problems`.

    Raises:
        ArmError: `baseline` names no arm of any comparison, or several of one.
    """
    problems = [] if problems is None else problems
    by_data: dict[DataIdentity, list[Result]] = {}
    for r in results:
        if r.data is not None:
            by_data.setdefault(r.data, []).append(r)
    groups = sorted(by_data.items(), key=lambda item: len(item[1]), reverse=True)
    labels = data_labels([asdict(data) for data, _ in groups])
    comparisons = [
        _ranked(data, label, runs, metric, epoch, margin, problems)
        for (data, runs), label in zip(groups, labels, strict=True)
    ]
    chosen = [_find_baseline(comparison, baseline) for comparison in comparisons]
    if baseline is not None and comparisons and not any(chosen):
        known = "; ".join(dict.fromkeys(arm.label for c in comparisons for arm in c.measured[:20]))
        raise ArmError(f"--baseline must name one of the arms, got {baseline!r}: use one of {known}")
    for comparison, arm in zip(comparisons, chosen, strict=True):
        comparison.is_baseline_named = arm is not None
        comparison.baseline = arm or _default_baseline(comparison)
        _compare(comparison, problems)
    return comparisons


def _ranked(
    data: DataIdentity,
    label: str,
    results: list[Result],
    metric: Metric,
    epoch: Epoch,
    margin: float,
    problems: list[str],
) -> Comparison:
    """The arms of one data, the best first, not yet compared."""
    by_arm: dict[str, list[Result]] = {}
    for r in results:
        by_arm.setdefault(r.arm, []).append(r)
    selector = metric.on(_selected_on(data))
    labels = arm_labels([runs[0].config for runs in by_arm.values()])
    arms = [
        make_arm(runs, called, metric, selector, epoch, problems)
        for runs, called in zip(by_arm.values(), labels, strict=True)
    ]
    repeats = _notes_on_repeats(arms)
    sign = -1 if metric.higher_is_better else 1
    arms.sort(key=lambda a: (not a.replicates, math.isnan(a.score), sign * a.score if not math.isnan(a.score) else 0))
    notes = [*repeats, *_notes_on_selection(data, arms, epoch), *_notes_on_divergence(arms)]
    return Comparison(data, label, metric, epoch, margin, arms, Counter(r.status for r in results), notes)


def _selected_on(data: DataIdentity) -> Literal["val", "test"]:
    return "val" if data.n_val > 0 else "test"


def _notes_on_repeats(arms: list[Arm]) -> list[str]:
    return [
        f"{arm.label}: {arm.n_repeated} {'run repeats' if arm.n_repeated == 1 else 'runs repeat'} a seed; "
        "the one that ended last counts."
        for arm in arms
        if arm.n_repeated
    ]


def _notes_on_selection(data: DataIdentity, arms: list[Arm], epoch: Epoch) -> list[str]:
    if data.n_val > 0 or not any(arm.replicates for arm in arms):
        return []
    notes = [
        "Chosen on test: without val images the best arm and the lambdas were chosen by the same test images that "
        "judge them, so a lead is optimistic."
    ]
    if epoch == "best_val":
        notes.append("Runs without val images count at their last epoch.")
    return notes


def _notes_on_divergence(arms: list[Arm]) -> list[str]:
    diverged = [arm.label for arm in arms if arm.replicates and arm.has_diverged]
    if not diverged:
        return []
    return [
        f"Some runs diverged in {_listed(diverged)}: the means there are of the runs that did not, "
        "and such an arm can't be best."
    ]


# ---- the baseline


_BASELINE_NORMS = ("bn", "none", "gbn", "gn", "ln", "in")


def _default_baseline(comparison: Comparison) -> Arm | None:
    """The arm without L1 and L2 that has the norm most arms use; without any such arm the one with the weakest penalty.

    Nothing here looks at a result: where arms tie, an order fixed beforehand decides.
    """
    norms = Counter(arm.config["norm"]["name"] for arm in comparison.arms)

    def rank(arm: Arm) -> tuple[float, int, int, int, str]:
        norm = arm.config["norm"]["name"]
        order = _BASELINE_NORMS.index(norm) if norm in _BASELINE_NORMS else len(_BASELINE_NORMS)
        strength = float(arm.config["l1"]) + float(arm.config["l2"])
        return strength, -norms[norm], order, -arm.n_by_status.total(), arm.label

    return min(comparison.measured, key=rank, default=None)


def _find_baseline(comparison: Comparison, wanted: str | None) -> Arm | None:
    """The measured arm that `wanted` names: by its label, or by settings such as `norm=bn,l1=0,l2=0`."""
    if wanted is None:
        return None
    named = [arm for arm in comparison.measured if _squeeze(arm.label) == _squeeze(wanted)]
    if not named and "=" in wanted:
        settings = dict(part.split("=", 1) for part in wanted.split(",") if "=" in part)
        named = [arm for arm in comparison.measured if _has_settings(flatten(arm.config), settings)]
    if len(named) > 1:
        raise ArmError(
            f"--baseline must name one arm, got {wanted!r}, which {len(named)} have: "
            f"use one of {'; '.join(arm.label for arm in named)}"
        )
    return named[0] if named else None


def _squeeze(label: str) -> str:
    return "".join(label.lower().replace("·", " ").split())


def _has_settings(flat: dict[str, Any], settings: dict[str, str]) -> bool:
    for key, wanted in settings.items():
        key, wanted = key.strip(), wanted.strip()
        value = flat.get(key, flat.get(f"{key}.name"))
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                if float(wanted) != value:
                    return False
            except ValueError:
                return False
        elif str(value).lower() != wanted.lower():
            return False
    return True


# ---- every arm against it


def _compare(comparison: Comparison, problems: list[str]) -> None:
    """Gives every arm but the baseline its contrast; Holm's correction is over all of them."""
    base, metric = comparison.baseline, comparison.metric
    if base is None:
        return
    found = [
        (arm, pair)
        for arm in comparison.measured
        if arm is not base
        and (pair := paired(arm, base, metric, comparison.epoch, comparison.margin, comparison.data.n_test, problems))
        is not None
    ]
    p_adjusted = stats.holm([pair.difference.p for _, pair in found])
    p_equivalence = stats.holm([pair.p_equivalence for _, pair in found])
    for (arm, pair), p, p_within in zip(found, p_adjusted, p_equivalence, strict=True):
        word = stats.verdict(pair.difference, float(p), float(p_within), metric.higher_is_better, _ALPHA)
        mean, baseline_mean = pair.values.mean(axis=1)
        n_seeds = pair.values.shape[1]
        arm.contrast = Contrast(mean, baseline_mean, pair.difference, float(p), word, n_seeds, pair.by_image)
    comparison.notes += _notes_on_pairing(comparison.measured, base)


def _notes_on_pairing(arms: list[Arm], base: Arm) -> list[str]:
    """What a reader must know of how the arms were paired with the baseline."""
    notes = []
    seeds = [r.seed for r in base.replicates]
    uneven = [arm.label for arm in arms if [r.seed for r in arm.replicates] != seeds]
    if uneven:
        notes.append(
            f"Not every arm has the baseline's seeds ({_listed(uneven)}): differences are paired on the seeds that "
            "both have."
        )
    tied = [arm.label for arm in arms if arm.contrast is not None and arm.contrast.is_tied]
    if tied:
        notes.append(
            f"No spread over seeds in {_listed(tied)}: every seed has the same difference from the baseline, from "
            "which no interval and no p can be had. Neither a difference nor equivalence is shown."
        )
    if any(arm.contrast is not None and arm.contrast.by_image for arm in arms):
        notes.append(
            "With one seed in common McNemar's exact test and an interval over the test images compare two trained "
            "models, not two methods: another seed would give other models."
        )
    return notes


def _listed(labels: list[str], n: int = 3) -> str:
    more = f" and {len(labels) - n} more" if len(labels) > n else ""
    return ", ".join(labels[:n]) + more
