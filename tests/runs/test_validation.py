"""What is let in: bounds of size and depth, and types, said in one line that names the key."""

import gzip
import json
import os
import tracemalloc
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.runs import validation
from reg_sweep.runs.validation import Between, BorderError, check, gunzip, read_bytes, read_json


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
        ([], " must be an object, got []"),
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
    with pytest.raises(BorderError) as error:
        check(value, Outer)
    assert str(error.value) == says


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 12)
    | st.floats(width=16)
    | st.sampled_from(["a", "c", "n\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["n", "x", "\0"]), inner, max_size=3),
    max_leaves=8,
)


@given(
    PLAIN
    | st.fixed_dictionaries({"kind": st.sampled_from("ac"), "x": PLAIN, "inner": PLAIN}, optional={"steps": PLAIN})
)
def test_what_surely_is_of_a_type_or_plain_is_what_a_closer_look_lets_pass(value):
    for kind in (Outer, Inner, list[Inner], dict[str, float | None], Annotated[str, Between(1, 1, "text")], int | str):
        if validation._surely(kind)(value):
            with pytest.MonkeyPatch.context() as closer:
                closer.setattr(validation, "_surely", lambda _: lambda _: False)
                check(value, kind)
    if isinstance(value, dict | list) and validation._is_plain(value, 0):
        validation._check_plain(value, "", 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested at most 32 deep"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "nested at most 32 deep"),
        ('{"a": NaN}', "finite numbers, got NaN"),
        ('{"a": 1e999}', "a must be a finite number, got inf"),
        ('{"a": {"b": 9223372036854775808}}', "a.b must be a whole number of at most 64 bits"),
        ('{"a": ["\\ud800"]}', "a must hold texts that can be written as UTF-8"),
        ('{"a": "b\\u0000"}', "without null bytes"),
        (json.dumps({"a": "x" * 100_001}), "texts of at most 100,000 characters"),
        ("[1]", "it must be an object"),
    ],
)
def test_json_that_is_no_plain_object_is_refused(tmp_path, text, says):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BorderError, match=says) as error:
        read_json(tmp_path / "a.json", 1_000_000)
    assert len(str(error.value)) < 300


def test_a_key_that_can_not_be_printed_does_not_break_the_line(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a\n\x1b[31m": 10**30}))
    with pytest.raises(BorderError) as error:
        read_json(tmp_path / "a.json", 1_000_000)
    assert str(error.value).isprintable()


def test_no_more_than_the_limit_is_read_or_unpacked(tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 101)
    with pytest.raises(BorderError, match="at most 100 bytes"):
        read_bytes(tmp_path / "large", 100)
    packed = gzip.compress(b"\0" * 200_000_000, 1)
    tracemalloc.start()
    with pytest.raises(BorderError, match="at most 1,000 bytes"):
        gunzip(packed, 1_000)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(BorderError, match="a regular file"):
        read_bytes(tmp_path / "run.json", 100)
