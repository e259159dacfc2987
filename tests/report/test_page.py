import errno
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from pages import BN, L1, Page, blank_pictures, report, rows
from scripts import script
from trees import N_TEST, write_arms, write_run

from reg_sweep.report import ReportError, main, write_report
from reg_sweep.report.page import Report


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> tuple[Path, Page]:
    """A tree with runs of every status, its weights and predictions, and its report."""
    root = tmp_path_factory.mktemp("simulated")
    script("benchmarks/make_runs.py").make_runs(
        root / "runs", 30, 5, 200, n_seeds=3, n_per_unfinished=5, with_weights=True
    )
    page, _ = report(root / "runs", out=root / "report", is_drawn=True)
    return root, page


@pytest.mark.slow
def test_the_offline_sample_is_said_once_however_many_tables_it_has(tmp_path):
    def told(out: str) -> str:
        text = report(tmp_path / "runs", out=tmp_path / out)[0].text
        assert text.count("Offline sample: ") == 1
        return text.partition("Offline sample: ")[2]

    for n_train in (100, 200):
        data = {"source": "offline sample", "n_train": n_train}
        write_arms(tmp_path / "runs" / str(n_train), {BN: [0.8, 0.9]}, data=data)
    assert told("all").startswith("these runs saw")
    write_arms(tmp_path / "runs" / "letters", {BN: [0.8, 0.9]}, data={"fingerprint": "letters", "name": "letters"})
    assert told("named").startswith("the runs on digits saw")
    write_arms(tmp_path / "runs" / "whole", {BN: [0.8, 0.9]}, data={"fingerprint": "other"})
    assert re.match("the runs on digits, 100 train [^.]*; digits, 200 train .* saw", told("some"))


def test_the_page_asks_for_nothing_from_anywhere(simulated):
    root, page = simulated
    folder = root / "report"
    for address in page.addresses:
        assert "://" not in address
        assert address.startswith(("#", "data:image/png;base64,")) or (folder / address).exists(), address
    assert not re.search(r"@import|url\((?!data:|#)", page.source)
    targets = {a[1:] for a in page.addresses if a.startswith("#")}
    assert targets <= set(page.ids)


def test_every_figure_lies_beside_the_page(simulated):
    root, page = simulated
    svgs = {p.stem for p in (root / "report").glob("*.svg")}
    assert {"curves-test-accuracy", "study-l2-1-loss", "weights-by-size", "confusion-best", "why-contours"} <= svgs
    assert page.source.count('role="img" aria-label=') >= page.tags.count("figure")


@pytest.mark.slow
def test_figures_lie_beside_the_page_in_the_forms_that_were_asked_for(tmp_path):
    write_run(tmp_path / "runs", predictions=False)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", is_drawn=True, files=("png", "pdf"))
    named = {end: {p.stem for p in (tmp_path / "report").glob(f"*.{end}")} for end in ("svg", "png", "pdf")}
    assert named["svg"] == named["png"] == named["pdf"]
    assert {f"curves-test-loss.{end}" for end in named} <= set(page.addresses)


@pytest.mark.slow
def test_the_same_runs_give_the_same_page(simulated):
    root, page = simulated
    again, _ = report(root / "runs", out=root / "again", is_drawn=True)

    def undated(source: str) -> str:
        return re.sub(r"Written [^b]* by", "", source)

    assert undated(again.source) == undated(page.source)


@blank_pictures()
def test_a_report_inside_the_tree_is_not_taken_for_runs(tmp_path):
    write_arms(tmp_path, {BN: [0.8, 0.9]})
    first = write_report([tmp_path], progress=False)
    assert first.page == tmp_path / "report" / "index.html"
    write_report([tmp_path], progress=False)
    assert len(rows(tmp_path / "report" / "runs.csv")) == 2


def test_two_roots_that_overlap_count_a_run_once(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "bad").mkdir()
    (tmp_path / "runs" / "bad" / "run.json").write_text("mine")
    roots = (tmp_path / "runs", tmp_path / "runs" / "0-1", tmp_path / "link")
    page, _ = report(*roots, out=tmp_path / "report")
    assert len(rows(tmp_path / "report" / "runs.csv")) == 2
    assert "1 file is missing, unreadable, incomplete or left out" in page.text


