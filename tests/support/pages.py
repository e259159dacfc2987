"""Makes reports, and parses their pages for tests."""

import contextlib
import csv
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

from reg_sweep.report import write_report
from reg_sweep.report.figures.theme import Picture, Rendered

VOID = {"meta", "link", "br", "input", "img", "hr"}

BN, L1 = ("bn", 0.0, 0.0), ("bn", 0.001, 0.0)


class Page(HTMLParser):
    """A page's text, addresses and ids. Fails if a tag is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self._open
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)


def _blank(picture: Picture, forms: list[str]) -> Rendered:
    return Rendered(dict.fromkeys(forms, b""), f'<svg aria-label="{picture.alt}"/>')


@contextlib.contextmanager
def blank_pictures() -> Iterator[None]:
    """Makes reports without drawing, which takes most of their time, and without processes for drawing."""
    with (
        mock.patch("reg_sweep.report.figures.theme.rendered", _blank),
        mock.patch("reg_sweep.report.canvas._n_processes", return_value=1),
    ):
        yield


def report(*roots: Path, out: Path, is_drawn: bool = False, **options) -> tuple[Page, str]:
    """Writes a report; returns its page and verdict. Pictures are blank unless `is_drawn`."""
    with contextlib.nullcontext() if is_drawn else blank_pictures():
        made = write_report(roots, out, progress=False, **options)
    return Page(made.page), made.verdict


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def balanced(latex: str) -> None:
    """Asserts that braces, environments and dollar signs are balanced."""
    bare = re.sub(r"\\[\\{}$%&#_]", "", latex)
    bare = re.sub(r"%.*", "", bare)
    depth = 0
    for mark in re.findall(r"[{}]", bare):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", bare):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
