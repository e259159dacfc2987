"""Snapshots of reference pages as lines of text, in tests/snapshots/NAME.txt.

`REG_SWEEP_SNAPSHOTS=renew .venv/bin/python -m pytest tests/report/test_snapshots.py` renews them. Read the difference
(`git diff tests/snapshots`) before you commit it: it shows how the page changes for its readers.
"""

import difflib
import os
import re
from html.parser import HTMLParser
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "snapshots"
IS_RENEWED = os.environ.get("REG_SWEEP_SNAPSHOTS") == "renew"
OF_A_LINE = {"td", "th", "span", "a", "b", "i", "em", "code", "button", "label", "sub", "sup", "input", "strong", "svg"}


class _Text(HTMLParser):
    """The words of a page, with a label for each picture."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._skips = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("style", "script"):
            self._skips += 1
        label = dict(attributes).get("aria-label")
        self.said.append("\n" if tag not in OF_A_LINE else " | " if tag in ("td", "th") else "")
        if tag == "svg" and label:
            self.said.append(f"\n[{label}]\n")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._skips -= 1
        if tag not in OF_A_LINE:
            self.said.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._skips:
            self.said.append(" ".join(re.split(r"[ \n\t]+", data)))


def text_of(page: Path, root: Path) -> str:
    """The page's lines, without what differs between machines: paths, times, versions."""
    parser = _Text()
    parser.feed(page.read_text(encoding="utf-8"))
    lines = (" ".join(line.split()) for line in "".join(parser.said).splitlines())
    text = "\n".join(line for line in lines if line) + "\n"
    text = text.replace(str(root), "ROOT")
    return re.sub(r"Written .*? by reg_sweep \S+", "Written TIME by reg_sweep VERSION", text)


def check_snapshot(name: str, text: str) -> None:
    """Asserts that the text equals the snapshot of this name."""
    kept = FOLDER / f"{name}.txt"
    if IS_RENEWED:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(text, encoding="utf-8")
    before = kept.read_text(encoding="utf-8")
    if text != before:
        changed = difflib.unified_diff(before.splitlines(), text.splitlines(), "kept", "now", lineterm="", n=1)
        raise AssertionError(
            "\n".join([*changed, "", "renew with REG_SWEEP_SNAPSHOTS=renew: tests/support/snapshots.py"])
        )
