"""A config as the command that makes it again: overrides, search paths, an experiment file."""

import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_internals import element_text


def missing_overrides(
    config: DictConfig,
    choices: Mapping[str, Any],
    overrides: Sequence[str],
    compose: Callable[[list[str]], DictConfig],
    ignored: Container[str],
) -> list[str]:
    """What `overrides` lack to compose `config`, because a file that they no longer name, such as a study's, set it.

    Groups that were chosen come first, then values. `compose` gives a config with its hydra node; `choices` are those
    of `config`. Keys and groups in `ignored` are left as they are.
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
    """An app's values by their dotted keys, as written: without the hydra node, interpolations unresolved."""
    task = OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return walk(OmegaConf.to_container(task, resolve=False), "")


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, str):
        return QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return element_text(value)


def user_folders(runtime: Any) -> list[str]:
    """The folders of config files that the command line named, by Hydra's `hydra.runtime`; absolute."""
    named = [s.path for s in runtime.config_sources if s.schema == "file" and "command-line" in s.provider]
    return [os.path.join(runtime.cwd, path) for path in named]


def search_path(runtime: Any, *more: str) -> list[str]:
    """The arguments that find the user's config folders, and more, from where the app was started.

    Hydra takes one --config-dir; the others are given as hydra.searchpath.
    """
    folders = [os.path.relpath(folder, runtime.cwd) for folder in (*user_folders(runtime), *more)]
    if not folders:
        return []
    first, *others = folders
    return ["--config-dir", first, *([file_search_path(others)] if others else [])]


def search_path_overrides(hydra: Any) -> list[str]:
    """The command line's own hydra.searchpath, which composing anew must not lose."""
    return [o for o in hydra.overrides.hydra if o.startswith("hydra.searchpath=")]


def file_search_path(folders: Sequence[str]) -> str:
    """The override that lets Hydra look for config files in folders, too."""
    urls = [f"file://{folder}" for folder in folders]
    written = [url if re.fullmatch(r"[-\w./:]+", url) else _written(url) for url in urls]
    return f"hydra.searchpath=[{','.join(written)}]"


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
        elif o.key_or_group == "experiment":  # a neighbour of this file; its group is chosen already
            defaults.insert(0, o.value())
        else:
            defaults.append({f"/{group}" if o.is_add() else f"override /{group}": None if o.is_delete() else o.value()})
    text = "# @package _global_\n"
    text += "".join(f"# to be given on the command line: {line}\n" for line in left_out)
    if defaults:
        text += OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]}))
    return text + (OmegaConf.to_yaml(values) if values else "")
