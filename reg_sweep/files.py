"""Files that are whole or not there, and folders that one process holds: atomic replacement, locks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from reg_sweep.config import ConfigError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two processes from one directory
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file beside `path` that replaces it, synced to disk, when the block ends well.

    A half-written `path` can't exist.

    Raises:
        OSError: the disk is full or not writable; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when its process dies."""
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Holds a run's directory for this process, making it if need be; the hold ends with the process at the latest.

    Raises:
        ConfigError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_FILE).open("w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{directory} must be free, got one in which another process trains: wait, or choose another name"
            ) from None
        for half_written in directory.glob(".*.tmp"):  # by a process that was killed
            half_written.unlink()
        try:
            yield
        finally:
            if [path.name for path in directory.iterdir()] == [LOCK_FILE]:  # nothing came of it
                (directory / LOCK_FILE).unlink()
                directory.rmdir()
