"""Bounds of size, depth and types; each violation is one line that names the key."""

import gzip
import json
import os
import tracemalloc
import unicodedata
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.runs.validation import (
    Between,
    ValidationError,
    check,
    gunzip,
    nearest,
    parse_json,
    read_bytes,
    read_json,
    visible,
)


class Inner(TypedDict):
    n: Annotated[int, Between(0, 9, "a whole number")]


class Outer(TypedDict):
    kind: Literal["a", "b"]
    x: float | None
    inner: list[Inner]
    steps: NotRequired[list[tuple[int, float | None]]]
    more: NotRequired[dict[str, Any]]


def good(**changes: Any) -> dict[str, Any]:
    return {"kind": "a", "x": 1, "inner": [{"n": 3}], **changes}


@pytest.mark.parametrize("value", [good(), good(x=None), good(steps=[[1, None], [2, 0.5]]), good(more={}, unknown=[1])])
def test_what_is_of_the_type_passes(value):
    check(value, Outer)


def test_an_absent_key_that_may_be_null_becomes_null():
    value = {"kind": "a", "inner": []}
    check(value, Outer)
    assert value == {"kind": "a", "inner": [], "x": None}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "must be an object, got []"),
        ({"kind": "a"}, "inner is missing"),
        (good(kind="c"), "kind must be one of a, b, got 'c'"),
        (good(kind=[]), "kind must be one of a, b, got []"),
        (good(x="1"), "x must be a number, got '1'"),
        (good(x=True), "x must be a number, got True"),
        (good(inner={}), "inner must be a list, got {}"),
        (good(inner=[{"n": 1}, {"n": 10}]), "inner[1].n must be a whole number from 0 to 9, got 10"),
        (good(inner=[{"n": 1.0}]), "inner[0].n must be a whole number, got 1.0"),
        (good(inner=[{"n": True}]), "inner[0].n must be a whole number, got True"),
        (good(steps=[[1]]), "steps[0] must be a list of 2, got [1]"),
        (good(steps=[[1, "x"]]), "steps[0][1] must be a number, got 'x'"),
    ],
)
def test_what_is_not_of_the_type_is_named_with_its_key_and_rule(value, says):
    with pytest.raises(ValidationError) as error:
        check(value, Outer)
    assert str(error.value) == says


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), ANYTHING, max_size=3), st.sampled_from([0, 40]))
def test_the_nearest_plain_value_of_anything_is_let_in(value, depth):
    for _ in range(depth):
        value = {"a": value}
    plain = nearest(value | {"long": "x" * 200_000, "digits": 10**5000, "bytes": b"\0", "half": "\ud800"})
    content = json.dumps(plain).encode()
    assert nearest(plain) == plain
    assert parse_json(content) == plain


@given(st.text(st.characters()))
def test_a_visible_text_can_be_printed_on_one_line_and_stays_as_it_is(text):
    shown = visible(text)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in shown)
    assert visible(shown) == shown
    assert visible("λ = 0.1, 字 \N{NO-BREAK SPACE}·") == "λ = 0.1, 字 \N{NO-BREAK SPACE}·"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested at most 32 deep"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested at most 32 deep"),
        ('{"a": NaN}', "finite numbers, got NaN"),
        ('{"a": 1e999}', "a must be a finite number, got inf"),
        ('{"a": {"b": 9223372036854775808}}', "a.b must be a whole number of at most 64 bits"),
        ('{"a": ["\\ud800"]}', r"a\[0\] must be a text that can be written as UTF-8"),
        ('{"a": "b\\u0000"}', "without null bytes"),
        (json.dumps({"a": "x" * 100_001}), "a must be a text of at most 100,000 characters"),
        ("[1]", "^must be an object"),
    ],
)
def test_json_that_is_no_plain_object_is_refused(tmp_path, text, says):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValidationError, match=says) as error:
        read_json(tmp_path / "a.json", 1_000_000)
    assert len(str(error.value)) < 300


def test_a_key_that_can_not_be_printed_does_not_break_the_line(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a\n\x1b[31m": 10**30}))
    with pytest.raises(ValidationError) as error:
        read_json(tmp_path / "a.json", 1_000_000)
    assert str(error.value).isprintable()


def test_no_more_than_the_limit_is_read_or_unpacked(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(ValidationError, match="at most 100 bytes"):
        read_bytes(tmp_path / "large", 100)
    packed = gzip.compress(b"\0" * 200_000_000, 1)
    tracemalloc.start()
    with pytest.raises(ValidationError, match="at most 1,000 bytes"):
        gunzip(packed, 1_000)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(ValidationError, match="a regular file"):
        read_bytes(tmp_path / "run.json", 100)
