"""A data set and a run that are small enough to train in a moment."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reg_sweep.config.schema import DataConfig, NormConfig, RunConfig, RuntimeConfig
from reg_sweep.images import Images
from reg_sweep.training.augmentation import Augmentation
from reg_sweep.training.data import Data, Split, load_data
from reg_sweep.training.evaluation import Evaluation, evaluate
from reg_sweep.training.fit import Fitted, fit
from reg_sweep.training.rng import generator

SIDE = 20


def tiny_images(root: str, n_train: int = 300, n_test: int = 80, n_classes: int = 10, channels: int = 0) -> Images:
    """Noisy copies of one coarse pattern per class, by default with 30 train images each. `root` is data.root."""
    rng = np.random.default_rng(7)
    shape = (SIDE, SIDE, channels) if channels else (SIDE, SIDE)
    coarse = rng.integers(30, 200, (n_classes, SIDE // 4, SIDE // 4, *shape[2:]))
    patterns = coarse.repeat(4, axis=1).repeat(4, axis=2)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(n) % n_classes
        noise = rng.integers(-25, 26, (n, *shape))
        return (patterns[labels] + noise).clip(0, 255).astype(np.uint8), labels

    return Images(*draw(n_train), *draw(n_test), source="tiny")


def tiny_data_config(**changes: Any) -> DataConfig:
    """60 of 300 images are val. Keys that are not settings of DataConfig are passed to `tiny_images`."""
    settings = DataConfig.__dataclass_fields__.keys()
    source = {"_target_": "tiny.tiny_images", **{k: v for k, v in changes.items() if k not in settings}}
    kept = {k: v for k, v in changes.items() if k in settings}
    return DataConfig(**{"name": "tiny", "source": source, "val_size": 60, **kept})


def tiny_data(**changes: Any) -> Data:
    return load_data(tiny_data_config(**changes))


def tiny_run(**changes: Any) -> RunConfig:
    """Two epochs of eight batches, on one CPU thread."""
    run: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 32,
        "data": tiny_data_config(),
        "model": {"_target_": "reg_sweep.SqueezeExpand", "channels": 8, "dropout": 0.1},
        "norm": NormConfig("bn"),
        "runtime": RuntimeConfig(device="cpu", threads=1),
    }
    return RunConfig(**{**run, **changes})


class KilledError(Exception):
    """Simulates the end of the process."""


def kill_after(epoch: int):
    """An `on_epoch` that ends the process after epoch `epoch`, when its checkpoint is on disk."""

    def on_epoch(row) -> bool:
        if row["epoch"] == epoch:
            raise KilledError
        return False

    return on_epoch


def killed_and_continued(run: RunConfig, directory: Path, *epochs: int) -> Fitted:
    """How a run ends whose process is killed after each of these epochs."""
    for epoch in epochs:
        with pytest.raises(KilledError):
            fit(run, directory=directory, progress=False, on_epoch=kill_after(epoch))
    return fit(run, directory=directory, progress=False)


def timeless(row: Any) -> dict[str, Any]:
    """A row of the history without what a clock decides."""
    return {k: v for k, v in row.items() if k not in ("seconds", "images_per_s")}


def same_bits(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Whether two networks of one kind have equal parameters and buffers."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def on_test(model: torch.nn.Module, **data: Any) -> Evaluation:
    """How a network does on the test images, as a run evaluates it."""
    loaded, quiet = tiny_data(**data), torch.autocast("cpu", torch.bfloat16, enabled=False)
    return evaluate(model, loaded.test, loaded.mean, loaded.std, quiet, torch.channels_last)


def an_epoch(n: int, size: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Train batches of `n` images, each with its own number as its label and the value of all its pixels."""
    numbers = torch.arange(n)
    split = Split(numbers.to(torch.uint8)[:, None, None, None].expand(n, 1, SIDE, SIDE), numbers)
    config = tiny_data_config(rotation=0, brightness=0, contrast=0)
    plain = Augmentation(config, tiny_data(), torch.device("cpu"))
    epoch = plain.batches(split, size, generator(seed, "order"), generator(seed, "augment"))
    return [(x, y) for x, y, _ in epoch]
