"""Size and speed of networks: parameters, multiply-adds, and latencies, which are measured alternately."""

import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reg_sweep.runs.validation import Between

BATCHES = (1, 128)


Positive = Annotated[int, Between(1, 10**18, "a whole number")]


class Sizes(TypedDict):
    """The size of a network. `multiply_adds` is for one image."""

    n_parameters: Positive
    multiply_adds: Positive
    file_bytes: Positive


class Latency(TypedDict):
    """Median seconds per batch, and the median of the ratios dense / compact of consecutive turns.

    `norms` says whether both networks keep their norms or have them folded into adjacent layers. `clock` is wall, or
    cpu for the process's own time, which is measured on one thread and excludes other processes.
    """

    norms: Literal["kept", "folded"]
    batch: int
    threads: int
    clock: str
    dense_s: float
    compact_s: float
    ratio: float
    n_turns: int


class SizesOfBoth(TypedDict):
    """The sizes of a run's network and of its compact one."""

    dense: Sizes
    compact: Sizes


class LayerWidths(TypedDict):
    """A layer's numbers of inputs and outputs, before and after the removal."""

    name: str
    kind: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]


class AnyCompactRecord(TypedDict):
    """compact.json of any schema. in_shape: (C, H, W) of the images."""

    schema: int
    in_shape: tuple[Positive, Positive, Positive]


class CompactRecord(AnyCompactRecord):
    """compact.json: what was removed, and how large and how fast both networks are."""

    weights_sha256: str
    n_removed: int
    difference: float
    kept: list[str]
    layers: list[LayerWidths]
    sizes: SizesOfBoth
    latencies: list[Latency]
    program: str
    onnx: str | None


def sizes(model: nn.Module, example: Tensor, file_bytes: int) -> Sizes:
    """A network's parameters and its multiply-adds, counted by torch's FlopCounterMode."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example[:1])
    n_parameters = sum(p.numel() for p in model.parameters())
    return {"n_parameters": n_parameters, "multiply_adds": counter.get_total_flops() // 2, "file_bytes": file_bytes}


def latencies(
    dense: nn.Module,
    smaller: nn.Module,
    in_shape: tuple[int, ...],
    seconds: float,
    norms: Literal["kept", "folded"] = "kept",
    *,
    channels_last: bool | None = None,
) -> list[Latency]:
    """The latency of both networks on random images, for batches of 1 and 128, on one thread and on all.

    Each network runs in a process of its own, as in a program that contains only that network. Otherwise the tensors of
    both would affect how the C library frees and reallocates memory, which can take as long as the computation. If a
    model can't be sent to another process, both run in this one. They take turns of about 50 ms, for `seconds` per
    setting and at least 5 turns. `channels_last` is the images' memory format; by default, it is the dense network's
    attribute of that name.
    """
    is_last = getattr(dense, "channels_last", False) if channels_last is None else channels_last
    found: list[Latency] = []
    with ExitStack() as stack:
        networks: Sequence[_Alone | _Here] = _alone([dense, smaller], stack) or [_Here(dense), _Here(smaller)]
        for n_threads in dict.fromkeys((1, torch.get_num_threads())):
            for batch in BATCHES:
                asked = {"shape": [batch, *in_shape], "is_last": is_last, "threads": n_threads}
                turns = _in_turns(networks, asked, seconds)
                found += [{"norms": norms, "batch": batch, "threads": n_threads, **turn} for turn in turns]  # type: ignore[typeddict-item]
    return found


def _in_turns(networks: "Sequence[_Alone | _Here]", asked: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    started = time.perf_counter()
    once = max(network.turn({**asked, "n": 3})["wall"] for network in networks)  # chooses kernels and fills caches
    asked = {**asked, "n": max(1, int(0.05 / max(once, 1e-6)))}
    clocks = ("wall", "cpu") if asked["threads"] == 1 else ("wall",)
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    while len(pairs) < 5 or time.perf_counter() - started < seconds:
        first, second = (network.turn(asked) for network in networks)
        pairs.append((first, second))
    return [
        {
            "clock": clock,
            "dense_s": statistics.median(a[clock] for a, _ in pairs),
            "compact_s": statistics.median(b[clock] for _, b in pairs),
            "ratio": statistics.median(a[clock] / b[clock] for a, b in pairs if b[clock] > 0),
            "n_turns": len(pairs),
        }
        for clock in clocks
    ]


class _Here:
    """A network that runs in this process."""

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).cpu().eval()

    def turn(self, asked: dict[str, Any]) -> dict[str, float]:
        """The mean seconds of `n` calls, by each clock."""
        x = torch.randn(*asked["shape"], generator=torch.Generator().manual_seed(0))
        if asked["is_last"]:
            x = x.contiguous(memory_format=torch.channels_last)
            self._model = self._model.to(memory_format=torch.channels_last)
        clocks = {"wall": time.perf_counter, "cpu": time.process_time}
        with _threads(asked["threads"]), torch.inference_mode():
            self._model(x)  # not timed: the first call allocates memory
            at = {clock: now() for clock, now in clocks.items()}
            for _ in range(asked["n"]):
                self._model(x)
            return {clock: (now() - at[clock]) / asked["n"] for clock, now in clocks.items()}


class _Alone:
    """A network that runs in a process of its own."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", "from reg_sweep.compact.measure import serve; serve()", str(path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment, text=True
        )

    def turn(self, asked: dict[str, Any]) -> dict[str, float]:
        """The mean seconds of `n` calls, by each clock."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def _alone(models: list[nn.Module], stack: ExitStack) -> list[_Alone]:
    """Starts a process for each model, which ends with `stack`; returns none if a model can't be sent to a process."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    networks = []
    for n, model in enumerate(models):
        try:
            torch.save(copy.deepcopy(model).cpu().eval(), folder / str(n))
            network = _Alone(folder / str(n))
            stack.callback(network.close)
            network.turn({"shape": [1], "is_last": False, "threads": 1, "n": 0})
        except Exception:  # pickling or unpickling a custom class may raise anything
            return []
        networks.append(network)
    return networks


def serve() -> None:
    """Runs the network in the file that `sys.argv` names, and answers requests on stdin, one JSON object per line."""
    network = _Here(torch.load(sys.argv[1], weights_only=False))
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(network.turn(asked) if asked["n"] else {}), flush=True)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if n == before:  # setting it makes a thread pool, which a process forked later can't use
        yield
        return
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
