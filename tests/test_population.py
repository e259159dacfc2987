"""`+cluster=population`: grids and studies whose runs train together, each with the folder that it has alone."""

import signal
from pathlib import Path

import commands
import pytest
from commands import TINY, check_run
from once import made_once
from safetensors.numpy import load_file
from waiting import wait_until

from reg_sweep.runs.reading import read_metrics, read_record
from reg_sweep.runs.study import read_study

POPULATION = ["+cluster=population", "runtime.device=cpu", "report=false", "name=it", *TINY]
GRID = ["-m", "norm=bn,gbn", "seed=1,2", *POPULATION]
TRAIN = ["-m", "reg_sweep.train", *GRID, "epochs=6"]
IT = Path("outputs/it")


def records(folder: Path = IT) -> list[dict]:
    return [read_record(path.parent) for path in sorted(folder.glob("[0-9]*/run.json"))]


def test_each_run_of_a_grid_has_its_own_folder_log_and_record(start, caplog):
    assert start(*GRID) == 0
    made = records()
    arms = [("bn", 1), ("bn", 2), ("gbn", 1), ("gbn", 2)]
    assert [(r["config"]["norm"]["name"], r["config"]["seed"]) for r in made] == arms
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


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, dict]:
    """The weights of a population that nothing stopped."""

    def make() -> dict[str, dict]:
        folder = tmp_path_factory.mktemp("unbroken")
        check_run(folder, *TRAIN)
        return _weights(folder / IT)

    return made_once(tmp_path_factory, "unbroken population", make)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_population_that_is_stopped_resumes_with_the_same_bits(tmp_path, unbroken, number):
    command = commands.start(tmp_path, *TRAIN)
    wait_until(lambda: len(list((tmp_path / IT).glob("*/checkpoint.pt"))) == 4, "first checkpoints", 120)
    command.send(number)
    stopped = command.end()
    assert stopped.returncode != 0
    assert "running" in {record["status"] for record in records(tmp_path / IT)}
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert "stopped; continue with" in stopped.stderr
        assert "stopped by SIGINT after" in records(tmp_path / IT)[0]["message"]
    assert "resuming after epoch" in check_run(tmp_path, *TRAIN).stdout
    resumed = _weights(tmp_path / IT)
    assert unbroken.keys() == resumed.keys() == {"0", "1", "2", "3"}
    for name, tensors in unbroken.items():
        assert all((tensors[key] == resumed[name][key]).all() for key in tensors)
