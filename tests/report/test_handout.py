"""The folder to hand in: every figure of an exercise and its text, in place of an earlier handout and nothing else."""

import shutil

import pytest
from exercise_trees import MNIST
from exercise_trees import write_exercise as write_curves
from pages import BN, L1, Page, balanced, blank_pictures
from PIL import Image
from trees import write_arms, write_run

from reg_sweep.comparison.compare import make_comparisons
from reg_sweep.comparison.results import result
from reg_sweep.report import ReportError, main, write_report
from reg_sweep.report.handout import write_handout
from reg_sweep.report.progress import Progress
from reg_sweep.runs.reading import read_runs

ARMS_A = [("bn", 0, 0), ("bn", 1e-5, 0), ("bn", 0, 5e-4), ("bn", 1e-5, 5e-4), ("gbn", 0, 0), ("gbn", 1e-5, 5e-4)]
EXERCISE_A = {arm: [0.9 + 0.01 * n, 0.91 + 0.013 * n, 0.92] for n, arm in enumerate(ARMS_A)}


def hand_out(runs, out, **options):
    with blank_pictures():
        return write_report([runs], runs / "report", handout=out, progress=False, **options)


def files(out):
    return {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")}


def figures(out):
    return {name.removeprefix("figures/").removesuffix(".png") for name in files(out) if name.endswith(".png")}


@pytest.fixture
def arms(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92]})
    return tmp_path / "runs"


def test_exercise_a_has_each_of_its_figures_and_its_text_says_what_they_show(tmp_path):
    write_arms(tmp_path / "runs", EXERCISE_A)
    report = hand_out(tmp_path / "runs", tmp_path / "out")
    assert report.handout == tmp_path / "out" / "text.md"
    found = figures(tmp_path / "out")
    assert found >= {"loss-curves", "accuracy-curves", "cost-functions", "why-l1-zeroes", "why-l2-shrinks"}
    assert found >= {"differences", "architecture", "curves-l1-l2-gbn", "curves-bn"}
    assert found >= {"validation-accuracy-curves", "validation-loss-curves"}
    assert {f"figures/{name}.pdf" for name in found} <= files(tmp_path / "out")
    text, latex = ((tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("text.md", "text.tex"))
    balanced(latex)
    assert text.startswith("# Exercise A: L1, L2 and ghost batch norm on ")
    for heading in ("Question", "Method", "Results", "Conclusions", "What can't be said, and why"):
        assert f"\n## {heading}\n" in text
        assert rf"\section*{{{heading}}}" in latex
    assert "no figures of the weights: " in text
    assert "no misclassified images: " in text
    assert "notebook" not in text  # its form of L1 is exercise B's
    assert "L1 acts by its subgradient, which leaves small weights near 0" in text
    assert "Ghost batch norm (gbn) normalizes each " in text
    for name in found:
        assert f"(figures/{name}.png)" in text or name.startswith("misclassified")
        assert f"figures/{name}.pdf" in latex or name.startswith("misclassified")


def test_page_and_handout_conclude_in_the_same_words(tmp_path):
    write_curves(tmp_path / "runs", {}, data=MNIST)
    report = hand_out(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "text.md").read_text(encoding="utf-8")
    said = next(line for line in text.splitlines() if line.startswith("**What the numbers show.**"))
    assert said.removeprefix("**What the numbers show.** ") in Page(report.page).text
    assert text.startswith("# Exercise B: L1 and L2 on mnist")
    assert "These penalties are those of exercise B's notebook: its L1 takes the mean" in text
    assert "Ghost batch norm" not in text
    found = figures(tmp_path / "out")
    assert {"curves-none", "curves-l1-0.001", "curves-l2-0.0001", "curves-l1-0.001-l2-0.0005"} <= found


def test_a_handout_replaces_its_own_files_whole_and_keeps_all_others(arms, tmp_path):
    out = tmp_path / "out"
    hand_out(arms, out)
    (out / "notes.txt").write_text("mine")
    (out / "figures" / "photo.png").write_text("mine")
    for run in arms.iterdir():
        if run.name != "report" and '"l1": 0.001' in (run / "run.json").read_text():
            shutil.rmtree(run)
    hand_out(arms, out)
    assert (out / "notes.txt").read_text() == (out / "figures" / "photo.png").read_text() == "mine"
    assert not any("l1" in name for name in figures(out) if name.startswith("curves"))
    assert "differences.pdf" not in str(files(out))


@pytest.mark.parametrize(
    ("name", "words"), [("essay.md", ["other files"]), ("text.md", []), (".reg_sweep-files.json", [])]
)
def test_a_folder_that_is_not_a_handouts_is_refused_and_kept(arms, tmp_path, capsys, name, words):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("{}")
    assert main([str(arms), "--handout", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in ("--handout", str(out), "new or empty folder", *words))
    assert {p.name: p.read_text() for p in out.iterdir()} == {name: "{}"}
    assert not (arms / "report").exists()


@blank_pictures()
def test_a_text_that_its_reader_has_changed_is_kept_and_the_command_prints_where_a_new_one_is(arms, tmp_path, capsys):
    out = tmp_path / "out"
    hand_out(arms, out)
    (out / "text.md").write_text("my own words")
    with pytest.raises(ReportError, match=r"a file changed since the handout was made, .*text\.md: rename it or"):
        hand_out(arms, out)
    assert (out / "text.md").read_text() == "my own words"
    (out / "text.md").rename(out / "mine.md")
    assert main([str(arms), "--handout", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out / "text.md")
    assert (out / "mine.md").read_text() == "my own words"


@pytest.mark.parametrize("out", ["", "runs/report", "file", "file/below"])
def test_a_place_that_can_be_no_folder_of_its_own_is_one_line(arms, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    assert main(["runs", "--handout", out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reg_sweep.report: --handout must name ")
    assert (tmp_path / "file").read_text() == "kept"


def test_trees_of_any_kind_have_a_handout_that_says_what_is_missing(tmp_path):
    write_run(tmp_path / "failed" / "0", status="failed", predictions=False)
    hand_out(tmp_path / "failed", tmp_path / "out1")
    text = (tmp_path / "out1" / "text.md").read_text()
    assert "Runs that did not complete: 1 failed" in text
    assert not figures(tmp_path / "out1")
    write_run(tmp_path / "two" / "0", l1=0.1)
    write_run(tmp_path / "two" / "1", data={"fingerprint": "other", "name": "letters"})
    hand_out(tmp_path / "two", tmp_path / "out2")
    text = (tmp_path / "out2" / "text.md").read_text()
    assert text.count("\n### Question\n") == 2
    assert any(name.startswith("letters-") for name in figures(tmp_path / "out2"))
    balanced((tmp_path / "out2" / "text.tex").read_text())


@pytest.mark.slow
def test_figures_are_sized_for_a_page_at_300_dots_an_inch(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.9, 0.91], L1: [0.92, 0.9]})
    results = [result(run) for run in read_runs(tmp_path / "runs")]
    write_handout(tmp_path / "out", make_comparisons(results), results, [], [tmp_path / "runs"], Progress(False))
    assert len(figures(tmp_path / "out")) > 5
    for path in (tmp_path / "out" / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert image.width <= 6.31 * 300
            assert image.height <= 9 * 300
            assert round(image.info["dpi"][0]) == 300
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
