"""The toy apps of tests/search/search_app, which are no part of the package, run as studies."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import warm

APPS = Path(__file__).parent / "search" / "search_app"
STUDY = ["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out"]
X = "x=interval(-1, 1)"
Y = "y=interval(-1, 1)"
SEED = "hydra.sweeper.sampler.seed=1"
DESIGN = ["hydra.sweeper.design.margin=0.1", "hydra.sweeper.design.max_seeds=20"]
VERDICT = [*STUDY, "hydra.sweeper.until_verdict=true", "hydra.sweeper.direction=maximize", *DESIGN]


def start(tmp_path, name, *arguments, **kwargs):
    """Starts a toy app as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return warm.Popen(
        [sys.executable, str(APPS / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def run_process(tmp_path, name, *arguments):
    process = start(tmp_path, name, *arguments)
    out, _ = process.communicate(timeout=120)
    return SimpleNamespace(code=process.returncode, out=out)


def load(folder="out", name="out"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def states(study):
    return [t.state.name for t in study.trials]
