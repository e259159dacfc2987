"""What Optuna offers under private names alone: checked on Optuna 5.0.0, and used nowhere but here.

A new version of Optuna needs this file checked, no other.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

Result = TypeVar("Result")


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


def run_again(study: "optuna.Study", trial: "FrozenTrial") -> None:
    """Makes a waiting trial a running one, unless another process does at this moment: `tell` takes no other.

    Raises:
        UpdateFinishedTrialError: it has ended in the meantime.
    """
    from optuna.trial import TrialState

    study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)


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


@contextmanager
def claimed(study: "optuna.Study") -> Iterator[None]:
    """Holds a study's lock, which lies in its storage: for one process at a time, wherever it runs.

    Raises:
        StorageInternalError: the storage is away.
    """
    from reg_sweep.search.database import Database
    from reg_sweep.search.journal import Journal

    storage = _opened(study)
    # Any other was not opened by us: it is in this process's memory, and nobody else's.
    if isinstance(storage, Database | Journal):
        with storage.claim(study.study_name):
            yield
    else:
        yield


def waited_for(study: "optuna.Study", ask: "Callable[[], Result]") -> Result:
    """What `ask` returns, once the study's server, where it has one that is away, is back; see `Database`."""
    return waited_for_storage(_opened(study), ask)


def waited_for_storage(storage: Any, ask: "Callable[[], Result]") -> Result:
    """The same of a storage that was opened and has no study yet."""
    from reg_sweep.search.database import Database

    return storage.waited_for(ask) if isinstance(storage, Database) else ask()


def ask_within(
    study: "optuna.Study", distributions: "Mapping[str, BaseDistribution]", limit: int
) -> "optuna.Trial | None":
    """A waiting trial, or a new one where the study has less than `limit`; else None. To be called by who claims."""
    from reg_sweep.search.database import Database, TooManyTrials

    storage = _opened(study)
    if isinstance(storage, Database):
        storage.limit = limit
    try:
        return study.ask(dict(distributions))
    except TooManyTrials:
        return None
    finally:
        if isinstance(storage, Database):
            storage.limit = None  # what is enqueued is counted by who enqueues it


def _opened(study: "optuna.Study") -> Any:
    """The storage as it was opened, without the cache that Optuna puts around a database."""
    from optuna.storages._cached_storage import _CachedStorage

    storage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage
