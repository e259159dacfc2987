"""The settings of a run, with defaults and ranges, as plain dataclasses.

Each raises ConfigError if a value is out of range: see `RunConfig`.
"""

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from reg_sweep.config.regularizers import (
    AveragingConfig,
    LossConfig,
    MixConfig,
    StrengthScheduleConfig,
    checked_penalties,
)
from reg_sweep.config.rules import (
    at_least,
    is_finite,
    is_int,
    limits,
    nonnegative,
    one_of,
    positive,
    require,
    share,
    unused,
)
from reg_sweep.config.targets import callback_specs, choice, chosen, filled, target

NORMS = ("none", "bn", "gbn", "gn", "ln", "in")
PENALTIES = ("textbook", "notebook")
L1_UPDATES = ("subgradient", "proximal")
L2_UPDATES = ("coupled", "decoupled", "cautious")
L1_ON = ("weights", "channels", "scales")
CHANNEL_WEIGHTS = ("size", "cost")
NEAR_ZERO = 1e-3  # a weight with |w| below this is near zero; a kernel of only such weights is dead
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "step", "onecycle", "cosine")
INTERVALS = ("epoch", "step")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16")
TEST_EPOCHS = ("every", "last")
EPOCHS = ("last", "best_val")  # the epochs whose objective may be returned and whose weights may be kept
OBJECTIVES = ("val_loss", "val_accuracy", "test_loss", "test_accuracy", "zero_share", "multiply_adds")


@dataclass
class DataConfig:
    """A data set, its split, and the augmentation of its train images.

    `source` names a function that returns `reg_sweep.Images`; its other keys are that function's arguments.
    `transforms` lists specs of callables (`_target_`, arguments), such as those of torchvision.transforms.v2.
    `mean` and `std` (per channel, for pixels scaled to [0, 1]) are computed on the train split if left out.
    """

    name: str = "mnist"
    source: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "reg_sweep.torchvision_images", "dataset": "MNIST"}
    )
    root: str = field(default_factory=lambda: os.environ.get("REG_SWEEP_DATA") or "data")
    offline_sample: bool = True
    val_size: int | None = 10_000  # None: the source's own val images
    split_seed: int = 0
    train_size: int | None = None
    label_noise: float = 0.0
    rotation: float = 7.0  # at most so many degrees to either side
    brightness: float = 0.1  # by a factor drawn from 1 +- this
    contrast: float = 0.1
    fill: int = 1  # value of 0..255 for pixels that a rotation or crop brings in from outside the image
    flip: float = 0.0  # share of images that are mirrored horizontally
    crop: int = 0  # pixels of padding on each side before a random crop to the image's size
    transforms: Any = field(default_factory=list)  # the user's own, applied before the others
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        target("data.source", self.source)
        require(isinstance(self.name, str), "data.name", "be text", self.name)
        self.root = os.fspath(self.root) if isinstance(self.root, os.PathLike) else self.root  # records store strings
        require(isinstance(self.root, str) and self.root != "", "data.root", "name a folder", self.root)
        if self.val_size is not None:
            at_least("data.val_size", self.val_size, 0)
        at_least("data.split_seed", self.split_seed, 0)
        if self.train_size is not None:
            at_least("data.train_size", self.train_size, 1)
        share("data.label_noise", self.label_noise, include_one=True)
        is_angle = is_finite(self.rotation) and 0 <= self.rotation <= 180
        require(is_angle, "data.rotation", "be between 0 and 180 degrees", self.rotation)
        share("data.brightness", self.brightness, include_one=True)
        share("data.contrast", self.contrast, include_one=True)
        is_pixel = is_int(self.fill) and 0 <= self.fill <= 255
        require(is_pixel, "data.fill", "be a whole number in 0..255", self.fill)
        share("data.flip", self.flip, include_one=True)
        at_least("data.crop", self.crop, 0)
        require(isinstance(self.transforms, list), "data.transforms", "be a list", self.transforms)
        for spec in self.transforms:
            target("data.transforms", spec)
        require((self.mean is None) == (self.std is None), "data.mean", "be set together with data.std", self.mean)
        for s in self.std or ():
            positive("data.std", s)
        for m in self.mean or ():
            require(is_finite(m), "data.mean", "hold finite numbers", m)


