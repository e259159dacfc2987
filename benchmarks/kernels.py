"""A training step's time by kernel, compared with the machine's peaks: python benchmarks/kernels.py

    [--steps 20] [--threads 1] [--batch 128]

It runs the squeeze-expand CNN with batch norm and exercise B's penalties on random images, in float32 on the CPU, as
the training loop does, including the augmentation of as many images. torch's profiler measures each kernel's self time.
Arithmetic operations are counted for convolutions, memory traffic for all other kernels (each operand once). The peaks
are measured first: a product of two matrices of 1,024 x 1,024, and a sum of two arrays too large for the cache.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from reg_sweep.config.schema import DataConfig, NormConfig, PenaltyConfig
from reg_sweep.training.augmentation import Augmentation
from reg_sweep.training.data import Data, Split
from reg_sweep.training.devices import kept_memory
from reg_sweep.training.dropout import seed_dropout
from reg_sweep.training.model import make_model
from reg_sweep.training.penalties import Penalty
from reg_sweep.training.rng import generator

FLOAT = 4  # bytes
SHOWN = 0.01  # share of the total time; kernels below it are summed up


def best_of(times: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def peak_flops() -> float:
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return 2 * 1024**3 / best_of(10, lambda: torch.mm(a, b))


def peak_bytes() -> float:
    n = 2**25
    a, b, out = torch.ones(n), torch.ones(n), torch.empty(n)
    return 3 * FLOAT * n / best_of(10, lambda: torch.add(a, b, out=out))


def flops(name: str, shapes: Sequence[Sequence[int]]) -> float:
    """Operations of a convolution without padding, forward or backward; 0 for other kernels.

    The backward pass takes as many for the weights as the forward pass, and as many again for the input's gradient,
    which the first layer does not need.
    """
    if name == "aten::convolution_backward":
        (n, c_out, h, w), (_, c_in, kh, kw) = shapes[0], shapes[2]
        return (1 if c_in == 1 else 2) * 2.0 * n * c_out * h * w * c_in * kh * kw
    if name == "aten::mkldnn_convolution":
        (n, c_in, h, w), (c_out, _, kh, kw) = shapes[0], shapes[1]
        return 2.0 * n * c_out * (h - kh + 1) * (w - kw + 1) * c_in * kh * kw
    return 0.0


def traffic(shapes: Sequence[Sequence[int]]) -> float:
    """Bytes of all operands, plus a result as large as the largest operand."""
    sizes = [float(np.prod(shape)) for shape in shapes if shape]
    return FLOAT * (sum(sizes) + max(sizes)) if sizes else 0.0


def trainer(batch: int, steps: int) -> Callable[[], None]:
    """A function that trains an epoch with this number of steps."""
    spec = {"_target_": "reg_sweep.SqueezeExpand"}
    model = make_model(spec, NormConfig("bn"), (1, 28, 28), 10, seed=1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    penalty = Penalty(model, optimizer, 0.001, 0.0005, PenaltyConfig("notebook"))
    seed_dropout(model.train(), generator(1, "dropout"))
    n = steps * batch
    train = Split(torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8), torch.randint(10, (n,)))
    none = Split(train.images[:0], train.labels[:0])
    moments = torch.tensor([0.1307]), torch.tensor([0.3081])
    data = Data("random", "random", "", train, none, none, *moments, n_classes=10)
    augmentation = Augmentation(DataConfig(rotation=7.0, brightness=0.1, contrast=0.1), data, torch.device("cpu"))

    def epoch() -> None:
        order, draws = generator(1, "order"), generator(1, "augment")
        for x, y, _ in augmentation.batches(train, batch, order, draws):
            logits = model(x.contiguous(memory_format=torch.channels_last)).float()
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            penalty.before_step()
            optimizer.step()
            penalty.after_step()
            loss.item()

    return epoch


def print_kernels(profiler: profile, steps: int, compute: float, memory: float) -> None:
    """Print a line for each kernel, sorted by self time."""
    kernels: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for event in profiler.key_averages(group_by_input_shape=True):
        totals = kernels[event.key]
        totals[0] += event.self_cpu_time_total / 1e6
        totals[1] += flops(event.key, event.input_shapes) * event.count
        totals[2] += traffic(event.input_shapes) * event.count
    total = sum(seconds for seconds, *_ in kernels.values())
    print(f"{'kernel':<40}{'ms':>7}{'share':>8}{'GFLOP/s':>9}{'of peak':>9}{'GB/s':>7}{'of peak':>9}")
    rest = 0.0
    for name, (seconds, operations, moved) in sorted(kernels.items(), key=lambda item: -item[1][0]):
        if seconds < SHOWN * total:
            rest += seconds
            continue
        line = f"{name:<40}{seconds / steps * 1e3:7.2f}{seconds / total:8.1%}"
        if operations:
            line += f"{operations / seconds / 1e9:9.1f}{operations / seconds / compute:9.0%}"
        elif moved:
            line += f"{'':18}{moved / seconds / 1e9:7.1f}{moved / seconds / memory:9.0%}"
        print(line)
    print(f"{'all others':<40}{rest / steps * 1e3:7.2f}{rest / total:8.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    epoch = trainer(options.batch, options.steps)
    with kept_memory():
        compute, memory = peak_flops(), peak_bytes()
        epoch()
        seconds = best_of(3, epoch) / options.steps
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
            epoch()
    print(f"{seconds * 1e3:.1f} ms a step on {options.threads} thread(s), without the profiler")
    print(f"the machine: {compute / 1e9:.0f} GFLOP/s, {memory / 1e9:.1f} GB/s")
    print_kernels(profiler, options.steps, compute, memory)


if __name__ == "__main__":
    main()
