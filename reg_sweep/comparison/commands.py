"""Commands that train arms on more seeds, composed from their settings alone.

A record may come from a stranger, so its own command is never printed as advice. Settings are printed only after the
schema has validated them: numbers, and known words. An arm that needs the user's own code has no command; a note says
how to train it.
"""

import hashlib
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.earlier import tested_seeds
from reg_sweep.config.digest import arm_digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import GROUP_TYPES, DataConfig, RunConfig, to_dict
from reg_sweep.stats.sequential import Design

_ENTRY = ["python", "-m", "reg_sweep.train"]
_MOST_LISTED = 8  # seeds listed one by one
_MOST_COMMANDS = 4
N_SEEDS_AT_LEAST = 3
_ALWAYS_SAID = ("norm", "l1", "l2")
# The choices of data= and model= and what each names; conf/ holds the same.
_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10"}
_DATA: dict[str, dict[str, Any]] = {
    **{name: {"_target_": "reg_sweep.torchvision_images", "dataset": its} for name, its in _TORCHVISION.items()},
    "mnist_5k": {"_target_": "reg_sweep.mnist_sample"},
    "photos": {"_target_": "reg_sweep.npz_images", "file": "photos/photos.npz"},
}
_MODELS = {"squeeze_expand": "reg_sweep.SqueezeExpand", "mlp": "reg_sweep.Mlp", "resnet": "reg_sweep.ResNet"}
# Implied by the choice or by torchrun, or specific to this machine.
_NOT_LEAVES = {"name", "source", "root", "offline_sample", "device", "threads", "ranks", "interval"}
# For choices other than the first, the defaults in conf/ differ from the schema's.
_SET_BY_CHOICE = {"data.val_size", "optimizer.lr"}


def seeds_to_train(comparison: Comparison) -> list[str]:
    """Commands that train the seeds that a table lacks; empty where none are needed or possible.

    A single seed says nothing about methods, so two more are added: for all arms if they form a grid, else for the
    baseline and the leading arm. With several seeds, and no arm that has all of the baseline's, the seeds that arms
    were never run on are added. The new runs join the table under the name of its sweep or, if it has none, because
    they train the same arms.

    An arm whose divergence was tested gets no more: it would be tested again with added seeds (`earlier`).
    """
    base, arms = comparison.baseline, comparison.measured
    if base is None or len(arms) < 2:
        return []
    name, others = sweep_name(comparison), [arm for arm in arms if arm is not base]
    if comparison.n_seeds > 1 and not comparison.is_paired:
        return []  # no arm needs the baseline's seeds
    if comparison.n_seeds > 1:
        open_arms = [arm for arm in others if not tested_seeds(arm, comparison)]
        return [] if any(arm.is_ranked for arm in others) else _missing_seeds(base, open_arms, name)
    if any(tested_seeds(arm, comparison) for arm in comparison.arms):
        return []
    seeds = next_seeds(arms, N_SEEDS_AT_LEAST - 1)
    at_once = more_seeds([base, *others], seeds, name)
    leaders = [arm for arm in comparison.ranked if arm is not base] or others
    return at_once if len(at_once) == 1 else more_seeds([base, leaders[0]], seeds, name)


def _missing_seeds(base: Arm, others: Sequence[Arm], name: str) -> list[str]:
    """Commands for the baseline's seeds that other arms were never run on, arms with the same gaps together."""
    lacking: dict[tuple[int, ...], list[Arm]] = {}
    for arm in others:
        if seeds := tuple(sorted(set(base.seeds) - set(arm.tried))):
            lacking.setdefault(seeds, []).append(arm)
    first = sorted(lacking.items(), key=lambda item: -len(item[1]))
    return [command for seeds, arms in first for command in more_seeds(arms, seeds, name)][:_MOST_COMMANDS]


def sweep_name(comparison: Comparison) -> str:
    """The `name=` for more runs of a table.

    If a grid made most of its runs, the grid's name, so that the grid grows. A study's folder can't hold a grid, and
    single runs have a folder each: these get a new name.
    """
    if comparison.study is not None:
        return f"{_slug(comparison.study.study.name)}_more"
    runs = [r for arm in comparison.arms for r in arm.replicates]
    grids = Counter(r.path.parent.name for r in runs if str(r.config.get("name", "")) == r.path.parent.name)
    name = grids.most_common(1)[0][0] if grids else ""
    return name if re.fullmatch(r"\w[\w.-]{0,80}", name, re.ASCII) else "more_seeds"


def _slug(text: str) -> str:
    """A text as a folder name: 'bn_l1_0.001'."""
    return re.sub(r"[^a-z0-9.-]+", "_", text.lower(), flags=re.ASCII)[:60].strip("_.-") or "runs"


