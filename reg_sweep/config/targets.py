"""Resolves the parts of a run that a config names: built-in choices in `conf/`, and specs with a dotted path."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from reg_sweep.config.rules import PACKAGE, ConfigError, require

# Inside the package if installed, next to it in a checkout.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


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


def callback_specs(callbacks: Any) -> dict[str, Any]:
    """The spec of each callback by its name or its index in the list."""
    return callbacks if isinstance(callbacks, dict) else {str(i): spec for i, spec in enumerate(callbacks)}
