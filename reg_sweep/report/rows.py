"""The rows of the page's two tables: arms, and runs."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from reg_sweep.comparison.arms import Arm, mean_of_known
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import filter_words, norm_text, own_words, typed
from reg_sweep.comparison.results import TEST_ACCURACY, Epoch, Result
from reg_sweep.comparison.sentences import (
    DASH,
    bounds,
    count,
    counts,
    difference_interval,
    interval_text,
    is_known,
    own_evidence,
    p_text,
    score,
    signed,
    statuses,
)
from reg_sweep.config.regularizers import penalty_strengths
from reg_sweep.readers.servers import Address
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.scale import Scale, scale
from reg_sweep.runs.discovery import real_path
from reg_sweep.runs.ranking import lambda_text
from reg_sweep.runs.record import Metric
from reg_sweep.stats.estimates import Estimate
from reg_sweep.stats.verdict import Tone

N_RUNS_LISTED = 500


@dataclass(frozen=True)
class MetricCell:
    """A metric's mean and interval as text, and the places of its dots and interval on a strip of 0..100.

    `key` sorts; `span` is the interval's ends and the mean, None without an interval; `seeds` the dots as text.
    """

    key: float | None
    mean: str
    interval: str
    dots: list[float]
    span: tuple[float, float, float] | None
    seeds: str


@dataclass(frozen=True)
class ContrastCells:
    """An arm against the baseline as text; a `..._key` sorts. `is_uneven`: the arm lacks seeds of the baseline.

    `interval` and `p_adjusted` are corrected for all arms and belong together; so do `interval_alone` and `p`, which
    are as if this were the only arm.
    """

    difference: str = DASH
    difference_key: float | None = None
    interval: str = ""
    pairs: str = ""
    is_uneven: bool = False
    by_image: bool = False
    p: str = DASH
    p_key: float | None = None
    interval_alone: str = ""
    p_adjusted: str = DASH
    p_adjusted_key: float | None = None


@dataclass(frozen=True)
class ArmRow:
    """One arm in the table of arms: cells as text; a `..._key` is the number by which a column sorts.

    `words` are the settings by which a filter finds it, such as norm=gbn. `lead` is its lead over the baseline in the
    metric that selects, by which the rows are sorted. `key` links it with its other places on the page; `tone` colours
    the verdict; `details` are shown below it. `settings` are the cells of another program's arm, one for each of
    `setting_names`, and what sorts them.
    """

    label: str
    words: str
    lead: str
    lead_key: float
    slot: int | None
    key: int | None
    is_baseline: bool
    is_best: bool
    norm: str
    l1: float
    l2: float
    penalty: str
    settings: list[tuple[str, float | None]]
    n: int
    others: str
    metrics: list[MetricCell]
    contrast: ContrastCells
    verdict: str
    tone: Tone
    details: str
    gap: str
    gap_key: float
    zero: str
    zero_key: float
    near: str
    near_key: float
    dead: str
    dead_key: float
    epoch: str
    epoch_key: float
    seconds: str
    seconds_key: float
    best_test: str
    best_test_key: float


@dataclass(frozen=True)
class RunRow:
    """One run in the table of runs. `table` names its table of arms where the page has several."""

    status: str
    label: str
    words: str
    table: str
    seed: int
    accuracy: str
    accuracy_key: float
    epochs: int
    seconds: str
    seconds_key: float
    command: str
    message: str
    folder: str
    link: str


# ---- arms


def arm_rows(comparison: Comparison, canvas: Canvas) -> list[ArmRow]:
    """A row for each arm, without those that a study pruned."""
    axes = {metric: _strip_scale(comparison, metric) for metric in comparison.metrics}
    held = comparison.held_fixed
    return [_arm_row(arm, comparison, canvas, axes, held) for arm in comparison.listed]


def setting_names(comparison: Comparison) -> list[str]:
    """The settings that differ between another program's arms; this project's arms have columns of their own."""
    if comparison.has_images:
        return []
    held = comparison.held_fixed
    return [k for k in dict.fromkeys(k for arm in comparison.arms for k in arm.config) if k not in held]


def strip_ends(comparison: Comparison) -> list[str]:
    """For each test metric the scale of all strips in its column: '98.90 to 99.52', and whether it is stretched."""

    texts = []
    for metric in comparison.metrics:
        axis = _strip_scale(comparison, metric)
        far = f", stretched around {score(metric, axis.centre)}" if axis.is_stretched else ""
        texts.append(f"strips: {score(metric, axis.low)} to {score(metric, axis.high)}{far}")
    return texts if comparison.measured else [""] * len(texts)


def _strip_scale(comparison: Comparison, metric: Metric) -> Scale:
    """One axis for all arms' dots and intervals, which are clipped to possible accuracies or losses."""
    ends = [end for arm in comparison.measured for end in _ends(metric, arm.estimates[metric])]
    dots = [v for arm in comparison.measured for v in arm.values(metric, comparison.epoch) if math.isfinite(v)]
    axis = scale([*ends, *dots], float(np.median(dots)) if dots else 0.0)
    most = bounds(metric)[1]
    beyond = axis.high - most if math.isfinite(most) and not axis.is_stretched else 0.0
    return replace(axis, low=axis.low - beyond, high=most) if beyond > 0 else axis


