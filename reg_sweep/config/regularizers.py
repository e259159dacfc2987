"""The settings of regularizers other than L1, L2 and norms: loss, mixed images, averaged weights, custom penalties."""

import math
from dataclasses import dataclass
from typing import Any

from reg_sweep.config.rules import at_most_float32, nonnegative, one_of, positive, require, share, unused
from reg_sweep.config.targets import choice, target

LOSSES = ("cross_entropy",)
MIXES = ("none", "mixup", "cutmix")
AVERAGINGS = ("none", "ema", "swa")
STRENGTH_SCHEDULES = ("constant", "warmup", "cosine")
ALPHA = {"mixup": 0.2, "cutmix": 1.0}  # as in torchvision's reference recipes
DECAY = 0.99
START = 0.75
RISE = 0.2
WHOLE = "model"  # the default of `of`: a penalty is a function of the whole model
_OWN_KEYS = {"_target_", "strength", "of", "schedule"}


@dataclass
class LossConfig:
    """The train loss: cross-entropy, with a share of each label spread evenly over all classes (`label_smoothing`).

    `source` names your own loss instead: see `training.objective`. Val and test losses are always the cross-entropy.
    Source: Szegedy et al. 2016, arXiv 1512.00567, section 7.

    Raises:
        ConfigError: a value is out of range.
    """

    label_smoothing: float = 0.0
    name: str = "cross_entropy"
    source: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        choice("loss", self, LOSSES, {})
        share("loss.label_smoothing", self.label_smoothing)
        if self.source is not None:
            value, remedy = self.label_smoothing, f"it belongs to loss={LOSSES[0]}"
            require(value == 0, "loss.label_smoothing", "be 0 with loss.source", value, remedy)


@dataclass
class MixConfig:
    """Mixing of train images in pairs, with shares drawn from Beta(`alpha`, `alpha`): see `training.objective`.

    Raises:
        ConfigError: a value is out of range.
    """

    name: str = "none"
    alpha: float | None = None

    def __post_init__(self) -> None:
        one_of("mix", self.name, MIXES)
        if self.name == "none":
            unused("mix.alpha", self.alpha, "mix=mixup and mix=cutmix", "mix=none")
        else:
            self.alpha = ALPHA[self.name] if self.alpha is None else self.alpha
            positive("mix.alpha", self.alpha)


@dataclass
class AveragingConfig:
    """Averaging of weights for evaluation: `decay` belongs to ema, `start` (a share of the epochs) to swa.

    Raises:
        ConfigError: a value is out of range.
    """

    name: str = "none"
    decay: float | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        one_of("averaging", self.name, AVERAGINGS)
        if self.name == "ema":
            self.decay = DECAY if self.decay is None else self.decay
            share("averaging.decay", self.decay)
        else:
            unused("averaging.decay", self.decay, "averaging=ema", f"averaging={self.name}")
        if self.name == "swa":
            self.start = START if self.start is None else self.start
            share("averaging.start", self.start)
        else:
            unused("averaging.start", self.start, "averaging=swa", f"averaging={self.name}")


@dataclass
class StrengthScheduleConfig:
    """How a penalty's strength changes over a run's steps, as a share of its full strength.

    constant: 1. warmup: rises linearly from 0 over the first `warmup` share of all steps, then 1. cosine: falls from 1
    to 0 by half a cosine.
    """

    name: str = "constant"
    warmup: float | None = None

    def check(self, key: str) -> None:
        """Refuses values out of range; errors name them by `key`."""
        one_of(key, self.name, STRENGTH_SCHEDULES)
        if self.name == "warmup":
            self.warmup = RISE if self.warmup is None else self.warmup
            share(f"{key}.warmup", self.warmup, include_one=True)
        else:
            unused(f"{key}.warmup", self.warmup, f"{key}=warmup", f"{key}={self.name}")

    def share_at(self, step: int, n_steps: int) -> float:
        """The share of the full strength at step `step` of `n_steps`, counted from 0."""
        if self.name == "warmup":
            assert self.warmup is not None
            return min(1.0, (step + 1) / max(1.0, self.warmup * n_steps))
        return (1 + math.cos(math.pi * step / n_steps)) / 2 if self.name == "cosine" else 1.0


def checked_penalties(penalties: Any, *, from_python: bool = False) -> dict[str, dict[str, Any]]:
    """Checks the specs of custom penalties, by name; returns them without settings at their defaults.

    With `from_python`, `_target_` may be the callable itself and `of` a list of parameters.

    Raises:
        ConfigError: a spec has no target, no strength or one out of range, or a name that is invalid or taken.
    """
    require(isinstance(penalties, dict), "penalties", "be a mapping of penalties by name", penalties)
    return {name: _checked_penalty(name, spec, from_python=from_python) for name, spec in penalties.items()}


