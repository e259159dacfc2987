import pytest
from matplotlib.backends.backend_agg import RendererAgg

from reg_sweep.report.figures.forest import SHAPES, ForestArm, ForestPanel, forest
from reg_sweep.report.figures.theme import Picture, rendered

ARMS = [ForestArm(60.0, (50.0, 70.0), [58.0, 62.0], "better"), ForestArm(20.0, None, [20.0], "open"), None]


def figure(arms=ARMS):
    panel = ForestPanel("Test accuracy, points", arms, [(40.0, "0")], 40.0, (35.0, 45.0), True)
    labels = [f"bn · L1 {n} · L2 0.0001" for n in range(len(arms))]
    return forest("Difference to the baseline, bn", [panel, panel], labels, [("better", "better"), ("open", "open")])


def test_every_verdict_has_a_shape_of_its_own():
    assert len(set(SHAPES.values())) == len(SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 3, 20])
def test_nothing_of_it_is_cut_off_or_covered(n):
    drawn = figure((ARMS * 7)[:n])
    rendered(Picture("it", "x", lambda: drawn, "p"))
    renderer, (legend,) = RendererAgg(1, 1, drawn.dpi), drawn.legends
    for ax in drawn.axes:
        box = ax.get_tightbbox(renderer)
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= drawn.bbox.x1 + 1
        assert box.y1 <= drawn.bbox.y1 + 1
        assert not legend.get_window_extent(renderer).overlaps(box)
