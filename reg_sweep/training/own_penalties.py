"""Custom penalties: any number computed from a model's parameters, times a strength."""

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reg_sweep.config.regularizers import checked_penalties
from reg_sweep.config.rules import ConfigError
from reg_sweep.runs.record import OWN_PENALTY, MetricsRow
from reg_sweep.training.objective import called_with, check_number
from reg_sweep.training.torch_internals import AnyConv, number, version
from reg_sweep.training.weights import TrackedWeights

Replaced = tuple[nn.Parameter, Tensor, Tensor, int]  # a parameter, its gradient before and after, the latter's version


def give_back(replaced: list[Replaced], *, unless_changed: bool = False) -> None:
    """Restores replaced gradients; with `unless_changed`, only if the replacement was not modified meanwhile."""
    for w, before, after, changes in reversed(replaced):  # one may have been replaced twice
        if w.grad is after and not (unless_changed and version(after) != changes):
            w.grad = before
    replaced.clear()


def check_addable(w: nn.Parameter, gradient: Tensor) -> None:
    """Refuses a gradient to which a penalty's derivative can't be added.

    Raises:
        ConfigError: it is sparse, or has another dtype than its weight (`grad_dtype`).
    """
    rule = "penalty must be proximal or decoupled"
    if gradient.layout != torch.strided:
        raise ConfigError(
            f"{rule} with sparse gradients, to which no derivative can be added: choose l1_update=proximal, "
            f"l2_update=decoupled or sparse=False"
        )
    if gradient.dtype != w.dtype:
        raise ConfigError(
            f"{rule} if a gradient's dtype differs from its weight's ({w.dtype}), got {gradient.dtype}: choose "
            f"l1_update=proximal, l2_update=decoupled, or don't set grad_dtype"
        )


@dataclass
class OwnPenalty:
    """A penalty: `strength` times a function of the model, or of each parameter that `of` selects."""

    function: Callable[..., Any]
    of: str | list[nn.Parameter]
    strength: float


class OwnPenalties:
    """The sum of strength_i f_i over named penalties f_i, each given as a spec:

        _target_: a function f, or a class with callable instances; as a dotted path or, from Python, the object itself
        strength: a finite number of at least 0
        of: model (f gets the model), weights (the sum of f over the weights that L1 and L2 act on), a pattern of
            parameter names such as 'conv*.weight' (the sum over those) or, from Python, a list of parameters
        and the other arguments of f

    Derivatives are computed by autograd, in the precision of the parameters and outside autocast, at the weights before
    the step. Like those of L1 and L2, they are added to the existing gradients of the optimizer's parameters, and
    removed again after the step. A penalty of strength 0 is not computed. With several ranks, every rank must compute
    the same value, so a penalty must not draw from torch's generator.

    Raises:
        ConfigError: a spec is not as above; a pattern matches no parameter; or a penalty can't be called, does not
            return a finite number, or has no gradient for any parameter of the optimizer.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, specs: Mapping[str, Any], tracked: TrackedWeights
    ) -> None:
        self._model, self._optimizer, self._tracked = model, optimizer, tracked
        self._all: dict[str, OwnPenalty] = {}
        for name, spec in checked_penalties(dict(specs), from_python=True).items():
            key = f"penalties.{name}"
            function = called_with(key, "(model)", spec, leave=("strength", "of", "schedule"))
            own = OwnPenalty(function, spec.get("of", "model"), spec["strength"])
            self._all[name] = own
            if own.of != "model" and not self._parameters(own.of):
                names = ", ".join(name for name, _ in model.named_parameters())
                raise ConfigError(f"{key}.of must match a parameter, got {own.of!r}: the names are {names:.300}")
            if own.strength > 0:
                check_number(key, spec["_target_"], functools.partial(self._value, own))
                if not self._reaches(self._value(own)):
                    raise ConfigError(f"{key} must depend on a parameter that the optimizer trains, got none")

    def _value(self, own: OwnPenalty) -> Any:
        if own.of == "model":
            return own.function(self._model)
        values = [own.function(p) for p in self._parameters(own.of)]
        return sum(values[1:], values[0])

    def _full_precision(self) -> AbstractContextManager[Any]:
        """Disables the autocast in which a step may run."""
        device = next(self._model.parameters()).device.type
        return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()

    def _parameters(self, of: str | list[nn.Parameter]) -> list[nn.Parameter]:
        if isinstance(of, list):
            return of
        if of == "weights":
            return self._tracked.weights
        return [p for name, p in self._model.named_parameters() if fnmatchcase(name, of)]

    def _reaches(self, value: Tensor) -> bool:
        held = [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]
        found = torch.autograd.grad(value, held, allow_unused=True)
        return any(d is not None for d in found)

    @property
    def names(self) -> list[str]:
        """The penalties' names."""
        return list(self._all)

    def set_strength(self, name: str, strength: float) -> None:
        """Sets the strength of one penalty from now on."""
        self._all[name].strength = strength

    @torch.no_grad()
    def values(self) -> dict[str, float]:
        """The value that each penalty adds to the loss, at the current weights."""
        used = {name: own for name, own in self._all.items() if own.strength > 0}
        with self._full_precision():
            return dict.fromkeys(self._all, 0.0) | {
                n: own.strength * number(self._value(own)) for n, own in used.items()
            }

    def add_derivatives(self, factor: float) -> list[Replaced]:
        """Replaces gradients by new ones with `factor` times the derivatives added; returns what was replaced."""
        used = [own for own in self._all.values() if own.strength > 0]
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        touched = [p for p in held if p.grad is not None and p.requires_grad]
        if not used or not touched:
            return []
        with torch.enable_grad(), self._full_precision():
            total = torch.stack([own.strength * self._value(own) for own in used]).sum()
            found = torch.autograd.grad(total, touched, allow_unused=True)
        replaced = []
        for p, derivative in zip(touched, found, strict=True):
            if derivative is not None:
                before = p.grad
                assert before is not None
                check_addable(p, before)
                p.grad = after = before.add(derivative, alpha=factor)
                replaced.append((p, before, after, version(after)))
        return replaced


def with_columns(row: MetricsRow, values: dict[str, float]) -> MetricsRow:
    """Adds a column `penalties.NAME` to a row of metrics.csv for each custom penalty: its part of `penalty`."""
    return cast(MetricsRow, {**row, **{f"{OWN_PENALTY}{name}": value for name, value in values.items()}})


def orthogonality(weight: nn.Module | Tensor) -> Tensor:
    """Soft orthogonality of weights: the sum over weights W of ||W W^T - I||^2, Frobenius' norm.

    W is (out, in): a convolution's (out, in, height, width) is flattened. If out > in, it is ||W^T W - I||^2, because
    the rows can't be orthonormal. For a model, it is the sum over its convolutions and linear layers.

    Source: Bansal, Chen, Wang 2018, arXiv 1810.09102, section 3.1.
    """
    if isinstance(weight, nn.Module):
        layers = (m for m in weight.modules() if isinstance(m, nn.Linear | AnyConv))
        return torch.stack([orthogonality(layer.weight) for layer in layers]).sum()
    w = weight.flatten(1)
    w = w.T if w.shape[0] > w.shape[1] else w
    return (w @ w.T - torch.eye(len(w), device=w.device, dtype=w.dtype)).square().sum()
