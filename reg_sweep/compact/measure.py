"""Size and speed of networks: parameters, multiply-adds, and latency measured in turns."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

BATCHES = (1, 128)


class Sizes(TypedDict):
    """The size of a network. `multiply_adds` are those for one image."""

    n_parameters: int
    multiply_adds: int
    file_bytes: int


class Latency(TypedDict):
    """Median seconds for a batch, and the median of the ratios dense / compact of turns that followed one another.

    `norms` are kept or folded into the layers beside them, in both networks. `clock` is wall, or cpu: the process's own
    time, for one thread the same wherever nothing else runs.
    """

    norms: Literal["kept", "folded"]
    batch: int
    threads: int
    clock: str
    dense_s: float
    compact_s: float
    ratio: float
    n_turns: int


def sizes(model: nn.Module, example: Tensor, file_bytes: int) -> Sizes:
    """A network's parameters and multiply-adds, as torch's own counter has them."""
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
    """The latency of both networks on random images, batch 1 and 128, on one thread and on all.

    The networks take turns of about 20 ms, for `seconds` in each setting and at least 5 turns. `channels_last` says how
    images lie in memory; left out, the dense network's own attribute does.
    """
    is_last = getattr(dense, "channels_last", False) if channels_last is None else channels_last
    first, second = copy.deepcopy(dense).cpu().eval(), copy.deepcopy(smaller).cpu().eval()
    found: list[Latency] = []
    for n_threads in dict.fromkeys((1, torch.get_num_threads())):
        for batch in BATCHES:
            x = torch.randn(batch, *in_shape, generator=torch.Generator().manual_seed(0))
            if is_last:
                x = x.contiguous(memory_format=torch.channels_last)
                first, second = (m.to(memory_format=torch.channels_last) for m in (first, second))
            with _threads(n_threads), torch.inference_mode():
                turns = _in_turns(lambda m=first, x=x: m(x), lambda m=second, x=x: m(x), n_threads, seconds)  # type: ignore[misc]
            found += [{"norms": norms, "batch": batch, "threads": n_threads, **turn} for turn in turns]  # type: ignore[typeddict-item]
    return found


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_turns(
    dense: Callable[[], Tensor], smaller: Callable[[], Tensor], n_threads: int, seconds: float
) -> list[dict[str, str | float]]:
    started = time.perf_counter()
    for run in (dense, smaller, dense, smaller):  # the first calls choose kernels and fill caches
        before = time.perf_counter()
        run()
    once = time.perf_counter() - before
    n = max(1, int(0.02 / max(once, 1e-6)))
    clocks = {"wall": time.perf_counter, **({"cpu": time.process_time} if n_threads == 1 else {})}
    times: dict[str, list[tuple[float, float]]] = {clock: [] for clock in clocks}
    while len(times["wall"]) < 5 or time.perf_counter() - started < seconds:
        turns = []
        for run in (dense, smaller):
            at = {clock: now() for clock, now in clocks.items()}
            for _ in range(n):
                run()
            turns.append({clock: (now() - at[clock]) / n for clock, now in clocks.items()})
        for clock in clocks:
            times[clock].append((turns[0][clock], turns[1][clock]))
    return [
        {
            "clock": clock,
            "dense_s": statistics.median(a for a, _ in pairs),
            "compact_s": statistics.median(b for _, b in pairs),
            "ratio": statistics.median(a / b for a, b in pairs if b > 0),
            "n_turns": len(pairs),
        }
        for clock, pairs in times.items()
    ]
