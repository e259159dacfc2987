"""Latencies: each network in a process of its own, or both in this one if a model can't be pickled."""

import pytest
import torch
from torch import nn

from reg_sweep.compact import measure


@pytest.mark.parametrize("stays", [False, True])
def test_both_networks_are_timed_wherever_they_compute(stays, monkeypatch):
    dense = nn.Linear(64, 64)
    if stays:
        dense.note = lambda: None  # can't be pickled
    here: list[int] = []
    turn = measure._Here.turn
    monkeypatch.setattr(measure._Here, "turn", lambda self, asked: here.append(asked["n"]) or turn(self, asked))
    threads = torch.get_num_threads()
    found = measure.latencies(dense, nn.Linear(64, 8), (64,), 0.0)
    assert {(t["batch"], t["clock"]) for t in found if t["threads"] == 1} == {
        *((1, "wall"), (1, "cpu"), (128, "wall"), (128, "cpu"))
    }
    assert all(t["dense_s"] > 0 and t["ratio"] > 0 and t["n_turns"] >= 5 for t in found)
    assert bool(here) is stays
    assert torch.get_num_threads() == threads
