"""The command line: as redacted text, and as the command that resumes the work."""

import io
import re
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.errors import STUDY_KEYS, holds_address
from reg_sweep.hydra_app.internals import parsed_flags
from reg_sweep.hydra_app.overrides import leaves
from reg_sweep.runs.addresses import typed_path

_FLAGS_WITH_VALUE = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p"}
_KEY = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True)
class TypedCommand:
    """The command line that started a sweep.

    A notebook, a test, or a script with its own flags may start sweeps too. Its command line is not Hydra's, so
    there is no TypedCommand.

    Attributes:
        app: the app as it was started, without its arguments.
        flags: the flags that replace the app's main config.
        place: the overrides by which the command finds its directory again.
        overrides: all overrides except those of Hydra's own keys.
    """

    app: list[str]
    flags: list[str]
    place: list[str]
    overrides: list[str]

    @classmethod
    def of(cls, config: DictConfig) -> "TypedCommand | None":
        """The command that Hydra composed this config from; None if this process's command has other overrides."""
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                flags = parsed_flags(sys.argv[1:])
        except (SystemExit, IndexError, TypeError, AttributeError):
            return None  # the program has flags unknown to Hydra's parser, or no arguments
        typed = [o for o in flags.overrides if not o.lstrip("+~").startswith(("hydra.", "hydra/"))]
        composed = OmegaConf.to_container(config.hydra.overrides, resolve=False)
        assert isinstance(composed, dict)
        if set(typed) != set(composed["task"]):
            return None
        named = {"--config-path": flags.config_path, "--config-name": flags.config_name}
        chosen = [word for flag, value in named.items() if value is not None for word in (flag, value)]
        return cls(app_command(), chosen, place_overrides(config, "sweep"), typed)

    def again(self, *more: str) -> str:
        """The command that resumes the sweep, with more overrides."""
        return shlex.join([*self.app, *continuing_arguments(self.place, *more)])


def app_command() -> list[str]:
    """The app as it was started, without its arguments."""
    # The interpreter's options come before -m MODULE or the script, the app's arguments after it.
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return ["python", "-m", next(words)]
        if word in ("-W", "-X"):
            next(words)
        elif not word.startswith("-"):
            break
    return ["python", typed_path(sys.argv[0])]


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line's arguments for printing; servers' addresses, which may hold passwords, are replaced by dots."""
    return [f"{a.partition('=')[0]}=..." if holds_address(a) else a for a in arguments]


def overrides_and_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into overrides and flags: Hydra's parser does not accept overrides mixed with flags."""
    overrides: list[str] = []
    flags: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_override = not argument.startswith("-") and ("=" in argument or argument.startswith("~"))
        (overrides if is_override and before not in _FLAGS_WITH_VALUE else flags).append(argument)
    return overrides, flags


def placed_beside_study(arguments: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Replaces a study's short settings, such as max_seeds=40, by the sweeper's keys, and adds --multirun to a study.

    A study's file sets hydra.mode to multirun, but Hydra 1.4 ignores a mode in a file.
    """
    # `keep=last,best_val` is a list for one run, not a sweep: Hydra writes lists in brackets.
    arguments = [f"keep=[{a[5:]}]" if re.fullmatch(r"keep=\w+(,\w+)+", a) else a for a in arguments]
    if not any(a.startswith("study=") for a in arguments):
        return [*arguments, *flags]
    parts = [(a, *a.partition("=")) for a in arguments]
    placed = [f"{STUDY_KEYS[key]}={value}" if key in STUDY_KEYS else a for a, key, _, value in parts]
    needless = ("--cfg", "-c", "--info", "-i", "--multirun", "-m")  # flags that run nothing, and the flag itself
    is_needless = any(flag.partition("=")[0] in needless for flag in flags)
    return [*placed, *([] if is_needless else ["--multirun"]), *flags]


def continuing_arguments(place: Sequence[str], *more: str) -> list[str]:
    """The typed arguments with the overrides of `place` and `more`, which replace earlier ones of the same key."""
    overrides, flags = overrides_and_flags(public_arguments(sys.argv[1:]))
    new = {_key(override): override for override in (*place, *more)}
    for typed in overrides:  # a key that the app lacks was added with a +, and needs it again
        if _key(typed) in new and typed.startswith("+"):
            new[_key(typed)] = f"+{new[_key(typed)]}"
    return [*(o for o in overrides if _key(o) not in new), *new.values(), *flags]


def place_keys(config: DictConfig, node: Literal["run", "sweep"] = "sweep") -> list[str]:
    """The keys of the app's config that its directory's name contains."""
    return [key for key in _KEY.findall(written_directory(config, node)) if not key.startswith("hydra.")]


def place_overrides(config: DictConfig, node: Literal["run", "sweep"]) -> list[str]:
    """The overrides that fix the directory's name, if it contains a time and would change at each start."""
    written = written_directory(config, node)
    if ":" in "".join(re.findall(r"\$\{[^}]*\}", written)):  # a resolver, such as ${now:%H}
        return [f"hydra.{node}.dir={_quoted(str(config.hydra[node].dir))}"]
    values = dict(leaves(config))
    varying = [key for key in place_keys(config, node) if "${" in str(values.get(key))]
    return [f"{key}={_quoted(str(OmegaConf.select(config, key)))}" for key in varying]


def elsewhere(config: DictConfig, study_name: str | None) -> str:
    """The overrides that give a sweep another directory and name, such as 'name=...'."""
    key = [*place_keys(config), "hydra.sweep.dir"][0]
    return f"{key}=..." if study_name is None else f"{key}=... and another hydra.sweeper.study_name"


def typed_override(key: str, value: str) -> str:
    """An override with a text as its value, as typed in a shell."""
    return shlex.quote(f"{key}={_quoted(value)}")


def written_directory(config: DictConfig, node: str) -> str:
    """A run's or sweep's directory as written in the config, such as 'outputs/${name}'."""
    written = OmegaConf.to_container(config.hydra[node], resolve=False)
    assert isinstance(written, dict)
    return str(written["dir"])


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _quoted(text: str) -> str:
    """A text as a value in Hydra's grammar, quoted if it is not ASCII or would become a number or null."""
    if (
        re.fullmatch(r"[-\w./]+", text, re.ASCII)
        and OverridesParser.create().parse_override(f"x={text}").value() == text
    ):
        return text
    return QuotedString(text, Quote.single).with_quotes()
