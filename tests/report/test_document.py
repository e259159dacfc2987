"""A document in Markdown and in LaTeX, and the tables for a paper, compiled where pdflatex is there."""

import re
import shutil
import subprocess

import pytest
from pages import BN, L1, balanced, report
from trees import write_arms

from reg_sweep.report.document import (
    Bullets,
    Code,
    Formulas,
    Heading,
    Image,
    Prose,
    Table,
    as_latex,
    as_markdown,
    escaped,
)

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


@pytest.mark.parametrize(
    ("text", "set_as"),
    [
        ("a_b & 5% #1 $x", r"a\_b \& 5\% \#1 \$x"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("a\nb\ud800", r"a b\textbackslash{}ud800"),
    ],
)
def test_no_mark_of_a_label_commands_anything(text, set_as):
    assert escaped(text) == set_as


def test_only_what_is_shown_is_bold_and_no_table_for_a_paper_is_written_unasked(tmp_path):
    write_arms(tmp_path / "a", {BN: [0.95, 0.951, 0.949, 0.95], L1: [0.80, 0.802, 0.799, 0.80]})
    write_arms(tmp_path / "b", {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.91, 0.92]})
    for name, is_bold in (("a", True), ("b", False)):
        out = tmp_path / "out" / name
        report(tmp_path / name, out=out)
        assert not list(out.glob("*.tex"))
        report(tmp_path / name, out=out, latex=True)
        text = (out / "differences.tex").read_text(encoding="utf-8")
        assert (r"\textbf{worse}" in text) is (r"\textbf" in text) is is_bold
        arms = (out / "arms.tex").read_text(encoding="utf-8")
        assert arms.count(r" \\") == 3
        assert r"\toprule" in arms
