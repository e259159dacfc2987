"""Milliseconds for a training step under each norm and penalty, beside batch norm without penalties, in one run.

python benchmarks/step.py [--steps 40] [--rounds 8] [--threads N]

The squeeze-expand CNN on random images, batch 128, CPU, float32. The variants take turns, `--steps` steps at a time;
each round gives a ratio to the plain variant of that round: the medians of times and of ratios are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from reg_sweep.config.schema import NormConfig, PenaltyConfig
from reg_sweep.training.dropout import seed_dropout
from reg_sweep.training.memory import kept_memory
from reg_sweep.training.model import make_model
from reg_sweep.training.penalties import Penalty
from reg_sweep.training.rng import random_stream

PLAIN = (0.0, 0.0, PenaltyConfig())
GIVEN_BACK = "bn, memory given back"  # after each step, as glibc does unless a training tells it to keep it
VARIANTS: dict[str, tuple[str, float, float, PenaltyConfig]] = {
    **{norm: (norm, *PLAIN) for norm in ("bn", "gbn", "gn", "ln", "in", "none")},
    GIVEN_BACK: ("bn", *PLAIN),
    "bn, L1 + L2": ("bn", 1e-5, 5e-4, PenaltyConfig()),
    "bn, L1 on channels": ("bn", 1e-5, 0.0, PenaltyConfig("textbook", "proximal", "coupled", "channels")),
    "bn, L1 on scales": ("bn", 1e-5, 0.0, PenaltyConfig("textbook", "proximal", "coupled", "scales")),
    "bn, proximal L1 + decoupled L2": ("bn", 1e-5, 5e-4, PenaltyConfig("textbook", "proximal", "decoupled")),
}


def stepper(norm: str, l1: float, l2: float, form: PenaltyConfig) -> Callable[[], None]:
    """A function that makes one training step."""
    spec = {"_target_": "reg_sweep.SqueezeExpand"}
    model = make_model(spec, NormConfig(norm), (1, 28, 28), 10, seed=1).to(memory_format=torch.channels_last)
    seed_dropout(model.train(), random_stream(1, "dropout"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12, momentum=0.9)
    x, y = torch.randn(128, 1, 28, 28), torch.randint(10, (128,))
    penalty = Penalty(model, optimizer, l1, l2, form, example=x[:2])

    def step() -> None:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        penalty.before_step()
        optimizer.step()
        penalty.after_step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--cpu", action="store_true", help="time of this process alone, for a machine that others share"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steppers = {name: stepper(*variant) for name, variant in VARIANTS.items()}
    now = time.process_time if arguments.cpu else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(arguments.rounds + 1):
        for name, step in steppers.items():
            durations = []
            with nullcontext() if name == GIVEN_BACK else kept_memory():
                for _ in range(arguments.steps):
                    started = now()
                    step()
                    durations.append(now() - started)
            times[name].append(statistics.median(durations) * 1e3)
    print(f"{'':<32} {'ms a step':>10} {'times bn':>9}")
    for name, found in times.items():
        ratios = [a / b for a, b in zip(found[1:], times["bn"][1:], strict=True)]  # the first round warms up
        print(f"{name:<32} {statistics.median(found[1:]):>10.2f} {statistics.median(ratios):>9.3f}")


if __name__ == "__main__":
    main()