GHOST_BATCH_SIZE = 32
GROUPS = 4


@dataclass
class NormConfig:
    """The normalization layer. `ghost_batch_size` belongs to gbn, `groups` to gn."""

    name: str = "bn"
    ghost_batch_size: int | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        one_of("norm", self.name, NORMS)
        if self.ghost_batch_size is not None:
            at_least("norm.ghost_batch_size", self.ghost_batch_size, 2)
        if self.groups is not None:
            at_least("norm.groups", self.groups, 1)
        if self.name == "gbn":
            self.ghost_batch_size = GHOST_BATCH_SIZE if self.ghost_batch_size is None else self.ghost_batch_size
        else:
            unused("norm.ghost_batch_size", self.ghost_batch_size, "norm=gbn", f"norm={self.name}")
        if self.name == "gn":
            self.groups = GROUPS if self.groups is None else self.groups
        else:
            unused("norm.groups", self.groups, "norm=gn", f"norm={self.name}")


@dataclass
class PenaltyConfig:
    """The penalty's form (`name`), how L1 and L2 each enter the update of a weight, and what L1 acts on.

    `l1_on` is weights, channels (as groups of weights) or scales (of norm layers). `channel_weight` sets how strongly
    channels are penalized relative to each other: by the square root of their size, or by their cost in multiply-adds.
    """

    name: str = "textbook"
    l1_update: str = "subgradient"
    l2_update: str = "coupled"
    l1_on: str = "weights"
    channel_weight: str | None = None

    def __post_init__(self) -> None:
        one_of("penalty", self.name, PENALTIES)
        one_of("penalty.l1_update", self.l1_update, L1_UPDATES)
        one_of("penalty.l2_update", self.l2_update, L2_UPDATES)
        one_of("penalty.l1_on", self.l1_on, L1_ON)
        if self.l1_on == "channels":
            self.channel_weight = "size" if self.channel_weight is None else self.channel_weight
            one_of("penalty.channel_weight", self.channel_weight, CHANNEL_WEIGHTS)
        else:
            on = f"penalty.l1_on={self.l1_on}"
            unused("penalty.channel_weight", self.channel_weight, "penalty.l1_on=channels", on)
        if self.l1_on != "weights":
            rule = f"be proximal with penalty.l1_on={self.l1_on}, or nothing becomes zero"
            remedy = "add penalty.l1_update=proximal"
            require(self.l1_update == "proximal", "penalty.l1_update", rule, self.l1_update, remedy)
            rule = f"be textbook with penalty.l1_on={self.l1_on}"
            require(self.name == "textbook", "penalty", rule, self.name, f"choose penalty={self.l1_on}")


MOMENTUM = 0.9
BETAS = (0.9, 0.999)


@dataclass
class OptimizerConfig:
    """SGD (`momentum`, `nesterov`), AdamW (`betas`), or the optimizer made by `source`. Its weight decay is l2."""

    name: str = "sgd"
    lr: float = 0.025
    momentum: float | None = None
    nesterov: bool | None = None
    betas: list[float] | None = None
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        choice("optimizer", self, OPTIMIZERS, {"momentum": "sgd", "nesterov": "sgd", "betas": "adamw"})
        positive("optimizer.lr", self.lr)
        if self.name == "sgd":
            self.momentum = MOMENTUM if self.momentum is None else self.momentum
            self.nesterov = False if self.nesterov is None else self.nesterov
            share("optimizer.momentum", self.momentum)
            holds, remedy = not self.nesterov or self.momentum > 0, "set optimizer.momentum above 0"
            require(holds, "optimizer.nesterov", "be false without momentum", self.nesterov, remedy)
        elif self.name == "adamw":
            self.betas = list(BETAS) if self.betas is None else self.betas
            require(len(self.betas) == 2, "optimizer.betas", "hold two numbers", self.betas)
            for beta in self.betas:
                share("optimizer.betas", beta)


