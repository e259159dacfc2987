"""Upper limits of a run's settings, beyond which numbers overflow or memory runs out."""

import math
import os
from collections.abc import Iterator
from typing import Any

from reg_sweep.config.rules import LARGEST

SMALLEST = 1.2e-38  # just above the smallest normal one: a smaller number may become 0
MAX_EPOCHS = 1_000_000
MAX_WIDTH = 100_000
MAX_THREADS = 64  # or the machine's cores, where it has more: a hundred thousand end in a segmentation fault

Limit = tuple[bool, str, str, Any, str]


def limits(run: Any) -> Iterator[Limit]:
    """Each limit of a `RunConfig`: whether it holds, the setting, the rule, the value, the remedy."""
    objective = run.objective
    is_named = isinstance(objective, str) or (isinstance(objective, list) and objective != [])
    yield is_named, "objective", "be a name or a list of names", objective, ""
    yield run.epochs <= MAX_EPOCHS, "epochs", f"be at most {MAX_EPOCHS}", run.epochs, ""
    threads, most = run.runtime.threads, max(os.cpu_count() or 1, MAX_THREADS)
    rule = f"be at most {most}"
    yield threads is None or threads <= most, "runtime.threads", rule, threads, "more threads than cores are slower"
    for key in ("channels", "hidden"):
        width, rule = run.model.get(key, 1), f"be a whole number from 1 to {MAX_WIDTH}"
        is_whole = isinstance(width, int) and not isinstance(width, bool)
        yield is_whole and 1 <= width <= MAX_WIDTH, f"model.{key}", rule, width, ""
    alone = run.data.train_size == 1 and run.norm.name in ("bn", "gbn")
    remedy = "raise data.train_size or choose norm=gn"
    yield not alone, "data.train_size", f"be at least 2 with norm={run.norm.name}", run.data.train_size, remedy
    yield from _batch_limits(run)
    for key, values, least in (("data.mean", run.data.mean, 0.0), ("data.std", run.data.std, SMALLEST)):
        for value in values or ():
            rule = f"hold numbers that float32 holds (at most {LARGEST:g})"
            yield least <= abs(value) <= LARGEST, key, rule, value, "they are of pixels scaled to [0, 1]"
    for key, what, factor in step_factors(run):
        yield factor <= LARGEST, key, f"keep {what} within float32 (at most {LARGEST:g})", factor, f"lower {key}"


def _batch_limits(run: Any) -> Iterator[Limit]:
    """Limits of a batch, or of each process's part of it."""
    size, ranks, norm = run.batch_size, run.runtime.ranks, run.norm
    rule, remedy = f"be a multiple of runtime.ranks ({ranks})", "each process computes an equal part of every batch"
    yield size % ranks == 0, "batch_size", rule, size, remedy
    ghost, of_each = norm.ghost_batch_size, "" if ranks == 1 else f" times runtime.ranks ({ranks})"
    rule, remedy = f"be at least norm.ghost_batch_size ({ghost})", "lower norm.ghost_batch_size or raise batch_size"
    yield ghost is None or size >= ghost * ranks, "batch_size", rule + of_each, size, remedy
    rule, remedy = f"be at least 2{of_each} with norm={norm.name}", "raise batch_size or choose norm=gn"
    yield norm.name not in ("bn", "gbn") or size >= 2 * ranks, "batch_size", rule, size, remedy
    rule, remedy = f"be at least 2{of_each} with mix={run.mix.name}", "raise batch_size or choose mix=none"
    yield run.mix.name == "none" or size >= 2 * ranks, "batch_size", rule, size, remedy


def step_factors(run: Any) -> Iterator[tuple[str, str, float]]:
    """The largest factors in a run's steps: the key that sets each, its formula, its value.

    A step schedule's gamma above 1 raises the rate to lr gamma^n after n drops; a proximal step of SGD divides it by
    1 - momentum, the first step of AdamW by 1 - beta.
    """
    lr, schedule = run.optimizer.lr, run.schedule
    yield "l2", "l2 times a weight", run.l2
    yield "optimizer.lr", "the rate", lr
    if schedule.gamma is not None and schedule.gamma > 1:
        n = (run.epochs - 1) // schedule.step_size
        lr = _product(lr, math.exp(min(n * math.log(schedule.gamma), 709)))  # a float holds e^709
        yield "schedule.gamma", f"optimizer.lr * schedule.gamma^{n}", lr
    if run.optimizer.betas is not None:
        lr = _product(lr, 1 / (1 - run.optimizer.betas[0]))
        yield "optimizer.lr", "optimizer.lr / (1 - beta)", lr
    if run.penalty.l1_update == "proximal":
        yield "l1", "the rate times l1", _product(_product(lr, run.l1), 1 / (1 - (run.optimizer.momentum or 0.0)))
    if run.penalty.l2_update != "coupled":
        yield "l2", "the rate times l2", _product(lr, run.l2)


def _product(a: float, b: float) -> float:
    return a * b if a > 0 and b > 0 else 0.0  # infinity times 0 is 0 here
