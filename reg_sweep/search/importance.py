"""How important each parameter is: its share in the variance of what a study's points are worth."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_sweep.runs.ranking import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# Tells shares to a hundredth, of 1,000 points in seconds; a forest of Optuna's default size takes a minute.
N_TREES = 32
MAX_DEPTH = 8
_SEED = 0  # the same trials always have the same importances


def importances(points: Sequence[Point], trials: "Sequence[FrozenTrial]", n_objectives: int) -> dict[str, float]:
    """Each parameter's share of the variance, largest first, by functional ANOVA; nothing where points can't tell.

    A random forest is fitted to the points' values (means over replicates). Over the whole space, a parameter's share
    is the variance of the forest's mean prediction given that parameter, divided by the sum of these over all
    parameters (Hutter, Hoos, Leyton-Brown 2014). What parameters do together counts for none. Parameters on a log scale
    are measured on it. Of several objectives it is the mean of the shares. Optuna's own default, PED-ANOVA, answers
    another question: which parameters set the best tenth of the trials apart, of which it needs five or more.

    Args:
        points: what was tried.
        trials: all of the study's trials, by whose distributions a space is known.
        n_objectives: how many values a point has.
    """
    import optuna

    spaces = {name: d for t in trials for name, d in t.distributions.items()}
    columns = {
        name: _Column(spaces[name], [p.params[name] for p in points])
        for name in spaces
        if points and all(name in p.params for p in points) and len({p.params[name] for p in points}) > 1
    }
    if len(columns) < 2:
        return {}
    forest = optuna.importance.FanovaImportanceEvaluator(n_trees=N_TREES, max_depth=MAX_DEPTH, seed=_SEED)
    shares: list[Mapping[str, float]] = []
    for objective in range(n_objectives):
        values = _between_0_and_1([p.values[objective] for p in points])
        if len(set(values)) < 2:
            continue
        study = optuna.create_study()  # in memory: of the points instead of the trials
        study.add_trials(
            optuna.trial.create_trial(
                params={name: column.values[i] for name, column in columns.items()},
                distributions={name: column.distribution for name, column in columns.items()},
                value=value,
            )
            for i, value in enumerate(values)
        )
        found = forest.evaluate(study)
        total = math.fsum(found.values())
        if total > 0:
            shares.append({name: float(share) / total for name, share in found.items()})
    means = {name: math.fsum(s[name] for s in shares) / len(shares) for name in columns if shares}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def _between_0_and_1(values: Sequence[float]) -> list[float]:
    """Values on another scale, which changes no share: the forest computes with 32 bits, and overflows early."""
    low, span = min(values) / 2, max(values) / 2 - min(values) / 2
    return [(v / 2 - low) / span if span > 0 else 0.0 for v in values]


class _Column:
    """A parameter's values and space as fANOVA must see them: it would take a log scale for a plain one."""

    def __init__(self, space: "BaseDistribution", values: Sequence[Any]) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        self.distribution = space
        self.values = list(values)
        if not isinstance(space, CategoricalDistribution):
            assert isinstance(space, FloatDistribution | IntDistribution)
            scale = math.log if space.log and min(values) > 0 else float
            # A study that was extended has trials outside of its last bounds.
            self.values = _between_0_and_1([*map(scale, values), scale(space.low), scale(space.high)])[: len(values)]
            self.distribution = FloatDistribution(0, 1)
