"""Shared by the tests of the search: a count of open connections, and a database that is created only once."""

import shutil

import pytest
from toy_apps import counted_connections

from reg_sweep.search.storage import open_storage


@pytest.fixture
def connections():
    """The database connections that the test has opened and not closed."""
    with counted_connections() as opened:
        yield opened


@pytest.fixture(scope="session")
def _tables(tmp_path_factory):
    """An Optuna database without studies, to be copied because creating its tables takes a tenth of a second."""
    path = tmp_path_factory.mktemp("tables") / "study.db"
    open_storage(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(_tables, tmp_path):
    """The URL of an empty database."""
    shutil.copy(_tables, tmp_path / "study.db")
    return f"sqlite:///{tmp_path}/study.db"
