"""The runs of other programs as results: their score is the metric that judges, their settings are the config."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from reg_sweep.comparison.results import DataIdentity, Result
from reg_sweep.readers import names
from reg_sweep.readers.choose import Choice, ScoredRun
from reg_sweep.readers.run import Floats
from reg_sweep.runs.record import Metric, MetricsRow

MAX_STEPS = 400  # of the curves of a table: evenly spread ones of more


def strangers(choice: Choice, called: str) -> list[Result]:
    """The results of another program's runs; `called` names the runs where they name no data set."""
    score = choice.score
    columns = (
        Metric(score.name, "score", score.unit, score.higher_is_better, score.digits),
        *(_curve_metric(name, choice.runs) for name in choice.curves[1:]),
    )
    steps = {name: _steps([r for r in choice.runs if r.dataset == name], columns) for name in _datasets(choice)}
    shared = _shared(choice)
    return [_result(r, columns, steps[r.dataset], shared, called, choice) for r in choice.runs]


def _datasets(choice: Choice) -> list[str]:
    return list(dict.fromkeys(r.dataset for r in choice.runs))


def _result(
    r: ScoredRun, columns: tuple[Metric, ...], steps: Floats, shared: dict[str, Any], called: str, choice: Choice
) -> Result:
    run, name = r.run, columns[0].name
    curves = np.full((len(steps), len(columns)), math.nan, np.float32)
    for i, metric in enumerate(columns):
        series = run.history.get(metric.name)
        if series is not None and steps.size:
            places = np.searchsorted(steps, series.steps)
            is_on = (places < steps.size) & (steps[np.minimum(places, steps.size - 1)] == series.steps)
            with np.errstate(over="ignore"):
                curves[places[is_on], i] = series.values[is_on]
    last: dict[str, float] = {"epoch": float(run.n_steps)}
    last |= {metric.name: series.last for metric in columns if (series := run.history.get(metric.name)) is not None}
    last[name] = r.value
    return Result(
        path=run.path,
        status=r.status,
        seed=r.seed,
        arm=hashlib.sha256(json.dumps(r.arm, sort_keys=True, default=str).encode()).hexdigest()[:16],
        config=r.arm | shared,
        data=DataIdentity(r.dataset or called, run.source, r.dataset, None, 0.0, 0, 0, "scores"),
        last=cast(MetricsRow, last),
        best_val=None,
        curves=curves,
        weights=None,
        layers=[],
        n_parameters=None,
        seconds=run.seconds,
        ended=run.ended,
        command="",
        message=r.message,
        environment={},
        trial_params={k: v for k, v in r.arm.items() if k != "seed"} if run.is_trial else None,
        bought_by=run.bought_by,
        columns=columns,
        steps=tuple(steps.tolist()),
        clock=choice.clock,
        place=run.place,
    )


def _curve_metric(name: str, runs: Sequence[ScoredRun]) -> Metric:
    """A metric beside the score: a share, a loss that has a log axis, or a number."""
    values = np.concatenate([s.values for r in runs if (s := r.run.history.get(name)) is not None] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    higher = bool(names.direction(name))
    if names.is_accuracy(name) and values.size and values.min() >= 0 and values.max() <= 1:
        return Metric(name, "score", "share", higher)
    return Metric(name, "score", "number", higher)


def _steps(runs: Sequence[ScoredRun], columns: Sequence[Metric]) -> Floats:
    """The steps at which the score, or else any of the metrics, was measured in any of the runs."""
    for kept in (columns[:1], columns):
        histories = [
            s.steps for r in runs for m in kept if (s := r.run.history.get(m.name)) is not None and s.steps.size > 1
        ]
        if histories:
            found = np.unique(np.concatenate(histories))
            places = np.unique(np.linspace(0, found.size - 1, min(found.size, MAX_STEPS)).round().astype(int))
            return np.asarray(found[places], np.float64)
    return np.zeros(0)


def _shared(choice: Choice) -> dict[str, Any]:
    """The settings that all runs have in common, and that make no arm."""
    n, seen = len(choice.runs), Counter[tuple[str, str]]()
    values: dict[str, Any] = {}
    for r in choice.runs:
        for key, value in r.run.settings.items():
            if key not in choice.arm_keys and names.role(key) in ("", "dataset"):
                seen[key, repr(value)] += 1
                values[key] = value
    return {key: values[key] for (key, _), times in seen.items() if times == n}
