"""The sweeper's cost: python benchmarks/search.py {cost,workers,idle,pruning}

cost      milliseconds per trial, without the app's function, in studies of 10 and 1,000 trials on SQLite; of these,
          the time for composing the job's config and for Hydra's setup of its directory. 1 minute
workers   trials per hour with 2 workers and with 1, on an app that computes for 2 seconds. 2 minutes
idle      share of time that 4 workers wait while jobs are left: 20 jobs that sleep for 1 to 10 seconds, with workers,
          joblib and submitit's local launcher, and with Ray if it is installed. 3 minutes
pruning   study=l1_search on MNIST with and without its pruner: epochs spent, and whether the chosen lambda's val loss
          lies within one standard error of the best, estimated from 3 seeds. 2 hours on 2 cores
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna

optuna.logging.set_verbosity(optuna.logging.WARNING)

TOY = """
import time
import hydra
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store(name="toy", node={"x": 0.0, "y": 0.0, "busy_s": 0.0, "nap_s": 0.0})


@hydra.main(version_base="1.3", config_path=None, config_name="toy")
def main(config):
    time.sleep(config.nap_s)
    end = time.process_time() + config.busy_s
    while time.process_time() < end:
        pass
    return config.x**2 + config.y**2


# The time of each part: those that the sweeper asks for, and within them Hydra's and the app's own.
import atexit, json, os
from hydra.core import utils
from reg_sweep.search.compose import JobComposer
from reg_sweep.search.launchers import TrialLauncher
from reg_sweep.search.job import StudyTask
from reg_sweep.search.trial_queue import TrialQueue

spent = {}


def timed(owner, name):
    function = getattr(owner, name)

    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent.setdefault(name, []).append(time.perf_counter() - start)

    setattr(owner, name, wrapper)


if __name__ == "__main__":
    timed(TrialQueue, "take")
    timed(TrialLauncher, "_launch")
    timed(JobComposer, "load_sweep_config")
    timed(utils, "run_job")
    timed(StudyTask, "__call__")
    if "SPENT" in os.environ:
        atexit.register(lambda: open(os.environ["SPENT"], "w").write(json.dumps(spent)))
    main()
