"""`make reproduce`: what it would train, that it resumes where it stopped, and the records that it keeps."""

import csv
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from trees import write_run, write_study

from reg_sweep.runs.reading import read_record

ROOT = Path(__file__).parents[1]


@pytest.fixture
def imported(monkeypatch):
    """Imports a module of the folder `reproduction`."""
    monkeypatch.syspath_prepend(ROOT / "reproduction")
    return importlib.import_module


@pytest.fixture
def reproduce(tmp_path, monkeypatch, imported):
    monkeypatch.chdir(tmp_path)
    for name in ("reproduce", "stages"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = imported("reproduce")
    monkeypatch.setattr(module, "RECORDS", tmp_path / "records")
    before = signal.getsignal(signal.SIGTERM)
    yield module
    signal.signal(signal.SIGTERM, before)
    for name in ("reproduce", "stages"):
        sys.modules.pop(name, None)


def start(reproduce, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    reproduce.main()


# Stands for the command that trains: leaves a note of each start, and a record.
TRAINER = """
import shutil, sys
name, fails = sys.argv[1:]
with open("started", "a") as file:
    file.write(name + "\\n")
if name == fails:
    sys.exit(2)
shutil.copytree("trained", f"outputs/{name}")
"""


def use_trainer(reproduce, monkeypatch, fails: str = "") -> None:
    if not Path("trained").exists():
        write_run(Path("trained"))
    monkeypatch.setattr(reproduce, "command", lambda job, n_jobs: [sys.executable, "-c", TRAINER, job.name, fails])


def use_stage(reproduce, monkeypatch, n: int = 3) -> None:
    jobs = [reproduce.Job(f"small/{i}", (), n_images=1000.0) for i in range(n)]
    monkeypatch.setattr(reproduce, "STAGES", [reproduce.Stage("small", "a small one", lambda outputs: iter(jobs))])


def started() -> list[str]:
    path = Path("started")
    return sorted(path.read_text().split()) if path.exists() else []


def test_the_plan_says_what_is_there_and_trains_nothing(reproduce, monkeypatch, capsys):
    write_run(Path("outputs/exercise_b/0_0_1"))
    start(reproduce, monkeypatch, "--plan")
    told = capsys.readouterr().out
    assert "exercise B: seven pairs of L1 and L2: 1 of 21 done" in told
    assert "planned once exercise_a_search is finished" in told
    assert told.splitlines()[-1].endswith("at once")
    assert not Path("outputs/fast").exists()


def test_what_is_finished_is_not_trained_again(reproduce, monkeypatch):
    use_stage(reproduce, monkeypatch)
    use_trainer(reproduce, monkeypatch)
    write_run(Path("outputs/small/1"))
    start(reproduce, monkeypatch)
    start(reproduce, monkeypatch)
    assert started() == ["small/0", "small/2"]


def test_a_failure_ends_it_keeps_what_was_finished_and_the_same_command_resumes(reproduce, monkeypatch, capsys):
    use_stage(reproduce, monkeypatch)
    use_trainer(reproduce, monkeypatch, fails="small/1")
    with pytest.raises(SystemExit, match="small/1 ended with exit code 2: see outputs/reproduction"):
        start(reproduce, monkeypatch, "--jobs", "1", "--records")
    assert [p.parent.name for p in Path("records").rglob("run.json")] == ["0"]
    use_trainer(reproduce, monkeypatch)
    start(reproduce, monkeypatch, "--jobs", "1")
    assert started() == ["small/0", "small/1", "small/1", "small/2"]
    assert "small/2 done" in capsys.readouterr().out


def test_a_network_is_made_compact_before_it_is_trained_further(reproduce, monkeypatch):
    jobs = [reproduce.Job("small/fine", (), n_images=1000.0, compacts="small/dense")]
    monkeypatch.setattr(reproduce, "STAGES", [reproduce.Stage("small", "a small one", lambda outputs: iter(jobs))])
    use_trainer(reproduce, monkeypatch)
    with pytest.raises(SystemExit, match="small/fine ended with exit code 2"):  # there is no such run
        start(reproduce, monkeypatch)
    assert started() == []
    told = Path("outputs/reproduction.log").read_text()
    assert "-m reg_sweep.compact outputs/small/dense" in told
    assert "reg_sweep.compact: outputs/small/dense must be a run's directory, got no run" in told


def test_what_is_stopped_ends_its_commands_too(reproduce, monkeypatch):
    use_stage(reproduce, monkeypatch)
    waits = "import sys, time; open('began', 'w').close(); time.sleep(60); open('ended', 'w').close()"
    monkeypatch.setattr(reproduce, "command", lambda job, n_jobs: [sys.executable, "-c", waits])

    def stop_once_it_has_begun():
        while not Path("began").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_once_it_has_begun).start()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it starts in the background
    try:
        with pytest.raises(SystemExit, match=r"stopped; to resume, repeat: python reproduce\.py --jobs 1"):
            start(reproduce, monkeypatch, "--jobs", "1")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not Path("ended").exists()


def test_records_are_kept_and_spare_another_machine_the_work(reproduce, monkeypatch, tmp_path):
    use_stage(reproduce, monkeypatch)
    use_trainer(reproduce, monkeypatch)
    start(reproduce, monkeypatch, "--records")
    kept = sorted(str(p.relative_to(tmp_path / "records")) for p in (tmp_path / "records").rglob("*") if p.is_file())
    names = ("metrics.csv", "predictions.npz", "run.json")
    assert kept == [f"small/{i}/{name}" for i in range(3) for name in names]
    assert read_record(tmp_path / "records" / "small" / "0")["config"]["data"]["root"] == "data"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    start(reproduce, monkeypatch, "--records")
    assert started() == []
    assert reproduce.is_finished(reproduce.Job("small/2", (), 1.0))


def test_arms_are_judged_at_the_lambdas_that_the_searches_chose(reproduce):
    for name, parameter, value in (("exercise_a_search_l1", "l1", 3e-6), ("exercise_a_search_l2", "l2", 2e-4)):
        found = [{"params": {parameter: 1e-1}, "values": [0.9]}, {"params": {parameter: value}, "values": [0.1]}]
        write_study(Path("outputs") / name, found)
    chosen, published = sys.modules["stages"].exercise_a(Path("outputs"))
    assert "hydra.sweeper.enqueue=[{norm:bn,l1:0,l2:0},{norm:bn,l1:3e-06,l2:0}," in " ".join(chosen.overrides)
    assert "{norm:gbn,l1:0.001,l2:0.0005}" in " ".join(published.overrides)


def test_jobs_below_one_are_refused(reproduce, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        start(reproduce, monkeypatch, "--jobs", "0")
    assert "--jobs must be at least 1, got 0" in capsys.readouterr().err


def test_the_pages_tell_what_the_kept_records_tell(imported):
    tables = imported("tables")
    pages = [page.read_text() for page in tables.PAGES]
    assert [tables.filled(page) for page in pages] == pages, "run python reproduction/tables.py"
    assert all(f"<!-- table: {name} -->" in "".join(pages) for name in tables.TABLES)


def test_the_reports_are_of_the_kept_records(imported):
    tables, reports = imported("tables"), imported("reports")
    pages = sorted(path.name for path in (ROOT / reports.PAGES).iterdir())
    assert set(pages) <= set(reports.STAGES_OF)
    for name in pages:
        page = ROOT / reports.PAGES / name
        kept = sorted(run.path.name for stage in reports.STAGES_OF[name] for run in tables.complete(stage))
        rows = csv.DictReader((page / "runs.csv").read_text().splitlines())
        told = [row for row in rows if row["status"] == "complete"]
        assert sorted(Path(row["folder"]).name for row in told) == kept
        assert all(Path(row["folder"]).parts[:2] == ("reproduction", "records") for row in told)
        assert (page / "index.html").stat().st_size < 3_000_000


def test_a_table_has_the_mean_its_interval_and_n(monkeypatch, tmp_path, imported):
    tables = imported("tables")
    monkeypatch.setattr(tables, "RECORDS", tmp_path)
    for seed, accuracy in enumerate((0.99, 0.98, 0.97), 1):
        write_run(tmp_path / "exercise_b" / str(seed), l1=0.001, seed=seed, accuracy=accuracy)
    row = next(line for line in tables.TABLES["exercise_b"]().splitlines() if line.startswith("| 0.001, 0 |"))
    assert row.endswith("| 98.00 (95.52 to 100.48), n = 3 |")
    assert "| 0, 0 | 99.47 (25); again 99.47 (38) | not run yet |" in tables.TABLES["exercise_b"]()
