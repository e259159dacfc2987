"""Spaces that depend on what was chosen: more of a trial's parameters, suggested by a function of the app's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from reg_sweep.search.settings import StudyError, located

if TYPE_CHECKING:
    import optuna


def extension(path: str | None, config: DictConfig) -> "Callable[[optuna.Trial], None] | None":
    """What suggests the rest of a trial's parameters: the function `(config, trial)` at a dotted path, if there is one.

    The trial has its other parameters by then. The names that the function suggests are keys of the app's config, with
    a + where the config does not have them.

    Raises:
        StudyError: there is no such function; or, when it is asked, it fails.
    """
    if path is None:
        return None
    function = located("custom_search_space", path)

    def extend(trial: "optuna.Trial") -> None:
        try:
            function(config, trial)
        except Exception as error:  # it is the app's own
            reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            raise StudyError(f"hydra.sweeper.custom_search_space: {path} failed: {reason}") from None

    return extend
