"""L1 on whole channels or on the scales of norms, so that zero channels can be removed from the network."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import PenaltyConfig
from reg_sweep.training.channels import Channels, Part, all_channels, positions
from reg_sweep.training.optimizer import check_proximal, gain_at_rest, gradient_scale
from reg_sweep.training.weights import NORM_LAYERS

_MAX_NEWTON_STEPS = 100


@dataclass(frozen=True)
class Blocks:
    """Groups of parameters: `parts` maps their entries to group numbers, and `weight` is each group's weight, (n,)."""

    name: str
    parts: list[Part]
    weight: Tensor

    def gather(self, of_part: Callable[[Part], Tensor | None]) -> Tensor:
        """Sum over the parts, by group, (n,), of the values that `of_part` gives for each entry along a part's axis."""
        total = torch.zeros_like(self.weight)
        for part in self.parts:
            values = of_part(part)
            if values is not None:
                total.index_add_(0, part.channel, values.to(total.dtype)[part.index])
        return total


class GroupLasso:
    """The penalty l1 sum_g c_g ||theta_g||_2 over groups of parameters, by its proximal step.

    channels: theta_g are the weights and the bias of an output channel, and its norm's scale and shift. They form one
        group, because a norm undoes the shrinking of only its input. Layers whose outputs are added up share their
        channels, which also form one group, because they can only be removed together. c_g is sqrt(number of elements),
        so that large groups are not favoured (Yuan, Lin 2006, equation 3), or the channel's share of the multiply-adds,
        scaled such that sum c_g is the same. Channels that can't be removed are left out; `left_out` says why.
    scales: theta_g is the scale of one channel of a norm, and c_g = 1. This is network slimming (Liu et al. 2017,
        arXiv 1708.06519, equation 1), with exact zeros instead of its subgradient and threshold.

    With s = lr / (1 - momentum) for SGD, the step after the optimizer's is the block soft threshold

        theta_g <- theta_g max(0, 1 - s l1 c_g / ||theta_g||)                                    (Parikh, Boyd 6.5.4)

    whose fixed points are the stationary points of the penalized loss: see `Penalty`. Adam and AdamW scale each element
    i by its own s_i = lr / (sqrt(v_i) + eps). In that metric the step is theta_i <- theta_i nu / (nu + s_i l1 c_g),
    where nu = ||theta_g|| after the step solves sum_i (theta_i / (nu + s_i l1 c_g))^2 = 1, by Newton's method; and
    theta_g <- 0 if that sum is at most 1 for nu = 0.

    Raises:
        ConfigError: there is no such group, or none that can be removed; the optimizer lacks some of the parameters;
            they are sharded; or the optimizer's threshold is not known: it is not torch's SGD, Adam or AdamW.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, l1: float, form: PenaltyConfig, example: Tensor | None
    ) -> None:
        self._optimizer, self.strength = optimizer, l1
        self.left_out: dict[str, str] = {}
        if form.l1_on == "scales":
            self.blocks = _scales(model)
        else:
            if example is None:
                raise ConfigError("penalize must be given an example batch with l1_on='channels': example=images[:2]")
            self.blocks, self.left_out = _channels(model, example, by_cost=form.channel_weight == "cost")
        held = {p for group in optimizer.param_groups for p in group["params"]}
        missing = [p for p in self.parameters if p.requires_grad and p not in held]
        if missing:
            raise ConfigError(
                f"the optimizer must hold every weight, scale and shift of the channels, {len(missing)} are not in it"
            )
        if any(hasattr(p, "full_tensor") for p in self.parameters):
            raise ConfigError(f"penalty.l1_on must be weights if the weights are sharded, got {form.l1_on!r}")
        check_proximal(optimizer, self.parameters)
        self._moving: list[tuple[Blocks, list[Part]]] = []

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that belongs to a group."""
        return [part.parameter for blocks in self.blocks for part in blocks.parts]

    def norms(self) -> list[tuple[str, Tensor]]:
        """||theta_g||_2 of each group, (n,), with the name of the layer."""
        with torch.no_grad():
            return [(b.name, b.gather(lambda part: _squares(part, torch.float64)).sqrt()) for b in self.blocks]

    def value(self) -> float:
        """The penalty at the current weights."""
        weights = (blocks.weight for blocks in self.blocks)
        return self.strength * sum(float((c * norm).sum()) for c, (_, norm) in zip(weights, self.norms(), strict=True))

    def before_step(self) -> None:
        """Notes which groups the step will move: those with gradients, or none if `GradScaler` skips the step."""
        self._moving = []
        if gradient_scale(self._optimizer) is not None:
            for blocks in self.blocks:
                parts = [p for p in blocks.parts if p.parameter.requires_grad and p.parameter.grad is not None]
                if parts:
                    self._moving.append((blocks, parts))

    @torch.no_grad()
    def after_step(self) -> None:
        """Applies the block soft threshold to the groups that the step moved."""
        moving, self._moving = self._moving, []
        groups = {p: group for group in self._optimizer.param_groups for p in group["params"]}
        for blocks, parts in moving:
            steps = {part: self._step_size(part.parameter, groups) for part in parts}
            sizes = {step for step in steps.values() if isinstance(step, float)}
            moved = Blocks(blocks.name, parts, blocks.weight)
            if len(sizes) == 1 and not any(isinstance(step, Tensor) for step in steps.values()):
                _shrink(moved, self.strength * sizes.pop())
            else:
                _shrink_in_metric(moved, self.strength, steps)

    def _step_size(self, w: nn.Parameter, groups: dict[nn.Parameter, dict[str, object]]) -> float | Tensor:
        lr = groups[w]["lr"]
        size = lr * gain_at_rest(self._optimizer, w, groups[w])  # type: ignore[operator]
        return size if isinstance(size, Tensor) and size.ndim > 0 else float(size)


