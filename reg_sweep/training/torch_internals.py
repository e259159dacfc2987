"""All uses of torch's private names.

Some have no public equivalent by design: the common base classes of its layers, and the functions that change many
tensors at once, which torch documents (as beta) and its own optimizers use.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim import Optimizer

# The bases of the layers for one, two and three dimensions.
AnyBatchNorm = _BatchNorm
AnyInstanceNorm = _InstanceNorm
AnyBatchOrInstanceNorm = _NormBase
AnyConv = _ConvNd
AnyTransposedConv = _ConvTransposeNd

foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul_ = torch._foreach_mul_

# Each of these imports torch's compiler at its first call, only to exclude itself from compilation.
_FOR_THE_COMPILER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


Kind = TypeVar("Kind", bound=Callable[..., Optimizer])


def eager(kind: Kind) -> Kind:
    """A torch optimizer class that computes the same as `kind` without importing torch's compiler.

    Importing the compiler takes longer than importing torch itself, about half the time of a short run. (If a step that
    contains this optimizer is compiled, the result is less optimized.)
    """
    return cast(Kind, _eager(kind))


@functools.cache
def _eager(kind: Any) -> Any:
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _FOR_THE_COMPILER}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "step": step, "__doc__": kind.__doc__})


def is_weight_norm(parametrizations: nn.Module) -> bool:
    """Whether a layer's parametrization is `torch.nn.utils.parametrizations.weight_norm`, whose originals are g, v."""
    return isinstance(next(iter(parametrizations.children())), _WeightNorm)


def is_reparametrized(module: nn.Module) -> bool:
    """Whether pruning or the older weight norm computes one of a layer's tensors before each forward pass."""
    return any(isinstance(hook, BasePruningMethod | WeightNorm) for hook in module._forward_pre_hooks.values())


def has_hooks(module: nn.Module) -> bool:
    """Whether a layer has forward hooks or forward pre-hooks."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def refresh_reparametrized(module: nn.Module) -> None:
    """Recomputes the tensors that pruning and the older weight norm compute before each forward pass."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod | WeightNorm):
            hook(module, ())


def sums(tensors: list[Tensor], others: list[Tensor], alpha: float = 1.0) -> list[Tensor]:
    """tensor + alpha * other for each pair, as new tensors."""
    return list(torch._foreach_add(tensors, others, alpha=alpha))


def signs(tensors: list[Tensor]) -> list[Tensor]:
    """sign(w) of each tensor, as new tensors; w / |w| for complex ones."""
    if any(w.is_complex() for w in tensors):
        return [w.sgn() for w in tensors]
    return list(torch._foreach_sign(tensors))


def number(value: Tensor) -> float:
    """The only element of a tensor. If it is sharded (FSDP2, tensor parallel), all ranks must call this together."""
    whole = getattr(value, "full_tensor", None)
    return float(value if whole is None else whole())


def has_flat_shards(model: nn.Module) -> bool:
    """Whether FSDP1 shards the model. Its parameters are flat shards, without the shapes of the weights."""
    return any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())


def version(tensor: Tensor) -> int:
    """The number of times a tensor was changed in place."""
    return tensor._version
