"""The runs of a chart that W&B exports: one row per step, and per run its mean, minimum and maximum as columns."""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from reg_sweep.readers import names
from reg_sweep.readers.cells import Column, Table
from reg_sweep.readers.foreign import ForeignRun, ReadError, Series, Wanted, text
from reg_sweep.readers.names import path_settings

ARM = "arm"  # the setting of a table whose columns name what is compared
_BETWEEN = " - "  # a run's name and its metric
_BOUNDS = ("__MIN", "__MAX")
_REPEATED = re.compile(r" \(column \d+\)$")  # the mark of a second column of the same name
_NUMBERED = re.compile(r"(.*[^\d\W_])[-_ ./]+(?:s|run|rep)?0*(\d{1,9})", re.IGNORECASE)


def chart_runs(table: Table, wanted: Wanted) -> list[ForeignRun] | None:
    """The runs of an exported chart; None where the table is not one.

    Raises:
        ReadError: the runs' names hold no seed.
    """
    step, *others = table.columns.values()
    columns = [c for c in others if not c.name.endswith(_BOUNDS)]
    has_bounds = len(columns) < len(others)
    if not columns or not step.is_numeric or not all(_BETWEEN in c.name for c in columns):
        return None
    if not (has_bounds or names.role(step.name) == "step"):
        return None
    histories: dict[str, dict[str, Series]] = {}
    for place, column in enumerate(columns):
        run, _, metric = _REPEATED.sub("", column.name).rpartition(_BETWEEN)
        key = f"{place}" if metric in histories.get(run, {}) else ""  # another run of the same name
        if not metric.startswith("_"):
            histories.setdefault(f"{run}\0{key}" if key else run, {})[metric] = _series(step, column)
    settings = _settings(table, [name.partition("\0")[0] for name in histories], wanted)
    clock = "epoch" if "epoch" in step.name.lower() else "step"
    return [
        ForeignRun(
            "table", table.path, its, history=history, place=f"run {text(name.partition(chr(0))[0])}", clock=clock
        )
        for (name, history), its in zip(histories.items(), settings, strict=True)
    ]


def _series(step: Column, column: Column) -> Series:
    assert step.numbers is not None
    known = [
        (float(s), float(v))
        for s, v in zip(step.numbers, column.values, strict=True)
        if isinstance(v, float) and s == s
    ]
    return Series.of([s for s, _ in known], [v for _, v in known])


def _settings(table: Table, runs: list[str], wanted: Wanted) -> list[dict[str, Any]]:
    """The settings in runs' names: `key=value`, a seed, and the rest as the arm."""
    found = []
    for run in runs:
        said = path_settings(PurePath(f"{run}.csv"))
        found.append({ARM if key == "folder" else key: value for key, value in said.items()})
    if wanted.seed not in (None, "seed", "none") or all("seed" in its for its in found):
        return found
    numbered = [_NUMBERED.fullmatch(str(its.get(ARM, ""))) for its in found]
    cut = [(match[1], int(match[2])) for match in numbered if match is not None]
    if len(cut) == len(runs) and (_repeat(arm for arm, _ in cut) or _repeat(seed for _, seed in cut)):
        return [its | {ARM: arm, "seed": seed} for its, (arm, seed) in zip(found, cut, strict=True)]
    if wanted.seed == "none":
        return found
    raise ReadError(
        f"{table.path}: its columns are runs, and their names must give arm and seed, such as base-1, got {runs[0]!r}: "
        "rename the runs, ungroup the chart, or export W&B's table of runs, which has a row for each"
    )


def _repeat(values: Iterable[object]) -> bool:
    found = list(values)
    return len(set(found)) < len(found)
