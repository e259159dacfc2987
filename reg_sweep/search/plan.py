"""The plan of a study, from its settings and its space: its trials, its first points, its sampler and pruner."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reg_sweep.hydra_app.command_line import place_keys
from reg_sweep.hydra_app.overrides import leaves
from reg_sweep.runs.ranking import Outcome
from reg_sweep.runs.study import Kind
from reg_sweep.search.compose import App
from reg_sweep.search.console import is_feasible
from reg_sweep.search.optuna_internals import holds
from reg_sweep.search.sequential import SEED, UntilVerdict, with_seed
from reg_sweep.search.settings import Settings, StudyError, located, make_part, make_pruner
from reg_sweep.search.space import Space, Zipped
from reg_sweep.search.storage import retry_of

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.trial import FrozenTrial

DEFAULT_TRIALS = 20


class StudyPlan:
    """How many trials a study has, which points come first, and what searches.

    Attributes:
        total: trials over all starts of the study, finished or not; until a verdict, those up to the first analysis.
        is_grid: whether the sampler tries every combination once.
        until: arms and design of a study that judges; None for one that searches.
        replicates: the parameters over which results are averaged.
    """

    def __init__(self, settings: Settings, space: Space) -> None:
        """Reads the settings alone; whether sampler and pruner take them shows when these are made.

        Raises:
            StudyError: they ask for an impossible verdict.
        """
        self.settings = settings
        self.space = space
        self.until: UntilVerdict | None = None
        self.is_grid = False
        self.replicates = replicate_names(settings, space)
        if settings.constraints_func is not None:
            located("constraints_func", settings.constraints_func)
        if settings.until_verdict:
            self.space = with_seed(space)
            self.until = UntilVerdict(settings, self.space)
            self.total = self.until.n_first
            return
        spec = settings.sampler
        self.is_grid = isinstance(spec, Mapping) and str(spec.get("_target_")).endswith(".GridSampler")
        self.total = settings.n_trials or DEFAULT_TRIALS
        if self.is_grid:
            size = math.prod(len(p.listed() or []) for p in space.parameters.values())
            whole = size + len(settings.enqueue or [])  # the grid does not know of enqueued points
            self.total = min(settings.n_trials or whole, whole)

    @property
    def kind(self) -> Kind:
        """The study's kind: search, grid or until_verdict. It does not depend on the number of trials.

        A grid sampler makes a grid, and so does a seed among the parameters.
        """
        if self.until is not None:
            return "until_verdict"
        return "grid" if self.is_grid or SEED in self.space.parameters else "search"

    def n_planned(self, trials: Sequence["FrozenTrial"]) -> int:
        """The number of trials that the study has, as far as it is known; until a verdict, those asked for so far."""
        return self.total + len(retried(trials)) if self.until is None else max(self.total, len(trials))

    def n_left(self, study: "optuna.Study") -> int:
        """The number of trials left to run; until a verdict, the largest number, interim analyses to come included."""
        return self.n_unfinished(study.get_trials(deepcopy=False)) if self.until is None else self.until.n_left(study)

    def n_unfinished(self, trials: Sequence["FrozenTrial"]) -> int:
        """The number of trials planned so far that have not ended."""
        return self.n_planned(trials) - sum(t.state.is_finished() for t in trials)

    def too_many_failed(self, trials: Sequence["FrozenTrial"]) -> bool:
        """Whether more trials failed than the settings allow; a failed trial that is tried again does not count."""
        return len(failed(trials)) > self.settings.max_failure_rate * (self.n_planned(trials) - len(retried(trials)))

    def sampler(self) -> "optuna.samplers.BaseSampler":
        """A new sampler.

        Raises:
            StudyError: it can't be made, or is a grid over an interval.
        """
        import optuna

        if self.until is not None:  # never asked: every trial is enqueued whole
            return optuna.samplers.RandomSampler()
        arguments = {}
        if self.is_grid:
            listed = {name: p.listed() for name, p in self.space.parameters.items()}
            endless = [name for name, values in listed.items() if values is None]
            if endless:
                raise StudyError(
                    f"a grid needs values that can be listed, but {', '.join(endless)} is an interval: write choices or"
                    " a range, or take another hydra/sweeper/sampler"
                )
            arguments["search_space"] = listed
        spec, base = self.settings.sampler, optuna.samplers.BaseSampler
        return make_part("sampler", spec, base, **arguments)  # type: ignore[type-abstract] # isinstance takes it

    def pruner(self) -> "optuna.pruners.BasePruner":
        """A new pruner.

        Raises:
            StudyError: it can't be made, or the study has several objectives, which Optuna does not prune.
        """
        import optuna

        pruner = make_pruner(self.settings.pruner)
        if len(self.settings.directions) > 1 and not isinstance(pruner, optuna.pruners.NopPruner):
            raise StudyError(
                "Optuna prunes studies of one objective only: take hydra/sweeper/pruner=none, or a single"
                " hydra.sweeper.direction"
            )
        return pruner

    def points(self) -> list[dict[str, Any]]:
        """The points to try first, by name.

        Raises:
            StudyError: one lies outside of the space, or they are more than the trials.
        """
        if self.until is not None:  # its arms, with seeds, are enqueued analysis by analysis
            return []
        points = [self._point(p) for p in self.settings.enqueue or []]
        if len(points) > self.total:
            raise StudyError(
                f"hydra.sweeper.n_trials must be at least the {len(points)} enqueued points, got {self.total}"
            )
        return points

    def _point(self, point: Any) -> dict[str, Any]:
        if not isinstance(point, Mapping):
            raise StudyError(f"hydra.sweeper.enqueue must list points such as {{l1: 0.001}}, got {point!r}")
        point = self.space.point(point)
        for name, value in point.items():
            p = self.space.parameters.get(name)
            if p is None and self.space.extend is not None:  # a parameter that may be suggested later
                continue
            if p is None:
                raise StudyError(
                    f"hydra.sweeper.enqueue: {name} is not swept: the space has {', '.join(self.space.parameters)}"
                )
            if not holds(p.distribution, value):
                raise StudyError(
                    f"hydra.sweeper.enqueue: {name} must be {p}, got {value}: choose another point, or leave all out"
                    " with hydra.sweeper.enqueue=null"
                )
        # Optuna's grid refuses such a point too, but only when the trial's turn has come.
        if self.is_grid and len(point) < len(self.space.parameters):
            raise StudyError(f"hydra.sweeper.enqueue: with a grid a point needs all parameters, got {dict(point)}")
        return dict(point)

    def metric_names(self, config: "DictConfig") -> list[str] | None:
        """The objectives' names: those of the settings, or the `objective` of the app's config; None if unknown."""
        if self.settings.metric_names is not None:
            return list(self.settings.metric_names)
        named: Any = dict(leaves(config)).get("objective")
        for key, override in self.space.fixed.items():
            if key.lstrip("+") == "objective" and not override.is_delete():
                named = override.value()
        names = [named] if isinstance(named, str) else named
        is_named = isinstance(names, list) and len(names) == len(self.settings.directions)
        return [str(name) for name in names] if is_named else None

    def identity(self, config: "DictConfig") -> dict[str, str]:
        """The facts that must not change between two starts of a study of this app, as text by name."""
        # Text, since storages keep JSON, which knows fewer types than OmegaConf; interpolations stay as they are
        # written, or a time stamp would make every start another study.
        kept = {key: str(value) for key, value in leaves(config)}
        kept |= {key: o.get_value_string() if o.value_type else "deleted" for key, o in self.space.fixed.items()}
        for name in (*self.settings.may_differ, *place_keys(config)):
            kept = {k: v for k, v in kept.items() if not f"{k.lstrip('+')}.".startswith(f"{name}.")}
        kept |= {name: str(p) for name, p in self.space.parameters.items()}
        if self.settings.custom_search_space is not None:
            kept["hydra.sweeper.custom_search_space"] = self.settings.custom_search_space
        return kept if self.until is None else kept | self.until.identity()

    def name(self, app: App) -> str:
        """A name that is the same at every start of a command, and unique to its app, config and space."""
        whole = json.dumps([self.settings.directions, self.identity(app.config)], sort_keys=True)
        return f"{app.config.hydra.job.name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def replicate_names(settings: Settings, space: Space) -> list[str]:
    """The parameters over which a study's results are averaged.

    Raises:
        StudyError: a name that `hydra.sweeper.replicates` lists is not swept.
    """
    swept = space.parameters
    for name in settings.replicates or [SEED]:
        if any(isinstance(p, Zipped) and name in p.name.split(",") for p in swept.values()):
            raise StudyError(
                f"hydra.sweeper.zip: {name} must vary with every point, since results are averaged over it"
            )
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


def retried(trials: Sequence["FrozenTrial"]) -> set[int]:
    """The numbers of failed trials that were retried."""
    return {number for number in map(retry_of, trials) if number is not None}


def failed(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """The failed trials that were not retried."""
    again = retried(trials)
    return [t for t in trials if t.state.name == "FAIL" and t.number not in again]
