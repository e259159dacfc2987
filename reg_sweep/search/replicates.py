"""Replicates: the trials of one point that differ in their seed alone, and what a study's trials say of its points."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reg_sweep.runs.ranking import Outcome
from reg_sweep.search.settings import Settings, StudyError
from reg_sweep.search.space import Space, Zipped
from reg_sweep.search.text import is_feasible

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

SEED = "seed"


def replicate_names(settings: Settings, space: Space) -> list[str]:
    """The parameters over which a study's results are averaged.

    Raises:
        StudyError: a name that `hydra.sweeper.replicates` lists is not swept.
    """
    swept = space.parameters
    for name in settings.replicates or [SEED]:
        if any(isinstance(p, Zipped) and name in p.name.split(",") for p in swept.values()):
            raise StudyError(f"hydra.sweeper.zip: {name} must vary with every point, for results are averaged over it")
    if settings.replicates is None:
        return [SEED] if SEED in swept else []
    for name in settings.replicates:
        if name not in swept:
            raise StudyError(f"hydra.sweeper.replicates: {name} is not swept: the space has {', '.join(swept)}")
    return list(settings.replicates)


def outcomes(trials: "Iterable[FrozenTrial]") -> list[Outcome]:
    """The complete trials, as they are ranked."""
    complete = (t for t in trials if t.state.name == "COMPLETE")
    return [Outcome(t.number, t.params, t.values, is_feasible(t)) for t in complete]
