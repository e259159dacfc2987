"""The verdict as data: the tables beside the page, `--json` for scripts, and reasons for a check to fail.

summary.csv and summary.md have a row for each arm, runs.csv and runs.parquet one for each run.
"""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from reg_sweep import __version__
from reg_sweep.comparison.arms import Arm, mean_of_known
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import has_schema
from reg_sweep.comparison.results import TEST_METRICS, Result
from reg_sweep.report.document import markdown_text
from reg_sweep.report.rows import ArmRow, labels_of_runs
from reg_sweep.report.sections.data_set import DataSection
from reg_sweep.runs.validation import visible
from reg_sweep.stats.estimates import Difference
from reg_sweep.stats.verdict import Verdict

SCHEMA = 1  # of what `--json` prints
Failure = Literal["worse", "undecided"]
FAILURES: tuple[Failure, ...] = get_args(Failure)


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, [str(_cell(name)) for name in names])
        writer.writeheader()
        writer.writerows({str(_cell(key)): _cell(value) for key, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet reads as a formula: a text that begins like one gets a leading apostrophe."""
    if isinstance(value, str):
        text = visible(value)
        return f"'{text}" if text.startswith(_FORMULAS) else text
    return "" if isinstance(value, float) and math.isnan(value) else value


_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # wide ones count in some languages


def write_summary_csv(path: Path, comparisons: list[Comparison]) -> None:
    """A row for each arm of each table."""
    _write_csv(path, [summary_row(arm, comparison) for comparison in comparisons for arm in comparison.arms])


def summary_row(arm: Arm, comparison: Comparison) -> dict[str, Any]:
    """An arm's columns of summary.csv; nan where a number is unknown."""
    data, shares = comparison.data, arm.weight_shares
    return {
        "table": comparison.label,
        "data": data.name,
        "fingerprint": data.fingerprint,
        "n_train": data.n_train,
        "label_noise": data.label_noise,
        "n_val": data.n_val,
        "n_test": data.n_test,
        "arm": arm.label,
        **_settings(arm.config),
        "n_seeds": len(arm.replicates),
        "n_diverged": arm.n_by_status["diverged"],
        "n_pruned": arm.n_by_status["pruned"],
        "n_failed": arm.n_by_status["failed"],
        "n_running": arm.n_by_status["running"],
        "is_baseline": arm is comparison.baseline,
        "is_best": arm is comparison.best and comparison.n_seeds > 1,
        "epoch": comparison.epoch,
        **_estimates(arm, comparison),
        "metric": comparison.metric.name,
        **_contrast(arm, comparison),
        "selector": comparison.selector.name,
        "selector_mean": arm.score,
        "zero_share": shares.zero,
        "near_zero_share": shares.near_zero,
        "dead_kernel_share": shares.dead,
        "seconds": mean_of_known(r.seconds for r in arm.replicates),
        "best_test_accuracy_optimistic": arm.best_test,
    }


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Norm, penalty and lambdas; for another program's runs, their settings."""
    if not has_schema(config):
        return {f"config.{name}": value for name, value in config.items()}
    return {
        "norm": config["norm"]["name"],
        "l1": float(config["l1"]),
        "l2": float(config["l2"]),
        "penalty": config["penalty"]["name"],
    }


def _estimates(arm: Arm, comparison: Comparison) -> dict[str, float]:
    cells: dict[str, float] = {}
    for metric in comparison.metrics:
        e = arm.estimates[metric]
        cells |= {
            metric.name: e.mean if e else math.nan,
            f"{metric.name}_ci_low": e.ci_low if e else math.nan,
            f"{metric.name}_ci_high": e.ci_high if e else math.nan,
            f"{metric.name}_sd": e.sd if e else math.nan,
        }
    return cells


def _contrast(arm: Arm, comparison: Comparison) -> dict[str, Any]:
    c = arm.contrast
    nothing = Difference(math.nan, math.nan, math.nan, math.nan, 0)
    shared, alone, within = (c.difference, c.alone, c.equivalence) if c is not None else (nothing, nothing, nothing)
    return {
        "difference": shared.mean,
        "difference_ci_low": shared.ci_low,
        "difference_ci_high": shared.ci_high,
        "p_corrected": shared.p,
        "alone_ci_low": alone.ci_low,
        "alone_ci_high": alone.ci_high,
        "p_alone": alone.p,
        "margin": math.nan if comparison.margin is None else comparison.margin,
        "equivalence_ci_low": within.ci_low,
        "equivalence_ci_high": within.ci_high,
        "p_equivalence": within.p,
        "p_not_worse": math.nan if c is None else c.p_not_worse,
        "p_divergence": math.nan if arm.finding is None else arm.finding.p_divergence,
        "n_pairs": c.pairs if c else 0,
        "n_seeds_of_baseline": comparison.n_seeds,
        "is_ranked": arm.is_ranked or arm is comparison.baseline,
        "selector_lead": arm.lead,
        "test": _test(arm, comparison),
        "verdict": "" if arm.verdict is None else arm.verdict.value,
    }


def _test(arm: Arm, comparison: Comparison) -> str:
    """The test behind the verdict."""
    finding = arm.finding
    if finding is not None and not (math.isnan(finding.p_divergence) or finding.is_fair_sample):
        return "sign test of divergence"
    if arm.contrast is None or math.isnan(arm.contrast.difference.p):
        return ""
    if arm.contrast.by_image:
        return "McNemar"
    test = "paired t" if comparison.is_paired else "Welch's t"
    return f"moderated {test}" if comparison.variance == "moderated" else test


_RUN_METRICS = tuple(metric.on(split) for split in ("test", "val", "train") for metric in TEST_METRICS)


def run_table(results: list[Result], comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """A row for each run, of any status; None where a value is not recorded."""
    labels = labels_of_runs(comparisons)
    return [
        {
            "folder": f"{r.path}, {r.place}" if r.place else str(r.path),
            "status": r.status,
            "table": labels.get(r.key, (None, None))[0],
            "arm": labels.get(r.key, (None, None))[1] or None,
            "seed": r.seed,
            **{key: value for key, value in _settings(r.config).items() if key != "penalty"},
            "fingerprint": r.data.fingerprint if r.data else None,
            "n_train": r.data.n_train if r.data else None,
            "label_noise": r.data.label_noise if r.data else None,
            "n_epochs": len(r.curves),
            **{metric.name: r.value(metric) for metric in (r.columns if r.is_foreign else _RUN_METRICS)},
            "seconds": r.seconds,
            "command": r.command,
            "message": r.message,
        }
        for r in results
    ]


def write_runs_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table of runs as text."""
    _write_csv(path, rows)


def write_runs_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """The table of runs with typed columns, if pyarrow is installed; else nothing."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [visible(v) if isinstance(v := row.get(name), str) else v for row in rows]
        found = {type(value) for value in values if value is not None}
        kind = float if found == {int, float} else found.pop() if len(found) == 1 else str
        columns[name] = _arrow(pa, values, kind if kind in (int, float) else str)
    parquet.write_table(pa.table(columns), path)


def _arrow(pa: Any, values: list[Any], kind: type) -> Any:
    """An Arrow array of numbers or texts with gaps, from its buffers: `pa.array` would import pandas, which is slow."""
    gaps = pa.py_buffer(np.packbits([v is not None for v in values], bitorder="little").tobytes())
    if kind is not str:
        whole = np.array([0 if v is None else v for v in values], np.int64 if kind is int else np.float64)
        return pa.Array.from_buffers(
            pa.int64() if kind is int else pa.float64(), len(values), [gaps, pa.py_buffer(whole)]
        )
    texts = [b"" if v is None else str(v).encode(errors="backslashreplace") for v in values]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(values), [gaps, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])


def _columns(section: DataSection) -> list[str]:
    metrics = [
        f"{title.lower() if section.has_images else title}{f', {unit}' if unit else ''}"
        for title, unit in section.headings
    ]
    weights = ["exactly zero, % of weights", "near zero, % of weights"] if section.has_images else []
    corrected = [f"{section.level} interval (corrected)", "p (corrected)"]
    return ["arm", "seeds", *metrics, "difference", *corrected, "verdict", *weights]


def write_summary_md(path: Path, sections: list[DataSection], verdicts: list[str], sample: str) -> None:
    """The verdict, the table of arms and what they share in Markdown; `sample` is the offline sample's warning."""
    lines = [markdown_text(sample), ""] if sample else []
    for section in sections:
        if len(sections) > 1:
            lines += [f"### {markdown_text(section.label)}", ""]
        lines += [f"**{markdown_text(section.finding)}** {markdown_text(section.evidence)}".strip(), ""]
        if section.commands:
            lines += [f"{section.to_do}:", "", *(f"    {command}" for command in section.commands), ""]
        lines += [markdown_text(text) for text in (section.compared, section.tally) if text]
        lines += [f"{section.n_runs}: {section.counts}.", ""]
        columns = _columns(section)
        marks = ["---" if name in ("arm", "verdict") else "---:" for name in columns]
        lines += ["| " + " | ".join(map(markdown_text, columns)) + " |", f"|{'|'.join(marks)}|"]
        cells = (_cells(row)[: len(columns)] for row in section.rows)
        lines += ["| " + " | ".join(map(markdown_text, its)) + " |" for its in cells]
        lines += ["", *(f"- {markdown_text(note)}" for note in section.notes), ""]
        lines += [f"All arms share: {markdown_text(_shared(section))}.", ""]
    path.write_text("\n".join(lines or verdicts).strip() + "\n", encoding="utf-8", errors="backslashreplace")


def _cells(row: ArmRow) -> list[str]:
    seeds = f"{row.n} ({row.others})" if row.others else str(row.n)
    metrics = (f"{m.mean} [{m.interval}]" if m.interval else m.mean for m in row.metrics)
    contrast = row.contrast
    verdict = f"{row.verdict} ({row.details})" if row.details else row.verdict
    shown = (contrast.difference, contrast.interval, contrast.p_adjusted, verdict, row.zero, row.near)
    return [row.label, seeds, *metrics, *shown]


def _shared(section: DataSection) -> str:
    """'421,642 parameters; epochs 20; optimizer: name sgd, lr 0.025': what all arms share, by group, unset left out."""
    groups: dict[str, list[str]] = {}
    for key, value in section.held_fixed:
        group, _, name = key.partition(".")
        if value != "none" or name == "name":  # norm=none is a choice
            groups.setdefault(group, []).append(f"{name} {value}".strip())
    parts = [f"{section.n_parameters:,} parameters"] if section.n_parameters else []
    parts += [
        f"{group} {found[0]}" if len(found) == 1 else f"{group}: {', '.join(found)}" for group, found in groups.items()
    ]
    return "; ".join(parts)


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
    return json.dumps(whole, indent=2, allow_nan=False)  # ASCII only: safe for any terminal and file name


def failures(tables: Sequence[TableFacts], fail_if: Sequence[Failure]) -> list[str]:
    """Reasons for a check to fail, one per line: an arm shown worse, an undecided arm, or no arm to judge.

    An exploratory arm is not judged: it has no verdict to fail on.
    """
    found, n_judged, n_exploratory = [], 0, 0
    for table in tables:
        against = f"against the baseline, {table['baseline']}" + (f", on {table['label']}" if len(tables) > 1 else "")
        for arm in table["arms"]:
            if not arm["verdict"]:
                continue
            verdict = Verdict.of(arm["verdict"])
            if verdict is Verdict.EXPLORATORY:
                n_exploratory += 1
                continue
            n_judged += 1
            if "worse" in fail_if and verdict.tone == "worse":
                found.append(f"'{verdict}' shown for {arm['arm']} {against}")
            if "undecided" in fail_if and not verdict.is_settled:
                found.append(f"'{verdict}' for {arm['arm']} {against}")
    if "undecided" in fail_if and n_judged == 0:
        why = ": all figures are exploratory" if n_exploratory else ""
        found.append(f"no arm is judged against a baseline{why}")
    return found


def _known(value: object) -> object:
    """A number that JSON can hold, or None; any other value unchanged."""
    return None if value == "" or (isinstance(value, float) and not math.isfinite(value)) else value