def _ends(metric: Metric, estimate: Estimate | None) -> list[float]:
    if estimate is None or not is_known(estimate.ci_low):
        return []
    low, high = bounds(metric)
    return [max(estimate.ci_low, low), min(estimate.ci_high, high)]


def _arm_row(
    arm: Arm, comparison: Comparison, canvas: Canvas, axes: dict[Metric, Scale], held: Mapping[str, Any]
) -> ArmRow:
    config, shares, epoch = arm.config, arm.weight_shares, comparison.epoch
    gap = mean_of_known(
        r.value(TEST_ACCURACY.on("train"), epoch) - r.value(TEST_ACCURACY, epoch) for r in arm.replicates
    )
    chosen_epoch = mean_of_known(
        r.best_val["epoch"] if r.best_val and comparison.data.n_val > 0 else math.nan for r in arm.replicates
    )
    seconds = mean_of_known(r.seconds for r in arm.replicates)
    lead = 0.0 if arm is comparison.baseline and arm in comparison.ranked else arm.lead
    return ArmRow(
        label=arm.label,
        words=filter_words(config, held),
        lead=DASH if len(comparison.arms) == 1 else signed(comparison.selector, lead),
        lead_key=lead if comparison.selector.higher_is_better else -lead,
        slot=canvas.slot(arm),
        key=canvas.key(arm),
        is_baseline=arm is comparison.baseline and len(comparison.arms) > 1,
        is_best=arm is comparison.best and comparison.n_seeds > 1,
        norm=config["norm"]["name"] if comparison.has_images else DASH,
        l1=config["l1"] if comparison.has_images else math.nan,
        l2=config["l2"] if comparison.has_images else math.nan,
        penalty=_penalty(config) if comparison.has_images else DASH,
        settings=[_setting(config.get(name)) for name in setting_names(comparison)],
        n=len(arm.replicates),
        others=counts(Counter({s: n for s, n in arm.n_by_status.items() if s != "complete"})),
        metrics=[_metric_cell(arm, metric, epoch, axes[metric]) for metric in comparison.metrics],
        contrast=_contrast_cells(arm, comparison.metric, is_paired=comparison.is_paired),
        verdict=_word(arm, comparison),
        tone=tone(arm),
        details=_details(arm, comparison),
        gap=signed(TEST_ACCURACY, gap),
        gap_key=gap,
        zero=_share(shares.zero),
        zero_key=shares.zero,
        near=_share(shares.near_zero),
        near_key=shares.near_zero,
        dead=_share(shares.dead),
        dead_key=shares.dead,
        epoch=f"{chosen_epoch:.3g}" if is_known(chosen_epoch) else DASH,
        epoch_key=chosen_epoch,
        seconds=f"{seconds:,.0f}" if is_known(seconds) else DASH,
        seconds_key=seconds,
        best_test=score(TEST_ACCURACY, arm.best_test),
        best_test_key=arm.best_test,
    )


def _contrast_cells(arm: Arm, metric: Metric, *, is_paired: bool) -> ContrastCells:
    contrast = arm.contrast
    if contrast is None:
        return ContrastCells()
    d, alone = contrast.difference, contrast.alone
    has_p = contrast.is_fair_sample and contrast.question == "better"
    return ContrastCells(
        difference=signed(metric, d.mean),
        difference_key=d.mean,
        interval="no spread over seeds" if contrast.is_tied else difference_interval(metric, d),
        pairs=count(contrast.pairs, "seed"),
        is_uneven=bool(arm.missing) and is_paired,
        by_image=contrast.by_image,
        p=p_text(alone.p) if has_p else DASH,
        p_key=alone.p if has_p else None,
        interval_alone=difference_interval(metric, alone),
        p_adjusted=p_text(d.p) if has_p else DASH,
        p_adjusted_key=d.p if has_p else None,
    )


def _setting(value: object) -> tuple[str, float | None]:
    """A setting as text, and the number that sorts it."""
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        return DASH if value is None else str(value), None
    return (lambda_text(value, 6) if isinstance(value, float) else str(value)), float(value)


def tone(arm: Arm) -> Tone:
    """The colour of an arm's verdict."""
    return "" if arm.verdict is None else arm.verdict.tone


def _word(arm: Arm, comparison: Comparison) -> str:
    """The verdict on an arm, or why there is none."""
    others = [s for s in statuses(arm.n_by_status) if s != "complete"]
    if arm is comparison.baseline:
        return "baseline" if len(comparison.arms) > 1 else DASH
    if others and not arm.replicates and not (arm.verdict and arm.verdict.is_settled):
        return ", ".join(others)
    return arm.verdict or DASH


