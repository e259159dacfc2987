"""All uses of Optuna's private names, checked on Optuna 5.0.0.

Each function names the issue of optuna/optuna that would make it unnecessary. None of Optuna's classes is changed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

Result = TypeVar("Result")


class TooManyTrials(Exception):  # noqa: N818 # not an error
    """The study already has as many trials as allowed."""


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


def ask_within(
    study: "optuna.Study", distributions: "Mapping[str, BaseDistribution]", limit: int
) -> "optuna.Trial | None":
    """Asks for a waiting trial, or a new one if the study has fewer than `limit`; else None (issues 1883, 2907).

    Call it under the study's lock. In a database, the transaction that creates the trial checks the limit again: a
    restart of the server releases the lock, and Optuna repeats the transaction.
    """
    from reg_sweep.search.backends import Database

    storage = opened_storage_of(study)
    with _limited(storage, limit) if isinstance(storage, Database) else nullcontext():
        try:
            return study.ask(dict(distributions))
        except TooManyTrials:
            return None


@contextmanager
def _limited(storage: Any, limit: int) -> Iterator[None]:
    """Within the block, no transaction of the database gives a trial a number of `limit` or more."""
    from sqlalchemy import event, inspect

    def check(session: Any, *_: object) -> None:
        for row in session.dirty:  # the number is assigned last, when the study's row is locked
            if row.__tablename__ == "trials" and inspect(row).attrs.number.history.added and row.number >= limit:
                raise TooManyTrials

    event.listen(storage.scoped_session, "before_flush", check)
    try:
        yield
    finally:
        event.remove(storage.scoped_session, "before_flush", check)


@contextmanager
def locked(study: "optuna.Study") -> Iterator[None]:
    """Holds a study's lock, which is in its storage: only one process at a time, on any machine.

    Raises:
        StorageInternalError: the storage can't be reached.
    """
    from reg_sweep.search.backends import Database, Journal

    storage = opened_storage_of(study)
    # Any other storage is in this process's memory: no other process uses it.
    if isinstance(storage, Database | Journal):
        with storage.lock(study.study_name):
            yield
    else:
        yield


def patiently(study: "optuna.Study", ask: "Callable[[], Result]") -> Result:
    """Calls `ask`, and calls it again if a restart of the server cut its connection (see `Database`).

    It must be safe to call `ask` twice.
    """
    return patiently_in(opened_storage_of(study), ask)


def patiently_in(storage: Any, ask: "Callable[[], Result]") -> Result:
    """Like `patiently`, for an open storage without a study."""
    from reg_sweep.search.backends import Database

    return storage.patiently(ask) if isinstance(storage, Database) else ask()


def opened_storage_of(study: "optuna.Study") -> Any:
    """The storage object that was opened, without the cache that Optuna wraps around databases."""
    from optuna.storages._cached_storage import _CachedStorage

    storage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage
