"""Checks typed overrides for mistakes that Hydra accepts or crashes on."""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString, RangeSweep
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.errors import SEARCHES

_SHOWING = ("--cfg", "-c", "--info", "-i")
MAX_JOBS = 100_000  # in a grid: Hydra lists all of them, at a kilobyte each, before the first begins


def parsed(overrides: Iterable[str]) -> list[Override]:
    """Parses overrides; skips invalid ones, which Hydra reports itself."""
    found: list[Override] = []
    for override in overrides:
        with suppress(OverrideParseException):
            found += OverridesParser.create().parse_overrides([override])
    return found


_FLAGS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
)


def wrong_flag(arguments: Iterable[str], meant: Callable[[str], str | None]) -> str | None:
    """The error for an argument with dashes that is not one of Hydra's flags, with the setting to use."""
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag.startswith("--") and not any(known.startswith(flag) for known in _FLAGS):
            word = flag.lstrip("-").replace("-", "_")
            return f"{argument} must be a setting, without dashes: write {meant(word) or word}={value or '...'}"
    return None


def wrong_flags(arguments: Sequence[str], overrides: Iterable[Override]) -> str | None:
    """The error for flags that show one run's config in a command with several runs."""
    flags = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    shown = next((flag for flag in flags if flag in _SHOWING), None)
    if shown is None:
        return None
    if flags & {"-m", "--multirun"}:
        return f"{shown} shows the config of one run: leave out -m and give each key one value"
    several = next((o for o in overrides if o.is_sweep_override()), None)
    return None if several is None else f"{shown} shows the config of one run, got {several.input_line}: give one value"


def wrong_node(overrides: Iterable[Override]) -> str | None:
    """The error for a single value of one of Hydra's nodes, such as hydra.sweeper=x: Hydra raises a TypeError."""
    schema, names = OmegaConf.structured(HydraConf), {f.name for f in fields(HydraConf)}
    for override in overrides:
        key, value = str(override.key_or_group), override.value()
        hydra, _, name = key.partition(".")
        if hydra != "hydra" or override.is_delete() or isinstance(value, dict | None) or name not in names:
            continue
        is_chosen = name in ("sweeper", "launcher")
        if is_chosen or isinstance(OmegaConf.select(schema, name), DictConfig):
            remedy = (
                f"to choose one, write hydra/{name}={value}" if is_chosen else f"set one of its keys, {key}.KEY=..."
            )
            return f"{key} must be a mapping of settings, got {value}: {remedy}"
    return None


def wrong_choice(overrides: Iterable[Override], is_group: Callable[[str], bool]) -> str | None:
    """The error for an override that sets a config group to something other than options; None if there is none."""
    for override in overrides:
        group = override.key_or_group
        if override.is_delete() or not is_group(group):
            continue
        for value in _values(override):
            # A mapping sets keys of the group's node instead of choosing; a glob only matches existing options.
            if isinstance(value, dict | Glob):
                continue
            options = value if isinstance(value, list) else [value]
            if options == [] or not all(isinstance(option, str) for option in options):
                written = "null" if value is None else value
                if not group:
                    return f"'={written}' must be key=value: name the setting, as in l1=0.001"
                return f"{group} must be the name of an option, got {written}: leave it out, or see --help"
    return None


def wrong_deletion(overrides: Iterable[Override], needed: Collection[str]) -> str | None:
    """The error for deleting a key that every run needs without giving it a new value."""
    typed = list(overrides)
    given = {override.key_or_group for override in typed if not override.is_delete()}
    for override in typed:
        if override.is_delete() and override.key_or_group in needed and override.key_or_group not in given:
            return f"{override.key_or_group} must be set, got ~{override.key_or_group}: give it a value instead"
    return None


def wrong_switch(overrides: Iterable[Override], switches: Collection[str]) -> str | None:
    """The error for a number as a boolean setting: OmegaConf would accept any number other than 0 as true."""
    for override in overrides:
        for value in _values(override) if override.key_or_group in switches else ():
            if isinstance(value, int | float) and not isinstance(value, bool) and value not in (0, 1):
                return f"{override.key_or_group} must be true or false, got {value}"
    return None


def wrong_space(overrides: Iterable[Override]) -> str | None:
    """The error for null in `hydra.sweeper.params`, which Hydra keeps as text."""
    node = "hydra.sweeper.params"
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if key != node and not key.startswith(f"{node}."):
            continue
        parts = {f"{node}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
        for name, part in parts.items():
            if name != node and part is None:
                return f"{name} must be a value or a sweep, got null: to set the key to null, write \"'null'\""
    return None


def wrong_grid(overrides: Iterable[Override]) -> str | None:
    """The error for a grid with too many jobs or none, or with an interval."""
    swept = [o for o in overrides if o.is_sweep_override()]
    searched = next((o for o in swept if o.is_interval_sweep()), None)
    if searched is not None:
        return f"{searched.key_or_group} must list its values in a grid, got {searched.input_line}: {SEARCHES}"
    sizes = {o.key_or_group: _n_values(o) for o in swept}
    for key, size in sizes.items():
        if size == 0:
            return f"{key} must have at least one value to sweep, got an empty sweep"
    n = math.prod(sizes.values())
    return None if n <= MAX_JOBS else f"a grid must have at most {MAX_JOBS:,} jobs, got {n:,}: sweep fewer values"


def _n_values(override: Override) -> int:
    """The number of swept values, computed without listing them; 1 for a glob."""
    sweep = override.value()
    if isinstance(sweep, RangeSweep):
        assert sweep.start is not None
        assert sweep.stop is not None
        return max(0, math.ceil((sweep.stop - sweep.start) / sweep.step)) if sweep.step else 0
    return len(sweep.list) if isinstance(sweep, ChoiceSweep) else 1


def _values(override: Override) -> Sequence[Any]:
    """The value of an override, or those of a choice; ranges, intervals and globs count as one value."""
    value = override.value()
    listed = value.list if isinstance(value, ChoiceSweep) else [value]
    return [v.text if isinstance(v, QuotedString) else v for v in listed]
