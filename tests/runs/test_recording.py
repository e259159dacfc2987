"""Runs of other training loops: recorded as they go, resumed, never overwritten, and read back as they were logged."""

import json
import math
import os
import signal
import subprocess
import sys
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest
from trees import write_run

from reg_sweep import read_runs, record_run
from reg_sweep.config.rules import ConfigError
from reg_sweep.runs.arrays import read_predictions
from reg_sweep.runs.reading import read_recorded
from reg_sweep.runs.record import RecordError

CONFIG = {"method": "gbn", "opt": {"lr": 0.1, "betas": [0.9, 0.99]}}


def recorded(folder, *, config=CONFIG, seed=1, epochs=(1, 2), **metrics):
    with record_run(folder, config, seed) as run:
        for epoch in epochs:
            run.log(epoch, **({"val/acc": 0.5 + 0.1 * epoch} | metrics))
    return read_runs(folder)[0]


def test_a_run_is_read_back_as_it_was_logged(tmp_path):
    run = recorded(tmp_path / "a", loss=None)
    assert (run.status, run.seed, run.config) == ("complete", 1, CONFIG)
    assert run.metrics == [{"epoch": 1, "val/acc": 0.6, "loss": None}, {"epoch": 2, "val/acc": 0.7, "loss": None}]
    assert run.record["last"] == run.metrics[-1]
    assert recorded(tmp_path / "b", seed=2).arm == run.arm != recorded(tmp_path / "c", config={"lr": 2}).arm


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (99, r"written by a newer reg_sweep \(schema 99, this one reads up to 1\): upgrade reg_sweep"),
        ("1", "not a record of record_run"),
        (None, "not a record of record_run"),
    ],
)
def test_only_a_record_of_a_newer_schema_is_called_newer(tmp_path, schema, says):
    recorded(tmp_path / "a")
    path = tmp_path / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(RecordError, match=says):
        read_recorded(tmp_path / "a")


@pytest.mark.parametrize(("error", "status"), [(ValueError("broke\nhere"), "failed"), (KeyboardInterrupt(), "running")])
def test_a_run_that_raised_failed_and_one_that_was_interrupted_runs(tmp_path, error, status):
    def train():
        with record_run(tmp_path, CONFIG, 1) as run:
            run.log(1, acc=0.5)
            raise error

    with pytest.raises(type(error)):
        train()
    (found,) = read_runs(tmp_path)
    assert (found.status, found.record["last"]) == (status, {"epoch": 1, "acc": 0.5})
    assert found.record["message"] == ("ValueError: broke here" if status == "failed" else None)


