"""Small MNIST-like files, and a simulation of a missing network."""

import gzip
import hashlib
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from reg_sweep import images as images_module
from reg_sweep.images import Images

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def without_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Makes torchvision's downloads fail as without a network; returns the list of requests."""
    asked: list[object] = []

    def refuse(request, *args, **kwargs):
        asked.append(request)
        raise urllib.error.URLError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return asked


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def small_set() -> Images:
    """50 train and 20 test images of 28x28."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (70, 28, 28), dtype=np.uint8)
    labels = np.arange(70) % 10
    return Images(pixels[:50], labels[:50], pixels[50:], labels[50:])


def write_idx(root: Path, dataset: str, *, packed: bool = False, known: pytest.MonkeyPatch | None = None) -> Path:
    """Writes the four files of `small_set`; with `known`, their checksums become the expected ones."""
    raw = root / dataset / "raw"
    raw.mkdir(parents=True)
    images = small_set()
    arrays = (images.train_images, images.train_labels, images.test_images, images.test_labels)
    for stem, array in zip(STEMS, arrays, strict=True):
        content = idx(array.astype(np.uint8))
        if known is not None:
            known.setitem(images_module._UNPACKED_MD5, f"{dataset}/{stem}", hashlib.md5(content).hexdigest())
        (raw / (stem + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return raw
