"""Custom optimizers, models, callbacks and the like, which tests name by their dotted paths."""

import random
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from reg_sweep import Callback, Mlp, ResNet, SqueezeExpand


class SignMomentum(Optimizer):
    """w <- w - lr sign(m), where m is a running mean of the gradient. It has state, but no weight decay."""

    def __init__(self, params: Any, lr: float, beta: float = 0.9) -> None:
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be at least 0 and below 1, got {beta}")
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["beta"])
                p.sub_(mean.sign(), alpha=group["lr"])


class Hoarder(SGD):
    """Keeps a value in its state that a checkpoint can't restore."""

    def step(self) -> None:
        super().step()
        for group in self.param_groups:
            group["path"] = Path()


def two_rates(params: Any, lr: float) -> Optimizer:
    """SGD with a tenth of the learning rate for biases and norms."""
    params = list(params)
    matrices, vectors = [p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]
    return SGD([{"params": matrices, "lr": lr}, {"params": vectors, "lr": lr / 10}], lr=lr)


def drawn_rate(params: Any, lr: float) -> Optimizer:
    """SGD with a random learning rate."""
    return SGD(params, lr=lr * float(torch.rand(())))


def ramp(step: int, epoch: int, n_steps: int, low: float = 0.0) -> float:
    """From `low` to 1, linearly over all steps."""
    return low + (1 - low) * step / max(n_steps - 1, 1)


def no_schedule(optimizer: Optimizer) -> list[int]:
    """Takes an optimizer, but does not return a scheduler."""
    return []


class Halving(LRScheduler):
    """Halves the rate at each step, and keeps its own count."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.n_halvings = -1
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        self.n_halvings += 1
        return [rate / 2**self.n_halvings for rate in self.base_lrs]


class Recorder(Callback):
    """Records the calls of all its instances."""

    heard: ClassVar[list[Any]] = []

    def __init__(self, title: str = "") -> None:
        self._title = title

    def on_start(self, record, directory) -> None:
        self.heard.append(("start", record["status"], record["epochs_done"], directory.name))

    def on_epoch(self, row) -> None:
        self.heard.append(int(row["epoch"]))

    def on_end(self, record) -> None:
        self.heard.append(("end", record["status"], record["epochs_done"]))


class Broken(Callback):
    """Raises in the method that `at` names."""

    def __init__(self, at: str) -> None:
        self._at = at

    def _meet(self, where: str) -> None:
        if where == self._at:
            raise OSError(f"no space\nleft {where}")

    def on_start(self, record, directory) -> None:
        self._meet("start")

    def on_epoch(self, row) -> None:
        self._meet("epoch")

    def on_end(self, record) -> None:
        self._meet("end")


class StopAfter:
    """A trial that sends SIGTERM to its process after an epoch."""

    chooses = True

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def facts(self):
        return {"study": "s", "number": 0, "params": {}}

    def report(self, value, step):
        if step == self._epoch:
            signal.raise_signal(signal.SIGTERM)

    def should_prune(self):
        return False


class Lazy(torch.nn.Sequential):
    """A model with lazy layers, whose sizes are known only after it has seen an image."""

    def __init__(self, in_shape, n_classes, norm):
        super().__init__(torch.nn.Flatten(), torch.nn.LazyLinear(n_classes))


class _Double:
    """Computes in float64."""

    width = 4

    def __init__(self, in_shape, n_classes, norm):
        super().__init__(in_shape, n_classes, norm, self.width, dropout=0.1)
        self.double()

    def forward(self, x):
        return super().forward(x.double())


class DoubleCnn(_Double, SqueezeExpand):
    """A network of convolutions."""


class DoubleMlp(_Double, Mlp):
    """A perceptron that computes in float64."""

    width = 8


class DoubleResNet(_Double, ResNet):
    """A residual network that computes in float64."""


class AcrossChannels(DoubleCnn):
    """Subtracts the mean of the outputs: code that mixes channels, so that it can't be stacked."""

    def forward(self, x):
        x = super().forward(x)
        return x - x.mean(1, keepdim=True)


