import math

import pytest

from reg_sweep.report.sections.outlook import duration


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
