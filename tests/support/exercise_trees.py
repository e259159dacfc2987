"""Writes runs of the exercises' arms, with noisy curves."""

from pathlib import Path

import numpy as np
from trees import share, write_run

from reg_sweep.config.schema import PenaltyConfig
from reg_sweep.runs.reading import read_run
from reg_sweep.runs.record import METRICS, write_metrics

PAIRS = [(0, 0), (0.001, 0), (0, 0.0005), (0.001, 0.0005), (0, 0.0001)]
N_EPOCHS = 16
MNIST = {"name": "mnist", "n_train": 60_000}


def write_exercise(root: Path, gain: dict[tuple[float, float], float], n_seeds: int = 4, **shared: object) -> None:
    """Writes the exercise's arms. `gain` raises an arm's accuracy and smooths its curve; each run adds noise."""
    rng = np.random.default_rng(3)
    for pair in PAIRS:
        by = gain.get(pair, 0.0)
        for seed in range(1, n_seeds + 1):
            accuracy = float(0.95 + by + 0.0002 * rng.standard_normal())
            folder = root / f"{pair[0]}-{pair[1]}-{seed}"
            loss = float(0.3 - by + 0.0002 * rng.standard_normal())
            write_run(
                folder, l1=pair[0], l2=pair[1], seed=seed, accuracy=accuracy, loss=loss, n_epochs=N_EPOCHS,
                predictions=False, penalty=PenaltyConfig("notebook"), **shared,
            )  # fmt: skip
            roughen(folder, rng, 0.002 * np.exp(-200 * by))


def roughen(folder: Path, rng: np.random.Generator, size: float) -> None:
    rows = [dict(row) for row in read_run(folder).metrics]
    for row in rows[:-1]:
        row["test_accuracy"] = share(float(rows[-1]["test_accuracy"] + size * rng.standard_normal()))
    (folder / "metrics.csv").unlink()
    write_metrics(folder, [{name: row[name] for name in METRICS} for row in rows])
