"""The page's account of its error: tables that share runs are not independent."""

import json

import pytest
from pages import report
from trees import write_run
from until_trees import ALL_LOOKS, scores, write_until


def test_runs_in_two_judged_tables_are_told_and_tables_without_a_common_run_have_no_such_note(tmp_path):
    other = {l1 + 0.01: values for l1, values in scores().items()}
    for root, second, looks in ((tmp_path / "same", scores(), ALL_LOOKS), (tmp_path / "other", other, [])):
        write_until(root / "runs" / "one", scores(), ALL_LOOKS)
        write_until(root / "runs" / "two", second, looks)
    same, apart = (report(tmp_path / name / "runs", out=tmp_path / name / "report")[0] for name in ("same", "other"))
    told = "are in more than one of these tables, with the same settings and seed: the tables' findings are not indep"
    assert f"24 runs of bn · L1 0.1, bn and bn · L1 0.001 {told}" in same.text
    assert "with the same settings and seed" not in apart.text


def judged(tmp_path, *questions):
    """The pages of three seeds of two arms, judged by one question after another."""
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs" / f"bn_{seed}", seed=seed, accuracy=0.9 + seed / 1000)
        write_run(tmp_path / "runs" / f"l1_{seed}", l1=0.001, seed=seed, accuracy=0.91 + seed / 900)
    return [report(tmp_path / "runs", out=tmp_path / "report", **how)[0].text for how in questions]


@pytest.mark.parametrize(
    ("asked", "before"),
    [
        ({"metric": "test_loss", "margin": 0.001}, "test_accuracy"),
        ({"epoch": "best_val"}, "epoch last"),
        ({"baseline": "bn · L1 0.001"}, "baseline bn"),
        *(
            (asked, "better, margin 0.001, moderated variances, pairing seeds")
            for asked in ({"margin": 0.5}, {"variance": "plain"}, {"question": "not_worse"}, {"pairing": "none"})
        ),
    ],
)
def test_a_second_question_of_the_same_runs_is_told_with_the_error_of_both(tmp_path, asked, before):
    _, second = judged(tmp_path, {}, asked)
    assert f"These runs were judged before by another question: {before} (" in second
    assert "together up to 10%, and a question that was chosen after a verdict is not a valid test: ask it of" in second


def test_the_same_question_again_is_no_second_one_and_a_second_one_stays_told(tmp_path):
    told = ["judged before" in page for page in judged(tmp_path, {}, {}, {"margin": 0.5}, {"margin": 0.5})]
    assert told == [False, False, True, True]


def test_tables_with_unlike_errors_are_told_with_their_sum(tmp_path):
    for name, alpha in (("one", 0.05), ("two", 0.025)):
        path = write_until(tmp_path / "runs" / name, scores(), ALL_LOOKS).path / "study.json"
        facts = json.loads(path.read_text())
        facts["design"]["alpha"] = alpha
        path.write_text(json.dumps(facts))
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    told = "each with its own error of 2.5 to 5%. Up to 7.5% of such pages show any false finding. With --error all"
    assert f"2 tables are judged here, {told}" in page.text
