"""What a run is: every setting, its default and its range, as plain dataclasses."""

import hashlib
import importlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from reg_sweep.config.limits import limits
from reg_sweep.config.targets import callback_specs, choice_rules, without_unset_sources

NORMS = ("none", "bn", "gbn", "gn", "ln", "in")
PENALTIES = ("textbook", "notebook")
L1_UPDATES = ("subgradient", "proximal")
L2_UPDATES = ("coupled", "decoupled")
NEAR_ZERO = 1e-3  # |w| below it counts as near zero; a kernel without a weight of at least this is dead
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "step", "onecycle", "cosine")
INTERVALS = ("epoch", "step")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16")
OBJECTIVES = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "zero_share")


class ConfigError(ValueError):
    """A setting out of its range. The message is one line: what, rule, value, remedy."""


class DataError(Exception):
    """Data that is missing, corrupt or out of reach. The message is one line."""


def _require(holds: bool, name: str, rule: str, value: object, remedy: str = "") -> None:
    if not holds:
        raise ConfigError(f"{name} must {rule}, got {value!r}" + (f": {remedy}" if remedy else ""))


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, name, f"be one of {', '.join(allowed)}", value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _at_least(name: str, value: Any, low: int) -> None:
    _require(_is_int(value) and value >= low, name, f"be a whole number of at least {low}", value)


def _share(name: str, value: Any, *, include_one: bool = False) -> None:
    rule = "be a share between 0 and 1" if include_one else "be at least 0 and below 1"
    _require(_is_finite(value) and value >= 0 and (value < 1 or (include_one and value == 1)), name, rule, value)


def _nonnegative(name: str, value: Any) -> None:
    _require(_is_finite(value) and value >= 0, name, "be a finite number of at least 0", value)


def _positive(name: str, value: Any) -> None:
    _require(_is_finite(value) and value > 0, name, "be a finite number above 0", value)


def _unused(name: str, value: object, owner: str, chosen: str) -> None:
    """A setting that the chosen alternative would ignore is an error: no option does nothing."""
    _require(value is None, name, f"be left out with {chosen}", value, f"it belongs to {owner}")


def _target(name: str, spec: Any) -> None:
    target = spec.get("_target_") if isinstance(spec, dict) else spec
    dotted = isinstance(target, str) and "." in target and all(map(str.isidentifier, target.split(".")))
    _require(dotted, f"{name}._target_", "be the dotted path of a callable", target, "for example my_package.MyNet")


def _choice(group: str, config: Any, names: tuple[str, ...], owners: dict[str, str]) -> None:
    config.source = config.source or None  # a mapping that nothing has been put into
    for rule in choice_rules(group, config, names, owners):
        _require(*rule)
    if config.source is not None:
        _target(f"{group}.source", config.source)


def locate(name: str, spec: dict[str, Any]) -> Callable[..., Any]:
    """The callable that `spec["_target_"]` names by its dotted path.

    Raises:
        ConfigError: there is no such module or attribute, or it is not callable.
    """
    module, _, attribute = spec["_target_"].rpartition(".")
    try:
        target: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # a module runs as it is imported, and may raise whatever it likes
        raise ConfigError(f"{name}._target_ must be importable from here, got {spec['_target_']!r}: {error}") from None
    _require(callable(target), f"{name}._target_", "be callable", spec["_target_"])
    return target


@dataclass
class DataConfig:
    """A data set, its split, and the augmentation of its train images.

    `source` names a function that returns `reg_sweep.Images`; its other keys are that function's arguments.
    `mean` and `std` (per channel, of pixels scaled to [0, 1]) are computed on the train split where left out.
    """

    name: str = "mnist"
    source: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "reg_sweep.torchvision_images", "dataset": "MNIST"}
    )
    root: str = field(default_factory=lambda: os.environ.get("REG_SWEEP_DATA") or "data")
    offline_sample: bool = True
    val_size: int = 10_000
    split_seed: int = 0
    train_size: int | None = None
    label_noise: float = 0.0
    rotation: float = 7.0  # degrees, to either side
    brightness: float = 0.1  # factor drawn from 1 +- this
    contrast: float = 0.1
    fill: int = 1  # of 255: what a rotation turns in from outside the image
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        _target("data.source", self.source)
        _require(self.root != "", "data.root", "name a folder", self.root)
        _at_least("data.val_size", self.val_size, 0)
        _at_least("data.split_seed", self.split_seed, 0)
        if self.train_size is not None:
            _at_least("data.train_size", self.train_size, 1)
        _share("data.label_noise", self.label_noise, include_one=True)
        is_angle = _is_finite(self.rotation) and 0 <= self.rotation <= 180
        _require(is_angle, "data.rotation", "be between 0 and 180 degrees", self.rotation)
        _share("data.brightness", self.brightness, include_one=True)
        _share("data.contrast", self.contrast, include_one=True)
        is_pixel = _is_int(self.fill) and 0 <= self.fill <= 255
        _require(is_pixel, "data.fill", "be a whole number in 0..255", self.fill)
        _require((self.mean is None) == (self.std is None), "data.mean", "come together with data.std", self.mean)
        for s in self.std or ():
            _positive("data.std", s)
        for m in self.mean or ():
            _require(_is_finite(m), "data.mean", "hold finite numbers", m)


