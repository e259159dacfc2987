import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.report.scale import scale

VALUES = st.lists(st.floats(-1e3, 1e3, allow_nan=False), min_size=1, max_size=30)


@given(VALUES, st.floats(-10, 10))
def test_nothing_is_clipped_order_is_kept_and_ticks_are_few(values, centre):
    axis = scale([*values, math.nan], centre)
    for places in ([axis.place(v) for v in sorted(values)], [axis.place(t) for t in axis.ticks()]):
        assert all(0 <= p <= 100 for p in places)
        assert places == sorted(places)
    assert len(axis.ticks()) <= 8


def test_a_far_value_stretches_the_axis_and_leaves_the_others_room():
    axis = scale([-0.8, -0.002, -0.001, 0.0, 0.001, 0.002], 0.0)
    assert axis.is_stretched
    assert axis.place(0.002) - axis.place(-0.002) > 20
    assert not scale([-0.003, -0.001, 0.001, 0.002], 0.0).is_stretched


def test_even_ticks_are_round_and_equal_values_have_an_axis():
    assert scale([-0.0021, 0.0043], 0.0).ticks() == pytest.approx([-0.002, 0.0, 0.002, 0.004])
    assert scale([0.9, 0.9], 0.9).place(0.9) == 50


@given(st.floats(-1, 0), st.floats(0.01, 1))
def test_an_even_axis_has_at_least_two_ticks(low, high):
    assert 2 <= len(scale([low, high], 0.0).ticks()) <= 6
