"""What the tests of the search share: a toy app in this process, and a database that is not made anew for each."""

import logging
import runpy
import shutil
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import warm
from sqlalchemy import event
from sqlalchemy.pool import Pool
from toy_apps import APPS

from reg_sweep.search.storage import open_storage


@contextmanager
def counted_connections():
    """The connections to databases that were opened in the block and are open."""
    opened = set()
    listeners = {"connect": lambda made, _: opened.add(made), "close": lambda made, _: opened.discard(made)}
    for what, listener in listeners.items():
        event.listen(Pool, what, listener)
    try:
        yield opened
    finally:
        for what, listener in listeners.items():
            event.remove(Pool, what, listener)


@pytest.fixture
def connections():
    """Those of a test."""
    with counted_connections() as opened:
        yield opened


@pytest.fixture
def app(tmp_path, monkeypatch, capfd):
    """Runs a toy app in this process, in a fresh directory; gives its exit code, output and errors.

    However it ends, no connection to its database may stay open.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", warm.Popen)  # a study's workers

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [str(APPS / f"{name}.py"), *arguments])
        capfd.readouterr()
        with counted_connections() as opened:
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except SystemExit as stop:
                code = stop.code
            finally:
                for handler in set(root.handlers) - set(before[0]):
                    handler.close()
                root.handlers[:], root.level = before
            assert not opened
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture(scope="session")
def _tables(tmp_path_factory):
    """A database of Optuna's without a study: to make its tables takes a tenth of a second."""
    path = tmp_path_factory.mktemp("tables") / "study.db"
    open_storage(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(_tables, tmp_path):
    """The URL of an empty database."""
    shutil.copy(_tables, tmp_path / "study.db")
    return f"sqlite:///{tmp_path}/study.db"
