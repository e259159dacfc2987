"""A journal file that a full disk tore, and whose lock is the claim."""

import os
import signal
import threading

import optuna
import pytest

from reg_sweep.search import interrupt
from reg_sweep.search.journal import Journal, cut_torn_line
from reg_sweep.search.storage import open_storage


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "study.log"
    study = optuna.create_study(study_name="it", storage=open_storage(str(path)))
    study.tell(study.ask(), 1.0)
    return path


def states(path):
    return [t.state.name for t in optuna.load_study(study_name="it", storage=open_storage(str(path))).trials]


def test_a_torn_last_line_is_cut_and_the_study_goes_on(path):
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"half of a li')
    study = optuna.load_study(study_name="it", storage=open_storage(str(path)))
    study.tell(study.ask(), 2.0)
    assert states(path) == ["COMPLETE", "COMPLETE"]


def test_a_line_that_is_torn_while_others_are_at_work_is_not_appended_to(path):
    """The process that found the disk full is gone; those that go on have the file open already."""
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


def test_a_claim_keeps_others_out_and_lets_its_holder_write(path):
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
