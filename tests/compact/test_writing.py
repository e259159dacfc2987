"""The summary of the compact networks of an arm's runs."""

import json

import pytest
from sparse_runs import write_sparse_run

pytest.importorskip("torch_pruning")
from reg_sweep.compact.writing import compact_arm, share, speed


def test_each_run_gets_its_compact_network_and_the_best_on_val_is_named(tmp_path, monkeypatch, timed_here):
    monkeypatch.chdir(tmp_path)
    runs = [write_sparse_run(tmp_path / str(i), n_zero=n) for i, n in enumerate((2, 4, 0))]
    for run, accuracy in zip(runs, (0.3, 0.7, 0.9), strict=True):
        record = json.loads((run / "run.json").read_text())
        record["last"]["val_accuracy"] = accuracy
        (run / "run.json").write_text(json.dumps(record))
    refused, sizes, best = compact_arm(runs, seconds=0).splitlines()
    assert refused.startswith(f"no compact network: {runs[2]}: the network must have channels that are exactly zero")
    assert sizes.startswith("compact networks of 2 seeds: 63 (51 to 75)% of the multiply-adds, ")
    assert sizes.endswith(" times as fast (batch 128, one thread)")
    assert best == "the best of them on val: 1/compact"
    record = json.loads((runs[0] / "compact" / "compact.json").read_text())
    assert share(record) == (6 * 784 + 8 * 6 + 8 * 10) / (8 * 784 + 8 * 8 + 8 * 10)
    assert speed(record) > 0
    if record["program"] == "program.pt2":  # torch 2.7's exporter fails here
        assert speed(record, "folded", 1) > 0
