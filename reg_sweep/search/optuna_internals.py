"""What Optuna offers under private names alone: checked on Optuna 5.0.0, and used nowhere but here.

A new version of Optuna needs this file checked, no other.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState


def frozen(trial: "optuna.Trial") -> "FrozenTrial":
    """A running trial as its storage has it now.

    What a `Trial` says of itself may be a copy from when it was made; another process may have changed it since. And
    storages ask for an id, of which a `Trial` shows its number alone.
    """
    return trial.storage.get_trial(trial._trial_id)


def trial_of_number(study: "optuna.Study", number: int) -> "optuna.Trial":
    """The study's running trial of this number, to report to: Optuna has no public way from a number to a `Trial`."""
    import optuna

    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return optuna.Trial(study, trial_id)


def set_state(study: "optuna.Study", trial: "FrozenTrial", state: "TrialState", attributes: Mapping[str, Any]) -> None:
    """Writes attributes into a running trial, then its state: `Study.tell` can't send one back to waiting.

    Optuna's storage in memory would not hand it out again; its databases and journal files do.

    Raises:
        UpdateFinishedTrialError: it has ended in the meantime.
    """
    storage, trial_id = study._storage, trial._trial_id
    # The attributes first: whoever sees the new state must find them, and a finished trial takes none any more.
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)
    storage.set_trial_state_values(trial_id, state)


def ignore_stops(study: "optuna.Study") -> None:
    """Makes `study.stop()` do nothing.

    Within `tell`, a grid's sampler calls it at what it takes for the last point; outside `optimize` it raises.
    """
    study.stop = lambda: None  # type: ignore[method-assign]


def holds(distribution: "BaseDistribution", value: Any) -> bool:
    """Whether a distribution may give this value: Optuna itself only warns of an enqueued one that lies outside."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # not of the distribution's type
        return False
