"""The command that was typed: as text to print, without what may be secret, and as one that goes on with its work."""

import os
import re
import sys
from collections.abc import Sequence
from typing import Literal

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.overrides import leaves
from reg_sweep.hydra_app.redaction import holds_address

_FLAGS_WITH_VALUE = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p"}
_KEY = re.compile(r"\$\{([\w.]+)\}")


def app_command() -> list[str]:
    """The app as it was started, without its arguments."""
    # The interpreter's own options stand before -m MODULE or the script, the app's arguments after it.
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return ["python", "-m", next(words)]
        if word in ("-W", "-X"):
            next(words)
        elif not word.startswith("-"):
            break
    return ["python", os.path.relpath(sys.argv[0])]


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line's arguments, fit to be printed: what holds a server's address, and maybe a password, is dots."""
    return [f"{a.partition('=')[0]}=..." if holds_address(a) else a for a in arguments]


def overrides_and_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line in its two parts: Hydra's parser takes overrides in one piece only."""
    overrides: list[str] = []
    flags: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_override = not argument.startswith("-") and ("=" in argument or argument.startswith("~"))
        (overrides if is_override and before not in _FLAGS_WITH_VALUE else flags).append(argument)
    return overrides, flags


# What is typed at the root beside a study, and the sweeper's key that it is.
_STUDY_KEYS = {
    "max_seeds": "hydra.sweeper.design.max_seeds",
    "margin": "hydra.sweeper.design.margin",
    "confirm": "hydra.sweeper.confirm",
}


def placed_beside_study(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Gives what belongs to the study that is named beside it, such as max_seeds=40, its place in the sweeper.

    A study is a multirun by its file's hydra.mode; Hydra 1.4 takes no mode from a file, so that it gets the flag, too.
    """
    if not any(a.startswith("study=") for a in arguments):
        return [*arguments, *flags]
    parts = [(a, *a.partition("=")) for a in arguments]
    placed = [f"{_STUDY_KEYS[key]}={value}" if key in _STUDY_KEYS else a for a, key, _, value in parts]
    needless = ("--cfg", "-c", "--info", "-i", "--multirun", "-m")  # those that run nothing, and itself
    is_needless = any(flag.partition("=")[0] in needless for flag in flags)
    return [*placed, *([] if is_needless else ["--multirun"]), *flags]


def config_flags() -> list[str]:
    """The flags of the typed command that chose another main config than the app's own."""
    from reg_sweep.hydra_app.internals import parsed_flags

    flags = parsed_flags(sys.argv[1:])
    named = {"--config-path": flags.config_path, "--config-name": flags.config_name}
    return [word for flag, value in named.items() if value is not None for word in (flag, value)]


def continuing_arguments(place: Sequence[str], *more: str) -> list[str]:
    """The typed arguments with more overrides, `place` among them, each in the place of one of the same key."""
    overrides, flags = overrides_and_flags(public_arguments(sys.argv[1:]))
    new = {_key(override): override for override in (*place, *more)}
    for typed in overrides:  # a key that the app lacks was added, and must be again
        if _key(typed) in new and typed.startswith("+"):
            new[_key(typed)] = f"+{new[_key(typed)]}"
    return [*(o for o in overrides if _key(o) not in new), *new.values(), *flags]


def place_keys(config: DictConfig, node: Literal["run", "sweep"] = "sweep") -> list[str]:
    """The keys of the app's config by which it names its directory."""
    return [key for key in _KEY.findall(_written_directory(config, node)) if not key.startswith("hydra.")]


def place_overrides(config: DictConfig, node: Literal["run", "sweep"]) -> list[str]:
    """What the typed command lacks to find the directory that it wrote into: a time in a name makes every start new."""
    written = _written_directory(config, node)
    if ":" in "".join(re.findall(r"\$\{[^}]*\}", written)):  # a resolver, such as ${now:%H}
        return [f"hydra.{node}.dir={_quoted(str(config.hydra[node].dir))}"]
    values = dict(leaves(config))
    varying = [key for key in place_keys(config, node) if "${" in str(values.get(key))]
    return [f"{key}={_quoted(str(OmegaConf.select(config, key)))}" for key in varying]


def elsewhere(config: DictConfig, study_name: str | None) -> str:
    """What a sweep must be given to lie elsewhere, under another name: 'name=...', say."""
    key = [*place_keys(config), "hydra.sweep.dir"][0]
    return f"{key}=..." if study_name is None else f"{key}=... and another hydra.sweeper.study_name"


def _written_directory(config: DictConfig, node: str) -> str:
    written = OmegaConf.to_container(config.hydra[node], resolve=False)
    assert isinstance(written, dict)
    return str(written["dir"])


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[-\w./]+", text) else QuotedString(text, Quote.single).with_quotes()
