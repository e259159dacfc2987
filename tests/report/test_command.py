import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest
from pages import BN, L1, blank_pictures
from trees import write_arms

from reg_sweep.report import main


@pytest.fixture(autouse=True)
def _undrawn():
    with blank_pictures():
        yield


@pytest.fixture
def worse(tmp_path):
    write_arms(tmp_path, {BN: [0.95, 0.951, 0.949, 0.95], L1: [0.80, 0.802, 0.799, 0.80]})
    return str(tmp_path)


@pytest.fixture
def undecided(tmp_path):
    write_arms(tmp_path, {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92]})
    return str(tmp_path)


def test_json_tells_the_verdict_and_an_arm_for_each_row_of_the_summary(worse, capsys):
    assert main([worse, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (table,) = told["tables"]
    assert told["schema"] == 1
    assert table["baseline"] == "bn"
    assert {arm["arm"]: arm["verdict"] for arm in table["arms"]} == {"bn": None, "bn · L1 0.001": "worse"}
    assert all(arm["p_divergence"] is None for arm in table["arms"])


def test_a_check_fails_with_3_and_names_the_arm_that_is_shown_worse(worse, capsys):
    assert main([worse, "--fail-if", "worse"]) == 3
    said = capsys.readouterr().err
    assert "--fail-if: 'worse' shown for bn · L1 0.001 against the baseline, bn" in said
    assert main([worse, "--fail-if", "undecided"]) == 0


def test_a_check_fails_where_nothing_is_shown_only_if_it_asks_for_that(undecided, capsys):
    assert main([undecided, "--fail-if", "worse"]) == 0
    assert main([undecided, "--fail-if", "worse,undecided"]) == 3
    assert "'no difference shown' for bn · L1 0.001" in capsys.readouterr().err


# ---- standard streams

ALL_CLOSED = "<&- >&- 2>&-"  # the one in which pictures are drawn: by processes that inherit no stream
CLOSED = ["2>&-", ">&-", ">&- 2>&-", ALL_CLOSED, "2>/dev/full", "--json | head -c 3 >/dev/null", "--help | true"]
UNDRAWN = (
    "import runpy; from pages import blank_pictures; "
    "blank_pictures()(runpy.run_module)('reg_sweep.report', run_name='__main__')"
)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has /dev/full")
@pytest.mark.parametrize(
    ("streams", "code", "says"),
    [
        *((streams, 0, "") for streams in CLOSED),
        (">/dev/full", 1, "is written, but its verdict could not be printed: No"),
    ],
)
def test_a_closed_or_full_stream_is_no_traceback_and_the_report_is_written(undecided, streams, code, says):
    command = "-m reg_sweep.report" if streams == ALL_CLOSED else f'-c "{UNDRAWN}"'
    line = f"{sys.executable} {command} {undecided} {streams}"
    environment = os.environ | {"PYTHONPATH": str(Path(pages.__file__).parent)}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if "pictures" not in line]) <= 1
    assert os.path.exists(f"{undecided}/report/index.html") or "--help" in streams
    assert not os.path.exists(f"{undecided}/report/.reg_sweep-staging")


# ---- what others made stays

OURS_IN_NAME = ["index.html", "summary.csv", "runs.csv", "summary.md"]


@pytest.mark.parametrize("name", OURS_IN_NAME)
@pytest.mark.parametrize("kind", ["file", "link", "lost link", "folder"])
def test_what_a_report_did_not_make_is_refused_with_its_name_and_kept(undecided, tmp_path, capsys, name, kind):
    out, precious = tmp_path / "site", tmp_path / "precious"
    out.mkdir()
    precious.write_text("mine")
    path = out / name
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(precious if kind == "link" else tmp_path / "nowhere")
    assert main([undecided, "--out", str(out)]) == 2
    assert f"an earlier report, got {path}: name another" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == [name]
    assert path.is_symlink() == ("link" in kind)
    assert precious.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_an_earlier_report_is_replaced_one_of_before_it_was_marked_too(undecided, tmp_path):
    out = tmp_path / "report"
    assert main([undecided, "--out", str(out)]) == 0
    page = (out / "index.html").read_text()
    assert '<meta name="generator" content="reg_sweep' in page
    (out / "index.html").write_text(page.replace("generator", "old"))
    (out / "notes.txt").write_text("mine")
    assert main([undecided, "--out", str(out)]) == 0
    assert '<meta name="generator" content="reg_sweep' in (out / "index.html").read_text()
    assert (out / "notes.txt").read_text() == "mine"


def test_the_report_of_another_folder_is_refused_and_kept(tmp_path, capsys):
    for name in ("a", "b"):
        write_arms(tmp_path / name, {BN: [0.9, 0.91], L1: [0.92, 0.93]})
    out = tmp_path / "out"
    assert main([str(tmp_path / "a"), "--out", str(out)]) == 0
    page = (out / "index.html").read_bytes()
    assert main([str(tmp_path / "b"), "--out", str(out)]) == 2
    assert "which holds the report of another folder: name another with --out" in capsys.readouterr().err
    assert (out / "index.html").read_bytes() == page
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0


def test_a_check_looks_at_every_table_and_summary_names_each(worse, tmp_path, capsys):
    write_arms(tmp_path / "longer", {BN: [0.9, 0.91, 0.905], L1: [0.9, 0.92, 0.905]}, n_epochs=4)
    assert main([worse, "--fail-if", "worse"]) == 3
    assert "on digits, 3 epochs" in capsys.readouterr().err
    summary = (tmp_path / "report" / "summary.csv").read_text()
    assert {"digits, 3 epochs", "digits, 4 epochs"} <= {line.split('"')[1] for line in summary.splitlines()[1:]}


LONG = "n" * 300


@pytest.mark.parametrize("option", ["--out", "--handout"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        (LONG, "must name a folder that can be made, got n+: File name too long"),
        ("circle", "must name a folder, got circle, but circle is a link to no folder: name another"),
        ("lost/below", "must name a folder, got lost/below, but lost is a link to no folder: name another"),
        ("file/below", "must name a folder, got file/below, but file is a file: name another"),
    ],
)
def test_what_can_be_no_folder_is_refused_in_one_line(undecided, tmp_path, monkeypatch, capsys, option, name, says):
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    Path("lost").symlink_to("nowhere")
    Path("file").touch()
    assert main([undecided, "--out", "page", option, name]) == 2
    assert re.fullmatch(f"reg_sweep.report: {option} {says}\n", capsys.readouterr().err)


def test_a_working_directory_that_was_removed_is_one_line(undecided, tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main([undecided, "--out", "page"]) == 2
    assert "--out must name a folder that can be made, got page: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["study.json", "run.json", "judged.json"])
def test_a_file_that_is_a_link_in_a_circle_costs_its_own_run_a_line(undecided, tmp_path, name):
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / name).symlink_to(name)
    assert main([undecided, "--out", str(tmp_path / "page")]) == 0


@pytest.mark.parametrize("arguments", [["ROOT", "--out", ""], [""]])
def test_an_empty_name_is_not_the_working_directory(undecided, tmp_path, monkeypatch, capsys, arguments):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main([undecided if a == "ROOT" else a for a in arguments]) == 2
    assert "folder" in capsys.readouterr().err
    assert list((tmp_path / "empty").iterdir()) == []
