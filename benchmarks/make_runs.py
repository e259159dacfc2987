"""Write a tree of synthetic runs to time and test the report: python benchmarks/make_runs.py DIR --runs 10000

The files are written by `reg_sweep.runs.record` and are consistent with each other: a run's last row matches its
predictions, and its counts of zeros match its weights. The numbers are drawn at random, not trained, and the records
say so (data.source is "simulated"). 10,000 runs of 40 epochs take about a minute.
"""

import argparse
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn
from tqdm import tqdm

from reg_sweep import __version__
from reg_sweep.config.digest import digest
from reg_sweep.config.schema import NORMS, DataConfig, NormConfig, RunConfig, to_dict
from reg_sweep.runs.files import replacing
from reg_sweep.runs.record import METRICS, PREDICTIONS_FILE, WEIGHTS_FILE, new_record, write_metrics, write_record
from reg_sweep.training.model import layers, make_model
from reg_sweep.training.weights import count_zeros, penalized

Row = dict[str, float | None]
Floats = NDArray[np.float64]

IN_SHAPE, N_CLASSES = (1, 28, 28), 10
N_TRAIN, N_VAL = 50_000, 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
NORM_ERROR = {"none": 0.0040, "bn": 0.0, "gbn": -0.0003, "gn": 0.0006, "ln": 0.0009, "in": 0.0012}
MESSAGES = {
    "running": "",
    "complete": "",
    "pruned": "pruned after epoch {}: its val_loss is worse than the median of the trials before",
    "diverged": "the training loss is not finite in epoch {}: lower optimizer.lr",
    "failed": "OSError: [Errno 28] No space left on device",
}


@dataclass(frozen=True)
class World:
    """Shared by all runs of a tree: the test images' labels and difficulty, and each class's usual mistake."""

    label: NDArray[np.uint8]
    difficulty: Floats
    confused_with: NDArray[np.uint8]
    data: dict[str, Any]
    models: dict[str, nn.Module]
    layers: dict[str, Any]