def test_links_lead_to_the_runs_folders_whatever_their_names(tmp_path):
    run = write_run(tmp_path / "runs" / "l1=0.1, a #1 ü%")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    links = [tmp_path / "report" / unquote(a) for a in page.addresses if a.endswith("/")]
    assert [os.path.normpath(link) for link in links] == [str(run)]


# ---- bad input


def test_a_folder_without_a_usable_run_gets_a_page_that_says_so(tmp_path):
    for i, status in enumerate(("running", "failed", "pruned", "diverged")):
        write_run(tmp_path / "none" / str(i), status=status, seed=i)
    page, verdict = report(tmp_path / "none", out=tmp_path / "out" / "none")
    assert verdict == "No complete run yet (1 pruned, 1 diverged, 1 failed, 1 running): there is nothing to compare."
    assert verdict in page.text
    write_run(tmp_path / "nan" / "a", accuracy=math.nan, loss=math.inf, predictions=False)
    _, verdict = report(tmp_path / "nan", out=tmp_path / "out" / "nan")
    assert verdict == "No complete run can be used (1 complete): see what was left out, and why."


def test_a_loss_has_no_margin_unless_asked_for_and_the_page_says_so(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"a{seed}", seed=seed, loss=0.3 + 0.0001 * seed)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, loss=0.3 + 0.0001 * seed**2)
    page, verdict = report(tmp_path, out=tmp_path / "none", metric="test_loss")
    assert "Equivalence is not tested; set the largest difference that does not matter with --margin." in page.text
    assert "equivalent" not in verdict
    assert "shown equivalent within ±2" in report(tmp_path, out=tmp_path / "asked", metric="test_loss", margin=2.0)[1]


# ---- what a disk, a kill and odd names do


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail_to_open(monkeypatch, number: int, is_hit: Callable[..., bool]) -> None:
    """From now on to open a path that `is_hit` is this error."""
    opened = Path.open

    def open_or_fail(path: Path, *arguments, **options):
        if is_hit(path, *arguments):
            raise OSError(number, os.strerror(number))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_or_fail)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["summary.csv", "index.html"])
def test_a_full_disk_is_one_line_and_leaves_the_former_report_or_no_folder(tmp_path, monkeypatch, at):
    write_arms(tmp_path / "runs", {BN: [0.8]})
    report(tmp_path / "runs", out=tmp_path / "report")
    (tmp_path / "report" / "mine.txt").write_text("mine")
    before = listing(tmp_path / "report")
    write_arms(tmp_path / "runs" / "more", {L1: [0.9]})
    fail_to_open(monkeypatch, errno.ENOSPC, lambda path, *mode: path.name == at and mode[:1] != ("rb",))
    with pytest.raises(ReportError, match=r"report: No space left on device; nothing there was changed$"):
        report(tmp_path / "runs", out=tmp_path / "report")
    with pytest.raises(ReportError, match=r"No space left on device$"):
        report(tmp_path / "runs", out=tmp_path / "new")
    monkeypatch.undo()
    assert listing(tmp_path / "report") == before
    assert not (tmp_path / "new").exists()


def test_what_a_killed_report_left_is_cleared_away_by_the_next(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8]})
    (tmp_path / "report" / ".reg_sweep-staging").mkdir(parents=True)
    (tmp_path / "report" / ".reg_sweep-staging" / "half.svg").write_text("<svg")
    report(tmp_path / "runs", out=tmp_path / "report")
    assert not {".reg_sweep-staging", "half.svg"} & listing(tmp_path / "report").keys()


def test_a_folder_whose_name_is_no_text_is_on_the_page_with_a_link_that_leads_there(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"runs-\xff")
    run = write_run(folder / os.fsdecode(b"\xe9"))
    page, _ = report(folder, out=tmp_path / "report")
    (link,) = [a for a in page.addresses if a.endswith("/")]
    assert link == "../runs-%FF/%E9/"
    assert rows(tmp_path / "report" / "runs.csv")[0]["folder"] == str(run).encode(errors="backslashreplace").decode()


def test_a_terminal_of_ascii_alone_gets_its_verdict(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr("reg_sweep.report.command.write_report", lambda *_, **__: Report(tmp_path / "λ", "L1 ± 1 %"))
    assert main([str(tmp_path)]) == 0
    stream.flush()
    assert stream.buffer.getvalue().decode().splitlines()[0] == "L1 \\xb1 1 %"


def test_linked_runs_are_said_to_be_left_out(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8]})
    write_run(tmp_path / "elsewhere", l1=0.1)
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert f"{tmp_path}/runs/linked: a link with a run.json: left out" in page.text


