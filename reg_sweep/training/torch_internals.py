"""What torch offers by no public name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
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
