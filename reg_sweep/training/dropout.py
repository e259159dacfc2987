"""Dropout that draws its masks as gaps between dropped elements, from a generator that the caller provides."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError


class Dropout(nn.Module):
    """Zeroes each element with probability p in training; the identity in evaluation.

    With a `generator` (set by `seed_dropout`) and on the CPU, the mask is drawn by its gaps. The distances between
    dropped elements are geometric, floor(E / -log(1 - p)) + 1 with E exponential, so only p n numbers are drawn for n
    elements, and the mask is exactly Bernoulli. (torch's bernoulli draws every element, on one thread.)
    `x` and its gradient are then overwritten. So `x` must be the output of an operation that does not save it for its
    backward pass, and the input of a single operation. Kept elements are NOT scaled: multiply the result by `gain`,
    1 / (1 - p). Before a linear operation it is cheapest to scale the weight.

    Without a generator, or on another device, it is torch's dropout, and `gain` is 1.

    Raises:
        ConfigError: p is not at least 0 and below 1.
    """

    generator: np.random.Generator | None

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {p}")
        self.p, self.generator = p, None

    def sparse(self, x: Tensor) -> bool:
        """Whether the mask for `x` is drawn by its gaps."""
        return self.training and self.p > 0 and self.generator is not None and x.device.type == "cpu"

    def gain(self, x: Tensor) -> float:
        """The factor by which the caller must multiply the kept elements."""
        return 1 / (1 - self.p) if self.sparse(x) else 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.sparse(x):
            return self._dense(x)
        dropped: Tensor = _Drop.apply(x, self._places(x))
        return dropped

    def after_relu(self, x: Tensor) -> Tensor:
        """Dropout of relu(x); `x` is overwritten. They are one operation because ReLU's backward needs its output."""
        if not self.sparse(x):
            return self._dense(F.relu(x, inplace=True))
        dropped: Tensor = _ReluDrop.apply(x, self._places(x))
        return dropped

    def _dense(self, x: Tensor) -> Tensor:
        """torch's dropout."""
        return F.dropout(x, self.p, self.training)

    def _places(self, x: Tensor) -> Tensor:
        """Draws which elements of `x` are dropped; returns their places in memory."""
        assert self.generator is not None
        return dropped_indices(x.numel(), self.p, self.generator)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def seed_dropout(model: nn.Module, generator: np.random.Generator | None) -> None:
    """Makes every `Dropout` of a model draw from `generator`."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator


def dropped_indices(n: int, p: float, generator: np.random.Generator) -> Tensor:
    """Draws each index below `n` independently with probability p; returns the drawn indices, ascending."""
    rate = -np.log1p(-p)
    expected = n * p
    pieces, last = [], -1
    while last < n:
        # Six standard deviations above the expected number, so that a second round is rare.
        k = int(expected + 6 * np.sqrt(expected) + 10)
        # Gaps are capped at n, because they would overflow for a tiny p.
        gaps = np.minimum(generator.standard_exponential(k) / rate, n).astype(np.int64)
        gaps += 1
        piece = np.cumsum(gaps) + last
        pieces.append(piece)
        last = int(piece[-1])
    indices = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return torch.from_numpy(indices[: np.searchsorted(indices, n)])


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The memory format of `x`: channels_last or contiguous."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _zero(x: Tensor, indices: Tensor) -> None:
    """Zeroes elements by their place in memory. Their order does not matter for a Bernoulli mask."""
    x.as_strided((x.numel(),), (1,)).index_fill_(0, indices, 0)


class _Drop(torch.autograd.Function):
    """Zeroes the given elements of x in place, and the same elements of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor) -> Tensor:
        ctx.indices, ctx.format = indices, memory_format_of(x)
        ctx.mark_dirty(x)
        _zero(x, indices)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous(memory_format=ctx.format)
        _zero(gradient, ctx.indices)
        return gradient, None


class _ReluDrop(torch.autograd.Function):
    """Computes relu(x) with the given elements zeroed, in place. Where the output is 0, so is the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.relu_()
        _zero(x, indices)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, y, 0), None
