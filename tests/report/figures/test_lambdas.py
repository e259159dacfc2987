import numpy as np
import pytest
from matplotlib.collections import LineCollection

from reg_sweep.report.figures.lambdas import Panel, train_and_test


def drawn(panels: list[Panel], *, is_accuracy: bool = True):
    """The one axes of small curves, and its lines of train and of test."""
    ax = train_and_test("It", panels, is_accuracy=is_accuracy, unit="%").axes[0]
    train, test = (c.get_segments() for c in ax.collections[-2:] if isinstance(c, LineCollection))
    return ax, train, test


@pytest.mark.parametrize("is_accuracy", [True, False])
def test_a_value_is_as_high_in_its_panel_as_on_the_axis_that_all_share(is_accuracy):
    low, high = np.linspace(0.5, 0.6, 20), np.linspace(0.6, 0.9, 20)
    ax, train, test = drawn([Panel("a", 1, low, low), Panel("b", 2, high, high)], is_accuracy=is_accuracy)
    scale = (lambda v: v) if is_accuracy else np.log
    numbers = {float(t.get_text()) / (100 if is_accuracy else 1): t.get_position()[1] for t in left_of_panels(ax)}
    a, b = sorted(numbers)[:: len(numbers) - 1]
    slope = (numbers[b] - numbers[a]) / (scale(b) - scale(a))
    for lines, curve in ((train, high), (test, high)):
        height = lines[-1][-1][1]  # of the last epoch in the second panel, which stands in the first row
        assert height == pytest.approx(numbers[a] + slope * (scale(curve[-1]) - scale(a)), abs=1e-3)


def left_of_panels(ax):
    return [t for t in ax.texts if t.get_ha() == "right" and t.get_va() == "center"]


def test_every_column_ends_with_its_epochs():
    curve = np.linspace(0.5, 0.9, 20)
    ax, *_ = drawn([Panel("L1", 0, curve, curve)] * 6)
    feet = {t.get_position() for t in ax.texts if t.get_text() == "20"}
    assert sorted(y for _, y in feet) == pytest.approx(2 * [-1.32] + 2 * [-0.04], abs=1e-9)
    assert len({x for x, _ in feet}) == 4


def test_what_the_axis_leaves_out_is_said():
    curve = np.array([0.1, 0.5, 0.8] + [0.97] * 17)
    ax, *_ = drawn([Panel("L1", 0, curve, curve)] * 3)
    assert [t.get_text() for t in ax.texts if "outside" in t.get_text()] == ["epochs 1 to 3 lie outside, in part"]


@pytest.mark.parametrize("is_accuracy", [True, False])
def test_curves_without_a_known_value_leave_empty_panels(is_accuracy):
    nothing = np.full(20, np.nan)
    _, train, test = drawn([Panel("L1", None, nothing, nothing)] * 3, is_accuracy=is_accuracy)
    assert train == test == []
