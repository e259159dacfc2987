"""Reproduces a config: as overrides, search paths and an experiment file."""

import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from reg_sweep.hydra_app.internals import element_text
from reg_sweep.runs.addresses import typed_path

_NO_WORDS = ("null", "true", "false", "nan", "inf")  # words that Hydra's grammar does not parse as text unless quoted


def missing_overrides(
    config: DictConfig,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    compose: Callable[[list[str]], DictConfig],
    ignored: Container[str],
) -> list[str]:
    """The overrides missing from `overrides` to compose `config`, such as those set by a file that is not named there.

    Choices of groups come first, then values. `compose` returns a config with its hydra node; `choices` are those of
    `config`. Keys and groups in `ignored` are skipped.
    """
    part = compose(list(overrides))
    there = part.hydra.runtime.choices
    groups = [
        f"{'' if group in there else '+'}{group}={'null' if choice is None else choice}"
        for group, choice in choices.items()
        if not group.startswith("hydra/") and group not in ignored and (group not in there or there[group] != choice)
    ]
    if groups:
        part = compose([*overrides, *groups])
    wanted, got = dict(leaves(config)), dict(leaves(part))
    values = [
        f"{'' if key in got else '+'}{key}={_written(value)}"
        for key, value in wanted.items()
        if key not in ignored and (key not in got or got[key] != value)
    ]
    return groups + values


def leaves(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """An app's values by dotted key, as written: without the hydra node, and with unresolved interpolations."""
    task = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return walk(OmegaConf.to_container(task, resolve=False), "")


def defaults(config: DictConfig) -> dict[str, str]:
    """The defaults that an app's structured configs declare, as text, by dotted key."""
    kinds = {"": OmegaConf.get_type(config)}
    kinds |= {f"{key!s}.": OmegaConf.get_type(config, str(key)) for key in config if key != "hydra"}
    return {
        f"{prefix}{key}": str(value)
        for prefix, kind in kinds.items()
        if is_dataclass(kind)
        for key, value in leaves(OmegaConf.structured(kind))
    }


def whole_lists(overrides: Sequence[str], config: DictConfig) -> list[str]:
    """Replaces overrides of a list's element (a.0=1) by `config`'s whole list: a file can't set a single element."""
    kept = []
    for override in overrides:
        parts = override.partition("=")[0].lstrip("+~").split(".")
        parents = (".".join(parts[:n]) for n in range(1, len(parts)))
        found = {parent: OmegaConf.select(config, parent, default=None) for parent in parents}
        parent = next((p for p, node in found.items() if OmegaConf.is_list(node)), None)
        if parent is not None:
            override = f"++{parent}={_written(OmegaConf.to_container(found[parent], resolve=False))}"
        kept.append(override)
    return list(dict.fromkeys(kept))


def _written(value: Any) -> str:
    """A value in Hydra's grammar. Plain words are not quoted: the shell would need further quotes around them."""
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) and value.lower() not in _NO_WORDS:
            return value
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{element_text(k)}:{_written(v)}" for k, v in value.items()) + "}"
    return element_text(value)


def flagged_folders(runtime: Any) -> list[str]:
    """The folder given by --config-dir, if any, from `hydra.runtime`."""
    return [source.path for source in runtime.config_sources if source.provider == "command-line"]


def search_path(runtime: Any, *more: str) -> list[str]:
    """The arguments that add the command line's config folders again, and further ones, relative to the start folder.

    Hydra accepts only one --config-dir. The other folders go into hydra.searchpath. It replaces the app's own search
    path, which is therefore included.
    """
    folders = [*flagged_folders(runtime), *more]
    is_typed = any(source.provider == "hydra.searchpath in command-line" for source in runtime.config_sources)
    flag = ["--config-dir", _relative(folders[0], runtime)] if folders else []
    return [*flag, *([search_path_override(runtime, folders[1:])] if folders[1:] or is_typed else [])]


def search_path_override(runtime: Any, more: Sequence[str] = (), *, absolute: bool = False) -> str:
    """The override that adds folders to hydra.searchpath."""
    found = [source for source in runtime.config_sources if source.provider.startswith("hydra.searchpath")]
    paths = [("file", folder) for folder in more] + [(source.schema, source.path) for source in found]
    write = _absolute if absolute else _relative
    urls = [f"{schema}://{write(path, runtime) if schema == 'file' else path}" for schema, path in paths]
    written = [url if re.fullmatch(r"[-\w./:]+", url) else _written(url) for url in urls]
    return f"hydra.searchpath=[{','.join(written)}]"


def _absolute(path: str, runtime: Any) -> str:
    return os.path.join(runtime.cwd, path)


def _relative(path: str, runtime: Any) -> str:
    return typed_path(_absolute(path, runtime), runtime.cwd)


def written_overrides(hydra: Any, kind: Literal["hydra", "task"]) -> list[str]:
    """A command's overrides as written, unresolved: interpolations such as ${hydra.job.num} may have no value yet."""
    written = OmegaConf.to_container(hydra.overrides[kind], resolve=False)
    assert isinstance(written, list)
    return list(map(str, written))


def settled_overrides(hydra: Any, kind: Literal["hydra", "task"]) -> list[str]:
    """Like `written_overrides`, with interpolations resolved if they have a value yet, such as the start time."""
    settled = written_overrides(hydra, kind)
    for i in range(len(settled)):
        with suppress(InterpolationResolutionError):
            settled[i] = str(hydra.overrides[kind][i])
    return settled


def search_path_overrides(hydra: Any) -> list[str]:
    """The overrides of hydra.searchpath on the command line, which a new composition needs as well."""
    return [o for o in written_overrides(hydra, "hydra") if o.startswith("hydra.searchpath=")]


def experiment_yaml(overrides: Sequence[Override], group_exists: Callable[[str], bool]) -> str:
    """Overrides as an experiment file: chosen groups in its defaults list, values below."""
    defaults: list[Any] = []
    left_out: list[str] = []
    values = OmegaConf.create()
    for o in overrides:
        group = o.key_or_group if o.package is None else f"{o.key_or_group}@{o.package}"
        if not group_exists(o.key_or_group):
            if o.is_delete():
                left_out.append(str(o.input_line))
            else:
                OmegaConf.update(values, o.key_or_group, o.value(), force_add=True)
        elif o.key_or_group == "experiment":  # another file of this group, which is already chosen
            defaults.insert(0, o.value())
        else:
            defaults.append({f"/{group}" if o.is_add() else f"override /{group}": None if o.is_delete() else o.value()})
    text = "# @package _global_\n"
    text += "".join(f"# must be given on the command line: {line}\n" for line in left_out)
    if defaults:
        text += OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]}))
    return text + (OmegaConf.to_yaml(values) if values else "")
