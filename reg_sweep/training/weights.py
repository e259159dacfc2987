"""The weights of a network: the parameters that a penalty acts on, and the weights that the network computes with."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from reg_sweep.config.rules import ConfigError, one_of
from reg_sweep.config.schema import NEAR_ZERO, PENALTIES
from reg_sweep.runs.record import WeightCounts
from reg_sweep.training.torch_internals import (
    AnyBatchOrInstanceNorm,
    AnyConv,
    has_flat_shards,
    is_weight_norm,
    number,
    refresh_reparametrized,
)

# Layers whose weights are matrices of linear maps. Recurrent layers apply theirs at each time step.
LINEAR_MAPS = (nn.Linear, AnyConv, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
NORM_LAYERS = (AnyBatchOrInstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_PARAMETRIZED = re.compile(r"parametrizations\.(\w+)\.original\d*$")


class Penalized(list[nn.Parameter]):
    """The parameters that a penalty acts on, in the model's order. Its `repr` also lists the others, with the reasons.

    `names` are the names of the penalized parameters; `left_out` maps the name of each other parameter to the reason.
    """

    def __init__(self, found: dict[str, nn.Parameter], left_out: dict[str, str]) -> None:
        super().__init__(found.values())
        self.names, self.left_out = list(found), left_out

    def __repr__(self) -> str:
        rows = [(name, "lazy" if is_lazy(p) else str(tuple(p.shape))) for name, p in zip(self.names, self, strict=True)]
        width = max((len(name) for name, _ in (*rows, *self.left_out.items())), default=0)
        lines = [f"penalized: {len(rows)} of {len(rows) + len(self.left_out)} parameters"]
        lines += [f"  {name:<{width}}  {shape}" for name, shape in rows]
        if self.left_out:
            lines += ["left out:", *(f"  {name:<{width}}  {why}" for name, why in self.left_out.items())]
        return "\n".join(lines)


def penalized(model: nn.Module, name: str = "textbook") -> Penalized:
    """The parameters that a penalty acts on. `print(penalized(model))` lists them, and the others with the reason.

    textbook: the weights of convolutions and linear layers. Recurrent layers, attention projections and bilinear layers
    also count as linear layers, and so does a custom layer whose parameter is called `weight` and has at least two axes
    longer than 1. Left out are biases, norms, embeddings, the lengths g of weight norm, parameters with other names
    (scales, tokens, position tables), and the names that a module's `no_weight_decay()` returns, as in timm. A weight
    shared by an embedding and a linear layer counts as the linear layer's. For a parametrized weight, the underlying
    parameters are penalized, as in torch's weight decay.

    notebook: all parameters.

    Frozen parameters are included, but penalized only while they require a gradient.

    Raises:
        ConfigError: `name` is neither.
    """
    one_of("name", name, PENALTIES)
    parameters = dict(model.named_parameters())
    if name == "notebook":
        return Penalized(parameters, {})
    reasons = _reasons(model)
    exempt = _exempt(model)
    found, left_out = {}, {}
    for key, parameter in parameters.items():
        reason = "named by no_weight_decay()" if id(parameter) in exempt else reasons.get(id(parameter))
        if reason is None:
            found[key] = parameter
        else:
            left_out[key] = reason
    return Penalized(found, left_out)


def _reasons(model: nn.Module) -> dict[int, str]:
    """Reasons, by id, why parameters are not weights. A shared parameter is a weight if any of its layers says so."""
    reasons: dict[int, str | None] = {}
    for module in model.modules():
        for _, parameter, reason in _own_parameters(module):
            if reason is None or id(parameter) not in reasons:
                reasons[id(parameter)] = reason
    return {key: reason for key, reason in reasons.items() if reason is not None}


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, str | None]]:
    """A layer's parameters: the name of each one's tensor, and the reason why it is not a weight (None if it is)."""
    own = dict(module.named_parameters(recurse=False))
    if not isinstance(module, parametrize.ParametrizationList):  # handled with the layer that owns it
        for name, parameter in own.items():
            # Pruning makes weight_orig; the older weight norm makes weight_g and weight_v, which may be pruned as well.
            tensor = name.removesuffix("_orig")
            base, _, part = tensor.rpartition("_")
            lengths, directions = (other in own or f"{other}_orig" in own for other in (f"{base}_g", f"{base}_v"))
            if lengths and directions and part in ("g", "v"):
                why = "length of a weight-normalized weight" if part == "g" else _reason(module, base, parameter)
                yield base, parameter, why
            else:
                yield tensor, parameter, _reason(module, tensor, parameter)
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        for name, originals in module.parametrizations.items():
            for original, parameter in originals.named_parameters(recurse=False):
                is_length = original.removesuffix("_orig") == "original0" and is_weight_norm(originals)
                why = "length of a weight-normalized weight" if is_length else _reason(module, name, parameter)
                yield name, parameter, why


def _reason(module: nn.Module, name: str, parameter: nn.Parameter) -> str | None:
    if isinstance(module, NORM_LAYERS):
        return "normalization layer"
    if isinstance(module, _EMBEDDINGS):
        return "embedding"
    if "bias" in name:
        return "bias"
    if isinstance(module, LINEAR_MAPS):
        return None if "weight" in name else "not a weight"
    is_matrix = not is_lazy(parameter) and sum(n > 1 for n in parameter.shape) >= 2 and parameter.shape[0] > 1
    return None if name == "weight" and is_matrix else "not a weight of a convolution or linear layer"


def _exempt(model: nn.Module) -> set[int]:
    """The ids of parameters that a module exempts by timm's convention.

    `no_weight_decay()` returns names relative to the module. `no_weight_decay_keywords()`, as in Swin, exempts each
    name that contains one of its words.
    """
    exempt = set()
    for module in model.modules():
        names, words = (_names_from(module, f"no_weight_decay{what}") for what in ("", "_keywords"))
        if names or words:
            for key, parameter in module.named_parameters():
                plain = _PARAMETRIZED.sub(r"\1", key)
                if plain in names or any(word in plain for word in words):
                    exempt.add(id(parameter))
    return exempt


def _names_from(module: nn.Module, method: str) -> set[str]:
    found = getattr(module, method, None)
    return set(found()) if callable(found) else set()


class TrackedWeights:
    """The penalized weights of a model and their groups in an optimizer, updated when either changes."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, name: str, chosen: list[nn.Parameter] | None = None
    ) -> None:
        self.name = name
        self._model, self._optimizer, self._chosen = model, optimizer, chosen
        self.select()

    def select(self) -> None:
        """Collects the weights again."""
        groups = self._optimizer.param_groups
        self._held = [p for group in groups for p in group["params"]]
        # By index, because loading an optimizer's state replaces its groups.
        self._number = {p: i for i, group in enumerate(groups) for p in group["params"]}
        chosen = penalized(self._model, self.name) if self._chosen is None else self._chosen
        self.weights = [w for w in chosen if w in self._number]
        self._missing = [w for w in chosen if w not in self._number]
        ours = set(self._model.parameters())
        self._strangers = [p for p in self._held if p not in ours]

    def follow(self) -> bool:
        """Collects the weights again if the optimizer's parameters or the model's layers changed; True if so."""
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        if len(held) != len(self._held) or any(map(is_not, held, self._held)):
            self.select()
            return True
        if self._strangers and any(p.grad is not None for p in self._strangers):
            unused = {p for p in self._strangers if p.grad is None}
            self.select()
            self._strangers = [p for p in self._strangers if p in unused]  # the rest are another model's
            return True
        return False

    def check(self) -> None:
        """Refuses weights that can't be penalized.

        Raises:
            ConfigError: there are none; the optimizer lacks some; a layer is lazy; FSDP1 shards the model; or
                `maximize` differs among their groups.
        """
        if missing := sum(w.requires_grad for w in self._missing):
            raise ConfigError(
                f"the optimizer must hold every penalized weight, {missing} are not in it: penalize the part of the "
                f"model that it trains, or pass the weights, penalize(..., weights=[...])"
            )
        if not self.weights and not self._missing:
            raise ConfigError(
                "model must have weights of convolutions or linear layers to penalize, got none: choose the form "
                "notebook, which penalizes all parameters, or pass them, penalize(..., weights=[...])"
            )
        if has_flat_shards(self._model):
            raise ConfigError("model must not be sharded by FSDP1 when it is penalized: use FSDP2's fully_shard")
        if any(is_lazy(w) for w in self.weights):
            raise ConfigError("model must have seen a batch before it is penalized, got lazy layers without weights")
        if len({bool(self.group_of(w).get("maximize")) for w in self.weights}) > 1:
            raise ConfigError("maximize must be the same for all penalized weights, got groups with and without it")

    def group_of(self, w: Tensor) -> dict[str, Any]:
        """The optimizer's group of a weight, which holds the current learning rate."""
        group: dict[str, Any] = self._optimizer.param_groups[self._number[w]]
        return group

    def sign(self) -> float:
        """-1 if the optimizer maximizes, in which case the penalty is subtracted from the loss; otherwise 1."""
        return -1.0 if self.weights and self.group_of(self.weights[0]).get("maximize") else 1.0


