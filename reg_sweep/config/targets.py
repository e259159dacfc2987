"""Resolves the parts of a run that a config names: built-in choices in `conf/`, and specs of callables.

A spec is a mapping with the dotted path of a callable under `_target_`, and the callable's arguments.
"""

import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from reg_sweep.config.rules import ConfigError, DataError, one_of, require, unused

PACKAGE = Path(__file__).parents[1]
# Inside the package if installed, next to it in a checkout.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


# ---- built-in choices


def chosen(group: str, value: Any) -> Any:
    """The settings of a choice given by its name, as in `model=mlp` on the command line; other values are unchanged.

    Raises:
        ConfigError: `conf/` has no such choice.
    """
    if not isinstance(value, str):
        return value
    import yaml

    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    rule = f"be one of {', '.join(names)}, or a mapping of settings"
    require(value in names, group, rule, value)
    return yaml.safe_load((CONF / group / f"{value}.yaml").read_text(encoding="utf-8"))


def filled(group: str, value: Any, kind: type[Any]) -> Any:
    """Makes a group of settings from the name of a choice or a mapping of settings; returns a finished one unchanged.

    Raises:
        ConfigError: there is no such choice or setting.
    """
    if isinstance(value, kind):
        return value
    names = [f.name for f in fields(kind)]
    if isinstance(value, str) and (CONF / group).is_dir():
        value = chosen(group, value)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{group} must be the name of a choice, a mapping or a {kind.__name__}, got {value!r}")
    for name in value:
        require(name in names, group, f"have only the settings {', '.join(names)}", name)
    return kind(**value)


def choice(group: str, config: Any, names: tuple[str, ...], owners: dict[str, str]) -> None:
    """Refuses a choice that is neither one of `names` nor has a `source`, and settings that belong to another choice.

    An empty source becomes None. `config` is the dataclass; `owners` maps settings to the choices that use them.
    """
    config.source, name = config.source or None, config.name
    if config.source is None:
        one_of(group, name, names)
    else:
        require(name not in names, group, f"be another name with {group}.source", name, f"choose {group}=own")
        target(f"{group}.source", config.source)
    for setting, owner in owners.items():
        value, key = getattr(config, setting), f"{group}.{setting}"
        if name != owner:
            unused(key, value, f"{group}={owner}", f"{group}={name}")


# ---- specs


def callback_specs(callbacks: Any) -> dict[str, Any]:
    """The spec of each callback by its name or its index in the list."""
    return callbacks if isinstance(callbacks, dict) else {str(i): spec for i, spec in enumerate(callbacks)}


def target(name: str, spec: Any) -> None:
    """Refuses a spec whose `_target_` is not a dotted path."""
    target = spec.get("_target_") if isinstance(spec, dict) else spec
    dotted = isinstance(target, str) and "." in target and all(map(str.isidentifier, target.split(".")))
    require(dotted, f"{name}._target_", "be the dotted path of a callable", target, "for example my_package.MyNet")


def attribute_at(path: str) -> Any:
    """The attribute at a dotted path; taken from `__main__` if its module is the running program's file.

    Importing that file again under its own name would run it a second time: its classes would differ from the
    program's, and Hydra 1.4 warns if a config is stored twice.
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


@contextmanager
def own_code(key: str, rule: str, name: object) -> Iterator[None]:
    """A context manager for calls of the user's own code, which may raise anything.

    Raises:
        ConfigError: "`key` must `rule`, got `name`", followed by the user's error and its line.
    """
    try:
        yield
    except (ConfigError, DataError):  # these are already clear messages
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and str(name).startswith("reg_sweep."):  # a download that fills the disk
            raise
        raise ConfigError(f"{key} must {rule}, got {name!r}: {_raised(error)}") from None


def _raised(error: BaseException) -> str:
    """The error of user code on one line, with the file and line of that code."""
    text = " ".join(str(error).split())
    if not text or not isinstance(error, TypeError | ValueError | RuntimeError):  # for these, the text says enough
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    frames = traceback.extract_tb(error.__traceback__)
    installed = [path for path in sys.path if path.endswith("-packages")]
    libraries = tuple(os.path.join(path, "") for path in (str(PACKAGE), sysconfig.get_path("stdlib"), *installed))
    own = [frame for frame in frames if not frame.filename.startswith((*libraries, "<"))]
    return f"{text:.300}" + (f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else "")
