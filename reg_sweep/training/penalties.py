"""L1 and L2: which weights are penalized, and how the penalties enter a weight's update."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from reg_sweep.config.schema import NEAR_ZERO, ConfigError, PenaltyConfig
from reg_sweep.runs.record import WeightCounts

_NORM_LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # _NormBase: every batch and instance norm


def penalized(model: nn.Module, name: str = "textbook") -> list[nn.Parameter]:
    """The parameters that a penalty acts on, in the model's order.

    textbook: weight tensors (of two axes or more), without biases and norm layers. notebook: all.
    """
    if name == "notebook":
        return [p for p in model.parameters() if p.requires_grad]
    norm_parameters = {id(p) for m in model.modules() if isinstance(m, _NORM_LAYERS) for p in m.parameters()}
    return [p for p in model.parameters() if p.requires_grad and p.ndim >= 2 and id(p) not in norm_parameters]


class Penalty:
    """The L1 and L2 penalties of a model's weights, applied around an optimizer's step.

        textbook: l1 sum |w| + l2/2 sum w^2 over the weight tensors
        notebook: l1 sum over tensors of mean |w| + l2/2 sum w^2 over all parameters

    They are never part of the loss that is differentiated; their derivatives are added by hand, at a cost that does
    not show beside a step.

    `l1_update`
        subgradient: l1 sign(w) is added to the gradient; sign(0) = 0. Weights come near zero, seldom to it.
        proximal: after the optimizer's step w <- sign(w) max(|w| - t, 0), which gives exact zeros. For SGD
            t = lr l1 / (1 - momentum): where the iteration is at rest its velocity is g / (1 - momentum), so that
            w = soft(w - lr g / (1 - momentum), t) holds just where -g is a subgradient of l1 |w|: at the stationary
            points of the penalized loss. (With t = lr l1 they would be those of a (1 - momentum) times weaker
            penalty.) For AdamW, which divides each gradient by d = sqrt(v) + eps, t = lr l1 / d for each weight, for
            the same reason: the proximal step in the optimizer's own metric.
    `l2_update`
        coupled: l2 w is added to the gradient, as torch's SGD does with weight_decay, to the last bit.
        decoupled: w <- (1 - lr l2) w before the step, as torch's AdamW does with weight_decay (Loshchilov, Hutter
            2019, arXiv 1711.05101).

    Sources: Parikh, Boyd 2014, Proximal algorithms, section 6.5.2 (soft threshold).

    Raises:
        ConfigError: a strength out of its range; an optimizer that decays weights itself; proximal L1 with an optimizer
            other than SGD and AdamW or Adam; decoupled L2 with LBFGS or an optimizer without a learning rate.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, l1: float, l2: float, form: PenaltyConfig) -> None:
        for what, strength in (("l1", l1), ("l2", l2)):
            if not 0 <= strength < float("inf"):
                raise ConfigError(f"{what} must be a finite number of at least 0, got {strength!r}")
        self._proximal, self._decoupled = form.l1_update == "proximal", form.l2_update == "decoupled"
        if l2 > 0:
            _check_l2(optimizer, self._decoupled)
        if l1 > 0 and self._proximal and not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam):
            raise ConfigError(
                f"penalty.l1_update must be subgradient with {type(optimizer).__name__}, got 'proximal': "
                f"its threshold is known for SGD, Adam and AdamW only"
            )
        self._optimizer = optimizer
        self._l1, self._l2 = l1, l2
        self.weights = penalized(model, form.name)
        # What one weight's |w| counts, tensor by tensor.
        self._l1_of = [l1 / w.numel() if form.name == "notebook" else l1 for w in self.weights]
        # By number: loading an optimizer's state puts new groups in place of the old.
        groups = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
        missing = [w for w in self.weights if id(w) not in groups]
        if missing:
            raise ConfigError(f"the optimizer must hold every penalized weight, {len(missing)} of them are not in it")
        self._group_of = [groups[id(w)] for w in self.weights]
        self.on_remove: list[Callable[[], None]] = []

    def shares_weights_with(self, other: "Penalty") -> bool:
        """Whether some weight is penalized by both."""
        return bool({id(w) for w in self.weights} & {id(w) for w in other.weights})

    def remove(self) -> None:
        """Ends what `penalize` began: the optimizer's steps are its own again."""
        while self.on_remove:
            self.on_remove.pop()()

    def _groups(self) -> list[dict[str, Any]]:
        """The optimizer's group of each penalized weight, which holds the learning rate of the moment."""
        return [self._optimizer.param_groups[i] for i in self._group_of]

    @torch.no_grad()
    def value(self) -> float:
        """The penalty that is added to the loss, at the present weights."""
        total = torch.zeros((), dtype=torch.float64)
        for w, l1 in zip(self.weights, self._l1_of, strict=True):
            total += (l1 * w.abs().sum() + self._l2 / 2 * w.square().sum()).double().cpu()
        return float(total)

    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure for one `optimizer.step(closure)`, which evaluates the penalized loss and its gradients.

        Each evaluation adds the penalty's value to the closure's loss, if it returns one, and its derivatives to the
        gradients. Decoupled L2 decays the weights after the first alone, since it acts once a step.
        """
        decays = True

        def penalized_loss() -> Any:
            nonlocal decays
            loss = closure()
            value = self.value() if isinstance(loss, Tensor | float) else None
            self.before_step(decays=decays)
            decays = False
            return loss if value is None else loss + value

        return penalized_loss

    @torch.no_grad()
    def before_step(self, *, decays: bool = True) -> None:
        """After `backward`, before the optimizer's step: adds the derivatives to the gradients.

        Decoupled L2 shrinks the weights themselves, if `decays`.
        """
        touched = [i for i, w in enumerate(self.weights) if w.grad is not None]
        if not touched:
            return
        weights: list[Tensor] = [self.weights[i] for i in touched]
        gradients = [w.grad for w in weights if w.grad is not None]
        if self._l2 > 0 and not self._decoupled:
            torch._foreach_add_(gradients, weights, alpha=self._l2)
        if self._l2 > 0 and self._decoupled and decays:
            groups = self._groups()
            torch._foreach_mul_(weights, [1 - float(groups[i]["lr"]) * self._l2 for i in touched])
        if self._l1 > 0 and not self._proximal:
            signs = torch._foreach_sign(weights)  # noqa: SLF001 - torch has no other name for it
            torch._foreach_mul_(signs, [self._l1_of[i] for i in touched])
            torch._foreach_add_(gradients, signs)

    @torch.no_grad()
    def after_step(self) -> None:
        """After the optimizer's step: the soft threshold of proximal L1."""
        if self._l1 == 0 or not self._proximal:
            return
        for w, l1, group in zip(self.weights, self._l1_of, self._groups(), strict=True):
            if w.grad is not None:
                threshold = group["lr"] * l1 * self._gain(w, group)
                w.copy_(w.sign() * F.relu(w.abs() - threshold))

    def _gain(self, w: Tensor, group: dict[str, Any]) -> float | Tensor:
        """What the optimizer multiplies a constant gradient by, beside lr, once it is at rest."""
        if isinstance(self._optimizer, torch.optim.SGD):
            dampening, momentum = float(group["dampening"]), float(group["momentum"])
            return (1 - dampening) / (1 - momentum) if momentum > 0 else 1.0
        state = self._optimizer.state[w]
        second_moment = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        corrected = second_moment / (1 - group["betas"][1] ** float(state["step"]))
        gain: Tensor = 1 / (corrected.sqrt() + group["eps"])
        return gain


