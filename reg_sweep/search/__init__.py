"""Search: Optuna studies as Hydra sweeps, for any Hydra app."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reg_sweep.search.settings import Settings, StudyError
    from reg_sweep.search.sweep import StudySweep
    from reg_sweep.search.trial import StudyTrial, current_trial, pruned_error

__all__ = ["Settings", "StudyError", "StudySweep", "StudyTrial", "current_trial", "pruned_error"]

_HOMES = {
    "Settings": "settings",
    "StudyError": "settings",
    "StudySweep": "sweep",
    "StudyTrial": "trial",
    "current_trial": "trial",
    "pruned_error": "trial",
}


def __getattr__(name: str) -> Any:
    """Imports public names at first use, so that an app that only asks for its trial does not load the sweeper."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reg_sweep.search' has no attribute {name!r}")
    return getattr(import_module(f"reg_sweep.search.{_HOMES[name]}"), name)
