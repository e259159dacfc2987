"""All uses of Optuna's private names, checked on Optuna 5.0.0.

Each function names the issue of optuna/optuna that would make it unnecessary. None of Optuna's classes is changed.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState


def frozen(trial: "optuna.Trial") -> "FrozenTrial":
    """Reads the current state of a running trial from the storage.

    A `Trial` may show an old copy, although another process has changed the trial since. Storages ask for an id, but a
    `Trial` only shows its number (issue 6365).
    """
    return trial.storage.get_trial(trial._trial_id)


def trial_of_number(study: "optuna.Study", number: int) -> "optuna.Trial":
    """The study's running trial with this number, for reports from another process (issue 2987)."""
    import optuna

    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return optuna.Trial(study, trial_id)


def set_state(study: "optuna.Study", trial: "FrozenTrial", state: "TrialState", attributes: Mapping[str, Any]) -> None:
    """Writes attributes to a running trial, then its state: `Study.tell` can't requeue a trial (issues 1641, 3351).

    Optuna's databases and journals return a requeued trial from `ask`; its in-memory storage does not.

    Raises:
        UpdateFinishedTrialError: the trial has ended in the meantime.
    """
    storage, trial_id = study._storage, trial._trial_id
    # Attributes first: processes that see the new state need them, and a finished trial accepts none.
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)
    storage.set_trial_state_values(trial_id, state)


def start_again(study: "optuna.Study", trial: "FrozenTrial") -> None:
    """Sets a waiting trial to running, unless another process just did: `tell` requires it (issue 3351).

    Raises:
        UpdateFinishedTrialError: the trial has ended in the meantime.
    """
    from optuna.trial import TrialState

    study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)


def end(trial: "optuna.Trial", state: "TrialState", values: list[float] | None) -> bool:
    """Writes a trial's result if no more than that is needed; otherwise returns False, and `tell` must write it.

    `tell` also reads the trial twice to inform the sampler: 12 of the 57 queries of a trial. This is unnecessary for
    Optuna's TPE and random samplers, which ignore it. A pruned trial needs `tell`, which reads its value from reports.

    Raises:
        UpdateFinishedTrialError: the trial has ended in the meantime.
    """
    from optuna.samplers import RandomSampler, TPESampler
    from optuna.trial import TrialState

    study = trial.study
    is_all = type(study.sampler) in (RandomSampler, TPESampler) and state != TrialState.PRUNED
    if is_all:
        study._storage.set_trial_state_values(trial._trial_id, state, values)
    return is_all


def ignore_stops(study: "optuna.Study") -> None:
    """Makes `stop()` of this study object do nothing.

    Grid samplers call it in `tell`, after what they consider the last point. Outside `optimize` it raises (issues 4121,
    5141).
    """
    study.stop = lambda: None  # type: ignore[method-assign]


def holds(distribution: "BaseDistribution", value: Any) -> bool:
    """Whether a distribution contains this value: for enqueued values outside it, Optuna itself only warns."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # not of the distribution's type
        return False


def point_of(trial: "FrozenTrial") -> dict[str, Any]:
    """A trial's parameters, including enqueued ones that have not been suggested yet (issue 2939)."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def opened_storage_of(study: "optuna.Study") -> Any:
    """The storage object that was opened, without the cache that Optuna wraps around databases."""
    from optuna.storages._cached_storage import _CachedStorage

    storage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage
