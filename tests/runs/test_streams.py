"""Standard streams that are closed, full or narrow lose text, and end nothing."""

import io
import os
import subprocess
import sys

import pytest

from reg_sweep.runs.streams import say

LOSES = """
import sys
from reg_sweep.runs.streams import lossy_streams
with lossy_streams():
    print('lost' * 10_000)
    print('lost', file=sys.stderr, flush=True)
"""
SAYS = """
import sys
from reg_sweep.runs.streams import open_closed_streams, say
open_closed_streams()
opened = open(sys.argv[1], "w")
assert opened.fileno() > 2
lost = say("lost" * 100_000, sys.stdout)  # more than a pipe holds
again = say("again", sys.stdout)
opened.write(f"{type(lost).__name__} {type(again).__name__}")
opened.close()
"""


def in_shell(code, redirect, *words):
    """Runs Python code under a shell's redirection; it must end well, and print nothing more."""
    script = f'"$0" -W error -c "$@" {redirect}'
    done = subprocess.run(["sh", "-c", script, sys.executable, code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
@pytest.mark.parametrize("redirect", [">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_within_lossy_streams_nothing_that_is_printed_ends_the_program(redirect):
    in_shell(LOSES, redirect)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
@pytest.mark.parametrize(
    ("redirect", "errors"),
    [
        ("", "NoneType NoneType"),
        (">&-", "NoneType NoneType"),
        ("<&- >&- 2>&-", "NoneType NoneType"),
        (">/dev/full", "OSError NoneType"),
        ("| true", "BrokenPipeError NoneType"),
    ],
)
def test_a_text_that_cannot_be_printed_is_reported_once(tmp_path, redirect, errors):
    in_shell(SAYS, redirect, str(tmp_path / "found"))
    assert (tmp_path / "found").read_text() == errors


def test_characters_that_control_a_terminal_or_that_it_cannot_show_are_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert say("\u03bb = 1\n\x1b[31mred", stream) is None
    assert stream.buffer.getvalue() == b"\\u03bb = 1\n\\x1b[31mred\n"


def test_a_stream_that_was_closed_before_the_start_prints_nothing():
    assert say("nothing", None) is None
