import pytest


@pytest.fixture
def timed_here(monkeypatch) -> None:
    """Latencies are measured in this process: no other has to import torch first."""
    monkeypatch.setattr("reg_sweep.compact.measure._alone", lambda models, stack: [])
