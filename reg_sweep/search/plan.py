"""The plan of a study, made from its settings and space: trials, first points, budgets, sampler and pruner."""

import hashlib
import json
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reg_sweep.hydra_app.command_line import place_keys
from reg_sweep.hydra_app.overrides import leaves
from reg_sweep.runs.ranking import Outcome
from reg_sweep.runs.study import Direction, Kind
from reg_sweep.search.compose import App
from reg_sweep.search.console import best_first, is_feasible, typed_text
from reg_sweep.search.optuna_internals import holds
from reg_sweep.search.parameter import Zipped
from reg_sweep.search.sequential import SEED, UntilVerdict, with_seed
from reg_sweep.search.settings import Settings, StudyError, located, make_part, make_pruner
from reg_sweep.search.space import Space
from reg_sweep.search.storage import RETRY_OF, own_trials, retry_of

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.trial import FrozenTrial

DEFAULT_TRIALS = 20


@dataclass(frozen=True)
class Budget:
    """A budget that is used up: its description, and the setting that continues the study."""

    said: str
    more: str


class StudyPlan:
    """The number of a study's trials, its first points, its sampler and its pruner.

    Attributes:
        total: trials over all starts of the study, finished or not; with `until_verdict`, up to the first analysis.
        is_grid: whether every combination is tried once.
        grid: the grid's points in order, the enqueued ones first; empty for any other sampler.
        budgets: the limits that may end the study before its last trial.
        until: the arms and design with `until_verdict`, else None.
        replicates: the parameters over which results are averaged.
    """

    def __init__(self, settings: Settings, space: Space) -> None:
        """Reads the settings. Those of sampler and pruner are only checked when these are made.

        Raises:
            StudyError: the settings are impossible for a grid, a stopping rule or a verdict.
        """
        self.settings = settings
        self.space = space
        self.until: UntilVerdict | None = None
        self.is_grid = False
        self.grid: list[dict[str, Any]] = []
        self.replicates = replicate_names(settings, space)
        if settings.constraints_func is not None:
            located("constraints_func", settings.constraints_func)
        if settings.until_verdict:
            self.space = with_seed(space)
            self.until = UntilVerdict(settings, self.space)
            self.total = self.until.n_first
            self.budgets = Budgets(self)
            return
        spec = settings.sampler
        self.is_grid = isinstance(spec, Mapping) and str(spec.get("_target_")).endswith(".GridSampler")
        self.total = settings.n_trials or DEFAULT_TRIALS
        if self.is_grid:
            space.size()
            listed = list(space.points())
            if settings.sampler.get("seed") is not None:
                random.Random(settings.sampler["seed"]).shuffle(listed)
            self.grid = list({point_key(p): p for p in [*self._enqueued(), *listed]}.values())
            self.total = min(settings.n_trials or len(self.grid), len(self.grid))
        elif not settings.has_objective:
            raise StudyError("hydra.sweeper.has_objective must be true unless hydra/sweeper/sampler is grid")
        self.budgets = Budgets(self)

    @property
    def kind(self) -> Kind:
        """The study's kind: search, grid or until_verdict. It does not depend on the number of trials.

        A study is a grid if it has a grid sampler or if the seed is among its parameters.
        """
        if self.until is not None:
            return "until_verdict"
        return "grid" if self.is_grid or SEED in self.space.parameters else "search"

    def n_planned(self, trials: Sequence["FrozenTrial"]) -> int:
        """The number of trials planned so far; with `until_verdict`, more may follow."""
        return self.total + len(retried(trials)) if self.until is None else max(self.total, len(trials))

    def n_left(self, study: "optuna.Study") -> int:
        """The number of trials left to run; with `until_verdict`, at most, up to the last interim analysis."""
        return self.n_unfinished(own_trials(study)) if self.until is None else self.until.n_left(study)

    def n_unfinished(self, trials: Sequence["FrozenTrial"]) -> int:
        """The number of trials planned so far that have not ended."""
        return self.n_planned(trials) - sum(t.state.is_finished() for t in trials)

    def too_many_failed(self, trials: Sequence["FrozenTrial"]) -> bool:
        """Whether more trials failed than the settings allow. Failed trials that were retried don't count."""
        n, most = len(failed(trials)), self.settings.max_failures
        if most is not None and n > most:
            return True
        return n > self.settings.max_failure_rate * (self.n_planned(trials) - len(retried(trials)))

    def sampler(self) -> "optuna.samplers.BaseSampler":
        """A new sampler.

        Raises:
            StudyError: it can't be made.
        """
        import optuna

        class GridSampler(optuna.samplers.RandomSampler):
            """A placeholder that is never asked: a grid's points are enqueued, each once, in the command's order."""

        if self.until is not None or self.is_grid:
            return optuna.samplers.RandomSampler() if self.until is not None else GridSampler()
        spec, base = self.settings.sampler, optuna.samplers.BaseSampler
        return make_part("sampler", spec, base)  # type: ignore[type-abstract] # isinstance takes it

    def pruner(self) -> "optuna.pruners.BasePruner":
        """A new pruner.

        Raises:
            StudyError: it can't be made, or the study has several objectives, which Optuna does not prune.
        """
        import optuna

        pruner = make_pruner(self.settings.pruner)
        if len(self.settings.directions) > 1 and not isinstance(pruner, optuna.pruners.NopPruner):
            raise StudyError(
                "Optuna prunes only studies with one objective: choose hydra/sweeper/pruner=none, or a single"
                " hydra.sweeper.direction"
            )
        return pruner

    def points(self) -> list[dict[str, Any]]:
        """The points to try first, by name.

        Raises:
            StudyError: a point is outside the space, or there are more points than trials.
        """
        if self.until is not None or self.is_grid:  # these enqueue their points later
            return []
        points = self._enqueued()
        if len(points) > self.total:
            raise StudyError(
                f"hydra.sweeper.n_trials must be at least the {len(points)} enqueued points, got {self.total}"
            )
        return points

    def _enqueued(self) -> list[dict[str, Any]]:
        return [self._point(p) for p in self.settings.enqueue or []]

    def _point(self, point: Any) -> dict[str, Any]:
        if not isinstance(point, Mapping):
            raise StudyError(f"hydra.sweeper.enqueue must list points such as {{l1: 0.001}}, got {point!r}")
        point = self.space.point(point)
        for name, value in point.items():
            p = self.space.parameters.get(name)
            if p is None and self.space.extend is not None:  # `extend` may suggest this parameter later
                continue
            if p is None:
                raise StudyError(
                    f"hydra.sweeper.enqueue: {name} is not swept: the space has {', '.join(self.space.parameters)}"
                )
            if not self.space.is_swept(name, point):
                raise StudyError(f"hydra.sweeper.enqueue: {name} is {self.space.text(name)}, got {typed_text(point)}")
            if not holds(p.distribution, value):
                raise StudyError(
                    f"hydra.sweeper.enqueue: {name} must be {p}, got {value}: choose another point, or enqueue none"
                    " with hydra.sweeper.enqueue=null"
                )
        if self.is_grid and point.keys() != set(self.space.names_at(point)):
            raise StudyError(f"hydra.sweeper.enqueue: in a grid a point needs all parameters, got {dict(point)}")
        return dict(point)

    def metric_names(self, config: "DictConfig") -> list[str] | None:
        """The objectives' names, from the settings or from `objective` in the app's config; None if unknown."""
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
        """The settings that must not change between two starts of a study of this app, as text by name."""
        # Text, because storages keep JSON, which has fewer types than OmegaConf. Interpolations are not resolved:
        # otherwise a time stamp would make every start a different study.
        kept = {key: str(value) for key, value in leaves(config)}
        kept |= {key: o.get_value_string() if o.value_type else "deleted" for key, o in self.space.fixed.items()}
        for name in (*self.settings.may_differ, *place_keys(config)):
            kept = {k: v for k, v in kept.items() if not f"{k.lstrip('+')}.".startswith(f"{name}.")}
        kept |= {name: self.space.text(name) for name in self.space.parameters}
        if self.settings.custom_search_space is not None:
            kept["hydra.sweeper.custom_search_space"] = self.settings.custom_search_space
        return kept if self.until is None else kept | self.until.identity()

    def name(self, app: App) -> str:
        """A name that is the same whenever a command is started, and unique to its app, config and space."""
        whole = json.dumps([self.settings.directions, self.identity(app.config)], sort_keys=True)
        return f"{app.config.hydra.job.name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


