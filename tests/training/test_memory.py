"""Memory kept between steps: no page is allocated twice, and all are returned at the end."""

import sys
from pathlib import Path

import numpy as np
import pytest

from reg_sweep.training.devices import kept_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has these thresholds")

N_BYTES = 8 * 2**20


@pytest.fixture
def _plain_malloc(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def resident_bytes() -> int:
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.usefixtures("_plain_malloc")
def test_what_was_kept_is_given_back():
    with kept_memory():
        big = [np.ones(2 * N_BYTES, dtype=np.uint8) for _ in range(8)]
        del big
        while_kept = resident_bytes()
    assert while_kept - resident_bytes() > 8 * N_BYTES


def test_thresholds_of_the_environment_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    called = []
    monkeypatch.setattr("reg_sweep.training.devices._set", lambda *arguments: called.append(arguments))
    with kept_memory():
        pass
    assert called == []
