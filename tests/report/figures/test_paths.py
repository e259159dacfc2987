import math

from reg_sweep.report.figures.paths import ArmPath, paths


def test_each_arm_has_a_panel_with_its_looks_the_margin_and_its_verdict():
    arms = [
        ArmPath("l1 0.001", "worse at 3", [3], [-0.1], [-0.2], [-0.05]),
        ArmPath("l1 0.1", "undecided", [3, 5], [0.0, 0.01], [math.nan, -0.01], [math.nan, 0.03]),
    ]
    figure = paths("A study", "difference, points", arms, [3, 5], 0.001, is_share=True)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == ["l1 0.001\nworse at 3", "l1 0.1\nundecided"]
    assert list(shown[1].lines[-1].get_xdata()) == [3, 5]
    assert len(shown[0].patches) == 1


def test_without_a_margin_nothing_is_shaded():
    figure = paths("A study", "loss", [ArmPath("l1", "worse", [3], [0.1], [0.0], [0.2])], [3], None, is_share=False)
    assert not figure.axes[0].patches
