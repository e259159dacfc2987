"""A sweep of many trials in one process holds no more at its end than after its first: memory, threads, files.

By default a few trials; `make faults` runs REG_SWEEP_TRIALS of them, with a sampler that learns from all before it and
reckons longer the more there are, and with one that does not.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import Command
from toy_apps import STUDY, X, Y, load, start, states

N_TRIALS = int(os.environ.get("REG_SWEEP_TRIALS", "60"))
WARM_UP = 20  # trials after which everything is imported and cached once
MOST_MB = 50
MOST_FILES = 3  # that come and go, such as the one being written


class Held(NamedTuple):
    """Resources of a process at a moment, and its CPU time so far."""

    memory_mb: float
    n_threads: int
    n_files: int
    cpu_s: float


def held(pid: int) -> Held | None:
    """None where the process has ended."""
    process = Path("/proc") / str(pid)
    try:
        pages = int((process / "statm").read_text().split()[1])
        of_state = (process / "stat").read_text().rpartition(")")[2].split()  # from the third field on
        n_files = sum(1 for _ in (process / "fd").iterdir())
    except (OSError, IndexError):
        return None
    ticks, memory_mb = int(of_state[11]) + int(of_state[12]), pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return Held(memory_mb, int(of_state[17]), n_files, ticks / os.sysconf("SC_CLK_TCK"))


def watched(process: Command, folder: Path) -> dict[int, Held]:
    """Resources of the process when it began each of the given trials."""
    wanted, seen = sorted({WARM_UP, WARM_UP + 100, N_TRIALS - 101, N_TRIALS - 1} & set(range(N_TRIALS))), {}
    while process.code is None and wanted:
        now = held(process.pid)
        if now is not None and (folder / str(wanted[0])).exists():
            seen[wanted.pop(0)] = now  # what the end loads, to tell importances, is no growth
        time.sleep(0.02)
    return seen


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("sampler", ["tpe", "random"] if N_TRIALS > 60 else ["tpe"])
def test_nothing_grows_with_the_trials(tmp_path, sampler):
    command = [*STUDY, X, Y, f"hydra.sweeper.n_trials={N_TRIALS}", f"hydra/sweeper/sampler={sampler}"]
    process = start(tmp_path, "sphere", *command)
    seen = watched(process, tmp_path / "out")
    done = process.end()
    assert done.returncode == 0, done.stderr
    assert len(states(load(tmp_path / "out"))) == N_TRIALS
    first, last = seen[WARM_UP], seen[N_TRIALS - 1]
    print(f"{N_TRIALS} trials of {sampler}: at trial {WARM_UP} {first}, at the last {last}")
    if N_TRIALS > WARM_UP + 201:
        early, late = (seen[n + 100].cpu_s - seen[n].cpu_s for n in (WARM_UP, N_TRIALS - 101))
        print(f"CPU seconds of the first hundred trials after {WARM_UP}: {early:.1f}, of the last hundred: {late:.1f}")
    assert last.memory_mb - first.memory_mb < MOST_MB
    assert last.n_threads <= first.n_threads
    assert last.n_files <= first.n_files + MOST_FILES
