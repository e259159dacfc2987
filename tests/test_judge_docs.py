"""Runs what docs/judge.md shows, and compares what it prints."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands import start

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "judge.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```(sh|python|text)\n(.*?)```", TEXT, re.DOTALL)
PRINTED = [code for kind, code in SHOWN if kind == "text"]
COMMANDS = [code for kind, code in SHOWN if kind == "sh" and code.startswith("python")]
(PROGRAM,) = (code for kind, code in SHOWN if kind == "python")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "tours.csv", tmp_path / "examples")
    return tmp_path


def test_the_rows_are_the_files():
    assert (ROOT / "examples" / "tours.csv").read_text().startswith(PRINTED[0])


@pytest.mark.slow
def test_the_commands_end_and_print_as_shown(folder):
    first, second = (start(folder, *shlex.split(command)[1:]).end() for command in COMMANDS)
    assert first.returncode == 0
    said = first.stderr + first.stdout
    assert all(line in said for line in PRINTED[1].splitlines())
    assert second.returncode == 3
    assert (folder / "linear" / "index.html").is_file()


@pytest.mark.slow
def test_the_program_prints_as_shown_and_draws(folder):
    done = start(folder, "-c", PROGRAM).end()
    assert done.stdout == PRINTED[2], done.stderr
    assert (folder / "forest.svg").is_file()
