"""Atomic file replacement, and locks that give a folder to one process.

The library filelock (4.3) is not used, because it can't lock a folder, accepts a pipe as a lock file, refuses another
user's file in a shared sticky folder, waits by polling, and takes 45 ms to import.
"""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from reg_sweep.config.rules import ConfigError

try:
    import fcntl
except ImportError:  # Windows: nothing prevents two processes from using one directory
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK_FILE = ".lock"
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.reg_sweep\.tmp")
# Windows has no such flag, and links are rare there.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_LOCKS = {getattr(errno, name) for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP") if hasattr(errno, name)}
WAIT_SAID_S = 5.0  # waiting for a lock is logged after this time; normally a lock is held for milliseconds
# A full, read-only or broken disk, or an exceeded quota.
_DISK_ERRORS = {getattr(errno, name) for name in ("ENOSPC", "EROFS", "EIO", "EDQUOT") if hasattr(errno, name)}


def is_of_disk(error: BaseException) -> bool:
    """Whether the error is a disk failure."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


class HeldError(ConfigError):
    """Another running process holds the directory."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A temporary binary file that is synced to disk and replaces `path` when the block succeeds.

    `path` is never half-written.

    Raises:
        OSError: the disk is full or not writable; `path` is then unchanged.
    """
    # A unique name, so that no existing file is overwritten or link followed.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.reg_sweep.tmp")
    opened = temporary.open("xb")
    try:
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock on a file: one process at a time; the system releases it when the process dies.

    Raises:
        OSError: the file can't be created or opened, or is a link.
    """
    with _opened(path) as file:
        if not _is_locked(file, path):
            # Logged from another thread, so that this one can block: waiting processes get the lock in order.
            said = threading.Timer(WAIT_SAID_S, log.warning, ("waiting for %s, which another process holds", path))
            said.daemon = True
            said.start()
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            finally:
                said.cancel()
        yield


def _is_locked(file: IO[bytes], path: Path) -> bool:
    """Locks a file unless another process holds it, and returns whether it did; always True on Windows, without locks.

    Raises:
        OSError: the file system does not support locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        said = "its file system does not support locks: choose a folder on another file system"
        raise OSError(error.errno, said, str(path)) from None
    return True


@contextmanager
def locked_directory(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock on a run's directory, and creates it if missing; the system releases it when the process dies.

    Raises:
        HeldError: another process holds it, and `wait` is False.
        ConfigError: its lock file is a link, which might point anywhere.
    """
    made, is_locked_before = first_missing(directory), os.path.lexists(directory / LOCK_FILE)
    with _lock_file_held(directory, wait=wait):
        clear_temporaries(directory)
        try:
            yield
        except ConfigError:  # a refused run leaves nothing in another's folder
            if not is_locked_before:
                (directory / LOCK_FILE).unlink(missing_ok=True)
            raise
        finally:
            if [path.name for path in directory.iterdir()] in ([], [LOCK_FILE]):  # nothing was written
                (directory / LOCK_FILE).unlink(missing_ok=True)
                remove_empty(directory, made)


def first_missing(folder: Path) -> Path | None:
    """The topmost folder that has to be created for `folder`; None if `folder` exists."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def remove_empty(folder: Path, top: Path | None) -> None:
    """Removes a folder if it is empty, and then its parents up to `top` as long as they are empty."""
    with suppress(OSError):  # it is not empty
        for path in (folder, *folder.parents):
            if path.exists():
                path.rmdir()
            if top in (None, path):
                break


def clear_temporaries(directory: Path) -> None:
    """Removes temporary files that killed processes left in `replacing`, and no other files.

    Only call it while no other process writes in the directory.
    """
    for entry in os.scandir(directory):
        if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            os.unlink(entry)


@contextmanager
def _lock_file_held(directory: Path, *, wait: bool) -> Iterator[None]:
    path = directory / LOCK_FILE
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            file = _opened(path)
        except FileNotFoundError:  # its last holder has just removed the folder
            continue
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ConfigError(f"{path} must be a plain file, got a link: remove it, or choose another name") from None
        with file:
            if not _is_locked(file, path):
                if not wait:
                    raise HeldError(
                        f"{directory} must be free, got one in which another process trains: wait, or choose another"
                        " name"
                    )
                log.info("another process trains in %s: waiting for it", directory)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # its last holder removed the file between opening and locking
                continue
            yield
            return


def _opened(path: Path) -> IO[bytes]:
    """Opens a lock's file, and creates it if missing; follows no link and leaves the content unchanged."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o666), "ab")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.ELOOP, "not a plain file", str(path))
    return file


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


STAGING = ".reg_sweep-staging"
LISTING = ".reg_sweep-files.json"  # lists the files that were written together, each with its SHA-256
_MAX_LISTING = 16_000_000  # bytes, enough for hundreds of thousands of files


@contextmanager
def staged(folder: Path, last: str) -> Iterator[Path]:
    """A temporary folder inside `folder` whose files, including subfolders, replace those of `folder` on success.

    All files are synced to disk before the first is moved, so that no file is ever half-written. `last` is moved after
    the files that it refers to. Then files that an earlier block wrote and this one did not are removed, unless they
    have been changed since. Other files in `folder` remain. Only one process at a time is in the block; leftovers of a
    killed process are removed.

    Raises:
        OSError: the disk is full or not writable; the files of `folder` are then unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / STAGING
    with _alone_in(folder):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
            paths = (path for path in staging.rglob("*") if path.is_file())
            names = sorted((path.relative_to(staging).as_posix() for path in paths), key=lambda n: (n == last, n))
            for name in names:
                with (staging / name).open("rb+") as file:
                    os.fsync(file.fileno())
            written = {name: _digest(staging / name) for name in names}
            stale = {name: digest for name, digest in listed(folder).items() if name not in written}
            _write_listing(folder, stale | written)  # if this process is killed, the next one removes stale files
            for name in names:
                (folder / name).parent.mkdir(exist_ok=True)
                (staging / name).replace(folder / name)
            for name, digest in stale.items():
                _remove_unchanged(folder / name, digest)
            _write_listing(folder, written)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def listed(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that `staged` wrote into a folder, by relative path; empty if there is no listing.

    An unreadable listing counts as none, so that no file is removed or believed to be ours.
    """
    path = folder / LISTING
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_LISTING:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: digest for name, digest in found.items() if _is_inside(name) and isinstance(digest, str)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def is_unchanged(path: Path, digest: str) -> bool:
    """Whether a path is a plain file that still has the listed SHA-256."""
    return path.is_file() and not path.is_symlink() and _digest(path) == digest


def _is_inside(name: str) -> bool:
    """Whether a listed path stays inside the folder, at most one level down."""
    parts = name.split("/")
    return len(parts) <= 2 and all(part not in ("", ".", "..") and "\\" not in part for part in parts)


def _write_listing(folder: Path, files: dict[str, str]) -> None:
    with replacing(folder / LISTING) as file:
        file.write(json.dumps({"written_by": "reg_sweep", "files": files}, indent=1).encode())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_unchanged(path: Path, digest: str) -> None:
    if path.parent.is_symlink() or not is_unchanged(path, digest):
        return
    path.unlink()
    with suppress(OSError):  # it contains other files
        path.parent.rmdir()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process holds the folder, then locks it without creating a file in it."""
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
