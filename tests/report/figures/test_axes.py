import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.report.figures import axes
from reg_sweep.report.figures import theme as pictures
from reg_sweep.runs.ranking import lambda_text


def axis(low: float, high: float):
    _, ax = pictures.new_figure()
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    return ax


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6))
def test_a_log_axis_has_at_least_two_labelled_ticks_however_narrow(low, span):
    ax = axis(low, low * span)
    axes.plain_log_ticks(ax)
    at = ax.get_yticks()
    assert 2 <= len(at) <= 9
    assert all(low <= tick <= low * span for tick in at)
    texts = ax.yaxis.get_major_formatter().format_ticks(at)
    assert len(set(texts)) == len(at)
    assert len(ax.get_yticks(minor=True)) == 0


@pytest.mark.parametrize("exponent", range(-9, 3))
def test_axes_write_numbers_as_labels_do(exponent):
    for digit in (1, 1.5, 2, 3, 5, 7):
        number = digit * 10.0**exponent
        assert axes.PLAIN(number) == lambda_text(number)


@given(st.lists(st.floats(1e-9, 10), min_size=1, unique=True))
def test_places_on_a_log_axis_keep_the_order_and_zero_stands_apart(strengths):
    ascending = sorted(strengths)
    zero, *places = axes.log_places([0.0, *ascending])
    assert zero < places[0]
    assert np.allclose(places, np.log10(ascending))


@pytest.mark.parametrize(
    ("curves", "text"),
    [
        ([[9.0, 1.0, 1.1], [8.0, 1.0, 1.2]], "epoch 1 lies outside"),
        ([[9.0, 1.0, 1.1], [1.5, 1.0, 1.2]], "epoch 1 lies outside, in part"),
        ([[9.0, 4.0, 1.1], [1.5, 1.0, 1.2]], "epochs 1 to 2 lie outside, in part"),
        ([[1.0, 1.0, 1.1]], ""),
    ],
)
def test_an_axis_says_which_epochs_it_leaves_out_and_whether_wholly(curves, text):
    assert axes.outside_text([np.array(curve) for curve in curves], (0.5, 2.0)) == text
