"""What the tests of the search share: a toy app in this process, and a database that is not made anew for each."""

import logging
import runpy
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import warm
from toy_apps import APPS

from reg_sweep.search.storage import open_storage


@pytest.fixture
def app(tmp_path, monkeypatch, capfd):
    """Runs a toy app in this process, in a fresh directory; gives its exit code, output and errors."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", warm.Popen)  # a study's workers

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [str(APPS / f"{name}.py"), *arguments])
        capfd.readouterr()
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            for handler in set(root.handlers) - set(before[0]):
                handler.close()
            root.handlers[:], root.level = before
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture(scope="session")
def _tables(tmp_path_factory):
    """A database of Optuna's without a study: to make its tables takes a tenth of a second."""
    path = tmp_path_factory.mktemp("tables") / "study.db"
    open_storage(f"sqlite:///{path}").engine.dispose()
    return path


@pytest.fixture
def database(_tables, tmp_path):
    """The URL of an empty database."""
    shutil.copy(_tables, tmp_path / "study.db")
    return f"sqlite:///{tmp_path}/study.db"
