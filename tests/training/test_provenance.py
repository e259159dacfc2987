"""The provenance of a run."""

import subprocess
from datetime import datetime

import pytest
import torch

import reg_sweep
from reg_sweep.training import provenance

CPU = torch.device("cpu")


def git(folder, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *author, "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, which replaces this project's."""
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("as committed")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    return tmp_path


def test_the_commit_is_that_of_the_checkout_and_marked_where_a_file_was_changed(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance.git_commit() == commit
    (checkout / "file").write_text("changed")
    assert provenance.git_commit() == f"{commit}-dirty"


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CHECKOUT", tmp_path)
    assert provenance.git_commit() is None


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() is None


def test_the_versions_are_those_of_what_computes():
    found = provenance.versions()
    assert found.keys() == {"python", "reg_sweep", "torch", "numpy", "hydra-core", "optuna"}
    assert found["reg_sweep"] == reg_sweep.__version__
    assert torch.__version__.startswith(found["torch"].partition("+")[0])


def test_the_device_is_told_with_its_threads_and_its_processor():
    assert provenance.device_facts(CPU, 3) == {"name": "cpu", "threads": 3, "processor": provenance.processor(CPU)}
    assert provenance.device_facts(CPU, None)["threads"] == torch.get_num_threads()
    assert provenance.processor(CPU) != ""


def test_the_time_is_utc_to_the_second():
    now = datetime.fromisoformat(provenance.now())
    assert now.utcoffset().total_seconds() == 0
    assert now.microsecond == 0
