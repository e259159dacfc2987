"""Where a fit computes, and the process's state meanwhile, torch's and the memory's, which it gives back as it was."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

from reg_sweep.config.schema import ConfigError
from reg_sweep.training import turns
from reg_sweep.training.ranks import Ranks

ALONE = Ranks()

# Generators, number of threads and defaults are the process's: one thread at a time seeds, sets and uses them.
_lock = threading.RLock()
_is_forked = False


def _after_fork() -> None:
    global _lock, _is_forked
    _lock, _is_forked = threading.RLock(), True  # the lock's owner may be a thread that a child does not have


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def own_torch_state(device: torch.device, threads: int | None = None) -> Iterator[None]:
    """A block in which torch is as a fit needs it, whatever the program around has set, and as it was afterwards.

    Several threads go through it one after the other. Inside, new tensors are float32 and on the CPU; gradients are
    recorded, without autocast; torch computes on `threads` threads; what is drawn from torch's generators, and seeds
    for them, are forgotten at the end. On CUDA the same convolution twice gives the same bits, and float32 means
    float32, not TF32's 10 bits. A forked child computes on one thread: OpenMP's others stayed with its parent, and
    would be waited for. Of jobs that take turns, the thread that runs them is in such a block, and gives each its own
    generators.

    Raises:
        ConfigError: several `threads` are asked for in a forked child.
    """
    if turns.current() is not None:
        yield
        return
    if _is_forked and (threads or torch.get_num_threads()) > 1:
        if threads is not None:
            raise ConfigError(
                f"runtime.threads must be 1 in a forked process, whose parent keeps the other threads, got {threads}: "
                f"leave it out, or start the process by 'spawn'"
            )
        threads = 1
    with _lock, ExitStack() as state:
        state.enter_context(torch.inference_mode(False))
        state.enter_context(torch.enable_grad())
        state.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        # Where a program has set torch's newer fp32_precision, these flags can't be read; only CUDA needs them.
        if device.type == "cuda" or getattr(torch.backends, "fp32_precision", "none") == "none":
            cudnn = torch.backends.cudnn
            flags = {"enabled": cudnn.enabled, "benchmark": False, "deterministic": True, "allow_tf32": False}
            state.enter_context(cudnn.flags(**flags))
        if not torch.backends.mkldnn.enabled:  # its convolutions round otherwise than torch's own
            torch.backends.mkldnn.set_flags(True)
            state.callback(torch.backends.mkldnn.set_flags, False)
        if torch.is_autocast_enabled(device.type):
            state.enter_context(torch.autocast(device.type, enabled=False))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            state.callback(torch.set_default_dtype, dtype)
        # The block slows every call of torch. In torch 2.7 the default device knows nothing of a block around.
        if torch.empty(0).device.type != "cpu":
            state.enter_context(torch.device("cpu"))
        if threads is not None and threads != (before := torch.get_num_threads()):
            torch.set_num_threads(threads)
            state.callback(torch.set_num_threads, before)
        yield


Generators = tuple[torch.Tensor, torch.Tensor | None]  # states of the CPU's, and of the GPU's where one is in use


def generators() -> Generators:
    """The states of torch's own generators."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None


def set_generators(states: Generators) -> None:
    """Sets the states of torch's own generators."""
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1])


def choose_device(name: str, ranks: Ranks = ALONE) -> torch.device:
    """auto: CUDA, else Apple's GPU, else the CPU. Each of several ranks on a machine has a GPU of its own.

    Raises:
        ConfigError: the named device is not on this machine, not once for each rank, or none that ranks share a run on.
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
        raise ConfigError(f"runtime.device must be on this machine, got {name!r}: choose runtime.device=auto")
    return torch.device(name)


def _device_of_rank(name: str, ranks: Ranks) -> torch.device:
    if name == "mps":
        raise ConfigError("runtime.device must be cpu or cuda on several processes, got 'mps': set runtime.device=cpu")
    n_gpus = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and n_gpus == 0):
        return torch.device("cpu")
    if n_gpus < ranks.n_local:
        raise ConfigError(
            f"runtime.device must hold a GPU for each of a machine's processes ({ranks.n_local}), got {n_gpus}: start "
            f"fewer with torchrun --nproc-per-node, or set runtime.device=cpu"
        )
    torch.cuda.set_device(ranks.local_rank)
    return torch.device("cuda", ranks.local_rank)


# A step takes and frees dozens of buffers of up to some megabytes. glibc gives such buffers back to the kernel at once,
# and each page that it takes again costs a fault and is filled with zeros first: a third of a step and more where
# several processes share the memory's bandwidth (docs/performance.md).
# malloc.h of glibc: parameter, what keeps all memory, and what glibc starts with.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}
_DEFAULT = {_TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17, _MMAP_MAX: 2**16}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps what is freed for the next step, and gives all of it back in the end.

    It changes nothing that is computed. The thresholds are the process's, which has glibc's own again afterwards.
    Nothing happens without glibc, or where the environment sets them (`MALLOC_..._`, `GLIBC_TUNABLES`); nor in a job
    that takes turns, since the thread that runs all of them is in such a block.
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