@blank_pictures()
def test_a_slow_report_tells_in_lines_how_far_it_is_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    monkeypatch.setattr("reg_sweep.report.progress.EVERY_S", math.inf)
    write_report([tmp_path / "runs"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("reg_sweep.report.progress.EVERY_S", 0.0)
    write_report([tmp_path / "runs"])
    lines = capsys.readouterr().err.splitlines()
    told = [line.removeprefix("reg_sweep.report: ") for line in lines]
    assert told[:3] == ["reading: 0 of 2 runs", "reading: 1 of 2 runs", "making table 1 of 1"]
    assert told[3].startswith("drawing: 0 of ")


def test_a_report_that_is_stopped_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reg_sweep.report.command.write_report", stop)
    assert main([str(tmp_path)]) == 130
    assert capsys.readouterr().err == "reg_sweep.report: stopped; an earlier report is unchanged\n"


# ---- the command


@blank_pictures()
def test_the_command_prints_the_verdict_and_the_page_and_opens_it_when_asked(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    write_arms(tmp_path, {BN: [0.8, 0.9], L1: [0.9, 0.95]})
    assert main([str(tmp_path), "--baseline", "l1=0.001"]) == 0
    verdict, page = capsys.readouterr().out.splitlines()
    assert "the baseline, bn · L1 0.001" in verdict
    assert not opened
    assert main([str(tmp_path), "--open"]) == 0
    assert opened == [Path(page).as_uri()] == [(tmp_path / "report" / "index.html").as_uri()]


@pytest.mark.slow
def test_the_report_runs_without_torch_and_without_a_screen(tmp_path):
    write_arms(tmp_path, {BN: [0.8, 0.9]})
    code = (
        "import sys; from reg_sweep.report import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'hydra', 'optuna', 'matplotlib.pyplot'} & sys.modules.keys(); sys.exit(code)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert re.sub(r"reg_sweep\.report: .*\n", "", done.stderr) == ""  # how far it is, on a slow machine


@pytest.mark.slow
def test_a_page_of_many_arms_stays_small(tmp_path):
    script("benchmarks/make_runs.py").make_runs(tmp_path / "runs", 520, 3, N_TEST, n_seeds=2)
    made = write_report([tmp_path / "runs"], tmp_path / "report", progress=False)
    assert made.page.stat().st_size < 4e6
    page = Page(made.page)
    assert "Listed here are 500, those that did not complete first" in page.text
    assert len(rows(tmp_path / "report" / "runs.csv")) == 520


def test_an_earlier_page_that_can_not_be_read_is_one_line(tmp_path, monkeypatch):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    page = tmp_path / "out" / "index.html"
    page.parent.mkdir()
    page.write_text("kept")
    fail_to_open(monkeypatch, errno.EIO, lambda path, *_: path == page)
    with pytest.raises(ReportError, match=r"page can be read, got .*index\.html: Input/output error"):
        write_report([tmp_path / "runs"], tmp_path / "out", progress=False)
    monkeypatch.undo()
    assert page.read_text() == "kept"


def test_one_run_is_no_baseline_and_misses_nothing_again(tmp_path):
    write_run(tmp_path / "runs" / "alone")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "1 run: 1 complete." in page.text
    assert 'class="tag">baseline' not in page.source
    for words in ("The baseline", "Missed by all", "Bands over seeds", "1 runs"):
        assert words not in page.text
    assert "%;" not in page.text.replace("%; strips", "")  # without a strip its scale has no mark


def test_a_short_label_is_on_one_line_in_a_sentence_and_alone_wraps_between_its_parts_never_before_a_value(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.90, 0.91, 0.92], L1: [0.95, 0.96, 0.97]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "the best arm, bn\u00a0·\u00a0L1\u00a00.001, and" in page.source
    rows = [f"{m},{wd},{s},{s / 10}" for m in ("a-long-name", "b") for wd in (0, 0.5) for s in (1, 2)]
    (tmp_path / "it.csv").write_text("\n".join(["method,wd,seed,acc", *rows]))
    page, _ = report(tmp_path / "it.csv", out=tmp_path / "out")
    assert ">a-long-name\u00a0· wd\u00a00.5<" in page.source
