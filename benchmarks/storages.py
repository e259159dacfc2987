"""Throughput of a study's storage: python benchmarks/storages.py {measure,dequeue,plan}

measure   trials per second that 1, 2, 4, 8 and 16 processes complete in one study: dequeue, begin, 5 reports to a
          median pruner and tell, as in the sweeper's jobs, without training. On SQLite, on a journal file, and on
          PostgreSQL if its programs are found; also with Optuna's own ask, report and tell on PostgreSQL, and through
          Optuna's gRPC proxy, which does not offer the lock that dequeuing needs. 10 minutes
dequeue   CPU seconds per dequeued trial, in studies of 1,000 to 1,000,000 trials. 2 minutes, 5 GB
plan      a simulation of 10,000 workers and 1,000,000 trials, dequeued one after the other, each as long as
          `dequeue` found, and the other load on the storage. 1 minute
"""

import argparse
import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import FloatDistribution

from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.settings import Settings
from reg_sweep.search.space import space
from reg_sweep.search.storage import open_storage
from reg_sweep.search.trial import JobTrial
from reg_sweep.search.trial_queue import TrialQueue

ROOT = Path(__file__).parents[1]
N_REPORTS = 5
WORKERS = (1, 2, 4, 8, 16)
SPACE = {"x": FloatDistribution(0, 1)}
optuna.logging.set_verbosity(optuna.logging.ERROR)


# ---- measure


def study_at(location: str, *, makes: bool = False) -> optuna.Study:
    """The study in a storage; `grpc:PORT` is Optuna's proxy, all others are storages that the sweeper accepts."""
    if location.startswith("grpc:"):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=int(location.removeprefix("grpc:")))
        storage.wait_server_ready(timeout=60)
    else:
        storage = open_storage(location)
    parts = {"sampler": optuna.samplers.RandomSampler(), "pruner": optuna.pruners.MedianPruner()}
    return (optuna.create_study if makes else optuna.load_study)(study_name="it", storage=storage, **parts)


def sweepers_trials(study: optuna.Study, n: int) -> int:
    """Run trials as the sweeper's processes do until the study has `n`; return how many this process ran."""
    swept = space(OverridesParser.create().parse_overrides(["x=interval(0, 1)"]))
    queue, ran = TrialQueue(study, StudyPlan(Settings(n_trials=n), swept)), 0
    while taken := queue.take().trials:
        trial = JobTrial(taken[0])
        trial.begin("0")
        for step in range(N_REPORTS):
            trial.report(random.random(), step)
            trial.should_prune()
        trial.finish(1.0)
        ran += 1
    return ran


def optunas_trials(study: optuna.Study, n: int) -> int:
    """Run `n` trials with Optuna's own calls."""
    for _ in range(n):
        trial = study.ask(SPACE)
        for step in range(N_REPORTS):
            trial.report(random.random(), step)
            trial.should_prune()
        study.tell(trial, 1.0)
    return n


def worker(location: str, whose: str, n: int) -> None:
    """A process of `measure`: report ready, wait for the start, and report how many trials it ran, and when."""
    study = study_at(location)
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.time()
    ran = sweepers_trials(study, n) if whose == "sweeper" else optunas_trials(study, n)
    print(json.dumps([ran, begun, time.time()]), flush=True)


