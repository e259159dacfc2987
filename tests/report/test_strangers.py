"""A stranger's folder: no exit obeys a text of it, and one bad file costs its own run a line, never the page."""

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from pages import BN, L1, blank_pictures, report
from trees import edit_record, write_arms, write_run, write_study

from reg_sweep import read_runs
from reg_sweep.readers.foreign import Wanted
from reg_sweep.readers.sources import find_foreign
from reg_sweep.report import main
from reg_sweep.runs.arrays import write_weights

ESCAPES = "\x1b]0;owned\x07\x1b[31m\u202egpj\u2066\u200b\r\n\x9b2J</svg>\ufffe $x^$"
FORMULA = "=cmd|' /C calc'!A0"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
KEPT = {"status", "_target_", "l1_update", "l2_update"}  # else it would be no record


def spoiled(value, text, key=""):
    """A record with `text` for every text that may be anything."""
    if isinstance(value, dict):
        return {k: spoiled(v, text, k) for k, v in value.items()} | ({text: text} if key == "versions" else {})
    if isinstance(value, list):
        return [spoiled(v, text, key) for v in value]
    return text if isinstance(value, str) and key not in KEPT else value


@pytest.fixture(scope="module", params=[ESCAPES, FORMULA, "@SUM(1)", "+1", "-2+3", "\uff1d1"])
def strange(request, tmp_path_factory) -> tuple[Path, Path, bool]:
    """A tree of ordinary runs, of runs with such a text wherever there is one, of a folder so named; its report.

    And whether that needs its pictures.
    """
    root, text = tmp_path_factory.mktemp("runs"), request.param
    write_arms(root, {BN: [0.9, 0.91], L1: [0.92, 0.93]})
    for seed in (1, 2):
        folder = write_run(root / "strange" / str(seed), seed=seed, norm="gn", l2=0.1)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(spoiled(record, text) | {"message": text}))
        write_weights(folder, {f"{text}.weight": np.ones((2, 2, 3, 3), np.float32)})
    named = root / text.replace("/", "").replace("\n", "")
    shutil.copytree(root / "strange" / "1", named / "run")
    shutil.copytree(root / "strange" / "1", named / "torn")
    (named / "torn" / "run.json").write_text("{")
    trials = [
        {"params": {"l2": 0.1, text: text}, "values": [0.1], "message": text, "attributes": {text: text}},
        {"params": {"l2": 0.2, text: "y"}, "values": [0.2]},
        {"params": {"l2": 0.3}, "state": "failed", "values": None, "message": text},
    ]
    write_study(named / "study", trials, study=text, command=text, kind="search", importances={text: 0.5})
    return root, tmp_path_factory.mktemp("out") / "report", text == ESCAPES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_no_exit_obeys_a_strangers_text(strange, capsys, monkeypatch):
    root, out, is_drawn = strange
    monkeypatch.chdir(root)  # so that a folder's own name begins a cell
    folders = sorted(p.name for p in root.iterdir())
    for more in (["--json"], []):
        # What a spreadsheet would compute is no danger in a picture, and --json makes the same ones.
        with contextlib.nullcontext() if is_drawn and not more else blank_pictures():
            assert main(["--out", str(out), "--latex", *more, "--", *folders]) == 0
        printed = capsys.readouterr()
        assert not FORBIDDEN.search(printed.out + printed.err)
    for path in out.iterdir():
        if path.suffix != ".parquet":
            found = FORBIDDEN.search(path.read_text(encoding="utf-8"))
            assert not found or (path.suffix == ".csv" and found[0] == "\r"), (path.name, found)  # of a line's end
    for path in out.glob("*.svg") if is_drawn else ():
        ElementTree.parse(path)
    for path in out.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                assert not any(cell.startswith(("=", "+", "@", "\uff1d")) for cell in row.values()), row
                assert all(re.fullmatch(r"-[\d.e+-]+|-inf", c) for c in row.values() if c.startswith("-")), row


def test_a_reader_of_runs_is_given_no_control_character(strange):
    for run in read_runs(strange[0], problems=[]):
        assert not FORBIDDEN.search(json.dumps([run.record], ensure_ascii=False))


# ---- one bad file


def replaced(folder: Path, old: str, new: str) -> None:
    path = folder / "metrics.csv"
    path.write_text(path.read_text().replace(old, new))


def sparse(folder: Path) -> None:
    with (folder / "weights.safetensors").open("wb") as file:
        file.truncate(1_900_000_000)


def odd_predictions(folder: Path) -> None:
    path = folder / "predictions.npz"
    path.write_bytes(path.read_bytes().replace(b"<f4", b"<f3"))


SPOILED = {
    "an accuracy of 2": (
        lambda f: edit_record(f, last={"test_accuracy": 2.0}),
        "last.test_accuracy must be a number from",
    ),
    "an accuracy of -1": (
        lambda f: edit_record(f, best_val={"val_accuracy": -1.0}),
        "best_val.val_accuracy must be a number",
    ),
    "a history of 2": (lambda f: replaced(f, "0.92", "2.0"), "must be a share from 0 to 1, got 2.0"),
    "sizes": (
        lambda f: edit_record(f, data={"in_shape": [10**9, 1, 1]}),
        "data.in_shape[0] must be a whole number from 1 to",
    ),
    "odd types": (odd_predictions, "predictions.npz: "),
    "sparse weights": (sparse, "weights.safetensors: "),
}


@pytest.mark.parametrize("case", SPOILED)
def test_one_bad_file_costs_its_own_run_a_line(tmp_path, case):
    write_arms(tmp_path / "runs", {BN: [0.9, 0.91], L1: [0.92, 0.93]})
    spoil, says = SPOILED[case]
    spoil(tmp_path / "runs" / "1-1")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert page.text.count(says) == 1
    assert "200.00" not in page.text


def test_folders_in_folders_of_any_depth_are_walked(tmp_path, monkeypatch):
    write_arms(tmp_path / "runs", {BN: [0.9, 0.91]})
    monkeypatch.chdir(tmp_path / "runs")
    for _ in range(1_100):
        Path("d").mkdir()
        os.chdir("d")
    Path("run.json").write_text("{")
    os.chdir(tmp_path)
    problems: list[str] = []
    assert len(read_runs(tmp_path / "runs", problems=problems)) == 2
    assert len(problems) == 1
    assert find_foreign([tmp_path / "runs"], Wanted()).runs == []
    subprocess.run(["rm", "-rf", "runs/d"], check=True)  # deeper than Python removes


@pytest.mark.parametrize(("key", "value"), [("l1", 2**53 + 1), ("l2", 2**63 - 1)])
def test_a_grid_of_large_whole_numbers_is_drawn(tmp_path, key, value):
    for n, strengths in enumerate([(0, 0), (1, 0), (value, 0), (0, 0.1), (1, 0.1), (value, 0.1)]):
        for seed in (1, 2):
            folder = write_run(tmp_path / "runs" / f"{n}-{seed}", seed=seed, accuracy=0.8 + 0.01 * n)
            other = "l2" if key == "l1" else "l1"
            edit_record(folder, config={key: strengths[0], other: strengths[1]})
    trials = [{"params": {key: v, "seed": 1}, "values": [0.1]} for v in (1, value)]
    write_study(tmp_path / "runs" / "study", trials, kind="grid")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", is_drawn=True)
    assert "12 runs" in page.text
