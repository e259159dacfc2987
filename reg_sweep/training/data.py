"""Images as resident uint8 tensors: where they come from, how they are split, how a batch is augmented."""

import hashlib
import logging
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reg_sweep.config import ConfigError, DataConfig, locate
from reg_sweep.images import N_OFFLINE, N_TRAIN, OFFLINE_N_TEST, Images, Integers, Pixels, check_images, stratified

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as uint8 and labels (N,) as int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A data set, split and ready: what `fit` takes.

    `mean` and `std` (C,) are those of the train images' pixels scaled to [0, 1]. `fingerprint` is a hash of the
    source's images and labels, before any split. `val` may be empty.
    """

    name: str
    source: str
    fingerprint: str
    train: Split
    val: Split
    test: Split
    mean: Tensor
    std: Tensor
    n_classes: int
    test_index: Integers | None = None

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        c, h, w = self.train.images.shape[1:]
        return c, h, w

    def facts(self) -> dict[str, Any]:
        """What a record keeps of the data."""
        return {
            "name": self.name,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "n_train": len(self.train),
            "n_val": len(self.val),
            "n_test": len(self.test),
            "n_classes": self.n_classes,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }


def random_stream(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """A generator of its own for each seed, purpose and epoch.

    Every arm of one seed draws the same numbers for the same purpose, whatever else it draws, so that arms pair; and
    an epoch needs no state of the epochs before it, so that a resumed run draws what it would have drawn.
    """
    return np.random.Generator(np.random.SFC64([seed, zlib.crc32(purpose.encode()), epoch]))


# ---- splits


def check_split(config: DataConfig) -> None:
    """Refuses a split that can't be, for the data sets whose size is known beforehand.

    Raises:
        ConfigError: `val_size` or `train_size` asks for more images than there are.
    """
    n = N_TRAIN.get(config.source.get("dataset", ""))
    if config.source["_target_"] == "reg_sweep.mnist_sample":
        n = N_OFFLINE - OFFLINE_N_TEST
    if n is not None:
        _check_sizes(config.val_size, config.train_size, n)


def _check_sizes(val_size: int, train_size: int | None, n: int) -> None:
    if val_size >= n:
        raise ConfigError(
            f"data.val_size must be below the {n} train images it is taken from, got {val_size}: lower data.val_size"
        )
    if train_size is not None and train_size > n - val_size:
        raise ConfigError(
            f"data.train_size must be at most {n - val_size} (the train images that data.val_size={val_size} leaves), "
            f"got {train_size}: lower one of the two"
        )


# By source and by config, the last of each: a second run in this process loads and splits nothing again.
_loaded: dict[str, Images] = {}
_prepared: dict[str, Data] = {}


def load_data(config: DataConfig) -> Data:
    """Loads, splits and measures a data set. The images of the last source stay resident for the next run.

    The val images are drawn first, by `split_seed`, whatever the run's seed; then `train_size` of the others; then
    `label_noise` of the train labels are replaced, each by another class at random. Where the offline sample stands in
    for MNIST, `val_size` and `train_size` shrink with it.

    Raises:
        ConfigError: the source can't be imported, or the split asks for more images than there are.
        DataError: the source returned something else than uint8 images with their labels, or could not be read.
    """
    check_split(config)
    key = repr((config, os.path.abspath(config.root)))
    if key not in _prepared:
        _prepared.clear()
        _prepared[key] = _prepare(config, _load_images(config))
    return _prepared[key]


def _prepare(config: DataConfig, images: Images) -> Data:
    labels, n = images.train_labels, len(images.train_labels)
    val_size, train_size = config.val_size, config.train_size
    asked_n = N_TRAIN.get(config.source.get("dataset", ""), n)
    if images.source == "offline sample" and asked_n != n:
        val_size = math.ceil(val_size * n / asked_n)  # never to nothing, where val images were asked for
        train_size = None if train_size is None else min(train_size, n - val_size)
    _check_sizes(val_size, train_size, n)
    val, train = stratified(labels, val_size, np.random.default_rng(config.split_seed))
    if train_size is not None:
        subset, _ = stratified(labels[train], train_size, np.random.default_rng([config.split_seed, 1]))
        train = train[subset]
    n_classes = int(max(labels.max(), images.test_labels.max())) + 1
    if n_classes == 1 and config.label_noise > 0:
        raise ConfigError(f"data.label_noise must be 0 with a single class, got {config.label_noise}")
    train_labels = _noisy(labels[train], n_classes, config.label_noise, np.random.default_rng([config.split_seed, 2]))
    pixels = images.train_images[train]
    mean, std = _moments(pixels)
    for what, given in (("mean", config.mean), ("std", config.std)):
        if given is not None and len(given) != len(mean):
            raise ConfigError(
                f"data.{what} must hold one number for each of the images' channels ({len(mean)}), got {given}"
            )
    return Data(
        name=config.name,
        source=images.source,
        fingerprint=_fingerprint(images),
        train=_split(pixels, train_labels),
        val=_split(images.train_images[val], labels[val]),
        test=_split(images.test_images, images.test_labels),
        mean=torch.tensor(mean if config.mean is None else config.mean, dtype=torch.float32),
        std=torch.tensor(std if config.std is None else config.std, dtype=torch.float32),
        n_classes=n_classes,
        test_index=images.test_index,
    )


def _load_images(config: DataConfig) -> Images:
    key = repr((sorted(config.source.items()), os.path.abspath(config.root)))
    if key not in _loaded:
        arguments = {k: v for k, v in config.source.items() if k != "_target_"}
        if config.source["_target_"] == "reg_sweep.torchvision_images":
            arguments["offline_sample"] = config.offline_sample
        images = locate("data.source", config.source)(config.root, **arguments)
        check_images(images)
        _loaded.clear()  # one data set at a time: they are large
        _loaded[key] = images
    if _loaded[key].source == "offline sample" and not config.offline_sample and "dataset" in config.source:
        del _loaded[key]
        return _load_images(config)
    return _loaded[key]


def _noisy(labels: Integers, n_classes: int, share: float, generator: np.random.Generator) -> Integers:
    labels = labels.copy()
    wrong = generator.permutation(len(labels))[: round(share * len(labels))]
    labels[wrong] = (labels[wrong] + generator.integers(1, n_classes, len(wrong))) % n_classes
    return labels


def _moments(pixels: Pixels) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, pixels scaled to [0, 1], from exact counts of the 256 values."""
    channels = pixels.reshape(len(pixels), -1, pixels.shape[3] if pixels.ndim == 4 else 1)
    means, stds = [], []
    for c in range(channels.shape[2]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(channels), 1_000):  # bincount works on 64-bit copies
            counts += np.bincount(channels[start : start + 1_000, :, c].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = float(counts @ values / counts.sum())
        means.append(mean)
        # A channel of one colour has nothing to scale.
        stds.append(math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum())) or 1.0)
    return means, stds