STEP_SIZE = 6
GAMMA = 0.1
WARMUP = 0.2


@dataclass
class ScheduleConfig:
    """How the learning rate changes during a run, relative to `optimizer.lr`.

    step: multiplied by `gamma` every `step_size` epochs. onecycle: linear from 0 over the first `warmup` share of all
    steps, then linear to 0. cosine: half a cosine from the full rate to 0. `source` names your own schedule with its
    arguments: see `training.schedule`. Schedulers of torch step after each `interval` (epoch by default, or step).
    """

    name: str = "constant"
    step_size: int | None = None
    gamma: float | None = None
    warmup: float | None = None
    source: dict[str, Any] | None = None
    interval: str | None = None

    def __post_init__(self) -> None:
        choice("schedule", self, SCHEDULES, {"step_size": "step", "gamma": "step", "warmup": "onecycle"})
        if self.name == "step":
            self.step_size = STEP_SIZE if self.step_size is None else self.step_size
            self.gamma = GAMMA if self.gamma is None else self.gamma
            at_least("schedule.step_size", self.step_size, 1)
            positive("schedule.gamma", self.gamma)
        elif self.name == "onecycle":
            self.warmup = WARMUP if self.warmup is None else self.warmup
            share("schedule.warmup", self.warmup)
        is_interval = self.interval is None or (self.source is not None and self.interval in INTERVALS)
        require(is_interval, "schedule.interval", "be epoch or step, and set with schedule.source", self.interval)


@dataclass
class RuntimeConfig:
    """The `device`, the number of CPU `threads` (torch's own choice if left out), the `precision` and the `ranks`.

    `ranks` is the number of processes that each compute a part of every batch.
    """

    device: str = "auto"
    threads: int | None = None
    precision: str = "float32"
    ranks: int = 1

    def __post_init__(self) -> None:
        one_of("runtime.device", self.device, DEVICES)
        if self.threads is not None:
            at_least("runtime.threads", self.threads, 1)
        one_of("runtime.precision", self.precision, PRECISIONS)
        at_least("runtime.ranks", self.ranks, 1)


GROUP_TYPES: dict[str, type[Any]] = {
    "data": DataConfig,
    "norm": NormConfig,
    "penalty": PenaltyConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "loss": LossConfig,
    "mix": MixConfig,
    "averaging": AveragingConfig,
    "l1_schedule": StrengthScheduleConfig,
    "l2_schedule": StrengthScheduleConfig,
    "runtime": RuntimeConfig,
}


