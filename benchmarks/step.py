"""Milliseconds per training step with each norm and regularizer, compared with batch norm alone.

python benchmarks/step.py [--steps 40] [--rounds 8] [--threads N] [--cpu] [--only NAME ...]

It trains the squeeze-expand CNN on random images with batches of 128, in float32 on the CPU. The variants take turns,
`--steps` steps at a time. Each round gives each variant's ratio to batch norm alone. It prints the medians of times
and ratios, and the middle half of the ratios. `--cpu` measures the process's CPU time, which other processes disturb
less; `--only` selects variants, in addition to bn.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from reg_sweep.config.schema import RunConfig
from reg_sweep.training.devices import kept_memory
from reg_sweep.training.dropout import seed_dropout
from reg_sweep.training.evaluation import Averaging
from reg_sweep.training.model import make_model
from reg_sweep.training.objective import Objective
from reg_sweep.training.penalties import Penalty
from reg_sweep.training.rng import generator
from reg_sweep.training.schedule import Schedule

GIVEN_BACK = "bn, memory given back"  # after each step, as glibc does by default
CHANNELS = "bn, L1 on channels"  # needs torch-pruning
VARIANTS: dict[str, dict[str, Any]] = {
    **{norm: {"norm": norm} for norm in ("bn", "gbn", "gn", "ln", "in", "none")},
    GIVEN_BACK: {},
    "bn, L1 + L2": {"l1": 1e-5, "l2": 5e-4},
    "bn, proximal L1 + decoupled L2": {
        "l1": 1e-5,
        "l2": 5e-4,
        "penalty": {"l1_update": "proximal", "l2_update": "decoupled"},
    },
    CHANNELS: {"l1": 1e-5, "penalty": {"l1_update": "proximal", "l1_on": "channels"}},
    "bn, L1 on scales": {"l1": 1e-5, "penalty": {"l1_update": "proximal", "l1_on": "scales"}},
    "bn, label smoothing": {"loss": {"label_smoothing": 0.1}},
    "bn, mixup": {"mix": "mixup"},
    "bn, cutmix": {"mix": "cutmix"},
    "bn, averaged weights (EMA)": {"averaging": "ema"},
    "bn, orthogonality": {"penalties": "orthogonality"},
}


def stepper(settings: dict[str, Any]) -> Callable[[], None]:
    """A function that performs one training step."""
    run = RunConfig(epochs=1, **settings)
    spec = {"_target_": "reg_sweep.SqueezeExpand"}
    model = make_model(spec, run.norm, (1, 28, 28), 10, seed=1).to(memory_format=torch.channels_last)
    seed_dropout(model.train(), generator(1, "dropout"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12, momentum=0.9)
    images, y, mixes = torch.randn(128, 1, 28, 28), torch.randint(10, (128,)), generator(1, "mix")
    penalty = Penalty(model, optimizer, run.l1, run.l2, run.penalty, example=images[:2], own=run.penalties)
    schedule = Schedule(optimizer, run, 10**6, penalty)
    objective = Objective(run.loss, run.mix, 10, torch.device("cpu"))
    averaging = Averaging(model, optimizer, run.averaging, 1)

    def step() -> None:
        schedule.set_step(0)
        x, labels = objective.mixed(images, y, mixes)
        loss = objective.loss(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        penalty.before_step()
        optimizer.step()
        penalty.after_step()
        averaging.after_step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cpu", action="store_true", help="measure this process's CPU time, for a shared machine")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu else time.perf_counter
    wanted = {"bn", *arguments.only} - ({CHANNELS} if find_spec("torch_pruning") is None else set())
    steppers = {name: stepper(settings) for name, settings in VARIANTS.items() if name in wanted}
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(arguments.rounds + 1):
        for name, step in steppers.items():
            durations = []
            with nullcontext() if name == GIVEN_BACK else kept_memory():
                for _ in range(arguments.steps):
                    started = clock()
                    step()
                    durations.append(clock() - started)
            times[name].append(statistics.median(durations) * 1e3)
    print(f"{'':<32} {'ms a step':>10} {'times bn':>9} {'middle half':>14}")
    for name, found in times.items():
        ratios = [a / b for a, b in zip(found[1:], times["bn"][1:], strict=True)]  # the first round warms up
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(f"{name:<32} {statistics.median(found[1:]):>10.2f} {middle:>9.3f} {low:>7.3f} {high:.3f}")


if __name__ == "__main__":
    main()
