"""Validates untrusted files: each is read within bounds and checked against a type, once.

A folder of runs may come from a stranger. A file's size, depth, texts, numbers and types are checked here before it is
used, and characters that control a terminal or a page are escaped. Callers don't check again. A message names the key,
the rule and the value; the caller adds the file's name.

Both validators, `parse_json` and `check`, are our own: msgspec (0.23) limits neither the depth nor the whole numbers of
untyped values, accepts null bytes, requires keys that older records lack, and reports neither the value nor all keys.
"""

import gzip
import io
import json
import math
import reprlib
import stat
import unicodedata
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    BinaryIO,
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
MAX_TEXT = 100_000  # characters of one text; commands, messages and paths are much shorter
MAX_WHOLE = 2**63 - 1  # the largest 64-bit integer


class ValidationError(ValueError):
    """A value breaks a rule. The message is one line: the key, the rule, the value."""

    def __init__(self, rule: str, key: str = "") -> None:
        super().__init__(rule, key)
        self.rule, self.key = rule, key

    def __str__(self) -> str:
        return f"{self.key} {self.rule}" if self.key else self.rule

    def inside(self, key: str | int) -> "ValidationError":
        """The error with `key` prepended, for the object or list that contains the value."""
        # Long keys are cut, unprintable ones escaped.
        outer = f"[{key}]" if isinstance(key, int) else (key if key.isprintable() else ascii(key))[:80]
        dot = "." if self.key and not self.key.startswith("[") else ""
        return ValidationError(self.rule, f"{outer}{dot}{self.key}"[-240:])


@dataclass(frozen=True)
class Between:
    """An annotation of a type: the range of a number, or of a text's length, including both ends."""

    low: float
    high: float
    of: Literal["a number", "a whole number", "text"] = "a number"


Name = Annotated[str, Between(0, 300, "text")]
Count = Annotated[int, Between(0, 10**12, "a whole number")]
Share = Annotated[float, Between(0, 1)]
Seconds = Annotated[float, Between(0, 1e12)]
MAX_READING = 1e39  # of a metric: a sum of squares of such numbers still fits into a double
Reading = Annotated[float, Between(-MAX_READING, MAX_READING)]
NImages = Annotated[int, Between(0, 10_000_000, "a whole number")]  # arrays with a value for each image fit into memory


def one_line(error: BaseException) -> str:
    """A library's error message on one line, cut and escaped because it may quote an untrusted file."""
    text = " ".join(str(error).split())
    return (text if text.isprintable() else ascii(text))[:300]


