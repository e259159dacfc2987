"""How a study stands, while it runs."""

import io
import re

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from toy_apps import STUDY, X

from reg_sweep.search.console import Progress


def test_a_terminal_shows_what_runs_and_how_the_study_stands():
    class Terminal:
        text = ""
        closed = False

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    study = optuna.create_study()
    for value in (3.0, 2.0):
        study.tell(study.ask({"x": FloatDistribution(0, 1)}), value)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.ask({"x": FloatDistribution(0.5, 0.5)}).report(4.0, 7)
    terminal = Terminal()
    progress = Progress(10, ["minimize"], set(), terminal)
    progress.update(study.trials)
    last = terminal.text.split("\x1b[K")[-1]
    assert last.startswith("trial 3: x=0.5, 4 at step 7 | 3 of 10, best 2 (trial 1), 1 pruned, 0 failed, about")
    assert last.endswith("left\r")


def test_each_trial_that_has_ended_is_told_once_beside_those_of_an_earlier_start(caplog):
    study = optuna.create_study()
    for value in (3.0, 2.0, 1.0):
        study.tell(study.ask({"x": FloatDistribution(0.5, 0.5)}), value)
    progress = Progress(10, ["minimize"], {2}, io.StringIO())
    caplog.set_level("INFO")
    for _ in range(2):
        progress.update(study.trials)
    study.tell(study.ask({"x": FloatDistribution(0.5, 0.5)}), 1.0)  # as good as an earlier one, which stays the best
    progress.update(study.trials)
    told = [re.sub(", about.*", "", record.getMessage()) for record in caplog.records if "| " in record.message]
    best = "best 1 (trial 2), 0 pruned, 0 failed"
    assert told == [
        f"trial 0: x=0.5: 3 | 2 of 10, {best}",
        f"trial 1: x=0.5: 2 | 3 of 10, {best}",
        f"trial 3: x=0.5: 1 | 4 of 10, {best}",
    ]


@pytest.mark.slow
def test_each_trial_has_one_line_where_there_is_no_terminal(app):
    done = app("sphere", *STUDY, X, "hydra.sweeper.n_trials=3")
    lines = [line for line in done.out.splitlines() if re.search(r"trial \d+: x=", line)]
    assert len(lines) == 3
    assert re.search(r"1 of 3, best .* \(trial 0\), 0 pruned, 0 failed, about \d+ s left", lines[0])
    assert "\x1b" not in done.out + done.err
