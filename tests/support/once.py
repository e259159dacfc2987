"""Fixtures that are made once for all pytest processes."""

import os
import pickle
from collections.abc import Callable
from typing import TypeVar

import pytest

from reg_sweep.runs.files import locked

Made = TypeVar("Made")


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[], Made]) -> Made:
    """The result of `make`. The first process that needs `name` calls it, while the others wait."""
    folder = tmp_path_factory.getbasetemp()
    kept = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / f"{name}.pickle"
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(make()))
    return pickle.loads(kept.read_bytes())
