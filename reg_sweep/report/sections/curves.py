"""Accuracy and loss by epoch: as pictures, and as numbers from which the page's script draws interactive curves."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.insights import difference_curves
from reg_sweep.comparison.results import TEST_METRICS
from reg_sweep.comparison.sentences import heading, points, score, words
from reg_sweep.report.canvas import Canvas, seeds_text
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures.arms import Line
from reg_sweep.report.figures.theme import Picture
from reg_sweep.runs.record import Metric, Split
from reg_sweep.stats import estimates as stats

Array = NDArray[Any]

# Limits that keep a page small: beyond them, the arms ranked last have no line of their own, and fewer have a band.
N_LINES, N_BANDS, N_POINTS = 68, 24, 120
LARGEST = 1e12  # whole numbers up to it, and sums of them, are exact in the page's script


@dataclass(frozen=True)
class CurvesSection:
    """The pictures, each with the place of its numbers in `data`, which the page's script reads."""

    pictures: list[Picture]
    data: dict[str, Any]
    n_without_line: int


def curves_section(comparison: Comparison, canvas: Canvas) -> CurvesSection | None:
    """Accuracies, then losses: test first, then val where it chose, then train. Metrics without values are left out."""
    metrics = _metrics(comparison)
    drawn = [(metric, picture) for metric in metrics if (picture := _curve(comparison, canvas, metric)) is not None]
    if not drawn:
        return None
    arms, base = [*canvas.coloured, *canvas.grey][:N_LINES], comparison.baseline
    kept = _kept_epochs(max(arm.curves(metrics[0]).shape[1] for arm in arms))
    steps = _steps(comparison)
    best = next((arm for arm in comparison.ranked if arm is not base), None)
    data = {
        "epochs": [int(k) + 1 for k in kept] if steps is None else [float(f"{steps[k]:.6g}") for k in kept],
        "clock": _clock(comparison),
        "arms": [{"label": arm.label, "key": canvas.key(arm)} for arm in arms],
        "base": None if base is None else canvas.key(base),
        "best": None if best is None else canvas.key(best),
        "charts": [_chart(arms, base, metric, kept) for metric, _ in drawn],
    }
    return CurvesSection([picture for _, picture in drawn], data, len(canvas.coloured) + len(canvas.grey) - len(arms))


def _metrics(comparison: Comparison) -> list[Metric]:
    """The metrics whose curves are drawn; for another program's runs, those that were read."""
    if not comparison.has_images:
        return list(comparison.measured[0].replicates[0].columns)
    splits: tuple[Split, ...] = ("test", "val", "train") if comparison.selected_on == "val" else ("test", "train")
    return [metric.on(split) for metric in TEST_METRICS for split in splits]


def _clock(comparison: Comparison) -> str:
    """The word for a run's time: epoch, or step."""
    return comparison.measured[0].replicates[0].clock


def _steps(comparison: Comparison) -> Array | None:
    """The steps of another program's curves; None where epochs are counted from 1."""
    return None if comparison.has_images else np.array(comparison.measured[0].replicates[0].steps)


def _is_log(metric: Metric, curves: Sequence[Array]) -> bool:
    """Whether a metric has a log axis: a loss whose values are all above 0."""
    is_positive = all(bool((c[np.isfinite(c)] > 0).all()) for c in curves)
    return metric.unit == "nats" or (metric.unit == "number" and not metric.higher_is_better and is_positive)


def _kept_epochs(length: int) -> NDArray[np.int64]:
    """The places of all epochs, or of `N_POINTS` evenly spread ones, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, N_POINTS)).round().astype(np.int64))


def _chart(arms: list[Arm], base: Arm | None, metric: Metric, kept: NDArray[np.int64]) -> dict[str, Any]:
    """One metric's numbers, and those of its differences from the baseline: an entry for each arm."""
    return {
        "name": heading(metric),
        "share": metric.unit == "share",
        "higher": metric.higher_is_better,
        "log": _is_log(metric, [arm.curves(metric) for arm in arms]),
        "unit": "loss" if metric.unit == "nats" else points(metric).strip(),
        "values": [_numbers(arm.curves(metric), kept, metric, n < N_BANDS) for n, arm in enumerate(arms)],
        "differences": [
            None
            if base is None or arm is base
            else _numbers(difference_curves(arm, base, metric), kept, metric, n < N_BANDS)
            for n, arm in enumerate(arms)
        ],
    }


