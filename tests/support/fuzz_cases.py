"""Mutations of valid files, such as an attacker, a failing disk or a script may make. Each depends only on its number.

REG_SWEEP_FUZZ=20000 tries that many cases for each reader; by default there are a few.
"""

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
from safetensors.numpy import save

Bytes = Callable[[random.Random, bytes], bytes]

SURROGATE = "\ud800"


def n_cases(ordinary: int, share: float = 1.0) -> int:
    """How many cases to try: `ordinary`, or a share of the number in REG_SWEEP_FUZZ."""
    asked = os.environ.get("REG_SWEEP_FUZZ")
    return ordinary if asked is None else max(1, round(share * int(asked)))


def cases(n: int, what: str) -> Iterator[tuple[int, random.Random]]:
    """The numbers of `n` cases, each with its own random generator."""
    for number in range(n):
        yield number, random.Random(f"{what} {number}")


# ---- bytes


def bytes_mutated(r: random.Random, content: bytes) -> bytes:
    """Bytes with parts flipped, cut, repeated, moved or overwritten."""
    data = bytearray(content)
    for _ in range(r.choice((1, 1, 1, 2, 5))):
        at = r.randrange(len(data) + 1) if data else 0
        size = r.choice((1, 2, 4, 8, 64))
        match r.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << r.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = r.randbytes(size)
            case 4:
                data[at:at] = data[at : at + 64 * size]
            case 5:
                data[at : at + size] = r.choice((b"\0", b"\xff", b"9", b"\x7f")) * size
            case _:
                data[at : at + 8] = struct.pack(r.choice("<>") + "q", r.choice((-1, 0, 1, 2**31, 2**62, -(2**63))))
    return bytes(data)


# ---- JSON

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 50, 128, 1000, 10**9, 2**31, 2**53, 2**62, 2**63),
    *(-(2**63), 10**30, 10**400),
    *(0.0, -0.0, 0.5, -0.5, 1e-320, 1e-9, 1e38, 1e39, 1e150, 1e300, -1e300, 1.7e308, float("inf"), float("-inf")),
    *(float("nan"), 10**400),
    *("", " ", "x", "0", "nan", "test_loss", "complete", "λ", "字", "a/b", "..", "/", "\n", "a\nb\r\tc"),
    *("\x1b[31m", "\x07", "\0", SURROGATE, f"a{SURROGATE}b", "$x^$", "\\frac{", "<script>", "</style>&\"'", "%s{0}"),
    *("x" * 300, "字" * 5000, "a b " * 30_000, "x" * 200_000, "norm=bn 'unclosed", "·" * 50, " · L1 0.1"),
    *([], [[]], [None], ["x"], [0, 0], [1, 2, 3], list(range(500)), {}, {"": 0}, {"a": {"b": [1]}}, {"name": []}),
    {f"k{i}": i for i in range(300)},
)
KEYS = ("", "name", "epoch", "l1", "norm.name", "x" * 300, "字", "\n", SURROGATE, "seed", "_target_", "a b", "a-b")


def _nested(r: random.Random) -> Any:
    value: Any = 1
    for _ in range(r.choice((5, 33, 100, 200))):
        value = [value] if r.random() < 0.5 else {"a": value}
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and a key."""
    found: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        inner = stack.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:
            found.append((inner, key))
            stack.append(inner[key])
    return found


def value_mutated(r: random.Random, value: Any) -> Any:
    """A JSON value with a few parts moved, removed or replaced by odd ones."""
    value = deepcopy(value)
    for _ in range(r.choice((1, 1, 1, 1, 2, 3, 6))):
        places = _places(value)
        if not places:
            break
        inside, key = r.choice(places)
        match r.randrange(9):
            case 0 | 1 | 2 | 3:
                inside[key] = deepcopy(r.choice(ODD))
            case 4:
                del inside[key]
            case 5:
                source, name = r.choice(places)
                inside[key] = deepcopy(source[name]) if _has(source, name) else None
            case 6 if isinstance(inside, dict):
                inside[r.choice(KEYS)] = deepcopy(r.choice(ODD))
            case 6 | 7 if isinstance(inside, list):
                inside.extend(deepcopy(inside[:20] * r.choice((1, 1, 30))))
            case 7:
                number = inside[key]
                if isinstance(number, int | float):
                    inside[key] = r.choice((-number, number + 1, number * 1000, number / 3, str(number), [number]))
            case _:
                inside[key] = _nested(r) if r.random() < 0.3 else deepcopy(r.choice(ODD))
    return value


def _has(inside: Any, key: Any) -> bool:
    return key in inside if isinstance(inside, dict) else key < len(inside)


def json_mutated(r: random.Random, content: bytes) -> bytes:
    """A JSON file's bytes, mutated as values, as text, or both."""
    if r.random() < 0.8:
        content = json.dumps(value_mutated(r, json.loads(content))).encode()
    if r.random() < 0.02:
        content = content.replace(b"{", b'{"a":' + b"[" * r.choice((50, 100_000)), 1)
    return bytes_mutated(r, content) if r.random() < 0.25 else content


