"""Rules for settings, their errors, and importing dotted paths."""

import importlib.util
import math
import os
import sys
from collections.abc import Callable
from typing import Any

LARGEST = 3.4e38  # just below the largest float32: larger numbers overflow during a step


class ConfigError(ValueError):
    """A setting out of its range. The message is one line: what, rule, value, remedy."""


class DataError(Exception):
    """Data that is missing, corrupt or out of reach. The message is one line."""


def require(holds: bool, name: str, rule: str, value: object, remedy: str = "") -> None:
    """Refuses a value for which a rule does not hold."""
    if not holds:
        raise ConfigError(f"{name} must {rule}, got {value!r}" + (f": {remedy}" if remedy else ""))


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuses a value that is not one of those allowed."""
    require(value in allowed, name, f"be one of {', '.join(allowed)}", value)


def is_int(value: object) -> bool:
    """Whether a value is a whole number, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a value is a finite number, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def at_least(name: str, value: Any, low: int) -> None:
    """Refuses values other than whole numbers of at least `low`."""
    require(is_int(value) and value >= low, name, f"be a whole number of at least {low}", value)


def share(name: str, value: Any, *, include_one: bool = False) -> None:
    """Refuses values other than numbers from 0 to 1, and 1 itself if it is excluded."""
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
    require(value <= LARGEST, name, f"be at most {LARGEST:g}, which float32 holds", value)


def choice(group: str, config: Any, names: tuple[str, ...], owners: dict[str, str]) -> None:
    """Refuses a choice that is not one of `names` and has no `source`, and a setting without its owner.

    `config` is the group's dataclass; an empty source becomes None.
    """
    config.source, name = config.source or None, config.name
    if config.source is None:
        one_of(group, name, names)
    else:
        require(name not in names, group, f"be another name beside {group}.source", name, f"choose {group}=own")
        target(f"{group}.source", config.source)
    for setting, owner in owners.items():
        value, key = getattr(config, setting), f"{group}.{setting}"
        if name != owner:
            unused(key, value, f"{group}={owner}", f"{group}={name}")


def target(name: str, spec: Any) -> None:
    """Refuses a mapping without a `_target_` that could name a callable."""
    target = spec.get("_target_") if isinstance(spec, dict) else spec
    dotted = isinstance(target, str) and "." in target and all(map(str.isidentifier, target.split(".")))
    require(dotted, f"{name}._target_", "be the dotted path of a callable", target, "for example my_package.MyNet")


def attribute_at(path: str) -> Any:
    """The attribute at a dotted path. If its module is the running program's file, that program's own.

    Importing that file under its own name would run it a second time: its classes would differ from the program's, and
    Hydra 1.4 warns of configs that are stored twice.
    """
    module, _, attribute = path.rpartition(".")
    program = sys.modules.get("__main__")
    file = getattr(program, "__file__", None)
    if module and module not in sys.modules and file is not None and hasattr(program, attribute):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(file):
            return getattr(program, attribute)
    return getattr(importlib.import_module(module), attribute)


def locate(name: str, spec: dict[str, Any]) -> Callable[..., Any]:
    """The callable that `spec["_target_"]` names by its dotted path.

    Raises:
        ConfigError: there is no such module or attribute, or it is not callable.
    """
    try:
        target: Callable[..., Any] = attribute_at(spec["_target_"])
    except (Exception, SystemExit) as error:  # importing a module runs it, and may raise anything
        raise ConfigError(f"{name}._target_ must be importable from here, got {spec['_target_']!r}: {error}") from None
    require(callable(target), f"{name}._target_", "be callable", spec["_target_"])
    return target
