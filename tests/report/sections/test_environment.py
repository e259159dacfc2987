import json
from pathlib import Path
from typing import Any

import pytest
from pages import report
from trees import write_run

from reg_sweep.config.schema import RuntimeConfig


def set_environment(run: Path, **facts: Any) -> None:
    path = run / "run.json"
    record = json.loads(path.read_text())
    record["versions"] = {"torch": facts.get("torch", "2.14.1")}
    record["git_commit"] = facts.get("commit", "0123456789abcdef")
    record["device"] = {"name": facts.get("device", "cpu"), "threads": facts.get("threads", 1), "processor": "made up"}
    path.write_text(json.dumps(record))


def test_device_threads_versions_and_commit_reach_the_page(tmp_path):
    set_environment(write_run(tmp_path / "runs" / "a"))
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    for told in ("device cpu", "threads 1", "processor made up", "torch 2.14.1", "commit 0123456789"):
        assert told in page.text
    assert "Not computed alike" not in page.text


def test_an_arm_that_several_processes_trained_is_another_arm_and_marked(tmp_path):
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b", runtime=RuntimeConfig(ranks=2))
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Not computed alike: bn · ranks 2 differ from the baseline in ranks." in page.text
    assert "ranks 2 (baseline 1)" in page.text


@pytest.mark.slow
def test_an_arm_that_was_computed_otherwise_is_marked_and_said_in_what(tmp_path):
    for seed in (1, 2):
        set_environment(write_run(tmp_path / "runs" / f"a{seed}", seed=seed))
        set_environment(write_run(tmp_path / "runs" / f"b{seed}", seed=seed, l1=0.1), torch="2.7.0", threads=2)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Not computed alike: bn · L1 0.1 differ from the baseline in threads, torch." in page.text
    assert "threads 2 (baseline 1); torch 2.7.0 (baseline 2.14.1)" in page.text
    assert "other threads, torch" in page.text


def test_seeds_that_pair_alike_differ_in_nothing_though_an_arm_spans_two_commits(tmp_path):
    for seed, commit in ((1, "aaaaaaaaaaaa"), (2, "bbbbbbbbbbbb")):
        set_environment(write_run(tmp_path / "runs" / f"a{seed}", seed=seed), commit=commit)
        if seed == 1:
            set_environment(write_run(tmp_path / "runs" / f"b{seed}", seed=seed, l1=0.1), commit=commit)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "commit aaaaaaaaaa, bbbbbbbbbb" in page.text
    assert "Not computed alike" not in page.text