def _split(pixels: Pixels, labels: Integers) -> Split:
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())  # what a file gave may be read-only
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _fingerprint(images: Images) -> str:
    hasher = hashlib.blake2b(digest_size=8)
    for array in (images.train_images, images.train_labels, images.test_images, images.test_labels):
        hasher.update(repr(array.shape).encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


# ---- batches

CHUNK = 2_048  # images augmented at a time: long enough to pay for each call, short enough for the cache


def batches(split: Split, mean: Tensor, std: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order, normalized: x (B, C, H, W) float32 and labels (B,). The last batch may be smaller."""
    scale, shift = _affine(mean, std)
    for start in range(0, len(split), size):
        x = split.images[start : start + size].float()
        yield x.mul_(scale).sub_(shift), split.labels[start : start + size]


def _affine(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """(pixel / 255 - mean) / std as pixel * scale - shift, for (B, C, H, W)."""
    return 1 / (255 * std[:, None, None]), (mean / std)[:, None, None]


class Augmentation:
    """Brightness and contrast jitter, rotation, and normalization, drawn for each image.

    As torchvision's `ColorJitter(brightness, contrast)` (in either order, at random, each step rounded down to whole
    pixel values in [0, 255]) followed by `RandomRotation` (nearest neighbour, about the centre, `fill` outside), both
    on PIL images: the factors are uniform in 1 +- brightness and 1 +- contrast, the angle is uniform on a grid of
    hundredths of a degree (coarser beyond +-10 degrees: 2,001 angles at most). The same draws give the same pixels.

    A rotation is one gather: for every angle of the grid the source of each output pixel is tabled once, by rotating
    an image of indices.
    """

    def __init__(self, config: DataConfig, data: Data, device: torch.device) -> None:
        c, h, w = data.in_shape
        self._config, self._shape = config, (c, h, w)
        self._scale, self._shift = (t.to(device) for t in _affine(data.mean, data.std))
        self._luma = _LUMA.to(device) if c == 3 else None
        self._table = rotation_table(h, w, config.rotation).to(device) if config.rotation > 0 else None

    def batches(
        self, split: Split, size: int, order: np.random.Generator, draws: np.random.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: each image of `split` once, in random order, augmented.

        The last batch may be smaller; a last image alone joins the batch before it, since batch norms need two (unless
        every batch is one image).
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
            x, y = self(split.images[chosen], draws), split.labels[chosen]
            sizes = [high - low for low, high in pairwise(chunk)]
            yield from zip(x.split(sizes), y.split(sizes), strict=True)

    def __call__(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """(B, C, H, W) uint8 -> (B, C, H, W) float32, augmented and normalized."""
        b, device, config = len(images), images.device, self._config
        # Always the same draws, used or not: an arm without contrast sees the same angles as one with it.
        uniform = torch.from_numpy(draws.random((4, b), dtype=np.float32)).to(device)
        x = images.float()
        if config.brightness > 0 or config.contrast > 0:
            brightness = 1 + config.brightness * (2 * uniform[0] - 1)
            contrast = 1 + config.contrast * (2 * uniform[1] - 1)
            x = self.jitter(x, brightness, contrast, contrast_first=uniform[2] < 0.5)
        if self._table is not None:
            angle = (uniform[3] * len(self._table)).long().clamp_(max=len(self._table) - 1)
            x = self.rotate(x, angle)
        return x.mul_(self._scale).sub_(self._shift)

    def jitter(self, x: Tensor, brightness: Tensor, contrast: Tensor, contrast_first: Tensor) -> Tensor:
        """x (B, C, H, W) holding whole numbers in [0, 255]; the factors and the order (B,), an image each.

        brightness: v -> floor(clip(b v)). contrast: v -> floor(clip(m + c (v - m))), m the image's mean grey, rounded.
        """
        first = torch.where(contrast_first, contrast, brightness)[:, None, None, None]
        second = torch.where(contrast_first, brightness, contrast)[:, None, None, None]
        grey = torch.where(contrast_first, self._mean_grey(x), 0.0)[:, None, None, None]
        # grey + f (v - grey) with grey 0 is f v: one expression serves both steps. It is rounded in PIL's order: any
        # other gives a pixel one less or more where the result is close to a whole number.
        x = x.sub_(grey).mul_(first).add_(grey).clamp_(0, 255).floor_()
        grey = torch.where(contrast_first, 0.0, self._mean_grey(x))[:, None, None, None]
        return x.sub_(grey).mul_(second).add_(grey).clamp_(0, 255).floor_()

    def _mean_grey(self, x: Tensor) -> Tensor:
        """The mean of each image's grey values, rounded to a whole number: (B,)."""
        grey = x.mean(1) if self._luma is None else (torch.einsum("bchw,c->bhw", x, self._luma) + 0.5).floor_()
        return (grey.mean((1, 2)) + 0.5).floor_()

    def rotate(self, x: Tensor, angle: Tensor) -> Tensor:
        """x (B, C, H, W) rotated by the angles whose places in the table are `angle` (B,)."""
        b, (c, h, w) = len(x), self._shape
        assert self._table is not None
        source = self._table[angle][:, None].expand(b, c, h * w)
        outside = torch.full((b, c, 1), float(self._config.fill), device=x.device)
        return torch.cat([x.reshape(b, c, h * w), outside], 2).gather(2, source).view(b, c, h, w)


_LUMA = torch.tensor([19595.0, 38470.0, 7471.0]) / 65536  # ITU-R 601, in PIL's fixed point


def rotation_table(h: int, w: int, rotation: float) -> Tensor:
    """For each angle of the grid, where each output pixel comes from: (n_angles, H W) int64; H W means outside."""
    from PIL import Image

    n_angles = 2 * min(round(rotation * 100), 1_000) + 1
    indices = Image.fromarray(np.arange(h * w, dtype=np.int32).reshape(h, w))
    rotated = [
        np.asarray(indices.rotate(angle, fillcolor=h * w)).ravel()
        for angle in np.linspace(-rotation, rotation, n_angles)
    ]
    return torch.from_numpy(np.stack(rotated)).long()
