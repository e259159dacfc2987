"""A database that is away is waited for; the lock of one on a server is that server's.

A journal file that a full disk tore, and its lock.
"""

import os
import signal
import threading

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import event, exc

from reg_sweep.search import backends, interrupt
from reg_sweep.search.backends import Database, Journal, cut_torn_line, lock_file
from reg_sweep.search.storage import open_storage
from reg_sweep.search.trial import JobTrial


@pytest.fixture
def patient(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "FIRST_PAUSE_S", 0.001)
    return Database(f"sqlite:///{tmp_path}/study.db", patience_s=0.05)


def failing(times, cause):
    left = [times]

    def ask():
        if left[0] > 0:
            left[0] -= 1
            raise StorageInternalError("no") from cause
        return "answer"

    return ask


AWAY = exc.OperationalError("SELECT 1", {}, Exception("the server is shutting down"))


def test_a_server_that_comes_back_is_waited_for_and_said_once(patient, caplog):
    assert patient.patiently(failing(3, AWAY)) == "answer"
    assert [r.getMessage() for r in caplog.records] == [
        "the study's server is unreachable: waiting for it, at most 0.05 s"
    ]


def test_patience_ends(patient):
    with pytest.raises(StorageInternalError):
        patient.patiently(failing(10**9, AWAY))


def test_what_waiting_does_not_change_is_not_patiently(patient):
    with pytest.raises(StorageInternalError):
        patient.patiently(failing(1, exc.ProgrammingError("SELECT nothing", {}, Exception("no such table"))))


def test_a_lock_waits_for_a_server_too(patient, monkeypatch):
    monkeypatch.setattr(backends, "lock_file", lambda url: None)
    monkeypatch.setitem(backends.LOCKS, "sqlite", ("SELECT :number", None))
    connect, cut = patient.engine.connect, failing(2, AWAY)

    def cutting():
        try:
            cut()
        except StorageInternalError:
            raise AWAY from None
        return connect()

    monkeypatch.setattr(patient.engine, "connect", cutting)
    with patient.lock("it"):
        assert cut() == "answer"


def test_a_lock_that_the_server_has_not_given_is_asked_for_again(patient, monkeypatch):
    """MySQL's GET_LOCK answers 0 after its time, and NULL when it was cut."""
    answers = [0, None, 1]
    monkeypatch.setattr(backends, "lock_file", lambda url: None)
    monkeypatch.setitem(backends.LOCKS, "sqlite", ("SELECT take(:name)", "SELECT :name"))

    def prepare(connection, _):
        connection.create_function("take", 1, lambda name: answers.pop(0))

    event.listen(patient.engine, "connect", prepare)
    patient.engine.dispose()
    with patient.lock("it"):
        assert answers == []


def test_reports_and_results_are_written_again_after_a_cut_connection(patient, monkeypatch):
    study = optuna.create_study(storage=patient)
    trial = study.ask()
    session, cut = optuna.storages._rdb.storage._create_scoped_session, [2]

    def cutting(*arguments):
        if cut[0] > 0:
            cut[0] -= 1
            raise StorageInternalError("no") from AWAY
        return session(*arguments)

    monkeypatch.setattr(optuna.storages._rdb.storage, "_create_scoped_session", cutting)
    JobTrial(trial).report(1.0, 1)
    cut[0] = 2
    JobTrial(trial).finish(2.0)
    assert (study.trials[0].intermediate_values, study.trials[0].value) == ({1: 1.0}, 2.0)


def test_a_kind_of_server_whose_lock_is_not_known_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sqlalchemy.dialects.sqlite.base.SQLiteDialect.name", "oracle")
    with pytest.raises(ValueError, match="its kind must be sqlite, postgresql, mysql, mariadb, got oracle"):
        Database(f"sqlite:///{tmp_path}/study.db", patience_s=0)


