"""What every test shares: one thread, hypothesis without a clock or chance, markers, real MNIST where there is some."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

# A test that asks for one of these fixtures, itself or through another, is what the marker says.
MARKER_OF = {"browser": "browser", "mnist_root": "mnist", "fashion_mnist_root": "mnist"}


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Looks for no garbage among the million objects that imports make, neither while they load nor ever after."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks a test by what it needs; `slow` alone is written at the test, since only a clock can tell."""
    for item in items:
        for fixture in MARKER_OF.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKER_OF[fixture])


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums come out the same on every machine; and a test that sets threads does not reach the next."""
    import torch  # here, for xdist's first process runs no test

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _opened_databases():
    """The databases that were asked something, each once."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    engines = {}
    event.listen(
        Engine, "engine_connect", lambda connection: engines.setdefault(id(connection.engine), connection.engine)
    )
    return engines


@pytest.fixture(autouse=True)
def _closed_databases(_opened_databases):
    """Closes the databases that a test looked at: from Python 3.13 on one that is forgotten while open is a warning."""
    yield
    for engine in _opened_databases.values():
        engine.dispose()
    _opened_databases.clear()


def _root_with(name: str) -> Path:
    """The folder that holds the real images, which come neither with the project nor, in a test, over the network."""
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
