"""A study's settings and its storage: what every process that works on the study must agree on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import CompactHydraException
from hydra.utils import instantiate

from reg_sweep.files import locked

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

STORAGE_FILE = "study.db"
JOB = "job"  # trial attribute: attempt, directory and heartbeat
ERROR = "error"  # trial attribute: a failed trial's last line


class StudyError(CompactHydraException):
    """A study that can't be run as asked. The message is one line; Hydra prints it without a traceback."""


@dataclass
class Settings:
    """What `hydra.sweeper` takes.

    `params` holds the space, in Hydra's grammar; the command line's sweeps come on top. `n_trials` is the total over
    all starts; left out, it is the grid's size, or 20 with another sampler. `workers` local processes share the
    study; `n_jobs` trials go to the launcher at once. `storage` is an RDB URL or a journal file's path; left out, an
    SQLite file in the sweep's directory. `enqueue` lists points to try first. A study whose space, objective or app
    config has changed is refused, unless `extend`; keys that `may_differ`, such as a device, are left out of account. A
    job that is silent for `grace_period` seconds is run again, at most `max_retries` times. Where more than
    `max_failure_rate` of the trials fail, the sweep ends with an error.

    Raises:
        StudyError: a value is out of its range.
    """

    sampler: Any = None
    pruner: Any = None
    params: dict[str, Any] | None = None
    direction: Any = "minimize"
    n_trials: int | None = None
    n_jobs: int = 1
    workers: int = 1
    storage: str | None = None
    study_name: str | None = None
    enqueue: list[Any] | None = None
    extend: bool = False
    may_differ: list[str] = field(default_factory=list)
    max_retries: int = 2
    max_failure_rate: float = 0.5
    heartbeat_interval: float = 5.0
    grace_period: float = 30.0

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, rule: str) -> None:
            if not holds:
                raise StudyError(f"hydra.sweeper.{name} must {rule}, got {getattr(self, name)!r}")

        require(self.n_trials is None or self.n_trials >= 1, "n_trials", "be at least 1")
        require(self.n_jobs >= 1, "n_jobs", "be at least 1")
        require(self.workers >= 1, "workers", "be at least 1")
        require(self.max_retries >= 0, "max_retries", "be at least 0")
        require(0 <= self.max_failure_rate <= 1, "max_failure_rate", "be between 0 and 1")
        require(self.heartbeat_interval > 0, "heartbeat_interval", "be a number of seconds above 0")
        require(self.grace_period > self.heartbeat_interval, "grace_period", "be longer than heartbeat_interval")
        known = ("minimize", "maximize")
        require(
            bool(self.directions) and all(d in known for d in self.directions),
            "direction",
            "be minimize or maximize, or a list of these",
        )

    @property
    def directions(self) -> list[Any]:
        return [self.direction] if isinstance(self.direction, str) else list(self.direction)


# The storage


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
    if scheme.startswith("sqlite") and path and path != ":memory:":
        return f"{scheme}:///{(cwd / path).absolute()}"
    return spec


def is_secret(location: str) -> bool:
    """Whether a storage's address may hold credentials: that of any server may."""
    return "://" in location and not location.startswith("sqlite")


def public_location(location: str) -> str:
    """A storage's address without user, password and options, fit to be printed."""
    if not is_secret(location):
        return location
    scheme, _, rest = location.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line's arguments, fit to be printed: a storage that may hold credentials becomes dots."""
    key = "hydra.sweeper.storage="
    return [
        f"{key}..." if a.lstrip("+").startswith(key) and is_secret(a.partition("=")[2].strip("'\"")) else a
        for a in arguments
    ]


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
        # processes on one file wait for each other instead of failing
        storage = optuna.storages.RDBStorage(location, engine_kwargs={"connect_args": {"timeout": 60}})
        _write_ahead(storage.engine)
        return storage
    except Exception as error:  # the database drivers' own types, of which we know none
        raise unreachable(location, error) from None


def _write_ahead(engine: Any) -> None:
    """Lets SQLite commit without a disk sync: a killed process loses nothing, and a commit takes 1 ms, not 10."""
    from sqlalchemy import event

    def prepare(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(engine, "connect", prepare)
    engine.dispose()  # connections made so far


def unreachable(location: str, error: BaseException) -> StudyError:
    """One line for a storage that fails, with every part of its address that may be secret taken out."""
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
    from urllib.parse import unquote

    rest = location.partition("://")[2]
    address, _, options = rest.partition("?")
    password = address.rpartition("@")[0].partition(":")[2]
    parts = [password, *(o.partition("=")[2] for o in options.split("&"))]
    return [s for p in parts if p for s in (p, unquote(p))]


def study_name(sweeper: Any, hydra: Any) -> str:
    return sweeper.study_name or Path(hydra.sweep.dir).name


@contextmanager
def locked_at(lock: Path, location: str) -> Iterator[None]:
    """Like `locked`, for a lock beside a storage whose folder may not be there."""
    try:
        lock.touch()
    except OSError as error:
        raise unreachable(location, error) from None
    with locked(lock):
        yield


def make_part(what: str, spec: Any, base: type, **arguments: Any) -> Any:
    """Instantiates the sampler or pruner that `spec` names by `_target_`."""
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise StudyError(f"hydra.sweeper.{what} must name a class by its _target_, got {spec!r}")
    try:
        made = instantiate(spec, _convert_="all", **arguments)
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise StudyError(f"hydra.sweeper.{what}: {spec['_target_']} can't be made: {reason}") from None
    if not isinstance(made, base):
        raise StudyError(f"hydra.sweeper.{what} must be one of Optuna's {what}s, got {spec['_target_']}")
    return made


def make_pruner(spec: Any) -> "optuna.pruners.BasePruner":
    import optuna

    return make_part("pruner", spec, optuna.pruners.BasePruner)


def job_facts(trial: "FrozenTrial") -> dict[str, Any]:
    return trial.user_attrs.get(JOB, {})
