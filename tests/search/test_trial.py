"""A trial in its job."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from reg_sweep.search.trial import StudyTrial, TakenOverError


def test_a_process_that_was_silent_too_long_writes_nothing_more():
    """Another process runs the trial: the first, awake again, must not tell a result of its own."""
    study = optuna.create_study()
    asked = study.ask({"x": FloatDistribution(0, 1)})
    trial = StudyTrial(asked)
    trial.begin(directory="0")
    trial.beat(directory="0")
    trial.report(1.0, 1)
    asked.set_user_attr("job", {"attempt": 2})
    trial.beat(directory="0")
    assert study.trials[0].user_attrs["job"] == {"attempt": 2}
    with pytest.raises(TakenOverError, match="trial 0 is run by another process now"):
        trial.report(2.0, 2)
    with pytest.raises(TakenOverError):
        trial.tell(3.0)
    assert study.trials[0].state == TrialState.RUNNING
