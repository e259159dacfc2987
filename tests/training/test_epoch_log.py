"""The warning about a slow run, with a fake clock and load."""

import io
import logging
import math
import sys

import pytest
import tiny
import torch

from reg_sweep.training import epoch_log
from reg_sweep.training.epoch_log import EpochLog, Pace

ROW = dict.fromkeys(epoch_log.METRIC, 0.5) | {"epoch": 1, "images_per_s": 9.0}


class Machine:
    """Four cores, with a simulated time per batch."""

    def __init__(self, n_threads: int = 4) -> None:
        self.now, self.load = 0.0, 1.0
        self.pace = Pace(n_threads, clock=lambda: self.now, load=lambda: self.load, n_cores=4)

    def epoch(self, seconds: float, *, load: float = 1.0, n_batches: int = 20, n_long: int = 0) -> str | None:
        """The warning after an epoch. The first `n_long` batches take a minute each, and so does each evaluation."""
        self.now, self.load = self.now + 60, load
        for i in range(n_batches):
            self.now += 60 if i < n_long else seconds
            self.pace.batch()
        return self.pace.epoch()


def test_a_collapse_beside_other_processes_is_told_once_with_its_remedy():
    machine = Machine()
    assert machine.epoch(0.02) is None
    assert machine.epoch(0.02) is None
    assert machine.epoch(0.2, load=9.5) == (
        "training has become 10 times slower while other processes are running (load average 9.5 on 4 cores): "
        "its 4 threads wait for one another; to make it faster, stop it and resume it with runtime.threads=1"
    )
    assert machine.epoch(0.4, load=20) is None


@pytest.mark.parametrize(
    ("n_threads", "second"),
    [
        (4, {"seconds": 0.05, "load": 9.5}),  # slower, but not by enough
        (4, {"seconds": 0.2, "load": 4.0}),  # slower, but no other process needs the cores
        (4, {"seconds": 0.02, "load": 9.5}),  # busy, but no slower
        (4, {"seconds": 0.02, "load": 9.5, "n_long": 8}),  # only a few slow batches
        (4, {"seconds": 0.2, "load": 9.5, "n_batches": 4}),  # too few batches to judge
        (1, {"seconds": 0.2, "load": 9.5}),  # a single thread waits for no other
    ],
)
def test_nothing_is_told_without_a_collapse_or_a_remedy(n_threads, second):
    machine = Machine(n_threads)
    assert machine.epoch(0.02) is None
    assert machine.epoch(**second) is None


def test_the_fastest_epoch_so_far_is_the_measure():
    machine = Machine()
    assert machine.epoch(0.2, load=9.5) is None
    assert machine.epoch(0.02) is None
    assert "10 times slower" in machine.epoch(0.2, load=9.5)


def test_the_real_load_and_cores_are_numbers():
    pace = Pace(2)
    for _ in range(3):
        for _ in range(epoch_log.MIN_BATCHES + 1):
            pace.batch()
        pace.epoch()
    assert math.isfinite(pace._fastest)


@pytest.mark.parametrize(("device", "n_warnings"), [("cpu", 1), ("meta", 0)])
def test_a_run_on_the_cpu_warns_after_its_epochs_line(device, n_warnings, monkeypatch, caplog):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    machine = Machine()
    monkeypatch.setattr(epoch_log, "Pace", lambda n: Pace(n, clock=lambda: machine.now, load=lambda: 9.5, n_cores=4))
    shown = EpochLog(tiny.tiny_run(), 20, 0, torch.device(device), shown=True)
    with caplog.at_level(logging.INFO):
        for seconds in (0.02, 0.2, 0.2):
            for _ in range(20):
                machine.now += seconds
                shown.batch(0, 0.5, 0.5)
            shown.epoch(ROW)
    shown.close()
    assert caplog.text.count("runtime.threads=1") == n_warnings
    assert caplog.text.count("epoch 1/2  train") == 3


def log_an_epoch(label: str = "") -> None:
    shown = EpochLog(tiny.tiny_run(), 20, 0, torch.device("cpu"), shown=True, label=label)
    shown.batch(0, 0.5, 0.5)
    shown.epoch(ROW)
    shown.close()


def test_a_program_that_shows_no_log_gets_its_lines_on_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(epoch_log.log, "isEnabledFor", lambda level: False)
    log_an_epoch()
    assert capsys.readouterr().err.startswith("epoch 1/2  train 0.5000 50.00%")


def test_a_line_says_whose_it_is_where_there_are_several(caplog):
    with caplog.at_level(logging.INFO):
        log_an_epoch("3")
    assert caplog.messages[0].startswith("[3] epoch 1/2  train")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed()], ids=["none", "closed"])
def test_a_standard_error_that_is_not_there_ends_no_run(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(epoch_log.log, "isEnabledFor", lambda level: False)
    log_an_epoch()
