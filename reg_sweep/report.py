"""Entry: a tree of runs -> one self-contained page, its figures, summary.csv, runs.csv and summary.md.

python -m reg_sweep.report outputs/
"""

import argparse
import csv
import math
import os
import re
import shlex
import sys
import webbrowser
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tqdm import tqdm

from reg_sweep import __version__, figures, stats
from reg_sweep.arms import (
    EPOCHS,
    TEST_METRICS,
    TRIAL_STATES,
    Arm,
    ArmError,
    Contrast,
    Result,
    Study,
    Table,
    Trial,
    flatten,
    lambda_text,
    make_tables,
    read_studies,
    result,
)
from reg_sweep.figures import LambdaPoint, Line, Picture, TrialPoint
from reg_sweep.predictions import Mistakes, class_names, find_test_images, mistakes, read_predictions
from reg_sweep.records import STATUSES, WEIGHTS_FILE, RecordError, find_runs, read_run

Array = NDArray[Any]

NEAR_ZERO = 1e-3  # |w| below it counts as near zero; a dead kernel has no weight above it
N_COLOURED = figures.N_COLOURS
N_FAMILIES = 4  # lambda studies drawn for each of l1 and l2
N_WITH_MISTAKES = 24  # arms whose mistakes are shown
N_WORST = 25
N_RUNS_LISTED = 500
N_PROBLEMS_LISTED = 30
N_STUDIES = 12
N_PARAMETERS = 8  # of a study, drawn
N_TRIALS_LISTED = 10
_TILES_IN_A_ROW = 32
_DASH = "–"


class ReportError(Exception):
    """Nothing to report on. The message is one line: what, why, remedy."""


@dataclass(frozen=True)
class Report:
    """Where the page is, and its verdict in plain text: a line for each data set."""

    page: Path
    verdict: str


def write_report(
    roots: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    baseline: str | None = None,
    metric: str = "test_accuracy",
    epoch: str = "last",
    margin: float = 0.001,
    progress: bool | None = None,
) -> Report:
    """Reads every run under `roots` and writes the report into `out` (default: report/ in the first root).

    `baseline` is an arm's label, or settings that one arm has (`norm=bn,l1=0,l2=0`). `margin` is the equivalence
    margin, in the metric's own unit. `progress` shows a bar; None asks whether stderr is a terminal.

    Raises:
        ReportError: a root is missing or holds no run, or `margin` is not above 0.
        ArmError: `baseline` names no arm, or several.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ReportError(f"--margin must be a finite number above 0, got {margin}: 0.001 is 0.1 points of accuracy")
    folder = Path(out) if out is not None else Path(roots[0]) / "report"
    problems: list[str] = []
    is_silent = None if progress is None else not progress
    results = _read(roots, problems, is_silent)
    tables = make_tables(results, metric=metric, epoch=epoch, margin=margin, baseline=baseline, problems=problems)
    studies = [_Sweep(n, s, results) for n, s in enumerate(read_studies(*roots, problems=problems), 1)]
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(tables), desc="drawing", unit="table", disable=is_silent, leave=False) as bar:
        sections = []
        for number, table in enumerate(tables, 1):
            own = [s for s in studies if s.saw(table.data)]
            table.notes += [note for s in own[:N_STUDIES] if (note := s.warning())]
            sections.append(_Section(number, table, folder, problems, own).build())
            bar.update()
    homeless = [s for s in studies if not any(s.saw(table.data) for table in tables)]
    n_by_status = Counter(r.status for r in results)
    verdicts = [f"{s['finding']} {s['evidence']}".strip() for s in sections] or [_nothing_to_compare(n_by_status)]
    page = folder / "index.html"
    text = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            sections=sections,
            verdicts=verdicts,
            studies=[s.build(folder) for s in homeless[:N_STUDIES]],
            n_studies_left_out=max(len(homeless) - N_STUDIES, 0),
            counts=_counts(n_by_status),
            n_runs=len(results),
            roots=[str(r) for r in roots],
            problems=problems[:N_PROBLEMS_LISTED],
            n_problems=len(problems),
            runs=_run_rows(results, tables, folder, roots),
            n_runs_listed=min(len(results), N_RUNS_LISTED),
            themes=figures.THEMES,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            version=__version__,
            textbook=_textbook(folder) if any(t.measured for t in tables) else [],
        )
    )
    page.write_text(text, encoding="utf-8")
    _write_summary_csv(folder / "summary.csv", tables)
    _write_runs_csv(folder / "runs.csv", results, tables)
    _write_summary_md(folder / "summary.md", sections, verdicts)
    return Report(page, "\n".join(verdicts))


def _read(roots: Sequence[str | Path], problems: list[str], is_silent: bool | None) -> list[Result]:
    for root in roots:
        if not Path(root).is_dir():
            raise ReportError(f"{root} is not a folder: name the folder that holds the runs, such as outputs/")
    folders = list(dict.fromkeys(find_runs(*roots)))
    results = []
    for directory in tqdm(folders, desc="reading", unit="run", disable=is_silent, leave=False):
        try:
            results.append(result(read_run(directory)))
        except (RecordError, OSError) as error:
            problems.append(str(error))
    if not results:
        where = ", ".join(map(str, roots))
        detail = f" ({len(problems)} unreadable: {problems[0]})" if problems else ""
        raise ReportError(f"no runs under {where}{detail}: train one with python -m reg_sweep.train")
    return results


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reg_sweep"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda n: f"{n:,}"
    environment.filters["number"] = lambda_text
    # A label may break between its parts, not inside one.
    environment.filters["unbroken"] = lambda text: re.sub(r"(?<=L[12]) (?=\d)| (?=·)", "\u00a0", text)
    return environment


# ---- numbers as text


def _is_known(x: float | None) -> bool:
    return x is not None and not math.isnan(x)


def _score(metric: str, x: float, *, unit: bool = False) -> str:
    """A metric's value: accuracy in %, loss as it is."""
    if not _is_known(x):
        return _DASH
    return (f"{100 * x:.2f}" + (" %" if unit else "")) if metric.endswith("accuracy") else f"{x:.4f}"


def _signed(metric: str, x: float) -> str:
    """A difference: in points of accuracy, or in loss."""
    if not _is_known(x):
        return _DASH
    text = f"{100 * x:+.2f}" if metric.endswith("accuracy") else f"{x:+.4f}"
    return text.replace("-", "−")


def _points(metric: str) -> str:
    return " points" if metric.endswith("accuracy") else ""


