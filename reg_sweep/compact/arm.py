"""The compact networks of an arm: of all its runs, with their size and speed in one sentence."""

import json
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reg_sweep.compact.command import compact_run
from reg_sweep.compact.loading import FOLDER, RECORD_FILE
from reg_sweep.config.schema import ConfigError, DataError
from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import RecordError

SECONDS = 1.0  # for each latency of each network


def compact_arm(directories: Sequence[Path], seconds: float = SECONDS) -> str:
    """Writes the compact network of each run; their multiply-adds and speed, and which is best on val, in words.

    A run without one is named with the reason.
    """
    lines: list[str] = []
    records: dict[Path, dict[str, Any]] = {}
    for directory in directories:
        try:
            compact_run(directory, seconds=seconds)
        except (ConfigError, DataError, RecordError, OSError) as error:
            lines.append(f"no compact network: {error}")
            continue
        records[directory] = json.loads((directory / FOLDER / RECORD_FILE).read_text(encoding="utf-8"))
    if records:
        shares = [100 * share(record) for record in records.values()]
        ratios = [speed(record) for record in records.values()]
        best = max(records, key=_on_val)
        lines.append(
            f"compact networks of {len(records)} seeds: {_spread(shares, '.0f')}% of the multiply-adds,"
            f" {_spread(ratios, '.2f')} times as fast (batch 128, one thread)\n"
            f"the best of them on val: {os.path.relpath(best / FOLDER)}"
        )
    return "\n".join(lines)


def share(record: dict[str, Any]) -> float:
    """The share of the dense network's multiply-adds that a compact one needs."""
    dense, smaller = (record["sizes"][which]["multiply_adds"] for which in ("dense", "compact"))
    return float(smaller / dense)


def speed(record: dict[str, Any], norms: str = "kept", batch: int = 128) -> float:
    """How many times as fast as the dense network a compact one is on one thread, by the process's own time."""
    wanted = (norms, batch, 1, "cpu")
    found = (t for t in record["latencies"] if (t["norms"], t["batch"], t["threads"], t["clock"]) == wanted)
    return next((float(t["ratio"]) for t in found), math.nan)


def _on_val(directory: Path) -> float:
    last = read_record(directory)["last"]
    return (None if last is None else last["val_accuracy"]) or 0.0


def _spread(values: Sequence[float], form: str) -> str:
    """'30 (28 to 33)': the median and the range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}}" if len(values) == 1 else f"{middle:{form}} ({low:{form}} to {high:{form}})"
