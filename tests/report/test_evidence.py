"""Wherever a verdict stands, the words, the interval and the p beside it are those that it rests on."""

import re

import numpy as np
import pytest
from pages import report, rows
from trees import write_run

N_SEEDS = 6


def write(root, arms, **statuses):
    """Runs by l1, a score for each seed; a status by 'l1_seed' where it is not complete."""
    for l1, scores in arms.items():
        for seed, accuracy in enumerate(scores, 1):
            status = statuses.get(f"{l1}_{seed}".replace(".", ""), "complete")
            write_run(root / f"{l1}-{seed}", l1=l1, seed=seed, accuracy=float(accuracy), status=status)


def scores(shift, sd, seed=0, n=N_SEEDS):
    return 0.9 + shift + sd * np.random.default_rng(seed).normal(size=n)


@pytest.mark.slow
def test_not_worse_has_its_own_interval_and_p(tmp_path):
    write(tmp_path / "runs", {0.0: scores(0, 0.001), 0.1: scores(0.0005, 0.001, 1)})
    asked = {"question": "not_worse", "margin": 0.01, "latex": True}
    page, verdict = report(tmp_path / "runs", out=tmp_path / "out", is_drawn=True, **asked)
    (level,) = set(re.findall(r"(\d+)% interval \S+ to \S+, not worse by a margin of ±1 points, p < 0.001", verdict))
    tex = (tmp_path / "out" / "differences.tex").read_text()
    assert f"shown not worse ({level}\\% " in tex
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert re.search(rf"shown not worse \({level}% \S+ to \S+, p (&lt;|<) 0.001\)", summary)
    (row,) = (r for r in rows(tmp_path / "out" / "summary.csv") if r["verdict"] == "shown not worse")
    assert float(row["p_not_worse"]) < 0.001
    drawn = (tmp_path / "out" / "differences.svg").read_text()
    for form in (page.text, drawn):
        assert "shown not worse" in form
        assert "shown equivalent" not in form


@pytest.mark.slow
def test_equivalence_has_its_own_interval_and_p_in_latex_and_in_the_conclusions(tmp_path):
    write(tmp_path / "runs", {0.0: scores(0, 0.001), 0.1: scores(0.0002, 0.001, 1)})
    page, verdict = report(tmp_path / "runs", out=tmp_path / "out", margin=0.01, latex=True)
    assert "shown equivalent" in verdict
    (ends,) = re.findall(r"interval (\S+ to \S+) within ±1 points", verdict)
    tex = (tmp_path / "out" / "differences.tex").read_text()
    assert re.search(r"shown equivalent \(\d+\\% ", tex)
    low, high = ends.split(" to ")
    assert f"between {low} and {high} points (mean" in page.text


def test_better_by_fewer_divergences_has_the_p_of_its_test(tmp_path):
    lost = {f"00_{seed}": "diverged" for seed in range(1, 11)}
    write(tmp_path / "runs", {0.0: scores(0, 0.01, n=12), 0.1: scores(0, 0.01, 1, n=12)}, **lost)
    report(tmp_path / "runs", out=tmp_path / "out", baseline="bn", latex=True)
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert re.search(r"better by fewer divergences \(0 of 12 diverged, sign test p 0\.00\d\)", summary)
    tex = (tmp_path / "out" / "differences.tex").read_text()
    assert re.search(r"better by fewer divergences\} \(sign test|better by fewer divergences \(sign test", tex)


@pytest.mark.slow
def test_what_is_not_paired_is_nowhere_called_paired(tmp_path):
    write(tmp_path / "runs", {0.0: scores(0, 0.001), 0.1: scores(0.0005, 0.001, 1)})
    page, verdict = report(tmp_path / "runs", out=tmp_path / "out", pairing="none")
    said = page.text.split("In other words")[0] + verdict
    claims = [m.group() for m in re.finditer(r"(?:\S+ )?paired (?:by|with)[^.;]*", said)]
    assert [claim for claim in claims if not claim.startswith("not ")] == []
    assert "not paired" in said


def test_an_arm_that_could_not_be_compared_is_not_ranked_in_every_file(tmp_path):
    write(tmp_path / "runs", {0.0: scores(0, 0.01)})
    for seed in (11, 12):
        write_run(tmp_path / "runs" / f"other-{seed}", l1=0.1, seed=seed, accuracy=0.95)
    report(tmp_path / "runs", out=tmp_path / "out", baseline="bn")
    (row,) = (r for r in rows(tmp_path / "out" / "summary.csv") if r["is_baseline"] != "True")
    assert row["verdict"] == "not ranked"
    (line,) = (x for x in (tmp_path / "out" / "summary.md").read_text().splitlines() if x.startswith("| bn · L1 0.1"))
    assert "not ranked" in line
