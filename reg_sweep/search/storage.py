"""Where a study is stored, the attributes that this package adds to Optuna's, and how the storage is opened.

A study's whole state is in its storage, which all of its processes share. Secret parts of the storage's address are
never printed or written.
"""

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from reg_sweep.hydra_app.command_line import written_directory
from reg_sweep.runs import files
from reg_sweep.runs.addresses import is_server, public_location, reason_of
from reg_sweep.search.optuna_internals import opened_storage_of
from reg_sweep.search.settings import StudyError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from reg_sweep.search.backends import Database, Journal

    Storage = Database | Journal

Result = TypeVar("Result")

STORAGE_FILE = "study.db"
RESULTS_FILE = "optimization_results.yaml"
BEST_FILE = "experiment/best.yaml"
SWEEP_FILE = "multirun.yaml"  # the sweep's config, written into its directory before any job begins
MAX_RACES = 20  # attempts at creating tables while other processes create them: Optuna has a dozen
_SQLITE = b"SQLite format 3\x00"  # first bytes of every SQLite file
_JOURNAL = b'{"op_code'  # start of every line of Optuna's journal
_TABLES = {"studies", "trials", "version_info", "alembic_version"}  # some of Optuna's tables

# Names in the storage. Studies begun by other versions of this package use them too: never rename one.
JOB = "job"  # trial attribute: JobFacts
ERROR = "error"  # trial attribute: a failed trial's last line
RETRY_OF = "retry_of"  # trial attribute: the number of the failed trial that it retries
LEARNED = "learned_from"  # trial attribute: the other study or file that the trial was read from
NO_VALUE = "no_value"  # trial attribute: the job returned no number, and none was expected
OWN_ATTRIBUTES = (JOB, ERROR, RETRY_OF, LEARNED, NO_VALUE)
EARLIER = "reg_sweep.earlier_variance"  # study attribute: the noise estimate that its design took from another study
IDENTITY = "reg_sweep"  # study attribute: the settings that all its trials share
DIRECTORY = "directory"  # study attribute: hydra.sweep.dir of the sweep that created it
SEARCHER = "searcher"  # study attribute: the sampler and pruner of the latest start
CLOCK = "clock"  # study attribute: the seconds used so far, and when they were last counted
LOOKS = "looks"  # study attribute, with until_verdict: its interim analyses; empty at first


# ---- attributes: other programs may have written anything under these names, so types are checked


class JobFacts(TypedDict, total=False):
    """The process that runs a trial, and its last heartbeat. Before the job begins, only `attempt` is set."""

    attempt: int
    host: str
    pid: int
    begun: float  # seconds since the epoch, by that host's clock
    beat: float  # the last heartbeat, on the same clock
    directory: str  # relative to the sweep's; missing while the job is queued by a launcher


_JOB_TYPES = {"attempt": int, "host": str, "pid": int, "begun": int | float, "beat": int | float, "directory": str}


def job_facts(trial: "FrozenTrial | optuna.Trial") -> JobFacts:
    """The facts of the trial's job, as of when the trial was read; empty if it has not begun."""
    written = trial.user_attrs.get(JOB)
    if not isinstance(written, dict):
        return {}
    return cast(JobFacts, {k: written[k] for k, kind in _JOB_TYPES.items() if isinstance(written.get(k), kind)})


def attempt_of(trial: "FrozenTrial | optuna.Trial") -> int:
    """The number of the current or next attempt, counted from 1."""
    return job_facts(trial).get("attempt", 1)


def own_trials(study: "optuna.Study") -> "list[FrozenTrial]":
    """A study's trials, without those learned from other studies. They are not copies: don't change them."""
    return [t for t in study.get_trials(deepcopy=False) if LEARNED not in t.user_attrs]


def error_of(trial: "FrozenTrial") -> str | None:
    """A failed trial's error line, or None."""
    error = trial.user_attrs.get(ERROR)
    return None if error is None else str(error)


def retry_of(trial: "FrozenTrial") -> int | None:
    """The number of the failed trial that this one retries, or None."""
    number = trial.user_attrs.get(RETRY_OF)
    return number if isinstance(number, int) else None


# ---- addresses


@dataclass(frozen=True)
class StudyPlace:
    """A study's name, its storage, and the sweep's directory, which contains the jobs' directories."""

    name: str
    location: str = field(repr=False)  # may hold a password
    directory: Path
    is_named: bool = False  # the user gave the name; otherwise it comes from the directory or from what is swept


