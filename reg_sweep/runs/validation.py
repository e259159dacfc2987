"""The border: what others may have made is read within bounds, and checked against a type, once.

A folder of runs may come from anybody. Here a file's size, depth, texts, numbers and types are checked before anything
of it is believed; behind the border nothing checks again. A message says the key, the rule and what was found; whoever
reads names the file.
"""

import gzip
import io
import json
import math
import reprlib
import stat
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

MAX_DEPTH = 32
MAX_TEXT = 100_000  # characters of one text; no command, message or path comes near it
MAX_WHOLE = 2**63 - 1  # what a 64-bit integer holds


class BorderError(ValueError):
    """What is not let in. The message is one line: the key, the rule, what was found."""


@dataclass(frozen=True)
class Between:
    """The range of a number, or of a text's length, both ends included; an annotation of a type."""

    low: float
    high: float
    of: Literal["a number", "a whole number", "text"] = "a number"


Name = Annotated[str, Between(0, 300, "text")]
Count = Annotated[int, Between(0, 10**12, "a whole number")]
Share = Annotated[float, Between(0, 1)]
Seconds = Annotated[float, Between(0, 1e12)]
Reading = Annotated[float, Between(-1e39, 1e39)]  # a metric: of such a number squared a double still holds a sum
NImages = Annotated[int, Between(0, 10_000_000, "a whole number")]  # arrays with a value for each fit into memory


def one_line(error: BaseException) -> str:
    """What a library says of a file, which may repeat the file: on one line, and cut."""
    text = " ".join(str(error).split())
    return (text if text.isprintable() else ascii(text))[:300]


# ---- bytes


def read_bytes(path: Path, limit: int) -> bytes:
    """A file's content, of at most `limit` bytes.

    Raises:
        OSError: it is missing, or can't be read.
        BorderError: it is larger, or no regular file (a pipe would be waited for, a device never ends).
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise BorderError("must be a regular file, got a folder, a pipe or a device")
    with path.open("rb") as file:
        return _whole(file, limit)


def gunzip(content: bytes, limit: int) -> bytes:
    """What a gzip file holds, of at most `limit` bytes; no more than that is ever unpacked.

    Raises:
        BorderError: it holds more, is torn, or is no gzip file.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            return _whole(file, limit)
    except (OSError, EOFError, zlib.error) as error:
        raise BorderError(f"must be a whole gzip file ({one_line(error)})") from None


def _whole(file: Any, limit: int) -> bytes:
    content: bytes = file.read(limit + 1)
    if len(content) > limit:
        raise BorderError(f"must hold at most {limit:,} bytes, got more")
    return content


# ---- JSON


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """The object in a JSON file of at most `limit` bytes, made of plain values.

    Texts are short and can be written as UTF-8, numbers finite and within 64 bits, and nothing is nested deeper than
    MAX_DEPTH.

    Raises:
        OSError: it is missing, or can't be read.
        BorderError: it is something else.
    """
    try:
        value = json.loads(read_bytes(path, limit).decode(), parse_constant=_no_constant)
    except RecursionError:
        raise BorderError(f"must be nested at most {MAX_DEPTH} deep, got more") from None
    _require(isinstance(value, dict), "it", "be an object", value)
    if not _is_plain(value, 0):
        _check_plain(value, "", 0)
    return value  # type: ignore[no-any-return]


def _no_constant(name: str) -> NoReturn:
    raise BorderError(f"must hold finite numbers, got {name}")


def _is_plain(value: dict[str, Any] | list[Any], depth: int) -> bool:
    """Whether `_check_plain` surely lets an object or a list pass: most files, told without making up any key."""
    if isinstance(value, dict) and not all(map(_is_short, value)):
        return False
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, str):
            is_plain = _is_short(inner)
        elif isinstance(inner, float):
            is_plain = math.isfinite(inner)
        elif isinstance(inner, int):
            is_plain = -MAX_WHOLE <= inner <= MAX_WHOLE
        else:
            is_plain = inner is None or (depth < MAX_DEPTH - 1 and _is_plain(inner, depth + 1))
        if not is_plain:
            return False
    return True