def test_one_file_has_one_lock_by_whatever_way_it_is_reached(tmp_path):
    from sqlalchemy import make_url

    (tmp_path / "link").symlink_to(tmp_path)
    urls = [f"sqlite:///{tmp_path}/study.db", f"sqlite:///{tmp_path}/link/study.db?timeout=3"]
    assert {lock_file(make_url(url)) for url in urls} == {tmp_path.resolve() / "study.db.lock"}
    assert lock_file(make_url("postgresql://me@host/study")) is None


def test_a_database_that_is_not_opened_whole_leaves_no_connection(tmp_path, connections, monkeypatch):
    def losing(engine):
        with engine.connect():
            assert connections
        raise exc.ProgrammingError("CREATE TABLE studies", {}, Exception('relation "studies" already exists'))

    monkeypatch.setattr(optuna.storages._rdb.models.BaseModel.metadata, "create_all", losing)
    with pytest.raises(exc.ProgrammingError):
        Database(f"sqlite:///{tmp_path}/study.db", patience_s=0)
    assert not connections


# ---- journal files


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "study.log"
    study = optuna.create_study(study_name="it", storage=open_storage(str(path)))
    study.tell(study.ask(), 1.0)
    return path


def states(path):
    return [t.state.name for t in optuna.load_study(study_name="it", storage=open_storage(str(path))).trials]


def test_a_torn_last_line_is_cut_and_the_study_resumes(path):
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"half of a li')
    study = optuna.load_study(study_name="it", storage=open_storage(str(path)))
    study.tell(study.ask(), 2.0)
    assert states(path) == ["COMPLETE", "COMPLETE"]


def test_a_line_that_is_torn_while_others_are_at_work_is_not_appended_to(path):
    """The process that found the disk full is gone; those that continue have the file open already."""
    study = optuna.load_study(study_name="it", storage=open_storage(str(path)))
    with path.open("ab") as file:
        file.write(b'{"op_code":4,')
    study.tell(study.ask(), 2.0)
    assert states(path) == ["COMPLETE", "COMPLETE"]


def test_a_write_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    storage = open_storage(str(path))
    before = path.read_bytes()

    def full(self, logs):
        with path.open("ab") as file:
            file.write(b'{"op_code"')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(optuna.storages.journal.JournalFileBackend, "append_logs", full)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        optuna.load_study(study_name="it", storage=storage).ask()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("written", "kept"), [(b"", 0), (b"a", 0), (b"a\n", 2), (b"a\nb", 2), (b"a\n" + b"b" * 200_000, 2)]
)
def test_a_file_is_cut_behind_its_last_whole_line(tmp_path, written, kept):
    (tmp_path / "f").write_bytes(written)
    assert cut_torn_line(tmp_path / "f") == kept == (tmp_path / "f").stat().st_size


def test_a_journals_lock_keeps_others_out_and_lets_its_holder_write(path):
    holder, other = Journal(str(path)), Journal(str(path))
    study = optuna.load_study(study_name="it", storage=holder)
    order = []

    def wait():
        with other.lock("it"):
            order.append("other")

    waiting = threading.Thread(target=wait)
    with holder.lock("it"):
        waiting.start()
        study.ask()
        waiting.join(0.05)
        order.append("holder")
    waiting.join()
    assert order == ["holder", "other"]


@pytest.mark.parametrize("operation", ["symlink", "rename"])
def test_a_signal_within_the_lock_is_raised_once_it_is_free(path, monkeypatch, operation):
    """Optuna's lock, cut in two there, would stay for half a minute, or take another process's away."""
    journal, original, came = Journal(str(path)), getattr(os, operation), []

    def signalled(*arguments, **named):
        if not came:
            came.append(operation)
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **named)

    with interrupt.handled():
        monkeypatch.setattr(os, operation, signalled)
        with pytest.raises(KeyboardInterrupt), journal.lock("it"):
            assert (came == ["symlink"]) == (operation == "symlink")
        assert interrupt.received() == signal.SIGTERM
        assert not path.with_name("study.log.lock").is_symlink()
        with journal.lock("it"):  # heard once
            pass
    assert sorted(p.name for p in path.parent.iterdir()) == ["study.log"]
