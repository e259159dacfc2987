"""SGD, AdamW or a custom optimizer, and the properties of optimizers that checkpoints and penalties depend on."""

import inspect
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import OptimizerConfig
from reg_sweep.config.targets import locate, own_code
from reg_sweep.training.torch_internals import eager


def make_optimizer(model: nn.Module, config: OptimizerConfig, seed: int = 0) -> Optimizer:
    """Makes the optimizer of all parameters, without weight decay, which is the penalty's task.

    A custom one is made by `source(parameters, lr=..., **arguments)`, with torch's generator seeded by `seed`.

    Raises:
        ConfigError: the source can't be imported or called that way, or it does not return an optimizer; or the
            optimizer decays weights itself, or its step needs a closure.
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
        with own_code("optimizer.source", "take (parameters, lr) and the arguments of its config", name):
            optimizer = make(model.parameters(), lr=config.lr, **arguments)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer.source must make a torch.optim.Optimizer, got {type(optimizer).__name__} from {name!r}"
        )
    decays = [group["weight_decay"] for group in optimizer.param_groups if group.get("weight_decay")]
    if decays:
        raise ConfigError(
            f"optimizer.source must make an optimizer without weight decay, which l2 replaces, got {decays[0]} "
            f"from {name!r}: add weight_decay: 0 to its arguments, on the command line +optimizer.source.weight_decay=0"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optimizer.source must make an optimizer whose step needs no closure, got {name!r}")
    return optimizer


def switch(model: nn.Module, optimizer: Optimizer, *, training: bool) -> None:
    """Puts a model, and its optimizer if it is schedule-free, in training or evaluation mode."""
    model.train(training)
    if is_schedule_free(optimizer):
        getattr(optimizer, "train" if training else "eval")()


def keep_in_state(optimizer: Optimizer, name: str, part: Any) -> None:
    """Includes `part.state_dict()` in the optimizer's `state_dict`, and restores it in `load_state_dict`.

    A checkpoint of the optimizer then contains all that changes the weights.
    """

    def keep(_: Optimizer, state: dict[str, Any]) -> None:
        state[name] = part.state_dict()

    def give_back(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        part.load_state_dict(state[name])
        return {k: v for k, v in state.items() if k != name}

    optimizer.register_state_dict_post_hook(keep)
    optimizer.register_load_state_dict_pre_hook(give_back)


def check_first_state(optimizer: Optimizer) -> None:
    """Checks the first state that the optimizer returns: a checkpoint, which is read as data only, must restore it.

    Raises:
        ConfigError: (from `optimizer.state_dict()`) the state holds anything but plain values and tensors.
    """

    def check(_: Optimizer, state: dict[str, Any]) -> None:
        handle.remove()
        kept = io.BytesIO()
        try:
            torch.save(state, kept)
            kept.seek(0)
            torch.load(kept, weights_only=True)
        except Exception as error:  # an object's own pickling may raise anything
            raise ConfigError(
                f"optimizer and schedule must keep only plain values and tensors in their state, or the run could "
                f"not be resumed: {str(error).strip().splitlines()[0]}"
            ) from None

    handle = optimizer.register_state_dict_post_hook(check)


# ---- properties of optimizers, for penalties


def innermost(optimizer: Any) -> Optimizer:
    """Unwraps an optimizer: the torch optimizer inside it whose step changes the weights.

    Raises:
        ConfigError: it is not a torch optimizer and contains none, or contains several.
    """
    seen: list[Any] = []
    while inner := [held for held in _held(optimizer) if not any(held is s for s in [*seen, optimizer])]:
        if len(inner) > 1:
            raise ConfigError(
                f"optimizer must hold one torch.optim.Optimizer, got {type(optimizer).__name__} with {len(inner)}: "
                f"penalize each of them with the weights it holds, penalize(..., weights=[...])"
            )
        seen.append(optimizer)
        optimizer = inner[0]
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer must be a torch.optim.Optimizer, or hold one as .optimizer, got {type(optimizer).__name__}"
        )
    return optimizer


def _held(optimizer: Any) -> list[Any]:
    """The optimizers that one contains: as `.optimizer`, else in any attribute, or in a list or dict there."""
    named = getattr(optimizer, "optimizer", None)
    if isinstance(named, Optimizer):
        return [named]
    attributes = list(getattr(optimizer, "__dict__", {}).values())
    for value in list(attributes):
        attributes += value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    if named is not None and hasattr(named, "step"):  # a wrapper in a wrapper
        attributes.append(named)
    found = {id(value): value for value in attributes if isinstance(value, Optimizer) or value is named is not None}
    return list(found.values())


def gradient_scale(optimizer: Optimizer) -> float | None:
    """The factor by which the gradients are scaled before the step; None if the step will be skipped.

    `GradScaler` leaves unscaling and skipping to fused optimizers, in these attributes; for others it does both itself.
    """
    found_inf, scale = getattr(optimizer, "found_inf", None), getattr(optimizer, "grad_scale", None)
    if found_inf is not None and float(found_inf) > 0:
        return None
    return 1.0 if scale is None else float(scale)


def gain_at_rest(optimizer: Optimizer, w: Tensor, group: dict[str, Any]) -> float | Tensor:
    """The factor, besides lr, by which SGD, Adam or AdamW multiplies a constant gradient of `w` in its steady state."""
    if isinstance(optimizer, torch.optim.SGD):
        dampening, momentum = float(group["dampening"]), float(group["momentum"])
        _check_momentum(momentum)
        return (1 - dampening) / (1 - momentum) if momentum > 0 else 1.0
    state = optimizer.state[w]
    second_moment = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    corrected = second_moment / (1 - group["betas"][1] ** float(state["step"]))
    gain: Tensor = 1 / (corrected.sqrt() + group["eps"])
    return gain


def check_l2(optimizer: Optimizer, l2_update: str) -> None:
    """Refuses an optimizer with which l2 would be applied twice, or could not be applied correctly.

    Raises:
        ConfigError: it decays weights itself; or l2 is not coupled, and the weights or learning rates in its groups are
            not those that it uses.
    """
    # The key may be missing: LBFGS, Rprop and many third-party optimizers don't decay weights.
    if any(group.get("weight_decay", 0) != 0 for group in optimizer.param_groups):
        raise ConfigError(
            "the optimizer's weight_decay must be 0 with l2 > 0, or weights are penalized twice: set weight_decay=0"
        )
    if l2_update == "coupled":
        return
    why = None
    if isinstance(optimizer, torch.optim.LBFGS):
        why = "its line search fails if anything else changes the weights"
    elif any(group.get("lr") is None for group in optimizer.param_groups):
        why = "its groups have no learning rate to scale the decay"
    elif is_schedule_free(optimizer) or any("weight_lr_power" in group for group in optimizer.param_groups):
        # The key marks the schedulefree optimizers whose step takes a closure, which have no train and eval modes.
        why = "it computes its weights from others that nothing else may change"
    elif any({"d", "growth_rate"} <= group.keys() for group in optimizer.param_groups):  # D-Adaptation, Prodigy
        why = "it adapts the learning rate that scales the decay"
    if why is not None:
        name = type(optimizer).__name__
        raise ConfigError(f"penalty.l2_update must be coupled with {name}, got {l2_update!r}: {why}")


def measures_weights(optimizer: Optimizer) -> bool:
    """Whether its step is proportional to the size of the weights, which torch measures before it decays them."""
    return isinstance(optimizer, torch.optim.Adafactor)


def is_schedule_free(optimizer: Any) -> bool:
    """Whether it has separate weights for training and evaluation: Defazio et al. 2024, arXiv 2405.15682."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def check_proximal(optimizer: Optimizer, weights: Sequence[Tensor]) -> None:
    """Refuses an optimizer for which the threshold of proximal L1 is not known.

    Raises:
        ConfigError: its step is not that of torch's SGD, Adam or AdamW; momentum 1; complex weights with Adam.
    """
    step = inspect.unwrap(type(optimizer).step)  # a subclass with a step of its own may do anything
    is_adam = step in (inspect.unwrap(torch.optim.Adam.step), inspect.unwrap(torch.optim.AdamW.step))
    if not is_adam and step is not inspect.unwrap(torch.optim.SGD.step):
        raise ConfigError(
            f"penalty.l1_update must be subgradient with {type(optimizer).__name__}, got 'proximal': "
            f"its threshold is known for SGD, Adam and AdamW only"
        )
    if is_adam and any(w.is_complex() for w in weights):
        raise ConfigError(
            "penalty.l1_update must be subgradient with complex weights and Adam, which scales real and imaginary "
            "parts separately, got 'proximal'"
        )
    for group in [] if is_adam else optimizer.param_groups:
        _check_momentum(float(group["momentum"]))


def _check_momentum(momentum: float) -> None:
    if momentum >= 1:
        raise ConfigError(f"momentum must be below 1 with penalty.l1_update=proximal, got {momentum:g}")