def _squares(part: Part, dtype: torch.dtype | None = None) -> Tensor:
    """The squared norm of each slice along a part's axis."""
    w = part.parameter
    others = [axis for axis in range(w.ndim) if axis != part.axis]
    norms: Tensor = torch.linalg.vector_norm(w, dim=others, dtype=dtype) if others else w.to(dtype or w.dtype)
    return norms.square()


def _scale(part: Part, factor: Tensor) -> None:
    """Multiplies a part's slices by the factors of their groups, (n,)."""
    w = part.parameter
    full = torch.ones(w.shape[part.axis], dtype=w.dtype, device=w.device)
    full[part.index] = factor.to(w.dtype)[part.channel]
    w.mul_(full.view([-1 if axis == part.axis else 1 for axis in range(w.ndim)]))


def _shrink(blocks: Blocks, threshold: float) -> None:
    if threshold == 0:
        return
    norm = blocks.gather(_squares).sqrt()
    factor = (1 - threshold * blocks.weight / norm).clamp_min(0)  # keeps NaN, so that divergence is noticed
    for part in blocks.parts:
        _scale(part, factor)


def _shrink_in_metric(blocks: Blocks, l1: float, steps: dict[Part, float | Tensor]) -> None:
    weight = blocks.weight.double()
    exact = Blocks(blocks.name, blocks.parts, weight)

    def thresholds(part: Part) -> Tensor:
        """s_i l1 c_g of each element, in the shape of its tensor; 0 for elements outside all groups."""
        w = part.parameter
        of_slice = torch.zeros(w.shape[part.axis], dtype=weight.dtype, device=w.device)
        of_slice[part.index] = l1 * weight[part.channel]
        return steps[part] * of_slice.view(_along(part))

    limits = {part: thresholds(part) for part in blocks.parts}
    if all(not bool((t > 0).any()) for t in limits.values()):
        return
    nu = torch.zeros_like(weight)

    def sums(power: int) -> Tensor:
        def of_part(part: Part) -> Tensor:
            w = part.parameter
            of_slice = torch.zeros(w.shape[part.axis], dtype=weight.dtype, device=w.device)
            of_slice[part.index] = nu[part.channel]
            whole = w.double().square() / (of_slice.view(_along(part)) + limits[part]).pow(power)
            others = [axis for axis in range(w.ndim) if axis != part.axis]
            whole = torch.where(w == 0, 0, whole)
            return whole.sum(others) if others else whole  # with an empty list of axes torch sums over all

        return exact.gather(of_part)

    stays = sums(2) > 1
    # 1 / sqrt(sum) is concave and nearly linear in nu, so from 0 the iterates increase to the root without passing it.
    for _ in range(_MAX_NEWTON_STEPS):
        second, third = sums(2), sums(3)
        ahead = torch.where(stays & (third > 0), (second.pow(1.5) - second) / third, 0)
        nu += ahead
        if bool((ahead.abs() <= 1e-9 * nu).all()):
            break
    for part in blocks.parts:
        w = part.parameter
        of_slice = torch.zeros(w.shape[part.axis], dtype=weight.dtype, device=w.device)
        kept = torch.ones(w.shape[part.axis], dtype=torch.bool, device=w.device)
        of_slice[part.index] = nu[part.channel]
        kept[part.index] = stays[part.channel]
        grown = of_slice.view(_along(part))
        w.copy_(
            torch.where(kept.view(_along(part)), w * (grown / (grown + limits[part])).nan_to_num(1.0).to(w.dtype), 0)
        )


