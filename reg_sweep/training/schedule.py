"""The learning rate of each step."""

import math

import torch

from reg_sweep.config import RunConfig, ScheduleConfig


def set_lr(optimizer: torch.optim.Optimizer, run: RunConfig, step: int, steps_per_epoch: int) -> float:
    """Sets and returns the learning rate of step `step`, counted from 0 over the whole run."""
    share = lr_factor(run.schedule, step, step // steps_per_epoch, run.epochs * steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = run.optimizer.lr * share
    return run.optimizer.lr * share


def lr_factor(schedule: ScheduleConfig, step: int, epoch: int, n_steps: int) -> float:
    """The share of the full learning rate at a step: see `ScheduleConfig`.

    onecycle rises over the first `warmup` share of the steps and falls over the others; it is 1 at one step, 0 at none.
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
