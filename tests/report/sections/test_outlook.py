import math

import pytest
from trees import comparisons, write_arms

from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.sections.outlook import duration, outlook_section


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (math.nan, ""),
        (0.001, "4 s"),
        (0.5, "30 min"),
        (1.75, "1.8 h"),
        (30, "30 h"),
        (100, "4 days"),
        (3000, "125 days"),
    ],
)
def test_a_time_is_told_in_its_own_unit(hours, text):
    assert duration(hours) == text


def test_no_difference_larger_than_all_that_there_are_is_told(tmp_path):
    arms = {("bn", 0, 0): [0.5, 0.9, 0.1], ("bn", 0.1, 0): [0.9, 0.1, 0.6], ("bn", 0.2, 0): [0.505, 0.91, 0.1]}
    write_arms(tmp_path, arms, predictions=False)
    (comparison,) = comparisons(tmp_path, variance="plain")
    section = outlook_section(comparison, Canvas(1, comparison), [])
    assert {row.label: row.smallest for row in section.rows}["bn · L1 0.1"] == "none possible"
    (unsaid,) = [p.text for p in conclusions(comparison).paragraphs if p.heading == "What can't be said yet"]
    assert " points or more, depending on the arm, would be shown four times in five; for 1 arm even the" in unsaid


@pytest.mark.parametrize(("question", "shown"), [("not_worse", "not worse"), ("equivalent", "equivalent")])
def test_the_outlook_answers_the_question_that_was_asked(tmp_path, question, shown):
    arms = {("bn", 0, 0): [0.90, 0.91, 0.92, 0.93], ("bn", 0.1, 0): [0.891, 0.911, 0.912, 0.934]}
    write_arms(tmp_path, arms)
    (comparison,) = comparisons(tmp_path, question=question, margin=0.008, variance="plain")
    section = outlook_section(comparison, Canvas(1, comparison), [])
    (row,) = section.rows
    assert section.asks_margin
    assert row.smallest.endswith("%")
    assert f"exactly as good as the baseline is shown {shown} " in section.says
    assert f"with a probability of {row.smallest}." in section.says
    (unsaid,) = [p.text for p in conclusions(comparison).paragraphs if p.heading == "What can't be said yet"]
    assert f"with a probability of {row.smallest}." in unsaid
    assert "true difference of" not in unsaid
    (again,) = section.purchases
    (command,) = again.commands
    assert f"hydra.sweeper.design.question={question}" in command
    assert "hydra.sweeper.design.variance=plain" in command


def test_an_arm_that_is_worse_by_more_than_the_margin_is_never_promised_to_be_shown_not_worse(tmp_path):
    arms = {("bn", 0, 0): [0.90, 0.91, 0.92, 0.93], ("bn", 0.1, 0): [0.80, 0.82, 0.82, 0.84]}
    write_arms(tmp_path, arms)
    (comparison,) = comparisons(tmp_path, question="not_worse", margin=0.008)
    section = outlook_section(comparison, Canvas(1, comparison), [])
    assert [row.settled for row in section.rows] == ["more than 1,000"]
    assert section.purchases == []