@pytest.mark.slow
def test_a_killed_run_is_running_and_resumes_where_it_was(tmp_path):
    code = f"""
import os, signal
from reg_sweep import record_run
with record_run({str(tmp_path)!r}, {{"lr": 1}}, 1) as run:
    for epoch in (1, 2):
        run.log(epoch, acc=0.1 * epoch)
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3.0,0.")  # a torn line
    assert read_runs(tmp_path)[0].status == "running"
    with record_run(tmp_path, {"lr": 1}, 1) as run:
        assert run.epochs_done == 2
        run.log(2, acc=0.25, loss=1.0)  # its own checkpoint is older: that epoch is trained, and logged, again
        run.log(3, acc=0.3)
    (found,) = read_runs(tmp_path)
    assert found.status == "complete"
    assert [(r["epoch"], r["acc"], r["loss"]) for r in found.metrics] == [(1, 0.1, None), (2, 0.25, 1), (3, 0.3, None)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_last_value_that_is_not_finite_is_a_divergence(tmp_path, value):
    run = recorded(tmp_path, loss=value)
    assert run.status == "diverged"
    assert not math.isfinite(run.metrics[-1]["loss"])


def test_a_finished_run_is_never_changed(tmp_path):
    recorded(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with record_run(tmp_path, CONFIG, 1) as run:
        assert run.is_complete
        assert list(range(run.epochs_done + 1, 3)) == []
    with pytest.raises(ConfigError, match="must be unfinished to log epoch 3, got a complete run"):
        recorded(tmp_path, epochs=[3])
    with pytest.raises(ConfigError, match=r"holds another run \(opt.lr 0.1 there, 0.2 here\): choose another folder"):
        recorded(tmp_path, config={**CONFIG, "opt": {"lr": 0.2, "betas": [0.9, 0.99]}})
    with pytest.raises(ConfigError, match=r"holds another run \(seed 1 there, 2 here\)"):
        recorded(tmp_path, seed=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_trainers_runs_and_other_programs_files_are_left_alone(tmp_path):
    write_run(tmp_path / "own")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.csv").write_text("mine")
    for name in ("own", "other"):
        with pytest.raises(ConfigError, match="choose another"):
            recorded(tmp_path / name)
    assert (tmp_path / "other" / "metrics.csv").read_text() == "mine"


def test_settings_may_be_a_dataclass_a_namespace_or_numpys_numbers(tmp_path):
    @dataclass
    class Settings:
        lr: float
        seed: int = 1

    for name, config in {"a": Settings(0.5), "b": Namespace(lr=0.5, seed=1), "c": {"lr": np.float64(0.5)}}.items():
        assert recorded(tmp_path / name, config=config).config == {"lr": 0.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": 3}, "config must be a mapping of settings, got int"),
        ({"config": {"net": object()}}, "config.net must be a plain value (number, text, list or mapping), got object"),
        ({"config": {"lr": math.nan}}, "config must be readable from its record: must hold finite numbers, got NaN"),
        ({"config": {"seed": 2}}, "seed must be the same as in the config, 2, got 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        ({"epochs": [2, 1]}, "epoch must be above 2, the last logged one, got 1"),
        ({"epochs": [math.nan]}, "epoch must be a finite number of at least 0, got nan"),
        ({"acc": "high"}, "acc must be a number, got 'high'"),
        ({"a\nb": 1}, "a metric's name must be one line of 1 to 300 characters, got 'a\\nb'"),
    ],
)
def test_what_can_not_be_recorded_is_refused_in_one_line(tmp_path, settings, message):
    with pytest.raises(ConfigError) as error:
        recorded(tmp_path / "run", **settings)
    assert str(error.value) == message


def test_predictions_are_kept_where_they_are_given(tmp_path):
    with record_run(tmp_path, CONFIG, 1) as run:
        run.log(1, acc=0.5)
        run.predictions([0, 1, 1], [0, 1, 0], [0.9, 0.8, 0.5])
    arrays = read_predictions(tmp_path, 3)
    assert (arrays["predicted"] == arrays["label"]).tolist() == [True, True, False]


def test_the_frame_begins_with_the_arms_label_seed_status_and_last_values(tmp_path):
    pytest.importorskip("pandas")
    recorded(tmp_path / "a")
    recorded(tmp_path / "b", config={**CONFIG, "method": "bn"}, seed=2)
    table = read_runs(tmp_path).to_frame()
    assert list(table.columns)[:6] == ["arm", "seed", "status", "last.epoch", "last.val/acc", "path"]
    assert list(table["arm"]) == ["method=gbn", "method=bn"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="nowhere must be a folder, got none of that name"):
        read_runs(tmp_path / "nowhere")


def test_two_processes_do_not_record_one_run(tmp_path):
    with record_run(tmp_path, CONFIG, 1), pytest.raises(ConfigError, match="another process trains"):
        recorded(tmp_path)


@pytest.mark.parametrize("change", [{"seed": "1"}, {"status": "well"}, {"config": []}, {"schema": 9}, {"last": 3}])
def test_a_damaged_record_costs_only_its_own_run(tmp_path, change):
    recorded(tmp_path / "a")
    recorded(tmp_path / "b")
    path = tmp_path / "a" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    problems = []
    assert [run.path.name for run in read_runs(tmp_path, problems=problems)] == ["b"]
    assert len(problems) == 1
    assert str(path) in problems[0]
    assert os.linesep not in problems[0]
