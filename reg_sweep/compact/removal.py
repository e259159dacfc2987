"""Removes the zero channels of a network, and checks that its outputs stay the same."""

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reg_sweep.config.rules import ConfigError
from reg_sweep.training.channels import LAYERS, NORMS, Channels, Part, all_channels, is_depthwise
from reg_sweep.training.torch_internals import AnyConv, AnyTransposedConv

TOLERANCE = 1e-5  # for outputs; relative to the largest output if that is above 1


class CompactError(ConfigError):
    """Raised for a network that can't be made smaller. The message is one line."""


@dataclass(frozen=True)
class LayerChange:
    """A layer's input and output channels, before and after."""

    name: str
    kind: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]


@dataclass(frozen=True)
class Compacted:
    """A network without its zero channels.

    Attributes:
        model: the smaller network, a copy in evaluation mode.
        layers: every convolution and linear layer, with its channels before and after.
        n_removed: the number of removed channels; channels that layers share, because their outputs are added up, count
            once.
        kept: why zero channels were not removed, one line for each layer and reason.
        difference: the largest absolute difference between the outputs of the two networks.
    """

    model: nn.Module
    layers: list[LayerChange]
    n_removed: int
    kept: list[str]
    difference: float


def compact(model: nn.Module, example: Tensor, images: Iterable[Tensor] | None = None) -> Compacted:
    """Copies a network without the channels that are zero. The copy computes the same.

    A channel is removed if the weights that compute it, or the scale of its norm, are all exactly 0, and if every layer
    that reads it gets a constant, such as the shift of the norm. The constant's effect is added to that layer's bias. A
    channel is also removed if every weight that reads it is 0. Its scale, shift and running statistics are removed with
    it. Layers whose outputs are added up lose a channel together or not at all.

    Args:
        model: any network whose channels can be traced; it is not changed.
        example: a batch that the model accepts, on its device.
        images: batches for comparing both networks and for finding constants; by default random ones and the example.

    Raises:
        CompactError: no channel could be removed (the message has the reasons), or the smaller network computes
            something different.
        ConfigError: Torch-Pruning is not installed, or the model can't be traced.
    """
    was = {m: m.training for m in model.modules()}
    try:
        model.eval()
        batches = list(_probes(example)) if images is None else list(images)
        smaller = copy.deepcopy(model)
        n_removed = 0
        kept: list[str] = []
        while True:
            n, kept = _remove_once(smaller, example, batches)
            n_removed += n
            if n == 0:
                break
        if n_removed == 0:
            raise CompactError(_nothing_to_remove(kept))
        return Compacted(smaller, _changes(model, smaller), n_removed, kept, _compared(model, smaller, batches))
    finally:
        for module, training in was.items():
            module.training = training


def _nothing_to_remove(kept: list[str]) -> str:
    if kept:
        return f"network must have channels that can be removed, got none: {'; '.join(kept)}"
    return (
        "network must have channels that are exactly zero, got none: train it with penalty=channels or penalty=scales "
        "and a larger l1"
    )


def _probes(example: Tensor) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    yield example
    for scale in (0.1, 1.0, 3.0):
        yield (scale * torch.randn(8, *example.shape[1:], generator=generator)).to(example)


# ---- which channels


