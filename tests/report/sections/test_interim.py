import pytest
from pages import report
from until_trees import OPEN, WORSE, look, scores, write_until


@pytest.mark.slow
def test_decisions_that_the_records_do_not_bear_out_are_said(tmp_path):
    write_until(tmp_path / "runs", scores(), [look(3, worse="worse", open="better")])
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "l1 0.1, at 3 seeds: these records say no difference shown, the study decided better." in page.text
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
