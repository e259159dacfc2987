"""Rules for settings, limits that involve several settings, and their errors."""

import math
import os
from collections.abc import Iterator
from typing import Any

LARGEST = 3.4e38  # just below the largest float32: larger numbers overflow during a step


class ConfigError(ValueError):
    """A setting or an argument can't be used. The message is one line: what, rule, value, remedy."""


class DataError(Exception):
    """Data is missing, corrupt or unreachable. The message is one line."""


def require(holds: bool, name: str, rule: str, value: object, remedy: str = "") -> None:
    """Raises ConfigError with a one-line message unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} must {rule}, got {shown(value)}" + (f": {remedy}" if remedy else ""))


def shown(value: object) -> str:
    """A refused value as shown in an error message; a long one only by its beginning and end."""
    try:
        text = repr(value)
    except Exception:  # a whole number of more than 4,300 digits, or a user's type that raises anything
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 300 else f"{text[:200]}...{text[-50:]}"


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuses a value that is not one of those allowed."""
    require(value in allowed, name, f"be one of {', '.join(allowed)}", value)


def is_int(value: object) -> bool:
    """Whether a value is a whole number but not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a value is a finite number but not a bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False


def at_least(name: str, value: Any, low: int) -> None:
    """Refuses values other than whole numbers of at least `low`."""
    require(is_int(value) and value >= low, name, f"be a whole number of at least {low}", value)


def share(name: str, value: Any, *, include_one: bool = False) -> None:
    """Refuses values other than numbers of at least 0 and below 1, or exactly 1 with `include_one`."""
    rule = "be a share between 0 and 1" if include_one else "be at least 0 and below 1"
    require(is_finite(value) and value >= 0 and (value < 1 or (include_one and value == 1)), name, rule, value)


def nonnegative(name: str, value: Any) -> None:
    """Refuses values other than finite numbers of at least 0."""
    require(is_finite(value) and value >= 0, name, "be a finite number of at least 0", value)


def positive(name: str, value: Any) -> None:
    """Refuses values other than finite numbers above 0."""
    require(is_finite(value) and value > 0, name, "be a finite number above 0", value)


def unused(name: str, value: object, owner: str, chosen: str) -> None:
    """Refuses a setting that the chosen alternative would ignore."""
    require(value is None, name, f"be left out with {chosen}", value, f"it belongs to {owner}")


def at_most_float32(name: str, value: Any) -> None:
    """Refuses numbers that overflow in float32."""
    require(value <= LARGEST, name, f"be at most {LARGEST:g}, the limit of float32", value)


SMALLEST = 1.2e-38  # just above the smallest normal float32: a smaller number may become 0
MAX_EPOCHS = 1_000_000
MAX_WIDTH = 100_000
MAX_THREADS = 64  # or the number of cores, if larger: a hundred thousand threads end in a segmentation fault

Limit = tuple[bool, str, str, Any, str]


def limits(run: Any) -> Iterator[Limit]:
    """The limits of a `RunConfig`, each as the arguments of `require`: holds, setting, rule, value, remedy."""
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
    on, averaging = run.penalty.l1_on, run.averaging.name
    remedy = "choose averaging=none, because decaying averages never become exactly zero, so no channel can be removed"
    keeps_zeros = on == "weights" or run.l1 == 0 or averaging != "ema"
    yield keeps_zeros, "averaging", f"not be ema with penalty.l1_on={on}", averaging, remedy
    for key, values, least in (("data.mean", run.data.mean, 0.0), ("data.std", run.data.std, SMALLEST)):
        for value in values or ():
            rule = f"hold numbers within the range of float32 (at most {LARGEST:g})"
            yield least <= abs(value) <= LARGEST, key, rule, value, "they apply to pixels scaled to [0, 1]"
    for key, what, factor in step_factors(run):
        yield factor <= LARGEST, key, f"keep {what} within float32 (at most {LARGEST:g})", factor, f"lower {key}"


def _batch_limits(run: Any) -> Iterator[Limit]:
    """The limits of a batch, and of each process's part of it."""
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
    """The largest factors in a run's steps: for each, the key that sets it, its formula and its value.

    In a step schedule, a gamma above 1 raises the rate to lr gamma^n after n changes. A proximal step of SGD divides it
    by 1 - momentum, the first step of AdamW by 1 - beta.
    """
    lr, schedule = run.optimizer.lr, run.schedule
    yield "l2", "l2 times a weight", run.l2
    yield "optimizer.lr", "the rate", lr
    if schedule.gamma is not None and schedule.gamma > 1:
        n = (run.epochs - 1) // schedule.step_size
        lr = _product(lr, math.exp(min(n * math.log(schedule.gamma), 709)))  # e^709 is near the largest float
        yield "schedule.gamma", f"optimizer.lr * schedule.gamma^{n}", lr
    if run.optimizer.betas is not None:
        lr = _product(lr, 1 / (1 - run.optimizer.betas[0]))
        yield "optimizer.lr", "optimizer.lr / (1 - beta)", lr
    if run.penalty.l1_update == "proximal":
        yield "l1", "the rate times l1", _product(_product(lr, run.l1), 1 / (1 - (run.optimizer.momentum or 0.0)))
    if run.penalty.l2_update != "coupled":
        yield "l2", "the rate times l2", _product(lr, run.l2)


def _product(a: float, b: float) -> float:
    return a * b if a > 0 and b > 0 else 0.0  # here, infinity times 0 is 0