def _is_short(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isascii() and "\0" not in text


def _check_plain(value: Any, key: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BorderError(f"must be nested at most {MAX_DEPTH} deep, got more")
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, key)
            _check_plain(inner, _joined(key, name), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, key, depth + 1)
    elif isinstance(value, str):
        _check_text(value, key)
    elif isinstance(value, float):
        _require(math.isfinite(value), key, "be a finite number", value)
    elif isinstance(value, int):
        _require(abs(value) <= MAX_WHOLE, key, "be a whole number of at most 64 bits", value)


def _check_text(text: str, key: str) -> None:
    _require(len(text) <= MAX_TEXT, key, f"hold texts of at most {MAX_TEXT:,} characters", text)
    # A lone half of a surrogate pair can be written into no page, a null byte stand in no path.
    is_text = text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
    _require(is_text and "\0" not in text, key, "hold texts that can be written as UTF-8, without null bytes", text)


# ---- types


def check(value: Any, kind: Any, key: str = "", *, but: Collection[str] = ()) -> None:
    """Checks a plain value, called `key`, against a type: a TypedDict, or what one is made of.

    A key that is absent and may be null becomes null; keys that the type does not know, and those in `but`, are let
    pass.

    Raises:
        BorderError: it is of another type, or out of range.
    """
    if not but and _surely(kind)(value):
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        _check_object(value, kind, key, but)
    elif origin is Annotated:
        check(value, arguments[0], key)
        _check_range(value, arguments[1], key)
    elif origin in (Union, UnionType):
        _check_one_of(value, arguments, key)
    elif origin is Literal:
        _require(value in arguments, key, f"be one of {', '.join(map(str, arguments))}", value)
    elif origin is dict:
        _require(isinstance(value, dict), key, "be an object", value)
        for name, inner in value.items():
            check(inner, arguments[1], _joined(key, name))
    elif origin in (list, tuple):
        _check_list(value, origin, arguments, key)
    elif kind is not Any:
        _check_scalar(value, kind, key)


@cache
def _surely(kind: Any) -> Callable[[Any], bool]:
    """What tells that a value is of a type and lacks nothing, as nearly all are; of others `check` tells what is wrong.

    It is made once for a type: to take the type apart for each of its values took a third of a report on 10,000 runs.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        return _surely_object(kind)
    if origin is Annotated:
        is_kind, bounds = _surely(arguments[0]), arguments[1]
        is_text = bounds.of == "text"
        return lambda v: is_kind(v) and bounds.low <= (len(v) if is_text else v) <= bounds.high
    if origin in (Union, UnionType):
        kinds = [_surely(k) for k in arguments]
        return lambda v: any(is_kind(v) for is_kind in kinds)
    if origin is Literal:
        return lambda v: v in arguments
    if origin is dict:
        is_value = _surely(arguments[1])
        return lambda v: isinstance(v, dict) and all(map(is_value, v.values()))
    if origin is list:
        is_item = _surely(arguments[0])
        return lambda v: isinstance(v, list) and all(map(is_item, v))
    if origin is tuple:
        items = [_surely(k) for k in arguments]
        return lambda v: (
            isinstance(v, list) and len(v) == len(items) and all(f(x) for f, x in zip(items, v, strict=True))
        )
    if kind is Any or kind is NoneType:
        return lambda v: kind is Any or v is None
    types = _SCALARS[kind][0]
    return lambda v: isinstance(v, types) and (kind is bool or not isinstance(v, bool))


def _surely_object(kind: Any) -> Callable[[Any], bool]:
    fields = []
    for name, inner in _hints(kind).items():
        is_optional = get_origin(inner) is NotRequired
        fields.append((name, _surely(get_args(inner)[0] if is_optional else inner), is_optional))

    def is_object(value: Any) -> bool:
        return isinstance(value, dict) and all(
            is_kind(value[name]) if name in value else is_optional for name, is_kind, is_optional in fields
        )

    return is_object


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _check_object(value: Any, kind: Any, key: str, but: Collection[str]) -> None:
    _require(isinstance(value, dict), key, "be an object", value)
    for name, inner in _hints(kind).items():
        is_optional = get_origin(inner) is NotRequired
        if name in but:
            continue
        if name in value:
            check(value[name], get_args(inner)[0] if is_optional else inner, _joined(key, name))
        elif not is_optional:
            if NoneType not in get_args(inner):
                raise BorderError(f"{_joined(key, name)} is missing")
            value[name] = None


def _check_range(value: Any, bounds: Between, key: str) -> None:
    size = len(value) if bounds.of == "text" else value
    what = "characters long" if bounds.of == "text" else bounds.of
    _require(bounds.low <= size <= bounds.high, key, f"be {what} from {bounds.low:g} to {bounds.high:g}", value)


def _check_one_of(value: Any, kinds: tuple[Any, ...], key: str) -> None:
    """A union: where it is none of them, the last kind that is not None says what is wrong."""
    if value is None and NoneType in kinds:
        return
    *others, last = (kind for kind in kinds if kind is not NoneType)
    if not any(_is_of(value, kind) for kind in others):
        check(value, last, key)


def _is_of(value: Any, kind: Any) -> bool:
    try:
        check(value, kind)
    except BorderError:
        return False
    return True


def _check_list(value: Any, origin: Any, arguments: tuple[Any, ...], key: str) -> None:
    _require(isinstance(value, list), key, "be a list", value)
    kinds = arguments if origin is tuple else arguments * len(value)
    _require(len(value) == len(kinds), key, f"be a list of {len(kinds)}", value)
    for n, (inner, kind) in enumerate(zip(value, kinds, strict=True)):
        check(inner, kind, f"{key}[{n}]")


_SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((bool,), "true or false"),
}


def _check_scalar(value: Any, kind: type, key: str) -> None:
    types, what = _SCALARS[kind]
    is_kind = isinstance(value, types) and (kind is bool or not isinstance(value, bool))
    _require(is_kind, key, f"be {what}", value)


def _require(holds: bool, key: str, rule: str, value: Any) -> None:
    if not holds:
        raise BorderError(f"{key} must {rule}, got {reprlib.repr(value)}")


def _joined(key: str, name: str) -> str:
    """A key inside another; what can't be printed in a line, or is long, is escaped and cut."""
    shown = name if name.isprintable() else ascii(name)
    return f"{key}.{shown[:80]}".removeprefix(".")[-240:]
