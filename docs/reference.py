"""Write docs/config.md, the reference of all settings: python docs/reference.py

Keys, types, defaults and options come from `reg_sweep/config/schema.py` and `conf/`. A key's range is taken from the
program's error for a value out of range. Only the meaning of each key is written here by hand.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from reg_sweep import train  # registers the schema
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig
from reg_sweep.hydra_app.internals import VERSION_BASE

PAGE = Path(__file__).with_name("config.md")
HEAD = """# Settings

*Which settings does a run have, which values are allowed, and what are the defaults?*

Everything is set on the command line: `python -m reg_sweep.train KEY=VALUE GROUP=OPTION`. An option is a file in
`conf/` that sets some keys; a key on the command line overrides it. `--help` prints all keys and options; `--cfg job`
prints the config that a command would use. A value out of range is refused in one line before anything is trained. So
is a key that does not exist, or that the chosen option would ignore.

<!-- Written by `python docs/reference.py` from reg_sweep/config/schema.py and conf/: change those. -->
"""
TAIL = """
## With a study

Set `n_trials`, `workers`, `storage`, the sampler, the pruner and all other options of a study as
`hydra.sweeper.KEY=VALUE`: [the sweeper's options](sweeper.md#options). Three have short forms:
`max_seeds=40`, `margin=0.005` and `confirm=true`.
Put your own options into your own folder, and name it with `--config-dir`: [your own parts](training.md).
"""


@dataclass(frozen=True)
class Key:
    """Meaning of a key, and refused values with the settings that make their rule apply."""

    meaning: str
    bad: tuple[Any, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)


SPEC = {"_target_": "?"}
TORCHRUN = "[torchrun](training.md#one-run-on-several-processes-torchrun)"
KEYS = {
    "l1": Key("strength of L1, in the form set by `penalty`", (-1,)),
    "l2": Key("strength of L2, in the form set by `penalty`", (-1,)),
    "seed": Key("fixes every random draw: initial weights, batches, augmentation, dropout", (-1,)),
    "epochs": Key("passes over the train images", (0, 10**7)),
    "batch_size": Key("images per step", (0,)),
    "name": Key("the run's folder in `outputs/`", ("/",)),
    "objective_at": Key(
        "the epoch that the objective is taken at: the last, or the one with the best val loss", ("?",)
    ),
    "keep": Key("whose weights are saved: the last epoch's, or also those of the best epoch on val", ("?",)),
    "objective": Key("the metric that a study optimizes and a pruner sees; for several objectives, a list", ("?",)),
    "test_epochs": Key(
        "after which epochs the test images are evaluated; the searches and `study=until_verdict` set `last`", ("?",)
    ),
    "report": Key("whether a multirun writes its report at the end"),
    "callbacks": Key("callbacks that observe the run", (1, {"a": SPEC})),
    "data": Key(""),
    "data.name": Key("the name in records and reports"),
    "data.source": Key("the function that returns the images, and its arguments", (SPEC,)),
    "data.root": Key("where images are read from, or downloaded to", ("",)),
    "data.offline_sample": Key("whether the 5,000 images of the package replace MNIST if it can't be downloaded"),
    "data.val_size": Key(
        "images held out of the train images; lambdas are chosen on them; null: the source's own val images", (-1,)
    ),
    "data.split_seed": Key("seed for choosing the val images", (-1,)),
    "data.train_size": Key("number of train images to use; null: all", (0,)),
    "data.label_noise": Key("share of train labels that are replaced by another class", (2,)),
    "data.rotation": Key("train images are rotated by up to this many degrees, in either direction", (181,)),
    "data.brightness": Key("train images' brightness is multiplied by 1 ± this", (2,)),
    "data.contrast": Key("train images' contrast is multiplied by 1 ± this", (2,)),
    "data.fill": Key("grey value, 0 to 255, for the pixels that a rotation or crop adds outside the image", (256,)),
    "data.flip": Key("share of train images that are mirrored, left to right", (2,)),
    "data.crop": Key("pixels of padding on each side, before a random crop to the image's size", (-1,)),
    "data.transforms": Key(
        "your own transforms, for example from torchvision.transforms.v2: [a data set](training.md#a-data-set)",
        (1, [1]),
    ),
    "data.mean": Key("subtracted from pixels in [0, 1], per channel; null: the train split's mean", ([0.0],)),
    "data.std": Key(
        "pixels are divided by this after `data.mean` is subtracted, per channel; null: the train split's",
        ([0.0],),
        {"mean": [0.0]},
    ),
    "model": Key(
        "the function or class that builds the network, and its arguments: [your own](training.md#a-model)", (SPEC,)
    ),
    "norm": Key(""),
    "norm.name": Key("the normalization layer; `norm=` chooses it and its settings", ("?",)),
    "norm.ghost_batch_size": Key("`gbn`: images that share their statistics", (1,), {"name": "gbn"}),
    "norm.groups": Key("`gn`: groups of channels", (0,), {"name": "gn"}),
    "penalty": Key(""),
    "penalty.name": Key("the form of L1 and L2; `penalty=` chooses it", ("?",)),
    "penalty.l1_update": Key("how L1 enters a step: `proximal` gives exact zeros", ("?",)),
    "penalty.l2_update": Key(
        "how L2 enters a step: `coupled` as in torch's SGD, `decoupled` as in AdamW, `cautious` only where the step "
        "shrinks the weight",
        ("?",),
    ),
    "penalty.l1_on": Key(
        "what L1 acts on: single `weights`; whole `channels`, with the scales and shifts of their norms; or the "
        "`scales` of norms (network slimming)",
        ("?",),
    ),
    "penalty.channel_weight": Key(
        "`channels`: whether a channel is penalized by the root of its `size`, or by its `cost` in multiply-adds",
        ("?",),
        {"l1_on": "channels", "l1_update": "proximal"},
    ),
    "optimizer": Key(""),
    "optimizer.name": Key("the optimizer; `optimizer=` chooses it and its settings", ("?",)),
    "optimizer.lr": Key("the highest learning rate", (0,)),
    "optimizer.momentum": Key("`sgd`: share of the previous step that is kept in the next", (1,), {"name": "sgd"}),
    "optimizer.nesterov": Key("`sgd`: whether to use Nesterov momentum"),
    "optimizer.betas": Key("`adamw`: decay of the two running means", ([1.0, 0.9], [0.9]), {"name": "adamw"}),
    "optimizer.source": Key("[one of your own](training.md#an-optimizer), and its arguments", (SPEC,), {"name": "own"}),
    "schedule": Key(""),
    "schedule.name": Key("how the learning rate changes, up to `optimizer.lr`; `schedule=` chooses it", ("?",)),
    "schedule.step_size": Key("`step`: epochs between two drops", (0,), {"name": "step"}),
    "schedule.gamma": Key("`step`: the factor of each drop", (0,), {"name": "step"}),
    "schedule.warmup": Key("`onecycle`: share of all steps during which the rate rises", (1,), {"name": "onecycle"}),
    "schedule.source": Key("[one of your own](training.md#a-schedule), and its arguments", (SPEC,), {"name": "own"}),
    "schedule.interval": Key("for an `LRScheduler`: whether it is stepped once per epoch or once per step", ("?",)),
    "loss": Key(""),
    "loss.name": Key("the loss on the train images; `loss=` chooses it", ("?",)),
    "loss.label_smoothing": Key("share of each train label that is spread evenly over all classes", (1,)),
    "loss.source": Key("[one of your own](training.md#a-loss), and its arguments", (SPEC,), {"name": "own"}),
    "mix": Key(""),
    "mix.name": Key("how train images are mixed in pairs, and their labels with them; `mix=` chooses it", ("?",)),
    "mix.alpha": Key("the two images' shares are drawn from Beta(alpha, alpha)", (0,), {"name": "mixup"}),
    "averaging": Key(""),
    "averaging.name": Key("the average of the weights that is evaluated and saved; `averaging=` chooses it", ("?",)),
    "averaging.decay": Key("`ema`: share of the average that is kept in each step", (1,), {"name": "ema"}),
    "averaging.start": Key("`swa`: share of the epochs after which averaging begins", (1,), {"name": "swa"}),
    "l1_schedule": Key(""),
    "l1_schedule.name": Key("how the strength of L1 changes, up to `l1`; `l1_schedule=` chooses it", ("?",)),
    "l1_schedule.warmup": Key("`warmup`: share of all steps during which it rises", (2,), {"name": "warmup"}),
    "l2_schedule": Key(""),
    "l2_schedule.name": Key("how the strength of L2 changes, up to `l2`; `l2_schedule=` chooses it", ("?",)),
    "l2_schedule.warmup": Key("`warmup`: share of all steps during which it rises", (2,), {"name": "warmup"}),
    "penalties": Key(
        "penalties of your own by name, each with `_target_` and `strength`: [a penalty](training.md#a-penalty)",
        (1, {"a": SPEC}),
    ),
    "runtime": Key(""),
    "runtime.device": Key("where to train; `auto`: on the GPU if there is one", ("?",)),
    "runtime.threads": Key("CPU threads; null: torch's choice", (0,)),
    "runtime.precision": Key("the precision of the network's arithmetic", ("?",)),
    "runtime.ranks": Key(f"processes that train the run together, started by {TORCHRUN}", (0,)),
}
# Defaults that are computed at each start.
SHOWN = {"name": "the time and six letters or digits", "data.root": "`$REG_SWEEP_DATA`, else `data`"}
TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    dict: "mapping",
    list: "list of numbers",
}
GROUPS = (
    "data",
    "model",
    "norm",
    "penalty",
    "penalties",
    "optimizer",
    "schedule",
    "loss",
    "mix",
    "averaging",
    "l1_schedule",
    "l2_schedule",
    "runtime",
    "callbacks",
    "experiment",
    "study",
    "cluster",
)


def schema(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key and its type, each group before its own keys."""
    for setting in fields(config):
        key = prefix + setting.name
        yield key, setting.type
        if is_dataclass(setting.type):
            yield from schema(setting.type, f"{key}.")


def shown_type(kind: Any) -> str:
    """A type in words."""
    kinds = [k for k in get_args(kind) if k is not type(None)] if type(None) in get_args(kind) else [kind]
    words = TYPES.get(getattr(kinds[0], "__origin__", kinds[0]), "see the rule")
    return words if kinds == [kind] else f"{words}, or null"


def shown_value(value: Any) -> str:
    """A default as the command line writes it."""
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}`"
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def refusal(key: str, bad: Any) -> str:
    """The program's error for a bad value of a key."""
    group, _, name = key.rpartition(".")
    settings = {**KEYS[key].beside, name: bad}
    try:
        RunConfig(**({group: RunConfig.__dataclass_fields__[group].type(**settings)} if group else settings))
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"{key}={bad!r} is not refused")


def rules(key: str) -> list[str]:
    """The rule that each bad value of a key breaks."""
    asked = key.removesuffix(".name") if key != "data.name" else key  # norm.name is refused as norm
    answers = []
    for bad in KEYS[key].bad:
        found = re.match(r"(\S+) must (.*), got ", refusal(key, bad))
        assert found is not None, key
        assert found[1].startswith(asked), f"{key}={bad!r} is refused for {found[1]}"
        answers.append(found[2] if found[1] == asked else f"`{found[1].removeprefix(asked + '.')}`: {found[2]}")
    return answers


def key_tables(defaults: DictConfig) -> Iterator[str]:
    """A table for the run's own keys, and one for each group.

    Raises:
        SystemExit: `KEYS` and the schema have different keys.
    """
    found = dict(schema(RunConfig))
    if found.keys() != KEYS.keys():
        raise SystemExit(
            f"docs/reference.py must describe each key, and no others: {sorted(found.keys() ^ KEYS.keys())}"
        )
    for group in ("", *(key for key, kind in found.items() if is_dataclass(kind))):
        own = [k for k, kind in found.items() if k.rpartition(".")[0] == group and not is_dataclass(kind)]
        yield f"\n### {f'`{group}`' if group else 'The run'}\n"
        yield "| key | meaning | type | default | it must |"
        yield "|---|---|---|---|---|"
        for key in own:
            value = SHOWN.get(key) or shown_value(at(defaults, key))
            yield f"| `{key}` | {KEYS[key].meaning} | {shown_type(found[key])} | {value} | {'; '.join(rules(key))} |"


def at(defaults: DictConfig, key: str) -> Any:
    """The value of a key with dots, as plain Python."""
    value = OmegaConf.select(defaults, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def heading(file: Path) -> tuple[str, str]:
    """The first command in a file's heading, and the rest of the heading as text."""
    lines = [line.removeprefix("#").strip() for line in file.read_text().splitlines() if line.startswith("#")]
    command, *more = [line for line in lines if not line.startswith("@package")]
    command, _, words = re.sub(r" {2,}", "\0", command).partition("\0")
    for line in more:
        if not line.startswith(("pip", "python")):
            words = f"{words}{'' if not words else ' ' if words.endswith((';', ',')) else '. '}{line}"
    return command, words.strip().replace("|", "\\|")


def sets(file: Path) -> str:
    """A file's settings as one would type them; for a study, its number of trials and its space."""
    config = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(config, dict)
    parts = [part for part in config.pop("defaults", []) if isinstance(part, dict)]
    chosen = {k.removeprefix("override /"): v for part in parts for k, v in part.items() if "/hydra" not in k}
    values = dict(flat({k: v for k, v in config.items() if k != "hydra"}))
    sweeper = config.get("hydra", {}).get("sweeper", {})
    values |= {"n_trials": sweeper["n_trials"]} if "n_trials" in sweeper else {}
    values |= sweeper.get("params", {})
    values |= flat(config.get("hydra", {}).get("launcher", {}), "hydra.launcher.")
    named = values.get("name") == file.stem
    return ", ".join(f"`{k}={v}`" for k, v in {**chosen, **values}.items() if not (k == "name" and named))


def flat(values: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted key; null values are left out."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def option_tables() -> Iterator[str]:
    """A table for each folder of conf/: its files, described by their own headings."""
    for group in GROUPS:
        yield f"\n### `{group}=`\n"
        yield "| option | meaning | what it sets | example |"
        yield "|---|---|---|---|"
        for file in sorted((train.CONF / group).glob("*.yaml")):
            command, words = heading(file)
            yield f"| `{file.stem}` | {words} | {sets(file)} | `{command}` |"


def page() -> str:
    """The whole page."""
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        defaults = compose("config")
    lines = [HEAD, "## Keys", *key_tables(defaults), "\n## Options of the groups", *option_tables(), TAIL]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
