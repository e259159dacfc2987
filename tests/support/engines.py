"""A real tiny study, run by whatever engine, and what must come of it: the serial study's results, to the bit."""

import json
from pathlib import Path

from commands import Command, start_train

from reg_sweep.runs.reading import find_runs, read_record
from reg_sweep.runs.record import STUDY_FILE, RunRecord
from reg_sweep.runs.study import read_study

RUN = ["data=mnist_5k", "data.train_size=200", "data.val_size=200", "batch_size=50", "epochs=2", "model.channels=4"]
RUN += ["runtime.device=cpu", "runtime.threads=1"]
STUDY = ["study=optuna", "hydra/sweeper/sampler=grid", "l1=0,0.00001", "seed=1,2", "report=false", "name=it", *RUN]
QUICK = ["hydra.sweeper.heartbeat_interval=0.5", "hydra.sweeper.grace_period=5"]
N_TRIALS = 4


def run(folder: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Runs the command to its end, with more variables in its environment; its exit code and what it printed."""
    return ended(start_train(folder, *arguments, **more))


def ended(command: Command) -> tuple[int, str]:
    done = command.end(timeout_s=300)
    return done.returncode, done.stdout + done.stderr


def outcome(record: RunRecord) -> dict[str, object]:
    """The results that the same settings must reproduce: the last epoch but for its times, and counts of weights."""
    last = {k: v for k, v in record["last"].items() if k not in ("seconds", "images_per_s")}
    return {"last": last, "weights": record["weights"], "epochs": record["epochs_done"], "status": record["status"]}


def outcomes(folder: Path) -> dict[str, dict[str, object]]:
    """Every run's outcome, by its config's digest."""
    records = [read_record(path) for path in find_runs(folder)]
    return {record["digest"]: outcome(record) for record in records}


def check_study(folder: Path, serial: dict[str, dict[str, object]], said: str = "") -> None:
    """That the study in `folder`/outputs/it is whole, and its runs are the serial ones."""
    study = read_study(folder / "outputs" / "it" / STUDY_FILE)
    assert [t.state for t in study.trials] == ["complete"] * N_TRIALS, said
    assert json.dumps(outcomes(folder / "outputs" / "it"), sort_keys=True) == json.dumps(serial, sort_keys=True)
