"""L1, L2 and custom penalties, applied around the step of any optimizer."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from reg_sweep.config.rules import ConfigError, nonnegative
from reg_sweep.config.schema import PenaltyConfig
from reg_sweep.training.group_lasso import GroupLasso
from reg_sweep.training.optimizer import (
    check_l2,
    check_proximal,
    gain_at_rest,
    gradient_scale,
    innermost,
    measures_weights,
)
from reg_sweep.training.own_penalties import OwnPenalties, Replaced, check_addable, give_back
from reg_sweep.training.torch_internals import foreach_add_, foreach_mul_, number, signs, sums, version
from reg_sweep.training.weights import TrackedWeights


class Penalty:
    """The L1 and L2 penalties of a model's weights, applied around an optimizer's step.

        textbook: l1 sum |w| + l2/2 sum w^2 over the weights of convolutions and linear layers
        notebook: l1 sum over tensors of mean |w| + l2/2 sum w^2 over all parameters

    With `l1_on` channels or scales, L1 acts on those by a proximal step (`GroupLasso`); L2 still acts on the weights.

    `own` penalties are added to these: see `OwnPenalties`.

    L1 and L2 are never part of the loss that is differentiated. Their derivatives are added by hand, at a negligible
    cost. See `penalized` for the parameters that count as weights. For a complex w, |w| is the modulus.

    `l1_update`
        subgradient: l1 sign(w) is added to the gradient, with sign(0) = 0. Weights come close to zero, rarely to 0.
        proximal: after the optimizer's step w <- sign(w) max(|w| - t, 0), which gives exact zeros. For SGD
            t = lr l1 / (1 - momentum). At a fixed point the velocity is g / (1 - momentum), so that
            w = soft(w - lr g / (1 - momentum), t) holds exactly if -g is a subgradient of l1 |w|, that is, at the
            stationary points of the penalized loss. (With t = lr l1 they would be those of a (1 - momentum) times
            weaker penalty.) AdamW divides each gradient by d = sqrt(v) + eps; for the same reason t = lr l1 / d for
            each weight, which is the proximal step in the optimizer's own metric.
    `l2_update`
        coupled: l2 w is added to the gradient, bit for bit as torch's SGD does with weight_decay.
        decoupled: w <- (1 - lr l2) w before the step, as torch's AdamW does with weight_decay (Loshchilov, Hutter
            2019, arXiv 1711.05101). With Adafactor, whose step depends on the size of w, lr l2 w is subtracted later.
        cautious: as decoupled, but after the step, and only for weights that the step moved towards zero or not at all:
            if the step subtracts u, w <- w - u - lr l2 [u w >= 0] w (Chen et al. 2025, arXiv 2510.12402).

    As with torch's weight decay, `.grad` holds the gradient of the unpenalized loss again after the step; a group with
    `maximize=True` maximizes the loss minus the penalty; and a weight changes only in steps for which it has a
    gradient. A frozen weight never changes; one that is unfrozen or replaced is penalized from then on. `GradScaler` is
    respected: a fused optimizer's gradients are penalized at their scale, and a skipped step changes nothing.

    Source: Parikh, Boyd 2014, Proximal algorithms, section 6.5.2 (soft threshold).

    Raises:
        ConfigError: a strength is out of range; there are no weights, some are lazy, or the optimizer does not hold
            them; the optimizer decays weights itself; L1 is proximal with an optimizer other than torch's SGD, Adam and
            AdamW, with momentum 1, or with complex weights and Adam; L2 is decoupled with an optimizer that uses other
            weights or rates than its groups show (LBFGS, schedule-free, D-Adaptation). Steps raise it for the same
            reasons, and for a sparse gradient to which a derivative would be added.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        l1: float,
        l2: float,
        form: PenaltyConfig,
        weights: Iterable[nn.Parameter] | None = None,
        example: Tensor | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> None:
        nonnegative("l1", l1)
        nonnegative("l2", l2)
        self._l1, self._l2 = l1, l2
        self._proximal, self._l2_update = form.l1_update == "proximal", form.l2_update
        self._optimizer = optimizer
        self._tracked = TrackedWeights(model, optimizer, form.name, None if weights is None else list(weights))
        self._replaced: list[Replaced] = []
        self._touched: list[nn.Parameter] = []
        self._start: list[Tensor] = []  # touched weights before the step, for a decay after it
        self._decayed: dict[nn.Parameter, int] = {}  # weights that were decayed for this step, and their versions
        self._groups: GroupLasso | None = None
        self._is_grouped = form.l1_on != "weights"
        if l1 > 0 and self._is_grouped:
            self._groups, self._l1 = GroupLasso(model, optimizer, l1, form, example), 0.0
        self._check()
        self._own = OwnPenalties(model, optimizer, own, self._tracked) if own else None

    @property
    def weights(self) -> list[nn.Parameter]:
        """The penalized weights that the optimizer holds."""
        return self._tracked.weights

    def _check(self) -> None:
        """Raises if the penalty can't be computed correctly for the current weights and optimizer."""
        if self._l1 == 0 and self._l2 == 0:
            return
        self._tracked.check()
        if self._l2 > 0:
            check_l2(self._optimizer, self._l2_update)
        if self._l1 > 0 and self._proximal:
            check_proximal(self._optimizer, self.weights)

    def set_strength(self, name: str, strength: float) -> None:
        """Sets the strength of l1, l2 or a custom penalty from now on, as a schedule does.

        Raises:
            ConfigError: it is not a finite number of at least 0, or there is no such penalty.
        """
        nonnegative(name, strength)
        if name == "l1" and self._groups is not None:
            self._groups.strength = strength
        elif name == "l1" and self._is_grouped:
            raise ConfigError("l1 on channels or scales must be above 0 at first, or it can't be changed later")
        elif name == "l1":
            self._l1 = strength
        elif name == "l2":
            self._l2 = strength
        elif self._own is None or name not in self._own.names:
            raise ConfigError(f"a strength must belong to l1, l2 or a custom penalty, got {name!r}")
        else:
            self._own.set_strength(name, strength)
        self._check()

    def value(self) -> float:
        """The penalty that is added to the loss, at the current weights; L1 and L2 are summed in float64."""
        self._tracked.select()
        return self._value()

    def own_values(self) -> dict[str, float]:
        """The part of each custom penalty in `value()`."""
        return {} if self._own is None else self._own.values()

    @torch.no_grad()
    def _value(self) -> float:
        total = 0.0 if self._groups is None else self._groups.value()
        total += sum(self.own_values().values())
        for w in self.weights:
            if w.requires_grad:
                size = w.abs().to(torch.float32 if w.device.type == "mps" else torch.float64)  # MPS has no float64
                total += self._l1_of(w) * number(size.sum()) + self._l2 / 2 * number(size.square().sum())
        return total

    def _l1_of(self, w: Tensor) -> float:
        """Derivative of the penalty with respect to |w|, for each element of `w`."""
        return self._l1 / max(w.numel(), 1) if self._tracked.name == "notebook" else self._l1

    # ---- a step

    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure for one `optimizer.step(closure)`, which evaluates the penalized loss and its gradients.

        Each evaluation adds the penalty's derivatives to the gradients, and its value to the closure's loss, if it
        returns one (subtracts it with `maximize`). Decoupled L2 decays the weights only after the first evaluation,
        because it acts once per step.
        """
        decays = True

        def penalized_loss() -> Any:
            nonlocal decays
            give_back(self._replaced)
            loss = closure()
            value = self._value() if isinstance(loss, Tensor | float) else None
            self.before_step(decays=decays)
            decays = False
            return loss if value is None else loss + self._tracked.sign() * value

        return penalized_loss

    @torch.no_grad()
    def before_step(self, *, decays: bool = True) -> None:
        """After `backward`, before the optimizer's step: replaces the loss's gradients by the penalized loss's.

        If `decays`, decoupled L2 shrinks the weights themselves.
        """
        give_back(self._replaced, unless_changed=True)  # left over from a step that raised
        if self._groups is not None:
            self._groups.before_step()
        if self._tracked.follow():
            self._check()
        touched, scale = [w for w in self.weights if w.grad is not None and w.requires_grad], 1.0
        if touched or self._own is not None:
            found = gradient_scale(self._optimizer)
            touched, scale = ([], 0.0) if found is None else (touched, found)
        self._touched = touched
        if self._own is not None and scale > 0:
            self._replaced += self._own.add_derivatives(self._tracked.sign() * scale)
        if not touched:
            return
        l2 = self._l2 if self._l2_update == "coupled" else 0.0
        if self._l2 > 0 and self._l2_update != "coupled" and decays:
            if self._l2_update == "cautious" or measures_weights(self._optimizer):
                self._start = [w.clone() for w in touched]
            else:
                self._decayed = _decay(touched, self._tracked, self._l2, self._decayed)
        if l2 > 0 or (self._l1 > 0 and not self._proximal):
            l1 = [] if self._proximal or self._l1 == 0 else [self._l1_of(w) for w in touched]
            self._replaced += _with_derivatives(touched, self._tracked.sign() * scale, l1, l2)

    @torch.no_grad()
    def after_step(self) -> None:
        """After the optimizer's step: restores the gradients, then applies L2 that acts late, then proximal L1."""
        give_back(self._replaced)
        self._decayed = {}
        touched, self._touched, start, self._start = self._touched, [], self._start, []
        for w, before in zip(touched, start, strict=False):
            shrinks = ((before - w) * before.conj()).real >= 0 if self._l2_update == "cautious" else 1
            w.sub_(before * shrinks, alpha=float(self._tracked.group_of(w)["lr"] * self._l2))
        if self._groups is not None:
            self._groups.after_step()
        if self._l1 == 0 or not self._proximal:
            return
        for w in touched:
            group = self._tracked.group_of(w)
            threshold = group["lr"] * self._l1_of(w) * gain_at_rest(self._optimizer, w, group)
            w.copy_(w.sgn() * F.relu(w.abs() - threshold))


