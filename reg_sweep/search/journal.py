"""A study's journal file: locked as Optuna locks it, and repaired where a full disk tore its last line."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from reg_sweep.search import interrupt


class Journal(JournalStorage):
    """Optuna's journal, whose lock a process can hold over several lines."""

    def __init__(self, path: str) -> None:
        """Opens the file, or makes it."""
        self._own_lock = ReentrantLock(path)
        with holding(self._own_lock):
            cut_torn_line(Path(path))
        super().__init__(MendingBackend(path, self._own_lock))

    @contextmanager
    def lock(self, study_name: str) -> Iterator[None]:
        """Held by one process at a time, on every machine that shares the file.

        All studies of the file share the lock, under which each line is written.
        """
        with holding(self._own_lock):
            yield

    def close(self) -> None:
        """Does nothing: the file is not kept open. The method matches `Database`'s."""


class ReentrantLock:
    """The journal's own lock, which a thread that holds it may take again, to write.

    It has the methods that Optuna asks of a lock. Signals wait while it is held: Optuna's lock, cut in two by an
    exception, stays behind, or takes away another process's.
    """

    def __init__(self, path: str) -> None:
        """Locks as Optuna does by default, which keeps other programs on the file out too."""
        self._between_processes = JournalFileSymlinkLock(path)
        self._between_threads = threading.RLock()
        self._depth = 0

    def acquire(self) -> bool:
        """Waits until this thread holds it.

        Raises:
            StorageInternalError: a disk that can't be written has no lock.
        """
        interrupt.hold_back()
        try:
            self._between_threads.acquire()
            try:
                if self._depth == 0:
                    with explained("the journal can't be locked"):
                        self._between_processes.acquire()
            except BaseException:
                self._between_threads.release()
                raise
        except BaseException:
            interrupt.let_through()
            raise
        self._depth += 1
        return True

    def release(self) -> None:
        """Releases the lock at the outermost level of this thread.

        Raises:
            StorageInternalError: it can't be freed, or was taken away from a process that held it for too long.
        """
        self._depth -= 1
        try:
            if self._depth == 0:
                with explained("the journal's lock can't be freed"):
                    self._between_processes.release()
        finally:
            self._between_threads.release()
            interrupt.let_through()


class MendingBackend(JournalFileBackend):
    """Optuna's file, which never appends to a torn line, and removes a line that can't be written whole."""

    def __init__(self, path: str, lock: ReentrantLock) -> None:
        """Opens the file, which is written under `lock`."""
        super().__init__(path, lock)  # type: ignore[arg-type] # see there
        self._path, self._mending_lock = Path(path), lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends lines, or leaves the file as it was.

        Raises:
            StorageInternalError: they can't be written.
        """
        with holding(self._mending_lock):
            with explained("the journal can't be read"):
                size = cut_torn_line(self._path)
            try:
                super().append_logs(logs)
            except OSError as error:
                with self._path.open("r+b") as file:
                    file.truncate(size)
                raise StorageInternalError("the journal can't be written") from error


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Raises StorageInternalError, which a study explains, where the disk fails (Optuna's lock: RuntimeError)."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise StorageInternalError(what) from error


@contextmanager
def holding(lock: ReentrantLock) -> Iterator[None]:
    """Holds a lock for the block."""
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def cut_torn_line(path: Path) -> int:
    """Cuts a file after its last whole line; only the lock's holder may call it. Returns its size.

    No reader has seen the removed part: Optuna reads a line only once it is complete.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        size = end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
        return end
