"""Turns an error in a config into one line (what, rule, value, remedy) and removes passwords from addresses."""

import difflib
import errno
import re
import shlex
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.config.schema import NORMS, RunConfig, to_dict

# OmegaConf's message for a value that can't be converted.
_WRONG_TYPE = re.compile(r"Value '(?P<value>.*)' of type '.*' could not be converted to (?P<kind>\w+)")
# Hydra's message for several values in a single run. It suggests a list, of which only the last option would count.
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(?P<key>[^=]*)=(?P<values>.*)'")
# Hydra's message for several values of one of its own keys, which include the sweeper's.
_SWEPT = re.compile(r"Sweeping over Hydra's configuration is not supported : '(?P<key>[^=]*)=(?P<values>.*)'")
_LISTS = ("direction", "metric_names", "enqueue", "zip", "replicates", "may_differ", "confirm_with", "design.looks")
# Hydra's message for an option of a study's sweeper without a study.
_OF_A_STUDY = re.compile(r"Could not override '(?P<key>hydra/sweeper/\w+)'")
SEARCHES = "an interval is searched, add study=optuna"
# Short forms of the sweeper's keys on a study's command line.
STUDY_KEYS = {
    "max_seeds": "hydra.sweeper.design.max_seeds",
    "margin": "hydra.sweeper.design.margin",
    "confirm": "hydra.sweeper.confirm",
}
# Hydra's message for a missing key that could be added.
_TO_ADD = re.compile(r"To append to your config use (?P<override>\+\S.*)")
# OmegaConf's messages (2.3 and 2.4) for a key whose parent is null.
_BELOW_NULL = re.compile(r"Unexpected type for root: NoneType$|Cannot set '.*' because '.*' is None$")
# The packages of launchers that the cluster presets use and that are not installed with this package.
_PLUGINS = {
    "joblib": "'reg_sweep[joblib]'",
    "submitit_local": "'reg_sweep[slurm]'",
    "submitit_slurm": "'reg_sweep[slurm]'",
    "ray": "hydra-ray-launcher 'ray>=2.60' 'cloudpickle<3'",
}
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG}
_KINDS = {"Float": "a number", "Integer": "a whole number"}
# OmegaConf's other messages for values of a wrong kind, and ours.
_WRONG_KINDS = {
    re.compile(r".* is not a ListConfig, "): "must be a list, in brackets",
    re.compile(r"Cannot assign .* to Dict|.* is not a subclass of"): "must be a mapping: set its keys one by one",
    re.compile(r".* is not a valid bool"): "must be true or false",
}


def _unreadable(error: OverrideParseException) -> str:
    """The error for an override that Hydra's grammar can't parse."""
    typed = error.override
    if not typed.isprintable():
        return f"{typed!r} must be one line of printable characters"
    if "=" not in typed or typed.endswith(","):
        return f"{typed!r} must be key=value, in one piece: a list has no spaces, as in l1=0,0.001"
    key, _, value = typed.partition("=")
    if key.split() != [key]:
        return f"{typed!r} must be KEY=VALUE, with a key without spaces, got {key!r}"
    text = value.replace("'", "\\'")
    why = "a bracket, quote or comma is unmatched, or a character needs quotes"
    return f"{typed!r} can't be read: {why}; as text, write {key}=\"'{text}'\""


def explain(error: BaseException, typed: Sequence[str] = ()) -> str:
    """Explains an error in a config in one line: what, rule, value, remedy.

    `typed` are the command's overrides, because some errors don't say which one they are about.
    """
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        remedy = f": pip install {_PLUGINS[option]}" if option in _PLUGINS else _did_you_mean(option, error.options)
        return f"{group} must be one of {', '.join(error.options)}, got {option!r}{remedy}"
    of_a_sweep = _of_a_sweep(str(error))
    if of_a_sweep is not None:
        return of_a_sweep
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    cause = error if error.__cause__ is None else error.__cause__
    if _BELOW_NULL.match(str(cause)):
        return _below_null(typed)
    for found in (cause, error):  # the cause of an interpolation's error does not contain the key
        if isinstance(found, OmegaConfBaseException) and found.full_key:
            to_add = _TO_ADD.search(str(error))
            return _explain_value(found, found.full_key, to_add and to_add["override"], typed)
    if isinstance(cause, GrammarParseError):  # in the choice of a group, where Hydra gives no message
        return f"{_first([o for o in typed if '${' in o], 'a value')} can't be read: {_one_line(cause)}"
    if isinstance(error, ConfigError | DataError | HydraException | OmegaConfBaseException):
        return _one_line(error)
    if isinstance(error, OSError) and error.filename:
        remedy = "choose another name=..., or change the permissions"
        return f"{error.filename} must be accessible to this user, got {error.strerror}: {remedy}"
    return f"the config can't be composed: {type(error).__name__}: {first_line(error)}"


