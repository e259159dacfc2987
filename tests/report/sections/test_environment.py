from pages import report
from trees import edit_record, write_run


def test_seeds_that_pair_alike_differ_in_nothing_though_an_arm_spans_two_commits(tmp_path):
    for seed, l1, commit in ((1, 0.0, "aaaaaaaaaaaa"), (2, 0.0, "bbbbbbbbbbbb"), (1, 0.1, "aaaaaaaaaaaa")):
        run = write_run(tmp_path / "runs" / f"{l1}-{seed}", seed=seed, l1=l1)
        edit_record(run, versions={"torch": "2.14.1"}, git_commit=commit)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "commit aaaaaaaaaa, bbbbbbbbbb" in page.text
    assert "Different environments" not in page.text