def more_seeds(arms: Sequence[Arm], seeds: Sequence[int], name: str) -> list[str]:
    """Commands that train every arm on these seeds: one if the arms form a grid, else one per arm.

    torchrun can't run a grid, so its command loops over the seeds.
    """
    return trained(list(filter(None, (rebuilt(arm.config) for arm in arms))), seeds, name)


def trained(runs: Sequence[RunConfig], seeds: Sequence[int], name: str) -> list[str]:
    """The commands that train these configs on these seeds, in folders of this name."""
    found = [settings(run) for run in runs]
    joined = _joined(found) if len(found) > 1 and all(run.runtime.ranks == 1 for run in runs) else None
    if joined is not None:
        return [_line(joined, seeds, name)]
    return [
        _line(_said(its), seeds, name)
        if run.runtime.ranks == 1
        else _loop(run.runtime.ranks, _said(its), seeds, name if len(runs) == 1 else f"{name}_{n}")
        for n, (run, its) in enumerate(zip(runs, found, strict=True), 1)
    ]


def judged_name(study: str) -> str:
    """The name of the runs that judge what a search found."""
    return f"{_slug(study)}_judged"


def sequential_study(arms: Sequence[Arm], design: Design, first_seed: int, n_seeds: int) -> list[str]:
    """The command that starts a sequential study of these arms, the baseline first, on seeds from `first_seed`.

    It has the design's error and question. It ends after `n_seeds`, or after the design's seeds if these are more.
    Returns one command, or none if settings alone can't describe an arm or if it needs several processes.
    """
    runs = [run for arm in arms if (run := rebuilt(arm.config)) is not None]
    if len(runs) < len(arms) or len(runs) < 2 or any(run.runtime.ranks > 1 for run in runs):
        return []
    found = [settings(run) for run in runs]
    overrides = _joined(found)
    enqueued: list[str] = []
    if overrides is None:
        keys = list(dict.fromkeys(key for its in found for key in _said(its)))
        if any(key not in its for its in found for key in keys):
            return []
        overrides = {key: ",".join(dict.fromkeys(its[key][0] for its in found)) for key in keys}
        swept = [key for key, text in overrides.items() if "," in text]
        points = ",".join("{" + ",".join(f"{key}: {its[key][0]}" for key in swept) + "}" for its in found)
        enqueued = [f"hydra.sweeper.enqueue=[{points}]"]
    overrides.pop("objective", None)
    # Arms of two protocols may share a label, and a page may recommend a study of each.
    own = hashlib.sha256("".join(arm.digest for arm in arms).encode()).hexdigest()[:4]
    ours = {"hydra.sweeper.first_seed": str(first_seed), "name": f"{_slug(arms[-1].label)}_from_{first_seed}_{own}"}
    if design.margin is not None:
        ours["margin"] = f"{design.margin:g}"
    if n_seeds > design.max_seeds:
        ours["max_seeds"] = str(n_seeds)
    ours["hydra.sweeper.design.alpha"] = f"{design.alpha:g}"
    for name in ("question", "variance", "pairing"):
        if (value := getattr(design, name)) != getattr(Design, name):
            ours[f"hydra.sweeper.design.{name}"] = value
    said = [f"{key}={text}" for key, text in (overrides | ours).items()]
    return [shlex.join([*_ENTRY, "study=until_verdict", *said, *enqueued])]


def next_seeds(arms: Sequence[Arm], n: int) -> list[int]:
    """The n seeds after the largest that any of the arms tried."""
    first = max((seed for arm in arms for seed in arm.tried), default=0) + 1
    return list(range(first, first + n))


def rebuilt(config: Mapping[str, Any]) -> RunConfig | None:
    """A record's config under the current schema; None if the schema refuses it or it would make another arm."""
    parts = {f.name: config[f.name] for f in fields(RunConfig) if f.name in config}
    for ours in ("name", "report", "test_epochs", "callbacks"):
        parts.pop(ours, None)
    try:
        run = RunConfig(
            **parts | {group: make(**parts[group]) for group, make in GROUP_TYPES.items() if group in parts}
        )
        is_same = arm_digest(to_dict(run)) == arm_digest(dict(config))
        return run if is_same and settings(run) else None
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError):
        return None


# ---- settings