# ---- the weights that the network computes with


@torch.no_grad()
def count_zeros(model: nn.Module) -> WeightCounts:
    """Counts weights that are zero or near zero (|w| < NEAR_ZERO), and dead kernels and channels.

    The counts are of the weights that the network computes with, including frozen ones: for a pruned or parametrized
    layer, such as one with weight norm, after the mask or parametrization. A kernel is one input channel's filter in
    one output channel of a convolution larger than 1x1. It is dead if all its weights are near zero, and so is an
    output channel of any convolution.
    """
    weights, kernels, channels = [], [], []
    with _evaluating_parametrizations(model):
        for module, weight in _computed(model):
            weights.append(weight)
            if isinstance(module, AnyConv):
                outputs = weight.transpose(0, 1) if module.transposed else weight
                channels.append(outputs.flatten(1))
            if (isinstance(module, AnyConv) or weight.ndim == 4) and weight.shape[2:].numel() > 1:
                kernels.append(weight.flatten(2))
    return {
        "n": sum(w.numel() for w in weights),
        "n_zero": sum(int(number((w == 0).sum())) for w in weights),
        "n_near_zero": sum(int(number((w.abs() < NEAR_ZERO).sum())) for w in weights),
        "n_kernels": sum(k.shape[0] * k.shape[1] for k in kernels),
        "n_dead_kernels": sum(int(number((k.abs().amax(2) < NEAR_ZERO).sum())) for k in kernels),
        "n_channels": sum(len(c) for c in channels),
        "n_dead_channels": sum(int(number((c.abs().amax(1) < NEAR_ZERO).sum())) for c in channels),
    }


def _computed(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """Each weight that the layers compute with, once, and its layer."""
    seen: set[int] = set()
    for module in model.modules():
        names = {}
        for name, parameter, reason in _own_parameters(module):
            if reason is None and id(parameter) not in seen and not is_lazy(parameter):
                names[name] = parameter
                seen.add(id(parameter))
        if names:
            refresh_reparametrized(module)
        for name in names:
            yield module, getattr(module, name)


@contextmanager
def _evaluating_parametrizations(model: nn.Module) -> Iterator[None]:
    """Puts parametrizations in evaluation mode: reading a spectral norm's weight in training changes its vectors."""
    lists = [m for m in model.modules() if isinstance(m, parametrize.ParametrizationList)]
    training = {m: m.training for found in lists for m in found.modules()}
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
