"""Accuracy and loss by epoch: the coloured arms as lines, all others as one grey span."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison import stats
from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.results import TEST_METRICS
from reg_sweep.comparison.tables import Comparison
from reg_sweep.comparison.wording import score, words
from reg_sweep.records import Metric, Split
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures.arms import Line
from reg_sweep.report.figures.theme import Picture
from reg_sweep.report.sections.canvas import Canvas, seeds_text

Array = NDArray[Any]


def curves(comparison: Comparison, canvas: Canvas) -> list[Picture]:
    """Accuracies, then losses: test first, then val where it chose, then train. What no arm measured is left out."""
    splits: tuple[Split, ...] = ("test", "val", "train") if comparison.selected_on == "val" else ("test", "train")
    drawn = (_curve(comparison, canvas, metric.on(split)) for metric in TEST_METRICS for split in splits)
    return [picture for picture in drawn if picture is not None]


def _curve(comparison: Comparison, canvas: Canvas, metric: Metric) -> Picture | None:
    lines = [
        Line(arm.label, slot, *_over_seeds(values))
        for slot, arm in enumerate(canvas.coloured)
        if np.isfinite(values := arm.curves(metric)).any()
    ]
    if not lines:
        return None
    is_share = metric.unit == "share"
    others = _stacked([arm for arm in comparison.measured if canvas.slot(arm) is None], metric)
    title = f"{words(metric).capitalize()} by epoch"
    unit = "accuracy, %" if is_share else "loss (log axis)"
    figure = figures.curves(title, unit, lines, others, is_accuracy=is_share)
    ends = ", ".join(f"{line.label}: {score(metric, line.mean[-1])}" for line in lines)
    alt, caption = f"{title}. At the last epoch {ends}.", f"{seeds_text(comparison.measured)} an arm."
    return canvas.picture(f"curves-{metric.name.replace('_', '-')}", figure, alt, caption)


def _over_seeds(values: Array) -> tuple[Array, Array, Array]:
    """Mean, lowest and highest of each epoch, over the runs (n_runs, n_epochs) that have it; nan where none has."""
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
