"""Seconds per epoch of exercise B's protocol: reg_sweep compared with a straightforward PyTorch loop.

python benchmarks/epoch.py DATA_ROOT [--rounds 5] [--batches 100] [--loop SCRIPT] [--device cuda]
    [--sides float32 '2 x float32']

DATA_ROOT contains MNIST/raw in torchvision's layout. The PyTorch loop is written below: PIL transforms, a DataLoader,
eager float32, torch's dropout, the L1 term summed in the loss. `--loop SCRIPT` uses another script instead. It is
called as `SCRIPT DATA_ROOT --batches N`, and its last line must be JSON with seconds_per_epoch. The sides alternate in
each round, each in its own process; medians and their ratio are printed. A side '2 x ...' is two runs at once with one
thread each, and half of their time. `--device cuda` trains on a GPU: the loop below moves each batch there.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

N_BATCHES = 469  # of 128 images in an epoch of 60,000


def plain_loop(root: str, n_batches: int, device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds per epoch of the PyTorch loop, from `n_batches` batches after a warm-up of 10."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    def block(c_in: int) -> list[nn.Module]:
        return [nn.Conv2d(c_in, 16, 3, bias=False), nn.ReLU(), nn.BatchNorm2d(16), nn.Dropout(0.05)]

    torch.manual_seed(1)
    augment = transforms.Compose(
        [
            transforms.ColorJitter(0.1, 0.1),
            transforms.RandomRotation(7, fill=1),
            transforms.ToTensor(),
            transforms.Normalize((0.1307,), (0.3081,)),
        ]
    )
    images = datasets.MNIST(root, train=True, transform=augment)
    body = [*block(1), *block(16), nn.MaxPool2d(2), *block(16), *block(16), *block(16), nn.AvgPool2d(6)]
    model = nn.Sequential(*body, nn.Conv2d(16, 10, 1, bias=False), nn.Flatten()).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.025, momentum=0.9, weight_decay=0.0005)
    started = 0.0
    for i, (x, y) in enumerate(DataLoader(images, batch_size=128, shuffle=True)):
        if i == 10:
            started = clock()
        if i == 10 + n_batches:
            break
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y) + 0.001 * sum(w.abs().mean() for w in model.parameters())
        loss.backward()
        optimizer.step()
        loss.item()
    return (clock() - started) / n_batches * N_BATCHES


def our_loop(root: str, precision: str, device: str) -> float:
    """Seconds for the training part of the second epoch of `experiment=b_l1_l2`."""
    from reg_sweep import RunConfig, fit
    from reg_sweep.config.schema import DataConfig, PenaltyConfig, RuntimeConfig

    run = RunConfig(
        l1=0.001,
        l2=0.0005,
        epochs=2,
        objective="test_loss",
        data=DataConfig(root=root, val_size=0),
        penalty=PenaltyConfig("notebook"),
        runtime=RuntimeConfig(device=device, precision=precision),
    )
    return 60_000 / fit(run, progress=False).history[-1]["images_per_s"]


def one_side(side: str, root: str, n_batches: int, device: str) -> None:
    """Run one side in this process and print its figures as JSON."""
    seconds = plain_loop(root, n_batches, device) if side == "plain" else our_loop(root, side, device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(json.dumps({"seconds_per_epoch": seconds, "peak_gib": peak}))


SIDES = ("float32", "bfloat16", "2 x float32", "2 x bfloat16")


def measure(side: str, root: str, n_batches: int, device: str, loop: Path | None) -> dict[str, float]:
    """One side's figures, measured in its own process; for two runs at once, half of their time."""
    n, _, precision = side.rpartition(" x ")
    n_runs = int(n or 1)
    command = [__file__, root, "--side", precision, "--batches", str(n_batches), "--device", device]
    if side == "plain" and loop is not None:
        command = [str(loop), root, "--batches", str(n_batches)]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if n_runs > 1 else {})
    started = [
        subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(n_runs)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"{side} failed")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    return {
        "seconds_per_epoch": statistics.mean(f["seconds_per_epoch"] for f in found) / n_runs,
        "peak_gib": max(f.get("peak_gib", 0.0) for f in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--loop", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["float32", "bfloat16"])
    parser.add_argument("--side", choices=("plain", "float32", "bfloat16"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        one_side(arguments.side, arguments.root, arguments.batches, arguments.device)
        return
    figures: dict[str, list[dict[str, float]]] = {side: [] for side in ("plain", *arguments.sides)}
    for i in range(arguments.rounds):
        for side, found in figures.items():
            found.append(measure(side, arguments.root, arguments.batches, arguments.device, arguments.loop))
            print(f"round {i + 1}  {side:<12} {found[-1]['seconds_per_epoch']:6.2f} s", flush=True)
    plain = [f["seconds_per_epoch"] for f in figures["plain"]]
    print(f"{'the loop that people write':<28} median {statistics.median(plain):6.2f} s an epoch")
    for side in arguments.sides:
        ours = [f["seconds_per_epoch"] for f in figures[side]]
        ratio = statistics.median(a / b for a, b in zip(plain, ours, strict=True))
        peak = max(f["peak_gib"] for f in figures[side])
        print(
            f"{'reg_sweep, ' + side:<28} median {statistics.median(ours):6.2f} s an epoch, "
            f"{ratio:.2f} times as fast, peak memory {peak:.2f} GiB"
        )


if __name__ == "__main__":
    main()
