"""The rows of the page's two tables: arms, and runs."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from reg_sweep.comparison.arms import TEST_METRICS, Arm, Data, Result, Table
from reg_sweep.comparison.labels import lambda_text
from reg_sweep.comparison.wording import DASH, count, counts, interval_text, is_known, p_text, score, signed, statuses

N_RUNS_LISTED = 500


def arm_rows(table: Table, slots: dict[str, int]) -> list[dict[str, Any]]:
    axes = {name: _axis([v for a in table.measured for v in a.values(name, table.epoch)]) for name in TEST_METRICS}
    return [_arm_row(arm, table, slots.get(arm.digest), axes) for arm in table.listed]


def _arm_row(arm: Arm, table: Table, slot: int | None, axes: dict[str, tuple[float, float]]) -> dict[str, Any]:
    contrast, config = arm.contrast, arm.config
    gap = arm.mean(
        r.value("train_accuracy", table.epoch) - r.value("test_accuracy", table.epoch) for r in arm.replicates
    )
    zero, near, dead = (
        arm.mean(r.share(part, whole) for r in arm.replicates)
        for part, whole in (("n_zero", "n"), ("n_near_zero", "n"), ("n_dead_kernels", "n_kernels"))
    )
    epoch = arm.mean(
        float(r.best_val["epoch"]) if r.best_val and table.data.n_val > 0 else math.nan for r in arm.replicates
    )
    seconds = arm.mean(r.seconds for r in arm.replicates)
    return {
        "label": arm.label,
        "slot": slot,
        "is_baseline": arm is table.baseline,
        "is_best": arm is table.best,
        "norm": config["norm"]["name"],
        "l1": config["l1"],
        "l2": config["l2"],
        "penalty": _penalty(config["penalty"], config["l1"], config["l2"]),
        "n": len(arm.replicates),
        "others": counts(Counter({s: n for s, n in arm.n_by_status.items() if s != "complete"})),
        "seeds": ", ".join(str(r.seed) for r in arm.replicates),
        "metrics": [_metric_cell(arm, name, table.epoch, axes[name]) for name in TEST_METRICS],
        "difference": signed(table.metric, contrast.difference.mean) if contrast else DASH,
        "difference_key": contrast.difference.mean if contrast else None,
        "interval": f"{signed(table.metric, contrast.difference.ci_low)} to "
        f"{signed(table.metric, contrast.difference.ci_high)}"
        if contrast and is_known(contrast.difference.ci_low)
        else "no spread over seeds"
        if contrast and contrast.is_tied
        else "",
        "pairs": count(contrast.n_seeds, "seed") if contrast else "",
        "is_uneven": bool(contrast and contrast.n_seeds != len(arm.replicates)),
        "by_image": bool(contrast and contrast.by_image),
        "p": p_text(contrast.difference.p) if contrast else DASH,
        "p_key": contrast.difference.p if contrast else None,
        "p_adjusted": p_text(contrast.p_adjusted) if contrast else DASH,
        "p_adjusted_key": contrast.p_adjusted if contrast else None,
        "verdict": _word(arm, table),
        "gap": signed("accuracy", gap),
        "gap_key": gap,
        "zero": _share(zero),
        "zero_key": zero,
        "near": _share(near),
        "near_key": near,
        "dead": _share(dead),
        "dead_key": dead,
        "epoch": f"{epoch:.3g}" if is_known(epoch) else DASH,
        "epoch_key": epoch,
        "seconds": f"{seconds:,.0f}" if is_known(seconds) else DASH,
        "seconds_key": seconds,
        "best_test": score("accuracy", arm.best_test),
        "best_test_key": arm.best_test,
    }


def _word(arm: Arm, table: Table) -> str:
    """What the comparison with the baseline has shown, or why there is none."""
    if arm.contrast is not None:
        return arm.contrast.verdict
    others = [s for s in statuses(arm.n_by_status) if s != "complete"]
    if others and not arm.replicates:
        return ", ".join(others)
    return "baseline" if arm is table.baseline else "not comparable"


def _penalty(penalty: dict[str, Any], l1: float, l2: float) -> str:
    """How the penalties that an arm has enter: 'textbook, proximal L1'."""
    parts = [str(penalty["name"])]
    if l1 > 0 and penalty["l1_update"] != "subgradient":
        parts.append(f"{penalty['l1_update']} L1")
    if l2 > 0 and penalty["l2_update"] != "coupled":
        parts.append(f"{penalty['l2_update']} L2")
    return ", ".join(parts) if l1 > 0 or l2 > 0 else DASH


def _share(x: float) -> str:
    return DASH if not is_known(x) else f"{100 * x:.1f}" if x == 0 or x >= 0.0005 else "< 0.1"


def _axis(values: list[float]) -> tuple[float, float]:
    """The span of the dots: from the lowest to the highest value, far outliers left at the edge."""
    known = np.array([v for v in values if math.isfinite(v)])
    if known.size == 0:
        return 0.0, 1.0
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    reach = 4 * max(float(high - low), 1e-4)
    return max(float(known.min()), middle - reach), min(float(known.max()), middle + reach)


def _metric_cell(arm: Arm, metric: str, epoch: str, axis: tuple[float, float]) -> dict[str, Any]:
    """A metric's mean and interval, and where its dots and interval lie on a strip of 0..100."""
    estimate = arm.estimates[metric]
    low, high = axis
    if estimate is None:
        return {"key": None, "mean": DASH, "interval": "", "dots": [], "span": None, "seeds": ""}

    def place(v: float) -> float:
        return round(min(max(100 * (v - low) / (high - low), 0), 100), 1) if high > low else 50.0

    values = [v for v in arm.values(metric, epoch) if math.isfinite(v)]
    has_interval = is_known(estimate.ci_low)
    return {
        "key": estimate.mean,
        "mean": score(metric, estimate.mean),
        "interval": interval_text(metric, estimate),
        "dots": [place(v) for v in values],
        "span": (place(estimate.ci_low), place(estimate.ci_high), place(estimate.mean)) if has_interval else None,
        "seeds": ", ".join(score(metric, v) for v in values),
    }