@dataclass
class RunConfig:
    """All settings of one training.

    `model` names a callable; its other keys are that callable's arguments. `objective` is what an entry point returns
    to the sweeper: one name or a list of names. `report` makes a multirun write a report at its end. `callbacks` are
    called during a run: specs (`_target_`, arguments) by name or as a list. `penalties` are the user's own, by name:
    `_target_`, `strength`, and optionally `of`, `schedule` and arguments; see `training.own_penalties`. `test_epochs`
    says after which epochs the test images are evaluated: every epoch, or only the last. A group may also be given as
    the name of a choice, as on the command line (`norm="gbn"`, `data="mnist_5k"`), or as a mapping of its settings.

    Raises:
        ConfigError: a value is out of range; the message states the setting, the rule, the value and the remedy.
    """

    l1: float = 0.0
    l2: float = 0.0
    seed: int = 1
    epochs: int = 20
    batch_size: int = 128
    name: str = "run"
    objective: Any = "val_loss"
    objective_at: str = "last"
    keep: Any = "last"
    report: bool = True
    test_epochs: str = "every"
    callbacks: Any = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    model: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "reg_sweep.SqueezeExpand", "channels": 16, "dropout": 0.05}
    )
    norm: NormConfig = field(default_factory=NormConfig)
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    l1_schedule: StrengthScheduleConfig = field(default_factory=StrengthScheduleConfig)
    l2_schedule: StrengthScheduleConfig = field(default_factory=StrengthScheduleConfig)
    penalties: Any = field(default_factory=dict)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        for group, kind in GROUP_TYPES.items():
            setattr(self, group, filled(group, getattr(self, group), kind))
        self.model = chosen("model", self.model)
        nonnegative("l1", self.l1)
        nonnegative("l2", self.l2)
        self.l1, self.l2 = float(self.l1), float(self.l2)  # so that records and reports show 0 and 0.0 alike
        require(
            is_int(self.seed) and 0 <= self.seed < 2**63,
            "seed",
            "be a whole number of at least 0 and below 2^63",
            self.seed,
        )
        at_least("epochs", self.epochs, 1)
        at_least("batch_size", self.batch_size, 1)
        for limit in limits(self):
            require(*limit)
        require(isinstance(self.name, str), "name", "be text", self.name)
        parts = self.name.split("/")
        require(
            self.name != "" and not self.name.startswith("/") and ".." not in parts and "." not in parts,
            "name",
            "be a folder's name inside outputs/",
            self.name,
        )
        longest = max(len(part.encode(errors="surrogatepass")) for part in parts)  # file systems allow 255 bytes
        require(longest <= 255, "name", "have at most 255 bytes between slashes", self.name)
        for objective in self.objectives:
            one_of("objective", objective, OBJECTIVES)
            require(
                self.data.val_size != 0 or not objective.startswith("val_"),
                "objective",
                "not be measured on val without val images (data.val_size=0)",
                objective,
                "set data.val_size above 0, or objective=test_loss to select on test",
            )
        one_of("test_epochs", self.test_epochs, TEST_EPOCHS)
        self._check_epochs()
        target("model", self.model)
        require(isinstance(self.callbacks, dict | list), "callbacks", "be a mapping or a list", self.callbacks)
        for name, spec in callback_specs(self.callbacks).items():
            target(f"callbacks.{name}", spec)
        self.l1_schedule.check("l1_schedule")
        self.l2_schedule.check("l2_schedule")
        self.penalties = checked_penalties(chosen("penalties", self.penalties))
        if "dropout" in self.model:
            share("model.dropout", self.model["dropout"])

    def _check_epochs(self) -> None:
        one_of("objective_at", self.objective_at, EPOCHS)
        kept = self.keep.split(",") if isinstance(self.keep, str) else self.keep
        is_known = (
            isinstance(kept, list)
            and all(name in EPOCHS for name in kept)
            and "last" in kept
            and len(set(kept)) == len(kept)
        )
        require(is_known, "keep", "be last, or last,best_val", self.keep)
        for name, value in (("objective_at", self.objective_at), ("keep", self.keep)):
            is_last = self.data.val_size != 0 or "best_val" not in value
            require(is_last, name, "be last without val images", value, "set data.val_size above 0")
        lacks = self.objective_at == "best_val" and self.test_epochs == "last"
        is_known = not lacks or not any(name.startswith("test_") for name in self.objectives)
        require(is_known, "objective_at", "be last with test_epochs=last, which evaluates test only then", "best_val")
        counted = [name for name in self.objectives if name in ("zero_share", "multiply_adds")]
        is_known = self.objective_at == "last" or not counted
        require(is_known, "objective_at", f"be last with {counted[:1]}, a count of the last weights", "best_val")

    @property
    def keeps_best_val(self) -> bool:
        """Whether the weights of the epoch with the best val loss are kept, in addition to the last ones."""
        return "best_val" in self.keep

    @property
    def objectives(self) -> list[str]:
        """The objectives' names as a list."""
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)


def to_dict(run: RunConfig) -> dict[str, Any]:
    """The config as nested plain dicts, ready for JSON."""
    return asdict(run)
