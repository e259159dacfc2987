"""Importing the command, and a study in a stranger's app, leave other libraries as they were."""

import subprocess
import sys

import pytest
from toy_apps import APPS

SNAPSHOT = """
import sys, inspect

def methods():
    import hydra, hydra.utils, hydra._internal.hydra, hydra._internal.config_loader_impl, hydra.core.config_store
    import omegaconf, optuna, optuna.storages, optuna.study, torch, os
    found = {}
    for name, module in sorted(sys.modules.items()):
        if module is None or name.partition(".")[0] not in ("hydra", "omegaconf", "optuna", "torch", "os"):
            continue
        for owner in [module, *(v for v in vars(module).values() if inspect.isclass(v) and v.__module__ == name)]:
            prefix = owner.__qualname__ if inspect.isclass(owner) else ""
            for key, value in vars(owner).items():
                if inspect.isroutine(value) or isinstance(value, (classmethod, staticmethod, property)):
                    found[f"{name}.{prefix}.{key}"] = value
    return found

import torch
before = methods()
"""
CHANGED = """
after = methods()
print("changed", [key for key, value in before.items() if after.get(key) is not value], file=sys.__stdout__)
"""
IMPORTS = "import reg_sweep.train"
RUNS = """
import runpy
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_no_method_of_another_library_is_replaced(tmp_path):
    study = [f"{APPS}/sphere.py", "-m", "hydra/sweeper=optuna_study", "x=0,1", "hydra.sweeper.n_trials=2"]
    started = [sys.executable, "-c", SNAPSHOT + RUNS + CHANGED + IMPORTS + CHANGED, *study]
    done = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("changed ")] == ["changed []"] * 2


def test_a_command_undoes_what_it_marks():
    from hydra.core.config_store import ConfigStore

    from reg_sweep.hydra_app.internals import shared_config_store

    store = ConfigStore.instance()
    before = dict(vars(store))
    with pytest.raises(RuntimeError), shared_config_store():
        raise RuntimeError
    assert vars(store) == before