GHOST_BATCH_SIZE = 32
GROUPS = 4


@dataclass
class NormConfig:
    """The normalization layer. `ghost_batch_size` belongs to gbn, `groups` to gn."""

    name: str = "bn"
    ghost_batch_size: int | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        _one_of("norm", self.name, NORMS)
        if self.ghost_batch_size is not None:
            _at_least("norm.ghost_batch_size", self.ghost_batch_size, 2)
        if self.groups is not None:
            _at_least("norm.groups", self.groups, 1)
        if self.name == "gbn":
            self.ghost_batch_size = GHOST_BATCH_SIZE if self.ghost_batch_size is None else self.ghost_batch_size
        else:
            _unused("norm.ghost_batch_size", self.ghost_batch_size, "norm=gbn", f"norm={self.name}")
        if self.name == "gn":
            self.groups = GROUPS if self.groups is None else self.groups
        else:
            _unused("norm.groups", self.groups, "norm=gn", f"norm={self.name}")


@dataclass
class PenaltyConfig:
    """What l1 and l2 multiply (`name`), and how each enters the update of a weight."""

    name: str = "textbook"
    l1_update: str = "subgradient"
    l2_update: str = "coupled"

    def __post_init__(self) -> None:
        _one_of("penalty", self.name, PENALTIES)
        _one_of("penalty.l1_update", self.l1_update, L1_UPDATES)
        _one_of("penalty.l2_update", self.l2_update, L2_UPDATES)


MOMENTUM = 0.9
BETAS = (0.9, 0.999)


@dataclass
class OptimizerConfig:
    """SGD (`momentum`, `nesterov`), AdamW (`betas`), or what `source` makes. Its weight decay is the run's l2."""

    name: str = "sgd"
    lr: float = 0.025
    momentum: float | None = None
    nesterov: bool | None = None
    betas: list[float] | None = None
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _choice("optimizer", self, OPTIMIZERS, {"momentum": "sgd", "nesterov": "sgd", "betas": "adamw"})
        _positive("optimizer.lr", self.lr)
        if self.name == "sgd":
            self.momentum = MOMENTUM if self.momentum is None else self.momentum
            self.nesterov = False if self.nesterov is None else self.nesterov
            _share("optimizer.momentum", self.momentum)
            holds, remedy = not self.nesterov or self.momentum > 0, "set optimizer.momentum above 0"
            _require(holds, "optimizer.nesterov", "be false without momentum", self.nesterov, remedy)
        elif self.name == "adamw":
            self.betas = list(BETAS) if self.betas is None else self.betas
            _require(len(self.betas) == 2, "optimizer.betas", "hold two numbers", self.betas)
            for beta in self.betas:
                _share("optimizer.betas", beta)


STEP_SIZE = 6
GAMMA = 0.1
WARMUP = 0.2


@dataclass
class ScheduleConfig:
    """How the learning rate moves below `optimizer.lr`.

    step: times `gamma` every `step_size` epochs. onecycle: linear from 0 over the first `warmup` share of all steps,
    then linear to 0. cosine: half a cosine from the full rate to 0. `source` names one of your own, with its arguments:
    see `training.schedule`; torch's are stepped each `interval` (epoch unless it is step).
    """

    name: str = "constant"
    step_size: int | None = None
    gamma: float | None = None
    warmup: float | None = None
    source: dict[str, Any] | None = None
    interval: str | None = None

    def __post_init__(self) -> None:
        _choice("schedule", self, SCHEDULES, {"step_size": "step", "gamma": "step", "warmup": "onecycle"})
        if self.name == "step":
            self.step_size = STEP_SIZE if self.step_size is None else self.step_size
            self.gamma = GAMMA if self.gamma is None else self.gamma
            _at_least("schedule.step_size", self.step_size, 1)
            _positive("schedule.gamma", self.gamma)
        elif self.name == "onecycle":
            self.warmup = WARMUP if self.warmup is None else self.warmup
            _share("schedule.warmup", self.warmup)
        is_interval = self.interval is None or (self.source is not None and self.interval in INTERVALS)
        _require(is_interval, "schedule.interval", "be epoch or step, and beside a schedule.source", self.interval)


