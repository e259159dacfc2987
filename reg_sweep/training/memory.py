"""The process's memory between the steps of a training: kept, instead of given back and taken again.

A step takes and frees dozens of buffers of up to some megabytes. glibc gives such buffers back to the kernel at once,
and each page that it takes again costs a fault and is filled with zeros first: a third of a step and more where
several processes share the memory's bandwidth (docs/performance.md).
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# malloc.h of glibc: parameter, what keeps all memory, and what glibc starts with.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}
_DEFAULT = {_TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17, _MMAP_MAX: 2**16}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keeps what is freed for the next step, and gives all of it back in the end.

    It changes nothing that is computed. The thresholds are the process's, which has glibc's own again afterwards.
    Nothing happens without glibc, or where the environment sets them (`MALLOC_..._`, `GLIBC_TUNABLES`).
    """
    libc = _glibc()
    if libc is None:
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
