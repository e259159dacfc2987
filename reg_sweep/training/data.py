"""A data set as uint8 tensors in memory: its split into train, val and test, its mean and standard deviation."""

import hashlib
import logging
import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import DataConfig
from reg_sweep.config.targets import locate, own_code
from reg_sweep.images import N_TRAIN, Images, Integers, Pixels, check_images, check_sizes, check_split, stratified
from reg_sweep.runs.record import DataFacts
from reg_sweep.training.rng import kept_generators, seed_generators

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as uint8 and labels (N,) as int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """Moves the split to a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """A data set, split and ready for `fit`.

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
    class_names: tuple[str, ...] | None = None

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        c, h, w = self.train.images.shape[1:]
        return c, h, w

    def facts(self) -> DataFacts:
        """The facts that a record keeps about the data."""
        facts: DataFacts = {
            "name": self.name,
            "source": self.source,
            "fingerprint": self.fingerprint,
            "n_train": len(self.train),
            "n_val": len(self.val),
            "n_test": len(self.test),
            "n_classes": self.n_classes,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "in_shape": list(self.in_shape),
        }
        return facts if self.class_names is None else {**facts, "class_names": list(self.class_names)}


# The last source's images and the last config's split: a second run in this process loads and splits nothing again.
_loaded: dict[str, Images] = {}
_prepared: dict[str, Data] = {}


def load_data(config: DataConfig) -> Data:
    """Loads and splits a data set, and computes its mean and std. The last source's images stay in memory.

    The val images are drawn first, by `split_seed`, not by the run's seed; with `val_size=None` they are the source's
    own. Then `train_size` of the remaining images are drawn. Then a share `label_noise` of the train labels are
    replaced, each by another class at random. If the offline sample replaces MNIST, `val_size` and `train_size` shrink
    with it.

    Raises:
        ConfigError: the source can't be imported; the split needs more images than there are; or `val_size` is None and
            the source has no val images.
        DataError: the source could not be read, or returned something other than uint8 images with their labels.
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
        val_size = (
            None if val_size is None else math.ceil(val_size * n / asked_n)
        )  # rounded up, so that some val images remain
        train_size = None if train_size is None else min(train_size, n - (val_size or 0))
    check_sizes(val_size, train_size, n)
    held_out, train = stratified(labels, val_size or 0, np.random.default_rng(config.split_seed))
    val = _own_val(images) if val_size is None else _split(images.train_images[held_out], labels[held_out])
    if val_size is not None and images.val_labels is not None:
        log.info(
            "the source's own %d val images are not used: set data.val_size=null to use them", len(images.val_labels)
        )
    if train_size is not None:
        subset, _ = stratified(labels[train], train_size, np.random.default_rng([config.split_seed, 1]))
        train = train[subset]
    n_classes = images.n_classes
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
        val=val,
        test=_split(images.test_images, images.test_labels),
        mean=torch.tensor(mean if config.mean is None else config.mean, dtype=torch.float32),
        std=torch.tensor(std if config.std is None else config.std, dtype=torch.float32),
        n_classes=n_classes,
        test_index=images.test_index,
        class_names=images.class_names,
    )


def _own_val(images: Images) -> Split:
    if images.val_images is None or images.val_labels is None:
        raise ConfigError(
            "data.val_size must be a number for a source without val images of its own, got null: "
            "choose how many of the train images to hold out"
        )
    return _split(images.val_images, images.val_labels)


def _load_images(config: DataConfig) -> Images:
    key = repr((sorted(config.source.items()), os.path.abspath(config.root)))
    if key not in _loaded:
        arguments = {k: v for k, v in config.source.items() if k != "_target_"}
        if config.source["_target_"] == "reg_sweep.torchvision_images":
            arguments["offline_sample"] = config.offline_sample
        make = locate("data.source", config.source)
        name = config.source["_target_"]
        with own_code("data.source", "take a root and the arguments of its config", name), kept_generators():
            seed_generators(0)  # so that a source that shuffles returns the same images each time
            images = make(config.root, **arguments)
        check_images(images)
        _loaded.clear()  # only one data set at a time: they are large
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
        # A constant channel has nothing to scale: std 1.
        stds.append(math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum())) or 1.0)
    return means, stds


def _split(pixels: Pixels, labels: Integers) -> Split:
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())  # a file's array may be read-only
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _fingerprint(images: Images) -> str:
    hasher = hashlib.blake2b(digest_size=8)
    arrays: list[Pixels | Integers] = [images.train_images, images.train_labels, images.test_images, images.test_labels]
    if images.val_images is not None and images.val_labels is not None:
        arrays += [images.val_images, images.val_labels]
    for array in arrays:
        hasher.update(repr(array.shape).encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()
