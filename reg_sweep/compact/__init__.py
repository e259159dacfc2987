"""Removes the zero channels of networks: `python -m reg_sweep.compact outputs/RUN`, or `compact(model, example)`."""

from importlib import import_module
from typing import Any

_HOMES = {
    "compact": "removal",
    "Compacted": "removal",
    "CompactError": "removal",
    "load_compact": "loading",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports public names at their first use, so that `--help` does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reg_sweep.compact' has no attribute {name!r}")
    return getattr(import_module(f"reg_sweep.compact.{_HOMES[name]}"), name)
