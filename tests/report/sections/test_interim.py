import itertools

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