class FunctionalDropout(DoubleCnn):
    """Draws a dropout mask outside of a layer, so that it can't be stacked."""

    def forward(self, x):
        return torch.nn.functional.dropout(super().forward(x), 0.3, self.training)


class WithLayerNorm(torch.nn.Sequential):
    """A network with layer norm, so that it can't be stacked."""

    def __init__(self, in_shape, n_classes, norm):
        n = in_shape[0] * in_shape[1] * in_shape[2]
        super().__init__(torch.nn.Flatten(), torch.nn.LayerNorm(n), torch.nn.Linear(n, n_classes))


class Tied(DoubleMlp):
    """Two layers with one weight."""

    width = 10

    def __init__(self, in_shape, n_classes, norm):
        super().__init__(in_shape, n_classes, norm)
        self.classify.weight = self.linears[1].weight


_n_calls = 0


def failing_loss(logits, labels, at: int):
    """A loss that raises from its call number `at` on, counting the check before the first step."""
    global _n_calls
    _n_calls += 1
    if _n_calls >= at:
        raise RuntimeError(f"at call {at}")
    return torch.nn.functional.cross_entropy(logits, labels)


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    """The config of an object in this module."""
    return {"_target_": f"own.{name}", **arguments}


class ScheduleFreeSGD(Optimizer):
    """Defazio et al. 2024, arXiv 2405.15682: weights hold y in training and x, the running mean of z, in evaluation.

    z <- z - lr g(y); x <- x + (z - x) / t; y = (1 - beta) z + beta x. Stepping in evaluation is an error.
    """

    def __init__(self, params: Any, lr: float, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "t": 0, "is_training": False})

    def eval(self) -> None:
        self.train(False)

    @torch.no_grad()
    def train(self, is_training: bool = True) -> None:
        for group in self.param_groups:
            if group["is_training"] != is_training:
                beta, group["is_training"] = group["beta"], is_training
                for p in group["params"]:
                    z = self.state[p].get("z", p)
                    p.lerp_(z, 1 - beta if is_training else 1 - 1 / beta)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            if not group["is_training"]:
                raise RuntimeError("not in train mode")
            group["t"] += 1
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.clone())
                x = p.lerp(z, 1 - 1 / group["beta"])
                z.sub_(p.grad, alpha=group["lr"])
                p.copy_(x.lerp_(z, 1 / group["t"]).lerp_(z, 1 - group["beta"]))


def float32() -> torch.dtype:
    """A dtype for a config, which can hold only texts and numbers."""
    return torch.float32


def normalized() -> Any:
    """A transform whose results are outside the range of pixels."""
    return lambda image: image.float() / 255 - 0.5


def coin(of: str) -> Any:
    """A transform that inverts half of the images in place, chosen by a global generator."""
    draw: Any = {"torch": lambda: torch.rand(()), "numpy": np.random.rand, "python": random.random}[of]
    return lambda image: image if draw() < 0.5 else image.bitwise_not_()


def odd_transform(what: str) -> Any:
    """A transform that returns or raises something odd."""
    odd: dict[str, Any] = {
        "complex": lambda image: image.to(torch.complex64),
        "sparse": lambda image: image.to_sparse(),
        "meta": lambda image: image.to("meta"),
        "KeyError": lambda image: {}["k"],
        "SystemExit": lambda image: sys.exit("no"),
    }
    return odd[what]


class Graded(torch.nn.Module):
    """A transform with a parameter that requires a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image / 255 * self.scale


def wrong(*_: Any, **__: Any) -> Any:
    """Raises an unexpected exception."""
    raise KeyError("what")


class Wrong:
    """A class whose constructor raises an unexpected exception."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise AttributeError("what")


class Leaving(Callback):
    """Ends the program."""

    def on_epoch(self, row) -> None:
        sys.exit("I leave")


def shuffled_values() -> Any:
    """A transform that maps pixels by a table, which is drawn when the transform is made."""
    table = torch.randperm(256).to(torch.uint8)
    return lambda image: table[image.long()]