def _decay(
    weights: list[nn.Parameter], tracked: TrackedWeights, l2: float, decayed: dict[nn.Parameter, int]
) -> dict[nn.Parameter, int]:
    """Applies decoupled L2 once per step; returns the decayed weights and their versions.

    The hooks run twice if a subclass's step calls its parent's: weights at their version in `decayed` are skipped.
    """
    due = [w for w in weights if decayed.get(w) != version(w)]
    if due:
        foreach_mul_(list(due), [float(1 - tracked.group_of(w)["lr"] * l2) for w in due])
    return {w: version(w) for w in weights}


def _with_derivatives(weights: list[nn.Parameter], factor: float, l1: list[float], l2: float) -> list[Replaced]:
    """Adds `factor` times the derivatives of L1 (a strength for each weight, or none) and L2 to the gradients."""
    own = [w.grad for w in weights if w.grad is not None]
    for w, gradient in zip(weights, own, strict=True):
        check_addable(w, gradient)
    values: list[Tensor] = list(weights)
    # New tensors, as in torch's weight decay: a gradient that is reused must not be penalized twice.
    gradients = sums(own, values, factor * l2) if l2 > 0 else [g.clone() for g in own]
    if l1:
        ascent, alpha = signs(values), factor * l1[0]
        if len(set(l1)) > 1:
            foreach_mul_(ascent, [factor * strength for strength in l1])
            alpha = 1.0
        foreach_add_(gradients, ascent, alpha=alpha)
    for w, after in zip(weights, gradients, strict=True):
        w.grad = after
    return [(w, a, b, version(b)) for w, a, b in zip(weights, own, gradients, strict=True)]


