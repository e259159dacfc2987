"""A disk that is really full or read-only: a small file system of its own, for a run, a study and a report.

Needs Linux and root, to mount one.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacked import N_POINTS, TINY, Ended, forked, train_with

from reg_sweep.report.command import main as report
from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import RUN_FILE, WEIGHTS_FILE, RunRecord

SIZE_KB = 8192
RUN = [*TINY, "epochs=2", "l1=0.00001"]
STUDY = [*TINY, "-m", "hydra/sweeper=optuna_study", "hydra/sweeper/sampler=grid", "report=false", "epochs=1"]
STUDY += ["l1=choice(0, 0.00001)"]
FILLER = "filler.bin"
N_RUNS = {"run": 1, "study": 2}
# How many kilobytes are left when a command begins, and when it is to end in its middle; the ordinary suite tries one.
LEFT_KB = [0, 16, 60] if N_POINTS > 1 else [16]
MIDDLE_KB = [260, 380, 440] if N_POINTS > 1 else [380]


class Disk:
    """A mounted file system of a few megabytes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fill(self, left_kb: int) -> None:
        """Leaves so much room, rounded to the file system's blocks."""
        free = os.statvfs(self.root)
        n_bytes = free.f_bavail * free.f_frsize - left_kb * 1024
        (self.root / FILLER).write_bytes(bytes(max(0, n_bytes)))

    def free(self) -> None:
        (self.root / FILLER).unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.root)], check=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """A small file system that can be filled. Skipped where none can be mounted: that takes Linux and root."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("needs Linux and root, to mount a file system: NOT TESTED here")
    root = tmp_path / "disk"
    root.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(root)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"needs permission to mount a file system: NOT TESTED here ({done.stderr.strip()})")
    yield Disk(root)
    subprocess.run(["umount", "--lazy", str(root)], check=True)


def train_on(disk: Disk, tmp_path: Path, arguments: list[str]) -> Ended:
    """Trains in the disk's root; what is said goes elsewhere."""

    def train() -> None:
        os.chdir(disk.root)
        train_with(arguments)

    return forked(tmp_path, train)


def records_of(root: Path) -> dict[Path, RunRecord]:
    return {path.parent: read_record(path.parent) for path in root.rglob(RUN_FILE)}


def finished(root: Path) -> dict[str, bytes]:
    """The weights of the runs that are complete, by their digests."""
    complete = {folder: record for folder, record in records_of(root).items() if record["status"] == "complete"}
    return {record["digest"]: (folder / WEIGHTS_FILE).read_bytes() for folder, record in complete.items()}


def check_resumes(
    disk: Disk, tmp_path: Path, what: str, arguments: list[str], met: Ended, n_runs: int | None = None
) -> None:
    """The failure was one line; the same command then brings all to its end, and keeps what was finished."""
    assert met.code in (1, 2), met.said
    assert "Traceback" not in met.said, met.said
    assert "Error executing job" not in met.said or what == "study", met.said
    assert sum("reg_sweep: error:" in line for line in met.said.splitlines()) == 1, met.said
    kept = finished(disk.root)
    said, retry = met.said, "hydra.sweeper.retry_failed=true"
    for _ in range(2):  # a trial that the disk ended has failed; where the study said so in its last words, or does now
        then = train_on(disk, tmp_path, [*arguments, *([retry] if retry in said else [])])
        assert then.code == 0, f"{met.said}\nthen: {then.said}"
        said = then.said
        if retry not in said:
            break
    whole = finished(disk.root)
    assert len(whole) == (n_runs or N_RUNS[what])
    assert kept.items() <= whole.items()
    failed = {f for f, record in records_of(disk.root).items() if record["status"] == "failed"}
    left = [p for p in disk.root.rglob("*") if p.name.endswith((".tmp", "checkpoint.pt"))]
    assert [p for p in left if p.parent not in failed or p.name != "checkpoint.pt"] == []


@pytest.mark.slow
@pytest.mark.parametrize("left_kb", LEFT_KB)
@pytest.mark.parametrize(("what", "arguments"), [("run", RUN), ("study", STUDY)], ids=["run", "study"])
def test_after_a_full_disk_the_same_command_resumes(disk, tmp_path, what, arguments, left_kb):
    disk.fill(left_kb)
    met = train_on(disk, tmp_path, arguments)
    disk.free()
    print(met.said)
    check_resumes(disk, tmp_path, what, arguments, met)


@pytest.mark.slow
@pytest.mark.parametrize(("what", "arguments"), [("run", RUN), ("study", STUDY)], ids=["run", "study"])
def test_after_a_read_only_disk_the_same_command_resumes(disk, tmp_path, what, arguments):
    disk.remount("ro")
    met = train_on(disk, tmp_path, arguments)
    disk.remount("rw")
    print(met.said)
    check_resumes(disk, tmp_path, what, arguments, met)


@pytest.mark.slow
def test_a_report_without_room_is_one_line_and_leaves_the_page_before_as_it_was(disk, tmp_path):
    def write_report() -> None:
        os.chdir(disk.root)
        sys.argv = ["reg_sweep.report", "outputs/a"]
        raise SystemExit(report())

    assert train_on(disk, tmp_path, RUN).code == 0
    assert forked(tmp_path, write_report).code == 0
    folder = disk.root / "outputs" / "a" / "report"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    for prevent, allow in (
        (lambda: disk.fill(16), disk.free),
        (lambda: disk.remount("ro"), lambda: disk.remount("rw")),
    ):
        prevent()
        met = forked(tmp_path, write_report)
        allow()
        print(met.said)
        assert met.code in (1, 2), met.said
        assert "Traceback" not in met.said
        (said,) = (line for line in met.said.splitlines() if "drawing" not in line)  # beside the progress
        assert said.startswith("reg_sweep.report: --out must name a folder that can be written, got outputs/a/report: ")
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert forked(tmp_path, write_report).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("left_kb", MIDDLE_KB)
def test_a_disk_that_fills_in_the_middle_of_a_study_costs_nothing_that_was_finished(disk, tmp_path, left_kb):
    disk.fill(left_kb)
    # What a full disk keeps from telling of its end is taken for dead, and after that time tried again.
    study = [*STUDY, "seed=1,2", "hydra.sweeper.heartbeat_interval=0.1", "hydra.sweeper.grace_period=0.5"]
    met = train_on(disk, tmp_path, study)
    n_kept = len(finished(disk.root))
    disk.free()
    print(n_kept, met.said)
    check_resumes(disk, tmp_path, "study", study, met, n_runs=4)