def _check_l2(optimizer: Optimizer, decoupled: bool) -> None:
    """Refuses an optimizer beside which l2 would count twice, or could not count once."""
    # Not every optimizer has the key: LBFGS, Rprop and many of other authors do not decay weights.
    if any(group.get("weight_decay", 0) != 0 for group in optimizer.param_groups):
        raise ConfigError(
            "the optimizer's weight_decay must be 0 beside l2 > 0, which would penalize twice: set weight_decay=0"
        )
    if decoupled and isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "penalty.l2_update must be coupled with LBFGS, got 'decoupled': "
            "its line search compares losses of weights that nothing else may move"
        )
    if decoupled and any(group.get("lr") is None for group in optimizer.param_groups):
        raise ConfigError(
            f"penalty.l2_update must be coupled with {type(optimizer).__name__}, got 'decoupled': "
            f"its groups name no learning rate, by which the decay is scaled"
        )


@torch.no_grad()
def count_zeros(model: nn.Module) -> WeightCounts:
    """How many weights of the weight tensors are zero, or near zero (|w| < NEAR_ZERO), and how many kernels are dead.

    A kernel is one input channel's filter in one output channel of a convolution larger than 1x1; it is dead when all
    its weights are near zero.
    """
    weights = penalized(model)
    kernels = [w.flatten(2) for w in weights if w.ndim == 4 and w.shape[2:].numel() > 1]
    return {
        "n": sum(w.numel() for w in weights),
        "n_zero": sum(int((w == 0).sum()) for w in weights),
        "n_near_zero": sum(int((w.abs() < NEAR_ZERO).sum()) for w in weights),
        "n_kernels": sum(k.shape[0] * k.shape[1] for k in kernels),
        "n_dead_kernels": sum(int((k.abs().amax(2) < NEAR_ZERO).sum()) for k in kernels),
    }


