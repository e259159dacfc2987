"""The arrays that a finished run leaves: predictions.npz and weights.safetensors, both ways.

Readers look at what a file claims to hold before anything of it is unpacked.
"""

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reg_sweep.runs import validation
from reg_sweep.runs.files import replacing
from reg_sweep.runs.record import PREDICTIONS_FILE, WEIGHTS_FILE, RecordError
from reg_sweep.runs.validation import ValidationError

Array = NDArray[Any]

MAX_CLASSES = 4096  # a table of confusions has its square
MAX_WEIGHTS = 2_000_000_000  # bytes of a weights.safetensors
MAX_TENSORS = 5_000
_BYTES_OF_AN_IMAGE = 8 * 4  # four arrays of 64 bits at most
_HEADERS = 100_000  # of a zip file and of the arrays in it

# An array's header, as numpy writes it; numpy's own reader evaluates it as Python.
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|][a-zA-Z]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': (?P<shape>\([\d, ]{0,80}\)), \} *\n"
)
# Of each array in predictions.npz: its kinds of numbers, and the least and the greatest.
_PREDICTIONS: dict[str, tuple[str, float, float]] = {
    "predicted": ("iu", 0, MAX_CLASSES - 1),
    "probability": ("f", 0.0, 1.0),
    "label": ("iu", 0, MAX_CLASSES - 1),
    "index": ("iu", 0, 2**31),
}


# ---- predictions


def write_predictions(directory: Path, **arrays: Any) -> None:
    """Writes predictions.npz: predicted, probability and label of each test image; `index` into a parent, or None."""
    with replacing(directory / PREDICTIONS_FILE) as file:
        np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def read_predictions(directory: Path, n_test: int) -> dict[str, Array]:
    """The arrays in a run's predictions.npz, (n_test,) each: class numbers and indices as int64, probabilities.

    Raises:
        RecordError: it is missing, torn, not about `n_test` images, or holds what no prediction is.
    """
    path = directory / PREDICTIONS_FILE
    try:
        content = validation.read_bytes(path, _HEADERS + _BYTES_OF_AN_IMAGE * n_test)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [name for name in _PREDICTIONS if name not in names and name != "index"]
            if missing:
                raise ValidationError(f"must hold predicted, probability and label, got no {', '.join(missing)}")
            return {name: _array(archive, names[name], name, n_test) for name in _PREDICTIONS if name in names}
    except FileNotFoundError:
        raise RecordError(f"{path}: missing") from None
    except ValidationError as error:
        raise RecordError(f"{path}: {error}") from None
    except (OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, n: int) -> Array:
    """One array, of whose shape and type its header is asked first; no more than these take is unpacked."""
    kinds, low, high = _PREDICTIONS[name]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValidationError(f"{name} must be stored or deflated, as numpy packs it")
    with archive.open(info) as file:
        magic, size = struct.unpack("<8sH", file.read(10))
        header = _HEADER.fullmatch(file.read(size)) if magic == b"\x93NUMPY\1\0" else None
        if header is None:
            raise ValidationError(f"{name} must be an array of numpy's format 1.0")
        dtype, shape = np.dtype(header["dtype"].decode()), header["shape"].decode()
        if shape != f"({n},)":
            raise ValidationError(f"{name} must have shape ({n},), the test images, got {shape}")
        if dtype.kind not in kinds:
            rule = "whole numbers" if "i" in kinds else "floating-point numbers"
            raise ValidationError(f"{name} must hold {rule}, got {dtype}")
        content = file.read(n * dtype.itemsize + 1)
    if len(content) != n * dtype.itemsize:
        raise ValidationError(f"{name} must hold {n} values, got {len(content)} bytes")
    array = np.frombuffer(content, dtype)
    if not ((array >= low) & (array <= high)).all():  # nan neither
        raise ValidationError(f"{name} must lie between {low:g} and {high:g}, got {array.min()} to {array.max()}")
    return array.astype(np.int64 if "i" in kinds else np.float64)


# ---- weights


def write_weights(directory: Path, tensors: dict[str, Any]) -> None:
    """Writes weights.safetensors: a model's parameters and buffers by name, as numpy arrays."""
    # safetensors writes an array's memory as it lies: a channels_last weight would come back with its axes mixed up.
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(directory / WEIGHTS_FILE) as file:
        file.write(save(tensors))


def read_weights(directory: Path) -> dict[str, Array] | None:
    """A run's weight tensors by layer, float32, biases and norm parameters left out; None where there is no file.

    A tensor without values is left out, and what is not finite counts as 0.

    Raises:
        RecordError: it is torn, or no file of weights.
    """
    path = directory / WEIGHTS_FILE
    try:
        tensors = load(validation.read_bytes(path, MAX_WEIGHTS))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None
    if len(tensors) > MAX_TENSORS:
        raise RecordError(f"{path}: must hold at most {MAX_TENSORS:,} tensors, got {len(tensors):,}")
    return {
        name.removesuffix(".weight"): np.nan_to_num(w.astype(np.float32))
        for name, w in sorted(tensors.items(), key=lambda item: _natural(item[0]))  # the file keeps no order
        if name.endswith(".weight") and w.ndim > 1 and w.size > 0 and w.dtype.kind == "f"
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts 'blocks.2' before 'blocks.10'."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
