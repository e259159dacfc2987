"""Shared by all tests: commands run in this process, one thread, hypothesis settings, markers, and real MNIST."""

import gc
import logging
import os
import runpy
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

# A test that uses one of these fixtures, directly or through another, gets the marker.
MARKER_OF = {"browser": "browser", "mnist_root": "mnist", "fashion_mnist_root": "mnist"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: a test that waits for a browser or a process leaves its core idle."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(cores) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Disables the garbage collector during collection, and freezes what was imported.

    Scanning the million objects that imports create is slow.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by their fixtures. Only `slow` is set by hand, because only measuring shows which tests are slow."""
    for item in items:
        for fixture in MARKER_OF.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKER_OF[fixture])


@pytest.fixture(autouse=True)
def _one_thread():
    """Sets one thread before each test, so that sums are equal on all machines and no test affects the next."""
    import torch  # imported here, because xdist's main process runs no tests

    torch.set_num_threads(1)


@pytest.fixture
def timed_here(monkeypatch) -> None:
    """Measures latencies of compact networks briefly, and in this process, so that no other has to import torch."""
    pytest.importorskip("torch_pruning")
    from reg_sweep.compact import writing

    monkeypatch.setattr("reg_sweep.compact.measure._alone", lambda models, stack: [])
    monkeypatch.setattr(writing, "compact_arm", partial(writing.compact_arm, seconds=0.0))


@pytest.fixture
def quick_hydra(monkeypatch) -> None:
    """Skips two slow steps of Hydra, which take a third of a short command.

    Hydra composes the whole config a second time to get `hydra.mode`, which here only a study or the command line sets.
    At each error, it looks for a debugger in the source of every pytest frame.
    """
    from hydra._internal.hydra import Hydra

    compose_mode = Hydra.get_mode

    def get_mode(self, config_name, overrides, **parsed):  # Hydra 1.4 has parsed them already
        is_set = any(word.startswith(("study=", "+study=", "hydra.mode=")) for word in overrides)
        return compose_mode(self, config_name, overrides, **parsed) if is_set else None

    monkeypatch.setattr(Hydra, "get_mode", get_mode)
    monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)


@pytest.fixture
def start(monkeypatch, tmp_path, quick_hydra):
    """Runs `python -m reg_sweep.train ARGUMENTS` in this process, in an empty folder; returns the exit code."""
    from hydra.core.global_hydra import GlobalHydra

    from reg_sweep import train

    before = list(logging.root.handlers)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REG_SWEEP_DATA", raising=False)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["reg_sweep.train", *arguments])
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "reg_sweep.train", *arguments])
        try:
            train.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            GlobalHydra.instance().clear()
        return 0

    yield run
    for handler in [h for h in logging.root.handlers if h not in before]:
        logging.root.removeHandler(handler)
        handler.close()


@pytest.fixture
def app(tmp_path, monkeypatch, capfd, quick_hydra):
    """Runs a toy app in this process, in a fresh directory; returns its output and errors. It must exit with `code`.

    Fails if a connection to its database stays open.
    """
    from hydra.core.config_store import ConfigStore
    from toy_apps import APPS, counted_connections

    root, configs = logging.getLogger(), ConfigStore.instance().repo
    before = root.handlers[:], root.level
    stored = set(configs)
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments, code=0):
        monkeypatch.setattr(sys, "argv", [str(APPS / f"{name}.py"), *arguments])
        capfd.readouterr()
        with counted_connections() as opened:
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
                ended = 0
            except SystemExit as stop:
                ended = stop.code
            finally:
                for handler in set(root.handlers) - set(before[0]):
                    handler.close()
                root.handlers[:], root.level = before
                for name in set(configs) - stored:  # Hydra 1.4 warns of a config that is stored twice
                    del configs[name]
            assert not opened
        out, err = capfd.readouterr()
        assert ended == code, err
        return SimpleNamespace(out=out, err=err)

    return run


@pytest.fixture(scope="session")
def _opened_databases():
    """The SQLAlchemy engines that were used, each once."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    engines = {}
    event.listen(
        Engine, "engine_connect", lambda connection: engines.setdefault(id(connection.engine), connection.engine)
    )
    return engines


@pytest.fixture(autouse=True)
def _closed_databases(_opened_databases):
    """Closes the databases that a test used: since Python 3.13, a connection left open causes a warning."""
    yield
    for engine in _opened_databases.values():
        engine.dispose()
    _opened_databases.clear()


def _root_with(name: str) -> Path:
    """The folder with the real images. Skipped without it: the project has no copy, and tests don't use the network."""
    root = os.environ.get("REG_SWEEP_DATA")
    if not root or not (Path(root) / name / "raw").is_dir():
        pytest.skip(f"set REG_SWEEP_DATA to a folder with {name}/raw")
    return Path(root)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The folder that holds MNIST/raw."""
    return _root_with("MNIST")


@pytest.fixture(scope="session")
def fashion_mnist_root() -> Path:
    """The folder that holds FashionMNIST/raw."""
    return _root_with("FashionMNIST")
