import json
from pathlib import Path
from typing import Any

from pages import report
from trees import write_run


def set_environment(run: Path, **facts: Any) -> None:
    path = run / "run.json"
    record = json.loads(path.read_text())
    record["versions"] = {"torch": facts.get("torch", "2.14.1")}
    record["git_commit"] = facts.get("commit", "0123456789abcdef")
    record["device"] = {"name": facts.get("device", "cpu"), "threads": facts.get("threads", 1), "processor": "made up"}
    path.write_text(json.dumps(record))


def test_seeds_that_pair_alike_differ_in_nothing_though_an_arm_spans_two_commits(tmp_path):
    for seed, commit in ((1, "aaaaaaaaaaaa"), (2, "bbbbbbbbbbbb")):
        set_environment(write_run(tmp_path / "runs" / f"a{seed}", seed=seed), commit=commit)
        if seed == 1:
            set_environment(write_run(tmp_path / "runs" / f"b{seed}", seed=seed, l1=0.1), commit=commit)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "commit aaaaaaaaaa, bbbbbbbbbb" in page.text
    assert "Different environments" not in page.text
