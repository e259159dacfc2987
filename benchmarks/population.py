"""Seconds for runs trained as one network, and for the same runs one after the other, measured in turns.

python benchmarks/population.py [--members 8] [--train 1920] [--epochs 1] [--rounds 3] [--device cpu] [--cpu]

It uses exercise B's network and batch size, and the first images of the offline MNIST sample. `--cpu` measures the
process's CPU time, user and system, which other processes disturb less; leave it out on a GPU.
"""

import argparse
import statistics
import time
from functools import partial

from reg_sweep.config.schema import RunConfig, RuntimeConfig
from reg_sweep.training.devices import choose_device
from reg_sweep.training.fit import fit
from reg_sweep.training.population import Population


def main() -> None:
    """Measure both sides in each round, and print the medians of their seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("members", 8), ("train", 1920), ("epochs", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cpu", action="store_true", help="measure CPU time instead of wall time")
    asked = parser.parse_args()
    runtime = RuntimeConfig(device=asked.device, threads=1)
    settings = {"data": "mnist_5k", "epochs": asked.epochs, "l1": 1e-5, "l2": 1e-4, "runtime": runtime}
    runs = [RunConfig(seed=seed, **settings) for seed in range(asked.members)]
    for run in runs:
        run.data.train_size, run.data.val_size = asked.train, 100
    jobs = [partial(fit, run, progress=False) for run in runs]
    fit(runs[0], progress=False)  # warm-up: loads images, libraries and kernels

    def alone() -> None:
        for job in jobs:
            job()

    def together() -> None:
        Population(choose_device(asked.device), 1, asked.members).run(jobs)

    clock = time.process_time if asked.cpu else time.perf_counter
    sides: dict[str, list[float]] = {"one after the other": [], "together": []}
    for _ in range(asked.rounds):
        for seconds, side in zip(sides.values(), (alone, together), strict=True):
            started = clock()
            side()
            seconds.append(clock() - started)
    first, second = sides.values()
    for name, seconds in sides.items():
        print(f"{name:<20}{statistics.median(seconds):8.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"times as fast       {statistics.median(a / b for a, b in zip(first, second, strict=True)):8.2f}")


if __name__ == "__main__":
    main()
