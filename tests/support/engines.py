"""A real but tiny study that any engine can run, and a check that its results are bit for bit the serial study's."""

import json
from pathlib import Path

from commands import Command, start_train
from tiny import timeless

from reg_sweep.runs.reading import find_runs, read_record
from reg_sweep.runs.record import STUDY_FILE, RunRecord
from reg_sweep.runs.study import read_study

RUN = ["data=mnist_5k", "data.train_size=200", "data.val_size=200", "batch_size=50", "epochs=2", "model.channels=4"]
RUN += ["runtime.device=cpu", "runtime.threads=1"]
STUDY = ["study=optuna", "hydra/sweeper/sampler=grid", "l1=0,0.00001", "seed=1,2", "report=false", "name=it", *RUN]
QUICK = ["hydra.sweeper.heartbeat_interval=0.5", "hydra.sweeper.grace_period=5"]
N_TRIALS = 4


def run(folder: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Runs the command with extra environment variables; returns its exit code and output."""
    return ended(start_train(folder, *arguments, **more))


def ended(command: Command) -> tuple[int, str]:
    done = command.end(timeout_s=300)
    return done.returncode, done.stdout + done.stderr


def outcome(record: RunRecord) -> dict[str, object]:
    """The results that the same settings must reproduce: the last epoch without its times, and counts of weights."""
    last = {k: v for k, v in record["last"].items() if k not in ("seconds", "images_per_s")}
    last = timeless(record["last"])
    return {"last": last, "weights": record["weights"], "epochs": record["epochs_done"], "status": record["status"]}


def outcomes(folder: Path) -> dict[str, dict[str, object]]:
    """The outcome of every run, by its config's digest."""
    records = [read_record(path) for path in find_runs(folder)]
    return {record["digest"]: outcome(record) for record in records}


def check_study(folder: Path, serial: dict[str, dict[str, object]], said: str = "") -> None:
    """Asserts that the study in `folder`/outputs/it is complete, and that its outcomes are the serial ones."""
    study = read_study(folder / "outputs" / "it" / STUDY_FILE)
    assert [t.state for t in study.trials] == ["complete"] * N_TRIALS, said
    assert json.dumps(outcomes(folder / "outputs" / "it"), sort_keys=True) == json.dumps(serial, sort_keys=True)
