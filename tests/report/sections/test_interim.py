import itertools
import json

import numpy as np
import pytest
from pages import report
from trees import comparisons, write_run
from until_trees import BASE, OPEN, WORSE, look, scores, write_until

from reg_sweep.report.sections.interim import interim_section
from reg_sweep.stats.verdict import Verdict


@pytest.mark.slow
def test_decisions_that_the_records_do_not_bear_out_are_said(tmp_path):
    write_until(tmp_path / "runs", scores(), [look(3, worse="worse", open="better")])
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "l1 0.1, at 3 seeds: these records say undecided, the study decided better." in page.text
    assert (tmp_path / "report" / "until-1-paths.svg").exists()


def test_diverged_and_failed_seeds_are_told(tmp_path):
    values = scores()
    values[WORSE][0], values[OPEN][1] = float("inf"), None
    write_until(tmp_path / "runs", values, [look(3, worse="undecided", open="undecided")], n=3)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "1 of 3 diverged" in page.text
    assert "1 of 3 failed" in page.text


def test_a_study_before_its_first_look_has_decided_nothing(tmp_path):
    write_until(tmp_path / "runs", scores(), [], n=2)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "No interim analysis yet: nothing is decided." in page.text


def test_the_interim_analyses_say_what_the_table_says_where_tables_share_one_error(tmp_path):
    g = np.random.default_rng(4)
    base = 0.9 + 0.01 * g.normal(size=8)
    values = {BASE: base.tolist(), WORSE: (base - 0.02 + 0.01 * g.normal(size=8)).tolist()}
    values[OPEN] = (base + 0.01 * g.normal(size=8)).tolist()
    write_until(tmp_path / "runs" / "study", values, [look(n, worse="undecided", open="undecided") for n in (3, 5, 8)])
    for i, (l1, seed) in enumerate(itertools.product((0.0, 0.5), (1, 2, 3))):
        write_run(tmp_path / "runs" / "grid" / str(i), l1=l1, seed=seed, n_epochs=4, accuracy=0.9 + 0.001 * seed)
    (alone,) = (c for c in comparisons(tmp_path / "runs") if c.design is not None)
    (found,) = (c for c in comparisons(tmp_path / "runs", error="all") if c.design is not None)
    arms = [arm.verdict for arm in found.arms if arm is not found.baseline]
    assert Verdict.WORSE in [arm.verdict for arm in alone.arms]
    assert Verdict.WORSE not in arms
    section = interim_section(found.study)
    assert sorted(row.verdict for row in section.rows) == sorted(arms)
    assert {row.tone for row in section.rows} == {""}
    assert "one error of 5% over all arms and looks (this page judges at 2.5%)" in section.design
    assert "worse" not in section.summary.replace("not ranked", "")
    assert section.disagreements  # the record says undecided; at the design's own error the arm is worse


def asked_not_worse(root, values, looks):
    """A study of 'not worse', whose arms are in order of preference, with a margin of 0.02."""
    write_until(root, values, looks, margin=0.02)
    record = json.loads((root / "study.json").read_text())
    record["design"] |= {"question": "not_worse", "in_order": True}
    (root / "study.json").write_text(json.dumps(record))
    (found,) = comparisons(root)
    return found, interim_section(found.study)


@pytest.fixture
def in_order(tmp_path):
    """A study that gave up one arm after 3 seeds and showed another not worse at 8."""
    g = np.random.default_rng(3)
    base = 0.9 + 0.01 * g.normal(size=8)
    values = {BASE: base.tolist(), WORSE: (base - 0.03 + 0.01 * g.normal(size=8)).tolist()}
    values[OPEN] = (base + 0.012 * g.normal(size=8)).tolist()
    last = [look(5, open="undecided"), look(8, open="shown not worse")]
    return asked_not_worse(tmp_path, values, [look(3, worse="undecided", open="undecided"), *last])


def test_where_not_worse_was_asked_the_picture_draws_and_tells_the_interval_of_the_table(in_order):
    found, section = in_order
    row = next(row for row in section.rows if row.verdict == Verdict.NOT_WORSE)
    (finding,) = (arm.finding for arm in found.arms if arm.verdict is Verdict.NOT_WORSE)
    level = finding.equivalence_level(found.judgement.alpha)
    assert level != "95%"
    assert row.interval.endswith(f" ({level})")
    (picture,) = section.pictures
    assert f"{row.label}: shown not worse at 8, {row.interval}" in picture.alt
    assert f"{level} intervals of all arms and looks" in picture.caption
    drawn = next(panel for panel in picture.draw.args[2] if panel.label == row.label)
    assert drawn.low[-1] == finding.equivalence.ci_low > -found.margin
    assert drawn.low == [point.equivalence.ci_low for point in finding.path]


def test_where_a_difference_was_asked_the_picture_draws_its_interval_whatever_was_shown(tmp_path):
    g = np.random.default_rng(3)
    base = 0.9 + 0.01 * g.normal(size=8)
    values = {BASE: base.tolist(), WORSE: (base - 0.3 + 0.002 * g.normal(size=8)).tolist()}
    values[OPEN] = (base + 0.002 * g.normal(size=8)).tolist()
    looks = [look(3, worse="worse", open="undecided"), look(5, open="shown equivalent")]
    write_until(tmp_path, values, looks, margin=0.02)
    (found,) = comparisons(tmp_path)
    (finding,) = (arm.finding for arm in found.arms if arm.verdict is Verdict.EQUIVALENT)
    (picture,) = interim_section(found.study).pictures
    assert picture.draw.args[2][1].low[-1] == finding.difference.ci_low
    assert picture.caption.startswith("Simultaneous intervals of all arms and looks; an arm's path ends where it was ")
    assert "%" not in picture.alt


def test_an_arm_that_the_study_gave_up_is_told_in_row_summary_and_picture(in_order):
    _, section = in_order
    assert [row.verdict for row in section.rows] == ["undecided, given up", "shown not worse"]
    assert "1 of 2 arms decided: 1 shown not worse. Undecided, given up: l1 0.001." in section.summary
    assert section.pictures[0].draw.args[2][0].verdict == "undecided, given up"
    assert "an arm's path ends where it was decided or given up." in section.pictures[0].caption


def test_an_undecided_arm_of_the_last_look_is_not_given_up(tmp_path):
    write_until(tmp_path, scores(), [look(3, worse="worse", open="undecided"), look(5, open="undecided")])
    (found,) = comparisons(tmp_path)
    assert "given up" not in interim_section(found.study).summary
