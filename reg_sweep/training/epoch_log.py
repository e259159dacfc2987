"""Progress of a run: a line per epoch, a progress bar, and a warning when other processes slow training down."""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import numpy as np
import torch
from tqdm import tqdm

from reg_sweep.config.schema import RunConfig
from reg_sweep.runs.ranking import decimal_text
from reg_sweep.runs.record import METRIC, MetricsRow
from reg_sweep.training import turns

log = logging.getLogger(__name__)

SLOWER = 3.0  # times the fastest epoch; scheduling and thermal throttling alone rarely reach a factor of 2
MIN_BATCHES = 5  # batches in an epoch, below which its median is not used


class EpochLog:
    """A line per epoch, and a progress bar on a terminal.

    Lines are logged at INFO. If the program does not show that level, they go to standard error, so that no fit is
    silent. `label` begins each line and names the run, for several runs that write side by side. Jobs that take turns
    show no bars and no warnings, because their batches also wait for the other jobs.
    """

    def __init__(
        self, run: RunConfig, n_batches: int, n_done: int, device: torch.device, *, shown: bool, label: str = ""
    ) -> None:
        self._n_epochs, self._shown, self._label = run.epochs, shown, f"[{label}] " if label else ""
        self._batch_size = run.batch_size
        takes_turns = turns.current() is not None
        self._pace = Pace(torch.get_num_threads() if device.type == "cpu" and not takes_turns else 1)
        self._bar = tqdm(
            total=run.epochs * n_batches,
            initial=n_done * n_batches,
            disable=takes_turns or not (shown and _is_terminal(sys.stderr)),
            bar_format="{desc} |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}]{postfix}",
            mininterval=0.2,
            leave=False,
        )

    def batch(self, epoch: int, loss: float, accuracy: float) -> None:
        """Called after each batch; `loss` and `accuracy` are means over the epoch so far."""
        self._pace.batch()
        if self._bar.update():
            rate = (self._bar.format_dict["rate"] or 0.0) * self._batch_size
            self._bar.set_description_str(f"{self._label}epoch {epoch + 1}/{self._n_epochs}", refresh=False)
            self._bar.set_postfix_str(
                f"loss {decimal_text(loss)}, accuracy {accuracy:.2%}, {rate:,.0f} images/s", refresh=False
            )

    def epoch(self, row: MetricsRow) -> None:
        """Called after each epoch, once it is evaluated."""
        self._bar.clear()
        if self._shown:
            line = f"{self._label}epoch {row['epoch']:.0f}/{self._n_epochs}  train {_pair(row, 'train')}"
            for split in ("val", "test"):
                if row[f"{split}_loss"] is not None:  # type: ignore[literal-required]
                    line += f"  {split} {_pair(row, split)}"
            _show(f"{line}  {row['images_per_s']:,.0f} images/s")
        slowed = self._pace.epoch()
        if slowed is not None:
            log.warning("%s", slowed)

    def close(self) -> None:
        """Removes the progress bar."""
        self._bar.close()


def _show(line: str) -> None:
    if log.isEnabledFor(logging.INFO) and log.hasHandlers():
        log.info("%s", line)
    elif sys.stderr is not None:
        with suppress(OSError, ValueError):  # a closed or full stream must not end a run
            print(line, file=sys.stderr, flush=True)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class Pace:
    """Warns once if other processes slow training down a lot.

    An operation on several threads waits for the slowest of them, so one busy core may cost nearly all of the speed.
    The warning comes after an epoch whose median time per batch is at least `SLOWER` times that of the fastest epoch
    in this process, if the system's load average over a minute exceeds the number of cores and torch computes on
    several threads. The median ignores single slow batches.
    """

    def __init__(
        self,
        n_threads: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
        load: Callable[[], float] = lambda: os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        n_cores: int | None = None,
    ) -> None:
        self._n_threads, self._clock, self._load = n_threads, clock, load
        self._n_cores = n_cores or os.cpu_count() or 1
        self._last: float | None = None
        self._seconds: list[float] = []
        self._fastest = float("inf")
        self._is_done = n_threads == 1  # a single thread waits for no other

    def batch(self) -> None:
        """Called after each batch. An epoch's first batch is not timed: it includes the work between epochs."""
        now = self._clock()
        if self._last is not None:
            self._seconds.append(now - self._last)
        self._last = now

    def epoch(self) -> str | None:
        """Called after each epoch; returns the warning, if there is one."""
        seconds, self._seconds, self._last = self._seconds, [], None
        if self._is_done or len(seconds) < MIN_BATCHES:
            return None
        median = float(np.median(seconds))
        slower = median / self._fastest
        self._fastest = min(self._fastest, median)
        load = self._load()
        if slower < SLOWER or load <= self._n_cores:
            return None
        self._is_done = True
        return (
            f"training has become {slower:.0f} times slower while other processes are running (load average {load:.1f} "
            f"on {self._n_cores} cores): its {self._n_threads} threads wait for one another; to make it faster, stop "
            f"it and resume it with runtime.threads=1"
        )


def _pair(row: MetricsRow, split: str) -> str:
    loss, accuracy = METRIC[f"{split}_loss"].of(row), METRIC[f"{split}_accuracy"].of(row)
    assert loss is not None  # called only for evaluated splits
    return f"{decimal_text(loss)} {accuracy:.2%}"
