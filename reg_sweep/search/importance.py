"""Each parameter's share of the variance over a study's trials."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from reg_sweep.runs.ranking import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

# The forest behind importances: shares to a hundredth, of 1,000 points in seconds; Optuna's default takes a minute.
N_TREES = 32
MAX_DEPTH = 8
FEWEST_FOR_IMPORTANCE = 8
FOREST_SEED = 0  # the same trials always have the same importances


def importances(points: Sequence[Point], trials: "Sequence[FrozenTrial]", n_objectives: int) -> dict[str, float]:
    """Each parameter's share of the variance, largest first, by functional ANOVA; empty if the points don't show it.

    A random forest is fitted to the points' values (means over replicates). Over the whole space, a parameter's share
    is the variance of the forest's mean prediction given that parameter, divided by the sum of these over all
    parameters (Hutter, Hoos, Leyton-Brown 2014). Interactions are left out. Parameters on a log scale are measured on
    it. With several objectives it is the mean of the shares. Optuna's own default, PED-ANOVA, answers another question:
    which parameters set the best tenth of the trials apart; it needs five or more such trials.

    Args:
        points: the points that were tried.
        trials: all of the study's trials, whose distributions make the space.
        n_objectives: the number of values of a point.
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
    if find_spec("sklearn") is None:  # reg_sweep-light does without
        log.info("importance of each parameter: needs scikit-learn, pip install scikit-learn")
        return {}
    forest = optuna.importance.FanovaImportanceEvaluator(n_trees=N_TREES, max_depth=MAX_DEPTH, seed=FOREST_SEED)
    shares: list[Mapping[str, float]] = []
    for objective in range(n_objectives):
        values = _between_0_and_1([p.values[objective] for p in points])
        if len(set(values)) < 2 or not _can_be_predicted(list(columns.values()), values):
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


def _can_be_predicted(columns: "Sequence[_Column]", values: Sequence[float]) -> bool:
    """Whether a forest predicts unseen points better than chance; otherwise the shares are meaningless.

    Its out-of-bag R^2 has to exceed 0.1 + 2 / n, which 95 of 100 studies of pure noise do not, from 8 points on. The
    largest share of 11 such points would average 63%.
    """
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    if len(values) < FEWEST_FOR_IMPORTANCE:
        return False
    known = [list(dict.fromkeys(map(repr, column.values))) for column in columns]
    x = [
        [v if isinstance(v, float) else float(names.index(repr(v))) for v in column.values]
        for column, names in zip(columns, known, strict=True)
    ]
    forest = RandomForestRegressor(N_TREES, max_depth=MAX_DEPTH, oob_score=True, random_state=FOREST_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a point that every tree has seen
        forest.fit(np.array(x).T, np.array(values))
    return bool(forest.oob_score_ > 0.1 + 2 / len(values))


def _between_0_and_1(values: Sequence[float]) -> list[float]:
    """Values rescaled, which changes no share: the forest computes with 32 bits, and overflows early."""
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