def _of_a_sweep(message: str) -> str | None:
    """The error for several values, or for an option of a study's sweeper without a study; None for other messages."""
    alone = _OF_A_STUDY.match(message)
    if alone is not None:
        return f"{alone['key']} must be used with a study, got none: add study=optuna, or another study"
    several = _SEVERAL.match(message)
    if several is not None:
        return several_values(several["key"], several["values"])
    swept = _SWEPT.match(message)
    return None if swept is None else _swept(swept["key"].lstrip("+"), swept["values"])


def _swept(key: str, values: str) -> str:
    """The error for several values of one of Hydra's or the sweeper's keys, which all jobs share."""
    param = key.removeprefix("hydra.sweeper.params.")
    if param != key:
        return f"{key} can't be swept, got {values}: write {shlex.quote(f'{param}={values}')}"
    as_list = f": as a list, write {key}=[{values}]" if key.removeprefix("hydra.sweeper.") in _LISTS else ""
    return f"{key} must be one value, the same for all jobs of a sweep, got {values}{as_list}"


def _below_null(typed: Sequence[str]) -> str:
    """The error for a key below a list or mapping that is not set; OmegaConf's own message does not name the key."""
    default = OmegaConf.structured(RunConfig)
    keys = [o.partition("=")[0].lstrip("+~") for o in typed]
    below = [key for key in keys if "." in (parent := _parent(key)) and OmegaConf.select(default, parent) is None]
    key = _first(below, "a key")
    parent = _parent(key) or "its list or mapping"
    return f"{key} must be in a list or mapping that is set, but {parent} is null: set all of {parent} at once"


def _parent(key: str) -> str:
    return key.rpartition(".")[0]


def _first(words: Sequence[str], otherwise: str) -> str:
    return next(iter(words), otherwise)


def _explain_value(error: OmegaConfBaseException, key: str, to_add: str | None, typed: Sequence[str]) -> str:
    """OmegaConf's error about `key` (its full name) in one line; `to_add` is the override that adds it."""
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
    if "Unexpected type annotation" in message:  # of the fields of Hydra's class Sweep
        sweeps = _first([o for o in typed if "{" in o], key)
        return f"{sweeps!r} must not sweep within a mapping: sweep each key separately"
    rule = next((said for pattern, said in _WRONG_KINDS.items() if pattern.match(message)), None)
    got = next((o.partition("=")[2] for o in typed if o.partition("=")[0].lstrip("+") == key), None)
    if rule is not None and got is not None:
        return f"{key} {rule}, got {got}"
    return f"{key}: {message.splitlines()[0]}"


def several_values(key: str, values: str) -> str:
    """The error for several `values` of `key` in a single run."""
    if "interval(" in values:
        return f"{key} must be one value, got {values}: {SEARCHES}"
    as_sweep = f", as {key}={values[1:-1]} -m" if values.startswith("[") else ""
    return f"{key} must be one value, got {values}: add -m to train each{as_sweep}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """The error for an unknown `key`, with the `known` one that was probably meant."""
    if key in STUDY_KEYS:
        return f"{key} must be used with a study, got none: add study=until_verdict, or another study"
    if key in _sweeper_settings():
        return (
            f"{key} must be a key of the config, got a sweeper's key: did you mean 'hydra.sweeper.{key}', with "
            "study=optuna or another study?"
        )
    if key.removeprefix("hydra.sweeper.") in _sweeper_settings():
        return f"{key} must be used with a study, got none: add study=optuna, or leave it out"
    return f"{key} must be a key of the config, got an unknown one{_did_you_mean(key, known)} (--help lists them)"


def _sweeper_settings() -> set[str]:
    """The names of the sweeper's settings, which are often typed without `hydra.sweeper.`."""
    stored = ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).get("optuna_study.yaml")
    return set() if stored is None else {key for key in map(str, stored.node) if not key.startswith("_")}


