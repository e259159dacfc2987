"""Where a report reads its runs, and where it may be written.

It reads this project's runs under its roots, and other programs' runs, each in one way only. It replaces only its own
files.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reg_sweep.comparison.results import EPOCHS, TEST_METRICS, Result, result, strangers
from reg_sweep.comparison.sentences import count
from reg_sweep.readers.catches import caught
from reg_sweep.readers.choose import Choice, choose
from reg_sweep.readers.foreign import ReadError, Wanted
from reg_sweep.readers.sources import Found, find_foreign
from reg_sweep.report.progress import Progress
from reg_sweep.runs.addresses import is_secret, public_location, typed_location
from reg_sweep.runs.discovery import real_path
from reg_sweep.runs.reading import RecordedError, find_runs, read_run
from reg_sweep.runs.record import STUDY_FILE, RecordError

PAGE = "index.html"
N_SOURCES = 20  # listed on the page


class SourceError(Exception):
    """Roots without runs, or runs that can't be read in one way. The message is one line: what, why, remedy."""


class ReportError(Exception):
    """A report that can't be written. The message is one line: what, why, remedy."""


@dataclass(frozen=True)
class ReadAs:
    """How the runs of other programs were read: in words, and as a command to change.

    `notes` are mistakes that were caught in them.
    """

    said: str
    command: str
    sources: list[tuple[str, str]]
    n_sources: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sources:
    """The results of all runs. `folders` are the roots that are folders; `unit` is that of another program's score."""

    results: list[Result]
    folders: list[Path]
    read_as: ReadAs | None = None
    unit: str = "share"


def default_folder(root: str | Path) -> Path:
    """Where a report goes: report/ in a folder, NAME-report beside a file, report/ here for an address."""
    path = Path(root)
    if "://" in str(root):
        return Path("report")
    return path / "report" if not os.path.isfile(path) else path.with_name(f"{path.stem}-report")


def study_folder(root: str | Path) -> str | Path:
    """A study's folder, which holds the design to judge it by, if its study.json or storage is named; else the root."""
    path = Path(root)
    is_storage = path.suffix in (".db", ".log") and (path.parent / STUDY_FILE).is_file()
    return path.parent if os.path.isfile(path) and (path.name == STUDY_FILE or is_storage) else root


def public_root(root: str | Path) -> str | Path:
    """A root for printing: an address without its user, password and options."""
    return public_location(str(root)) if is_secret(str(root)) and not os.path.exists(root) else root


def unit_of(roots: Sequence[str | Path]) -> str | None:
    """The unit of the score that judges, before the runs are read; None where another program's may be there."""
    return None if any(os.path.exists(root) or "://" in str(root) for root in roots) else "share"


def require_roots(roots: Sequence[str | Path]) -> None:
    """Refuses a root that does not exist.

    Raises:
        SourceError: one is not a file, a folder or an address.
    """
    for root in roots:
        if root == "" or not (os.path.exists(root) or "://" in str(root)):
            said = public_root(root) or repr(root)
            raise SourceError(f"{said} is not a file or folder: name the folder that holds the runs, such as outputs/")


def read_sources(
    roots: Sequence[str | Path], wanted: Wanted, problems: list[str], progress: Progress, typed: Sequence[str] = ()
) -> Sources:
    """The runs under the roots, which are folders, files of other programs or addresses of their storages.

    `typed` are the other options, for the command that changes the reading.

    Raises:
        SourceError: there are no runs, or those of other programs can't be read in one way.
    """
    folders = [Path(root) for root in roots if Path(root).is_dir()]
    own = _own(folders, problems, progress)
    try:
        found = find_foreign(roots, wanted, {r.path for r in own})
        problems += found.problems
        if not found.runs:
            return Sources(_some(own, roots, problems), folders)
        choice = caught(choose(found.runs, wanted))
    except ReadError as error:
        raise SourceError(str(error)) from None
    problems += choice.problems
    names = list(found.sources)
    called = names[0].name if len(names) == 1 else f"{count(len(names), 'source')}"
    results = [*own, *strangers(choice, called)]
    return Sources(results, folders, _read_as(roots, found, choice, typed), choice.score.unit)


def _read_as(roots: Sequence[str | Path], found: Found, choice: Choice, typed: Sequence[str]) -> ReadAs:
    named = [str(root) if Path(root).exists() else typed_location(str(root)) for root in roots]
    said = f"python -m reg_sweep.report {shlex.join(named)} {choice.flags}"
    command = f"{said} {shlex.join(typed)}" if typed else said
    sources = [(str(path), kind) for path, kind in found.sources.items()]
    return ReadAs(choice.said, command, sources[:N_SOURCES], len(sources), choice.notes)


def _own(folders: Sequence[Path], problems: list[str], progress: Progress) -> list[Result]:
    paths = list({real_path(path): path for path in find_runs(*folders, problems=problems)}.values())
    results = []
    for directory in progress.over(paths, "reading", "run", len(paths)):
        try:
            results.append(result(read_run(directory)))
        except RecordedError:
            continue  # a run of another program: `find_foreign` reads it
        except RecordError as error:
            problems.append(str(error))
    return results


def _some(results: list[Result], roots: Sequence[str | Path], problems: list[str]) -> list[Result]:
    if not results:
        where = ", ".join(map(str, map(public_root, roots)))
        found = f", only {count(len(problems), 'file')} that can't be read, such as {problems[0]}" if problems else ""
        raise SourceError(f"no runs under {where}{found}: train one with python -m reg_sweep.train")
    return results


def own_question(wanted: Wanted, metric: str | None, epoch: str | None) -> tuple[str | None, str | None]:
    """Metric and epoch of this project's runs, where --score and --at give them.

    Raises:
        SourceError: they, or other options, only go with runs of other programs.
    """
    if wanted.score is not None:
        known = [m.name for m in TEST_METRICS]
        if wanted.score not in known:
            raise SourceError(f"--score must be one of {', '.join(known)} for runs of reg_sweep, got {wanted.score!r}")
        metric = wanted.score
    if wanted.at is not None:
        epochs = dict(zip(("last", "best:val_loss"), EPOCHS, strict=True))
        if wanted.at not in epochs:
            raise SourceError(f"--at must be one of {', '.join(epochs)} for runs of reg_sweep, got {wanted.at!r}")
        epoch = epochs[wanted.at]
    for option, value in (("--seed", wanted.seed), ("--arm", wanted.arms), ("--metrics-file", wanted.metrics_file)):
        if value is not None:
            raise SourceError(f"{option} is for runs of other programs, and there are none here: leave it out")
    return metric, epoch


def place_of(roots: Sequence[str | Path], out: str | Path | None) -> Path:
    """The folder that a report on `roots` is written into: `out`, or report/ in the first.

    Raises:
        ReportError: a root does not exist; `out` can't be a folder, or holds something other than a report, or the
        report of another folder.
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
    """Refuses what can't be a folder: a file, a broken link, a name that the system does not accept."""
    try:
        os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as refused:
        raise error(f"{option} must name a folder that can be made, got {folder}: {refused.strerror}") from None
    file = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), None)
    if file is not None and not file.is_dir():
        what = "a link to no folder" if file.is_symlink() else "a file"
        raise error(f"{option} must name a folder, got {folder}, but {file} is {what}: name another")


def mark_of(out: Path, root: str | Path) -> str:
    """A digest of the first folder's place as seen from its report: unchanged if both are moved together."""
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
            "report of another folder: name another with --out"
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
