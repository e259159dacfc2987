"""A toy app in this process, for the tests of the search."""

import logging
import runpy
import sys
from types import SimpleNamespace

import pytest
from toy_apps import APPS


@pytest.fixture
def app(tmp_path, monkeypatch, capfd):
    """Runs a toy app in this process, in a fresh directory; gives its exit code, output and errors."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)

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
