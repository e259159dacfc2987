"""A judgement by itself: every form says the same words and numbers, and bold is what was shown, alone."""

import math

import pytest
from matplotlib.figure import Figure

from reg_sweep import judge

BASE = {1: 0.951, 2: 0.947, 3: 0.95, 4: 0.953, 5: 0.949}
SCORES = {
    "bn": BASE,
    "a<b>_&": {s: v + 0.01 + 0.0001 * s for s, v in BASE.items()},
    "worse": {s: v - 0.2 + 0.001 * s for s, v in BASE.items()},
    "same": {s: v + 0.0002 * (-1) ** s for s, v in BASE.items()},
    "short": {1: 0.9, 2: math.inf},
}


@pytest.fixture
def judgement():
    return judge(SCORES, "bn", margin=0.005)


def test_every_form_says_the_verdicts_of_all_arms(judgement):
    words = ["better", "worse", "shown equivalent", "not ranked"]
    assert [f.verdict for f in judgement.arms.values()] == words
    text = str(judgement).splitlines()
    assert text[0] == "against bn, higher is better; error 0.05, split over 4 arms; the margin is 0.005"
    assert [line.endswith(word) for line, word in zip(text[2:], words, strict=True)] == [True] * 4
    assert "1, 1 diverged, 3 missing" in text[5]
    latex, html = judgement.to_latex(), judgement._repr_html_()
    for form, bold in ((latex, r"\textbf{{{}}}"), (html, "<b>{}</b>")):
        assert [bold.format(word) in form for word in words] == [True, True, False, False]
        assert all(word in form for word in words)
    assert r"a$<$b$>$\_\& & 5" in latex
    assert "a&lt;b&gt;_&amp;" in html


def test_the_frame_has_a_row_for_each_arm_with_the_numbers_of_its_finding(judgement):
    pytest.importorskip("pandas")
    frame = judgement.to_frame()
    assert list(frame["arm"]) == list(SCORES)[1:]
    for (_, row), finding in zip(frame.iterrows(), judgement.arms.values(), strict=True):
        assert row["verdict"] == finding.verdict
        shown = finding.difference
        assert (row["difference"], row["ci_low"]) == pytest.approx((shown.mean, shown.ci_low), nan_ok=True)
        assert row["n_pairs"] == finding.pairs


def test_the_p_belongs_to_the_verdict_and_is_left_out_where_seeds_are_lost(judgement):
    same, short = list(judgement.arms.values())[2:]
    lines = str(judgement).splitlines()
    assert same.difference.p > 0.05 > same.equivalence.p
    assert "< 0.001" in lines[4]
    assert lines[5].split("  ")[-2].strip() in ("–", "")
    assert short.difference.mean == pytest.approx(-0.051)


def test_the_forest_has_a_row_for_each_arm_with_pairs_and_a_dot_for_each_seed(judgement):
    figure = judgement.plot()
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == list(SCORES)[1:]
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert [len(line.get_xdata()) for line in dots] == [5, 5, 5, 1]


def test_nothing_in_common_is_nothing_to_plot():
    with pytest.raises(ValueError, match=r"^no arm has a seed in common with a: there is nothing to plot$"):
        judge({"a": {1: 0.5, 2: 0.6}, "b": {3: 0.5}}, "a").plot()
