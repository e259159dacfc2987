"""Locks and temporary files: nothing of anybody else's is followed, emptied or removed."""

import errno
import fcntl
import os
import threading

import pytest
from waiting import wait_until

from reg_sweep.config.rules import ConfigError
from reg_sweep.runs import files
from reg_sweep.runs.files import locked, locked_directory, replacing


def test_a_lock_neither_follows_nor_empties_what_its_lock_file_links_to(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / files.LOCK_FILE).symlink_to(precious)
    with (
        pytest.raises(ConfigError, match="must be a plain file, got a link: remove it"),
        locked_directory(tmp_path / "run"),
    ):
        pytest.fail("locked through a link")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "run" / files.LOCK_FILE):
        pytest.fail("locked through a link")
    assert precious.read_text() == "kept"


def test_a_locked_directory_loses_what_this_program_left_half_written_and_nothing_else(tmp_path):
    foreign = [".notes.tmp", ".run.json.12.tmp", "a.tmp", ".run.json.12-xyz.reg_sweep.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("kept")
    own = ".run.json.12-0123abcd.reg_sweep.tmp"
    (tmp_path / own).write_text("half")
    (tmp_path / ".run.json.13-0123abcd.reg_sweep.tmp").symlink_to(tmp_path / "a.tmp")
    with locked_directory(tmp_path):
        assert not (tmp_path / own).exists()
        assert all((tmp_path / name).read_text() == "kept" for name in foreign)


def test_a_file_is_replaced_beside_whatever_lies_there_and_leaves_nothing(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    names = iter(["0123abcd", "0123abcd"])
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: next(names))
    link = tmp_path / f".a.{os.getpid()}-0123abcd.reg_sweep.tmp"
    link.symlink_to(precious)
    with pytest.raises(FileExistsError), replacing(tmp_path / "a") as file:
        file.write(b"through the link")
    assert precious.read_text() == "kept"
    link.unlink()
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "precious"]


def test_a_lock_whose_file_was_removed_while_it_was_opened_takes_the_new_one(tmp_path, monkeypatch):
    """The last holder left nothing, and removed the file between this process's opening and its locking."""
    opened = files._opened
    removed = []

    def open_and_lose(path):
        file = opened(path)
        if not removed:
            removed.append(path)
            path.unlink()
        return file

    monkeypatch.setattr(files, "_opened", open_and_lose)
    with locked_directory(tmp_path / "run"):
        assert (tmp_path / "run" / files.LOCK_FILE).exists()
    assert removed


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_with_a_way_round(tmp_path, monkeypatch, code):
    def refusing(file, operation):
        raise OSError(code, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refusing)
    for hold in (locked(tmp_path / "study.db.lock"), locked_directory(tmp_path / "run")):
        with pytest.raises(OSError, match="its file system does not support locks") as refused, hold:
            pass
        assert str(tmp_path) in str(refused.value)


def test_a_lock_that_is_held_for_long_is_waited_for_by_name(tmp_path, monkeypatch, caplog):
    path, order = tmp_path / "study.db.lock", []
    monkeypatch.setattr("reg_sweep.runs.files.WAIT_SAID_S", 0.01)

    def wait():
        with locked(path):
            order.append("other")

    waiting = threading.Thread(target=wait)
    with locked(path):
        waiting.start()
        wait_until(lambda: caplog.records, "word about the wait")
        order.append("holder")
    waiting.join()
    assert order == ["holder", "other"]
    assert [r.getMessage() for r in caplog.records] == [f"waiting for {path}, which another process holds"]


# ---- files that are written together


def write_together(folder, **texts):
    with files.staged(folder, "last") as staging:
        for name, text in texts.items():
            (staging / name.replace("__", "/")).parent.mkdir(exist_ok=True)
            (staging / name.replace("__", "/")).write_text(text)


def names_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {files.LISTING}


def test_files_written_together_replace_and_remove_the_earlier_ones_and_nobody_elses(tmp_path):
    write_together(tmp_path, last="1", old="1", changed="1", figures__old="1", figures__kept="1")
    (tmp_path / "changed").write_text("by its reader")
    (tmp_path / "figures" / "mine").write_text("foreign")
    write_together(tmp_path, last="2", figures__kept="2")
    assert names_in(tmp_path) == {"last", "changed", "figures/mine", "figures/kept"}
    assert (tmp_path / "figures" / "kept").read_text() == (tmp_path / "last").read_text() == "2"
    (tmp_path / "figures" / "mine").unlink()
    write_together(tmp_path, last="3")
    assert {p.name for p in tmp_path.iterdir()} == {"last", "changed", files.LISTING}


def test_a_process_killed_between_two_moves_leaves_nothing_that_the_next_does_not_remove(tmp_path, monkeypatch):
    write_together(tmp_path, last="1", stale="1")
    replace = files.Path.replace

    def killed(path, target):
        if path.name == "last":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(files.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_together(tmp_path, last="2", second="2")
    monkeypatch.undo()
    write_together(tmp_path, last="3")
    assert names_in(tmp_path) == {"last"}


@pytest.mark.parametrize(
    "text", ['{"files": {"../precious": "%s", "a/../../precious": "%s"}}', "[]", '{"files": 3}', "{", "[" * 9999]
)
def test_a_list_that_names_foreign_files_or_is_none_removes_nothing(tmp_path, text):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "out").mkdir()
    digest = files.hashlib.sha256(b"kept").hexdigest()
    (tmp_path / "out" / files.LISTING).write_text(text.replace("%s", digest))
    write_together(tmp_path / "out", last="1")
    assert precious.read_text() == "kept"
