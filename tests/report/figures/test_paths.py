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
