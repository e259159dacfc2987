"""The storages of studies: databases and journal files, each with a lock that one process holds at a time.

If a database server is unreachable, queries wait for it. A journal uses Optuna's own lock, and is repaired if a full
disk left its last line incomplete.
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
from sqlalchemy import Connection, event, exc, inspect, text

from reg_sweep.runs.files import locked
from reg_sweep.search import interrupt

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PATIENCE_S = 300.0  # for an unreachable server: longer than a restart, shorter than a night
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
# A server allows few connections (PostgreSQL 100 by default), and a study has many processes. Each process keeps two
# connections, one for its lock and one for its queries; further ones, for heartbeats, are closed after use. A
# connection that a restart has cut is replaced before use.
POOL = {"pool_size": 2, "max_overflow": 8, "pool_pre_ping": True}
# The queries that take and release a server's lock, which ends with the connection at the latest. PostgreSQL's belongs
# to the transaction, so that it also works through a connection pooler. MySQL's waits for at most an hour and returns 1
# if the lock was taken, 0 if not, NULL if the wait was interrupted.
LOCKS = {
    "postgresql": ("SELECT pg_advisory_xact_lock(:number)", None),
    "mysql": ("SELECT GET_LOCK(:name, 3600)", "SELECT RELEASE_LOCK(:name)"),
    "mariadb": ("SELECT GET_LOCK(:name, 3600)", "SELECT RELEASE_LOCK(:name)"),
}


# ---- databases


class TooManyTrials(Exception):  # noqa: N818 # not an error
    """The study already has as many trials as allowed."""


class Database(RDBStorage):
    """Optuna's database storage, with a lock for each study, and with retries while the server is unreachable.

    New connections are retried until they succeed, and `patiently` repeats calls whose connection was lost.
    """

    def __init__(self, url: str, *, patience_s: float) -> None:
        """Opens the database and creates missing tables; this step is not retried.

        Raises:
            ValueError: no lock is known for this kind of database.
        """
        self._patience_s = patience_s
        self._is_away = False
        # The timeout lets processes that use one SQLite file wait for each other instead of failing.
        try:
            super().__init__(url, {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else POOL)
            if self.engine.dialect.name == "sqlite":
                write_ahead(self.engine)
            elif self.engine.dialect.name not in LOCKS:
                raise ValueError(f"its kind must be sqlite, {', '.join(LOCKS)}, got {self.engine.dialect.name}")
        except BaseException:
            # The caller may retry after a race: a failed attempt must not keep one of the server's few connections.
            self.close()
            raise
        event.listen(self.engine, "do_connect", self._connect)

    def close(self) -> None:
        """Closes idle connections; later queries open new ones."""
        engine = getattr(self, "engine", None)  # missing if the address's driver is not installed
        if engine is not None:
            engine.dispose()

    @property
    def tells_case(self) -> bool:
        """Whether names that differ only in case are distinct. By default, MySQL's tables ignore case."""
        return self.engine.dialect.name not in ("mysql", "mariadb")

    @contextmanager
    def lock(self, study_name: str) -> Iterator[None]:
        """Holds the study's lock: one process at a time, on any machine. It ends with the process or its connection.

        Raises:
            StorageInternalError: the database is unreachable for longer than the patience.
        """
        file = lock_file(self.engine.url)
        if file is not None:  # a file lock suffices: SQLite itself uses one, and works on one machine only
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
            with suppress(exc.SQLAlchemyError):  # a lost connection has already released the lock
                if release is not None:
                    connection.execute(text(release), {"name": key["name"]})
                connection.rollback()
            with suppress(exc.SQLAlchemyError):
                connection.close()

    @contextmanager
    def limited(self, n_trials: int) -> Iterator[None]:
        """Within the block, a transaction that would give a study more trials raises TooManyTrials."""

        def check(session: Any, *_: object) -> None:
            for row in session.dirty:  # the number is assigned last, when the study's row is locked
                if row.__tablename__ == "trials" and inspect(row).attrs.number.history.added and row.number >= n_trials:
                    raise TooManyTrials

        event.listen(self.scoped_session, "before_flush", check)
        try:
            yield
        finally:
            event.remove(self.scoped_session, "before_flush", check)

    def patiently(self, ask: Callable[[], Result]) -> Result:
        """Calls `ask`; repeats it with growing pauses while the server is unreachable.

        Raises:
            StorageInternalError: the server is unreachable for longer than the patience. Other errors of `ask` are
                raised unchanged.
        """

        def may_pass(error: Exception) -> bool:
            return isinstance(error, StorageInternalError) and _is_connection_lost(error.__cause__)

        return self._waited_for(ask, may_pass)

    def _connect(self, dialect: Any, _: object, arguments: Any, options: Any) -> Any:
        """Makes a new connection, for SQLAlchemy's event do_connect."""
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
                    log.warning("the study's server is unreachable: waiting for it, at most %g s", self._patience_s)
                self._is_away = True
            else:
                self._is_away = False
                return result
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def _is_connection_lost(cause: BaseException | None) -> bool:
    """Whether the connection failed, rather than the query."""
    # A connection lost within a transaction may appear as a transaction that was not rolled back.
    lost = exc.OperationalError | exc.InterfaceError | exc.PendingRollbackError
    return isinstance(cause, lost) or (isinstance(cause, exc.DBAPIError) and cause.connection_invalidated)