def visible(text: str) -> str:
    r"""A text with control and format characters escaped, so that no terminal, page or table acts on them.

    For example, an escape character becomes `\\x1b`, a newline `\\n`, and right-to-left override `\\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


# ---- bytes


def read_bytes(path: Path, limit: int) -> bytes:
    """Reads a file of at most `limit` bytes.

    Raises:
        OSError: the file is missing or can't be read.
        ValidationError: it is larger, or not a regular file (a pipe might block, and a device never ends).
    """
    with open_regular(path) as file:
        return _whole(file, limit)


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading.

    Raises:
        OSError: the file is missing or can't be read.
        ValidationError: it is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValidationError("must be a regular file, got a folder, a pipe or a device")
    return path.open("rb")


def gunzip(content: bytes, limit: int) -> bytes:
    """Unpacks a gzip file of at most `limit` bytes of content; never unpacks more than that.

    Raises:
        ValidationError: it contains more, is truncated, or is not a gzip file.
    """
    try:
        with gzip.open(io.BytesIO(content)) as file:
            return _whole(file, limit)
    except (OSError, EOFError, zlib.error) as error:
        raise ValidationError(f"must be a complete gzip file ({one_line(error)})") from None


def _whole(file: Any, limit: int) -> bytes:
    content: bytes = file.read(limit + 1)
    if len(content) > limit:
        raise ValidationError(f"must hold at most {limit:,} bytes, got more")
    return content


# ---- JSON


def read_json(path: Path, limit: int, *, raw: bool = False) -> dict[str, Any]:
    """Reads the object in a JSON file of at most `limit` bytes: see `parse_json`. Texts are escaped unless `raw`.

    Raises:
        OSError: the file is missing or can't be read.
        ValueError: it is not such a file.
    """
    content = read_bytes(path, limit)
    value = parse_json(content)
    # Nearly all files are ASCII without backslashes, where nothing needs escaping.
    needs_escape = not content.isascii() or b"\\" in content or b"\x7f" in content
    return _visible(value) if needs_escape and not raw else value


def parse_json(content: bytes) -> dict[str, Any]:
    """Parses an object in JSON.

    Texts must be short and valid Unicode, numbers finite and within 64 bits, and nothing may be nested deeper than
    MAX_DEPTH.

    Raises:
        ValidationError: it breaks one of these rules, or is not an object.
        ValueError: it is not JSON or not UTF-8.
    """
    try:
        value = json.loads(content.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValidationError(f"must be nested at most {MAX_DEPTH} deep, got more") from None
    if not isinstance(value, dict):
        _fail("be an object", value)
    _check_plain(value, 0)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValidationError(f"must hold finite numbers, got {name}")


def _check_plain(value: Any, depth: int) -> None:
    """Checks a text or number, or those in an object or list at any depth."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            _fail("be a finite number", value)
    elif isinstance(value, int):
        if not -MAX_WHOLE <= value <= MAX_WHOLE:
            _fail("be a whole number of at most 64 bits", value)
    elif value is not None:
        _check_inside(value, depth)


def _check_inside(value: dict[str, Any] | list[Any], depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValidationError(f"must be nested at most {MAX_DEPTH} deep, got more")
    if isinstance(value, dict):
        for name in value:
            _check_text(name)
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        try:
            _check_plain(inner, depth + 1)
        except ValidationError as error:
            raise error.inside(key) from None


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT:
        _fail(f"be a text of at most {MAX_TEXT:,} characters", text)
    # Lone surrogates can't be written to a page, and paths can't contain null bytes.
    is_unicode = text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)
    if not is_unicode or "\0" in text:
        _fail("be a text that can be written as UTF-8, without null bytes", text)


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(k): _visible(v) for k, v in value.items()}
    return [_visible(v) for v in value] if isinstance(value, list) else value


def nearest(value: Any) -> Any:
    """The nearest value that `parse_json` accepts, so that a record with arbitrary values can be written.

    Non-finite numbers become None. Numbers of more than 64 bits, deeper nesting and unknown types become text. Long
    texts are cut, and invalid Unicode is escaped.
    """
    return _nearest(value, 0)


def _nearest(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_WHOLE else _short(f"{value:#x}")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict | list | tuple) and depth < MAX_DEPTH:
        if isinstance(value, dict):
            return {_short(str(k)): _nearest(v, depth + 1) for k, v in value.items()}
        return [_nearest(v, depth + 1) for v in value]
    return _short(value if isinstance(value, str) else reprlib.repr(value))


def _short(text: str) -> str:
    return text[:MAX_TEXT].encode(errors="backslashreplace").decode().replace("\0", "\\0")[:MAX_TEXT]


# ---- types


def check(value: Any, kind: Any, key: str = "", *, but: Collection[str] = ()) -> None:
    """Checks a plain value, called `key` in messages, against a type: a TypedDict or a type allowed for its fields.

    Absent keys that may be null become null. Keys unknown to the type, and those in `but`, are not checked.

    Raises:
        ValidationError: the value has another type or is out of range.
    """
    try:
        _validator(kind, frozenset(but))(value)
    except ValidationError as error:
        raise (error.inside(key) if key else error) from None


Validator = Callable[[Any], None]


