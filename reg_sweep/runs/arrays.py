"""Writes and reads the arrays of a finished run: predictions.npz and weights.safetensors.

Readers check a file's headers before they unpack anything.
"""

import io
import lzma
import re
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from reg_sweep.runs import validation
from reg_sweep.runs.files import replacing
from reg_sweep.runs.record import MAX_CLASSES, MAX_INDEX, PREDICTIONS_FILE, WEIGHTS_FILE, RecordError
from reg_sweep.runs.validation import ValidationError

Array = NDArray[Any]

# The errors that zipfile and numpy raise for a truncated or malicious archive. (RuntimeError: an encrypted entry or
# unknown compression. MemoryError: a header that asks for more memory than there is.)
BROKEN_ARCHIVE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, AttributeError, MemoryError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)

MAX_WEIGHTS = 400_000_000  # bytes of a weights.safetensors: 100 million numbers, which take the report 6 s to draw
MAX_NAME = 300  # characters of a tensor's name
_MAX_HEADER = 4_000_000  # bytes, enough to name some 20,000 tensors
_FLOATS = ("F16", "F32", "F64")
_BYTES_OF_AN_IMAGE = 8 * 4  # four arrays of at most 64 bits
_HEADERS = 100_000  # bytes for the headers of a zip file and of the arrays in it

# An array's header, as numpy writes it. (numpy's own reader evaluates it as Python.)
_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<>|][a-zA-Z]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': (?P<shape>\([\d, ]{0,80}\)), \} *\n"
)
# For each array in predictions.npz: its kinds of numbers, and the smallest and largest value.
_PREDICTIONS: dict[str, tuple[str, float, float]] = {
    "predicted": ("iu", 0, MAX_CLASSES - 1),
    "probability": ("f", 0.0, 1.0),
    "label": ("iu", 0, MAX_CLASSES - 1),
    "index": ("iu", 0, MAX_INDEX),
}


# ---- predictions


def write_predictions(directory: Path, **arrays: Any) -> None:
    """Writes predictions.npz: predicted, probability, label and, for a subset, its index in the parent data set."""
    with replacing(directory / PREDICTIONS_FILE) as file:
        np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def read_predictions(directory: Path, n_test: int) -> dict[str, Array]:
    """Reads the arrays in a run's predictions.npz, (n_test,) each: class numbers and indices as int64, probabilities.

    Raises:
        RecordError: the file is missing, truncated, not for `n_test` images, or has values out of range.
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
    except BROKEN_ARCHIVE as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, n: int) -> Array:
    """Reads one array, and unpacks no more bytes than its shape and type require."""
    kinds, low, high = _PREDICTIONS[name]
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValidationError(f"{name} must be stored or deflated, as numpy does")
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
    if not ((array >= low) & (array <= high)).all():  # refuses nan too
        raise ValidationError(f"{name} must lie between {low:g} and {high:g}, got {array.min()} to {array.max()}")
    return array.astype(np.int64 if "i" in kinds else np.float64)


# ---- weights


def write_weights(
    directory: Path, tensors: dict[str, Any], name: str = WEIGHTS_FILE, notes: dict[str, str] | None = None
) -> None:
    """Writes a model's parameters and buffers, as numpy arrays by name, to weights.safetensors or the file `name`.

    `notes` are the file's metadata.
    """
    # safetensors writes an array's raw memory: without this, the axes of a channels_last weight would be mixed up.
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(directory / name) as file:
        file.write(save(tensors, notes))


def weights_notes(directory: Path, name: str) -> dict[str, str]:
    """The metadata of a file of weights; empty if there is no such file or it has none."""
    try:
        with safe_open(directory / name, "numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, ValueError, SafetensorError):
        return {}


def read_weights(directory: Path) -> dict[str, Array] | None:
    """Reads a run's weight tensors by layer as float32, without biases and norm parameters; None if there is no file.

    Empty tensors are left out, and non-finite numbers become 0.

    Raises:
        RecordError: the file is truncated, too large to draw, or not a file of weights.
    """
    path = directory / WEIGHTS_FILE
    try:
        _check_header(path)
        with safe_open(path, "numpy") as file:
            names = [name for name in file.keys() if _is_weight(name, file.get_slice(name))]  # noqa: SIM118
            return {
                validation.visible(name.removesuffix(".weight")): np.nan_to_num(
                    file.get_tensor(name).astype(np.float32)
                )
                for name in sorted(names, key=_natural)  # the file has no order
            }
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise RecordError(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise RecordError(f"{path}: unreadable ({validation.one_line(error)})") from None


def _check_header(path: Path) -> None:
    """Checks the size of a file of weights and of its header, before safetensors allocates memory for them."""
    size = path.stat().st_size
    if size > MAX_WEIGHTS:
        raise ValidationError(f"must hold at most {MAX_WEIGHTS:,} bytes to be drawn, got {size:,}")
    with validation.open_regular(path) as file:
        start = file.read(8)
    n = int.from_bytes(start, "little")
    if len(start) == 8 and n > _MAX_HEADER:
        raise ValidationError(f"must name its tensors in at most {_MAX_HEADER:,} bytes, got {n:,}")


def _is_weight(name: str, tensor: Any) -> bool:
    shape = tensor.get_shape()
    if len(name) > MAX_NAME:
        raise ValidationError(f"must have tensor names of at most {MAX_NAME} characters, got {len(name):,}")
    return name.endswith(".weight") and len(shape) > 1 and 0 not in shape and tensor.get_dtype() in _FLOATS


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts 'blocks.2' before 'blocks.10'."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
