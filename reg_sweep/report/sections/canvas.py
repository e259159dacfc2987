"""One data set's part of the page: its verdict, arms, curves, lambdas, weights and mistakes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from reg_sweep.comparison import stats
from reg_sweep.comparison.arms import Arm, Result, Table
from reg_sweep.comparison.labels import flatten, lambda_text
from reg_sweep.comparison.predictions import (
    Mistakes,
    Predictions,
    class_names,
    find_test_images,
    mistakes,
    note,
    other_labels,
    read_predictions,
)
from reg_sweep.comparison.verdict import compared, margin, mean, tally, verdict
from reg_sweep.comparison.wording import DASH, count, counts, score, signed, words
from reg_sweep.config import NEAR_ZERO
from reg_sweep.records import WEIGHTS_FILE, RecordError
from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures import theme as pictures
from reg_sweep.report.figures.arms import LambdaPoint, Line
from reg_sweep.report.figures.theme import N_COLOURS, Picture
from reg_sweep.report.rows import arm_rows
from reg_sweep.report.sections.study import N_STUDIES, StudySection

Array = NDArray[Any]

N_FAMILIES = 4  # lambda studies drawn for each of l1 and l2
N_PANELS = 12  # of small curves, one for each lambda
N_WITH_MISTAKES = 24  # arms whose mistakes are shown
N_WORST = 25
_TILES_IN_A_ROW = 32


class Section:
    """Everything that the page shows of one table. Holds the count of pictures, which makes their ids unique."""

    def __init__(
        self, number: int, table: Table, folder: Path, problems: list[str], studies: list[StudySection]
    ) -> None:
        self._table, self._folder, self._problems, self._sweeps = table, folder, problems, studies
        self._prefix = f"d{number}"
        self._file_prefix = "" if number == 1 else f"data{number}-"
        self._n_pictures = 0
        coloured = [a for a in table.measured if a is not table.baseline][: N_COLOURS - 1]
        self._coloured = ([table.baseline] if table.baseline is not None else []) + coloured
        self._slots = {arm.digest: slot for slot, arm in enumerate(self._coloured)}

    def build(self) -> dict[str, Any]:
        table, data = self._table, self._table.data
        finding, evidence = verdict(table)
        sizes = {r.n_parameters for a in table.measured for r in a.replicates}
        section = {
            "id": self._prefix,
            "finding": finding,
            "evidence": evidence,
            "tally": tally(table),
            "compared": compared(table) if table.measured else "",
            "word": self._word(),
            "data": data,
            "label": table.label,
            "notes": table.notes,
            "metric": words(table.metric),
            "margin": margin(table),
            "counts": counts(table.n_by_status),
            "n_runs": count(table.n_by_status.total(), "run"),
            "rows": arm_rows(table, self._slots),
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
            "n_parameters": sizes.pop() if len(sizes) == 1 else None,
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
        return pictures.shown(picture, self._folder, f"{self._prefix}f{self._n_pictures}", caption)

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
                ends = ", ".join(f"{line.label}: {score(metric, line.mean[-1])}" for line in lines)
                figure = figures.curves(title, unit, lines, _stacked(others, metric), is_accuracy=kind == "accuracy")
                caption = f"{_seeds(self._table.measured)} an arm."
                alt = f"{title}. At the last epoch {ends}."
                drawn.append(self._draw(f"curves-{split}-{kind}", figure, alt, caption))
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
            n_images = table.data.n_val if table.selected_on == "val" else table.data.n_test
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
                test=mean(arm, table.metric) if table.selected_on == "val" else math.nan,
                near_zero=arm.mean(r.share("n_near_zero", "n") for r in arm.replicates),
                zero=arm.mean(r.share("n_zero", "n") for r in arm.replicates),
                dead=arm.mean(r.share("n_dead_kernels", "n_kernels") for r in arm.replicates),
            )
            for arm, strength, values in zip(family, strengths, scores, strict=True)
        ]
        title = f"Varying {name}: {_without(family[0], key)}"
        unit = f"{words(metric)}{', %' if table.higher_is_better else ''}"
        figure = figures.lambda_study(title, name, unit, points, choice, is_accuracy=table.higher_is_better)
        best_text, chosen_text = (f"{name} = {lambda_text(strengths[i])}" for i in (choice.best, choice.chosen))
        caption = f"{_seeds(family)} a point. Best {words(metric)}: {best_text} (ring). "
        if choice.chosen == choice.best:
            caption += "The one-standard-error rule chooses the same."
        else:
            caption += f"One-standard-error choice: {chosen_text} (dashed ring)."
        if standard_error is not None:
            caption += " The standard error is the binomial one of the images."
        return self._draw(f"study-{key}-{number}", figure, f"{title}. {caption}", caption)

    def _train_and_test(self, key: str, family: list[Arm]) -> dict[str, Any]:
        panels = []
        chosen = np.unique(np.linspace(0, len(family) - 1, N_PANELS).round().astype(int))
        for arm in (family[i] for i in chosen):
            train, test = (stats.mean_band(arm.curves(f"{split}_accuracy")).mean for split in ("train", "test"))
            panels.append((f"{key.upper()} {lambda_text(arm.config[key])}", self._slots.get(arm.digest), train, test))
        title = f"Train and test accuracy for each {key.upper()}: {_without(family[0], key)}"
        figure = figures.train_and_test(title, panels, is_accuracy=True, unit="accuracy, %")
        gaps = ", ".join(f"{name}: {signed('accuracy', float(a[-1] - b[-1]))} points" for name, _, a, b in panels)
        caption = f"{_seeds(family)} a panel."
        if len(panels) < len(family):
            caption += f" {len(panels)} of {len(family)} lambdas, from the least to the greatest."
        alt = f"{title}. Train minus test at the last epoch {gaps}."
        return self._draw(f"study-{key}-curves", figure, alt, caption, wide=True)

    def _heat_map(self, family: list[Arm], number: int) -> dict[str, Any]:
        table = self._table
        l1, l2 = (sorted({float(a.config[k]) for a in family}) for k in ("l1", "l2"))
        means = np.full((len(l2), len(l1)), math.nan)
        for arm in family:
            means[l2.index(arm.config["l2"]), l1.index(arm.config["l1"])] = arm.score
        best = (min if not table.higher_is_better else max)(family, key=lambda a: a.score)
        title = f"Varying L1 and L2: {_without(family[0], 'l1', 'l2')}"
        unit = f"{words(table.selector)}{', %' if table.higher_is_better else ''}"
        l1_labels, l2_labels = ([lambda_text(v) for v in values] for values in (l1, l2))
        figure = figures.heat_map(title, l1_labels, l2_labels, means, is_accuracy=table.higher_is_better, unit=unit)
        at_best = f"L1 {lambda_text(best.config['l1'])}, L2 {lambda_text(best.config['l2'])}"
        caption = f"{_seeds(family)} a cell. Best: {at_best} (framed), {score(table.selector, best.score, unit=True)}."
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
        sizes = sorted({w.size for *_, w in arms})
        n_weights = " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1])))
        caption = f"{n_weights} weights of one run an arm; biases and norm parameters are left out."
        histograms, by_size = figures.histograms(arms), figures.magnitudes(arms, NEAR_ZERO)
        drawn = [
            self._draw("weights-histogram", histograms, f"Histograms of the weights. {zeros}.", caption),
            self._draw("weights-by-size", by_size, f"Weights sorted by magnitude. {zeros}.", caption),
        ]
        dead = {slot: sum(int((k < NEAR_ZERO).sum()) for k in layers.values()) for slot, layers in kernels.items()}
        most = max(dead, key=lambda slot: dead[slot])
        if dead[most]:
            label = self._coloured[most].label
            title = f"Dead kernels of {label}: {dead[most]}"
            figure = figures.kernel_map(title, list(kernels[most].items()), NEAR_ZERO)
            drawn.append(self._draw("kernels", figure, f"{title}, crossed out, by layer.", wide=True))
        names = list(dict.fromkeys(name for layers in kernels.values() for name in layers))
        rows = [
            {
                "label": self._coloured[slot].label,
                "slot": slot,
                "cells": [
                    f"{int((layers[n] < NEAR_ZERO).sum())} / {layers[n].size}" if n in layers else DASH for n in names
                ],
            }
            for slot, layers in kernels.items()
        ]
        return {"pictures": drawn, "layers": names, "rows": rows, "n_dead": max(dead.values())}

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
        n_wrong, n_read = np.zeros(table.data.n_test, int), 0
        base = table.baseline.replicates if table.baseline is not None else []
        label = next((p.label for p in map(self._predictions, base) if p is not None), None)
        for position, arm in enumerate(self._in_order()):
            runs = []
            # Beyond the arms that are shown one run each is enough to tell what everyone misses.
            for r in arm.replicates[: None if position < N_WITH_MISTAKES else 1]:
                found = self._predictions(r)
                if found is None:
                    continue
                label = found.label if label is None else label
                if np.array_equal(found.label, label):
                    runs.append(found)
                else:
                    note(self._problems, other_labels(r.path))
            if not runs:
                continue
            n_wrong, n_read = n_wrong + sum(~p.correct for p in runs), n_read + len(runs)
            if position < N_WITH_MISTAKES:
                shown.append((arm, mistakes(runs)))
        if not shown:
            return {"arms": [], "why": "no run under this folder has readable predictions", "missed": None, "sheet": ""}
        first = shown[0][1]
        config = shown[0][0].config
        images, why = find_test_images(config, table.data.source, first.label, first.index)
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
        drawn = []
        for arm, m in shown[:2]:
            name = "best" if m is best else "baseline" if arm is table.baseline else "next"
            title = f"Confusion: {arm.label}"
            worst = f"{table.data.n_test:,} test images, {count(m.n_runs, 'run')}. {_worst_confusions(m, names)}"
            drawn.append(
                self._draw(
                    f"confusion-{name}", figures.confusion(title, m.confusion, names), f"{title}. {worst}", worst
                )
            )
        if images is not None:
            for arm, m in shown[:N_COLOURS]:
                self._save_mistakes(arm, m, images, names)
        sheet = "" if images is None else pictures.sprite_sheet(images[positions], _TILES_IN_A_ROW)
        return {
            "arms": arms,
            "why": why,
            "sheet": Markup(sheet),
            "n_columns": _TILES_IN_A_ROW,
            "missed": [tile(int(i), best) | {"count": ""} for i in missed[:50]],
            "n_missed": int(missed.size),
            "n_read": n_read,
            "n_left_out": max(len(table.measured) - N_WITH_MISTAKES, 0),
            "pictures": drawn,
        }

    def _predictions(self, run: Result) -> Predictions | None:
        try:
            return read_predictions(run.path, self._table.data.n_test)
        except RecordError as error:
            note(self._problems, error)
            return None

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
            pictures.save(Picture(name, f"{title}: actual → predicted, probability.", figure), self._folder, "unused")


def _seeds(arms: list[Arm]) -> str:
    """'Mean of 3 seeds', 'Means of 1 to 3 seeds', '1 seed'."""
    n = sorted({len(arm.replicates) for arm in arms})
    if n[-1] == 1:
        return "1 seed"
    return f"Mean of {n[0]} seeds" if len(n) == 1 else f"Means of {n[0]} to {n[-1]} seeds"


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
        # Two searches of one lambda each are a cross, not a grid.
        is_grid = len(family) >= max(6, 0.5 * math.prod(n_values))
        return min(n_values) >= least and (len(keys) == 1 or is_grid)

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
    dash = pictures.DASHES[slot]
    return "none" if dash == "solid" else " ".join(f"{2 * d:g}" for d in dash[1])