@cache
def _validator(kind: Any, but: frozenset[str] = frozenset()) -> Validator:
    """Makes the function that checks values of a type, once per type. Only on an error is the key assembled."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        return _object(kind, but)
    if origin is Annotated:
        return _ranged(_validator(arguments[0]), arguments[1])
    if origin in (Union, UnionType):
        return _one_of(arguments)
    if origin is Literal:
        return _such_that(lambda v: v in arguments, f"be one of {', '.join(map(str, arguments))}")
    if origin is dict:
        return _each(dict, "be an object", _validator(arguments[1]))
    if origin is list:
        return _each(list, "be a list", _validator(arguments[0]))
    if origin is tuple:
        return _tuple([_validator(a) for a in arguments])
    return (lambda _: None) if kind is Any else _SCALARS[kind]


def _such_that(holds: Callable[[Any], bool], rule: str) -> Validator:
    def validate(value: Any) -> None:
        if not holds(value):
            _fail(rule, value)

    return validate


_SCALARS: dict[type, Validator] = {
    str: _such_that(lambda v: isinstance(v, str), "be text"),
    int: _such_that(lambda v: isinstance(v, int) and not isinstance(v, bool), "be a whole number"),
    float: _such_that(lambda v: isinstance(v, int | float) and not isinstance(v, bool), "be a number"),
    bool: _such_that(lambda v: isinstance(v, bool), "be true or false"),
}


def _object(kind: Any, but: frozenset[str]) -> Validator:
    fields = []
    for name, inner in get_type_hints(kind, include_extras=True).items():
        is_optional, may_be_null = get_origin(inner) is NotRequired, NoneType in get_args(inner)
        if name not in but:
            fields.append((name, _validator(get_args(inner)[0] if is_optional else inner), is_optional, may_be_null))

    def validate(value: Any) -> None:
        if not isinstance(value, dict):
            _fail("be an object", value)
        for name, check_field, is_optional, may_be_null in fields:
            if name in value:
                try:
                    check_field(value[name])
                except ValidationError as error:
                    raise error.inside(name) from None
            elif may_be_null and not is_optional:
                value[name] = None
            elif not is_optional:
                raise ValidationError("is missing", name)

    return validate


def _ranged(check_kind: Validator, bounds: Between) -> Validator:
    is_text = bounds.of == "text"
    rule = f"be {bounds.of} from {bounds.low:g} to {bounds.high:g}" + (" characters long" if is_text else "")

    def validate(value: Any) -> None:
        check_kind(value)
        if not bounds.low <= (len(value) if is_text else value) <= bounds.high:
            _fail(rule, value)

    return validate


def _one_of(kinds: tuple[Any, ...]) -> Validator:
    """Checks a union: if no member accepts the value, the error is that of the last member other than None."""
    may_be_null = NoneType in kinds
    *others, last = (_validator(kind) for kind in kinds if kind is not NoneType)

    def validate(value: Any) -> None:
        if value is None and may_be_null:
            return
        for check_kind in others:
            try:
                check_kind(value)
            except ValidationError:
                continue
            return
        last(value)

    return validate


def _each(kind: type[dict[str, Any]] | type[list[Any]], rule: str, check_item: Validator) -> Validator:
    def validate(value: Any) -> None:
        if not isinstance(value, kind):
            _fail(rule, value)
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            try:
                check_item(item)
            except ValidationError as error:
                raise error.inside(key) from None

    return validate


def _tuple(checks: list[Validator]) -> Validator:
    def validate(value: Any) -> None:
        if not isinstance(value, list) or len(value) != len(checks):
            _fail(f"be a list of {len(checks)}", value)
        for n, (check_item, item) in enumerate(zip(checks, value, strict=True)):
            try:
                check_item(item)
            except ValidationError as error:
                raise error.inside(n) from None

    return validate


def _fail(rule: str, value: Any) -> NoReturn:
    raise ValidationError(f"must {rule}, got {reprlib.repr(value)}")
