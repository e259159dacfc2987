"""What the texts for contributors name is there: files that they send a reader to, and the targets of make."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = ["CONTRIBUTING.md", "docs/architecture.md", "docs/training.md", "README.md"]
FOLDERS = ("benchmarks", "conf", "docs", "examples", "hydra_plugins", "reg_sweep", "reproduction", "tests", ".github")


def named(text: str) -> list[str]:
    """The paths in a text's code spans, those of a kind (NAME) left out."""
    spans = re.findall(r"`([\w./-]+)`", (ROOT / text).read_text())
    return [s for s in dict.fromkeys(spans) if s.split("/")[0] in FOLDERS and "/" in s and "NAME" not in s]


@pytest.mark.parametrize("text", TEXTS)
def test_every_path_that_a_text_names_is_there(text):
    assert [path for path in named(text) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("text", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_texts_for_contributors_name_paths(text):
    assert len(named(text)) > 10


@pytest.mark.parametrize("text", TEXTS)
def test_every_target_of_make_that_a_text_names_is_there(text):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / text).read_text(), re.MULTILINE)) <= targets
