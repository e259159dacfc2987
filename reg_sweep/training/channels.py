"""Channels of a network: which parameters produce each one, which weights read it, and why some can't be removed.

The structure is Torch-Pruning's dependency graph (Fang et al. 2023, DepGraph, arXiv 2301.12900).
"""

import importlib
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig
from reg_sweep.runs.record import WeightCounts
from reg_sweep.training.torch_internals import (
    AnyBatchNorm,
    AnyConv,
    AnyInstanceNorm,
    AnyTransposedConv,
    is_reparametrized,
)

LAYERS = (AnyConv, nn.Linear)
NORMS = (AnyBatchNorm, AnyInstanceNorm, nn.GroupNorm)  # each channel by itself; GroupNorm with a group per channel


@dataclass(frozen=True)
class Part:
    """A tensor's part of a group of channels: its entries `index[i]` along `axis` belong to channel `channel[i]`."""

    module: nn.Module
    name: str
    axis: int
    index: Tensor
    channel: Tensor

    @property
    def parameter(self) -> nn.Parameter:
        """The tensor's current value; a buffer if the part is a norm's running statistic."""
        found: nn.Parameter = getattr(self.module, self.name)
        return found


@dataclass(frozen=True)
class Channels:
    """Output channels of one layer, with those of all layers whose outputs are added to them or that they pass through.

    Attributes:
        root: the layer whose output channels are numbered 0 to n - 1.
        name: the root's name in the model.
        made_by: weights and biases of the layers that compute these channels, scales and shifts of their norms.
        read_by: weights of the layers that take them as inputs.
        carried: running statistics of their norms.
        fixed: why none of them can be removed; None if they can.
    """

    root: nn.Module
    name: str
    n: int
    made_by: list[Part]
    read_by: list[Part]
    carried: list[Part]
    fixed: str | None


def all_channels(model: nn.Module, example: Tensor) -> list[Channels]:
    """The groups of channels of a model, each once, in the order of the layers.

    Args:
        model: called once on `example`, in evaluation mode; it is not changed.
        example: a batch that the model accepts, on its device.

    Raises:
        ConfigError: Torch-Pruning is not installed, or the model can't be traced on such a batch.
    """
    pruning = torch_pruning()
    graph = pruning.DependencyGraph()
    with _traceable(model):
        try:
            graph.build_dependency(model, example_inputs=example, verbose=False)
            groups = list(graph.get_all_groups(root_module_types=list(LAYERS)))
        except Exception as error:  # a model may raise anything while it is traced
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(
                f"model must be one whose channels can be traced, got {type(model).__name__}: {reason}"
            ) from None
    names = {module: name for name, module in model.named_modules()}
    shared = _shared(model)
    order = {module: i for i, module in enumerate(model.modules())}
    found = [_channels(graph, group, names, shared) for group in groups]
    return sorted(found, key=lambda c: order[c.root])


def torch_pruning() -> Any:
    """The package Torch-Pruning, which takes part of a second to load.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("torch_pruning")
    except ImportError:
        raise ConfigError(
            "tracing channels needs the package torch-pruning, which is not installed: pip install torch-pruning"
        ) from None


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """Unfreezes all parameters: the graph is built from autograd's, which omits frozen ones. Restores all on exit."""
    training = {module: module.training for module in model.modules()}
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    for p in frozen:
        p.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for p in frozen:
            p.requires_grad_(False)
        for module, was in training.items():
            module.training = was


def _shared(model: nn.Module) -> set[int]:
    """The ids of parameters that several layers hold."""
    holders = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    return {key for key, n in holders.items() if n > 1}


def _channels(graph: Any, group: Any, names: dict[nn.Module, str], shared: set[int]) -> Channels:
    root = group[0].dep.target.module
    made_by: list[Part] = []
    read_by: list[Part] = []
    carried: list[Part] = []
    fixed: str | None = None
    for item in group:
        node, handler = item.dep.target, item.dep.handler
        module, label = node.module, names.get(node.module, type(node.module).__name__)
        reads = graph.is_in_channel_pruning_fn(handler) and not graph.is_out_channel_pruning_fn(handler)
        fixed = fixed or _why_fixed(node, label, reads, shared)
        index, channel = torch.tensor(item.idxs), torch.tensor(item.root_idxs)
        for name, axis in _tensors(module, reads=reads):
            (read_by if reads else made_by).append(Part(module, name, axis, index, channel))
        if isinstance(module, NORMS):
            names_of = [
                name for name in ("running_mean", "running_var") if isinstance(getattr(module, name, None), Tensor)
            ]
            carried += [Part(module, name, 0, index, channel) for name in names_of]
    return Channels(root, names[root], len(group[0].idxs), made_by, read_by, carried, fixed)


