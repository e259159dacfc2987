import pytest
from pages import BN, L1, report
from trees import write_arms

from reg_sweep.report.latex import escaped


@pytest.mark.parametrize(
    ("text", "set_as"),
    [("a_b & 5% #1 $x", r"a\_b \& 5\% \#1 \$x"), ("\\input{x}", r"\textbackslash{}input\{x\}"), ("a\nb\ud800", None)],
)
def test_no_mark_of_a_label_commands_anything(text, set_as):
    assert escaped(text) == (r"a b\textbackslash{}ud800" if set_as is None else set_as)


def test_only_what_is_shown_is_bold(tmp_path):
    write_arms(tmp_path / "a", {BN: [0.95, 0.951, 0.949, 0.95], L1: [0.80, 0.802, 0.799, 0.80]})
    write_arms(tmp_path / "b", {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.91, 0.92]})
    for name, is_bold in (("a", True), ("b", False)):
        report(tmp_path / name, out=tmp_path / "out" / name, latex=True)
        text = (tmp_path / "out" / name / "differences.tex").read_text(encoding="utf-8")
        assert (r"\textbf{worse}" in text) is is_bold
        assert (r"\textbf" in text) is is_bold
        arms = (tmp_path / "out" / name / "arms.tex").read_text(encoding="utf-8")
        assert arms.count(r" \\") == 3
        assert r"\toprule" in arms


def test_without_being_asked_no_table_for_a_paper_is_written(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.9, 0.91]})
    report(tmp_path / "runs", out=tmp_path / "report")
    assert not list((tmp_path / "report").glob("*.tex"))