@dataclass
class RuntimeConfig:
    """Where and how fast: `device`, CPU `threads` (torch's own choice where left out), `precision`.

    `ranks` is the number of processes that each compute a part of every batch.
    """

    device: str = "auto"
    threads: int | None = None
    precision: str = "float32"
    ranks: int = 1

    def __post_init__(self) -> None:
        _one_of("runtime.device", self.device, DEVICES)
        if self.threads is not None:
            _at_least("runtime.threads", self.threads, 1)
        _one_of("runtime.precision", self.precision, PRECISIONS)
        _at_least("runtime.ranks", self.ranks, 1)


@dataclass
class RunConfig:
    """One training, whole.

    `model` names a callable; its other keys are that callable's arguments. `objective` is what an entry point returns
    to the sweeper: one name or a list of names. `report` asks a multirun for its report at the end. `callbacks` are
    told how a run goes: what makes each (`_target_`, arguments), by name or as a list.

    Raises:
        ConfigError: a value is out of its range; the message says what, the rule, the value and the remedy.
    """

    l1: float = 0.0
    l2: float = 0.0
    seed: int = 1
    epochs: int = 20
    batch_size: int = 128
    name: str = "run"
    objective: Any = "val_loss"
    report: bool = True
    callbacks: Any = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    model: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "reg_sweep.SqueezeExpand", "channels": 16, "dropout": 0.05}
    )
    norm: NormConfig = field(default_factory=NormConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        _nonnegative("l1", self.l1)
        _nonnegative("l2", self.l2)
        self.l1, self.l2 = float(self.l1), float(self.l2)  # shown alike in records and reports
        _require(
            _is_int(self.seed) and 0 <= self.seed < 2**63,
            "seed",
            "be a whole number of at least 0",
            self.seed,
        )
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 1)
        for limit in limits(self):
            _require(*limit)
        parts = self.name.split("/")
        _require(
            self.name != "" and not self.name.startswith("/") and ".." not in parts and "." not in parts,
            "name",
            "be a folder's name inside outputs/",
            self.name,
        )
        for objective in self.objectives:
            _one_of("objective", objective, OBJECTIVES)
            _require(
                self.data.val_size > 0 or not objective.startswith("val_"),
                "objective",
                "not be measured on val without val images (data.val_size=0)",
                objective,
                "set data.val_size above 0, or objective=test_loss to select on test",
            )
        _target("model", self.model)
        _require(isinstance(self.callbacks, dict | list), "callbacks", "be a mapping or a list", self.callbacks)
        for name, spec in callback_specs(self.callbacks).items():
            _target(f"callbacks.{name}", spec)
        if "dropout" in self.model:
            _share("model.dropout", self.model["dropout"])

    @property
    def objectives(self) -> list[str]:
        """The objective's names, one or several."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)


# What may differ between two starts of one run: where it lies and runs, not what it computes.
_NOT_IN_DIGEST = {"name", "objective", "report", "callbacks"}
_NOT_IN_DATA_DIGEST = {"root", "offline_sample"}
_NOT_IN_RUNTIME_DIGEST = {"device", "threads"}


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config (as a dict) that decides what is computed: no name, place or machine."""
    kept = {k: v for k, v in config.items() if k not in _NOT_IN_DIGEST}
    kept["data"] = {k: v for k, v in config["data"].items() if k not in _NOT_IN_DATA_DIGEST}
    kept["runtime"] = {k: v for k, v in told_runtime(config).items() if k not in _NOT_IN_RUNTIME_DIGEST}
    kept |= {group: without_unset_sources(kept[group]) for group in ("optimizer", "schedule") if group in kept}
    return kept


def told_runtime(config: dict[str, Any]) -> dict[str, Any]:
    """Where a config (as a dict) runs, as before there were ranks: records of then tell of none, and had one."""
    return {k: v for k, v in config["runtime"].items() if (k, v) != ("ranks", 1)}


def digest(config: dict[str, Any]) -> str:
    """16 hexadecimal digits that two configs (as dicts) share if, and only if, they describe the same run."""
    text = json.dumps(_without_points(comparable(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_points(value: Any) -> Any:
    """Whole floats as integers: 7 and 7.0 are the same setting."""
    if isinstance(value, dict):
        return {k: _without_points(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_points(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def arm_digest(config: dict[str, Any]) -> str:
    """Like `digest`, without the seed: replicates of one arm share it."""
    return digest({**config, "seed": None})


def to_dict(run: RunConfig) -> dict[str, Any]:
    """The config as nested plain dicts, ready for JSON."""
    return asdict(run)