def _checked_penalty(name: Any, spec: Any, *, from_python: bool) -> dict[str, Any]:
    key = f"penalties.{name}"
    is_name = isinstance(name, str) and name.isidentifier() and name not in ("l1", "l2")
    require(is_name, "penalties", "have names made of letters, digits and _, other than l1 and l2", name)
    require(isinstance(spec, dict), key, "be a mapping with _target_ and strength", spec)
    if not (from_python and callable(spec.get("_target_"))):
        target(key, spec)
    is_given = spec.get("strength") is not None
    require(is_given, f"{key}.strength", "be given", None, f"for example {key}.strength=0.01")
    nonnegative(f"{key}.strength", spec["strength"])
    at_most_float32(f"{key}.strength", spec["strength"])
    kept = {k: v for k, v in spec.items() if k not in _OWN_KEYS - {"_target_"}} | {"strength": float(spec["strength"])}
    of, schedule = spec.get("of"), spec.get("schedule")
    if of is not None and not (isinstance(of, str) and of == WHOLE):
        rule = "be model, weights or a pattern of parameters' names"
        is_selector = (isinstance(of, str) and of != "") or (from_python and isinstance(of, list))
        require(is_selector, f"{key}.of", rule, of, "for example 'conv*.weight'")
        kept["of"] = of
    if schedule not in (None, "constant"):
        made = strength_schedule(f"{key}.schedule", schedule)
        kept |= {"schedule": {k: v for k, v in vars(made).items() if v is not None}} if made.name != "constant" else {}
    return kept


def strength_schedule(key: str, value: Any) -> StrengthScheduleConfig:
    """Makes a schedule from its name or from a mapping of its settings.

    Raises:
        ConfigError: there is no such schedule or setting, or a value is out of range.
    """
    settings = {"name": value} if isinstance(value, str) else value
    is_known = isinstance(settings, dict) and settings.keys() <= {"name", "warmup"}
    require(is_known, key, "be a name or a mapping with name and warmup", value)
    made = StrengthScheduleConfig()
    vars(made).update(settings)
    made.check(key)
    return made


def moving_strengths(run: Any) -> dict[str, tuple[float, StrengthScheduleConfig]]:
    """The full strength and the schedule of each penalty of a `RunConfig` whose strength changes, by name."""
    found = {"l1": (run.l1, run.l1_schedule), "l2": (run.l2, run.l2_schedule)}
    for name, spec in run.penalties.items():
        schedule = strength_schedule(f"penalties.{name}.schedule", spec.get("schedule", "constant"))
        found[name] = spec["strength"], schedule
    return {name: its for name, its in found.items() if its[0] > 0 and its[1].name != "constant"}


def penalty_strengths(config: dict[str, Any]) -> dict[str, float]:
    """The strengths of L1, L2 and custom penalties above 0 in a config (as a dict), by the key that sets them."""
    own = config.get("penalties")
    specs = {k: v for k, v in own.items() if isinstance(v, dict) and k.isidentifier()} if isinstance(own, dict) else {}
    found = {f"penalties.{name}.strength": spec.get("strength") for name, spec in specs.items()}
    numbers = {k: float(v) for k, v in found.items() if isinstance(v, int | float) and v > 0}
    return {"l1": float(config["l1"]), "l2": float(config["l2"]), **numbers}


def without_unused(config: dict[str, Any]) -> dict[str, Any]:
    """A config's settings without regularizers that are off, which older versions' digests do not contain."""
    kept = dict(config)
    for group in ("mix", "averaging"):
        if isinstance(kept.get(group), dict) and kept[group].get("name") == "none":
            del kept[group]
    for key in ("l1", "l2"):
        schedule = kept.get(f"{key}_schedule")
        if isinstance(schedule, dict) and (schedule.get("name") == "constant" or kept.get(key) == 0):
            del kept[f"{key}_schedule"]
    loss = kept.get("loss")
    if isinstance(loss, dict) and loss.get("source") is not None:
        kept["loss"] = {"source": loss["source"]}
    elif isinstance(loss, dict):
        kept["loss"] = {k: v for k, v in loss.items() if k != "source" and (k, v) != ("name", LOSSES[0])}
        if kept["loss"] == {"label_smoothing": 0}:
            del kept["loss"]
    own = kept.get("penalties")
    if isinstance(own, dict):
        kept["penalties"] = {k: v for k, v in own.items() if not (isinstance(v, dict) and v.get("strength") == 0)}
        if kept["penalties"] == {}:
            del kept["penalties"]
    return kept
