"""A document's blocks in Markdown and in LaTeX: nothing in a text is mark-up, and LaTeX's structure is balanced."""

import re
import shutil
import subprocess

import pytest
from pages import balanced

from reg_sweep.report.document import Bullets, Code, Formulas, Heading, Image, Prose, as_latex, as_markdown
from reg_sweep.report.latex import Table

EVIL = r"\input{x} $5 & 50% #1 a_b ~ ^ {} <b> [x](y) | `code` *it* '→' λ₁ ± ×"
BLOCKS = [
    Heading(EVIL),
    Prose(EVIL, EVIL),
    Bullets([EVIL, "two"]),
    Table(EVIL, "lr", [EVIL, "n"], [[EVIL, "1"], ["b", "2"]], frozenset({(0, 1)})),
    Image("curves", EVIL),
    Code(["python -m reg_sweep.train " + "norm=bn " * 12]),
    Formulas([("L1", r"J + \lambda_1 \, \sum_{w} \, |w|")]),
]


def test_a_text_is_no_markup_in_markdown():
    text = as_markdown(EVIL, BLOCKS)
    assert "<b>" not in text
    assert "[x](y)" not in text
    assert text.count("![curves](figures/curves.png)") == 1
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "**1**" in text
    assert "\n    python -m reg_sweep.train norm=bn " in text


def test_latex_is_balanced_and_no_text_commands_anything():
    text = as_latex(EVIL, BLOCKS)
    balanced(text)
    assert r"\input" not in text
    assert r"\includegraphics{figures/curves.pdf}" in text
    assert r"\textbf{1}" in text
    assert text.index(r"\begin{document}") < text.index(r"\maketitle") < text.index(r"\end{document}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    blocks = [block for block in BLOCKS if not isinstance(block, Image)]
    (tmp_path / "text.tex").write_text(as_latex(EVIL, blocks), encoding="utf-8")
    line = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "text.tex"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