def penalize(
    model: nn.Module,
    optimizer: Optimizer,
    l1: float = 0.0,
    l2: float = 0.0,
    *,
    name: str = "textbook",
    l1_update: str = "subgradient",
    l2_update: str = "coupled",
) -> Penalty:
    """Penalizes a model's weights from now on, in a training loop that stays as it is.

    The penalties hook into `optimizer.step()`. With a closure, `optimizer.step(closure)`, they act at each of its
    evaluations, and the loss that the step returns is the penalized one. An optimizer that wraps another as its
    `.optimizer`, such as those of Accelerate and Lightning, may be given as it is. Formulas and errors are those of
    `Penalty`, which is returned: its `value()` is the penalty at the present weights, `remove()` ends it.

    Args:
        model: whose weights are penalized.
        optimizer: holds all of them, and does not decay them itself where l2 > 0.
        l1: the strength of L1.
        l2: the strength of L2.
        name: the form, textbook or notebook.
        l1_update: subgradient or proximal.
        l2_update: coupled or decoupled.

    Raises:
        ConfigError: an unknown form or update; what `Penalty` raises; no optimizer of torch's; or some of the weights
            are penalized already under this optimizer.
    """
    optimizer = _innermost(optimizer)
    penalty = Penalty(model, optimizer, l1, l2, PenaltyConfig(name, l1_update, l2_update))

    present: list[Penalty] = vars(optimizer).setdefault("penalties", [])
    if any(penalty.shares_weights_with(other) for other in present):
        raise ConfigError(
            "penalize must be called once for a model, or its weights are penalized twice: remove() first"
        )

    def before_step(_: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": penalty.around(kwargs["closure"])}
        if args[1:] and args[1] is not None:  # args[0] is the optimizer
            return (args[0], penalty.around(args[1]), *args[2:]), kwargs
        penalty.before_step()
        return None

    hooks = [
        optimizer.register_step_pre_hook(before_step),
        optimizer.register_step_post_hook(lambda *_: penalty.after_step()),
    ]
    penalty.on_remove = [*(hook.remove for hook in hooks), lambda: present.remove(penalty)]
    present.append(penalty)
    return penalty


def _innermost(optimizer: Any) -> Optimizer:
    """The optimizer whose step moves the weights, out of those that wrap it."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer must be a torch.optim.Optimizer, or hold one as .optimizer, got {type(optimizer).__name__}"
        )
    return optimizer
