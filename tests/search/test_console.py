"""How a study stands, while it runs."""

import io
import re

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from toy_apps import STUDY, X

from reg_sweep.report.sections.trials import objective
from reg_sweep.runs.ranking import Point
from reg_sweep.search.console import Progress, params_text, points_texts, table_text


def test_a_terminal_shows_what_runs_and_how_the_study_stands():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    study = optuna.create_study()
    for value in (3.0, 2.0):
        study.tell(study.ask({"x": FloatDistribution(0, 1)}), value)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.ask({"x": FloatDistribution(0.5, 0.5)}).report(4.0, 7)
    terminal = Terminal()
    progress = Progress(10, ["minimize"], set(), terminal)
    progress.update(study.trials)
    last = terminal.getvalue().split("\x1b[K")[-1]
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


def test_lines_and_tables_name_the_objective_in_the_units_of_the_page(caplog):
    study = optuna.create_study(directions=["maximize", "minimize"])
    trial = study.ask({"l1": FloatDistribution(1.00158e-7, 1.00158e-7)})
    study.tell(trial, [0.9631, 0.116113])
    caplog.set_level("INFO")
    names = ["val_accuracy", "val_loss"]
    Progress(2, ["maximize", "minimize"], set(), io.StringIO(), names).update(study.trials)
    assert caplog.records[-1].message.startswith("trial 0: l1=1e-07: val accuracy 96.31%, val loss 0.116113 | 1 of 2")
    assert table_text([Point((0,), trial.params, (0.9631, 0.116113), 1, True)], names).splitlines() == [
        "trial  val accuracy, val loss  l1",
        "0      96.31%, 0.116113        1e-07",
    ]
    assert objective("val_accuracy").text(0.9631) == "96.31"


@pytest.mark.parametrize(
    ("value", "text"), [(1.00158e-7, "1e-07"), (-2.34567, "-2.35"), (1234.5, "1234"), (3, "3"), ("bn", "bn")]
)
def test_a_parameter_reads_as_on_the_page(value, text):
    assert params_text({"x": value}) == f"x={text}"


def test_two_points_never_read_alike():
    assert points_texts([{"l1": 1.0001e-7}, {"l1": 1.0002e-7}]) == ["l1=1.0001e-07", "l1=1.0002e-07"]


@pytest.mark.slow
def test_each_trial_has_one_line_where_there_is_no_terminal(app):
    done = app("sphere", *STUDY, X, "hydra.sweeper.n_trials=3")
    lines = [line for line in done.out.splitlines() if re.search(r"trial \d+: x=", line)]
    assert len(lines) == 3
    assert re.search(r"1 of 3, best .* \(trial 0\), 0 pruned, 0 failed, about \d+ s left", lines[0])
    assert "\x1b" not in done.out + done.err
