"""Batches of a split: in order and normalized, or shuffled and augmented image by image."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import DataConfig
from reg_sweep.config.targets import locate, own_code
from reg_sweep.training.data import Data, Split
from reg_sweep.training.rng import kept_generators, seed_generators

CHUNK = 2_048  # images augmented at a time: large enough to amortize each call, small enough for the cache


class Part(NamedTuple):
    """Images `start` to `stop` of a batch of `n`, which make up the share `share` of its mean loss."""

    start: int
    stop: int
    n: int
    share: float


def whole(n: int) -> Part:
    """All of a batch of `n` images."""
    return Part(0, n, n, 1.0)


def batches(split: Split, mean: Tensor, std: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order, normalized: x (B, C, H, W) float32 and labels (B,). The last batch may be smaller."""
    scale, shift = affine(mean, std)
    for start in range(0, len(split), size):
        x = split.images[start : start + size].float()
        yield x.mul_(scale).sub_(shift), split.labels[start : start + size]


def n_train_batches(n: int, size: int) -> int:
    """Number of batches in an epoch. A single last image joins the batch before it."""
    return max(1, n // size + (n % size > 1))


def affine(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and shift, for (B, C, H, W), with which (pixel / 255 - mean) / std is pixel * scale - shift."""
    return 1 / (255 * std[:, None, None]), (mean / std)[:, None, None]


class Augmentation:
    """Custom transforms, crop, flip, jitter, rotation and normalization, in this order, drawn for each image.

    A crop is torchvision's `RandomCrop(side, padding=crop, fill=fill)`, a flip its `RandomHorizontalFlip(flip)`. Jitter
    and rotation are its `ColorJitter(brightness, contrast)` (in either order, at random, each step rounded down to
    whole pixel values in [0, 255]) and `RandomRotation` (nearest neighbour, about the centre, `fill` outside), both on
    PIL images: the factors are uniform in 1 +- brightness and 1 +- contrast, the angle is uniform on a grid of
    hundredths of a degree (coarser beyond +-10 degrees: 2,001 angles at most). The same draws give the same pixels.

    Custom transforms get one image at a time, as a uint8 tensor (C, H, W) on the CPU. The global generators of torch,
    numpy and Python are seeded for each image. A transform returns pixels of the same shape, uint8 or in [0, 1].

    A rotation is one gather. The source of each output pixel is tabulated once for every angle of the grid, by rotating
    an image of indices.

    Raises:
        ConfigError: a transform can't be made, or does not return an image; the crop is wider than the images.
    """

    def __init__(self, config: DataConfig, data: Data, device: torch.device) -> None:
        c, h, w = data.in_shape
        self._config, self._shape = config, (c, h, w)
        self._scale, self._shift = (t.to(device) for t in affine(data.mean, data.std))
        self._luma = _LUMA.to(device) if c == 3 else None
        self._table = rotation_table(h, w, config.rotation).to(device) if config.rotation > 0 else None
        if config.crop > min(h, w):
            raise ConfigError(f"data.crop must be at most the images' side ({min(h, w)}), got {config.crop}")
        with kept_generators():
            seed_generators(0)  # a transform that draws in its constructor draws the same in all arms
            self._transforms = own_transforms(config.transforms)
        if self._transforms:
            self._transformed(data.train.images[:1], torch.zeros(1, dtype=torch.long))

    def batches(
        self,
        split: Split,
        size: int,
        order: np.random.Generator,
        draws: np.random.Generator,
        part_of: Callable[[int], Part] = whole,
        moves: np.random.Generator | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Part]]:
        """One epoch: each image of `split` once, in random order, augmented.

        The last batch may be smaller. A single last image joins the batch before it, because batch norms need two
        images (unless `size` is 1). `part_of` maps a batch's size to the part of it to make; a part uses the same draws
        as the whole batch. Crop, flip and custom transforms draw from `moves`.
        """
        n, device = len(split), split.images.device
        permutation = torch.from_numpy(order.permutation(n)).to(device)
        edges = [*range(0, n, size), n]
        if size > 1 and len(edges) > 2 and edges[-1] - edges[-2] == 1:
            del edges[-2]
        per_chunk = max(1, CHUNK // size)
        for i in range(0, len(edges) - 1, per_chunk):
            chunk = edges[i : i + per_chunk + 1]
            chosen = permutation[chunk[0] : chunk[-1]]
            uniform = _uniform(len(chosen), draws).to(device)
            moved = self._moves(len(chosen), moves)
            parts = [part_of(high - low) for low, high in pairwise(chunk)]
            if any(part.stop - part.start < part.n for part in parts):
                places = zip((low - chunk[0] for low in chunk), parts, strict=False)
                own = torch.cat([torch.arange(low + part.start, low + part.stop) for low, part in places]).to(device)
                chosen, uniform = chosen[own], uniform[:, own]
                moved = None if moved is None else moved[:, own.cpu()]
            x, y = self.augmented(split.images[chosen], uniform, moved), split.labels[chosen]
            sizes = [part.stop - part.start for part in parts]
            yield from zip(torch.split(x, sizes), torch.split(y, sizes), parts, strict=True)

    def __call__(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """(B, C, H, W) uint8 -> (B, C, H, W) float32, augmented and normalized."""
        return self.augmented(images, _uniform(len(images), draws).to(images.device))

    def _moves(self, n: int, generator: np.random.Generator | None) -> Tensor | None:
        """Draws integers (4, n) for `n` images: vertical crop, horizontal crop, flip, and the transforms' seed."""
        config = self._config
        if not (config.crop or config.flip or config.transforms):
            return None
        assert generator is not None
        return torch.from_numpy(generator.integers(0, 2**62, (4, n)))

    def augmented(self, images: Tensor, uniform: Tensor, moves: Tensor | None = None) -> Tensor:
        """Augments images with given draws: `uniform` (4, B), and `moves` (4, B) for crop, flip and transforms."""
        config = self._config
        x = images.float()
        if moves is not None:
            x = self._transformed(images, moves[3]) if self._transforms else x
            x = self._crop(x, moves[:2].to(x.device))
            if config.flip > 0:
                flips = moves[2].double() / 2**62 < config.flip
                x = torch.where(flips.to(x.device)[:, None, None, None], x.flip(3), x)
        if config.brightness > 0 or config.contrast > 0:
            brightness = 1 + config.brightness * (2 * uniform[0] - 1)
            contrast = 1 + config.contrast * (2 * uniform[1] - 1)
            x = self.jitter(x, brightness, contrast, contrast_first=uniform[2] < 0.5)
        if self._table is not None:
            angle = (uniform[3] * len(self._table)).long().clamp_(max=len(self._table) - 1)
            x = self.rotate(x, angle)
        return x.mul_(self._scale).sub_(self._shift)

    def _transformed(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Applies the custom transforms to each image, with the generators seeded for it; returns pixels as floats."""
        made = []
        with kept_generators(), torch.no_grad():
            for image, seed in zip(images.cpu(), seeds.tolist(), strict=True):
                seed_generators(seed)
                made.append(_as_pixels(self._transforms, image))
        return torch.stack(made).to(images.device)

    def _crop(self, x: Tensor, draws: Tensor) -> Tensor:
        """Pads x (B, C, H, W) by `crop` on each side, and cuts it back to H x W at random places."""
        p, (b, c, h, w) = self._config.crop, x.shape
        if p == 0:
            return x
        top, left = draws % (2 * p + 1)
        rows = top[:, None] + torch.arange(h, device=x.device)  # (B, H)
        columns = left[:, None] + torch.arange(w, device=x.device)  # (B, W)
        source = (rows[:, :, None] * (w + 2 * p) + columns[:, None, :]).view(b, 1, h * w).expand(b, c, h * w)
        padded = F.pad(x, (p, p, p, p), value=float(self._config.fill))
        return padded.reshape(b, c, -1).gather(2, source).view(b, c, h, w)

    def jitter(self, x: Tensor, brightness: Tensor, contrast: Tensor, contrast_first: Tensor) -> Tensor:
        """Changes brightness and contrast of x (B, C, H, W), whole numbers in [0, 255].

        The factors and `contrast_first` are (B,), one entry per image.
        brightness: v -> floor(clip(b v)). contrast: v -> floor(clip(m + c (v - m))), m the image's mean grey, rounded.
        """
        first = torch.where(contrast_first, contrast, brightness)[:, None, None, None]
        second = torch.where(contrast_first, brightness, contrast)[:, None, None, None]
        grey = torch.where(contrast_first, self._mean_grey(x), 0.0)[:, None, None, None]
        # With grey = 0, grey + f (v - grey) is f v, so one expression serves both steps. The order of operations is
        # PIL's: any other changes a pixel by one where the result is close to a whole number.
        x = x.sub_(grey).mul_(first).add_(grey).clamp_(0, 255).floor_()
        grey = torch.where(contrast_first, 0.0, self._mean_grey(x))[:, None, None, None]
        return x.sub_(grey).mul_(second).add_(grey).clamp_(0, 255).floor_()

    def _mean_grey(self, x: Tensor) -> Tensor:
        """The mean of each image's grey values, rounded to a whole number: (B,)."""
        grey = x.mean(1) if self._luma is None else (torch.einsum("bchw,c->bhw", x, self._luma) + 0.5).floor_()
        return (grey.mean((1, 2)) + 0.5).floor_()

    def rotate(self, x: Tensor, angle: Tensor) -> Tensor:
        """Rotates x (B, C, H, W); `angle` (B,) holds indices into the table of angles."""
        b, (c, h, w) = len(x), self._shape
        assert self._table is not None
        source = self._table[angle][:, None].expand(b, c, h * w)
        outside = torch.full((b, c, 1), float(self._config.fill), device=x.device)
        return torch.cat([x.reshape(b, c, h * w), outside], 2).gather(2, source).view(b, c, h, w)


def _uniform(n: int, draws: np.random.Generator) -> Tensor:
    """Draws (4, n) numbers from [0, 1) for the jitter and rotation of `n` images.

    All four are drawn even if some are unused, so that an arm without contrast sees the same angles as one with it.
    """
    return torch.from_numpy(draws.random((4, n), dtype=np.float32))


def own_transforms(specs: list[Any]) -> list[Callable[[Tensor], Any]]:
    """Makes the transforms that a config names. A transform may contain others, as RandomApply does.

    Raises:
        ConfigError: a transform can't be imported, or made from its arguments.
    """

    def made(value: Any) -> Any:
        if isinstance(value, list):
            return [made(inner) for inner in value]
        if not isinstance(value, dict) or "_target_" not in value:
            return value
        make = locate("data.transforms", value)
        with own_code("data.transforms", "take the arguments of their config", value["_target_"]):
            return make(**{key: made(inner) for key, inner in value.items() if key != "_target_"})

    transforms: list[Callable[[Tensor], Any]] = made(specs)
    return transforms


def _as_pixels(transforms: list[Callable[[Tensor], Any]], image: Tensor) -> Tensor:
    """Applies transforms to an image; returns its pixels, from 0 to 255."""
    made: Any = image.clone()  # a transform may write into it
    for transform in transforms:
        with own_code("data.transforms", f"take images {tuple(image.shape)} of uint8", type(transform).__name__):
            made = transform(made)
    if not isinstance(made, Tensor) or made.shape != image.shape:
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise ConfigError(f"data.transforms must return images of the same shape {tuple(image.shape)}, got {found}")
    if made.layout != torch.strided or made.device != image.device:
        raise ConfigError(
            f"data.transforms must return dense images on the CPU, got {made.layout} on {made.device.type}"
        )
    if made.dtype == torch.uint8:
        return made.float()
    if not made.is_floating_point():
        raise ConfigError(f"data.transforms must return pixels, uint8 or floats from 0 to 1, got {made.dtype}")
    low, high = float(made.min()), float(made.max())
    if not 0 <= low <= high <= 1:
        raise ConfigError(
            f"data.transforms must return pixels, uint8 or from 0 to 1, got {made.dtype} from {low:g} to {high:g}: "
            "leave out Normalize, data.mean and data.std already do it"
        )
    return made.float() * 255


_LUMA = torch.tensor([19595.0, 38470.0, 7471.0]) / 65536  # ITU-R 601, in PIL's fixed point


@lru_cache(maxsize=1)  # shared by the runs of a sweep
def rotation_table(h: int, w: int, rotation: float) -> Tensor:
    """For each angle of the grid, the source index of each output pixel: (n_angles, H W) int64; H W means outside."""
    from PIL import Image

    n_angles = 2 * min(round(rotation * 100), 1_000) + 1
    indices = Image.fromarray(np.arange(h * w, dtype=np.int32).reshape(h, w))
    rotated = [
        np.asarray(indices.rotate(angle, fillcolor=h * w)).ravel()
        for angle in np.linspace(-rotation, rotation, n_angles)
    ]
    return torch.from_numpy(np.stack(rotated)).long()