def study_name(sweeper: Any, hydra: Any) -> str:
    """The study's name in its storage; by default the name of the sweep's directory.

    Raises:
        StudyError: the directory's name is not valid for a study.
    """
    name = str(sweeper.study_name or Path(hydra.sweep.dir).name)
    if not name.isprintable():
        raise StudyError(
            f"hydra.sweeper.study_name must be set if the directory's name has unprintable characters, got {name!r}"
        )
    return name


def storage_location(sweeper: Any, hydra: Any) -> str:
    """The storage's URL, or the path of its journal file. Paths are absolute: a job may run in another directory.

    Raises:
        StudyError: the address can't be parsed, or names a database in memory.
    """
    cwd, spec = Path(hydra.runtime.cwd), sweeper.storage
    if spec is None:
        return sqlite_url(cwd / hydra.sweep.dir / STORAGE_FILE)
    if spec == "...":  # copied from a printed command
        raise StudyError(
            "hydra.sweeper.storage must be the study's address, got ..., which printed commands show instead because"
            " the address may hold a password: type the address"
        )
    if "://" not in spec:
        return str((cwd / spec).absolute())
    if spec.startswith("journal:"):
        raise StudyError(
            "hydra.sweeper.storage must be an RDB URL or, for a journal file, its path alone, such as shared/study.log,"
            f" got {spec}"
        )
    if not spec.startswith("sqlite"):
        return str(spec)
    from sqlalchemy import make_url

    url = make_url(spec)
    if not url.database or url.database == ":memory:":
        raise StudyError(
            f"hydra.sweeper.storage must be shared with other processes, got {spec}, which is in memory: leave it out"
            " for a file in the sweep's directory"
        )
    if url.database.startswith("file:"):
        raise StudyError(f"hydra.sweeper.storage must name its file by a path, got {spec}: write sqlite:///PATH")
    # SQLAlchemy takes three slashes and a path as relative: a job in its own directory would create another file.
    return url.set(database=str((cwd / url.database).absolute())).render_as_string(hide_password=False)


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file; its path may contain any characters."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def file_of(location: str) -> Path | None:
    """The file of an address; None for a server."""
    if is_server(location) or "://" not in location:
        return None if is_server(location) else Path(location)
    from sqlalchemy import make_url

    return Path(make_url(location).database or "")


def is_dated(config: Any) -> bool:
    """Whether each start of the sweep gets a new directory, as by Hydra's default."""
    return "${now:" in written_directory(config, "sweep")


def undated_storage(config: Any, name: str) -> str:
    """The study's file if directories are dated: it lies above them, so that every start finds it."""
    above = Path(written_directory(config, "sweep").partition("${")[0] + "_").parent
    return sqlite_url(Path(config.hydra.runtime.cwd) / above / f"{name}.db")


# ---- opening


def open_storage(location: str, *, waits: bool = False) -> "Storage":
    """Opens an RDB URL or the path of a journal file. Several processes may create it at the same time.

    Args:
        waits: wait for a server that is unreachable now.

    Raises:
        StudyError: it can't be reached, or the file is not a storage; the message holds no credentials.
    """
    refuse_foreign_file(location)
    try:
        if "://" not in location:
            from reg_sweep.search.backends import Journal

            return Journal(location)
        from reg_sweep.search import backends

        return _opened(location, backends.PATIENCE_S if waits else 0)
    except Exception as error:  # drivers raise their own, unknown types
        raise unreachable(location, error) from None


@contextmanager
def opened_storage(location: str, *, waits: bool = False) -> Iterator["Storage"]:
    """Like `open_storage`, but closes it at the end: a server allows few connections, and a process may live long."""
    storage = open_storage(location, waits=waits)
    try:
        yield storage
    finally:
        storage.close()