def _numbers(values: Array, kept: NDArray[np.int64], metric: Metric, has_band: bool) -> list[Any] | None:
    """Mean, lowest and highest over seeds at the kept epochs, packed; without a band the mean only; None if unknown."""
    if not np.isfinite(values).any():
        return None
    known = kept[kept < values.shape[1]]
    curves = _over_seeds(values) if has_band and len(values) > 1 else _over_seeds(values)[:1]
    return _packed([curve[known] for curve in curves], metric)


def _packed(curves: list[Array], metric: Metric) -> list[Any]:
    """[scale, steps of the mean, mean - lowest, highest - mean], whole numbers of 1/scale: half the bytes of values.

    Scale 0: the curves as they are, for a loss that spans more than whole numbers hold.
    """
    finite = np.abs(np.concatenate(curves))
    finite = finite[np.isfinite(finite) & (finite > 0)]
    digits = 5
    if metric.unit != "share" and finite.size:
        digits = 3 - math.floor(math.log10(np.quantile(finite, 0.05, method="lower")))
    if finite.size and finite.max() * 10.0**digits > LARGEST:
        return [0, *([float(f"{v:.4g}") if math.isfinite(v) else None for v in curve] for curve in curves)]
    mean, *band = (np.round(curve * 10.0**digits) for curve in curves)
    known = np.isfinite(mean)
    steps = np.full(len(mean), math.nan)
    steps[known] = np.diff(mean[known], prepend=0)
    offsets = [mean - band[0], band[1] - mean] if band else []
    packed = [[int(v) if math.isfinite(v) else None for v in part] for part in (steps, *offsets)]
    return [10**digits if digits >= 0 else 10.0**digits, *packed]


def _curve(comparison: Comparison, canvas: Canvas, metric: Metric) -> Picture | None:
    lines = [
        Line(arm.label, slot, *_over_seeds(values))
        for slot, arm in enumerate(canvas.coloured)
        if _is_line(values := arm.curves(metric))
    ]
    if not lines:
        return None
    is_share, is_log = metric.unit == "share", _is_log(metric, [line.mean for line in lines])
    others = _stacked([arm for arm in comparison.measured if canvas.slot(arm) is None], metric)
    clock = _clock(comparison)
    title = f"{heading(metric)} by {clock}"
    unit = "accuracy, %" if is_share else "loss (log axis)" if metric.unit == "nats" else words(metric)
    draw = partial(
        figures.curves,
        title,
        unit,
        lines,
        others,
        is_accuracy=is_share,
        is_plain=not is_share and not is_log,
        clock=clock,
        steps=_steps(comparison),
    )
    ends = ", ".join(f"{line.label}: {score(metric, line.mean[-1])}" for line in lines)
    alt = f"{title}. At the last {clock} {ends}."
    caption = f"{seeds_text(comparison.measured)} per arm."
    return canvas.picture(f"curves-{_file_name(metric)}", draw, alt, caption)


def _file_name(metric: Metric) -> str:
    """A metric's name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", metric.name.lower()).strip("-")[:60] or "score"


def _is_line(values: Array) -> bool:
    """Whether two epochs have a value, or the only epoch has: a test after the last epoch alone is not a curve."""
    n_known = int(np.isfinite(values).any(axis=0).sum())
    return n_known >= (2 if values.shape[1] > 1 else 1)


def _over_seeds(values: Array) -> tuple[Array, Array, Array]:
    """Mean, lowest and highest of each epoch over the runs (n_runs, n_epochs) that reached it; nan where none did."""
    present = np.isfinite(values)
    reached = present.any(axis=0)
    mean = stats.mean_band(np.where(present, values, math.nan)).mean
    low, high = np.where(present, values, math.inf).min(axis=0), np.where(present, values, -math.inf).max(axis=0)
    return mean, np.where(reached, low, math.nan), np.where(reached, high, math.nan)


def _stacked(arms: list[Arm], metric: Metric) -> Array | None:
    """The mean curves of many arms, (n_arms, n_epochs), nan where one is shorter; None without arms."""
    means = [stats.mean_band(arm.curves(metric)).mean for arm in arms]
    length = max((len(m) for m in means), default=0)
    if length == 0:
        return None
    stacked: Array = np.full((len(means), length), math.nan)
    for row, m in zip(stacked, means, strict=True):
        row[: len(m)] = m
    present = np.isfinite(stacked)
    return stacked[np.ix_(present.any(axis=1), present.any(axis=0))]
