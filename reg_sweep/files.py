"""Files that are whole or not there, and folders that one process holds: atomic replacement, locks."""

import os
import shutil
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


STAGING = ".staging"


@contextmanager
def staged(folder: Path, last: str) -> Iterator[Path]:
    """A folder inside `folder` whose files replace those of `folder` when the block ends well.

    They are synced to disk before the first is moved, so that no name ever stands for half a file; `last` is moved
    after those that it refers to. Other files in `folder` stay. One process at a time is in the block; what a killed
    one left is cleared away.

    Raises:
        OSError: the disk is full or not writable; the files of `folder` are then as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / STAGING
    with _held(folder):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            written = sorted(staging.iterdir(), key=lambda path: path.name == last)
            for path in written:
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
            for path in written:
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Waits until no other process holds the folder; nothing of that stays in it."""
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