"""
SPACE = ["x=interval(-1, 1)", "y=interval(-1, 1)"]
STUDY = ["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out"]


def run(folder: Path, *arguments: str) -> float:
    """Run the toy study to its end, and return the seconds it took."""
    (folder / "toy.py").write_text(TOY)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "toy.py", *STUDY, *([] if any("nap_s" in a for a in arguments) else SPACE), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SPENT": str(folder / "spent.json")},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def fill(folder: Path, n: int) -> None:
    """Add trials to the study as if they had run."""
    study = optuna.load_study(study_name="out", storage=f"sqlite:///{folder}/out/study.db")
    space = {name: optuna.distributions.FloatDistribution(-1, 1) for name in ("x", "y")}
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    memory = optuna.create_study(sampler=study.sampler)
    for _ in range(n):
        trial = memory.ask(space)
        memory.tell(trial, trial.params["x"] ** 2 + trial.params["y"] ** 2)
    study.add_trials(memory.trials)


def cost() -> None:
    """Print the cost of each part of a trial."""
    import json

    for before, timed in ((0, 10), (1000, 10)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if before:
                run(folder, "hydra.sweeper.n_trials=1")
                fill(folder, before - 1)
            run(folder, f"hydra.sweeper.n_trials={before + timed}")
            spent = json.loads((folder / "spent.json").read_text())
        ms = {part: 1000 * statistics.median(seconds) for part, seconds in spent.items()}
        parts = {
            "ask": ms["take"],
            "report and tell": ms["__call__"],
            "composition": ms["load_sweep_config"],
            "Hydra's job directory and logging": ms["run_job"] - ms["__call__"],
        }
        total = ms["take"] + ms["_launch"]
        print(f"{before + timed:>5} trials: {total:.0f} ms a trial:", *(f"{v:.0f} {k};" for k, v in parts.items()))


def workers() -> None:
    """Print the throughput of one worker and of two."""
    rates = {}
    for n in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            folder, trials = Path(name), 20
            seconds = run(folder, f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.workers={n}", "busy_s=2")
        rates[n] = 3600 * trials / seconds
        print(f"{n} workers: {rates[n]:.0f} trials an hour")
    print(f"ratio {rates[2] / rates[1]:.2f}")


NAPS = [10, 1, 2, 9, 3, 1, 8, 4, 2, 7, 5, 1, 6, 3, 10, 2, 1, 4, 1, 5]
LAUNCHED = {
    "workers": ["hydra.sweeper.workers=4"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
    "submitit_local": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10", "hydra.sweeper.n_jobs=4"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=4", "hydra.sweeper.n_jobs=4"],
}


def idle() -> None:
    """Print the share of time that workers wait between the first and the last job's start, for each launcher."""
    from importlib.util import find_spec

    for name, options in LAUNCHED.items():
        if name == "ray" and find_spec("ray") is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            grid = [f"nap_s={','.join(f'{n}.{i:03}' for i, n in enumerate(NAPS))}", "hydra/sweeper/sampler=grid"]
            run(Path(folder), *grid, *options)
            trials = optuna.load_study(study_name="out", storage=f"sqlite:///{folder}/out/study.db").trials
        # A trial begins when its process requests it and composes its config, so only waiting counts as idle.
        spans = [(t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in trials]
        ready = sorted(begin for begin, _ in spans)[3]  # from here on, four processes are running
        last = max(begin for begin, _ in spans)
        busy = sum(max(0.0, min(end, last) - max(begin, ready)) for begin, end in spans)
        napped = sum(
            max(0.0, min(b + t.params["nap_s"], last) - max(b, ready)) for (b, _), t in zip(spans, trials, strict=True)
        )
        whole = 4 * (last - ready)
        print(f"{name}: idle {1 - busy / whole:.1%}; asleep {napped / whole:.1%} of {last - ready:.0f} s")


def pruning() -> None:
    """Print how many epochs the pruner saves, and the chosen lambda's loss with and without it."""
    folder = Path("outputs")
    chosen = {}
    for name, pruner in (("l1_search", []), ("l1_search_unpruned", ["hydra/sweeper/pruner=none"])):
        subprocess.run([*TRAIN, "study=l1_search", f"name={name}", "report=false", *pruner], check=True)
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/{name}/study.db")
        epochs = sum(max(t.intermediate_values, default=0) for t in study.trials)
        chosen[name] = study.best_params["l1"]
        print(f"{name}: {epochs} epochs, l1={chosen[name]:.3g}, val loss {study.best_value:.5f}")
    losses = {}
    for name, l1 in chosen.items():
        command = [*TRAIN, "-m", f"l1={l1!r}", "seed=1,2,3", f"name={name}_replicates", "report=false"]
        subprocess.run(command, check=True)
        runs = read_runs(folder / f"{name}_replicates")
        losses[name] = [row for row in (r.metrics[-1]["val_loss"] for r in runs) if row is not None]
        print(f"{name}: val loss of the chosen lambda, 3 seeds: {statistics.mean(losses[name]):.5f}")
    error = statistics.stdev(losses["l1_search_unpruned"]) / len(losses["l1_search_unpruned"]) ** 0.5
    gap = statistics.mean(losses["l1_search"]) - statistics.mean(losses["l1_search_unpruned"])
    print(f"pruned - unpruned: {gap:.5f}, one standard error: {error:.5f}")


TRAIN = [sys.executable, "-m", "reg_sweep.train"]

if __name__ == "__main__":
    from reg_sweep.runs.reading import read_runs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "workers", "idle", "pruning"])
    {"cost": cost, "workers": workers, "idle": idle, "pruning": pruning}[parser.parse_args().what]()
