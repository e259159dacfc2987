"""Accuracy of smaller networks with equal multiply-adds: L1 on channels compared with Torch-Pruning's own pruners.

python benchmarks/pruners.py --method l1 --seed 1 --out pruners.jsonl      one training; other methods need l1 first
python benchmarks/pruners.py --table pruners.jsonl                         all of them as a table

The squeeze-expand CNN is trained on 5,000 images of MNIST and tested on all 10,000 test images. Each method trains for
8 epochs, removes channels, and trains for 4 more (dense: 12 at once), with the learning rates of experiment=fast.

l1: penalty=channels by cost, then compact. magnitude: Torch-Pruning's GroupMagnitudeImportance over all layers, once.
group_norm: its GroupNormPruner, which regularizes at each step (Fang et al. 2023) and then prunes in the same way. Both
prune the smallest share of channels that leaves at most as many multiply-adds as l1 with the same seed.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from reg_sweep.compact import compact
from reg_sweep.compact.measure import latencies, sizes
from reg_sweep.config.schema import DataConfig, NormConfig, PenaltyConfig
from reg_sweep.training.augmentation import Augmentation
from reg_sweep.training.data import Data, load_data
from reg_sweep.training.evaluation import evaluate
from reg_sweep.training.model import make_model
from reg_sweep.training.penalties import Penalty
from reg_sweep.training.rng import generator

EPOCHS, FINE_EPOCHS, LR, L2, BATCH, WARMUP = 8, 4, 0.2, 1e-4, 128, 0.2
METHODS = ("dense", "l1", "magnitude", "group_norm")
IMAGES = torch.zeros(2, 1, 28, 28)


def train(
    model: nn.Module,
    data: Data,
    config: DataConfig,
    seed: int,
    epochs: range,
    lr: float,
    l1: float = 0.0,
    regularize: Callable[[nn.Module], Any] | None = None,
) -> None:
    """Train for some epochs, with the learning rate rising and falling over them as in experiment=fast."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    form = PenaltyConfig("textbook", "proximal", "coupled", "channels", "cost")
    penalty = Penalty(model, optimizer, l1, L2, form, example=IMAGES)
    augmentation = Augmentation(config, data, torch.device("cpu"))
    n, step = len(epochs) * (len(data.train) // BATCH + 1), 0
    model.train()
    for epoch in epochs:
        order, draws = (generator(seed, purpose, epoch) for purpose in ("order", "augment"))
        for x, y, _ in augmentation.batches(data.train, BATCH, order, draws):
            at = step / n
            optimizer.param_groups[0]["lr"] = lr * min(at / WARMUP, (1 - at) / (1 - WARMUP))
            optimizer.zero_grad()
            F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), y).backward()
            if regularize is not None:
                regularize(model)
            penalty.before_step()
            optimizer.step()
            penalty.after_step()
            step += 1


def pruned(model: nn.Module, make: Callable[[nn.Module, float], Any], target: int) -> nn.Module:
    """The model without the smallest share of channels whose removal leaves at most `target` multiply-adds."""
    for percent in range(2, 98, 2):
        smaller = copy.deepcopy(model)
        make(smaller, percent / 100).step()
        if sizes(smaller.eval(), IMAGES, 0)["multiply_adds"] <= target:
            return smaller
    raise SystemExit(f"no share of channels leaves {target} multiply-adds")


def magnitude_pruner(model: nn.Module, share: float) -> Any:
    """Torch-Pruning's pruner by group magnitude, over all layers except the last."""
    ignored, importance = [model.classify], tp.importance.GroupMagnitudeImportance(p=2)
    return tp.pruner.BasePruner(
        model, IMAGES, importance, global_pruning=True, pruning_ratio=share, ignored_layers=ignored
    )


def group_norm_pruner(model: nn.Module, share: float) -> Any:
    """Torch-Pruning's pruner with sparse learning."""
    ignored, importance = [model.classify], tp.importance.GroupMagnitudeImportance(p=2)
    return tp.pruner.GroupNormPruner(
        model, IMAGES, importance, reg=5e-4, global_pruning=True, pruning_ratio=share, ignored_layers=ignored
    )


def run(method: str, seed: int, l1: float, target: int | None) -> dict[str, Any]:
    """Result of one training of a method."""
    config = DataConfig(train_size=5000)
    data = load_data(config)
    model = make_model({"_target_": "reg_sweep.SqueezeExpand"}, NormConfig("bn"), (1, 28, 28), 10, seed)
    dense = copy.deepcopy(model)
    torch.manual_seed(seed)
    if method == "dense":
        train(model, data, config, seed, range(EPOCHS + FINE_EPOCHS), LR)
    else:
        regularizer = group_norm_pruner(model, 0.5) if method == "group_norm" else None
        step = None if regularizer is None else regularizer.regularize
        if regularizer is not None:
            regularizer.update_regularizer()
        train(model, data, config, seed, range(EPOCHS), LR, l1 if method == "l1" else 0.0, step)
        if method == "l1":
            model = compact(model, IMAGES).model
        else:
            make = magnitude_pruner if method == "magnitude" else group_norm_pruner
            assert target is not None
            model = pruned(model, make, target)
        train(model, data, config, seed, range(EPOCHS, EPOCHS + FINE_EPOCHS), LR / 2)
    found = evaluate(model, data.test, data.mean, data.std, torch.autocast("cpu", enabled=False))
    speed = [t for t in latencies(dense, model, (1, 28, 28), 0.0) if (t["batch"], t["clock"]) == (128, "cpu")]
    return {
        "method": method,
        "seed": seed,
        "test_accuracy": found.accuracy,
        "multiply_adds": sizes(model.eval(), IMAGES, 0)["multiply_adds"],
        "channels": [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)],
        "times_as_fast": speed[0]["ratio"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, and the paired difference from l1 with its standard error."""
    by = {(r["method"], r["seed"]): r for r in rows}
    lines = [f"{'method':<12} {'seeds':>5} {'test accuracy':>14} {'l1 less this':>16} {'mult-adds':>10} {'speed':>6}"]
    for method in METHODS:
        own = [r for r in rows if r["method"] == method]
        if own:
            gains = [100 * (by["l1", r["seed"]]["test_accuracy"] - r["test_accuracy"]) for r in own]
            error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
            lines.append(
                f"{method:<12} {len(own):>5} {100 * statistics.mean(r['test_accuracy'] for r in own):>13.2f}% "
                f"{statistics.mean(gains):>+8.2f} ± {error:.2f} "
                f"{statistics.mean(r['multiply_adds'] for r in own):>10,.0f} "
                f"{statistics.median(r['times_as_fast'] for r in own):>6.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="l1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--l1", type=float, default=1e-3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    path = arguments.table or arguments.out
    known = [json.loads(line) for line in path.read_text().splitlines()] if path is not None and path.exists() else []
    if arguments.table:
        print(table(known))
        return
    torch.set_num_threads(1)
    targets = [r["multiply_adds"] for r in known if (r["method"], r["seed"]) == ("l1", arguments.seed)]
    if arguments.method in ("magnitude", "group_norm") and not targets:
        raise SystemExit(f"--out must hold l1 of seed {arguments.seed} first: run --method l1 --seed {arguments.seed}")
    row = run(arguments.method, arguments.seed, arguments.l1, targets[0] if targets else None)
    print(json.dumps(row))
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
