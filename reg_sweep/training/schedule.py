"""The learning rate and the penalties' strengths of each step.

`schedule.source` names a custom schedule, which is one of two kinds:

- A function with a parameter `optimizer`, as torch's schedulers have. `source(optimizer=..., **arguments)` makes a
  `torch.optim.lr_scheduler.LRScheduler`, which is stepped once per `schedule.interval`. ReduceLROnPlateau, which needs
  a metric, gets the val loss once per epoch.
- Any other function. `source(step=..., epoch=..., n_steps=..., **arguments)` returns the share of the full rate at that
  step; step and epoch are counted from 0.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from reg_sweep.config.regularizers import moving_strengths
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig, ScheduleConfig
from reg_sweep.config.targets import locate, own_code
from reg_sweep.runs.record import MetricsRow
from reg_sweep.training.optimizer import keep_in_state
from reg_sweep.training.penalties import Penalty


class Schedule:
    """Sets the learning rate of a run's steps, and the strengths of penalties that have a schedule of their own.

    Each of the optimizer's groups gets a share of its initial rate. An LRScheduler's state is stored in the
    optimizer's, so that one checkpoint restores both; a share depends only on the step.

    Raises:
        ConfigError: `schedule.source` can't be imported or called, or returns neither a share nor a scheduler; its
            `interval` would be ignored; or it needs val images, and there are none.
    """

    def __init__(
        self, optimizer: Optimizer, run: RunConfig, steps_per_epoch: int, penalty: Penalty | None = None
    ) -> None:
        self._optimizer, self._n_epochs, self._steps_per_epoch = optimizer, run.epochs, steps_per_epoch
        self._rates = [group["lr"] for group in optimizer.param_groups]
        self._scheduler: Any = None
        self._share: Callable[[int], float]
        n_steps = run.epochs * steps_per_epoch
        self._penalty, self._n_steps = penalty, n_steps
        self._strengths = {} if penalty is None else moving_strengths(run)
        source = run.schedule.source
        if source is None:
            self._share = lambda step: lr_factor(run.schedule, step, step // steps_per_epoch, n_steps)
        elif "optimizer" in _parameters(locate("schedule.source", source)):
            scheduler = _make_scheduler(source, optimizer)
            self._sees_val = isinstance(scheduler, ReduceLROnPlateau)
            if self._sees_val:
                _check_sees_val(run)
            keep_in_state(optimizer, "schedule", scheduler)
            self._scheduler = scheduler
        elif run.schedule.interval is not None:
            raise ConfigError(
                f"schedule.interval must be left out if schedule.source returns a share, which is computed at each "
                f"step, got {run.schedule.interval!r}"
            )
        else:
            self._share = _shares(source, n_steps, steps_per_epoch).__getitem__
        self._is_stepped_each_step = run.schedule.interval == "step"

    def set_step(self, step: int) -> float:
        """Sets the rate and strengths for a step, counted from 0 over the whole run; returns the first group's rate."""
        for name, (strength, schedule) in self._strengths.items():
            assert self._penalty is not None
            self._penalty.set_strength(name, strength * schedule.share_at(step, self._n_steps))
        groups = self._optimizer.param_groups
        if self._scheduler is None:
            share = self._share(step)
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate * share
        elif self._is_stepped_each_step and step % self._steps_per_epoch > 0:
            self._scheduler.step()
        return float(groups[0]["lr"])

    def end_epoch(self, row: MetricsRow) -> None:
        """Steps the scheduler to the next epoch, given this epoch's metrics; called before the state is saved."""
        if self._scheduler is None or row["epoch"] == self._n_epochs:
            return
        if self._sees_val:
            self._scheduler.step(row["val_loss"])
        else:
            self._scheduler.step()


def lr_factor(schedule: ScheduleConfig, step: int, epoch: int, n_steps: int) -> float:
    """The share of the full learning rate at a step: see `ScheduleConfig`.

    onecycle rises over the first `warmup` share of the steps and falls over the rest; it is 1 at one step, and never 0.
    """
    if schedule.name == "step":
        assert schedule.step_size is not None
        assert schedule.gamma is not None
        return schedule.gamma ** (epoch // schedule.step_size)
    if schedule.name == "onecycle":
        assert schedule.warmup is not None
        peak = min(math.ceil(schedule.warmup * n_steps), n_steps - 1)
        return (step + 1) / (peak + 1) if step < peak else (n_steps - step) / (n_steps - peak)
    if schedule.name == "cosine":
        return (1 + math.cos(math.pi * step / n_steps)) / 2
    return 1.0


# ---- custom schedules


def _parameters(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a builtin may have no signature
        return set()


def _make_scheduler(source: dict[str, Any], optimizer: Optimizer) -> LRScheduler:
    make, name = locate("schedule.source", source), source["_target_"]
    with own_code("schedule.source", "take (optimizer) and the arguments of its config", name):
        scheduler = make(optimizer=optimizer, **_arguments(source))
    if not isinstance(scheduler, LRScheduler):
        raise ConfigError(f"schedule.source must make an LRScheduler, got {type(scheduler).__name__} from {name!r}")
    return scheduler


def _check_sees_val(run: RunConfig) -> None:
    if run.schedule.interval == "step":
        raise ConfigError("schedule.interval must be epoch with ReduceLROnPlateau, which needs an epoch's val loss")
    if run.data.val_size == 0:
        raise ConfigError("schedule.source needs the val loss, but there are no val images: set data.val_size above 0")


def _shares(source: dict[str, Any], n_steps: int, steps_per_epoch: int) -> list[float]:
    """The shares of all steps, computed in advance so that errors appear before the work starts."""
    share, name, arguments = locate("schedule.source", source), source["_target_"], _arguments(source)
    rule = "take (step, epoch, n_steps) and the arguments of its config, and return a number"
    shares = []
    for step in range(n_steps):
        with own_code("schedule.source", f"{rule} at step {step}", name):
            shares.append(float(share(step=step, epoch=step // steps_per_epoch, n_steps=n_steps, **arguments)))
        if not 0 <= shares[-1] < math.inf:
            raise ConfigError(
                f"schedule.source must return a finite share of at least 0, got {shares[-1]} from {name!r} at step "
                f"{step}"
            )
    return shares


def _arguments(source: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in source.items() if k != "_target_"}
