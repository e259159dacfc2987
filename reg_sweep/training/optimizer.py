"""SGD, AdamW or an optimizer of your own; and the facts about any optimizer that checkpoints and penalties need."""

import inspect
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reg_sweep.config.rules import own_code
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
        with own_code("optimizer.source", "take (parameters, lr) and the arguments of its config", name):
            optimizer = make(model.parameters(), lr=config.lr, **arguments)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer.source must make a torch.optim.Optimizer, got {type(optimizer).__name__} from {name!r}"
        )
    decays = [group["weight_decay"] for group in optimizer.param_groups if group.get("weight_decay")]
    if decays:
        raise ConfigError(
            f"optimizer.source must make an optimizer without weight decay, which is the run's l2, got {decays[0]} "
            f"from {name!r}: add weight_decay: 0 to its arguments, on the command line +optimizer.source.weight_decay=0"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(f"optimizer.source must make an optimizer whose step needs no closure, got {name!r}")
    return optimizer


def switch(model: nn.Module, optimizer: Optimizer, *, training: bool) -> None:
    """Puts a model, and a schedule-free optimizer, in training or evaluation mode."""
    model.train(training)
    if is_schedule_free(optimizer):
        getattr(optimizer, "train" if training else "eval")()


def keep_in_state(optimizer: Optimizer, name: str, part: Any) -> None:
    """Lets the optimizer's `state_dict` hold that of another part of the run, and its `load_state_dict` give it back.

    A checkpoint then holds whatever moves the weights.
    """

    def keep(_: Optimizer, state: dict[str, Any]) -> None:
        state[name] = part.state_dict()

    def give_back(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        part.load_state_dict(state[name])
        return {k: v for k, v in state.items() if k != name}

    optimizer.register_state_dict_post_hook(keep)
    optimizer.register_load_state_dict_pre_hook(give_back)


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


# ---- facts about any optimizer, for penalties


def innermost(optimizer: Any) -> Optimizer:
    """The optimizer whose step moves the weights, out of those that hold it, under whatever name.

    Raises:
        ConfigError: it is no optimizer of torch's and holds none, or holds several.
    """
    seen: list[Any] = []
    while inner := [held for held in _held(optimizer) if not any(held is s for s in [*seen, optimizer])]:
        if len(inner) > 1:
            raise ConfigError(
                f"optimizer must hold one torch.optim.Optimizer, got {type(optimizer).__name__} with {len(inner)}: "
                f"penalize each of them, naming its own, penalize(..., weights=[...])"
            )
        seen.append(optimizer)
        optimizer = inner[0]
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer must be a torch.optim.Optimizer, or hold one as .optimizer, got {type(optimizer).__name__}"
        )
    return optimizer


def _held(optimizer: Any) -> list[Any]:
    """The optimizers that one holds: as `.optimizer`, else as whatever attribute, or in a list or mapping."""
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
    """The factor of all gradients until the step; None where the step is skipped.

    A `GradScaler` leaves both to fused optimizers, in these attributes, and does both itself for others.
    """
    found_inf, scale = getattr(optimizer, "found_inf", None), getattr(optimizer, "grad_scale", None)
    if found_inf is not None and float(found_inf) > 0:
        return None
    return 1.0 if scale is None else float(scale)


def gain_at_rest(optimizer: Optimizer, w: Tensor, group: dict[str, Any]) -> float | Tensor:
    """The factor, beside lr, by which SGD, Adam or AdamW multiplies a constant gradient of `w` once it is at rest."""
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
    """Refuses an optimizer beside which l2 would count twice, or could not count once.

    Raises:
        ConfigError: it decays weights itself; or l2 is not coupled, and its weights or its rate are not what its groups
            say.
    """
    # Not every optimizer has the key: LBFGS, Rprop and many of other authors do not decay weights.
    if any(group.get("weight_decay", 0) != 0 for group in optimizer.param_groups):
        raise ConfigError(
            "the optimizer's weight_decay must be 0 beside l2 > 0, which would penalize twice: set weight_decay=0"
        )
    if l2_update == "coupled":
        return
    why = None
    if isinstance(optimizer, torch.optim.LBFGS):
        why = "its line search compares losses of weights that nothing else may move"
    elif any(group.get("lr") is None for group in optimizer.param_groups):
        why = "its groups name no learning rate, by which the decay is scaled"
    elif is_schedule_free(optimizer) or any("weight_lr_power" in group for group in optimizer.param_groups):
        # The key is in those of schedulefree's whose step takes a closure, and that therefore have no modes.
        why = "it finds its weights from the ones that it trains, which nothing else may move"
    elif any({"d", "growth_rate"} <= group.keys() for group in optimizer.param_groups):  # D-Adaptation, Prodigy
        why = "it adapts the learning rate by which the decay is scaled"
    if why is not None:
        name = type(optimizer).__name__
        raise ConfigError(f"penalty.l2_update must be coupled with {name}, got {l2_update!r}: {why}")


def measures_weights(optimizer: Optimizer) -> bool:
    """Whether its step is as long as the weights are large, so that torch decays them after they were measured."""
    return isinstance(optimizer, torch.optim.Adafactor)


def is_schedule_free(optimizer: Any) -> bool:
    """Whether it moves the weights for evaluation and back: Defazio et al. 2024, arXiv 2405.15682, and its like."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def check_proximal(optimizer: Optimizer, weights: Sequence[Tensor]) -> None:
    """Refuses an optimizer for whose step the threshold of proximal L1 is not known.

    Raises:
        ConfigError: its step is not that of torch's SGD, Adam or AdamW; momentum 1; complex weights under Adam.
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
            "parts apart, got 'proximal'"
        )
    for group in [] if is_adam else optimizer.param_groups:
        _check_momentum(float(group["momentum"]))


def _check_momentum(momentum: float) -> None:
    if momentum >= 1:
        raise ConfigError(f"momentum must be below 1 with penalty.l1_update=proximal, got {momentum:g}")
