"""Search: Optuna studies as Hydra sweeps, for any Hydra app."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Settings": "settings",
    "StudyError": "settings",
    "StudySweep": "sweep",
    "StudyTrial": "trial",
    "current_trial": "trial",
    "pruned_error": "trial",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports the public names at their first use, so that an app that asks for its trial loads no sweeper."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reg_sweep.search' has no attribute {name!r}")
    return getattr(import_module(f"reg_sweep.search.{_HOMES[name]}"), name)