# ---- tables


def csv_mutated(r: random.Random, content: bytes) -> bytes:
    """A table's bytes, with odd cells, and rows and columns duplicated, moved or removed."""
    rows = [line.split(b",") for line in content.splitlines()]
    for _ in range(r.choice((1, 1, 2, 5))):
        row = r.choice(rows)
        at = r.randrange(len(row)) if row else 0
        match r.randrange(6):
            case 0 | 1 if row:
                odd = ("nan", "inf", "-inf", "1e400", "-1e300", "1e-320", "1_0", "x", "", '"', '"a', "\0", "9" * 5000)
                row[at] = r.choice(odd).encode()
            case 2:
                rows.remove(row)
            case 3:
                rows.extend([list(row) for _ in range(r.choice((1, 2, 300)))])
            case 4 if row:
                del row[at]
            case _:
                r.shuffle(rows)
        if not rows:
            return b""
    content = b"\n".join(map(b",".join, rows)) + b"\n"
    return bytes_mutated(r, content) if r.random() < 0.3 else content


# ---- archives of arrays

DTYPES = ("int64", "int8", "uint64", "float32", "float64", "float16", ">i4", "bool", "U3", "S2")


def npz_mutated(r: random.Random, content: bytes) -> bytes:
    """An archive's bytes, with arrays of other types, shapes and values, wrong headers, or missing names."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for _ in range(r.choice((1, 1, 2))):
        name = r.choice(list(arrays))
        a = np.asarray(arrays[name])
        with np.errstate(all="ignore"):
            match r.randrange(7):
                case 0 if a.dtype.kind in "iufb":
                    arrays[name] = a.astype(r.choice(DTYPES))
                case 1:
                    flat = a.ravel()
                    arrays[name] = r.choice((flat[:-1], a[None], flat.repeat(2), flat[:0], np.zeros((), a.dtype)))
                case 2 if a.dtype.kind in "iufb":
                    odd = r.choice((-1, 10, 4096, 2**31, 2**62, 1.5, -0.5, float("nan"), float("inf")))
                    arrays[name] = np.where(np.arange(a.size) == r.randrange(a.size or 1), odd, a.ravel())
                case 3 if len(arrays) > 1:
                    del arrays[name]
                case 4:
                    arrays[r.choice(("index", "label", "x", "../x"))] = a
                case 5:
                    arrays[name] = a.astype(a.dtype.newbyteorder())
                case _:
                    arrays[name] = a.ravel()[::-1]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", r.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as archive:
        for name, a in arrays.items():
            part = io.BytesIO()
            np.save(part, a)
            archive.writestr(f"{name}.npy", _header_mutated(r, part.getvalue()))
    return bytes_mutated(r, file.getvalue()) if r.random() < 0.3 else file.getvalue()


def _header_mutated(r: random.Random, content: bytes) -> bytes:
    if r.random() < 0.8:
        return content
    size = struct.unpack_from("<H", content, 8)[0]
    header = content[10 : 10 + size].decode()
    swaps = (("(50,)", "(5000000000,)"), ("(50,)", "(-50,)"), ("(50,)", "(" * 500), ("False", "True"), ("50", "50.0"))
    swaps += (("'descr'", "'x'"), ("<i8", "|O"), ("<f4", "<f16"), ("<i8", "V100000000"))
    swaps += (("}", "}" * 9), ("{", "[" * 300))
    for old, new in r.sample(swaps, 3):
        header = header.replace(old, new)
    return content[:8] + struct.pack("<H", len(header)) + header.encode() + content[10 + size :]


def _full(shape: tuple[int, ...], value: float, dtype: str) -> np.ndarray:
    return np.full(shape, value).astype(np.dtype(dtype).newbyteorder("="))


def weights_mutated(r: random.Random, content: bytes) -> bytes:
    """A safetensors file's bytes, with tensors of other shapes and names, or a wrong header."""
    size = struct.unpack_from("<Q", content)[0]
    header, body = content[8 : 8 + size], content[8 + size :]
    match r.randrange(4):
        case 0:
            header = json.dumps(value_mutated(r, json.loads(header))).encode(errors="replace")
        case 1:
            empty = ((0, 3, 3, 3), (2, 0, 3, 3), (2, 2, 0, 3), (0, 0))
            shapes = (*empty, (1, 1, 1, 1), (3, 2, 1, 1), (1, 1, 1, 1, 1), (5,))
            values = (0.0, np.nan, np.inf, 3e38, 1e-45)
            names = (f"{r.choice(('a', 'block.0', '', '字', 'x' * 200))}{i}.weight" for i in range(r.choice((1, 2, 5))))
            with np.errstate(all="ignore"):
                return save({name: _full(r.choice(shapes), r.choice(values), r.choice(DTYPES[:7])) for name in names})
        case 2:
            header = bytes_mutated(r, header)
        case _:
            return bytes_mutated(r, content)
    return struct.pack("<Q", r.choice((len(header), len(header), len(header), 0, 2**40, 2**63))) + header + body