class Budgets:
    """The budgets of a study's plan: `hydra.sweeper.timeout` and `stop_when`."""

    def __init__(self, plan: StudyPlan) -> None:
        """Reads the plan's settings.

        Raises:
            StudyError: `stop_when` can never hold, or does not suit this kind of study.
        """
        self._plan = plan
        self._terminator: optuna.terminator.BaseTerminator | None = None
        self._decided: tuple[int, bool] = (-1, False)  # number of finished trials, and the terminator's answer then
        self._check()

    def _check(self) -> None:
        """Refuses `stop_when` if it can never hold or does not suit this kind of study."""
        stop = self._plan.settings.stop_when
        if not stop.is_set:
            return
        if self._plan.until is not None:
            why = "must be left out with until_verdict: hydra.sweeper.design says when the study ends"
        elif len(self._plan.settings.directions) > 1:
            why = "must be left out with several directions: none of their trials is the best"
        elif self._plan.replicates:
            why = f"must be left out when results are averaged over {', '.join(self._plan.replicates)}"
        elif not self._plan.settings.has_objective:
            why = "must be left out with has_objective=false: no job is better than another"
        elif stop.no_better_in is not None and stop.no_better_in >= self._plan.total:
            why = (
                f"can never hold: no_better_in must be below the {self._plan.total} trials of the study, got"
                f" {stop.no_better_in}"
            )
        else:
            self._terminator = None if stop.terminator is None else self._made_terminator()
            return
        raise StudyError(f"hydra.sweeper.stop_when {why}")

    def _made_terminator(self) -> "optuna.terminator.BaseTerminator":
        from optuna.exceptions import ExperimentalWarning
        from optuna.terminator import BaseTerminator

        spec = self._plan.settings.stop_when.terminator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # all terminators are experimental
            return make_part("stop_when.terminator", spec, BaseTerminator)  # type: ignore[type-abstract] # isinstance takes it

    def end(self, study: "optuna.Study", trials: "Sequence[FrozenTrial]", spent_s: float | None) -> Budget | None:
        """The budget that is used up, so that no further trial may begin; None if there is none or no trial is left."""
        if self._plan.n_unfinished(trials) <= 0 and self._plan.until is None:
            return None
        limit_s = self._plan.settings.timeout_s
        if limit_s is not None and spent_s is not None:
            needed_s = typical_seconds(trials)
            if spent_s + needed_s > limit_s:
                fits = f", and a trial takes up to {time_text(needed_s)}" if needed_s and spent_s < limit_s else ""
                said = (
                    f"hydra.sweeper.timeout={self._plan.settings.timeout}: the study has used"
                    f" {time_text(spent_s)}{fits}"
                )
                return Budget(said, f"hydra.sweeper.timeout={2 * max(limit_s, spent_s + needed_s):.0f}s")
        patience = self._plan.settings.stop_when.no_better_in
        n = 0 if patience is None else since_best(trials, self._plan.settings.directions)
        if patience is not None and n >= patience:
            said = f"hydra.sweeper.stop_when.no_better_in={patience}: {n} trials have ended since the best one"
            return Budget(said, "hydra.sweeper.stop_when.no_better_in=null")
        if self._terminator is not None and self._terminates(study, trials):
            name = type(self._terminator).__name__
            said = f"hydra.sweeper.stop_when.terminator: {name} expects little further improvement"
            return Budget(said, "hydra.sweeper.stop_when.terminator=null")
        return None

    def _terminates(self, study: "optuna.Study", trials: "Sequence[FrozenTrial]") -> bool:
        n = sum(t.state.is_finished() for t in trials)
        if self._decided[0] != n:  # ask once per number of trials: it may take a second
            assert self._terminator is not None
            try:
                self._decided = n, self._terminator.should_terminate(study)
            except Exception as error:  # a terminator may need more from the app than values
                reason = " ".join(str(error).split())
                raise StudyError(f"hydra.sweeper.stop_when.terminator can't judge this study: {reason}") from None
        return self._decided[1]