def arm_labels_by_data(tables: list[Table]) -> dict[tuple[Data | None, str], str]:
    """What an arm is called in its data's table, by data and the arm's digest."""
    return {(table.data, arm.digest): arm.label for table in tables for arm in table.arms}


def run_rows(
    results: list[Result], tables: list[Table], folder: Path, roots: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """The runs that the page lists: those that did not complete first, then the others."""
    labels = arm_labels_by_data(tables)
    data_labels: dict[Data | None, str] = {t.data: t.label for t in tables} if len(tables) > 1 else {}
    first = sorted(results, key=lambda r: r.status == "complete")[:N_RUNS_LISTED]
    return [
        {
            "status": r.status,
            "label": labels.get((r.data, r.arm), _settings(r.config)),
            "data": data_labels.get(r.data, ""),
            "seed": r.seed,
            "accuracy": score("accuracy", r.value("test_accuracy")),
            "accuracy_key": r.value("test_accuracy"),
            "epochs": len(r.curves),
            "seconds": f"{r.seconds:,.0f}" if is_known(r.seconds) else DASH,
            "seconds_key": r.seconds,
            "command": r.command,
            "message": r.message,
            "folder": _below(r.path, roots),
            "link": link(r.path, folder),
        }
        for r in first
    ]


def _settings(config: dict[str, Any]) -> str:
    return f"{config['norm']['name']} · L1 {lambda_text(config['l1'])} · L2 {lambda_text(config['l2'])}"


def _below(path: Path, roots: Sequence[str | Path]) -> str:
    """A run's folder as a reader of this report knows it: below the only root, or whole."""
    below = path.relative_to(roots[0]).as_posix() if len(roots) == 1 else "."
    return str(path) if below == "." else below


def link(path: Path, folder: Path) -> str:
    """The run's folder as seen from the page; a file: address where no relative path leads there (another drive)."""
    try:
        return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()) + "/"
    except ValueError:
        return path.resolve().as_uri()