def _remove_once(model: nn.Module, example: Tensor, batches: list[Tensor]) -> tuple[int, list[str]]:
    """Removes all channels that can be removed; returns their number, and why other zero channels stay."""
    groups = all_channels(model, example)
    zero = {group.name: _zero(group) for group in groups}
    readers = {part.module for group in groups for part in group.read_by if zero[group.name].any()}
    ranges = _ranges(model, readers, batches)
    drops: dict[tuple[nn.Module, str, int], set[int]] = defaultdict(set)
    n_removed, kept, names = 0, [], {m: n for n, m in model.named_modules()}
    shifts: dict[nn.Module, Tensor] = {}
    for group in groups:
        unread = _unread(group)
        candidates = zero[group.name] | unread
        if group.fixed is not None or not candidates.any():
            if n := int(zero[group.name].sum()):
                kept.append(f"{group.name}: {_channels(n)} zero, but {group.fixed}")
            continue
        obstacles = _obstacles(group, candidates & ~unread, ranges, names)
        going = [i for i in candidates.nonzero().flatten().tolist() if i not in obstacles]
        if len(going) == group.n:
            obstacles[going.pop()] = "a layer keeps at least one channel"
        reasons = Counter(obstacles.values())
        kept += [f"{group.name}: {_channels(n)} zero, but {reason}" for reason, n in reasons.items()]
        n_removed += len(going)
        gone = torch.zeros(group.n, dtype=torch.bool)
        gone[going] = True
        for part in group.read_by:
            _fold(part, gone, ranges, shifts)
        for part in [*group.made_by, *group.read_by, *group.carried]:
            drops[part.module, part.name, part.axis] |= set(part.index[gone[part.channel]].tolist())
    _cut({key: indices for key, indices in drops.items() if indices}, shifts)
    return n_removed, kept


def _channels(n: int) -> str:
    return "1 channel is" if n == 1 else f"{n} channels are"


def _zero(group: Channels) -> Tensor:
    """Mask (n,) of the channels for which some layer's weights or norm's scale are 0, so it outputs a constant."""
    zero = torch.zeros(group.n, dtype=torch.bool)
    for part in group.made_by:
        if part.name == "weight":
            zero[part.channel[_is_zero(part)[part.index]]] = True
    return zero


def _unread(group: Channels) -> Tensor:
    """Mask (n,) of the channels whose weights are 0 in every layer that reads them."""
    read = torch.full((group.n,), not group.read_by)
    for part in group.read_by:
        read[part.channel[~_is_zero(part)[part.index]]] = True
    return ~read


def _is_zero(part: Part) -> Tensor:
    w = part.parameter.detach().cpu()
    others = [axis for axis in range(w.ndim) if axis != part.axis]
    return (w == 0).all(dim=others) if len(others) == 1 else (w.abs().amax(others) if others else w.abs()) == 0


Ranges = dict[nn.Module, tuple[Tensor, Tensor]]


def _ranges(model: nn.Module, readers: set[nn.Module], batches: list[Tensor]) -> Ranges:
    """The smallest and the largest value of each input channel of each layer in `readers`, over all batches."""
    found: Ranges = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        axis = x.ndim - 1 if isinstance(module, nn.Linear) else 1
        others = [a for a in range(x.ndim) if a != axis]
        low, high = x.amin(others).cpu(), x.amax(others).cpu()
        if module in found:
            low, high = torch.minimum(low, found[module][0]), torch.maximum(high, found[module][1])
        found[module] = low, high

    with _hooks([reader.register_forward_pre_hook(look) for reader in readers]), torch.no_grad():
        for x in batches if readers else []:
            model(x)
    return found