def _tensors(module: nn.Module, *, reads: bool) -> list[tuple[str, int]]:
    """The tensors of a layer that contain a slice for each channel, and the axis of the slices."""
    if reads:
        return [("weight", 0 if isinstance(module, AnyTransposedConv) else 1)] if isinstance(module, LAYERS) else []
    if not isinstance(module, (*LAYERS, *NORMS)):
        return []
    axis = 1 if isinstance(module, AnyTransposedConv) and module.groups == 1 else 0
    held = [name for name in ("weight", "bias") if isinstance(getattr(module, name, None), Tensor)]
    return [(name, axis if name == "weight" else 0) for name in held]


def _why_fixed(node: Any, label: str, reads: bool, shared: set[int]) -> str | None:
    """Why a group that this layer belongs to can't lose a channel."""
    module, kind = node.module, type(node.module).__name__
    if not reads and (str(node.type).endswith("OUTPUT") or not node.outputs):
        return "they are the network's outputs"
    if isinstance(module, nn.Parameter):
        return "the model adds a tensor of its own to them"
    if any(id(p) in shared for p in module.parameters(recurse=False)):
        return f"{label} shares its weights with another layer (tied weights)"
    if parametrize.is_parametrized(module) or is_reparametrized(module):
        return f"the weight of {label} is computed from other tensors (weight norm, pruning mask)"
    if isinstance(module, AnyConv) and module.groups > 1 and not is_depthwise(module):
        return f"{label} is a grouped convolution"
    if isinstance(module, nn.GroupNorm) and module.num_groups != module.num_channels:
        return f"{label} ({kind}) normalizes several channels by one statistic, which includes zero channels"
    if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.LocalResponseNorm):
        return f"{label} ({kind}) normalizes all channels by one statistic, which includes zero channels"
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase | nn.Embedding | nn.PReLU):
        return f"channels of {label} ({kind}) can't be removed one by one"
    return None


def is_depthwise(module: AnyConv) -> bool:
    """Whether each output channel is computed from the input channel of the same number."""
    return module.groups == module.in_channels == module.out_channels


# ---- cost of channels


def positions(model: nn.Module, example: Tensor) -> dict[nn.Module, float]:
    """How often each convolution or linear layer applies its weights to one image.

    The model runs once, in evaluation mode; its own mode is then restored.
    """
    found: dict[nn.Module, float] = {}

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        axis = -1 if isinstance(module, nn.Linear) else 1
        found[module] = found.get(module, 0.0) + output.numel() / output.shape[axis] / len(example)

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module, was in training.items():
            module.training = was
    return found


def with_cost(
    counts: WeightCounts, run: RunConfig, model: nn.Module, in_shape: tuple[int, int, int], device: torch.device
) -> WeightCounts:
    """Adds the network's multiply-adds to the counts, if L1 acts on channels or scales, or if they are an objective."""
    if run.penalty.l1_on == "weights" and "multiply_adds" not in run.objectives:
        return counts
    return {**counts, "multiply_adds": live_multiply_adds(model, in_shape, device)}


def live_multiply_adds(model: nn.Module, in_shape: tuple[int, int, int], device: torch.device) -> int:
    """Multiply-adds of convolutions and linear layers for one image, without the channels that are zero.

    A channel counts as zero if every norm's scale for it is zero, or its weights in every layer that computes it are.
    """
    example = torch.zeros(2, *in_shape, device=device)
    live: dict[tuple[nn.Module, int], Tensor] = {}
    for group in all_channels(model, example):
        if group.fixed is None:
            zero = _zero_channels(group)
            for part in [*group.made_by, *group.read_by]:
                if part.name == "weight" and isinstance(part.module, LAYERS):
                    kept = live.setdefault((part.module, part.axis), torch.ones(part.parameter.shape[part.axis]))
                    kept[part.index[zero[part.channel]]] = 0
    total = 0.0
    for module, n in positions(model, example).items():
        shares = [float(kept.mean()) for (owner, _), kept in live.items() if owner is module]
        total += n * module.weight.numel() * math.prod(shares)  # type: ignore[operator]
    return round(total)


def _zero_channels(group: Channels) -> Tensor:
    """Mask of the channels that are zero, (n,); never all of them, because a layer keeps one."""
    of_kind = {True: torch.ones(group.n, dtype=torch.bool), False: torch.ones(group.n, dtype=torch.bool)}
    for part in group.made_by:
        if part.name == "weight":
            w = part.parameter.detach().abs().cpu().movedim(part.axis, 0).reshape(part.parameter.shape[part.axis], -1)
            of_kind[isinstance(part.module, NORMS)][part.channel] &= (w.amax(1) == 0)[part.index]
    has_norm = any(isinstance(part.module, NORMS) for part in group.made_by)
    zero = of_kind[False] | of_kind[True] if has_norm else of_kind[False]
    if zero.all():
        zero[0] = False
    return zero
