"""The networks: the exercises' squeeze-expand CNN, a perceptron and a small residual net; and tables of their layers.

A model is a callable `(in_shape, n_classes, norm, **arguments) -> nn.Module`. `in_shape` is (C, H, W), and `norm` maps
a number of channels to a norm layer. The module maps images (N, C, H, W) to logits (N, n_classes).
"""

import math
import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig
from reg_sweep.config.targets import locate, own_code
from reg_sweep.runs.record import LayerFacts
from reg_sweep.training.dropout import Dropout, memory_format_of
from reg_sweep.training.norms import InstanceNorm, make_norm

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """conv 3x3 (no padding, no bias) -> ReLU -> norm -> dropout: (N, C_in, H, W) -> (N, C_out, H - 2, W - 2)."""

    def __init__(self, c_in: int, c_out: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, bias=False)
        self.norm = norm(c_out)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Applies the block to gain * x."""
        x = _convolve(self.conv, x, gain)
        if isinstance(self.norm, nn.Identity):
            return self.dropout.after_relu(x)
        normed = self.norm(F.relu(x, inplace=True))
        # Instance norm loses channels_last. Masks depend on the memory order, so it is restored to give every norm the
        # same masks.
        y: Tensor = self.dropout(normed.contiguous(memory_format=memory_format_of(x)))
        return y


def _convolve(conv: nn.Conv2d, x: Tensor, gain: float) -> Tensor:
    """conv(gain * x). Scaling the few weights instead of the many activations saves a pass over memory."""
    if gain == 1.0:
        y: Tensor = conv(x)
        return y
    return F.conv2d(x, conv.weight * gain, conv.bias, conv.stride, conv.padding, groups=conv.groups)


class SqueezeExpand(nn.Module):
    """The exercises' squeeze-expand CNN: 9,680 parameters with batch norm, 16 channels and 28x28 grey images.

    Five blocks (`Block`), a 2x2 max pool after the second, a global average pool (6x6 for 28x28) after the fifth, and a
    1x1 convolution to the classes. Side lengths 28 -> 26 -> 24 -> 12 -> 10 -> 8 -> 6 -> 1; receptive fields 3, 5, 6,
    10, 14, 18, 28.

    Raises:
        ConfigError: the images are smaller than 18x18, which leaves nothing after the fifth block.
    """

    channels_last: ClassVar[bool] = True
    sequential: ClassVar[bool] = True

    def __init__(
        self, in_shape: tuple[int, int, int], n_classes: int, norm: Norm, channels: int = 16, dropout: float = 0.05
    ) -> None:
        super().__init__()
        c_in, h, w = in_shape
        if min(h, w) < 18:
            raise ConfigError(
                f"images for the squeeze-expand CNN must be at least 18x18 pixels, got {h}x{w}: choose model=mlp"
            )
        widths = [c_in, *[channels] * 5]
        self.blocks = nn.ModuleList(Block(widths[i], widths[i + 1], norm, dropout) for i in range(5))
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Conv2d(channels, n_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gain = 1.0
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x, gain = block(x, gain), block.dropout.gain(x)
            if i == 1:
                x = self.pool(x)
        return _convolve(self.classify, self.average(x), gain).flatten(1)


class Mlp(nn.Module):
    """A perceptron: two hidden layers of linear -> ReLU -> norm -> dropout, then a linear one to the classes.

    Norms treat each hidden unit as a channel with one position.

    Raises:
        ConfigError: norm=in, or norm=gn with as many groups as units: each group would hold a single value.
    """

    sequential: ClassVar[bool] = True

    def __init__(
        self, in_shape: tuple[int, int, int], n_classes: int, norm: Norm, hidden: int = 128, dropout: float = 0.05
    ) -> None:
        super().__init__()
        widths = [int(np.prod(in_shape)), hidden, hidden]
        self.linears = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(2))
        self.norms = nn.ModuleList(norm(hidden) for _ in range(2))
        if isinstance(self.norms[0], InstanceNorm):
            raise ConfigError(
                "norm=in must not be used with model=mlp, which has one position per channel: choose norm=ln"
            )
        if isinstance(self.norms[0], nn.GroupNorm) and self.norms[0].num_groups == hidden:
            raise ConfigError(
                f"model.hidden must be above the number of normalized groups ({hidden}), because a group of one value "
                f"is always normalized to zero, got {hidden}: raise model.hidden"
            )
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = self.dropout(norm(F.relu(linear(x))[:, :, None, None])[:, :, 0, 0])
        logits: Tensor = self.classify(x)
        return logits


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(dropout(relu(norm(conv(x))))))), both convolutions 3x3.

    (N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounded up. The shortcut is the identity, or a 1x1
    convolution with a norm where the shape changes.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, norm: Norm, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.norm1 = norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.norm2 = norm(c_out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and c_in == c_out
            else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm(c_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.relu(self.norm1(self.conv1(x))))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-20 for small images, 0.27 M parameters: three stages of three blocks, 16, 32 and 64 channels.

    Source: He, Zhang, Ren, Sun 2015, arXiv 1512.03385, section 4.2; with 1x1 convolutions as shortcuts between stages.
    """

    channels_last: ClassVar[bool] = True
    sequential: ClassVar[bool] = True

    def __init__(
        self, in_shape: tuple[int, int, int], n_classes: int, norm: Norm, channels: int = 16, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_shape[0], channels, 3, padding=1, bias=False)
        self.norm = norm(channels)
        widths = [channels, channels, 2 * channels, 4 * channels]
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(
                    widths[stage] if i == 0 else widths[stage + 1],
                    widths[stage + 1],
                    2 if i == 0 and stage > 0 else 1,
                    norm,
                    dropout,
                )
                for stage in range(3)
                for i in range(3)
            )
        )
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(widths[3], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        logits: Tensor = self.classify(self.average(x).flatten(1))
        return logits


def make_model(
    spec: dict[str, Any], norm: NormConfig, in_shape: tuple[int, int, int], n_classes: int, seed: int
) -> nn.Module:
    """Makes the model that `spec` names, with initial weights that depend only on `seed`.

    Norm layers draw nothing, so arms that differ only in their norm start from the same weights.

    Raises:
        ConfigError: the model can't be imported or built from these arguments, is not a module, or does not map images
            of `in_shape` to `n_classes` logits.
    """
    arguments = {k: v for k, v in spec.items() if k != "_target_"}
    make = locate("model", spec)
    if spec["_target_"].startswith("reg_sweep."):
        _refuse_what_no_memory_holds(
            lambda: make(in_shape=in_shape, n_classes=n_classes, norm=make_norm(norm), **arguments)
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with own_code("model", "take (in_shape, n_classes, norm) and the arguments of its config", spec["_target_"]):
            model = make(in_shape=in_shape, n_classes=n_classes, norm=make_norm(norm), **arguments)
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model must be a torch.nn.Module, got {type(model).__name__} from {spec['_target_']!r}")
        check_forward(model, spec["_target_"], in_shape, n_classes)  # lazy layers get their weights here
    return model


def _refuse_what_no_memory_holds(make: Callable[[], nn.Module]) -> None:
    """Refuses a model that is too large to train in this machine's memory, before allocating any of it.

    A step needs three numbers per weight: the weight, its gradient, its momentum.
    """
    with torch.device("meta"):  # only shapes
        try:
            n = sum(p.numel() for p in make().parameters())
        except TypeError:  # wrong arguments: reported when the model is really made
            return
    has_sysconf = hasattr(os, "sysconf")  # not on Windows
    here = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if has_sysconf else math.inf
    if 3 * 4 * n > here:
        raise ConfigError(
            f"model must fit this machine's memory ({here / 1e9:.0f} GB), got {n:,} weights: lower model.channels or "
            "model.hidden"
        )


def check_forward(model: nn.Module, name: str, in_shape: tuple[int, int, int], n_classes: int) -> None:
    """Refuses a model that does not map two images to their logits."""
    with own_code("model", f"take images of shape {in_shape}", name), torch.no_grad():
        logits = model.eval()(torch.zeros(2, *in_shape))
    if not isinstance(logits, Tensor) or logits.shape != (2, n_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(f"model must map images (2, C, H, W) to logits (2, {n_classes}), got {found} from {name!r}")
    model.train()


def layers(model: nn.Module, in_shape: tuple[int, int, int]) -> list[LayerFacts]:
    """The table of a model's layers, in the order in which they are called on an image of `in_shape`.

    The receptive field grows by (kernel - 1) times the product of the previous strides. It is given only for models
    that declare their layers to follow one another, apart from shortcuts (`sequential = True`).
    """
    rows: list[LayerFacts] = []
    field, jump = 1, 1
    side = max(in_shape[1:])

    def grow(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal field, jump
        if "shortcut" not in name:
            if isinstance(module, nn.Linear):
                field = side
            elif isinstance(module, nn.AdaptiveAvgPool2d):
                field += (max(inputs[0].shape[2:]) - 1) * jump
            elif isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                kernel, stride = _side(module.kernel_size), _side(module.stride)
                field, jump = field + (kernel - 1) * jump, jump * stride
        rows.append(
            {
                "name": f"{name} {type(module).__name__}",
                "output": list(output.shape[1:]),
                "n_parameters": sum(p.numel() for p in module.parameters()),
                "receptive_field": min(field, side) if getattr(model, "sequential", False) else None,
            }
        )

    def watch(name: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda m, inputs, output: grow(name, m, inputs, output))

    leaves = [(n, m) for n, m in model.named_modules() if not any(m.children()) and not _passes_through(m)]
    hooks = [watch(name, module) for name, module in leaves]
    was_training = model.training
    try:
        with torch.no_grad():
            device = next((p.device for p in model.parameters()), torch.device("cpu"))
            model.eval()(torch.zeros(2, *in_shape, device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return rows


def _passes_through(module: nn.Module) -> bool:
    return isinstance(module, Dropout | nn.Dropout | nn.Identity | nn.ReLU)


def _side(size: Any) -> int:
    return max(size) if isinstance(size, tuple) else int(size)


def layer_table(rows: list[LayerFacts]) -> str:
    """Formats the table of layers as text."""
    heading = ("layer", "output", "parameters", "receptive field")
    cells = [
        (
            row["name"],
            "x".join(map(str, row["output"])),
            f"{row['n_parameters']:,}",
            "" if row["receptive_field"] is None else str(row["receptive_field"]),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (heading, *cells)) for i in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
        for a, b, c, d in (heading, *cells)
    )
