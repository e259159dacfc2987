"""What moves the weights: SGD, AdamW, or an optimizer of one's own; and whether its state can be kept."""

import inspect
import io
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from reg_sweep.config.schema import ConfigError, OptimizerConfig, locate
from reg_sweep.training.torch_internals import eager


def make_optimizer(model: nn.Module, config: OptimizerConfig, seed: int = 0) -> Optimizer:
    """The optimizer of all parameters, without weight decay: that is the penalty's.

    One of `config.source` is made by `source(parameters, lr=..., **arguments)`; what it draws follows from `seed`.

    Raises:
        ConfigError: the source can't be imported or called so, makes no optimizer, one that decays weights itself, or
            one whose step needs a closure.
    """
    if config.source is not None:
        return _own(model, config, config.source, seed)
    if config.name == "sgd":
        assert config.momentum is not None
        assert config.nesterov is not None
        return eager(torch.optim.SGD)(
            model.parameters(), config.lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=0.0
        )
    assert config.betas is not None
    betas = config.betas[0], config.betas[1]
    return eager(torch.optim.AdamW)(model.parameters(), config.lr, betas=betas, weight_decay=0.0)


def _own(model: nn.Module, config: OptimizerConfig, source: dict[str, Any], seed: int) -> Optimizer:
    make, name = locate("optimizer.source", source), source["_target_"]
    arguments = {k: v for k, v in source.items() if k != "_target_"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            optimizer = make(model.parameters(), lr=config.lr, **arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"optimizer.source must take (parameters, lr) and the arguments of its config, got {name!r}: {error}"
            ) from None
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer.source must make a torch.optim.Optimizer, got {type(optimizer).__name__} from {name!r}"
        )
    decays = [group["weight_decay"] for group in optimizer.param_groups if group.get("weight_decay")]
    if decays:
        raise ConfigError(
            f"optimizer.source must make an optimizer without weight decay, which is the run's l2, got {decays[0]} "
            f"from {name!r}: add weight_decay: 0 to its arguments"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optimizer.source must make an optimizer whose step needs no closure, got {name!r}")
    return optimizer


def check_first_state(optimizer: Optimizer) -> None:
    """The first time that the optimizer's state is taken, refuses one that a checkpoint, read as data, can't give back.

    Raises:
        ConfigError: out of `optimizer.state_dict()`; the state holds something else than plain values and tensors.
    """

    def check(_: Optimizer, state: dict[str, Any]) -> None:
        handle.remove()
        kept = io.BytesIO()
        try:
            torch.save(state, kept)
            kept.seek(0)
            torch.load(kept, weights_only=True)
        except Exception as error:  # whatever an object's own pickling raises
            raise ConfigError(
                f"optimizer and schedule must keep plain values and tensors alone in their state, or the run could "
                f"not be continued: {str(error).strip().splitlines()[0]}"
            ) from None

    handle = optimizer.register_state_dict_post_hook(check)