def unwritable(error: OSError, node: Literal["run", "sweep"], folder: Path) -> str | None:
    """The error for a folder that can't be written; None for another error, such as a full disk."""
    if error.errno not in _NO_PLACE:
        return None
    key = f"hydra.{node}.dir"
    return f"{key} must be a folder that can be written, got {folder}: {error.strerror}: choose another, {key}=FOLDER"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or 'no message'."""
    return (str(error).strip().splitlines() or ["no message"])[0]


# Our names of keys, groups and options, with other common names for the same.
SYNONYMS: dict[str, list[str]] = {
    ours: words.split()
    for ours, words in {
        "l1": "lambda1 lambda_1 lambda_l1 l1_lambda l1_penalty l1_reg lasso",
        "l2": "lambda2 lambda_2 lambda_l2 l2_lambda l2_penalty l2_reg ridge weight_decay wd decay",
        "seed": "random_seed random_state manual_seed torch_seed rng",
        "epochs": "epoch n_epochs num_epochs max_epochs",
        "batch_size": "batch batchsize bs train_batch_size minibatch",
        "name": "output_dir out_dir save_dir run_name experiment_name",
        "data": "dataset data_set",
        "data.root": "data_dir data_path dataset_dir",
        "data.val_size": "val_split validation_split valid_size n_val n_valid val_fraction val_frac",
        "data.train_size": "subset n_train max_train_samples",
        "data.transforms": "transform augment augmentation augmentations aug data_augmentation",
        "data.flip": "hflip horizontal_flip random_flip random_horizontal_flip",
        "data.crop": "random_crop padding",
        "data.rotation": "rotate random_rotation",
        "model": "net network arch architecture",
        "model.dropout": "dropout_rate drop_rate p_dropout",
        "model.channels": "width n_channels filters",
        "model.hidden": "hidden hidden_size hidden_dim units",
        "norm": "normalization norm_layer",
        "norm.ghost_batch_size": "virtual_batch_size ghost_size gbn_size",
        "optimizer": "optim opt",
        "optimizer.lr": "lr learning_rate learningrate step_length eta max_lr base_lr init_lr initial_lr optim_lr",
        "optimizer.betas": "beta beta1 beta2",
        "schedule": "scheduler lr_scheduler lr_schedule",
        "schedule.warmup": "warmup warmup_epochs warmup_steps pct_start",
        "loss.label_smoothing": "label_smoothing smoothing smooth_labels",
        "loss": "criterion loss_fn",
        "mix": "mixup_alpha cutmix_alpha mixing",
        "averaging": "weight_averaging model_ema ema ema_decay swa polyak",
        "penalties": "regularizers regularizer custom_penalty",
        "callbacks": "callback logger loggers tensorboard wandb mlflow",
        "objective": "metric monitor",
        "runtime.device": "gpu gpus cuda cpu mps devices accelerator",
        "runtime.threads": "n_threads num_threads num_workers n_jobs",
        "runtime.precision": "amp fp16 bf16 mixed_precision dtype",
        "bn": "batchnorm batch_norm batchnorm2d batch",
        "gbn": "ghost ghostbatchnorm ghost_batch_norm ghostnorm",
        "gn": "groupnorm group_norm group",
        "ln": "layernorm layer_norm layer",
        "in": "instancenorm instance_norm instance",
        "squeeze_expand": "cnn squeezenet conv convnet",
        "mlp": "linear dense fc perceptron",
        "adamw": "adam",
        "mnist_5k": "mnist5k mnist_sample",
    }.items()
}


def meant(word: str) -> str | None:
    """The key for a common name, such as `optimizer.lr` for `learning_rate`; None if there is none.

    The last part of a key is also recognized, if only one group has it.
    """
    last = word.rpartition(".")[2].lower()
    config: dict[str, Any] = to_dict(RunConfig())
    leaves = [f"{group}.{last}" for group, inner in config.items() if isinstance(inner, dict) and last in inner]
    if len(leaves) == 1 and leaves[0] != word:
        return leaves[0]
    found = [ours for ours, words in SYNONYMS.items() if last in (ours, *words)]
    keys = [ours for ours in found if ours.partition(".")[0] in config]
    return _first(keys, "norm") if keys or any(ours in NORMS for ours in found) else None


def _did_you_mean(word: str, words: Sequence[str]) -> str:
    """A suggestion from `words`: a synonym, or a near miss in spelling."""
    typed = word.rpartition(".")[2].lower()
    option = next((ours for ours in words if typed in SYNONYMS.get(ours, ())), None)
    ours = option or meant(word)
    return _close_to(word, words) if ours is None else f": did you mean {ours!r}?"


def _close_to(word: str, words: Sequence[str]) -> str:
    words = [known for known in words if not known.rpartition(".")[2].startswith("_")]  # such as _target_
    # For keys of one group, only compare the last part: the group itself is typed correctly.
    group = word.rpartition(".")[0]
    last = {known.removeprefix(f"{group}."): known for known in words} if group else {known: known for known in words}
    # Keys or options of one group are of one kind. Among all keys, a word that is only half similar means another.
    cutoff = 0.75 if {*words} <= {*to_dict(RunConfig())} else 0.6
    found = difflib.get_close_matches(word.removeprefix(f"{group}."), last, n=1, cutoff=cutoff)
    close = [last[name] for name in found]
    return f": did you mean {close[0]!r}?" if close else ""


# Addresses of servers. File and web addresses are left out: they contain no passwords here.
_OF_A_SERVER = re.compile(r"(?<![\w+.-])(?!sqlite|file:|pkg:|structured:|https?:)[A-Za-z][\w+.-]*://")
# An SQLite address with a user or options, as for an encrypted file.
_FILE_WITH_OPTIONS = re.compile(r"sqlite[\w+]*://([^/\s'\"]*@|[^\s'\"]*\?)")
_CREDENTIALS = re.compile(r"(\w://).*@")  # up to the last @ in the line: a password may contain @ or spaces
_OPTIONS = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")


def holds_address(text: str) -> bool:
    """Whether a text contains a server's address, which may be secret."""
    return _OF_A_SERVER.search(text) is not None or _FILE_WITH_OPTIONS.search(text) is not None


def public_text(text: str) -> str:
    """A text with users, passwords and options removed from its addresses."""
    return _OPTIONS.sub(r"\1...", _CREDENTIALS.sub(r"\1...@", text))
