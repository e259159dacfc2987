"""Three pages of reference, word for word: arms of an exercise, studies, and a folder in which much is amiss.

After a change of words, write them anew and read what changed: `tests/support/snapshots.py` has the command.
"""

import pytest
from pages import report
from reference_trees import write_exercise, write_failures, write_studies
from snapshots import check_snapshot, text_of

TREES = {"exercise": write_exercise, "studies": write_studies, "failures": write_failures}


@pytest.mark.slow
@pytest.mark.parametrize("name", TREES)
def test_a_page_of_reference_says_what_it_said(tmp_path, name, monkeypatch):
    monkeypatch.delenv("REG_SWEEP_DATA", raising=False)  # else the page looks there for the images
    TREES[name](tmp_path / "runs")
    page, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    summary = (tmp_path / "report" / "summary.md").read_text(encoding="utf-8").replace(str(tmp_path), "ROOT")
    said = text_of(tmp_path / "report" / "index.html", tmp_path)
    check_snapshot(name, f"{verdict.replace(str(tmp_path), 'ROOT')}\n\n{said}\n{summary}")
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert page.tags.count("style") == 1
    assert "<script>alert" not in page.source + summary
