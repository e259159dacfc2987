"""Finding the sources of runs under files and folders, told by their contents, and reading each by its reader."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reg_sweep.readers.cells import read_table
from reg_sweep.readers.paths import path_settings
from reg_sweep.readers.run import ForeignRun, Wanted
from reg_sweep.readers.tables import table_runs
from reg_sweep.runs.validation import visible


@dataclass
class Found:
    """The runs of all sources; what each source is, by path; what was left out, and why."""

    runs: list[ForeignRun] = field(default_factory=list)
    sources: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt", ".tab"}


def find_foreign(roots: Sequence[str | Path], wanted: Wanted) -> Found:
    """The runs of other programs under these files and folders.

    Raises:
        ReadError: a file that was named itself can't be read.
    """
    found = Found()
    for root in map(Path, roots):
        if root.is_file():
            _read_table(root, root.parent, wanted, found)
    return found


def _read_table(path: Path, root: Path, wanted: Wanted, found: Found) -> None:
    table = read_table(path)
    form, runs = table_runs(table, wanted)
    if not any("seed" in run.settings for run in runs) and path.parent != root:
        said = path_settings(path.relative_to(root))
        for run in runs:
            run.settings = said | run.settings
    if table.noted:
        found.problems.append(visible(table.noted))
    found.sources[path] = f"a table, {form}"
    found.runs += runs
