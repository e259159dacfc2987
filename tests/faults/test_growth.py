"""A sweep of many trials in one process holds no more memory at its end than after its first.

By default a few trials; `make faults` runs REG_SWEEP_TRIALS of them.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_apps import APPS, STUDY, X, Y, load, states

N_TRIALS = int(os.environ.get("REG_SWEEP_TRIALS", "60"))
WARM_UP = 20  # trials after which everything is imported and cached once
MOST_MB = 50


def resident_mb(pid: int) -> float:
    """The process's resident memory; 0 where it has ended."""
    try:
        pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_memory_does_not_grow_with_the_trials(tmp_path):
    command = [sys.executable, str(APPS / "sphere.py"), *STUDY, X, Y, f"hydra.sweeper.n_trials={N_TRIALS}"]
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
    before = after = 0.0
    while process.poll() is None:
        now = resident_mb(process.pid)
        if not before and (tmp_path / "out" / str(WARM_UP)).exists():
            before = now
        if not after and (tmp_path / "out" / str(N_TRIALS - 1)).exists():
            after = now  # what the end loads, to tell importances, is no growth
        time.sleep(0.02)
    assert process.wait() == 0, said.read_text()
    assert len(states(load(tmp_path / "out"))) == N_TRIALS
    assert before
    assert after
    print(f"{N_TRIALS} trials: {before:.0f} MB after {WARM_UP}, {after:.0f} MB at the last")
    assert after - before < MOST_MB
