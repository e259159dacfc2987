"""The command that was typed, as text."""

import sys

import pytest

from reg_sweep.search.command import app_command, public_arguments


@pytest.mark.parametrize("options", [[], ["-u"], ["-W", "error"]])
def test_an_app_that_is_a_module_is_started_as_one_whatever_the_interpreters_options(options, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/app.py", "-m", "x=1,2"])
    monkeypatch.setattr(sys, "orig_argv", ["python3.11", *options, "-m", "apps.train", "-m", "x=1,2"])
    assert app_command() == ["python", "-m", "apps.train"]
    monkeypatch.setattr(sys, "orig_argv", ["python3.11", *options, "../app.py", "-m", "x=1,2"])
    monkeypatch.setattr(sys, "argv", ["../app.py", "-m", "x=1,2"])
    assert app_command() == ["python", "../app.py"]


def test_a_command_is_printed_without_its_storages_password():
    typed = ["x=1", "hydra.sweeper.storage='postgresql://me:s3cr3t@db/studies'", "hydra.sweeper.n_trials=3"]
    assert public_arguments(typed) == ["x=1", "hydra.sweeper.storage=...", "hydra.sweeper.n_trials=3"]
    plain = [
        "hydra.sweeper.storage=sqlite:///a.db",
        "+hydra.sweeper.storage=a.log",
        "hydra.sweeper.storage=${oc.env:URL}",
    ]
    assert public_arguments(plain) == plain
