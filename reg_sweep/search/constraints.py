"""What a trial tells beside its objective: constraints that it kept or broke, and notes."""

import math
from typing import TYPE_CHECKING, Any

from reg_sweep.search.optuna_internals import frozen
from reg_sweep.search.settings import located
from reg_sweep.search.storage import OWN_ATTRIBUTES

if TYPE_CHECKING:
    import optuna


def set_constraint(trial: "optuna.Trial", name: str, value: float) -> None:
    """Writes a constraint's value into the trial; kept where it is 0 or less.

    Raises:
        ValueError: it is no number.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    number = float(value)
    if math.isnan(number):
        raise ValueError(f"the constraint {name} must be a number, got {value!r}")
    now = frozen(trial)
    # A job that goes on after a kill may tell it again, which Optuna warns of; and of a trial that another process has
    # taken over, and ended, nothing is told any more.
    if name in now.constraints or now.state.is_finished():
        return
    try:
        trial.set_constraint(name, number)
    except UpdateFinishedTrialError:
        return


def set_note(trial: "optuna.Trial", name: str, value: Any) -> None:
    """Writes an attribute of the app's into the trial.

    Raises:
        ValueError: the sweeper uses the name itself.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    if name in OWN_ATTRIBUTES:
        raise ValueError(f"a trial's attribute must not be named {' or '.join(OWN_ATTRIBUTES)}, got {name!r}")
    try:
        trial.set_user_attr(name, value)
    except UpdateFinishedTrialError:  # another process, which took the trial over, was faster
        return


def tell_found(trial: "optuna.Trial", function: str | None) -> str | None:
    """Writes the constraints that a function finds in the trial, named '0', '1', ...; returns why it can't, if so.

    It is asked where the job runs, in whatever process: Optuna's samplers would ask it in their own alone.
    """
    if function is None:
        return None
    try:
        for i, value in enumerate(located("constraints_func", function)(frozen(trial))):
            set_constraint(trial, str(i), value)
    except Exception as error:  # the function is the app's own
        return ": ".join([f"hydra.sweeper.constraints_func: {type(error).__name__}", *str(error).splitlines()[:1]])
    return None
