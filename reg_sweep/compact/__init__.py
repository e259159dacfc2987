"""Networks without their zero channels: `python -m reg_sweep.compact outputs/RUN`, and `compact(model, example)`."""

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
    """Imports the public names at their first use: `--help` needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reg_sweep.compact' has no attribute {name!r}")
    return getattr(import_module(f"reg_sweep.compact.{_HOMES[name]}"), name)