def rate(location: str, whose: str, n_workers: int, n_trials: int) -> float:
    """Trials per second over this number of processes."""
    study_at(location, makes=True)
    n = n_trials if whose == "sweeper" else n_trials // n_workers
    command = [sys.executable, __file__, "worker", location, whose, str(n)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(n_workers)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    done = [json.loads(process.communicate()[0]) for process in processes]
    return sum(ran for ran, _, _ in done) / (max(end for *_, end in done) - min(begun for _, begun, _ in done))


@contextmanager
def proxy(url: str) -> Iterator[str]:
    """Optuna's proxy in front of a database, in its own process."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import optuna, sys; optuna.storages.run_grpc_proxy_server("
        "optuna.storages.RDBStorage(sys.argv[1]), host='127.0.0.1', port=int(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, url, str(port)], stderr=subprocess.DEVNULL)
    try:
        yield f"grpc:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def place(kind: str, folder: Path) -> Iterator[str]:
    """An empty storage of a kind."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import postgres

    if "postgresql" in kind:
        with postgres.server() as server:
            if not kind.startswith("grpc"):
                yield server.url
                return
            with proxy(server.url) as address:
                yield address
    elif kind == "grpc, sqlite":
        with proxy(f"sqlite:///{folder}/study.db") as address:
            yield address
    else:
        yield f"sqlite:///{folder}/study.db" if kind == "sqlite" else str(folder / "study.log")


KINDS = {
    "sqlite": "sweeper",
    "journal": "sweeper",
    "postgresql": "sweeper",
    "postgresql, Optuna's calls": "optuna",
    "grpc, postgresql": "optuna",
    "grpc, sqlite": "optuna",
}


def measure(kinds: list[str], n_trials: int) -> None:
    """Print a table of trials per second by storage and number of processes."""
    os.environ["OMP_NUM_THREADS"] = "1"
    print("| storage |", " | ".join(map(str, WORKERS)), "|", flush=True)
    for kind in kinds:
        rates = []
        for n_workers in WORKERS:
            with tempfile.TemporaryDirectory() as folder, place(kind, Path(folder)) as location:
                rates.append(rate(location, KINDS[kind], n_workers, n_trials))
        print(f"| {kind} |", " | ".join(f"{r:.1f}" for r in rates), "|", flush=True)


# ---- dequeuing


def filled(n: int) -> optuna.Study:
    """An in-memory study of `n` finished trials."""
    study = optuna.create_study(study_name="it", sampler=optuna.samplers.RandomSampler())
    done = optuna.trial.create_trial(
        value=0.5,
        params={"x": 0.5},
        distributions=SPACE,
        user_attrs={"job": {"attempt": 1}},
        intermediate_values={1: 0.5},
    )
    for _ in range(n):
        study.add_trial(done)
    return study


def dequeue() -> None:
    """Print seconds per dequeued trial by the number of trials in the study."""
    swept = space(OverridesParser.create().parse_overrides(["x=interval(0, 1)"]))
    for n in (1_000, 10_000, 100_000, 1_000_000):
        study = filled(n)
        queue = TrialQueue(study, StudyPlan(Settings(n_trials=2 * n), swept))
        queue.take()  # warm-up: imports and caches
        begun, n_dequeued = time.process_time(), 5
        for _ in range(n_dequeued):
            queue.take()
        print(f"{n:9,} trials: {(time.process_time() - begun) / n_dequeued:.4f} s a trial", flush=True)


# ---- plan


def simulated(
    n_workers: int, n_trials: int, trial_s: float, dequeue_s: float, dequeue_s_each: float
) -> tuple[float, float]:
    """Days until all trials have ended, and the share of the workers' time spent waiting for a trial.

    Trials are dequeued one at a time. Each takes `dequeue_s`, plus `dequeue_s_each` for every trial in the study; a
    trial takes between 0.5 and 1.5 times `trial_s`.
    """
    rng = random.Random(0)
    free = [rng.uniform(0, trial_s) for _ in range(n_workers)]  # the time at which each worker asks for its next trial
    heapq.heapify(free)
    lock_free, waited, end = 0.0, 0.0, 0.0
    for number in range(n_trials):
        asks = heapq.heappop(free)
        begins = max(asks, lock_free)
        lock_free = begins + dequeue_s + dequeue_s_each * number
        waited += lock_free - asks
        end = lock_free + rng.uniform(0.5, 1.5) * trial_s
        heapq.heappush(free, end)
    last = max(free)
    return last / 86400, waited / (n_workers * last)


def plan(dequeue_s: float, dequeue_s_each: float) -> None:
    """Print days and waiting times for trials of several lengths, in one study and in 100."""
    print("| a trial takes | studies | days | of them, if none waited | waiting |")
    for trial_s in (60, 600, 3600):
        for n_studies in (1, 10, 100):
            n_workers, n_trials = 10_000 // n_studies, 1_000_000 // n_studies
            days, waits = simulated(n_workers, n_trials, trial_s, dequeue_s, dequeue_s_each)
            ideal = trial_s * n_trials / n_workers / 86400
            print(f"| {trial_s / 60:g} min | {n_studies} | {days:.2f} | {ideal:.2f} | {waits:.0%} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    measuring.add_argument("--trials", type=int, default=200, help="trials in each study")
    commands.add_parser("dequeue")
    planning = commands.add_parser("plan")
    planning.add_argument("--dequeue-s", type=float, default=0.02, help="seconds per dequeued trial in an empty study")
    planning.add_argument(
        "--dequeue-s-each", type=float, default=1e-6, help="additional seconds for every trial in the study"
    )
    one = commands.add_parser("worker")
    one.add_argument("location")
    one.add_argument("whose")
    one.add_argument("n", type=int)
    given = parser.parse_args()
    if given.command == "worker":
        worker(given.location, given.whose, given.n)
    elif given.command == "measure":
        measure(given.kinds, given.trials)
    elif given.command == "dequeue":
        dequeue()
    else:
        plan(given.dequeue_s, given.dequeue_s_each)
