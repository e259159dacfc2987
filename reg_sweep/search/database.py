"""A study's database, shared by processes on one machine or many: claimed by one at a time, waited for while away.

Two of Optuna's private names are used here, beside those in `optuna_internals`; checked on Optuna 5.0.0.
"""

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Connection, event, exc, text

from reg_sweep.runs.files import locked

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_S = 300.0  # for a server that is away: longer than a restart, shorter than a night
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
# A server has few connections (PostgreSQL 100, unless told otherwise), a study many processes. Each keeps two, for its
# claim and for what it asks meanwhile; more, for heartbeats, are closed after use. One that a restart has cut is
# replaced before it is used.
POOL = {"pool_size": 2, "max_overflow": 8, "pool_pre_ping": True}
# How each kind of server gives its lock, which ends with the connection at the latest. PostgreSQL's belongs to the
# transaction, so that it holds behind a pool of connections too. MySQL's is waited for an hour at most: 1 says that it
# is given, 0 that it is not, NULL that the wait was cut short.
LOCKS = {
    "postgresql": ("SELECT pg_advisory_xact_lock(:number)", None),
    "mysql": ("SELECT GET_LOCK(:name, 3600)", "SELECT RELEASE_LOCK(:name)"),
    "mariadb": ("SELECT GET_LOCK(:name, 3600)", "SELECT RELEASE_LOCK(:name)"),
}


class TooManyTrials(Exception):  # noqa: N818 # no error: the answer to a question
    """The study has as many trials as it may have."""


class Database(RDBStorage):
    """Optuna's database, with a lock of its own for what must happen once, and with patience.

    Attributes:
        limit: no trial is made beyond so many; checked in the transaction that makes it, which locks the study's row.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        """Opens the database, and makes its tables where they are missing.

        Raises:
            ValueError: it is of a kind whose lock is not known.
        """
        self.limit: int | None = None
        self._patience_s = patience_s
        self._is_away = False
        # SQLite: processes on one file wait for each other instead of failing.
        try:
            super().__init__(url, {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else POOL)
            if self.engine.dialect.name == "sqlite":
                write_ahead(self.engine)
            elif self.engine.dialect.name not in LOCKS:
                raise ValueError(f"its kind must be sqlite, {', '.join(LOCKS)}, got {self.engine.dialect.name}")
        except BaseException:
            # Who opens it again, having lost a race, must not hold two of a server's few connections.
            self.close()
            raise

    def close(self) -> None:
        """Closes the connections that are open and not in use; whoever asks again opens new ones."""
        engine = getattr(self, "engine", None)  # none where the address names no driver that is here
        if engine is not None:
            engine.dispose()

    @property
    def tells_case(self) -> bool:
        """Whether two names that differ in case alone are two: not to MySQL, as its tables are by default."""
        return self.engine.dialect.name not in ("mysql", "mariadb")

    @contextmanager
    def claim(self, study_name: str) -> Iterator[None]:
        """Held by one process at a time, wherever it runs; whoever dies, or loses its connection, holds it no more.

        Raises:
            StorageInternalError: the database is away, and stays so for as long as it is waited for.
        """
        file = lock_file(self.engine.url)
        if file is not None:  # SQLite locks its file in the same way, and on one machine only
            with locked(file):
                yield
            return
        digest = hashlib.sha256(study_name.encode()).digest()
        key = {"number": int.from_bytes(digest[:8], signed=True), "name": f"reg_sweep_{digest.hex()[:16]}"}
        take, release = LOCKS[self.engine.dialect.name]

        def taken() -> Connection:
            try:
                with ExitStack() as opened:
                    connection = opened.enter_context(self.engine.connect())
                    asked = text(take), {k: v for k, v in key.items() if f":{k}" in take}
                    while connection.execute(*asked).scalar() != 1 and release is not None:
                        pass
                    opened.pop_all()
            except exc.SQLAlchemyError as error:
                raise StorageInternalError("the study can't be claimed") from error
            return connection

        connection = self.waited_for(taken)
        try:
            yield
        finally:
            with suppress(exc.SQLAlchemyError):  # with a lost connection the lock is lost, and free, too
                if release is not None:
                    connection.execute(text(release), {"name": key["name"]})
                connection.rollback()
            with suppress(exc.SQLAlchemyError):
                connection.close()

    def waited_for(self, ask: Callable[[], Result]) -> Result:
        """What `ask` returns; where a server is away, it is asked again, with growing pauses, until patience ends.

        Raises:
            StorageInternalError: it is still away, or what it says will not change by waiting.
        """
        deadline, pause = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                result = ask()
            except StorageInternalError as error:
                if not _may_pass(error) or time.monotonic() >= deadline:
                    raise
                if not self._is_away:
                    log.warning("the study's server is away: waiting for it, at most %g s", self._patience_s)
                self._is_away = True
            else:
                self._is_away = False
                return result
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _get_prepared_new_trial(self, study_id: int, template_trial: Any, session: Any) -> Any:
        trial = super()._get_prepared_new_trial(study_id, template_trial, session)
        # Here the study's row is locked and the number given: what is raised undoes both. A claim that was lost in a
        # server's restart, or a retry of Optuna's own, can't make a trial too many.
        if self.limit is not None and trial.number >= self.limit:
            raise TooManyTrials
        return trial


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Database, *args: Any, **kwargs: Any) -> Any:
        return self.waited_for(lambda: method(self, *args, **kwargs))

    return call


# All that may be said twice without harm. Making a study or a trial is not among it: after a lost answer nobody knows
# whether it was made, so these are asked for again under the claim alone, where all are counted first.
for _name in (
    *("set_study_user_attr", "set_study_system_attr", "get_study_id_from_name", "get_study_name_from_id"),
    *("get_study_directions", "get_study_user_attrs", "get_study_system_attrs", "get_all_studies"),
    *("_set_trial_param", "get_trial_id_from_study_id_trial_number", "set_trial_state_values"),
    *("set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr", "get_trial", "_get_trials"),
):
    setattr(Database, _name, _patient(getattr(RDBStorage, _name)))


def _may_pass(error: StorageInternalError) -> bool:
    """Whether it is the connection that failed, and not what was asked."""
    cause = error.__cause__
    # A connection that is lost within a transaction may show as one that was not rolled back.
    lost = exc.OperationalError | exc.InterfaceError | exc.PendingRollbackError
    return isinstance(cause, lost) or (isinstance(cause, exc.DBAPIError) and cause.connection_invalidated)


def lock_file(url: Any) -> Path | None:
    """The file that a process locks to claim a study of an SQLite file: beside it; None for a server, or memory."""
    if url.get_dialect().name != "sqlite" or not url.database or url.database == ":memory:":
        return None
    # Resolved: the same file has one lock by whatever way it is reached.
    return Path(f"{Path(url.database).resolve()}.claim")


def write_ahead(engine: Any) -> None:
    """Lets SQLite commit without a disk sync: a killed process loses nothing, and a commit takes 1 ms, not 10."""

    def prepare(connection: Any, _: object) -> None:
        # NORMAL is safe with WAL only: a power cut may take the last commits, but the file stays whole.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    # At every new connection: `synchronous` is a connection's own, and a pool opens more of them when it likes.
    event.listen(engine, "connect", prepare)
    engine.dispose()  # connections made so far, which have not heard of this
