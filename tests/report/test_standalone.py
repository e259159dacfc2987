"""A judgement by itself: every form says the same words and numbers, and bold is what was shown, alone."""

import math

import pytest
from matplotlib.figure import Figure

from reg_sweep import judge
from reg_sweep.comparison.sentences import p_text
from reg_sweep.stats.sequential import Design

BASE = {1: 0.951, 2: 0.947, 3: 0.95, 4: 0.953, 5: 0.949}
SCORES = {
    "bn": BASE,
    "a<b>_&": {s: v + 0.01 + 0.0001 * s for s, v in BASE.items()},
    "worse": {s: v - 0.2 + 0.001 * s for s, v in BASE.items()},
    "same": {s: v + 0.0002 * (-1) ** s for s, v in BASE.items()},
    "short": {1: 0.9, 2: math.inf},
}

LEVELS = "95% intervals (90% where shown equivalent)"


@pytest.fixture
def judgement():
    return judge(SCORES, "bn", margin=0.005)


def test_every_form_says_the_verdicts_of_all_arms(judgement):
    words = ["better", "worse", "shown equivalent", "not ranked"]
    assert [f.verdict for f in judgement.arms.values()] == words
    text = str(judgement).splitlines()
    assert text[0] == "against bn, higher is better; error 0.05, split over 4 arms; the margin is 0.005; " + LEVELS
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
        shown = finding.evidence
        assert [row[name] for name in ("difference", "ci_low", "ci_high", "p")] == pytest.approx(
            [shown.mean, shown.ci_low, shown.ci_high, shown.p], nan_ok=True
        )
        assert row["ci_level"] == finding.evidence_level(0.05)
        assert row["n_pairs"] == finding.pairs
    assert list(frame["ci_level"]) == ["95%", "95%", "90%", "95%"]
    assert math.isnan(frame["p"].iloc[3])  # not ranked, so there is no p


@pytest.mark.parametrize("question", ["not_worse", "equivalent"])
def test_the_frame_has_the_p_of_the_question_as_the_text_has(question):
    pytest.importorskip("pandas")
    scores = {arm: SCORES[arm] for arm in ("bn", "same", "worse")}
    judged = judge(scores, "bn", margin=0.005, question=question)
    same, worse = judged.to_frame().to_dict("records")
    assert same["verdict"].startswith("shown")
    assert same["p"] == same[f"p_{'not_worse' if question == 'not_worse' else 'equivalence'}"] <= 0.05
    assert judged.arms["same"].difference.p > 0.05
    assert -0.005 < same["ci_low"] == same["equivalence_ci_low"]
    assert (worse["verdict"], worse["p"]) == ("undecided", 1.0)
    assert str(judged).splitlines()[2].split("  ")[-2].strip() == p_text(same["p"])


def test_the_line_above_says_the_question_the_looks_and_the_level(judgement):
    design = Design((3, 5), 0.05, 0.005, question="not_worse")
    judged = judge({arm: SCORES[arm] for arm in ("bn", "worse")}, "bn", design=design)
    level = judged.arms["worse"].evidence_level(0.05)
    assert str(judged).splitlines()[0] == (
        "against bn, higher is better; asked: not worse; error 0.05, split over 2 interim analyses; the margin is "
        f"0.005; {level} intervals"
    )
    assert level != "95%"
    both = judge({arm: SCORES[arm] for arm in ("bn", "worse", "same")}, "bn", design=Design((3, 5)))
    assert str(both).splitlines()[0].endswith("; error 0.05, split over 2 arms and 2 interim analyses")
    once = judge({arm: SCORES[arm] for arm in ("bn", "worse")}, "bn")
    assert str(once).splitlines()[0] == "against bn, higher is better; error 0.05"


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
