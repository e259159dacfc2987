"""Parts of torch that have no public name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim import Optimizer

# Each of these loads torch's compiler at its first call, only to tell it to stay away.
_FOR_THE_COMPILER = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


Kind = TypeVar("Kind", bound=Callable[..., Optimizer])


def eager(kind: Kind) -> Kind:
    """An optimizer of torch's that computes the same and never loads torch's compiler.

    To load it takes longer than to load torch itself: half of what a short run costs. (A step that is compiled with an
    optimizer in it is compiled worse with this one.)
    """
    return cast(Kind, _eager(kind))


@functools.cache
def _eager(kind: Any) -> Any:
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _FOR_THE_COMPILER}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "step": step, "__doc__": kind.__doc__})


def is_weight_norm(parametrizations: nn.Module) -> bool:
    """Whether a layer's list of parametrizations is `torch.nn.utils.parametrizations.weight_norm`'s, g before v."""
    return isinstance(next(iter(parametrizations.children())), _WeightNorm)


def is_reparametrized(module: nn.Module) -> bool:
    """Whether pruning or the older weight norm computes one of a layer's tensors before each forward pass."""
    return any(isinstance(hook, BasePruningMethod | WeightNorm) for hook in module._forward_pre_hooks.values())


def has_hooks(module: nn.Module) -> bool:
    """Whether functions are called before or after a layer's forward pass."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def refresh_reparametrized(module: nn.Module) -> None:
    """Computes anew what pruning and the older weight norm keep beside their parameters, as before a forward pass."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod | WeightNorm):
            hook(module, ())


def sums(tensors: list[Tensor], others: list[Tensor], alpha: float = 1.0) -> list[Tensor]:
    """tensor + alpha other, for each pair, as new tensors."""
    return list(torch._foreach_add(tensors, others, alpha=alpha))


def signs(tensors: list[Tensor]) -> list[Tensor]:
    """sign(w) of each, as new tensors; w / |w| of complex ones."""
    if any(w.is_complex() for w in tensors):
        return [w.sgn() for w in tensors]
    return list(torch._foreach_sign(tensors))


def number(value: Tensor) -> float:
    """The only element of a tensor; of a sharded one (FSDP2, tensor parallel) over all ranks, which must all ask."""
    whole = getattr(value, "full_tensor", None)
    return float(value if whole is None else whole())


def has_flat_shards(model: nn.Module) -> bool:
    """Whether FSDP1 shards the model: each rank then holds parts of weights that know nothing of the whole."""
    return any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())


def version(tensor: Tensor) -> int:
    """How often a tensor was changed in place."""
    return tensor._version