class AttachedPenalty(Penalty):
    """A penalty that acts at every step of its optimizer, and of the optimizer's copies; `penalize` returns it."""

    _is_evaluating = False

    def attach(self) -> None:
        """Hooks into the optimizer's step."""
        optimizer = self._optimizer
        self._hooks: list[Any] = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        vars(optimizer).setdefault("penalties", []).append(self)
        # Copying an optimizer loses its hooks, so a plain copy would train without the penalty.
        vars(optimizer)["__reduce_ex__"] = functools.partial(_reduce, optimizer)

    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Does the same as `Penalty.around`, but penalizes once if a step that calls its parent's nests closures."""
        penalized_loss = super().around(closure)

        def once() -> Any:
            if self._is_evaluating:
                return closure()
            self._is_evaluating = True
            try:
                return penalized_loss()
            finally:
                self._is_evaluating = False

        return once

    @property
    def acts_on(self) -> Optimizer:
        """The optimizer whose steps the penalty acts on."""
        return self._optimizer

    def remove(self) -> None:
        """Detaches the penalty: the optimizer's later steps are not penalized."""
        while self._hooks:
            self._hooks.pop().remove()
        present = vars(self._optimizer)["penalties"]
        present[:] = [other for other in present if other is not self]

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if kwargs.get("closure") is not None:
            return args, {**kwargs, "closure": self.around(kwargs["closure"])}
        if args[1:] and args[1] is not None:  # args[0] is the optimizer
            return (args[0], self.around(args[1]), *args[2:]), kwargs
        self.before_step()
        return None

    def _after(self, *_: Any) -> None:
        self.after_step()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_hooks": len(self._hooks)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _hooks=[])
        if state["_hooks"]:
            self.attach()


