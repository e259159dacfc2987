"""The page's account of its error: tables that share runs are not independent."""

from pages import report
from until_trees import ALL_LOOKS, BASE, OPEN, WORSE, scores, write_until


def test_runs_in_two_judged_tables_are_told(tmp_path):
    write_until(tmp_path / "runs" / "one", scores(), ALL_LOOKS)
    write_until(tmp_path / "runs" / "two", scores(), ALL_LOOKS)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    told = "stand in more than one of these tables, with the same settings and seed: what the tables show is not indep"
    assert f"24 runs of bn · L1 0.1, bn, bn · L1 0.001 {told}" in page.text


def test_tables_without_a_common_run_have_no_such_note(tmp_path):
    write_until(tmp_path / "runs" / "one", scores(), ALL_LOOKS)
    other = {l1 + 0.01: values for l1, values in scores().items()}
    assert len({BASE, WORSE, OPEN} & set(other)) == 0
    write_until(tmp_path / "runs" / "two", other, [])
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "with the same settings and seed" not in page.text
