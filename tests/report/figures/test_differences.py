"""The forest plot and the paths over interim analyses: what is drawn, and where."""

import math

import pytest
from matplotlib.backends.backend_agg import RendererAgg

from reg_sweep.report.figures.differences import SHAPES, ArmPath, ForestArm, ForestPanel, forest, margin_is_seen, paths
from reg_sweep.report.figures.theme import Picture, rendered

ARMS = [ForestArm(60.0, (50.0, 70.0), [58.0, 62.0], "better"), ForestArm(20.0, None, [20.0], "open"), None]


def figure(arms=ARMS):
    panel = ForestPanel("Test accuracy, points", arms, [(40.0, "0")], 40.0, (35.0, 45.0), True)
    labels = [f"bn · L1 {n} · L2 0.0001" for n in range(len(arms))]
    return forest("Difference from the baseline, bn", [panel, panel], labels, [("better", "better"), ("open", "open")])


def test_every_verdict_has_a_shape_of_its_own():
    assert len(set(SHAPES.values())) == len(SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 20])
def test_nothing_of_it_is_cut_off_or_covered(n):
    drawn = figure((ARMS * 7)[:n])
    rendered(Picture("it", "x", lambda: drawn, "p"), ["svg"])
    renderer, (legend,) = RendererAgg(1, 1, drawn.dpi), drawn.legends
    for ax in drawn.axes:
        box = ax.get_tightbbox(renderer)
        assert min(box.x0, box.y0) >= -1
        assert max(box.x1 - drawn.bbox.x1, box.y1 - drawn.bbox.y1) <= 1
        assert not legend.get_window_extent(renderer).overlaps(box)


def test_each_arm_has_a_panel_with_its_looks_the_margin_if_there_is_one_and_its_verdict():
    arms = [
        ArmPath("l1 0.001", "worse at 3", [3], [-0.1], [-0.2], [-0.05]),
        ArmPath("l1 0.1", "undecided", [3, 5], [0.0, 0.01], [math.nan, -0.01], [math.nan, 0.03]),
    ]
    figure = paths("A study", "difference, points", arms, [3, 5], 0.001, is_share=True)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == ["l1 0.001\nworse at 3", "l1 0.1\nundecided"]
    assert list(shown[1].lines[-1].get_xdata()) == [3, 5]
    assert len(shown[0].patches) == 1
    unshaded = paths("A study", "loss", arms[:1], [3], None, is_share=False)
    assert not unshaded.axes[0].patches


def test_a_margin_is_seen_where_it_is_wider_than_the_line_of_0():
    arms = [ArmPath("l1", "worse", [3, 5], [0.1, 0.1], [math.nan, 0.0], [math.nan, 0.2])]
    assert [margin_is_seen(arms, margin) for margin in (0.001, 0.01)] == [False, True]


def test_a_first_looks_wide_interval_is_cut_where_it_would_hide_the_last_ones():
    def of(first):
        arm = ArmPath("l1", "undecided", [3, 8], [0.0, 0.01], [-first, -0.1], [first, 0.12])
        figure = paths("A study", "loss", [arm], [3, 8], 0.1, is_share=False)
        return figure.axes[0].get_ylim(), [text.get_text() for text in figure.texts]

    (low, high), texts = of(2.0)
    assert -0.3 < low < -0.1
    assert 0.12 < high < 0.3
    assert "wider intervals are cut" in texts
    (low, high), texts = of(0.3)
    assert low < -0.3 < 0.3 < high
    assert "wider intervals are cut" not in texts
