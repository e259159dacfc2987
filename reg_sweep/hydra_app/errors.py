"""An error in a config as one line: what, rule, value, remedy."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import is_dataclass

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from reg_sweep.config.schema import ConfigError, DataError, RunConfig

# What OmegaConf says of a value that does not convert, and what its types are called here.
_WRONG_TYPE = re.compile(r"Value '(?P<value>.*)' of type '.*' could not be converted to (?P<kind>\w+)")
# What Hydra says of several values for one run; it recommends a list, of which only the last option would count.
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(?P<key>[^=]*)=(?P<values>.*)'")
# What Hydra says of a key that is not there, and could be added.
_TO_ADD = re.compile(r"To append to your config use (?P<override>\+\S.*)")
# What OmegaConf says where a key's parent is null: 2.3, and 2.4.
_BELOW_NULL = re.compile(r"Unexpected type for root: NoneType$|Cannot set '.*' because '.*' is None$")
# What brings launchers that the presets of clusters choose, and that are not installed with this package.
_PLUGINS = {
    "joblib": "'reg_sweep[joblib]'",
    "submitit_local": "'reg_sweep[slurm]'",
    "submitit_slurm": "'reg_sweep[slurm]'",
    "ray": "hydra-ray-launcher 'ray>=2.60' 'cloudpickle<3'",
}
_KINDS = {"Float": "a number", "Integer": "a whole number"}


def explain(error: BaseException, typed: Sequence[str] = ()) -> str:
    """An error in a config as one line: what, rule, value, remedy.

    `typed` are the command's overrides: some errors do not know which one they are about.
    """
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        remedy = f": pip install {_PLUGINS[option]}" if option in _PLUGINS else _close_to(option, error.options)
        return f"{group} must be one of {', '.join(error.options)}, got {option!r}{remedy}"
    several = _SEVERAL.match(str(error))
    if several is not None:
        return several_values(several["key"], several["values"])
    if isinstance(error, OverrideParseException):
        return f"{error.override!r} can't be read: {_one_line(error)}"
    cause = error if error.__cause__ is None else error.__cause__
    if _BELOW_NULL.match(str(cause)):
        return _below_null(typed)
    for found in (cause, error):  # of an interpolation's error the cause does not know the key
        if isinstance(found, OmegaConfBaseException) and found.full_key:
            to_add = _TO_ADD.search(str(error))
            return _explain_value(found, found.full_key, to_add and to_add["override"])
    if isinstance(cause, GrammarParseError):  # of a choice of a group: Hydra raises without a word
        return f"{_first([o for o in typed if '${' in o], 'a value')} can't be read: {_one_line(cause)}"
    if isinstance(error, ConfigError | DataError | HydraException | OmegaConfBaseException):
        return _one_line(error)
    return f"the config can't be composed: {type(error).__name__}: {_first_line(error)}"


def _below_null(typed: Sequence[str]) -> str:
    """That a key lies below a list or mapping that is not set: OmegaConf finds no place for it, and does not say it."""
    default = OmegaConf.structured(RunConfig)
    keys = [o.partition("=")[0].lstrip("+~") for o in typed]
    below = [key for key in keys if "." in (parent := _parent(key)) and OmegaConf.select(default, parent) is None]
    key = _first(below, "a key")
    parent = _parent(key) or "its list or mapping"
    return f"{key} must lie in a list or a mapping that is set, but {parent} is null: give {parent} whole"


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _first(words: Sequence[str], otherwise: str) -> str:
    return next(iter(words), otherwise)


def _explain_value(error: OmegaConfBaseException, key: str, to_add: str | None) -> str:
    """What OmegaConf found wrong with `key`, which it knows by its full name; `to_add` is the override that adds it."""
    message = str(error.msg)
    if "not in" in message:
        parent = error.parent_node if isinstance(error.parent_node, DictConfig) else {}
        prefix, _, name = key.rpartition(".")
        takes_any = isinstance(parent, DictConfig) and not is_dataclass(OmegaConf.get_type(parent))
        if to_add is not None and takes_any and not _close_to(name, [str(other) for other in parent]):
            return f"{key} must be a key of the config, got an unknown one: to add it, write {to_add}"
        return unknown_key(key, [f"{prefix}.{name}".lstrip(".") for name in map(str, parent)])
    wrong = _WRONG_TYPE.match(message)
    if wrong is not None:
        return f"{key} must be {_KINDS.get(wrong['kind'], wrong['kind'])}, got {wrong['value']!r}"
    return f"{key}: {message.splitlines()[0]}"


def several_values(key: str, values: str) -> str:
    """That one run was asked for, of several `values` of `key`."""
    as_sweep = f", as {key}={values[1:-1]} -m" if values.startswith("[") else ""
    return f"{key} must be one value, got {values}: add -m to train each{as_sweep}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """That `key` is no key of the config, and which of the `known` ones was probably meant."""
    if key in _sweeper_settings():
        return f"{key} must be a key of the config, got the sweeper's: did you mean 'hydra.sweeper.{key}'?"
    return f"{key} must be a key of the config, got an unknown one{_close_to(key, known)} (--help lists them)"


def _sweeper_settings() -> set[str]:
    """Names that are often typed without the `hydra.sweeper.` that belongs before them."""
    stored = ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).get("optuna_study.yaml")
    return set() if stored is None else {key for key in map(str, stored.node) if not key.startswith("_")}


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["without a word"])[0]


def _close_to(word: str, words: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""
