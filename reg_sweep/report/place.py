"""Where a report may be written: what is not its own stays."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from reg_sweep.report.sources import SourceError, default_folder, require_roots
from reg_sweep.runs.addresses import is_secret, public_location

PAGE = "index.html"


class ReportError(Exception):
    """A report that can't be written. The message is one line: what, why, remedy."""


def place_of(roots: Sequence[str | Path], out: str | Path | None) -> Path:
    """The folder that a report on `roots` is written into: `out`, or report/ in the first.

    Raises:
        ReportError: a root is nowhere; `out` can't be a folder, or holds something that is no report, or the report of
            another folder.
    """
    try:
        require_roots(roots)
    except SourceError as wrong:
        raise ReportError(str(wrong)) from None
    if out == "":
        raise ReportError("--out must name a folder, got '': leave it out for report/ in the first folder")
    folder = Path(out) if out is not None else default_folder(roots[0])
    try:
        _require_folder(folder)
        _keep_another_folders(folder / PAGE, mark_of(folder, roots[0]))
    except OSError as error:  # a name that is too long, a working directory that was removed
        raise ReportError(f"--out must name a folder that can be made, got {folder}: {error.strerror}") from None
    return folder


def require_known(option: str, known: Sequence[str], *values: str) -> None:
    """Refuses an option's values that are not known."""
    if unknown := [value for value in values if value not in known]:
        raise ReportError(f"{option} must be one of {', '.join(known)}, got {unknown[0]!r}")


def _require_folder(out: Path) -> None:
    require_possible(out, "--out")
    page = out / PAGE
    if os.path.lexists(page) and not _is_own_page(page):
        raise _foreign(page)


def require_possible(folder: Path, option: str, error: type[Exception] = ReportError) -> None:
    """Refuses what can be no folder: a file, a link to none, a name that the system does not take."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as refused:
        raise error(f"{option} must name a folder that can be made, got {folder}: {refused.strerror}") from None
    file = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), None)
    if file is not None and not file.is_dir():
        what = "a link to no folder" if file.is_symlink() else "a file"
        raise error(f"{option} must name a folder, got {folder}: {file} is {what}, name another place")


def mark_of(out: Path, root: str | Path) -> str:
    """A digest of where the first folder lies, as seen from its report: it stays when both are moved together."""
    is_address = is_secret(str(root)) and not Path(root).exists()
    way = public_location(str(root)) if is_address else os.path.relpath(os.path.realpath(root), os.path.realpath(out))
    return hashlib.sha256(os.fsencode(way)).hexdigest()[:16]


def _keep_another_folders(page: Path, mark: str) -> None:
    """Refuses to replace the report of another folder."""
    if not page.exists():
        return
    with page.open("rb") as file:
        found = re.search(rb'<meta name="reg_sweep-of" content="([0-9a-f]+)">', file.read(2_000))
    if found is not None and found[1].decode() != mark:
        raise ReportError(
            f"--out must name a new folder or one with a report of the same folder, got {page.parent}, which holds the "
            "report of another: name another with --out"
        )


def _is_own_page(page: Path) -> bool:
    """Whether reg_sweep wrote the page: by its generator tag, or by its title in versions older than the tag."""
    if page.is_symlink() or not page.is_file():
        return False
    try:
        with page.open("rb") as file:
            start = file.read(2_000)
    except OSError as error:
        raise ReportError(f"--out must name a folder whose page can be read, got {page}: {error.strerror}") from None
    return b'<meta name="generator" content="reg_sweep' in start or b"<title>Which regularizer, and how much?" in start


def keep_foreign(folder: Path, staging: Path) -> None:
    """Refuses to replace files in a folder without an earlier report."""
    if os.path.lexists(folder / PAGE):
        return
    for path in sorted(staging.iterdir()):
        if os.path.lexists(folder / path.name):
            raise _foreign(folder / path.name)


def _foreign(path: Path) -> ReportError:
    return ReportError(
        f"--out must name a new folder or that of an earlier report, got {path}: name another with --out"
    )