def _p(p: float) -> str:
    return _DASH if not _is_known(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _p_equation(p: float) -> str:
    return f"p {_p(p)}" if p < 0.001 else f"p = {_p(p)}"


def _interval(metric: str, estimate: stats.Estimate) -> str:
    """'99.40 to 99.54', cut at what an accuracy or a loss can be; empty with one run."""
    if not _is_known(estimate.ci_low):
        return ""
    high = min(estimate.ci_high, 1.0) if metric.endswith("accuracy") else estimate.ci_high
    return f"{_score(metric, max(estimate.ci_low, 0.0))} to {_score(metric, high)}"


def _count(n: int, noun: str, plural: str | None = None) -> str:
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def _counts(n_by_status: Counter[str]) -> str:
    return ", ".join(f"{n_by_status[s]:,} {s}" for s in (*STATUSES[1:], STATUSES[0]) if n_by_status[s])


def _words(metric: str) -> str:
    return metric.replace("_", " ")


# ---- the verdict


def _nothing_to_compare(n_by_status: Counter[str]) -> str:
    return f"No complete run yet ({_counts(n_by_status)}): there is nothing to compare."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _verdict(table: Table) -> tuple[str, str]:
    """What was found, in a sentence, and its evidence: from the numbers alone."""
    best, base, metric = table.best, table.baseline, table.metric
    if not table.measured or base is None:
        return _nothing_to_compare(table.n_by_status), ""
    if len(table.measured) == 1:
        evidence = f"{_capital(_estimate_text(base, metric))}. There is nothing to compare it with."
        return f"Only one arm has complete runs: {base.label}.", evidence
    if best is None:
        return "Every arm has a run that diverged, so none is named best.", ""
    if best is base:
        return _verdict_for_baseline(table, base)
    versus = f"the baseline, {base.label}"
    if best.contrast is None:
        evidence = f"{_capital(_estimate_text(best, metric))}, against {_estimate_text(base, metric)}."
        return f"{best.label} is the best arm, but shares no seed with {versus}.", evidence
    finding = {
        "better": f"{best.label} is better than {versus}.",
        "worse": f"{best.label} looked best on {table.selected_on}, but is worse than {versus}.",
        "no difference shown": f"No difference shown between the best arm, {best.label}, and {versus}.",
        "shown equivalent": f"The best arm, {best.label}, is shown equivalent to {versus}, within {_margin(table)}.",
    }[best.contrast.verdict]
    return finding, _evidence(best, best.contrast, table)


def _verdict_for_baseline(table: Table, base: Arm) -> tuple[str, str]:
    finding = f"No arm beats the baseline, {base.label}, on {table.selected_on}."
    if not table.has_plain_baseline:
        finding = f"{base.label} is the best of {len(table.measured)} arms on {table.selected_on}."
    rival = next((a for a in table.measured if a.contrast is not None), None)
    if rival is None or rival.contrast is None:
        return finding, f"{_capital(_estimate_text(base, table.metric))}; no other arm shares a seed with it."
    found = {
        "better": "is better on test",
        "worse": "is worse",
        "no difference shown": "shows no difference",
        "shown equivalent": f"is shown equivalent within {_margin(table)}",
    }[rival.contrast.verdict]
    alone = "" if table.has_plain_baseline else "No arm is without L1 and L2, so the others are compared with it. "
    return finding, f"{alone}The next, {rival.label}, {found}. {_evidence(rival, rival.contrast, table)}"


def _evidence(arm: Arm, contrast: Contrast, table: Table) -> str:
    """'Test accuracy 99.41 % against 99.30 %: +0.11 points (95% interval +0.03 to +0.19; 3 seeds; p = 0.030).'"""
    d, metric = contrast.difference, table.metric
    facts = []
    if _is_known(d.ci_low):
        facts.append(f"95% interval {_signed(metric, d.ci_low)} to {_signed(metric, d.ci_high)}")
    uneven = len(arm.replicates) != contrast.n_seeds
    facts.append(_count(contrast.n_seeds, "seed") + (" in common" if uneven else ""))
    if _is_known(contrast.p_adjusted):
        n_compared = sum(a.contrast is not None for a in table.arms)
        test = "McNemar's " if contrast.by_image else ""
        corrected = f" after Holm's correction over {n_compared:,} arms" if n_compared > 1 else ""
        facts.append(f"{test}{_p_equation(contrast.p_adjusted)}{corrected}")
    else:
        facts.append("too few for an interval")
    means = f"{_score(metric, contrast.mean, unit=True)} against {_score(metric, contrast.baseline_mean, unit=True)}"
    text = f"{_capital(_words(metric))} {means}: {_signed(metric, d.mean)}{_points(metric)} ({'; '.join(facts)})."
    if contrast.n_seeds == 1:
        text += " One seed compares two trained models, not two methods: add seeds, such as seed=1,2,3."
    return text


def _margin(table: Table) -> str:
    if table.higher_is_better:
        return f"±{100 * table.margin:g} points"
    return f"±{table.margin:g}"


def _mean(arm: Arm, metric: str) -> float:
    estimate = arm.estimates[metric]
    return math.nan if estimate is None else estimate.mean


def _estimate_text(arm: Arm, metric: str) -> str:
    estimate = arm.estimates[metric]
    if estimate is None:
        return f"{_words(metric)} not measured"
    interval = _interval(metric, estimate)
    interval = f"95% interval {interval}; " if interval else ""
    return f"{_words(metric)} {_score(metric, estimate.mean, unit=True)} ({interval}{_count(estimate.n, 'seed')})"


def _tally(table: Table) -> str:
    """'The 5 other arms against the baseline: 1 better, 1 worse, 3 with no difference shown.'"""
    words: Counter[str] = Counter(arm.contrast.verdict for arm in table.arms if arm.contrast is not None)
    if words.total() < 2:
        return ""
    names = {"no difference shown": "with no difference shown"}
    order = ("better", "worse", "shown equivalent", "no difference shown")
    parts = ", ".join(f"{words[w]:,} {names.get(w, w)}" for w in order if words[w])
    return f"The {words.total():,} other arms against the baseline: {parts}."


def _compared(table: Table) -> str:
    data = table.data
    when = "the last epoch" if table.epoch == "last" else "the epoch that val chose"
    n_complete = sum(len(arm.replicates) for arm in table.arms)
    chosen = (
        f"The best arm was chosen on val ({data['n_val']:,} images held out of train)"
        if table.selected_on == "val"
        else "The best arm was chosen on test, since not every arm had val images"
    )
    return (
        f"Compared: {_count(len(table.measured), 'arm')}, {_count(n_complete, 'complete run')} on {data['name']} "
        f"({data['n_test']:,} test images; {data['source']}; fingerprint {data['fingerprint']}). "
        f"{chosen}, by its mean {_words(table.selector)} at {when}; differences are on test at the same epoch."
    )


# ---- one data set


class _Section:
    """Everything that the page shows of one table. Holds the count of pictures, which makes their ids unique."""

    def __init__(self, number: int, table: Table, folder: Path, problems: list[str], studies: "list[_Sweep]") -> None:
        self._table, self._folder, self._problems, self._sweeps = table, folder, problems, studies
        self._prefix = f"d{number}"
        self._file_prefix = "" if number == 1 else f"data{number}-"
        self._n_pictures = 0
        coloured = [a for a in table.measured if a is not table.baseline][: N_COLOURED - 1]
        self._coloured = ([table.baseline] if table.baseline is not None else []) + coloured
        self._slots = {arm.digest: slot for slot, arm in enumerate(self._coloured)}

    def build(self) -> dict[str, Any]:
        table, data = self._table, self._table.data
        finding, evidence = _verdict(table)
        section = {
            "id": self._prefix,
            "finding": finding,
            "evidence": evidence,
            "tally": _tally(table),
            "compared": _compared(table) if table.measured else "",
            "word": self._word(),
            "data": data,
            "is_sample": data["source"] == "offline sample",
            "notes": table.notes,
            "metric": _words(table.metric),
            "margin": _margin(table),
            "counts": _counts(table.n_by_status),
            "rows": _arm_rows(table, self._slots),
            "n_pruned_arms": len(table.arms) - len(table.listed),
            "studies": [s.build(self._folder) for s in self._sweeps[:N_STUDIES]],
            "n_studies_left_out": max(len(self._sweeps) - N_STUDIES, 0),
            "legend": [
                {"slot": slot, "label": arm.label, "dash": _css_dash(slot)} for slot, arm in enumerate(self._coloured)
            ],
            "n_grey": len(table.measured) - len(self._coloured),
            "held_fixed": [
                (k, "none" if v is None else v) for k, v in table.held_fixed.items() if k not in ("l1", "l2")
            ],
            "selected_on": table.selected_on,
            "n_parameters": next(
                (r.n_parameters for a in table.measured for r in a.replicates if r.n_parameters), None
            ),
            "layers": _layer_rows(table),
        }
        if not table.measured:
            return section | {"curves": [], "lambdas": [], "weights": None, "mistakes": None}
        return section | {
            "curves": self._curves(),
            "lambdas": self._lambdas(),
            "weights": self._weights(),
            "mistakes": self._mistakes(),
        }

    def _word(self) -> str:
        best = self._table.best
        if best is None or best.contrast is None:
            return ""
        return best.contrast.verdict

    def _draw(self, name: str, figure: Any, alt: str, caption: str = "", *, wide: bool = False) -> dict[str, Any]:
        self._n_pictures += 1
        picture = Picture(f"{self._file_prefix}{name}", alt, figure, wide)
        svg = figures.save(picture, self._folder, f"{self._prefix}f{self._n_pictures}")
        return {"svg": Markup(svg), "name": picture.name, "caption": caption, "wide": wide}

    # -- curves

    def _curves(self) -> list[dict[str, Any]]:
        drawn = []
        splits = ("test", "val", "train") if self._table.selected_on == "val" else ("test", "train")
        others = [a for a in self._table.measured if a.digest not in self._slots]
        for kind in ("accuracy", "loss"):
            for split in splits:
                metric = f"{split}_{kind}"
                lines = [
                    Line(arm.label, slot, *_over_seeds(curves))
                    for slot, arm in enumerate(self._coloured)
                    if np.isfinite(curves := arm.curves(metric)).any()
                ]
                if not lines:
                    continue
                unit = "accuracy, %" if kind == "accuracy" else "loss (log axis)"
                title = f"{split.capitalize()} {kind} by epoch"
                ends = ", ".join(f"{line.label}: {_score(metric, line.mean[-1])}" for line in lines)
                figure = figures.curves(title, unit, lines, _stacked(others, metric), is_accuracy=kind == "accuracy")
                drawn.append(self._draw(f"curves-{split}-{kind}", figure, f"{title}. At the last epoch {ends}."))
        return drawn

    # -- lambda studies

    def _lambdas(self) -> list[dict[str, Any]]:
        drawn, small = [], []
        for key in ("l1", "l2"):
            families = _families(self._table, (key,))[:N_FAMILIES]
            drawn += [self._study(key, family, number) for number, family in enumerate(families, 1)]
            small += [self._train_and_test(key, family) for family in families[:1]]
        pairs = _families(self._table, ("l1", "l2"))[:N_FAMILIES]
        return [*drawn, *(self._heat_map(family, number) for number, family in enumerate(pairs, 1)), *small]

    def _study(self, key: str, family: list[Arm], number: int) -> dict[str, Any]:
        table, metric, name = self._table, self._table.selector, key.upper()
        scores = [[v for v in a.values(metric, table.epoch) if math.isfinite(v)] for a in family]
        standard_error = None
        if table.higher_is_better and all(len(s) == 1 for s in scores):
            n_images = table.data["n_val" if table.selected_on == "val" else "n_test"]
            best = max(s[0] for s in scores)
            standard_error = stats.binomial_standard_error(best, n_images)
        strengths = [float(a.config[key]) for a in family]
        choice = stats.one_standard_error(strengths, scores, not table.higher_is_better, standard_error)
        points = [
            LambdaPoint(
                strength=strength,
                label=lambda_text(strength),
                slot=self._slots.get(arm.digest),
                selector=stats.mean_interval(values),
                test=_mean(arm, table.metric) if table.selected_on == "val" else math.nan,
                near_zero=arm.mean(r.share("n_near_zero", "n") for r in arm.replicates),
                zero=arm.mean(r.share("n_zero", "n") for r in arm.replicates),
                dead=arm.mean(r.share("n_dead_kernels", "n_kernels") for r in arm.replicates),
            )
            for arm, strength, values in zip(family, strengths, scores, strict=True)
        ]
        title = f"Varying {name}: {_without(family[0], key)}"
        unit = f"{_words(metric)}{', %' if table.higher_is_better else ''}"
        figure = figures.lambda_study(title, name, unit, points, choice, is_accuracy=table.higher_is_better)
        best_text, chosen_text = (f"{name} = {lambda_text(strengths[i])}" for i in (choice.best, choice.chosen))
        caption = f"Best {_words(metric)}: {best_text} (ring). "
        if choice.chosen == choice.best:
            caption += "The one-standard-error rule chooses the same."
        else:
            caption += f"One-standard-error choice: {chosen_text} (dashed ring)."
        if standard_error is not None:
            caption += " One seed each: the standard error is the binomial one of the images."
        return self._draw(f"study-{key}-{number}", figure, f"{title}. {caption}", caption)

    def _train_and_test(self, key: str, family: list[Arm]) -> dict[str, Any]:
        panels = []
        for arm in family[:12]:
            train, test = (stats.mean_band(arm.curves(f"{split}_accuracy")).mean for split in ("train", "test"))
            panels.append((f"{key.upper()} {lambda_text(arm.config[key])}", self._slots.get(arm.digest), train, test))
        title = f"Train and test accuracy for each {key.upper()}: {_without(family[0], key)}"
        figure = figures.train_and_test(title, panels, is_accuracy=True, unit="accuracy, %")
        gaps = ", ".join(f"{name}: {_signed('accuracy', float(a[-1] - b[-1]))} points" for name, _, a, b in panels)
        return self._draw(
            f"study-{key}-curves", figure, f"{title}. Train minus test at the last epoch {gaps}.", wide=True
        )

    def _heat_map(self, family: list[Arm], number: int) -> dict[str, Any]:
        table = self._table
        l1, l2 = (sorted({float(a.config[k]) for a in family}) for k in ("l1", "l2"))
        means = np.full((len(l2), len(l1)), math.nan)
        for arm in family:
            means[l2.index(arm.config["l2"]), l1.index(arm.config["l1"])] = arm.score
        best = (min if not table.higher_is_better else max)(family, key=lambda a: a.score)
        title = f"Varying L1 and L2: {_without(family[0], 'l1', 'l2')}"
        unit = f"{_words(table.selector)}{', %' if table.higher_is_better else ''}"
        l1_labels, l2_labels = ([lambda_text(v) for v in values] for values in (l1, l2))
        figure = figures.heat_map(title, l1_labels, l2_labels, means, is_accuracy=table.higher_is_better, unit=unit)
        caption = (
            f"Mean {_words(table.selector)}. Best: L1 {lambda_text(best.config['l1'])}, "
            f"L2 {lambda_text(best.config['l2'])} (framed), {_score(table.selector, best.score, unit=True)}."
        )
        return self._draw(f"heat-map-{number}", figure, f"{title}. {caption}", caption)

    # -- weights

    def _weights(self) -> dict[str, Any]:
        arms, kernels = [], {}
        for slot, arm in enumerate(self._coloured):
            layers = self._layer_weights(arm.replicates[0])
            if layers:
                arms.append((arm.label, slot, np.concatenate([w.ravel() for w in layers.values()])))
                kernels[slot] = {
                    name: np.abs(w).reshape(w.shape[0], w.shape[1], -1).max(axis=2)
                    for name, w in layers.items()
                    if w.ndim == 4 and w[0, 0].size > 1  # as the records count: a 1x1 convolution has no kernels
                }
        if not arms:
            return {"pictures": [], "layers": [], "rows": [], "n_dead": 0}
        zeros = ", ".join(f"{label}: {np.mean(np.abs(w) < NEAR_ZERO):.1%} near zero" for label, _, w in arms)
        pictures = [
            self._draw("weights-histogram", figures.histograms(arms), f"Histograms of the weights. {zeros}."),
            self._draw(
                "weights-by-size", figures.magnitudes(arms, NEAR_ZERO), f"Weights sorted by magnitude. {zeros}."
            ),
        ]
        dead = {slot: sum(int((k < NEAR_ZERO).sum()) for k in layers.values()) for slot, layers in kernels.items()}
        most = max(dead, key=lambda slot: dead[slot])
        if dead[most]:
            label = self._coloured[most].label
            title = f"Dead kernels of {label}: {dead[most]}"
            figure = figures.kernel_map(title, list(kernels[most].items()), NEAR_ZERO)
            pictures.append(self._draw("kernels", figure, f"{title}, crossed out, by layer.", wide=True))
        names = list(dict.fromkeys(name for layers in kernels.values() for name in layers))
        rows = [
            {
                "label": self._coloured[slot].label,
                "slot": slot,
                "cells": [
                    f"{int((layers[n] < NEAR_ZERO).sum())} / {layers[n].size}" if n in layers else _DASH for n in names
                ],
            }
            for slot, layers in kernels.items()
        ]
        return {"pictures": pictures, "layers": names, "rows": rows, "n_dead": max(dead.values())}

    def _layer_weights(self, run: Result) -> dict[str, Array]:
        """A run's weight tensors by layer, biases and norm parameters left out; empty where there is no file."""
        path = run.path / WEIGHTS_FILE
        if not path.is_file():
            return {}
        try:
            tensors = load_file(path)
        except (OSError, ValueError, SafetensorError) as error:
            self._problems.append(f"{path}: unreadable ({error})")
            return {}
        return {
            name.removesuffix(".weight"): np.nan_to_num(w.astype(np.float32))
            for name, w in tensors.items()
            if name.endswith(".weight") and w.ndim > 1
        }

    # -- mistakes

    def _mistakes(self) -> dict[str, Any]:
        table = self._table
        shown: list[tuple[Arm, Mistakes]] = []
        n_wrong, n_read = np.zeros(table.data["n_test"], int), 0
        label: Array | None = None
        for position, arm in enumerate(self._in_order()):
            runs = []
            # Beyond the arms that are shown one run each is enough to tell what everyone misses.
            for r in arm.replicates[: None if position < N_WITH_MISTAKES else 1]:
                try:
                    runs.append(read_predictions(r.path, table.data["n_test"]))
                except RecordError as error:
                    if str(error) not in self._problems:
                        self._problems.append(str(error))
                    continue
                label = runs[-1].label if label is None else label
                if not np.array_equal(runs[-1].label, label):
                    self._problems.append(f"{r.path}: its test labels are not those of the other runs: left out")
                    runs.pop()
            if not runs:
                continue
            n_wrong, n_read = n_wrong + sum(~p.correct for p in runs), n_read + len(runs)
            if position < N_WITH_MISTAKES:
                shown.append((arm, mistakes(runs)))
        if not shown:
            return {"arms": [], "why": "no run under this folder has readable predictions", "missed": None, "sheet": ""}
        first = shown[0][1]
        config = shown[0][0].config
        images, why = find_test_images(config, table.data["source"], first.label, first.index)
        names = class_names(config, len(first.confusion))
        missed = np.flatnonzero(n_wrong == n_read)
        positions = list(dict.fromkeys([*(int(i) for _, m in shown for i in m.worst(N_WORST)), *map(int, missed[:50])]))
        place = {i: divmod(k, _TILES_IN_A_ROW)[::-1] for k, i in enumerate(positions)}

        def tile(i: int, m: Mistakes) -> dict[str, Any]:
            return {
                "index": i,
                "place": place[i],
                "actual": names[m.label[i]],
                "predicted": names[m.predicted[i]],
                "probability": _sureness(m.probability[i]),
                "count": f"{m.n_wrong[i]} of {m.n_runs}" if m.n_runs > 1 else "",
            }

        by_digest = {arm.digest: m for arm, m in shown}
        best = by_digest.get(table.best.digest, first) if table.best else first
        arms = [
            {
                "label": arm.label,
                "slot": self._slots.get(arm.digest),
                "n_runs": m.n_runs,
                "n_wrong": f"{m.n_wrong.sum() / m.n_runs:.0f}" if m.n_runs > 1 else int(m.n_wrong.sum()),
                "tiles": [tile(int(i), m) for i in m.worst(N_WORST)],
                "is_open": m is best,
            }
            for arm, m in shown
        ]
        pictures = []
        for arm, m in shown[:2]:
            name = "best" if m is best else "baseline" if arm is table.baseline else "next"
            title = f"Confusion: {arm.label}"
            worst = _worst_confusions(m, names)
            pictures.append(
                self._draw(
                    f"confusion-{name}", figures.confusion(title, m.confusion, names), f"{title}. {worst}", worst
                )
            )
        if images is not None:
            for arm, m in shown[:N_COLOURED]:
                self._save_mistakes(arm, m, images, names)
        sheet = "" if images is None else figures.sprite_sheet(images[positions], _TILES_IN_A_ROW)
        return {
            "arms": arms,
            "why": why,
            "sheet": Markup(sheet),
            "n_columns": _TILES_IN_A_ROW,
            "missed": [tile(int(i), best) | {"count": ""} for i in missed[:50]],
            "n_missed": int(missed.size),
            "n_read": n_read,
            "n_left_out": max(len(table.measured) - N_WITH_MISTAKES, 0),
            "pictures": pictures,
        }

    def _in_order(self) -> list[Arm]:
        """The measured arms, best first, the baseline second."""
        table = self._table
        first = [a for a in (table.best, table.baseline) if a is not None]
        return list({a.digest: a for a in [*first, *table.measured]}.values())

    def _save_mistakes(self, arm: Arm, m: Mistakes, images: Array, names: list[str]) -> None:
        worst = m.worst(N_WORST)
        if worst.size:
            captions = [f"{names[m.label[i]]} → {names[m.predicted[i]]}, {m.probability[i]:.0%}" for i in worst]
            title = f"Most confident mistakes: {arm.label}"
            figure = figures.mistakes(title, images[worst], captions)
            name = f"{self._file_prefix}mistakes-{self._slots.get(arm.digest, 'x')}"
            figures.save(Picture(name, f"{title}: actual → predicted, probability.", figure), self._folder, "unused")


def _over_seeds(curves: Array) -> tuple[Array, Array, Array]:
    """Mean, lowest and highest of each epoch, over the runs (n_runs, n_epochs) that have it; nan where none has."""
    present = np.isfinite(curves)
    reached = present.any(axis=0)
    mean = stats.mean_band(np.where(present, curves, math.nan)).mean
    low, high = np.where(present, curves, math.inf).min(axis=0), np.where(present, curves, -math.inf).max(axis=0)
    return mean, np.where(reached, low, math.nan), np.where(reached, high, math.nan)


def _stacked(arms: list[Arm], metric: str) -> Array | None:
    """The mean curves of many arms, (n_arms, n_epochs), nan where one is shorter; None without arms."""
    means = [stats.mean_band(arm.curves(metric)).mean for arm in arms]
    length = max((len(m) for m in means), default=0)
    if length == 0:
        return None
    stacked = np.full((len(means), length), math.nan)
    for row, m in zip(stacked, means, strict=True):
        row[: len(m)] = m
    return stacked[np.isfinite(stacked).any(axis=1)][:, np.isfinite(stacked).any(axis=0)]


def _families(table: Table, keys: tuple[str, ...]) -> list[list[Arm]]:
    """Arms that differ in `keys` alone, three values or more of each single key (two of each of a pair).

    The family of the best arm comes first, then those without the other penalty, then the largest. A family is in
    the order of its lambdas.
    """
    families: dict[str, list[Arm]] = {}
    for arm in table.measured:
        if not math.isnan(arm.score):
            rest = {k: v for k, v in flatten(arm.config).items() if k not in keys}
            families.setdefault(repr(sorted(rest.items())), []).append(arm)
    least = 3 if len(keys) == 1 else 2

    def is_study(family: list[Arm]) -> bool:
        n_values = [len({a.config[k] for a in family}) for k in keys]
        return min(n_values) >= least and (len(keys) == 1 or len(family) >= 6)

    def rank(family: list[Arm]) -> tuple[bool, bool, int]:
        other = {"l1": "l2", "l2": "l1"}.get(keys[0]) if len(keys) == 1 else None
        is_alone = other is None or family[0].config[other] == 0
        return table.best not in family, not is_alone, -len(family)

    studies = sorted(filter(is_study, families.values()), key=rank)
    return [sorted(family, key=lambda a: [a.config[k] for k in keys]) for family in studies]


def _without(arm: Arm, *keys: str) -> str:
    """An arm's label without its lambdas: what a study holds fixed."""
    parts = arm.label.split(" · ")
    return " · ".join(p for p in parts if p.split(" ")[0] not in {k.upper() for k in keys})


def _worst_confusions(m: Mistakes, names: list[str]) -> str:
    wrong = m.confusion * (1 - np.eye(len(m.confusion), dtype=int))
    worst = [np.unravel_index(i, wrong.shape) for i in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    parts = [f"{names[i]} taken for {names[j]} ({wrong[i, j] / m.n_runs:.1f})" for i, j in worst if wrong[i, j]]
    return f"Most often, in images a run: {', '.join(parts)}." if parts else "No mistake."


def _textbook(folder: Path) -> list[dict[str, Any]]:
    drawn = []
    for name, figure, alt, caption in (
        (
            "why-penalty",
            figures.penalties(),
            "Left: the L1 penalty |w| is a V, the L2 penalty w²/2 a parabola. Right: L1's gradient is -1 or +1 at "
            "every size, L2's is w.",
            "",
        ),
        (
            "why-contours",
            figures.contours(),
            "A loss's elliptic contours first touch L1's diamond at its corner on an axis, where one weight is 0, and "
            "L2's disc off the axes, where both weights are smaller and neither is 0.",
            "Contours of a loss, its minimum at the cross, and the set that each penalty allows. They touch at the "
            "diamond's corner, where w₂ is 0, and at the disc beside it, where neither is.",
        ),
    ):
        svg = figures.save(Picture(name, alt, figure, wide=True), folder, name)
        drawn.append({"svg": Markup(svg), "name": name, "caption": caption, "wide": True})
    return drawn


def _sureness(probability: float) -> str:
    return "> 99.9%" if probability >= 0.9995 else f"{100 * probability:.1f}%"


def _layer_rows(table: Table) -> list[dict[str, str]]:
    """The network's layers as the baseline's record tells them, as text."""
    layers = (table.baseline.replicates[0].layers if table.baseline is not None else None) or []
    return [
        {
            k.replace("_", " "): " × ".join(map(str, v)) if isinstance(v, list) else "" if v is None else str(v)
            for k, v in layer.items()
        }
        for layer in layers
    ]


def _css_dash(slot: int) -> str:
    """A line style as SVG's stroke-dasharray, at the width that the legend draws."""
    dash = figures.DASHES[slot]
    return "none" if dash == "solid" else " ".join(f"{2 * d:g}" for d in dash[1])


# ---- studies


class _Sweep:
    """A study and the runs of its trials: what the page shows of them."""

    def __init__(self, number: int, study: Study, results: list[Result]) -> None:
        self._number, self._study = number, study
        by_path = {os.path.realpath(r.path): r for r in results}
        found = {t.number: by_path.get(os.path.realpath(t.directory)) for t in study.trials if t.directory is not None}
        self._runs = {number: r for number, r in found.items() if r is not None}
        self._folder = Path()
        objective = next((r.config.get("objective") for r in self._runs.values()), None)
        names = [objective] if isinstance(objective, str) else list(objective or [])
        n = len(study.directions)
        self._objectives = list(map(str, names)) if len(names) == n else [f"objective {i + 1}" for i in range(n)]
        if n == 1 and not names:
            self._objectives = ["objective"]

    def saw(self, data: dict[str, Any]) -> bool:
        """Whether the trials' runs are those of a table's data."""
        first = next((r.data for r in self._runs.values() if r.data), {})
        return all(first.get(k) == data[k] for k in ("fingerprint", "n_test"))

    def warning(self) -> str:
        """What a reader of the verdict must know of arms that a search chose; empty if it chose none."""
        n = len(self._study.trials)
        if self._study.has_replicates or len(self._study.ranked) < 2:
            return ""
        return (
            f"The study {self._study.name} chose its arms, one seed each: the best of {n} tries looks better on val "
            "than the same arm would again. Judge it on new seeds, as told under Studies."
        )

    def build(self, folder: Path) -> dict[str, Any]:
        study, ranked = self._study, self._study.ranked
        self._folder = folder
        return {
            "name": study.name,
            "text": self._text(),
            "pictures": self._pictures(),
            "importances": [
                {"name": name, "share": f"{share:.0%}", "width": f"{100 * min(max(share, 0), 1):.1f}"}
                for name, share in sorted(study.importances.items(), key=lambda item: -item[1])
            ],
            "objectives": [self._unit(i) for i in range(len(study.directions))],
            "parameters": list(dict.fromkeys(name for t in ranked for name in t.params)),
            "is_front": len(study.directions) > 1,
            "best": [self._row(t) for t in ranked[:N_TRIALS_LISTED]],
            "n_ranked": len(ranked),
            "command": self._command(),
            "is_search": not study.has_replicates,
            "failures": [(t.number, t.message) for t in study.trials if t.state == "failed"][:N_TRIALS_LISTED],
        }

    def _unit(self, i: int) -> str:
        name = self._objectives[i]
        return f"{_words(name)}, %" if _is_share(name) else _words(name)

    def _value(self, i: int, value: float) -> str:
        if not math.isfinite(value):
            return "not finite"
        return f"{100 * value:.2f}" if _is_share(self._objectives[i]) else f"{value:#.4g}"

    def _row(self, trial: Trial) -> dict[str, Any]:
        run = self._runs.get(trial.number)
        return {
            "number": trial.number,
            "link": None if run is None else _link(run.path, self._folder),
            "params": {k: _parameter_text(v) for k, v in trial.params.items()},
            "values": [self._value(i, v) for i, v in enumerate(trial.values)],
            "epochs": _DASH if run is None else len(run.curves),
        }

    def _text(self) -> str:
        """'30 trials: 11 complete, 19 pruned. Best is trial 0 (l1 0.001): val loss 0.06. ...'"""
        study, ranked = self._study, self._study.ranked
        counts = Counter(t.state for t in study.trials)
        found = ", ".join(f"{counts[s]:,} {s}" for s in TRIAL_STATES if counts[s])
        text = [f"{_count(len(study.trials), 'trial')}: {found or 'none yet'}."]
        if ranked and len(study.directions) == 1:
            params = ", ".join(f"{k} {_parameter_text(v)}" for k, v in ranked[0].params.items())
            unit = " %" if _is_share(self._objectives[0]) else ""
            value = f"{_words(self._objectives[0])} {self._value(0, ranked[0].values[0])}{unit}"
            text.append(f"Best is trial {ranked[0].number} ({params}): {value}.")
        elif ranked:
            text.append(
                f"{_count(len(ranked), 'trial is', 'trials are')} on the Pareto front: "
                "none is better in one objective without being worse in another."
            )
        return " ".join([*text, *self._epochs()])

    def _epochs(self) -> list[str]:
        """How many epochs the ended trials took, and what share pruning saved; nothing without records."""
        ended = {t.number: t for t in self._study.trials if t.state in ("complete", "pruned")}
        runs = {n: r for n, r in self._runs.items() if n in ended}
        whole = sum(int(r.config["epochs"]) for r in runs.values())
        if not whole:
            return []
        done = sum(len(r.curves) for r in runs.values())
        pruned = [r for n, r in runs.items() if ended[n].state == "pruned"]
        text = f"The ended trials took {done:,} of {whole:,} epochs"
        if not pruned:
            return [f"{text}."]
        saved = sum(int(r.config["epochs"]) - len(r.curves) for r in pruned)
        return [f"{text}: pruning saved {saved / whole:.0%}."]

    def _command(self) -> str:
        """How to run the best trial again, on seeds of its own; empty where the study left no file for that."""
        folder = self._study.path
        names = ["best"] if len(self._study.directions) == 1 else [f"best_{t.number}" for t in self._study.ranked]
        there = [name for name in names if (folder / f"experiment/{name}.yaml").is_file()]
        if not there or self._study.has_replicates:
            return ""
        chosen = f"--config-dir {shlex.quote(str(folder))} experiment={','.join(there[:4])}"
        return f"python -m reg_sweep.train -m {chosen} seed=1,2,3"

    def _points(self) -> list[TrialPoint]:
        found = []
        for t in self._study.trials:
            values = t.values if t.state == "complete" else (t.last,) if t.state == "pruned" else ()
            if values and all(map(math.isfinite, values)):
                found.append(TrialPoint(t.number, t.params, values, t.state == "pruned"))
        return found

    def _pictures(self) -> list[dict[str, Any]]:
        study, points, ranked = self._study, self._points(), self._study.ranked
        if not points:
            return []
        if len(study.directions) > 1:
            return [self._front(points, ranked)] if ranked else []
        unit, is_share = self._unit(0), _is_share(self._objectives[0])
        failed = [t.number for t in study.trials if t.state == "failed"]
        title = f"{study.name}: trial by trial"
        figure = figures.study_history(
            title, unit, points, failed, minimize=study.directions == ["minimize"], is_accuracy=is_share
        )
        drawn = [self._draw("history", figure, f"{title}. {self._text()}")]
        best = ranked[0].number if ranked else None
        for name in study.parameters[:N_PARAMETERS]:
            having = [p for p in points if name in p.params]
            if len({repr(p.params[name]) for p in having}) < 2:
                continue
            title = f"{study.name}: {name}"
            ringed = best if any(p.number == best for p in having) else None
            figure = figures.study_parameter(title, name, unit, having, ringed, is_accuracy=is_share)
            alt = f"{title}. {unit} against {name} of {len(having)} trials"
            if ringed is not None:
                alt += f"; the best has {name} {_parameter_text(ranked[0].params[name])}"
            drawn.append(self._draw(re.sub(r"\W+", "-", name), figure, f"{alt}."))
        return drawn

    def _front(self, points: list[TrialPoint], ranked: list[Trial]) -> dict[str, Any]:
        title = f"{self._study.name}: the Pareto front"
        units = [self._unit(i) for i in range(len(self._objectives))]
        figure = figures.pareto_front(title, units, points, [t.number for t in ranked])
        ends = "; ".join(
            f"trial {t.number}: " + ", ".join(f"{unit} {self._value(i, t.values[i])}" for i, unit in enumerate(units))
            for t in (ranked[0], ranked[-1])
        )
        return self._draw("front", figure, f"{title}. {len(ranked)} of {len(points)} trials, from {ends}.")

    def _draw(self, name: str, figure: Any, alt: str) -> dict[str, Any]:
        picture = Picture(f"trials-{self._number}-{name}", alt, figure)
        svg = figures.save(picture, self._folder, f"t{self._number}{name}")
        return {"svg": Markup(svg), "name": picture.name, "caption": "", "wide": False}


def _is_share(objective: str) -> bool:
    return objective.endswith(("accuracy", "_share"))


def _parameter_text(value: Any) -> str:
    return lambda_text(value) if isinstance(value, float) and value >= 0 else str(value)


# ---- rows of the page's tables


def _arm_rows(table: Table, slots: dict[str, int]) -> list[dict[str, Any]]:
    axes = {name: _axis([v for a in table.measured for v in a.values(name, table.epoch)]) for name in TEST_METRICS}
    return [_arm_row(arm, table, slots.get(arm.digest), axes) for arm in table.listed]


def _arm_row(arm: Arm, table: Table, slot: int | None, axes: dict[str, tuple[float, float]]) -> dict[str, Any]:
    contrast, config = arm.contrast, arm.config
    gap = arm.mean(
        r.value("train_accuracy", table.epoch) - r.value("test_accuracy", table.epoch) for r in arm.replicates
    )
    zero, near, dead = (
        arm.mean(r.share(part, whole) for r in arm.replicates)
        for part, whole in (("n_zero", "n"), ("n_near_zero", "n"), ("n_dead_kernels", "n_kernels"))
    )
    epoch = arm.mean(
        float(r.best_val["epoch"]) if r.best_val and r.data["n_val"] > 0 else math.nan for r in arm.replicates
    )
    seconds = arm.mean(r.seconds for r in arm.replicates)
    others = {s: n for s, n in arm.n_by_status.items() if s != "complete"}
    return {
        "label": arm.label,
        "slot": slot,
        "is_baseline": arm is table.baseline,
        "is_best": arm is table.best,
        "norm": config["norm"]["name"],
        "l1": config["l1"],
        "l2": config["l2"],
        "penalty": _penalty(config["penalty"], config["l1"], config["l2"]),
        "n": len(arm.replicates),
        "others": ", ".join(f"{n} {s}" for s, n in others.items()),
        "seeds": ", ".join(str(r.seed) for r in arm.replicates),
        "metrics": [_metric_cell(arm, name, table.epoch, axes[name]) for name in TEST_METRICS],
        "difference": _signed(table.metric, contrast.difference.mean) if contrast else _DASH,
        "difference_key": contrast.difference.mean if contrast else None,
        "interval": f"{_signed(table.metric, contrast.difference.ci_low)} to "
        f"{_signed(table.metric, contrast.difference.ci_high)}"
        if contrast and _is_known(contrast.difference.ci_low)
        else "",
        "pairs": contrast.n_seeds if contrast else 0,
        "by_image": bool(contrast and contrast.by_image),
        "p": _p(contrast.difference.p) if contrast else _DASH,
        "p_key": contrast.difference.p if contrast else None,
        "p_adjusted": _p(contrast.p_adjusted) if contrast else _DASH,
        "p_adjusted_key": contrast.p_adjusted if contrast else None,
        "verdict": contrast.verdict if contrast else "baseline" if arm is table.baseline else "not comparable",
        "gap": _signed("accuracy", gap),
        "gap_key": gap,
        "zero": _share(zero),
        "zero_key": zero,
        "near": _share(near),
        "near_key": near,
        "dead": _share(dead),
        "dead_key": dead,
        "epoch": f"{epoch:.3g}" if _is_known(epoch) else _DASH,
        "epoch_key": epoch,
        "seconds": f"{seconds:,.0f}" if _is_known(seconds) else _DASH,
        "seconds_key": seconds,
        "best_test": _score("accuracy", arm.best_test),
        "best_test_key": arm.best_test,
    }


def _penalty(penalty: dict[str, Any], l1: float, l2: float) -> str:
    """How the penalties that an arm has enter: 'textbook, proximal L1'."""
    parts = [str(penalty["name"])]
    if l1 > 0 and penalty["l1_update"] != "subgradient":
        parts.append(f"{penalty['l1_update']} L1")
    if l2 > 0 and penalty["l2_update"] != "coupled":
        parts.append(f"{penalty['l2_update']} L2")
    return ", ".join(parts) if l1 > 0 or l2 > 0 else _DASH


def _share(x: float) -> str:
    return _DASH if not _is_known(x) else f"{100 * x:.1f}" if x == 0 or x >= 0.0005 else "< 0.1"


def _axis(values: list[float]) -> tuple[float, float]:
    """The span of the dots: from the lowest to the highest value, far outliers left at the edge."""
    known = np.array([v for v in values if math.isfinite(v)])
    if known.size == 0:
        return 0.0, 1.0
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    reach = 4 * max(float(high - low), 1e-4)
    return max(float(known.min()), middle - reach), min(float(known.max()), middle + reach)


def _metric_cell(arm: Arm, metric: str, epoch: str, axis: tuple[float, float]) -> dict[str, Any]:
    """A metric's mean and interval, and where its dots and interval lie on a strip of 0..100."""
    estimate = arm.estimates[metric]
    low, high = axis
    if estimate is None:
        return {"key": None, "mean": _DASH, "interval": "", "dots": [], "span": None, "seeds": ""}

    def place(v: float) -> float:
        return round(min(max(100 * (v - low) / (high - low), 0), 100), 1) if high > low else 50.0

    values = [v for v in arm.values(metric, epoch) if math.isfinite(v)]
    has_interval = _is_known(estimate.ci_low)
    return {
        "key": estimate.mean,
        "mean": _score(metric, estimate.mean),
        "interval": _interval(metric, estimate),
        "dots": [place(v) for v in values],
        "span": (place(estimate.ci_low), place(estimate.ci_high), place(estimate.mean)) if has_interval else None,
        "seeds": ", ".join(_score(metric, v) for v in values),
    }


def _labels(tables: list[Table]) -> dict[str, str]:
    return {arm.digest: arm.label for table in tables for arm in table.arms}


def _run_rows(
    results: list[Result], tables: list[Table], folder: Path, roots: Sequence[str | Path]
) -> list[dict[str, Any]]:
    """The runs that the page lists: those that did not complete first, then the others."""
    labels = _labels(tables)
    first = sorted(results, key=lambda r: r.status == "complete")[:N_RUNS_LISTED]
    return [
        {
            "status": r.status,
            "label": labels.get(r.arm, _settings(r.config)),
            "seed": r.seed,
            "accuracy": _score("accuracy", r.value("test_accuracy")),
            "accuracy_key": r.value("test_accuracy"),
            "epochs": len(r.curves),
            "seconds": f"{r.seconds:,.0f}" if _is_known(r.seconds) else _DASH,
            "seconds_key": r.seconds,
            "command": r.command,
            "message": r.message,
            "folder": _below(r.path, roots),
            "link": _link(r.path, folder),
        }
        for r in first
    ]


def _settings(config: dict[str, Any]) -> str:
    return f"{config['norm']['name']} · L1 {lambda_text(config['l1'])} · L2 {lambda_text(config['l2'])}"


def _below(path: Path, roots: Sequence[str | Path]) -> str:
    """A run's folder as a reader of this report knows it: below the only root, or whole."""
    below = path.relative_to(roots[0]).as_posix() if len(roots) == 1 else "."
    return str(path) if below == "." else below


def _link(path: Path, folder: Path) -> str:
    """The run's folder as seen from the page; a file: address where no relative path leads there (another drive)."""
    try:
        return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()) + "/"
    except ValueError:
        return path.resolve().as_uri()


# ---- files beside the page


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(
            {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows
        )


def _write_summary_csv(path: Path, tables: list[Table]) -> None:
    rows = []
    for table in tables:
        for arm in table.arms:
            row: dict[str, Any] = {
                "data": table.data["name"],
                "fingerprint": table.data["fingerprint"],
                "n_test": table.data["n_test"],
                "arm": arm.label,
                "norm": arm.config["norm"]["name"],
                "l1": arm.config["l1"],
                "l2": arm.config["l2"],
                "penalty": arm.config["penalty"]["name"],
                "n_seeds": len(arm.replicates),
                "n_diverged": arm.n_by_status["diverged"],
                "n_pruned": arm.n_by_status["pruned"],
                "n_failed": arm.n_by_status["failed"],
                "n_running": arm.n_by_status["running"],
                "is_baseline": arm is table.baseline,
                "is_best": arm is table.best,
                "epoch": table.epoch,
            }
            for name in TEST_METRICS:
                e = arm.estimates[name]
                row |= {
                    name: e.mean if e else math.nan,
                    f"{name}_ci_low": e.ci_low if e else math.nan,
                    f"{name}_ci_high": e.ci_high if e else math.nan,
                    f"{name}_sd": e.sd if e else math.nan,
                }
            c = arm.contrast
            row |= {
                "metric": table.metric,
                "difference": c.difference.mean if c else math.nan,
                "difference_ci_low": c.difference.ci_low if c else math.nan,
                "difference_ci_high": c.difference.ci_high if c else math.nan,
                "p": c.difference.p if c else math.nan,
                "p_holm": c.p_adjusted if c else math.nan,
                "n_pairs": c.n_seeds if c else 0,
                "test": "" if c is None else "McNemar" if c.by_image else "paired t",
                "verdict": c.verdict if c else "",
                "selector": table.selector,
                "selector_mean": arm.score,
                "zero_share": arm.mean(r.share("n_zero", "n") for r in arm.replicates),
                "near_zero_share": arm.mean(r.share("n_near_zero", "n") for r in arm.replicates),
                "dead_kernel_share": arm.mean(r.share("n_dead_kernels", "n_kernels") for r in arm.replicates),
                "seconds": arm.mean(r.seconds for r in arm.replicates),
                "best_test_accuracy_optimistic": arm.best_test,
            }
            rows.append(row)
    _write_csv(path, rows)


def _write_runs_csv(path: Path, results: list[Result], tables: list[Table]) -> None:
    labels = _labels(tables)
    rows = [
        {
            "folder": str(r.path),
            "status": r.status,
            "arm": labels.get(r.arm, ""),
            "seed": r.seed,
            "norm": r.config["norm"]["name"],
            "l1": r.config["l1"],
            "l2": r.config["l2"],
            "fingerprint": r.data.get("fingerprint", ""),
            "n_epochs": len(r.curves),
            **{
                name: r.value(name)
                for name in (*TEST_METRICS, "val_accuracy", "val_loss", "train_accuracy", "train_loss")
            },
            "seconds": r.seconds,
            "command": r.command,
            "message": r.message,
        }
        for r in results
    ]
    _write_csv(path, rows)


def _write_summary_md(path: Path, sections: list[dict[str, Any]], verdicts: list[str]) -> None:
    """The verdict and the table of arms in Markdown."""
    lines = []
    for section in sections:
        lines += [f"**{_markdown(section['finding'])}** {_markdown(section['evidence'])}".strip(), ""]
        if section["is_sample"]:
            lines += ["These runs saw the offline sample of 5,000 MNIST images, not MNIST.", ""]
        lines += [_markdown(text) for text in (section["compared"], section["tally"]) if text]
        lines += [
            "",
            "| arm | seeds | test accuracy, % | test loss | difference | 95% interval | p (Holm) | verdict |",
            "|---|---:|---:|---:|---:|---:|---:|---|",
        ]
        for row in section["rows"]:
            accuracy, loss = (f"{m['mean']} [{m['interval']}]" if m["interval"] else m["mean"] for m in row["metrics"])
            cells = (row["label"], row["n"], accuracy, loss, row["difference"], row["interval"], row["p_adjusted"])
            lines.append("| " + " | ".join(_markdown(str(c)) for c in (*cells, row["verdict"])) + " |")
        lines += ["", *(f"- {_markdown(note)}" for note in section["notes"]), ""]
    path.write_text("\n".join(lines or verdicts).strip() + "\n", encoding="utf-8")


def _markdown(text: str) -> str:
    for mark in "\\|<*_`":
        text = text.replace(mark, "&lt;" if mark == "<" else "\\" + mark)
    return text


# ---- entry


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m reg_sweep.report", description="Which regularizer, and how much? One page from a tree of runs."
    )
    parser.add_argument("roots", nargs="+", metavar="DIR", help="folders that hold runs, such as outputs/")
    parser.add_argument("--out", metavar="DIR", help="where the report goes (default: report/ in the first DIR)")
    parser.add_argument(
        "--baseline",
        metavar="ARM",
        help="an arm's label, or settings such as norm=bn,l1=0,l2=0 (default: no L1, no L2)",
    )
    parser.add_argument("--metric", choices=TEST_METRICS, default="test_accuracy", help="what arms are judged by")
    parser.add_argument("--epoch", choices=EPOCHS, default="last", help="the last epoch, or the one that val chose")
    parser.add_argument(
        "--margin", type=float, default=0.001, help="differences below it do not matter (default: 0.001, 0.1 points)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    arguments = parser.parse_args(argv)
    try:
        report = write_report(
            arguments.roots,
            arguments.out,
            baseline=arguments.baseline,
            metric=arguments.metric,
            epoch=arguments.epoch,
            margin=arguments.margin,
        )
    except (ReportError, ArmError, OSError) as error:
        print(f"reg_sweep.report: {error}", file=sys.stderr)
        return 2
    print(report.verdict)
    print(report.page)
    if arguments.open:
        webbrowser.open(report.page.resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
