"""Several networks of one kind as a single network, with the channels of all of them side by side in every layer.

Images (N, C, H, W) of M members become (N, M C, H, W), member after member. Convolutions have a group for each member,
and linear layers a matrix for each. Norms and pooling work by channel, so they only get more channels. The network's
code around its layers is unchanged. (Wang et al. 2021, arXiv 2102.02344, fuse models this way.)
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.training.devices import Generators, generators, set_generators
from reg_sweep.training.dropout import Dropout, dropped_indices, memory_format_of, seed_dropout
from reg_sweep.training.norms import GhostBatchNorm2d, InstanceNorm
from reg_sweep.training.torch_internals import has_hooks

GeneratorOf = Callable[[int], Any]  # member -> a context manager that switches torch's generators to the member's


class NotStackableError(Exception):
    """Networks that can't be stacked. The message is the reason."""


class StackedLinear(nn.Module):
    """A linear layer for each member: (N, M I) -> (N, M O), with weights (M O, I)."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        first, self._n = layers[0], len(layers)
        self.weight = nn.Parameter(first.weight.new_empty(self._n * first.out_features, first.in_features))
        size = self._n * first.out_features
        self.bias = None if first.bias is None else nn.Parameter(first.bias.new_empty(size))

    def forward(self, x: Tensor) -> Tensor:
        """(N, M I) -> (N, M O).

        Raises:
            NotStackableError: the input is not (N, M I).
        """
        if x.ndim != 2:
            raise NotStackableError(f"a linear layer gets {x.ndim} axes")
        weight = self.weight.unflatten(0, (self._n, -1))  # (M, O, I)
        y = torch.einsum("nmi,moi->nmo", x.unflatten(1, (self._n, -1)), weight).flatten(1)
        z: Tensor = y if self.bias is None else y + self.bias
        return z


class StackedDropout(Dropout):
    """Dropout that draws the same for each member as the member's own layer does alone."""

    def __init__(self, layers: Sequence[Dropout | nn.Dropout], generator_of: GeneratorOf) -> None:
        super().__init__(layers[0].p)
        self._layers, self._generator_of = list(layers), generator_of

    def sparse(self, x: Tensor) -> bool:
        """Whether the members' masks are drawn by their gaps."""
        return all(isinstance(layer, Dropout) and layer.sparse(x) for layer in self._layers)

    def _places(self, x: Tensor) -> Tensor:
        n_members = len(self._layers)
        # A member's elements lie in runs of this length; the other members' runs lie between them.
        run = (x.shape[1] if memory_format_of(x) is torch.channels_last else x[0].numel()) // n_members
        places = []
        for i, layer in enumerate(self._layers):
            assert isinstance(layer, Dropout)
            assert layer.generator is not None
            own = dropped_indices(x.numel() // n_members, self.p, layer.generator)
            places.append(own + own.div(run, rounding_mode="floor").mul_((n_members - 1) * run).add_(i * run))
        return torch.cat(places)

    def _dense(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        ones = torch.ones_like(x[:, : x.shape[1] // len(self._layers)], memory_format=memory_format_of(x))
        factors = []
        for i in range(len(self._layers)):
            with self._generator_of(i):
                factors.append(F.dropout(ones, self.p))
        return x * torch.cat(factors, 1)


# ---- stacked layers, with uninitialized tensors


def _convolution(layers: list[Any]) -> nn.Module:
    first, n = layers[0], len(layers)
    return nn.Conv2d(
        n * first.in_channels,
        n * first.out_channels,
        first.kernel_size,
        first.stride,
        first.padding,
        first.dilation,
        n * first.groups,
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
    )


def _batch_norm(layers: list[Any]) -> nn.Module:
    first = layers[0]
    if first.momentum is None:
        raise NotStackableError("a batch norm averages all batches (momentum None)")
    own = {"ghost_batch_size": first.ghost_batch_size} if isinstance(first, GhostBatchNorm2d) else {}
    size = len(layers) * first.num_features
    made: nn.Module = type(first)(
        size, eps=first.eps, momentum=first.momentum, track_running_stats=first.track_running_stats, **own
    )
    return made


def _group_norm(layers: list[Any]) -> nn.Module:
    first, n = layers[0], len(layers)
    if isinstance(first, InstanceNorm):
        return InstanceNorm(n * first.num_channels, first.eps)
    return nn.GroupNorm(n * first.num_groups, n * first.num_channels, first.eps)


_MAKERS: dict[type[nn.Module], Callable[[list[Any]], nn.Module]] = {
    nn.Conv2d: _convolution,
    nn.Linear: StackedLinear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    GhostBatchNorm2d: _batch_norm,
    nn.GroupNorm: _group_norm,
    InstanceNorm: _group_norm,
}


class StackedNetwork:
    """M networks as one, `network`: the members' parameters and buffers become views of its own.

    So an optimizer that changes a member's parameters also changes the network's; `hand_out_gradients` gives the
    members their parts of the network's gradients. Layers without tensors are the first member's, and act on all
    channels.

    Raises:
        NotStackableError: the networks are not of one kind, or have layers without a known stacked form.
    """

    def __init__(self, members: Sequence[nn.Module], generator_of: GeneratorOf, memory_format: torch.memory_format):
        self._memory_format = memory_format
        layers = [dict(m.named_modules()) for m in members]
        if any(own.keys() != layers[0].keys() for own in layers):
            raise NotStackableError("their layers differ")
        self._shared: list[tuple[Tensor, list[Tensor]]] = []  # (tensor of the network, the members' views of it)
        made: dict[str, tuple[nn.Module, list[nn.Module]]] = {}
        for name in layers[0]:
            group = [own[name] for own in layers]
            layer = _stacked(group, generator_of)
            if layer is not None:
                made[name] = layer, group
        _refuse_shared_tensors(members[0])
        # A copy of the first member, except for the layers that have a stacked form.
        self.network = copy.deepcopy(members[0], memo={id(group[0]): layer for layer, group in made.values()}).train()
        for layer, group in made.values():
            reference = next(iter(group[0].parameters()), None)
            if reference is not None:
                layer.to(reference.device, reference.dtype)
            layer.to(memory_format=memory_format)
            self._share(layer, group)

    def _share(self, layer: nn.Module, group: list[nn.Module]) -> None:
        """Copies the members' tensors into the stacked layer's, and makes them views of it."""
        for name, first in _tensors(group[0]):
            parts = [getattr(member, name) for member in group]
            whole: Any = getattr(layer, name)
            if first.ndim == 0:  # num_batches_tracked of a norm
                whole = torch.empty(len(parts), dtype=first.dtype, device=first.device)
                setattr(layer, name, whole)
            whole.requires_grad_(first.requires_grad)
            with torch.no_grad():
                views = whole.detach().view(-1) if first.ndim == 0 else whole.detach().split(len(first))
                for view, part in zip(views, parts, strict=True):
                    view.copy_(part)
                    part.data = view
            self._shared.append((whole, parts))

    def state(self) -> list[Tensor]:
        """Copies of the tensors that a forward pass changes."""
        return [whole.clone() for whole, _ in self._shared if not isinstance(whole, nn.Parameter)]

    def set_state(self, state: list[Tensor]) -> None:
        """Restores the tensors that `state` copied."""
        buffers = [whole for whole, _ in self._shared if not isinstance(whole, nn.Parameter)]
        for whole, before in zip(buffers, state, strict=True):
            whole.copy_(before)

    def logits(self, x: Sequence[Tensor]) -> Tensor:
        """The logits (N, M, K) for the members' images, M tensors (N, C, H, W)."""
        logits: Tensor = self.network(torch.cat(list(x), 1).contiguous(memory_format=self._memory_format))
        apart: Tensor = logits.unflatten(1, (len(x), -1))
        return apart

    def hand_out_gradients(self) -> None:
        """Moves the network's gradients to the members' parameters; the network then has none."""
        for whole, parts in self._shared:
            if whole.grad is not None:
                for part, gradient in zip(parts, whole.grad.split(len(parts[0])), strict=True):
                    part.grad = gradient
                whole.grad = None


def _stacked(group: list[nn.Module], generator_of: GeneratorOf) -> nn.Module | None:
    """The stacked layer for the members' layers; None for a layer without tensors of its own."""
    first, name = group[0], type(group[0]).__name__
    if isinstance(first, Dropout | nn.Dropout):
        if len({layer.p for layer in group}) > 1:
            raise NotStackableError("their dropout differs")
        return StackedDropout(group, generator_of)  # type: ignore[arg-type]
    tensors = [(n, t.shape, t.requires_grad) for n, t in _tensors(first)]
    if any([(n, t.shape, t.requires_grad) for n, t in _tensors(layer)] != tensors for layer in group):
        raise NotStackableError(f"their layers {name} differ in size")
    if has_hooks(first):
        raise NotStackableError(f"its {name} has hooks")
    if not tensors:
        return None
    if type(first) not in _MAKERS:
        raise NotStackableError(f"{name} has no known stacked form")
    made = _MAKERS[type(first)](group)
    for unused in {n for n, _ in _tensors(made)} - {n for n, _, _ in tensors}:  # such as a bias
        setattr(made, unused, None)
    return made


def _tensors(layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from layer.named_parameters(recurse=False)
    yield from layer.named_buffers(recurse=False)


def _refuse_shared_tensors(model: nn.Module) -> None:
    found = [id(t) for _, module in model.named_modules(remove_duplicate=False) for _, t in _tensors(module)]
    if len(set(found)) < len(found):
        raise NotStackableError("its layers share tensors")


# ---- check that a model can be stacked


def check_stackable(members: Sequence[nn.Module], in_shape: Sequence[int], memory_format: torch.memory_format) -> None:
    """Refuses networks whose stack does not compute the same as each of them alone.

    A network's own code may mix channels, which in a stack are those of all members. The check runs in training mode,
    in float64, on three images.

    Raises:
        NotStackableError: the results differ, or the networks can't be stacked at all.
    """
    device = next((p.device for p in members[0].parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, *in_shape, generator=generator, dtype=torch.float64) for _ in members]
    images = [x.to(device).contiguous(memory_format=memory_format) for x in images]
    before = generators()
    try:
        alone, copies = ([copy.deepcopy(m).double().train() for m in members] for _ in range(2))
        for i, pair in enumerate(zip(alone, copies, strict=True)):
            for model in pair:
                seed_dropout(model, np.random.default_rng(i))
        with torch.no_grad():
            apart, states = [], []
            for i, (model, x) in enumerate(zip(alone, images, strict=True)):
                torch.manual_seed(i)
                states.append(generators())
                apart.append(model(x))
            together = StackedNetwork(copies, in_turn(states), memory_format).logits(images)
        found = [together.unbind(1), *zip(*(m.buffers() for m in copies), strict=True)]
        expected = [apart, *zip(*(m.buffers() for m in alone), strict=True)]
        torch.testing.assert_close(found, [tuple(e) for e in expected], rtol=1e-7, atol=1e-9)
    except NotStackableError:
        raise
    except AssertionError:
        raise NotStackableError("its own code computes something different with more channels") from None
    except Exception as error:  # a model's own code may raise anything
        raise NotStackableError(f"it fails with more channels: {' '.join(str(error).split()):.120}") from None
    finally:
        set_generators(before)


def in_turn(states: list[Generators]) -> GeneratorOf:
    """Context managers that switch torch's generators to a member's state, and save it at the end for the next time."""

    @contextmanager
    def generator_of(i: int) -> Iterator[None]:
        before = generators()
        set_generators(states[i])
        try:
            yield
        finally:
            states[i] = generators()
            set_generators(before)

    return generator_of
