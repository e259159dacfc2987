"""Where a study lies, what is written there beside Optuna's own, and how it is opened.

All that a study knows lies in its storage; every process that works on the study finds it here, and nothing that is
printed or written holds what may be secret of its address.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from reg_sweep.files import locked
from reg_sweep.search.settings import StudyError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STORAGE_FILE = "study.db"

# Names in the storage: studies that were begun with another version of this package are read by them.
JOB = "job"  # trial attribute: JobFacts
ERROR = "error"  # trial attribute: a failed trial's last line
OWN_ATTRIBUTES = (JOB, ERROR)
IDENTITY = "reg_sweep"  # study attribute: what the trials have in common
SEARCHER = "searcher"  # study attribute: the last start's sampler and pruner
LOOKS = "looks"  # study attribute of one until a verdict: its looks so far, none at its begin


class JobFacts(TypedDict, total=False):
    """Who runs a trial: its last sign of life. All but `attempt` is missing until somebody has begun."""

    attempt: int
    host: str
    pid: int
    beat: float  # seconds since the epoch, by that host's clock
    directory: str  # relative to the sweep's; missing while a launcher has the job queued


def job_facts(trial: "FrozenTrial") -> JobFacts:
    """What is written of the trial's job; nothing for one that nobody has begun."""
    return cast(JobFacts, trial.user_attrs.get(JOB, {}))


def attempt_of(trial: "FrozenTrial") -> int:
    """Which attempt at the trial is on, or comes next; counted from 1."""
    return job_facts(trial).get("attempt", 1)


@dataclass(frozen=True)
class StudyPlace:
    """Where a study lies: its name, its storage, and the sweep's directory, where those of its jobs are."""

    name: str
    location: str = field(repr=False)  # may hold a password
    directory: Path

    @property
    def lock(self) -> Path:
        """The file that a process locks while it decides what to run next: beside the storage, where one can lie."""
        if is_secret(self.location):
            return self.directory / "study.claim"
        file = self.location.partition("://")[2].removeprefix("/") if "://" in self.location else self.location
        return Path(f"{file}.claim")  # not FILE.lock: Optuna locks a journal file by that name


@contextmanager
def locked_at(place: StudyPlace) -> Iterator[None]:
    """Holds the study's lock, whose folder, which is the storage's, may not be there.

    Raises:
        StudyError: it is not, or not writable.
    """
    # By hand, and before the storage is opened: SQLite would say no more than that it can't open the file.
    try:
        place.lock.touch()
    except OSError as error:
        raise unreachable(place.location, error) from None
    with locked(place.lock):
        yield


def storage_location(sweeper: Any, hydra: Any) -> str:
    """A URL, or the path of a journal file, with absolute paths: a job may run in another directory."""
    cwd = Path(hydra.runtime.cwd)
    spec = sweeper.storage
    if spec is None:
        return f"sqlite:///{(cwd / hydra.sweep.dir / STORAGE_FILE).absolute()}"
    if "://" not in spec:
        return str((cwd / spec).absolute())
    if spec.startswith("journal:"):
        raise StudyError(
            "hydra.sweeper.storage must be an RDB URL or, for a journal file, its path alone, such as shared/study.log,"
            f" got {spec}"
        )
    scheme, _, path = spec.partition(":///")
    # Three slashes and a path are relative, as SQLAlchemy has it; a job in its own directory would make a file there.
    if scheme.startswith("sqlite") and path and path != ":memory:":
        return f"{scheme}:///{(cwd / path).absolute()}"
    return str(spec)


def is_secret(location: str) -> bool:
    """Whether a storage's address may hold credentials: that of any server may."""
    return "://" in location and not location.startswith("sqlite")


def public_location(location: str) -> str:
    """A storage's address without user, password and options, fit to be printed."""
    if not is_secret(location):
        return location
    # The last @ ends the credentials: a password may hold one that nobody has quoted.
    scheme, _, rest = location.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def open_storage(location: str) -> "BaseStorage":
    """Opens an RDB URL, or the path of a journal file.

    Raises:
        StudyError: it can't be reached; the message holds no credentials.
    """
    import optuna

    try:
        if "://" not in location:
            from optuna.storages.journal import JournalFileBackend

            return optuna.storages.JournalStorage(JournalFileBackend(location))
        if not location.startswith("sqlite"):
            return optuna.storages.RDBStorage(location)
        # Processes on one file wait for each other instead of failing.
        storage = optuna.storages.RDBStorage(location, engine_kwargs={"connect_args": {"timeout": 60}})
        _write_ahead(storage.engine)
        return storage
    except Exception as error:  # the database drivers' own types, of which we know none
        raise unreachable(location, error) from None


def _write_ahead(engine: Any) -> None:
    """Lets SQLite commit without a disk sync: a killed process loses nothing, and a commit takes 1 ms, not 10."""
    from sqlalchemy import event

    def prepare(connection: Any, _: object) -> None:
        # NORMAL is safe with WAL only: a power cut may take the last commits, but the file stays whole.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    # At every new connection: `synchronous` is a connection's own, and a pool opens more of them when it likes.
    event.listen(engine, "connect", prepare)
    engine.dispose()  # connections made so far, which have not heard of this


def unreachable(location: str, error: BaseException) -> StudyError:
    """One line for a storage that fails, with every part of its address that may be secret taken out."""
    # The first cause is the driver's own word; what SQLAlchemy and Optuna make of it is longer and says less.
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if is_secret(location):
        reason = reason.replace(location, public_location(location))
        for secret in _secrets(location):
            reason = reason.replace(secret, "***")
    return StudyError(f"hydra.sweeper.storage: {public_location(location)} can't be used: {reason}")


def _secrets(location: str) -> list[str]:
    """Every part of an address that may be secret, as it is written and as a driver's message may quote it."""
    from urllib.parse import unquote

    rest = location.partition("://")[2]
    address, _, options = rest.partition("?")
    password = address.rpartition("@")[0].partition(":")[2]
    # An option may be a password as well (sslpassword), and nobody can list the names that drivers have for it.
    parts = [password, *(o.partition("=")[2] for o in options.split("&"))]
    return [s for p in parts if p for s in (p, unquote(p))]


def study_name(sweeper: Any, hydra: Any) -> str:
    """The study's name in its storage: by default that of the sweep's directory."""
    return str(sweeper.study_name or Path(hydra.sweep.dir).name)
