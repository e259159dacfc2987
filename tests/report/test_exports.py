import sys
from pathlib import Path

import pytest
from pages import BN, L1, report, rows
from trees import write_arms, write_run

from reg_sweep.report.exports import failures


@pytest.fixture
def made(tmp_path) -> Path:
    """The report of two arms of three seeds, and of a third arm's runs of every other status."""
    write_arms(tmp_path / "runs", {BN: [0.90, 0.91, 0.92], L1: [0.93, 0.92, 0.94]})
    for seed, status in enumerate(("running", "pruned", "diverged", "failed")):
        write_run(tmp_path / "runs" / status, l1=0.1, seed=seed, status=status)
    report(tmp_path / "runs", out=tmp_path / "report")
    return tmp_path / "report"


def test_the_tables_beside_the_page_have_a_row_for_each_arm_and_run(made):
    arms, runs = rows(made / "summary.csv"), rows(made / "runs.csv")
    assert len(runs) == 10
    assert {r["arm"] for r in runs} == {a["arm"] for a in arms}
    assert sum(int(a["n_seeds"]) for a in arms) == 6
    assert sum(a["is_baseline"] == "True" for a in arms) == 1
    measured = [r for r in runs if r["status"] == "complete" and r["arm"] == arms[0]["arm"]]
    mean = sum(float(r["test_accuracy"]) for r in measured) / len(measured)
    assert float(arms[0]["test_accuracy"]) == pytest.approx(mean)


def test_the_summary_counts_every_status_and_says_which_arm_diverged(made):
    text = (made / "summary.md").read_text(encoding="utf-8")
    assert "10 runs: 6 complete, 1 pruned, 1 diverged, 1 failed, 1 running." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| bn · L1 0.1 |")]
    assert row.startswith("| bn · L1 0.1 | 0 (1 pruned, 1 diverged, 1 failed, 1 running) |")
    assert "| pruned, diverged, failed, running (1 of 4 diverged) |" in row


def test_intervals_end_where_an_accuracy_or_a_loss_ends(tmp_path):
    for seed, (accuracy, loss) in enumerate([(0.99, 0.01), (0.90, 0.2)], 1):
        write_run(tmp_path / "runs" / str(seed), seed=seed, accuracy=accuracy, loss=loss)
    report(tmp_path / "runs", out=tmp_path / "report")
    summary = (tmp_path / "report" / "summary.md").read_text()
    assert "to 100.00]" in summary
    assert "[0.0000 to" in summary


def test_without_pyarrow_no_parquet_is_written_and_nothing_is_said_of_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert not (tmp_path / "report" / "runs.parquet").exists()
    assert "parquet" not in page.text


def table(*verdicts):
    arms = [{"arm": f"a{i}", "verdict": verdict} for i, verdict in enumerate(verdicts)]
    return {"label": "MNIST", "baseline": "bn", "arms": [{"arm": "bn", "verdict": None}, *arms]}


def test_a_page_where_everything_is_exploratory_fails_a_check_for_the_undecided_and_no_other():
    tables = [table("exploratory", "exploratory"), table("exploratory")]
    assert failures(tables, ["undecided"]) == ["no arm is judged against a baseline: all figures are exploratory"]
    assert failures(tables, ["worse"]) == []
    assert failures([table()], ["undecided"]) == ["no arm is judged against a baseline"]


def test_an_exploratory_arm_beside_judged_ones_is_no_failure():
    assert failures([table("exploratory", "better")], ["worse", "undecided"]) == []
    assert len(failures([table("exploratory", "undecided")], ["worse", "undecided"])) == 1
