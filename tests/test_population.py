"""`+cluster=population`: grids and studies whose runs train together, each with the folder that it has alone."""

import signal
from pathlib import Path

import pytest
from commands import TINY, start_train
from safetensors.numpy import load_file
from waiting import wait_until

from reg_sweep.runs.reading import read_metrics, read_record
from reg_sweep.runs.study import read_study

POPULATION = ["+cluster=population", "runtime.device=cpu", "report=false", "name=it", *TINY]
GRID = ["-m", "norm=bn,gbn", "seed=1,2", *POPULATION]
IT = Path("outputs/it")


def records(folder: Path = IT) -> list[dict]:
    return [read_record(path.parent) for path in sorted(folder.glob("[0-9]*/run.json"))]


def test_each_run_of_a_grid_has_its_own_folder_log_and_record(start, caplog):
    assert start(*GRID) == 0
    made = records()
    assert [(r["config"]["norm"]["name"], r["config"]["seed"]) for r in made] == [
        ("bn", 1),
        ("bn", 2),
        ("gbn", 1),
        ("gbn", 2),
    ]
    assert {r["status"] for r in made} == {"complete"}
    assert all(r["device"]["population"] for r in made)
    for i, record in enumerate(made):
        folder = IT / str(i)
        assert len(read_metrics(folder)) == 2
        assert {"weights.safetensors", "predictions.npz", ".hydra"} <= {path.name for path in folder.iterdir()}
        lines = (folder / "train.log").read_text().splitlines()
        assert sum(f"[{i}] epoch" in line for line in lines) == 2
        assert not any(f"[{other}] epoch" in line for line in lines for other in range(4) if other != i)
        assert f"seed={record['config']['seed']}" in (folder / ".hydra/overrides.yaml").read_text()
    # The same command again trains nothing.
    before = (IT / "0/run.json").read_text()
    assert start(*GRID) == 0
    assert (IT / "0/run.json").read_text() == before


def test_a_run_that_is_in_the_grid_twice_waits_for_itself(start):
    assert start("-m", "seed=1,1", *POPULATION) == 0
    assert [record["config"]["seed"] for record in records()] == [1]


def test_a_studys_trials_report_are_pruned_and_end_by_themselves(start):
    median = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2"]
    median += ["hydra.sweeper.pruner.n_warmup_steps=0"]
    rates = ", ".join(f"{{optimizer.lr: {rate}}}" for rate in (0.1, 0.09, 0.11, 1e-9))
    swept = ["study=optuna", "optimizer.lr=interval(1e-9, 0.2)", f"hydra.sweeper.enqueue=[{rates}]", *median]
    assert start(*swept, *POPULATION, "hydra.sweeper.n_trials=4", "epochs=3", "hydra.launcher.members=2") == 0
    study = read_study(IT / "study.json")
    assert [trial.state for trial in study.trials] == ["complete", "complete", "pruned", "pruned"]
    for trial, record in zip(study.trials, records(), strict=True):
        assert record["status"] == trial.state
        assert record["trial"]["number"] == trial.number
        if trial.state == "complete":
            assert list(trial.values) == [record["last"]["val_loss"]]


def _weights(folder: Path) -> dict[str, dict]:
    return {path.parent.name: load_file(path) for path in sorted(folder.glob("*/weights.safetensors"))}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_population_that_is_stopped_goes_on_with_the_same_bits(tmp_path, number):
    longer = ["epochs=6"]
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    done = start_train(tmp_path / "whole", *GRID, *longer).end()
    assert done.returncode == 0, done.stdout + done.stderr
    cut = tmp_path / "cut"
    command = start_train(cut, *GRID, *longer)
    wait_until(lambda: len(list((cut / IT).glob("*/checkpoint.pt"))) == 4, "first checkpoints", 120)
    command.send(number)
    stopped = command.end()
    assert stopped.returncode != 0
    statuses = {record["status"] for record in records(cut / IT)}
    assert "running" in statuses
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert "stopped; continue with" in stopped.stderr
        assert "stopped by SIGINT after" in records(cut / IT)[0]["message"]
    again = start_train(cut, *GRID, *longer).end()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "continuing after epoch" in again.stdout
    whole, resumed = _weights(tmp_path / "whole" / IT), _weights(cut / IT)
    assert whole.keys() == resumed.keys() == {"0", "1", "2", "3"}
    for name, tensors in whole.items():
        assert all((tensors[key] == resumed[name][key]).all() for key in tensors)
