"""The verdict as data, for scripts and checks: what `--json` prints, and what `--fail-if` fails on."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from reg_sweep import __version__
from reg_sweep.comparison.compare import Comparison
from reg_sweep.report.exports import summary_row
from reg_sweep.report.sections.data_set import DataSection
from reg_sweep.stats.verdict import Verdict

SCHEMA = 1
Failure = Literal["worse", "undecided"]
FAILURES: tuple[Failure, ...] = get_args(Failure)


class TableFacts(TypedDict):
    """The findings on one data set; `arms` have the columns of summary.csv, null where a value is unknown."""

    label: str
    metric: str
    epoch: str
    margin: float | None
    n_seeds: int
    baseline: str | None
    best: str | None
    finding: str
    evidence: str
    notes: list[str]
    commands: list[str]
    arms: list[dict[str, Any]]


def table_facts(comparison: Comparison, section: DataSection) -> TableFacts:
    """The facts of a comparison; its sentences are the page's."""
    base = comparison.baseline
    best = comparison.best if comparison.n_seeds > 1 else None  # one seed has no best
    following = section.outlook.following if section.outlook is not None else None
    return {
        "label": comparison.label,
        "metric": comparison.metric.name,
        "epoch": comparison.epoch,
        "margin": comparison.margin,
        "n_seeds": comparison.n_seeds,
        "baseline": None if base is None else base.label,
        "best": None if best is None else best.label,
        "finding": section.finding,
        "evidence": section.evidence,
        "notes": section.notes,
        "commands": section.commands or ([] if following is None else following.commands),
        "arms": [
            {key: _known(value) for key, value in summary_row(arm, comparison).items()} for arm in comparison.arms
        ],
    }


def as_json(page: Path, verdict: str, tables: Sequence[TableFacts]) -> str:
    """The verdict as JSON: `schema` rises when a key's meaning changes; keys may be added."""
    whole = {
        "schema": SCHEMA,
        "reg_sweep": __version__,
        "page": str(page),
        "verdict": verdict.splitlines(),
        "tables": tables,
    }
    return json.dumps(whole, indent=2, allow_nan=False)  # ASCII alone: any terminal and any file name


def failures(tables: Sequence[TableFacts], fail_if: Sequence[Failure]) -> list[str]:
    """Reasons for a check to fail, one a line: an arm shown worse, an undecided arm, or no arm to judge."""
    found = []
    for table in tables:
        against = f"against the baseline, {table['baseline']}" + (f", on {table['label']}" if len(tables) > 1 else "")
        for arm in table["arms"]:
            if not arm["verdict"]:
                continue
            verdict = Verdict.of(arm["verdict"])
            if verdict is Verdict.EXPLORATORY:  # no verdict, so nothing to fail on
                continue
            if "worse" in fail_if and verdict.tone == "worse":
                found.append(f"'{verdict}' shown for {arm['arm']} {against}")
            if "undecided" in fail_if and not verdict.is_settled:
                found.append(f"'{verdict}' for {arm['arm']} {against}")
    n_judged = sum(bool(arm["verdict"]) for table in tables for arm in table["arms"])
    if "undecided" in fail_if and n_judged == 0:
        found.append("no arm is judged against a baseline")
    return found


def _known(value: object) -> object:
    """A number that JSON can hold, or None; any other value unchanged."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value