def _opened(location: str, waits_s: float) -> "Database":
    """Opens the database; retries while other processes create its tables or the server is unreachable."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import exc, make_url

    from reg_sweep.search import backends

    patience_s = backends.PATIENCE_S if is_server(location) else 0
    file = backends.lock_file(make_url(location))
    if file is not None:
        with files.locked(file):
            return backends.Database(location, patience_s=patience_s)
    begun, n_races = time.monotonic(), 0
    while True:
        try:
            return backends.Database(location, patience_s=patience_s)
        except (exc.DBAPIError, StorageInternalError) as error:
            # Optuna creates missing tables: if several processes do so at once, all but one fail.
            is_race = any(word in str(error.__cause__).lower() for word in ("exists", "duplicate"))
            n_races += is_race
            is_over = n_races > MAX_RACES if is_race else time.monotonic() - begun > waits_s
            if is_over:
                raise
            time.sleep(random.uniform(0.1, 0.5))  # random, so that processes don't collide again


def refuse_foreign_file(location: str) -> None:
    """Refuses a file that is not a storage: opening it as one would truncate it or add tables to it.

    Raises:
        StudyError: there is such a file; it is left unchanged.
    """
    path = file_of(location)
    if path is None or not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return
    wanted = "an SQLite database of Optuna" if "://" in location else "a journal file of Optuna"
    refused = f"hydra.sweeper.storage must be new, or {wanted}, got {path}, which is"
    if not path.is_file():
        raise StudyError(f"{refused} not a file: choose another")
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    if start.startswith(_SQLITE) and "://" not in location:
        raise StudyError(f"{refused} an SQLite database: to use it, type hydra.sweeper.storage=sqlite:///{path}")
    is_whole = (
        _has_studies(path, start) if "://" in location else start.startswith(_JOURNAL) or _JOURNAL.startswith(start)
    )
    if not is_whole:
        raise StudyError(f"{refused} something else, and is left unchanged: choose another")


def _has_studies(path: Path, start: bytes) -> bool:
    """Whether this is an SQLite file that has Optuna's tables, or none yet."""
    import sqlite3

    if not start.startswith(_SQLITE):
        return False
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            tables = {name for (name,) in connection.execute(query)}
    except sqlite3.Error:  # opening the storage reports why
        return True
    return not tables or not tables.isdisjoint(_TABLES)


def unreachable(location: str, error: BaseException) -> StudyError:
    """The one-line error of a storage that fails, without secret parts of its address."""
    return StudyError(f"hydra.sweeper.storage: {public_location(location)} can't be used: {reason_of(location, error)}")


# ---- the lock of an open study, and its server


@contextmanager
def locked(study: "optuna.Study") -> Iterator[None]:
    """Holds a study's lock, which is in its storage: only one process at a time, on any machine.

    Raises:
        StorageInternalError: the storage can't be reached.
    """
    from reg_sweep.search.backends import Database, Journal

    storage = opened_storage_of(study)
    # Any other storage is in this process's memory: no other process uses it.
    if isinstance(storage, Database | Journal):
        with storage.lock(study.study_name):
            yield
    else:
        yield


def patiently(study: "optuna.Study", ask: Callable[[], Result]) -> Result:
    """Calls `ask`, and calls it again if a restart of the server cut its connection (see `Database`).

    It must be safe to call `ask` twice.
    """
    return patiently_in(opened_storage_of(study), ask)


def patiently_in(storage: Any, ask: Callable[[], Result]) -> Result:
    """Like `patiently`, for an open storage without a study."""
    from reg_sweep.search.backends import Database

    return storage.patiently(ask) if isinstance(storage, Database) else ask()


# ---- directories


def check_shared(directory: Path) -> None:
    """Refuses a job whose process does not see the sweep's directory.

    Raises:
        StudyError: the directory is missing here, or does not contain the sweep.
    """
    if not (directory / SWEEP_FILE).exists():
        raise StudyError(
            f"hydra.sweep.dir must be a folder that {socket.gethostname()} shares with the machine that sweeps, got"
            f" {directory}, which has no {SWEEP_FILE} here: choose one on a shared file system"
        )


def unshared(trials: "Sequence[FrozenTrial]", directory: Path) -> str | None:
    """A warning if a finished trial's directory is not visible on this machine, else None."""
    for trial in trials:
        facts = job_facts(trial)
        if trial.state.name in ("COMPLETE", "PRUNED") and "directory" in facts:
            folder = directory / facts["directory"]
            if not folder.exists():
                return (
                    f"{folder}, where trial {trial.number} ran on {facts.get('host')}, is not visible here: machines"
                    " that work on one study must share hydra.sweep.dir. Otherwise a trial that dies there starts from"
                    " the beginning here, and reports lack its run"
                )
    return None


def directory_of(place: StudyPlace) -> str | None:
    """The directory of a study's jobs (hydra.sweep.dir), if an earlier start recorded it.

    Raises:
        StudyError: the storage can't be opened.
    """
    import optuna

    file = file_of(place.location)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    with opened_storage(place.location) as storage:
        for study in optuna.get_all_study_summaries(storage, include_best_trial=False):
            if study.study_name == place.name:
                found = study.user_attrs.get(DIRECTORY)
                return found if isinstance(found, str) else None
    return None
