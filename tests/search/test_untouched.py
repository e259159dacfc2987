"""Importing the command, and a study in a stranger's app, leave other libraries as they were, also while jobs run."""

import subprocess
import sys

import hydra
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from toy_apps import APPS, GRID, STUDY, run_process

from reg_sweep import train
from reg_sweep.hydra_app.internals import shared_config_store

IMPORTS = """
import torch, watchful
import reg_sweep.train
watchful.look("imported")
"""


@pytest.mark.slow
def test_importing_the_command_replaces_nothing_in_other_libraries():
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=APPS, capture_output=True, text=True)
    assert done.stdout == "imported changed []\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_strangers_app_finds_its_libraries_unchanged_while_a_study_composes_and_runs_its_jobs(tmp_path, workers):
    study = [*STUDY, GRID, "x=0,1", "hydra.sweeper.n_trials=2", f"hydra.sweeper.workers={workers}"]
    said = run_process(tmp_path, "watchful", *study).out
    said += "".join(log.read_text() for log in (tmp_path / "out").glob("worker_*.log"))
    looks = [line for line in said.splitlines() if " changed " in line]
    composing = {"composing"} if hydra.__version__.startswith("1.3.") else set()
    assert {look.partition(" ")[0] for look in looks} == {*composing, "running", "ended"}
    assert {look.partition(" ")[2] for look in looks} == {"changed []"}


def test_a_patch_of_one_object_is_noticed(monkeypatch):
    monkeypatch.syspath_prepend(APPS)
    import watchful

    assert watchful.changes() == []
    with shared_config_store():
        assert watchful.changes() == ["ConfigStore object's __deepcopy__"]
    assert watchful.changes() == []


def test_help_alone_shares_the_config_store_and_gives_it_back(start, monkeypatch, capsys):
    shared = []
    listed = train.shared_config_store

    def noted():
        shared.append(sys.argv[1:])
        return listed()

    monkeypatch.setattr(train, "shared_config_store", noted)
    assert start("--help") == 0
    assert start("--cfg", "job") == 0
    assert shared == [["--help"]]
    assert set(vars(ConfigStore.instance())) == {"repo"}


def test_a_store_that_is_shared_is_given_back_after_an_error():
    store = ConfigStore.instance()
    before = dict(vars(store))
    with pytest.raises(RuntimeError), shared_config_store():
        raise RuntimeError
    assert vars(store) == before


@pytest.mark.parametrize("ends", [{"status": "diverged"}, KeyboardInterrupt()])
def test_a_grid_gives_hydra_its_own_loader_back(start, monkeypatch, ends):
    loaders = []

    def trained(*_, **__):
        loaders.append(GlobalHydra.instance().hydra)
        if isinstance(ends, dict):
            return ends
        raise ends

    monkeypatch.setattr(train, "train", trained)
    start("-m", "norm=bn,gbn", "name=a", "report=false")
    assert loaders
    assert {type(hydra.config_loader).__module__ for hydra in loaders} == {"hydra._internal.config_loader_impl"}
