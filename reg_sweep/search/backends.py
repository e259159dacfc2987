"""The storages of studies: databases and journal files, each with a lock that one process at a time holds.

A database's server may be away for a while: it is waited for. A journal is locked as Optuna locks it, and repaired
where a full disk tore its last line.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import Connection, event, exc, text

from reg_sweep.runs.files import locked
from reg_sweep.search import interrupt

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_S = 300.0  # for a server that is away: longer than a restart, shorter than a night
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
# A server has few connections (PostgreSQL 100, unless told otherwise), a study many processes. Each keeps two, for its
# lock and for its queries meanwhile; more, for heartbeats, are closed after use. A connection that a restart has cut is
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


# ---- databases


class Database(RDBStorage):
    """Optuna's database, with a lock of its own, and with patience.

    A server that is away is waited for in two places: a new connection is tried until it is made, and `patiently` calls
    again what a lost connection has cut.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        """Opens the database and makes missing tables; this step is not retried.

        Raises:
            ValueError: its kind has no known lock.
        """
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
        event.listen(self.engine, "do_connect", self._connect)

    def close(self) -> None:
        """Closes the connections that are open and not in use; later queries open new ones."""
        engine = getattr(self, "engine", None)  # none where the address names no driver that is here
        if engine is not None:
            engine.dispose()

    @property
    def tells_case(self) -> bool:
        """Whether names that differ only in case are distinct; MySQL's tables by default ignore case."""
        return self.engine.dialect.name not in ("mysql", "mariadb")

    @contextmanager
    def lock(self, study_name: str) -> Iterator[None]:
        """Held by one process at a time, wherever it runs; it ends with the process or its connection.

        Raises:
            StorageInternalError: the database is away for longer than it is waited for.
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
                    query = text(take), {k: v for k, v in key.items() if f":{k}" in take}
                    while connection.execute(*query).scalar() != 1 and release is not None:
                        pass
                    opened.pop_all()
            except exc.SQLAlchemyError as error:
                raise StorageInternalError("the study can't be locked") from error
            return connection

        connection = self.patiently(taken)
        try:
            yield
        finally:
            with suppress(exc.SQLAlchemyError):  # a lost connection has freed the lock
                if release is not None:
                    connection.execute(text(release), {"name": key["name"]})
                connection.rollback()
            with suppress(exc.SQLAlchemyError):
                connection.close()

    def patiently(self, ask: Callable[[], Result]) -> Result:
        """The result of `ask`, which is called again, with growing pauses, while the server is away.

        Raises:
            StorageInternalError: it is away for longer than it is waited for, or waiting does not help.
        """

        def may_pass(error: Exception) -> bool:
            return isinstance(error, StorageInternalError) and _is_connection_lost(error.__cause__)

        return self._waited_for(ask, may_pass)

    def _connect(self, dialect: Any, _: object, arguments: Any, options: Any) -> Any:
        """A new connection for SQLAlchemy, which asks for one by its event do_connect."""
        lost = dialect.loaded_dbapi.OperationalError
        return self._waited_for(lambda: dialect.connect(*arguments, **options), lambda error: isinstance(error, lost))

    def _waited_for(self, ask: Callable[[], Result], may_pass: Callable[[Exception], bool]) -> Result:
        deadline, pause = time.monotonic() + self._patience_s, FIRST_PAUSE_S
        while True:
            try:
                result = ask()
            except Exception as error:
                if not may_pass(error) or time.monotonic() >= deadline:
                    raise
                if not self._is_away:
                    log.warning("the study's server is away: waiting for it, at most %g s", self._patience_s)
                self._is_away = True
            else:
                self._is_away = False
                return result
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _is_connection_lost(cause: BaseException | None) -> bool:
    """Whether the connection failed, and not the query."""
    # A connection that is lost within a transaction may show as one that was not rolled back.
    lost = exc.OperationalError | exc.InterfaceError | exc.PendingRollbackError
    return isinstance(cause, lost) or (isinstance(cause, exc.DBAPIError) and cause.connection_invalidated)


def lock_file(url: Any) -> Path | None:
    """The file beside an SQLite file that a process locks to hold its studies; None for a server, or memory."""
    if url.get_dialect().name != "sqlite" or not url.database or url.database == ":memory:":
        return None
    # Resolved, so that a file has one lock under all of its paths.
    return Path(f"{Path(url.database).resolve()}.lock")


def write_ahead(engine: Any) -> None:
    """Lets SQLite commit without a disk sync: a killed process loses nothing, and a commit takes 1 ms, not 10."""

    def prepare(connection: Any, _: object) -> None:
        # NORMAL is safe with WAL only: a power cut may take the last commits, but the file stays whole.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    # At every new connection: `synchronous` is a connection's own, and a pool opens more of them when it likes.
    event.listen(engine, "connect", prepare)
    engine.dispose()  # the connections made so far are not prepared


# ---- journal files


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