def lock_file(url: Any) -> Path | None:
    """The file next to an SQLite file that serves as the lock of its studies; None for a server or memory."""
    if url.get_dialect().name != "sqlite" or not url.database or url.database == ":memory:":
        return None
    # Resolved, so that a file has the same lock under all of its paths.
    return Path(f"{Path(url.database).resolve()}.lock")


def write_ahead(engine: Any) -> None:
    """Lets SQLite commit without a disk sync: a killed process loses nothing, and a commit takes 1 ms instead of 10."""

    def prepare(connection: Any, _: object) -> None:
        # NORMAL is safe only with WAL: a power cut may lose the last commits, but not corrupt the file.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    # For every new connection: `synchronous` is a setting of the connection, and the pool opens new ones at any time.
    event.listen(engine, "connect", prepare)
    engine.dispose()  # connections opened before were not prepared


# ---- journal files


class Journal(JournalStorage):
    """Optuna's journal, with a lock that a process can hold while it writes several lines."""

    def __init__(self, path: str) -> None:
        """Opens or creates the file."""
        self._own_lock = ReentrantLock(path)
        with holding(self._own_lock):
            cut_torn_line(Path(path))
        super().__init__(MendingBackend(path, self._own_lock))

    @contextmanager
    def lock(self, study_name: str) -> Iterator[None]:
        """Holds the lock: one process at a time, on all machines that share the file.

        All studies in the file share one lock; every line is written under it.
        """
        with holding(self._own_lock):
            yield

    def close(self) -> None:
        """Does nothing: the file is not kept open. The method matches `Database`'s."""


class ReentrantLock:
    """The journal's lock. The thread that holds it may take it again, in order to write.

    It has the methods that Optuna expects of a lock. Signals are delayed while it is held: an exception in the middle
    of Optuna's locking could leave the lock behind, or remove another process's.
    """

    def __init__(self, path: str) -> None:
        """Uses Optuna's default lock, so that other programs are kept out too."""
        self._between_processes = JournalFileSymlinkLock(path)
        self._between_threads = threading.RLock()
        self._depth = 0

    def acquire(self) -> bool:
        """Waits until this thread holds the lock.

        Raises:
            StorageInternalError: the lock can't be created because the disk can't be written.
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
            StorageInternalError: it can't be released, or was broken because this process held it for too long.
        """
        self._depth -= 1
        try:
            if self._depth == 0:
                with explained("the journal's lock can't be released"):
                    self._between_processes.release()
        finally:
            self._between_threads.release()
            interrupt.let_through()


class MendingBackend(JournalFileBackend):
    """Optuna's journal file; never appends to an incomplete line, and removes a line that can't be written whole."""

    def __init__(self, path: str, lock: ReentrantLock) -> None:
        """Opens the file, which is written under `lock`."""
        super().__init__(path, lock)  # type: ignore[arg-type] # has the methods of a lock, but not the base class
        self._path, self._mending_lock = Path(path), lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends lines, or leaves the file unchanged.

        Raises:
            StorageInternalError: the lines can't be written.
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
    """Raises StorageInternalError, which a sweep explains, if the disk fails (Optuna's lock raises RuntimeError)."""
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
    """Truncates a file after its last complete line and returns its size. Only the lock's holder may call it.

    No reader has seen the removed part: Optuna reads only complete lines.
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
