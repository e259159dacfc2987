"""python -m reg_sweep.compact: the files it writes, and its errors."""

import json
import sys
from pathlib import Path
from shlex import quote

import pytest
import torch
from safetensors.torch import load_file, save_file
from sparse_runs import tiny, write_sparse_run

import reg_sweep
from reg_sweep.compact import load_compact
from reg_sweep.compact.__main__ import main
from reg_sweep.config.rules import ConfigError
from reg_sweep.runs.record import RUN_FILE, WEIGHTS_FILE
from reg_sweep.training.run import train

pytest.importorskip("torch_pruning")
pytestmark = pytest.mark.usefixtures("timed_here")


@pytest.fixture
def run(tmp_path):
    """A finished run whose first layer has two zero channels."""
    return write_sparse_run(tmp_path / "outputs" / "it's sparse")


def test_a_run_gets_its_compact_network_beside_it_which_may_be_another_runs_model(run, tmp_path, capsys):
    assert main([str(run), "--seconds", "0"]) == 0
    said = capsys.readouterr().out
    record = json.loads((run / "compact" / "compact.json").read_text())
    assert "linears.0" in said
    assert "8 -> 6" in said
    assert record["n_removed"] == 2
    assert record["sizes"]["compact"]["multiply_adds"] == 6 * 784 + 8 * 6 + 10 * 8
    told = {(t["norms"], t["batch"], t["threads"]) for t in record["latencies"]}
    assert told >= {("kept", 1, 1), ("kept", 128, 1)}
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        dense, small = reg_sweep.load_model(run, "cpu")(x), load_compact(run)(x)
        assert torch.equal(load_compact(run / "compact")(x), small)
    torch.testing.assert_close(small, dense, rtol=1e-4, atol=1e-5)
    if torch.__version__.startswith("2.7."):  # its exporter does not support a dynamic batch size here
        assert record["program"].startswith("not written: ")
    else:
        assert told >= {("folded", 1, 1), ("folded", 128, 1)}
        assert "norms folded in both" in said
        program = torch.export.load(run / "compact" / "program.pt2").module()
        torch.testing.assert_close(program(x).detach(), dense, rtol=1e-4, atol=1e-5)
    assert main([str(run)]) == 0
    assert "already" in capsys.readouterr().out
    config = tiny({"_target_": "reg_sweep.compacted", "run": str(run)})
    assert train(config, tmp_path / "finer", lambda: None, "python -m reg_sweep.train")["status"] == "complete"
    assert reg_sweep.load_model(tmp_path / "finer", "cpu").linears[0].out_features == 6


def without_zeros(weights: Path) -> None:
    save_file({k: t + (t == 0) for k, t in load_file(weights).items()}, weights)


SPOILED = {
    "no run": (lambda run: (run / RUN_FILE).unlink(), "must be a run's directory, got no run"),
    "torn": (lambda run: (run / WEIGHTS_FILE).write_bytes(b"torn"), "must hold the run's weights, got a damaged file"),
    "another model's": (
        lambda run: save_file({"other": torch.ones(3)}, run / WEIGHTS_FILE),
        "must fit 'reg_sweep.Mlp'",
    ),
    "no zeros": (
        lambda run: without_zeros(run / WEIGHTS_FILE),
        "exactly zero, got none: train it with penalty=channels",
    ),
}


@pytest.mark.parametrize(("spoil", "says"), SPOILED.values(), ids=SPOILED)
def test_a_run_that_has_no_compact_network_is_refused_in_one_line(run, capsys, spoil, says):
    spoil(run)
    assert main([str(run)]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (run / "compact").exists()


DAMAGED = {
    "torn": lambda record: '{"schema": 2, "in_sh',
    "no object": lambda record: "[]",
    "no shape": lambda record: {k: v for k, v in record.items() if k != "in_shape"},
    "a shape of two numbers": lambda record: record | {"in_shape": [1, 28]},
    "a shape of text": lambda record: record | {"in_shape": ["1", "28", "28"]},
    "no sizes": lambda record: record | {"sizes": {}},
}


def test_a_damaged_record_of_a_compact_network_is_one_line_that_says_what_replaces_it(run, capsys):
    assert main([str(run), "--seconds", "0"]) == 0
    path = run / "compact" / "compact.json"
    record = json.loads(path.read_text())
    for damage in DAMAGED.values():
        damaged = damage(record)
        path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
        with pytest.raises(ConfigError, match="must be the record of a compact network, got a damaged file"):
            load_compact(run)
        capsys.readouterr()
        assert main([str(run)]) == 2
        said = capsys.readouterr().err
        assert said.endswith(f"python -m reg_sweep.compact {quote(str(run))} --again replaces it\n")
        assert said.count("\n") == 1
    assert main([str(run), "--seconds", "0", "--again"]) == 0
    load_compact(run)


def test_onnx_without_its_package_is_refused_before_any_work(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", torch)
    assert main([str(run), "--onnx"]) == 2
    assert "pip install 'reg_sweep[onnx]'" in capsys.readouterr().err
    assert not (run / "compact").exists()