def _along(part: Part) -> list[int]:
    """The shape that broadcasts a vector along a part's axis."""
    return [-1 if axis == part.axis else 1 for axis in range(part.parameter.ndim)]


# ---- the groups


def _scales(model: nn.Module) -> list[Blocks]:
    found = []
    for name, module in model.named_modules():
        scale = getattr(module, "weight", None) if isinstance(module, NORM_LAYERS) else None
        if isinstance(scale, nn.Parameter) and scale.ndim == 1:
            every = torch.arange(len(scale), device=scale.device)
            part = Part(module, "weight", 0, every, every)
            found.append(Blocks(name, [part], torch.ones(len(scale), device=scale.device)))
    if not found:
        raise ConfigError(
            "penalty.l1_on must not be scales for a model without norm layers that have scales: choose norm=bn, or "
            "penalty=channels"
        )
    return found


def _channels(model: nn.Module, example: Tensor, *, by_cost: bool) -> tuple[list[Blocks], dict[str, str]]:
    groups = all_channels(model, example)
    free = [group for group in groups if group.fixed is None]
    left_out = {group.name: group.fixed for group in groups if group.fixed is not None}
    if not free:
        reasons = (
            "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "it has no convolution or linear layer"
        )
        raise ConfigError(f"penalty.l1_on must not be channels for a model without removable channels: {reasons}")
    blocks = [Blocks(g.name, _on(example.device, g.made_by), torch.ones(g.n, device=example.device)) for g in free]
    weights = [b.gather(_sizes).sqrt() for b in blocks]
    if by_cost:
        costs = channel_costs(model, example, free)
        scale = sum(float(w.sum()) for w in weights) / sum(float(c.sum()) for c in costs)
        weights = [scale * c for c in costs]
    return [Blocks(b.name, b.parts, w) for b, w in zip(blocks, weights, strict=True)], left_out


def _sizes(part: Part) -> Tensor:
    """The number of elements of each slice along a part's axis."""
    w = part.parameter
    n = w.shape[part.axis]
    return torch.full((n,), w.numel() / n, device=w.device)


def channel_costs(model: nn.Module, example: Tensor, groups: list[Channels]) -> list[Tensor]:
    """Multiply-adds per image of each channel, (n,): to compute it, and to read it in the following layers."""
    found = positions(model, example)

    def cost(part: Part) -> Tensor | None:
        return _sizes(part) * found.get(part.module, 0.0) if part.name == "weight" else None

    device = example.device
    whole = [Blocks(g.name, _on(device, [*g.made_by, *g.read_by]), torch.ones(g.n, device=device)) for g in groups]
    return [blocks.gather(cost) for blocks in whole]


def _on(device: torch.device, parts: list[Part]) -> list[Part]:
    """Moves the index tensors of parts to a device."""
    return [Part(p.module, p.name, p.axis, p.index.to(device), p.channel.to(device)) for p in parts]
