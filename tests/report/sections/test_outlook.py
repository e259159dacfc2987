import math

import pytest
from pages import BN, L1, report
from trees import write_arms

from reg_sweep.report.sections.outlook import duration


def test_the_verdict_says_what_it_could_have_seen_and_what_would_settle_it(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "With 3 seeds this comparison shows differences of " in page.text
    assert " with 80% power. If the difference is as large as it looks, about " in page.text
    assert "What trains the missing seeds" in page.text
    assert "won 3 of 3" in page.text


def test_one_seed_promises_nothing(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.90], L1: [0.93]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "80% power. " not in page.text


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
