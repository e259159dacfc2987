"""Parts of a run that a config names by a dotted path, besides the built-in choices."""

from collections.abc import Iterator
from typing import Any

Rule = tuple[bool, str, str, Any, str]  # whether it holds, the setting, the rule, the value, the remedy


def choice_rules(group: str, config: Any, names: tuple[str, ...], owners: dict[str, str]) -> Iterator[Rule]:
    """Rules: a choice is one of `names` unless there is a `source`; a setting is given only with its owner."""
    name = config.name
    if config.source is None:
        yield name in names, group, f"be one of {', '.join(names)}", name, ""
    else:
        yield name not in names, group, f"be another name beside {group}.source", name, f"choose {group}=own"
    for setting, owner in owners.items():
        value, key = getattr(config, setting), f"{group}.{setting}"
        is_good = value is None or name == owner
        yield is_good, key, f"be left out with {group}={name}", value, f"it belongs to {group}={owner}"


def callback_specs(callbacks: Any) -> dict[str, Any]:
    """The spec of each callback by its name, or by its place in a list."""
    return callbacks if isinstance(callbacks, dict) else {str(i): spec for i, spec in enumerate(callbacks)}


def without_unset_sources(group: Any) -> Any:
    """An optimizer's or schedule's settings, without unset sources.

    Digests are older than sources: what is unset must not change them.
    """
    if not isinstance(group, dict):  # a stranger's record may hold anything here
        return group
    return {k: v for k, v in group.items() if v is not None or k not in ("source", "interval")}
