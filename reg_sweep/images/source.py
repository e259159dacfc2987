"""The images that a source returns, the rules for them, and a source that reads your own file."""

import logging
import math
import reprlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg_sweep.config.rules import DataError
from reg_sweep.runs import validation
from reg_sweep.runs.arrays import BROKEN_ARCHIVE
from reg_sweep.runs.record import MAX_INDEX

log = logging.getLogger(__name__)

_MAX_SHOWN = 400_000_000  # bytes of test images that a report unpacks

Pixels = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Images from a data source: pixels (N, H, W) or (N, H, W, C) as uint8, labels (N,) counted from 0.

    `source` is their origin. In a subset, `test_index` contains the test images' positions in the parent data set.
    `val_images` and `val_labels` are the data set's own validation split, which `data.val_size=null` uses.
    `class_names` names the class of each label; without it, the number of classes follows from the labels.
    """

    train_images: Pixels
    train_labels: Integers
    test_images: Pixels
    test_labels: Integers
    source: str = "custom"
    test_index: Integers | None = None
    val_images: Pixels | None = None
    val_labels: Integers | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def n_classes(self) -> int:
        """The number of class names if there are any, otherwise the largest label plus one."""
        if self.class_names is not None:
            return len(self.class_names)
        return 1 + max(int(labels.max()) for labels in _parts(self).values())


def npz_images(root: str, file: str) -> Images:
    """Reads the images in your own numpy archive, `file` under `root`.

    It must contain the arrays train_images, train_labels, test_images and test_labels, as in `Images`. It may contain
    val_images and val_labels, and `classes`, the classes' names by label.

    Raises:
        DataError: the file is missing, is not an archive, or lacks an array.
    """
    path = Path(root).expanduser() / file
    try:
        with validation.open_regular(path) as opened:  # given a path, numpy would leave a broken file open
            archive: Any = np.load(opened, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("one array (numpy.save)")
            found: dict[str, Any] = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(
            f"{path} must be a file with the images, got none: name its folder with data.root=..."
        ) from None
    except validation.ValidationError:
        raise DataError(f"{path} must be a numpy archive (numpy.savez), got a folder, a pipe or a device") from None
    except BROKEN_ARCHIVE as error:
        reason = validation.one_line(error) or type(error).__name__
        raise DataError(f"{path} must be a numpy archive of plain arrays (numpy.savez), got {reason:.160}") from None
    needed = ["train_images", "train_labels", "test_images", "test_labels"]
    if missing := [name for name in needed if name not in found]:
        raise DataError(f"{path} must hold the arrays {', '.join(needed)}, got no {', '.join(missing)}")
    classes = found.get("classes")
    return Images(
        **{name: found[name] for name in needed},
        source=path.name,
        val_images=found.get("val_images"),
        val_labels=found.get("val_labels"),
        class_names=None if classes is None else tuple(map(str, classes.tolist())),
    )


def read_npz_test_images(root: Path, file: str) -> tuple[Pixels, Integers] | None:
    """The test images and labels in an archive for `npz_images`, for a report; None if they can't be shown.

    A record may name any file, so at most `_MAX_SHOWN` bytes of an array are unpacked.
    """
    try:
        with validation.open_regular(Path(root).expanduser() / file) as opened, zipfile.ZipFile(opened) as archive:
            images, labels = (_npy(archive, name) for name in ("test_images", "test_labels"))
    except BROKEN_ARCHIVE:
        return None
    is_shown = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3))
    if not is_shown or 0 in images.shape or labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        return None
    return images, labels.astype(np.int64)


def _npy(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not of numpy's format 1.0")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        n_bytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or n_bytes > _MAX_SHOWN:
            raise ValueError("too large to be shown")
        content = file.read(n_bytes)
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


# ---- the rules


def check_images(images: object) -> None:
    """Refuses images that break a rule; errors refer to the source that returned them."""
    if not isinstance(images, Images):
        raise DataError(f"data.source must return reg_sweep.Images, got {type(images).__name__}")
    if not isinstance(images.source, str):
        raise DataError(f"data.source must return a text as the images' source, got {_shown(images.source)}")
    if (images.val_images is None) != (images.val_labels is None):
        raise DataError("data.source must return val_images and val_labels together, got only one of them")
    parts = _parts(images)
    for part, labels in parts.items():
        _check_part(part, getattr(images, f"{part}_images"), labels)
    _check_index(images.test_index, len(images.test_labels))
    lowest = min(labels.min() for labels in parts.values())
    if lowest > 0 and images.class_names is None:
        raise DataError(
            f"data.source must return labels counted from 0, got none below {lowest}: subtract {lowest} in all splits"
        )
    _check_classes(images)
    for part in parts:
        shape = getattr(images, f"{part}_images").shape[1:]
        if shape != images.train_images.shape[1:]:
            raise DataError(
                f"data.source must return {part}_images of the train images' shape {images.train_images.shape[1:]}, "
                f"got {shape}"
            )


def _parts(images: Images) -> dict[str, Integers]:
    """Labels by split: train, test, and val if the source has one."""
    parts = {"train": images.train_labels, "test": images.test_labels}
    return parts if images.val_labels is None else {**parts, "val": images.val_labels}


def _check_part(part: str, pixels: Any, labels: Any) -> None:
    for name, array in ((f"{part}_images", pixels), (f"{part}_labels", labels)):
        if not isinstance(array, np.ndarray):
            raise DataError(f"data.source must return {name} as a numpy array, got {type(array).__name__}")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise DataError(
            f"data.source must return {part}_images as uint8 of shape (N, H, W) or (N, H, W, C), "
            f"got {pixels.dtype} of shape {pixels.shape}"
        )
    if 0 in pixels.shape[1:]:
        raise DataError(f"data.source must return {part}_images with pixels, got none in the shape {pixels.shape}")
    if pixels.ndim == 4 and pixels.shape[1] <= 4 < pixels.shape[3]:
        raise DataError(
            f"data.source must return {part}_images with the channels last, (N, H, W, C), got them first, in "
            f"{pixels.shape}: return {part}_images.transpose(0, 2, 3, 1)"
        )
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError(
            f"data.source must return {part}_labels as whole numbers from 0, one for each of the {len(pixels)} "
            f"images, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise DataError(
            f"data.source must return {part}_labels as whole numbers from 0, got {labels.min()}: leave those images "
            "out, or renumber the labels (numpy.unique with return_inverse)"
        )


def _check_classes(images: Images) -> None:
    """Refuses labels without a class name and, without `class_names`, classes without images."""
    present = np.unique(np.concatenate([np.unique(labels) for labels in _parts(images).values()]))
    names: Any = images.class_names
    if names is not None and not isinstance(names, tuple | list | np.ndarray):  # refuses sets and a single string
        raise DataError(f"data.source must return class_names as a tuple of texts, got {_shown(names)}")
    n = images.n_classes
    if names is not None and not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"data.source must return class_names as texts that are not empty, got {_shown(names)}")
    if names is not None and len(set(names)) < n:
        raise DataError(f"data.source must return class_names as different texts, got {_shown(names)}")
    if names is not None and present[-1] >= n:
        raise DataError(f"data.source must return a name for each class, got {n} names and a label {present[-1]}")
    if names is None and len(present) < n:
        gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
        raise DataError(
            f"data.source must return labels without gaps, got {len(present)} different ones up to {present[-1]}, "
            f"not {gap}: renumber them (numpy.unique with return_inverse), or give class_names for all"
        )
    trained = np.unique(images.train_labels)
    if len(trained) < n:
        missing = sorted(set(range(n)) - set(trained.tolist()))
        log.warning("%d of the %d classes have no train image: %s", n - len(trained), n, reprlib.repr(missing))


def _check_index(index: Integers | None, n_test: int) -> None:
    is_array = isinstance(index, np.ndarray) and index.shape == (n_test,) and index.dtype.kind in "iu"
    if index is not None and not (is_array and 0 <= index.min() <= index.max() <= MAX_INDEX):
        raise DataError(
            f"data.source must return test_index as one whole number from 0 to {MAX_INDEX} for each of the {n_test} "
            f"test images, got {_shown(index)}: leave it out if there is no parent data set"
        )


def _shown(value: object) -> str:
    return " ".join(reprlib.repr(value).split())  # numpy's repr spans several lines


def stratified(labels: Integers, n: int, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """Draws `n` images with the same shares of classes; returns their indices and the others', both ascending.

    Numbers per class are rounded by the largest-remainder method.
    """
    counts = np.bincount(labels)
    quotas = counts * n / len(labels)
    take = np.floor(quotas).astype(int)
    for c in np.argsort(take - quotas, kind="stable")[: n - take.sum()]:
        take[c] += 1
    drawn = [generator.permutation(np.flatnonzero(labels == c))[:k] for c, k in enumerate(take)]
    first = np.sort(np.concatenate(drawn))
    rest = np.setdiff1d(np.arange(len(labels)), first, assume_unique=True)
    return first, rest