def replicate_names(settings: Settings, space: Space) -> list[str]:
    """The parameters over which a study's results are averaged.

    Raises:
        StudyError: a name in `hydra.sweeper.replicates` is not swept, or is zipped with other keys.
    """
    swept = space.parameters
    for name in settings.replicates or [SEED]:
        if any(isinstance(p, Zipped) and name in p.name.split(",") for p in swept.values()):
            raise StudyError(
                f"hydra.sweeper.zip: {name} must vary at every point, because results are averaged over it"
            )
    if settings.replicates is None:
        return [SEED] if SEED in swept else []
    for name in settings.replicates:
        if name not in swept:
            raise StudyError(f"hydra.sweeper.replicates: {name} is not swept: the space has {', '.join(swept)}")
    return list(settings.replicates)


def outcomes(trials: "Iterable[FrozenTrial]") -> list[Outcome]:
    """The complete trials, in the form that is ranked."""
    complete = (t for t in trials if t.state.name == "COMPLETE")
    return [Outcome(t.number, t.params, t.values, is_feasible(t)) for t in complete]


def retried(trials: Sequence["FrozenTrial"]) -> set[int]:
    """The numbers of failed trials that were retried."""
    again = (t for t in trials if RETRY_OF in t.user_attrs)  # a cheap filter: called often, on thousands of trials
    return {number for number in map(retry_of, again) if number is not None}


def failed(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """The failed trials that were not retried."""
    its = [t for t in trials if t.state.name == "FAIL"]
    again = retried(trials) if its else set()
    return [t for t in its if t.number not in again]


def point_key(point: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A key that is equal for points with the same values, in any order of the parameters."""
    return tuple(sorted(point.items()))


def typical_seconds(trials: Sequence["FrozenTrial"]) -> float:
    """The 90th percentile of the complete trials' seconds, counting only each last attempt; 0 if there is none."""
    took = sorted(
        (t.datetime_complete - t.datetime_start).total_seconds()
        for t in trials
        if t.state.name == "COMPLETE" and t.datetime_complete is not None and t.datetime_start is not None
    )
    return took[int(0.9 * (len(took) - 1))] if took else 0.0


def since_best(trials: Sequence["FrozenTrial"], directions: list[Direction]) -> int:
    """The number of trials that were completed or pruned since the best one was completed."""
    best = best_first(trials, directions)[:1] if len(directions) == 1 else []
    ended = [t.datetime_complete for t in trials if t.state.name in ("COMPLETE", "PRUNED")]
    return sum(end is not None and end > t.datetime_complete for t in best if t.datetime_complete for end in ended)


def time_text(seconds: float) -> str:
    """'45 s', '90 min', '12.5 h'."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