def _reduce(optimizer: Optimizer, protocol: int) -> tuple[Any, ...]:
    """The optimizer's original `__reduce_ex__`, with its penalties added."""
    reduced: Any = type(optimizer).__reduce_ex__(optimizer, protocol)
    make, args, state, *rest = reduced
    return _hookable, (make, args), {**state, "penalties": list(vars(optimizer)["penalties"])}, *rest


def _hookable(make: Callable[..., Optimizer], args: tuple[Any, ...]) -> Optimizer:
    optimizer = make(*args)
    Optimizer.__setstate__(optimizer, {"defaults": {}})  # makes the hook tables that penalties need
    optimizer.register_step_pre_hook(_refuse_shallow_copy)
    return optimizer


def _refuse_shallow_copy(optimizer: Optimizer, *_: Any) -> None:
    if any(penalty.acts_on is not optimizer for penalty in vars(optimizer)["penalties"]):
        raise ConfigError(
            "a penalized optimizer must be copied with copy.deepcopy, got a shallow copy, which would not be penalized"
        )


def penalize(
    model: nn.Module,
    optimizer: Optimizer,
    l1: float = 0.0,
    l2: float = 0.0,
    *,
    name: str = "textbook",
    l1_update: str = "subgradient",
    l2_update: str = "coupled",
    l1_on: str = "weights",
    channel_weight: str | None = None,
    example: Tensor | None = None,
    weights: Iterable[nn.Parameter] | None = None,
    penalties: Mapping[str, Any] | None = None,
) -> AttachedPenalty:
    """Penalizes a model's weights from now on, without changes to the training loop.

    The penalties hook into `optimizer.step()`. With a closure, `optimizer.step(closure)`, they act at each of its
    evaluations, and the step returns the penalized loss. An optimizer that wraps another, such as those of Accelerate
    and Lightning, can be passed directly. See `Penalty` for formulas and errors. The returned object's `value()` is the
    penalty at the current weights, `set_strength(name, strength)` changes a strength, and `remove()` ends the penalty.
    A deep copy of model and optimizer, or a pickle of the optimizer, keeps the penalty.

    Args:
        model: the model whose weights are penalized.
        optimizer: the optimizer that holds all of them; if l2 > 0, it must not decay them itself.
        l1: the strength of L1.
        l2: the strength of L2.
        name: the form, textbook or notebook.
        l1_update: subgradient or proximal.
        l2_update: coupled, decoupled or cautious.
        l1_on: weights, channels or scales; the last two need l1_update proximal, see `GroupLasso`.
        channel_weight: size or cost, with l1_on channels.
        example: a batch that the model accepts, needed to trace the channels with l1_on channels.
        weights: the parameters to penalize instead of `penalized(model, name)`.
        penalties: custom penalties by name, {"ortho": {"_target_": function, "strength": 0.01}}; see `OwnPenalties`.

    Raises:
        ConfigError: an unknown form or update; an error of `Penalty`; not a torch optimizer; or some of the weights are
            already penalized with this optimizer.
    """
    optimizer = innermost(optimizer)
    for own, spec in (penalties or {}).items():
        if isinstance(spec, Mapping) and spec.get("schedule") is not None:
            raise ConfigError(
                f"penalties.{own}.schedule must be left out with penalize, which counts no steps: call set_strength"
            )
    form = PenaltyConfig(name, l1_update, l2_update, l1_on, channel_weight)
    penalty = AttachedPenalty(model, optimizer, l1, l2, form, weights, example, penalties)
    ours = set(penalty.weights)
    if any(w in ours for other in vars(optimizer).get("penalties", []) for w in other.weights):
        raise ConfigError(
            "penalize must be called only once for a model, or its weights are penalized twice: remove() the first one"
        )
    penalty.attach()
    return penalty
