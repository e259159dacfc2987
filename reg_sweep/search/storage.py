"""Where a study lies, what is written there beside Optuna's own, and how it is opened.

All that a study knows lies in its storage; every process that works on the study finds it here, and nothing that is
printed or written holds what may be secret of its address.
"""

import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from reg_sweep.runs.files import locked
from reg_sweep.search.settings import StudyError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from reg_sweep.search.database import Database
    from reg_sweep.search.journal import Journal

    Storage = Database | Journal

STORAGE_FILE = "study.db"
SWEEP_FILE = "multirun.yaml"  # the sweep's config, in its directory, before any job begins
MAX_RACES = 20  # each lost to another process that made one of a dozen tables

# Names in the storage: studies that were begun with another version of this package are read by them.
JOB = "job"  # trial attribute: JobFacts
ERROR = "error"  # trial attribute: a failed trial's last line
RETRY_OF = "retry_of"  # the number of the failed trial whose point it tries again
OWN_ATTRIBUTES = (JOB, ERROR, RETRY_OF)
IDENTITY = "reg_sweep"  # study attribute: what the trials have in common
DIRECTORY = "directory"  # study attribute: the directory of the sweep that made it, as hydra.sweep.dir
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


def open_storage(location: str, *, waits: bool = False) -> "Storage":
    """Opens an RDB URL, or the path of a journal file; of processes that make it at the same time none fails.

    Args:
        waits: for a server that is away, as one that has been there before is waited for later.

    Raises:
        StudyError: it can't be reached; the message holds no credentials.
    """
    try:
        if "://" not in location:
            from reg_sweep.search.journal import Journal

            return Journal(location)
        from reg_sweep.search import database

        return _opened(location, database.PATIENCE_S if waits else 0)
    except Exception as error:  # the database drivers' own types, of which we know none
        raise unreachable(location, error) from None


@contextmanager
def opened_storage(location: str, *, waits: bool = False) -> Iterator["Storage"]:
    """The same, closed in the end: a server has few connections, and a process may live on."""
    storage = open_storage(location, waits=waits)
    try:
        yield storage
    finally:
        storage.close()


def _opened(location: str, waits_s: float) -> "Database":
    """The database; where others make its tables at this moment, or the server is away for now, tries again."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import exc, make_url

    from reg_sweep.search import database

    patience_s = database.PATIENCE_S if is_secret(location) else 0
    file = database.lock_file(make_url(location))
    if file is not None:
        with locked(file):
            return database.Database(location, patience_s=patience_s)
    begun, n_races = time.monotonic(), 0
    while True:
        try:
            return database.Database(location, patience_s=patience_s)
        except (exc.DBAPIError, StorageInternalError) as error:
            # Optuna makes one table after the other, if it is not there: of several processes, all but one fail.
            is_race = any(word in str(error.__cause__).lower() for word in ("exists", "duplicate"))
            n_races += is_race
            is_over = n_races > MAX_RACES if is_race else time.monotonic() - begun > waits_s
            if is_over:
                raise
            time.sleep(random.uniform(0.1, 0.5))  # processes that collided must part


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


def check_shared(directory: Path) -> None:
    """Refuses a job whose process has another sweep's directory than the sweeper.

    Raises:
        StudyError: the directory is not there, or has nothing of the sweep.
    """
    if not (directory / SWEEP_FILE).exists():
        raise StudyError(
            f"hydra.sweep.dir must be a folder that {socket.gethostname()} shares with the machine that sweeps, got"
            f" {directory}, which has no {SWEEP_FILE} here: choose one on a file system that both have"
        )


def unshared(trials: "Sequence[FrozenTrial]", directory: Path) -> str | None:
    """That a trial has ended in another directory than this one, in words; None where all lie here."""
    for trial in trials:
        facts = job_facts(trial)
        if trial.state.name in ("COMPLETE", "PRUNED") and "directory" in facts:
            folder = directory / facts["directory"]
            if not folder.exists():
                return (
                    f"{folder}, where trial {trial.number} ran on {facts.get('host')}, is not here: machines that work"
                    " on one study must share hydra.sweep.dir, or what dies there begins anew here, and a report"
                    " lacks its run"
                )
    return None


def is_dated(config: Any) -> bool:
    """Whether each start of the sweep has a directory of its own, as under Hydra's default."""
    return "${now:" in _written_directory(config)


def undated_storage(config: Any, name: str) -> str:
    """The file of a study under dated directories: above them, where each start looks."""
    above = Path(_written_directory(config).partition("${")[0] + "_").parent
    return f"sqlite:///{(Path(config.hydra.runtime.cwd) / above / f'{name}.db').absolute()}"


def _written_directory(config: Any) -> str:
    from omegaconf import OmegaConf

    written = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(written, dict)
    return str(written["dir"])


def directory_of(place: StudyPlace) -> str | None:
    """The directory of a study's jobs, as hydra.sweep.dir, where a start before has told it.

    Raises:
        StudyError: the storage can't be opened.
    """
    import optuna

    if "://" in place.location and not is_secret(place.location):
        Path(place.location.partition(":///")[2].partition("?")[0]).parent.mkdir(parents=True, exist_ok=True)
    with opened_storage(place.location) as storage:
        for study in optuna.get_all_study_summaries(storage, include_best_trial=False):
            if study.study_name == place.name:
                found = study.user_attrs.get(DIRECTORY)
                return None if found is None else str(found)
    return None