def make_runs(
    directory: str | Path,
    n_runs: int,
    n_epochs: int = 40,
    n_test: int = 10_000,
    seed: int = 0,
    *,
    n_seeds: int = 5,
    n_per_unfinished: int = 20,
    with_weights: bool = False,
) -> None:
    """Write `n_runs` runs to directory/NORM/JOB: arms of norm x l1 x l2, with `n_seeds` runs each.

    One run in `n_per_unfinished` is incomplete: in turn pruned, diverged, failed or still running. The first seed of
    each arm is a trial of a study. The same arguments give the same numbers.
    """
    generator = np.random.default_rng(seed)
    world = _make_world(n_test, generator)
    statuses = ["complete"] * n_runs
    unfinished = generator.choice(n_runs, n_runs // n_per_unfinished, replace=False)
    for i, status in zip(unfinished, cycle(("pruned", "diverged", "failed", "running")), strict=False):
        statuses[i] = status
    luck = generator.normal(0, 0.0004, n_seeds)  # of a seed, shared by all arms
    arms = _arms(math.ceil(n_runs / n_seeds))
    runs = [(arm, s) for arm in arms for s in range(n_seeds)][:n_runs]
    for i, ((arm, s), status) in enumerate(tqdm(zip(runs, statuses, strict=True), total=n_runs, disable=n_runs < 500)):
        norm, l1, l2 = arm
        config = RunConfig(
            l1=l1,
            l2=l2,
            seed=s + 1,
            epochs=n_epochs,
            name=f"simulated/{norm}",
            data=DataConfig(name="simulated"),
            norm=NormConfig(norm),
        )
        is_trial = s == 0 or status == "pruned"
        trial = {"study": "lambda_search", "number": i, "params": {"l1": l1, "l2": l2}} if is_trial else None
        folder = Path(directory, norm, str(i))
        folder.mkdir(parents=True)
        _write_run(folder, config, status, trial, luck[s], world, generator, START + timedelta(minutes=i), with_weights)


def _make_world(n_test: int, generator: np.random.Generator) -> World:
    models = {n: make_model(RunConfig().model, NormConfig(n), IN_SHAPE, N_CLASSES, seed=0) for n in NORMS}
    return World(
        label=generator.integers(N_CLASSES, size=n_test, dtype=np.uint8),
        difficulty=generator.gumbel(size=n_test),
        confused_with=np.array([6, 7, 7, 5, 9, 3, 0, 2, 3, 4], np.uint8),
        data={
            "name": "simulated",
            "source": "simulated",
            "fingerprint": f"{generator.integers(2**63):016x}",
            "n_train": N_TRAIN,
            "n_val": N_VAL,
            "n_test": n_test,
            "n_classes": N_CLASSES,
            "mean": [0.1307],
            "std": [0.3081],
        },
        models=models,
        layers={name: layers(model, IN_SHAPE) for name, model in models.items()},
    )


def _arms(n: int) -> list[tuple[str, float, float]]:
    """`n` arms of norm x l1 x l2; a larger `n` gives more norms and a finer grid of lambdas."""
    norms = ("bn",) if n < 8 else ("bn", "gbn") if n < 24 else ("bn", *(name for name in NORMS if name != "bn"))
    n_lambdas = max(2, math.ceil(math.sqrt(n / len(norms))))
    l1, l2 = ([0.0, *(float(f"{x:.2e}") for x in np.geomspace(low, 300 * low, n_lambdas - 1))] for low in (1e-5, 1e-4))
    return [(norm, a, b) for a, b, norm in product(l1, l2, norms)][:n]


def _write_run(
    folder: Path,
    config: RunConfig,
    status: str,
    trial: dict[str, Any] | None,
    luck: float,
    world: World,
    generator: np.random.Generator,
    started: datetime,
    with_weights: bool,
) -> None:
    norm, is_complete = config.norm.name, status == "complete"
    n_epochs = config.epochs if is_complete else int(generator.integers(config.epochs))
    if status in ("pruned", "diverged"):  # both are detected at the end of an epoch
        n_epochs = max(n_epochs, 1)
    error = _final_error(config, luck, generator)
    n_test = len(world.label)
    rows = _curves(config, error, n_epochs, n_test, generator)
    weights = None
    if is_complete:
        _write_predictions(folder, round(n_test * (1 - _number(rows[-1]["test_accuracy"]))), world, generator)
        model = world.models[norm]
        _draw_weights(model, config, generator)
        weights = count_zeros(model)
        if with_weights:
            with replacing(folder / WEIGHTS_FILE) as file:
                file.write(save({k: v.contiguous() for k, v in model.state_dict().items()}))
    if status == "diverged":
        losses = ("train_loss", "val_loss", "test_loss", "penalty")
        rows[-1] |= dict.fromkeys(losses, math.nan) | dict.fromkeys(("val_accuracy", "test_accuracy"), 0.1)
    write_metrics(folder, rows)
    validated = [row for row in rows if not math.isnan(_number(row["val_loss"]))]
    seconds = sum(_number(row["seconds"]) for row in rows)
    record = new_record(
        name=config.name,
        config=to_dict(config),
        digest=digest(to_dict(config)),
        data=world.data,
        versions={"reg_sweep": __version__, "torch": torch.__version__, "numpy": np.__version__},
        git_commit=None,
        device={"name": "cpu", "threads": 1, "processor": "simulated"},
        started=started.isoformat(),
        command=f"python -m reg_sweep.train norm={norm} l1={config.l1} l2={config.l2} seed={config.seed}",
        trial=trial,
    )
    record |= {
        "status": status,
        "epochs_done": n_epochs,
        "last": rows[-1] if rows else None,
        "best_val": min(validated, key=lambda row: _number(row["val_loss"]), default=None),
        "weights": weights,
        "layers": world.layers[norm],
        "n_parameters": sum(row["n_parameters"] for row in world.layers[norm]),
        "seconds": seconds,
        "ended": None if status == "running" else (started + timedelta(seconds=seconds)).isoformat(),
        "message": MESSAGES[status].format(n_epochs),
    }
    write_record(folder, record)


def _final_error(config: RunConfig, luck: float, generator: np.random.Generator) -> float:
    """True test error: weak regularization helps, strong regularization harms, and the norms differ."""
    helps = 0.0008 * (1 - math.exp(-config.l1 / 3e-5)) + 0.0006 * (1 - math.exp(-config.l2 / 4e-4))
    harms = 4 * config.l1 + 0.4 * config.l2
    error = 0.0075 + NORM_ERROR[config.norm.name] - helps + harms + luck + generator.normal(0, 0.0003)
    return max(error, 0.002)


def _curves(config: RunConfig, error: float, n_epochs: int, n_test: int, generator: np.random.Generator) -> list[Row]:
    """One row per epoch. Errors fall exponentially to `error`, with noise; accuracies are counts of whole images."""
    epoch = np.arange(1, n_epochs + 1)
    falls = 1 + 12 * np.exp(-epoch / 2.5)
    fits_train = 0.9 + 900 * config.l1 + 90 * config.l2  # a stronger penalty fits worse
    columns: dict[str, Floats] = {}
    for split, n, factor in (("train", N_TRAIN, fits_train), ("val", N_VAL, 1.05), ("test", n_test, 1.0)):
        errors = np.minimum(error * factor * falls * np.exp(generator.normal(0, 0.06, n_epochs)), 0.9)
        columns[f"{split}_loss"] = 3.1 * errors * np.exp(generator.normal(0, 0.02, n_epochs))
        columns[f"{split}_accuracy"] = np.round((1 - errors) * n) / n
    size = 700 / (1 + 600 * config.l1 + 60 * config.l2)  # the sum over all weights
    columns["penalty"] = (config.l1 * size + config.l2 * size / 20) * (1 + 1 / epoch)
    columns["seconds"] = 12 * np.exp(generator.normal(0, 0.03, n_epochs))
    columns["images_per_s"] = N_TRAIN / columns["seconds"]
    columns["lr"] = np.full(n_epochs, config.optimizer.lr)
    columns["epoch"] = epoch.astype(float)
    table = np.column_stack([columns[name] for name in METRICS]).tolist()
    return [{**dict(zip(METRICS, values, strict=True)), "epoch": int(values[0])} for values in table]


def _write_predictions(folder: Path, n_wrong: int, world: World, generator: np.random.Generator) -> None:
    """Write predictions that are wrong on the `n_wrong` hardest images of this run, mostly those hard for all runs."""
    n = len(world.label)
    difficulty = world.difficulty + generator.normal(0, 0.7, n)
    hardest_first = np.argsort(-difficulty)
    wrong = hardest_first[:n_wrong]
    usual = world.confused_with[world.label[wrong]]
    other = (world.label[wrong] + generator.integers(1, N_CLASSES, n_wrong)) % N_CLASSES
    predicted = world.label.copy()
    predicted[wrong] = np.where(generator.random(n_wrong) < 0.7, usual, other)
    margin = np.abs(difficulty - difficulty[wrong[-1]] if n_wrong else difficulty)
    probability = (1 - 0.5 * np.exp(-1.5 * margin)).astype(np.float32).round(4)  # rounded: compresses ten times better
    with replacing(folder / PREDICTIONS_FILE) as file:
        np.savez_compressed(file, predicted=predicted, probability=probability, label=world.label)


@torch.no_grad()
def _draw_weights(model: nn.Module, config: RunConfig, generator: np.random.Generator) -> None:
    """Kernels of unequal size, shrunk by l2 and thresholded by l1, with the smallest ones left as noise around zero."""
    threshold = 200 * config.l1
    jitter = min(config.optimizer.lr * config.l1, 5e-4)
    for w in penalized(model):
        shape = tuple(w.shape)
        sizes = 0.1 * np.exp(generator.normal(0, 0.8, (*shape[:2], *[1] * (len(shape) - 2))))
        drawn = generator.standard_normal(shape) * sizes / (1 + 60 * config.l2)
        kept = np.sign(drawn) * np.maximum(np.abs(drawn) - threshold, 0)
        w.copy_(torch.from_numpy(kept + jitter * generator.uniform(-1, 1, shape)))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--test-size", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each arm")
    parser.add_argument("--weights", action="store_true", help="write weights.safetensors too, 40 kB per run")
    args = parser.parse_args()
    if args.directory.is_dir() and any(args.directory.iterdir()):
        parser.error(f"DIR must be a new or an empty folder, got {args.directory}: name another")
    for name in ("runs", "epochs", "test_size", "seeds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    torch.set_num_threads(1)
    make_runs(
        args.directory,
        args.runs,
        args.epochs,
        args.test_size,
        args.seed,
        n_seeds=args.seeds,
        with_weights=args.weights,
    )


if __name__ == "__main__":
    main()