def _details(arm: Arm, comparison: Comparison) -> str:
    """'2 of 5 diverged, sign test p 0.03', '3 of 5 seeds', or `own_evidence`."""
    finding = arm.finding
    if finding is not None and (finding.verdict.is_of_divergence or arm.has_diverged):
        test = own_evidence(finding, comparison) if finding.verdict.is_of_divergence else ""
        return ", ".join([f"{len(arm.diverged)} of {len(arm.tried)} diverged", *([test] if test else [])])
    if arm.missing and arm.replicates:
        return "" if finding is None else f"{finding.pairs} of {count(finding.n_expected, 'seed')}"
    return "" if finding is None else own_evidence(finding, comparison)


def _penalty(config: dict[str, Any]) -> str:
    """The form and updates of an arm's penalties, and its own ones: 'textbook, proximal L1, ortho 0.01'."""
    penalty, (l1, l2, *_) = config["penalty"], penalty_strengths(config).values()
    parts = [str(penalty["name"])] if l1 > 0 or l2 > 0 else []
    if l1 > 0 and penalty["l1_update"] != "subgradient":
        on = penalty.get("l1_on", "weights")
        parts.append(f"{penalty['l1_update']} L1" + ("" if on == "weights" else f" on {on}"))
    if l2 > 0 and penalty["l2_update"] != "coupled":
        parts.append(f"{penalty['l2_update']} L2")
    own = {k: v for k, v in penalty_strengths(config).items() if k not in ("l1", "l2")}
    parts += [f"{key.split('.')[1]} {lambda_text(strength)}" for key, strength in own.items()]
    return ", ".join(parts) or DASH


def _share(x: float) -> str:
    return DASH if not is_known(x) else f"{100 * x:.1f}" if x == 0 or x >= 0.0005 else "< 0.1"


def _metric_cell(arm: Arm, metric: Metric, epoch: Epoch, axis: Scale) -> MetricCell:
    estimate = arm.estimates[metric]
    if estimate is None:
        return MetricCell(None, DASH, "", [], None, "")
    values = [v for v in arm.values(metric, epoch) if math.isfinite(v)]
    ends = [axis.place(end) for end in _ends(metric, estimate)]
    return MetricCell(
        key=estimate.mean,
        mean=score(metric, estimate.mean),
        interval=interval_text(metric, estimate),
        dots=[axis.place(v) for v in values],
        span=(ends[0], ends[1], axis.place(estimate.mean)) if ends else None,
        seeds=", ".join(score(metric, v) for v in values),
    )


# ---- runs


def labels_of_runs(comparisons: list[Comparison]) -> dict[tuple[Path, str], tuple[str, str]]:
    """Each run's table and arm as the page names them, by the run's place; the arm of a trial is empty."""
    found = {r.key: (c.label, "") for c in comparisons for r in c.trials}
    return found | {key: (c.label, arm.label) for c in comparisons for arm in c.arms for key in arm.places}


def run_rows(
    results: list[Result], comparisons: list[Comparison], folder: Path, roots: Sequence[str | Path]
) -> list[RunRow]:
    """The runs that the page lists: those that did not complete first, then the others."""
    labels, is_several = labels_of_runs(comparisons), len(comparisons) > 1
    first = sorted(results, key=lambda r: r.status == "complete")[:N_RUNS_LISTED]
    return [
        RunRow(
            status=r.status,
            label=labels.get(r.key, ("", ""))[1] or (DASH if r.is_foreign else _settings(r.config)),
            words=typed(own_words(r.config) | {"seed": r.seed}),
            table=labels.get(r.key, ("", ""))[0] if is_several else "",
            seed=r.seed,
            accuracy=score(_judged_by(r), r.value(_judged_by(r))),
            accuracy_key=r.value(_judged_by(r)),
            epochs=len(r.curves),
            seconds=f"{r.seconds:,.0f}" if is_known(r.seconds) else DASH,
            seconds_key=r.seconds,
            command=r.command,
            message=r.message,
            folder=_below(r.path, roots) + (f", {r.place}" if r.place else ""),
            link=link(r.path, folder),
        )
        for r in first
    ]


def _judged_by(run: Result) -> Metric:
    return run.columns[0] if run.is_foreign else TEST_ACCURACY


def _settings(config: dict[str, Any]) -> str:
    return f"{norm_text(config['norm']['name'])} · L1 {lambda_text(config['l1'])} · L2 {lambda_text(config['l2'])}"


def _below(path: Path, roots: Sequence[str | Path]) -> str:
    """A run's folder for display: relative to the root if there is only one, else in full."""
    below = path.relative_to(roots[0]).as_posix() if len(roots) == 1 and path.is_relative_to(roots[0]) else "."
    return str(path) if below == "." else below


def link(path: Path, folder: Path) -> str:
    """The run's folder or file as seen from the page; a file: address where no relative path leads there.

    Empty where the run lies on a server.
    """
    if isinstance(path, Address):
        return ""
    try:
        slash = "" if path.is_file() else "/"
        return quote(os.fsencode(Path(os.path.relpath(real_path(path), real_path(folder))).as_posix())) + slash
    except ValueError:
        return real_path(path).as_uri()
