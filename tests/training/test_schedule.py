"""The learning rate of each step, by hand and by property."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reg_sweep.config import ScheduleConfig
from reg_sweep.training.schedule import lr_factor


def factors(schedule: ScheduleConfig, n_epochs: int, n_batches: int) -> list[float]:
    n = n_epochs * n_batches
    return [lr_factor(schedule, step, step // n_batches, n) for step in range(n)]


def test_schedules_by_hand():
    assert factors(ScheduleConfig("constant"), 2, 2) == [1, 1, 1, 1]
    assert factors(ScheduleConfig("step", step_size=2, gamma=0.5), 5, 1) == [1, 1, 0.5, 0.5, 0.25]
    assert factors(ScheduleConfig("step"), 7, 1) == pytest.approx([1] * 6 + [0.1])
    assert factors(ScheduleConfig("cosine"), 4, 1) == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert factors(ScheduleConfig("onecycle", warmup=0.5), 3, 2) == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1, 2 / 3, 1 / 3]
    )
    assert factors(ScheduleConfig("onecycle", warmup=0.0), 2, 2) == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


@given(n_epochs=st.integers(1, 30), n_batches=st.integers(1, 30), warmup=st.floats(0, 0.999))
@example(n_epochs=1, n_batches=1, warmup=0.5)
@example(n_epochs=10, n_batches=1, warmup=0.999)
def test_onecycle_rises_to_one_and_falls_and_is_never_zero(n_epochs, n_batches, warmup):
    shares = factors(ScheduleConfig("onecycle", warmup=warmup), n_epochs, n_batches)
    assert min(shares) > 0
    assert max(shares) == 1
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert abs(peak - warmup * len(shares)) <= 1
