"""Uses of Optuna's private names: checked on Optuna 5.0.0, and used nowhere but here.

Each function names the issue of optuna/optuna that would make it needless. No class of Optuna's is changed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState

Result = TypeVar("Result")


class TooManyTrials(Exception):  # noqa: N818 # no error: the answer to a question
    """The study has as many trials as it may have."""


def frozen(trial: "optuna.Trial") -> "FrozenTrial":
    """A running trial as its storage has it now.

    A `Trial` may show a copy from when it was made, and another process may have changed the trial since. Storages take
    an id, and a `Trial` shows its number alone (issue 6365).
    """
    return trial.storage.get_trial(trial._trial_id)


def trial_of_number(study: "optuna.Study", number: int) -> "optuna.Trial":
    """The study's running trial of this number, to report to from another process (issue 2987)."""
    import optuna

    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return optuna.Trial(study, trial_id)


def set_state(study: "optuna.Study", trial: "FrozenTrial", state: "TrialState", attributes: Mapping[str, Any]) -> None:
    """Writes attributes into a running trial, then its state: `Study.tell` can't requeue a trial (issues 1641, 3351).

    Optuna's databases and journals hand out a requeued trial again; its storage in memory does not.

    Raises:
        UpdateFinishedTrialError: it has ended in the meantime.
    """
    storage, trial_id = study._storage, trial._trial_id
    # The attributes first: who sees the new state must find them, and a finished trial takes no attributes.
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)
    storage.set_trial_state_values(trial_id, state)


def start_again(study: "optuna.Study", trial: "FrozenTrial") -> None:
    """Makes a waiting trial a running one, unless another process just did: `tell` takes no other (issue 3351).

    Raises:
        UpdateFinishedTrialError: it has ended in the meantime.
    """
    from optuna.trial import TrialState

    study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)


def end(trial: "optuna.Trial", state: "TrialState", values: list[float] | None) -> bool:
    """Writes a trial's end, and whether that is all there is to do; if not, it writes nothing, and `tell` must.

    `tell` reads the trial twice besides, in twelve queries of the 57 that a trial takes, to tell the sampler. Optuna's
    TPE and random samplers do nothing then. A pruned trial's value is read from its reports.

    Raises:
        UpdateFinishedTrialError: it has ended in the meantime.
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

    A grid's sampler calls it within `tell`, after what it takes for the last point; outside of `optimize` it raises
    (issues 4121, 5141).
    """
    study.stop = lambda: None  # type: ignore[method-assign]


def holds(distribution: "BaseDistribution", value: Any) -> bool:
    """Whether a distribution may give this value: Optuna itself only warns when an enqueued one lies outside."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # not of the distribution's type
        return False


def point_of(trial: "FrozenTrial") -> dict[str, Any]:
    """A trial's parameters, with those that it was enqueued with and has not asked for yet (issue 2939)."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def ask_within(
    study: "optuna.Study", distributions: "Mapping[str, BaseDistribution]", limit: int
) -> "optuna.Trial | None":
    """A waiting trial, or a new one where the study has fewer than `limit`; else None (issues 1883, 2907).

    To be called under the study's lock. In a database the transaction that makes the trial checks once more: a server's
    restart takes the lock away, and Optuna tries that transaction again.
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
        for row in session.dirty:  # the number is given last, when the study's row is locked
            if row.__tablename__ == "trials" and inspect(row).attrs.number.history.added and row.number >= limit:
                raise TooManyTrials

    event.listen(storage.scoped_session, "before_flush", check)
    try:
        yield
    finally:
        event.remove(storage.scoped_session, "before_flush", check)


@contextmanager
def locked(study: "optuna.Study") -> Iterator[None]:
    """Holds a study's lock, which lies in its storage: one process at a time, wherever it runs.

    Raises:
        StorageInternalError: the storage is away.
    """
    from reg_sweep.search.backends import Database, Journal

    storage = opened_storage_of(study)
    # Any other storage was not opened by us: it is in this process's memory, and nobody else's.
    if isinstance(storage, Database | Journal):
        with storage.lock(study.study_name):
            yield
    else:
        yield


def patiently(study: "optuna.Study", ask: "Callable[[], Result]") -> Result:
    """The result of `ask`, which is called again where a server's restart cut its connection; see `Database`.

    `ask` must do no harm when it is called twice.
    """
    return patiently_in(opened_storage_of(study), ask)


def patiently_in(storage: Any, ask: "Callable[[], Result]") -> Result:
    """The same for a storage that was opened and has no study yet."""
    from reg_sweep.search.backends import Database

    return storage.patiently(ask) if isinstance(storage, Database) else ask()


def opened_storage_of(study: "optuna.Study") -> Any:
    """The storage as it was opened, without the cache that Optuna puts around a database."""
    from optuna.storages._cached_storage import _CachedStorage

    storage = study._storage
    return storage._backend if isinstance(storage, _CachedStorage) else storage