@contextmanager
def _hooks(handles: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _obstacles(group: Channels, asked: Tensor, ranges: Ranges, names: dict[nn.Module, str]) -> dict[int, str]:
    """The reasons, by channel number, why some of the channels `asked` (n,) can't be removed."""
    found: dict[int, str] = {}
    for part in group.read_by if asked.any() else []:
        low, high = ranges[part.module]
        name = names[part.module]
        moves = high - low > 1e-6 * (1 + low.abs())
        module = part.module
        padded = isinstance(module, AnyConv) and module.padding_mode == "zeros" and any(module.padding)
        constant = (low != 0) & ~moves if padded else torch.zeros_like(moves)
        read = ~_is_zero(part)
        for i, channel in zip(part.index.tolist(), part.channel.tolist(), strict=True):
            if asked[channel] and read[i] and (moves[i] or constant[i]):
                found[channel] = (
                    f"{name} reads other values there, because another layer's output is added"
                    if moves[i]
                    else f"{name} pads with zeros, unlike the constant that they leave"
                )
    return found


# ---- removal


def _fold(part: Part, gone: Tensor, ranges: Ranges, shifts: dict[nn.Module, Tensor]) -> None:
    """Adds the contribution of removed channels' constants to a reading layer's outputs, in `shifts`."""
    if part.module not in ranges or not gone.any():
        return
    low, high = ranges[part.module]
    index = part.index[gone[part.channel]]
    w = part.parameter.detach().double()
    constant = ((low + high) / 2).to(w)[index]
    of_input = w.movedim(part.axis, 1)[:, index].flatten(2).sum(2) if w.ndim > 2 else w[:, index]
    whole = of_input @ torch.where((of_input == 0).all(0), 0, constant)
    shifts[part.module] = shifts.get(part.module, torch.zeros_like(whole)) + whole


def _cut(drops: dict[tuple[nn.Module, str, int], set[int]], shifts: dict[nn.Module, Tensor]) -> None:
    for module, shift in shifts.items():
        if bool((shift != 0).any()):
            bias, weight = getattr(module, "bias", None), module.weight
            assert isinstance(weight, Tensor)
            before = torch.zeros_like(shift) if bias is None else bias.detach().double()
            module.bias = nn.Parameter((before + shift).to(weight), requires_grad=weight.requires_grad)
            out = 1 if isinstance(module, AnyTransposedConv) else 0
            if (module, "weight", out) in drops:  # a new bias loses the removed channels
                drops[module, "bias", 0] = drops[module, "weight", out]
    for (module, name, axis), indices in drops.items():
        old = getattr(module, name)
        left = [i for i in range(old.shape[axis]) if i not in indices]
        new = old.detach().index_select(axis, torch.tensor(left, device=old.device)).clone()
        is_parameter = isinstance(old, nn.Parameter)
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad) if is_parameter else new)
    for module in {module for module, _, _ in drops}:
        set_sizes(module)


def set_sizes(module: nn.Module) -> None:
    """Updates a layer's size attributes, such as `in_channels`, to those of its tensors."""
    weight = getattr(module, "weight", None)
    if isinstance(module, AnyConv) and isinstance(weight, Tensor):
        ins, outs = (0, 1) if isinstance(module, AnyTransposedConv) else (1, 0)
        if is_depthwise(module) and module.groups > 1:
            module.in_channels = module.out_channels = module.groups = weight.shape[0]
        else:
            module.in_channels, module.out_channels = weight.shape[ins] * module.groups, weight.shape[outs]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_channels = len(module.weight)
    elif isinstance(module, NORMS):
        held = weight if isinstance(weight, Tensor) else module.running_mean
        if isinstance(held, Tensor):
            module.num_features = len(held)


# ---- the check


def _changes(model: nn.Module, smaller: nn.Module) -> list[LayerChange]:
    after = dict(smaller.named_modules())
    return [
        LayerChange(name, type(m).__name__, (a[0], b[0]), (a[1], b[1]))
        for name, m in model.named_modules()
        if isinstance(m, LAYERS)
        for a, b in [(_size(m), _size(after[name]))]
    ]


def _size(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    assert isinstance(module, AnyConv)
    return module.in_channels, module.out_channels


@torch.no_grad()
def _compared(model: nn.Module, smaller: nn.Module, batches: list[Tensor]) -> float:
    """The largest absolute difference between the outputs.

    Raises:
        CompactError: it exceeds the tolerance, or some prediction differs.
    """
    largest, n_other, n = 0.0, 0, 0
    for x in batches:
        a, b = model(x), smaller(x)
        difference = float((a - b).abs().max())
        largest = max(largest, difference)
        n_other, n = n_other + int((a.argmax(-1) != b.argmax(-1)).sum()), n + a.argmax(-1).numel()
        if not difference <= TOLERANCE * max(1.0, float(a.abs().max())):
            raise CompactError(
                f"the smaller network must give the same outputs within {TOLERANCE:g}, got a difference of "
                f"{difference:.2g}: a layer of the model treats channels in a way that can't be traced"
            )
    if n_other:
        raise CompactError(
            f"the smaller network must predict the same, got different predictions for {n_other} of {n} images"
        )
    return largest
