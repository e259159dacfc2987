"""The device of a fit, and the process-wide state that it sets and restores: torch's settings and malloc's."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from reg_sweep.config.rules import ConfigError
from reg_sweep.training import turns
from reg_sweep.training.ranks import Ranks

ALONE = Ranks()

# Generators, number of threads and defaults are process-wide: one thread at a time sets and uses them.
_lock = threading.RLock()
_is_forked = False


def _after_fork() -> None:
    global _lock, _is_forked
    _lock, _is_forked = threading.RLock(), True  # the old lock's owner may be a thread that the child does not have


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def own_torch_state(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Sets torch's process-wide state as a fit needs it, and restores it at the end of the block.

    Only one thread at a time is in the block. Inside, new tensors are float32 and on the CPU; gradients are recorded,
    without autocast; torch computes on `threads` threads. The states of torch's generators are restored at the end. On
    CUDA, convolutions are deterministic, and float32 isn't reduced to TF32's 10 bits. A forked child computes on one
    thread: OpenMP's other threads exist only in its parent, and waiting for them would hang. For jobs that take turns,
    the thread that runs them enters the block once, and gives each job its own generators.

    Raises:
        ConfigError: several `threads` are requested in a forked child.
    """
    if turns.current() is not None:
        yield
        return
    if _is_forked and (threads or torch.get_num_threads()) > 1:
        if threads is not None:
            raise ConfigError(
                f"runtime.threads must be 1 in a forked process, which lacks its parent's threads, got {threads}: "
                f"leave it out, or start the process with the method 'spawn'"
            )
        threads = 1
    with _lock, ExitStack() as state:
        state.enter_context(torch.inference_mode(False))
        state.enter_context(torch.enable_grad())
        state.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        # If a program has set torch's newer fp32_precision, reading these flags fails. Only CUDA needs them.
        if device.type == "cuda" or getattr(torch.backends, "fp32_precision", "none") == "none":
            cudnn = torch.backends.cudnn
            flags = {"enabled": cudnn.enabled, "benchmark": False, "deterministic": True, "allow_tf32": False}
            state.enter_context(cudnn.flags(**flags))
        if not torch.backends.mkldnn.enabled:  # oneDNN's convolutions round differently from torch's own
            torch.backends.mkldnn.set_flags(True)
            state.callback(torch.backends.mkldnn.set_flags, False)
        if torch.is_autocast_enabled(device.type):
            state.enter_context(torch.autocast(device.type, enabled=False))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            state.callback(torch.set_default_dtype, dtype)
        # Entered only if needed, because it slows every call of torch. Asking a tensor, because torch 2.7's
        # get_default_device ignores an enclosing `with torch.device(...)`.
        if torch.empty(0).device.type != "cpu":
            state.enter_context(torch.device("cpu"))
        if threads is not None and threads != (before := torch.get_num_threads()):
            torch.set_num_threads(threads)
            state.callback(torch.set_num_threads, before)
        yield


Generators = tuple[torch.Tensor, torch.Tensor | None]  # states of the CPU's generator and, if one is in use, the GPU's


def generators() -> Generators:
    """The states of torch's own generators."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


def set_generators(states: Generators) -> None:
    """Sets the states of torch's own generators."""
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1])


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """The named device; for auto: CUDA, else Apple's GPU, else the CPU. Each rank on a machine has a GPU of its own.

    Raises:
        ConfigError: the named device is not available, not available for each rank, or does not support several ranks.
    """
    if ranks.n > 1:
        return _device_of_rank(name, ranks)
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        return torch.device(next(d for d, is_there in there.items() if is_there()))
    if not there[name]():
        raise ConfigError(f"runtime.device must be available on this machine, got {name!r}: choose runtime.device=auto")
    return torch.device(name)


def _device_of_rank(name: str, ranks: Ranks) -> torch.device:
    if name == "mps":
        raise ConfigError("runtime.device must be cpu or cuda for several processes, got 'mps': set runtime.device=cpu")
    n_gpus = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and n_gpus == 0):
        return torch.device("cpu")
    if n_gpus < ranks.n_local:
        raise ConfigError(
            f"runtime.device=cuda needs a GPU for each of a machine's processes ({ranks.n_local}), got {n_gpus}: start "
            f"fewer with torchrun --nproc-per-node, or set runtime.device=cpu"
        )
    torch.cuda.set_device(ranks.local_rank)
    return torch.device("cuda", ranks.local_rank)


# A step allocates and frees dozens of buffers of up to several megabytes. glibc returns such buffers to the kernel at
# once; when a page is allocated again, it costs a fault and is filled with zeros first. This takes a third of a step,
# or more if several processes share the memory bandwidth (docs/performance.md).
# Parameters of glibc's malloc.h, the values that keep all memory, and glibc's defaults.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}
_DEFAULT = {_TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17, _MMAP_MAX: 2**16}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps freed memory for the next step, and returns it to the kernel at the end of the block.

    The results of computations don't change. The thresholds are process-wide, and are set back to glibc's defaults
    afterwards. Nothing happens without glibc, or if the environment sets the thresholds (`MALLOC_..._`,
    `GLIBC_TUNABLES`), or in a job that takes turns, because the thread that runs the jobs is in the block already.
    """
    libc = _glibc()
    if libc is None or turns.current() is not None:
        yield
        return
    _set(libc, _KEEP)
    try:
        yield
    finally:
        _set(libc, _DEFAULT)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if os.name != "posix" or any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def _set(libc: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        libc.mallopt(parameter, value)