def settings(run: RunConfig) -> dict[str, tuple[str, bool]]:
    """A run's settings by key: the value in Hydra's grammar, and whether a command must include it.

    Raises:
        KeyError: a choice is not one of this project's.
        ValueError: a value is not a number, a switch or a list of these.
    """
    found = {key: (text, key in _ALWAYS_SAID or not is_default) for key, text, is_default in _choices(run)}
    default = RunConfig()
    for group in GROUP_TYPES:
        config, chosen = getattr(run, group), _default(group, run)
        is_first = found.get(group, ("", False))[0] == _first_choice(group)
        for field in fields(config):
            key, value = f"{group}.{field.name}", getattr(config, field.name)
            if field.name not in _NOT_LEAVES and value is not None:
                is_set = key in _SET_BY_CHOICE and not is_first
                found[key] = _text(value), is_set or value != getattr(chosen, field.name)
    found |= {"data.val_size": ("null", True)} if run.data.val_size is None else {}
    chosen_model: Any = found["model"][0]  # by its name
    usual = RunConfig(model=chosen_model).model
    for key, value in run.model.items():
        if key != "_target_":
            found[f"model.{key}"] = _text(value), value != usual.get(key)
    for key in ("epochs", "batch_size"):
        found[key] = _text(getattr(run, key)), getattr(run, key) != getattr(default, key)
    if isinstance(run.objective, str):
        found["objective"] = run.objective, run.objective != default.objective
    if (name := _text(run.data.name)) != found["data"][0]:
        found["data.name"] = name, True
    root = run.data.root
    if root != default.data.root and re.fullmatch(r"[\w./-]+", root, re.ASCII) and Path(root).is_dir():
        found["data.root"] = root, True
    return found


def _choices(run: RunConfig) -> Iterator[tuple[str, str, bool]]:
    yield "norm", run.norm.name, False
    for key in ("l1", "l2"):
        yield key, strength_text(getattr(run, key)), False
    for group, text in (("data", _named(_DATA, run.data.source)), ("model", _named(_MODELS, run.model["_target_"]))):
        yield group, text, text == _first_choice(group)
    if run.penalties:
        raise KeyError("penalties")
    for group in ("penalty", "optimizer", "schedule", "loss", "mix", "averaging", "l1_schedule", "l2_schedule"):
        config = getattr(run, group)
        if getattr(config, "source", None) is not None:
            raise KeyError(group)
        yield group, config.name, config.name == _first_choice(group)


def strength_text(strength: float) -> str:
    """A lambda in plain notation, exact to the last bit."""
    return short if float(short := f"{strength:g}") == strength else repr(strength)


def _named(choices: Mapping[str, Any], wanted: Any) -> str:
    for name, its in choices.items():
        if its == wanted:
            return name
    raise KeyError(wanted)


def _first_choice(group: str) -> str:
    """A group's default choice."""
    if group == "model":
        return next(iter(_MODELS))
    return str(getattr(getattr(RunConfig(), group), "name", ""))


def _default(group: str, run: RunConfig) -> Any:
    """A group's settings when only its choice is given."""
    if group == "data":
        return DataConfig(name=_named(_DATA, run.data.source))
    return GROUP_TYPES[group]() if group == "runtime" else GROUP_TYPES[group](name=getattr(run, group).name)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, str) and re.fullmatch(r"[a-z]\w{0,20}", value, re.ASCII):  # a choice that the schema took
        return value
    raise ValueError(value)


# ---- commands


def _said(found: Mapping[str, tuple[str, bool]]) -> dict[str, str]:
    return {key: text for key, (text, is_said) in found.items() if is_said}


def _line(overrides: Mapping[str, str], seeds: Sequence[int], name: str) -> str:
    said = [f"{key}={text}" for key, text in overrides.items()]
    return shlex.join([*_ENTRY, *said, f"seed={_sweep(seeds)}", f"name={name}", "-m"])


def _loop(ranks: int, overrides: Mapping[str, str], seeds: Sequence[int], name: str) -> str:
    start = ["torchrun", "--nproc-per-node", str(ranks), *_ENTRY[1:], *(f"{k}={v}" for k, v in overrides.items())]
    each = f"seed=$seed name={shlex.quote(name)}_$seed"
    return f"for seed in {' '.join(map(str, seeds))}; do {shlex.join(start)} {each}; done"


def _sweep(seeds: Sequence[int]) -> str:
    """Seeds in Hydra's grammar; a long consecutive list becomes a range, whose end is exclusive."""
    if len(seeds) > _MOST_LISTED and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))


def _joined(found: Sequence[Mapping[str, tuple[str, bool]]]) -> dict[str, str] | None:
    """Overrides whose grid is exactly these settings; None if there are none."""
    keys = [key for key in found[0] if any(key in its and its[key][1] for its in found)]
    if any(key not in its for its in found for key in {k for other in found for k in _said(other)}):
        return None
    there = {tuple(its[key][0] for key in keys) for its in found}
    values = {key: list(dict.fromkeys(its[key][0] for its in found)) for key in keys}
    if any("[" in text for texts in values.values() if len(texts) > 1 for text in texts):
        return None
    if math.prod(map(len, values.values())) != len(there) or there != set(product(*values.values())):
        return None
    return {key: ",".join(texts) for key, texts in values.items()}
