"""Finds the folders in a tree that contain a given file, and reports those that are skipped."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from reg_sweep.runs.validation import visible


def folders_with(name: str, *roots: str | Path, problems: list[str] | None = None) -> Iterator[Path]:
    """The folders under each root, and the root itself, that contain a file with this name, in natural order.

    Linked and hidden folders are skipped. Skipped folders that contain such a file, directly or in a subfolder, and
    folders that can't be read are added to `problems`.
    """
    found: list[str] = [] if problems is None else problems

    def unreadable(error: OSError) -> None:
        found.append(visible(f"{error}: left out"))

    inside = [real_path(root) for root in roots]
    for root in roots:
        for folder, folders, files in walk(root, unreadable):
            path = Path(folder)
            found.extend(said for f in folders if (said := _passed_over(path / f, name, inside)))
            folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural)
            if name in files:
                yield path


def walk(
    root: str | Path, onerror: Callable[[OSError], object] = lambda _: None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Like `os.walk`, but to any depth: before Python 3.12, `os.walk` is recursive."""
    waiting = [os.fspath(root)]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else files).append(entry.name)
        except OSError as error:
            onerror(error)
            continue
        yield folder, folders, files
        below = [os.path.join(folder, name) for name in reversed(folders)]
        waiting += [path for path in below if not os.path.islink(path)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def real_path(path: str | Path) -> Path:
    """A path without links. (Unlike this, `Path.resolve` raises an error for circular links.)"""
    return Path(os.path.realpath(path))


def _passed_over(path: Path, name: str, inside: list[Path]) -> str:
    """Why a folder with such a file is skipped; empty if it is not skipped, or found elsewhere."""
    is_link = path.is_symlink()
    if not (is_link or path.name.startswith(".")) or not _holds(path, name):
        return ""
    if is_link and any(real_path(path).is_relative_to(root) for root in inside):
        return ""  # it is found at its real path
    kind = "a link" if is_link else "a hidden folder"
    return visible(f"{path}: {kind} with a {name}: left out; to read it, name it along with the other folders")


def _holds(path: Path, name: str) -> bool:
    try:
        return (path / name).is_file() or any((child / name).is_file() for child in path.iterdir())
    except OSError:
        return False


def natural(name: str) -> tuple[bool, int, str]:
    """A sort key that puts job directory 2 before 10, and numbers of at most 64 bits before names."""
    return (False, int(name), "") if name.isdecimal() and len(name) < 19 else (True, 0, name)
