"""What a study must be, by its settings and its space; and opening it, or refusing what doesn't fit.

A study is opened by several processes and on many days. What would mix trials that can't be compared is refused.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from omegaconf import open_dict

from reg_sweep.hydra_app.command_line import elsewhere, place_keys
from reg_sweep.hydra_app.overrides import leaves
from reg_sweep.runs.record import RUN_FILE
from reg_sweep.runs.study import Kind
from reg_sweep.search.compose import App
from reg_sweep.search.optuna_internals import claimed, holds, ignore_stops, waited_for_storage
from reg_sweep.search.replicates import SEED, replicate_names
from reg_sweep.search.settings import Searcher, Settings, StudyError, located, make_part, make_pruner
from reg_sweep.search.space import Space
from reg_sweep.search.storage import DIRECTORY, IDENTITY, LOOKS, RETRY_OF, SEARCHER, StudyPlace, opened_storage
from reg_sweep.search.until import UntilVerdict, with_seed

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.trial import FrozenTrial

    from reg_sweep.search.storage import Storage

log = logging.getLogger(__name__)

DEFAULT_TRIALS = 20
N_REHEARSED = 10  # points, all of which must be refused for the study to be


class StudyPlan:
    """What a study must be: how many trials, which points come first, who searches.

    Attributes:
        total: trials over all starts of the study, finished or not; of one until a verdict those of its first look.
        is_grid: whether the sampler tries every combination once.
        until: arms and design of a study that judges; None for one that searches.
        replicates: the parameters over which results are averaged.
    """

    def __init__(self, settings: Settings, space: Space) -> None:
        """Looks at the settings alone; that they fit together shows when the parts are made.

        Raises:
            StudyError: they ask for a verdict that can't be had.
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
        """What the study is for: one whose every trial somebody named, seeds among them or not, is no search."""
        if self.until is not None:
            return "until_verdict"
        is_named = self.is_grid or len(self.settings.enqueue or []) >= self.total or SEED in self.space.parameters
        return "grid" if is_named else "search"

    def n_planned(self, trials: Sequence["FrozenTrial"]) -> int:
        """How many trials the study has, as far as that is known: one until a verdict has those that it asked for."""
        return self.total + len(retried(trials)) if self.until is None else max(self.total, len(trials))

    def n_left(self, study: "optuna.Study") -> int:
        """How many trials are still to run; of a study until a verdict at most so many, at looks to come too."""
        return self.n_unfinished(study.get_trials(deepcopy=False)) if self.until is None else self.until.n_left(study)

    def n_unfinished(self, trials: Sequence["FrozenTrial"]) -> int:
        """How many of the trials that are planned by now have not ended."""
        return self.n_planned(trials) - sum(t.state.is_finished() for t in trials)

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
        if self.until is not None:  # its arms, with seeds, are enqueued look by look
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
                raise StudyError(f"hydra.sweeper.enqueue: {name} must be {p}, got {value}")
        # Optuna's grid refuses such a point too, but only when the trial's turn has come.
        if self.is_grid and len(point) < len(self.space.parameters):
            raise StudyError(f"hydra.sweeper.enqueue: with a grid a point needs all parameters, got {dict(point)}")
        return dict(point)

    def identity(self, config: "DictConfig") -> dict[str, str]:
        """What must not change between two starts of a study of this app, as text by name."""
        # Text, for storages keep JSON, which knows less types than OmegaConf; interpolations stay as they are written,
        # or a time stamp would make every start another study.
        kept = {key: str(value) for key, value in leaves(config)}
        kept |= {key: o.get_value_string() if o.value_type else "deleted" for key, o in self.space.fixed.items()}
        for name in (*self.settings.may_differ, *place_keys(config)):
            kept = {k: v for k, v in kept.items() if not f"{k.lstrip('+')}.".startswith(f"{name}.")}
        kept |= {name: str(p) for name, p in self.space.parameters.items()}
        if self.settings.custom_search_space is not None:
            kept["hydra.sweeper.custom_search_space"] = self.settings.custom_search_space
        return kept if self.until is None else kept | self.until.identity()

    def name(self, app: App) -> str:
        """A name that the same command has at every start, and no other: by the app, its config and the space."""
        whole = json.dumps([self.settings.directions, self.identity(app.config)], sort_keys=True)
        return f"{app.config.hydra.job.name}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"

    def too_many_failed(self, trials: Sequence["FrozenTrial"]) -> bool:
        """Whether more of the study's trials failed than the settings allow; one that is tried again does not count."""
        return len(failed(trials)) > self.settings.max_failure_rate * (self.n_planned(trials) - len(retried(trials)))


def retried(trials: Sequence["FrozenTrial"]) -> set[int]:
    """The numbers of failed trials that others try again."""
    return {t.user_attrs[RETRY_OF] for t in trials if RETRY_OF in t.user_attrs}


def failed(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """The failed trials that no other tries again."""
    again = retried(trials)
    return [t for t in trials if t.state.name == "FAIL" and t.number not in again]


@contextmanager
def opened_study(plan: StudyPlan, place: StudyPlace, app: App, worker: int | None) -> "Iterator[optuna.Study]":
    """Opens the study, or makes it, and closes it; the sweeper, before that, checks that all parts fit together.

    `worker` is the number of the worker that this process is; None in the sweeper's own.

    Raises:
        StudyError: the parts do not fit together, or not to the study that is there.
    """
    searcher, points = Searcher(plan.sampler(), plan.pruner()), plan.points()
    if worker is None:
        _rehearse(plan, searcher.pruner, app)
    place.directory.mkdir(parents=True, exist_ok=True)  # not before: what is refused leaves nothing behind
    # A worker's server may be away for a moment; at a sweep's begin it is more likely that its address is wrong.
    with opened_storage(place.location, waits=worker is not None) as storage:
        study = waited_for_storage(storage, lambda: _open(plan, place, app, storage, searcher))
        with claimed(study):
            goes_on = bool(study.get_trials(deepcopy=False))  # before points are enqueued: these are trials, too
            for point in points:
                # On every start, for new ones may have been added; skipping looks at finished and waiting trials alike.
                study.enqueue_trial(point, skip_if_exists=True)
            if plan.settings.retry_failed and worker is None:
                retry_failed(study)
        ignore_stops(study)  # we count the trials ourselves
        if (worker or 0) > 0 or goes_on:
            # A seed would draw the points of the first start, or of the first worker, again.
            searcher.sampler.reseed_rng()
        yield study


def _open(plan: StudyPlan, place: StudyPlace, app: App, storage: "Storage", searcher: Searcher) -> "optuna.Study":
    import optuna

    plan.space.check_kept(storage)
    # Under the claim: of several processes that make one study at the same time, all but one would fail.
    with storage.claim(place.name):
        if place.name not in optuna.get_all_study_names(storage):
            # Before the study is made: refused, it leaves nothing behind.
            another = elsewhere(app.config, plan.settings.study_name)
            _check_unused(place, another)
            try:
                study = optuna.create_study(
                    study_name=place.name,
                    storage=storage,
                    sampler=searcher.sampler,
                    pruner=searcher.pruner,
                    directions=plan.settings.directions,
                )
            except optuna.exceptions.DuplicatedStudyError:
                raise StudyError(
                    f"the storage takes the name {place.name} for that of another study, as MySQL does where case alone"
                    f" differs: choose another {another}"
                ) from None
        else:
            study = optuna.load_study(
                study_name=place.name, storage=storage, sampler=searcher.sampler, pruner=searcher.pruner
            )
        if IDENTITY not in study.user_attrs and not study.get_trials(deepcopy=False):  # new, or killed when it was
            if plan.until is not None:
                study.set_user_attr(LOOKS, [])
            study.set_user_attr(DIRECTORY, str(app.config.hydra.sweep.dir))
            study.set_user_attr(SEARCHER, str(searcher))
            study.set_user_attr(IDENTITY, plan.identity(app.config))
        _check_same(study, plan, app)
        _say_what_searches(study, searcher)
        return study


def retry_failed(study: "optuna.Study") -> None:
    """Enqueues the points of failed trials again, each once; to be called by who claims the study."""
    trials = study.get_trials(deepcopy=False)
    again = retried(trials)
    for trial in trials:
        if trial.state.name == "FAIL" and trial.number not in again:
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})


def _rehearse(plan: StudyPlan, pruner: "optuna.pruners.BasePruner", app: App) -> None:
    """Draws points, in memory, and composes the first's config: what doesn't fit shows before the study begins."""
    import optuna

    check = _checked(plan, app)
    if plan.until is not None:
        for arm in plan.until.arms:
            check(plan.space.overrides({**arm, SEED: plan.until.first_seed}))
        return None
    sampler, directions = plan.sampler(), plan.settings.directions  # of its own: the study's must not have drawn yet
    study = optuna.create_study(directions=directions, sampler=sampler, pruner=pruner)
    try:
        trial = study.ask(plan.space.distributions)
        overrides = plan.space.job(trial)
        study.tell(trial, [0.0] * len(directions))
        study.ask(plan.space.distributions)  # some samplers show what they lack once there is a result
    except StudyError:
        raise
    except Exception as error:  # every sampler has its own way to refuse
        reason = str(error).strip().splitlines()[0]
        raise StudyError(f"{type(sampler).__name__} can't search this space: {reason}") from None
    try:
        check(overrides)
    except StudyError:  # one bad point among good ones fails as a trial, where its turn comes
        for _ in range(N_REHEARSED - 1):
            other = plan.space.job(study.ask(plan.space.distributions))
            with suppress(StudyError):
                return check(other)
        raise


def _checked(plan: StudyPlan, app: App) -> Callable[[list[str]], None]:
    """Composes a job's config, and asks the app's own check."""
    path = plan.settings.check
    function = None if path is None else located("check", path)

    def check(overrides: list[str]) -> None:
        job = app.job_config(overrides)
        if function is None:
            return
        with open_dict(job):
            del job["hydra"]
        try:
            function(job)
        except Exception as error:  # whatever the app raises
            raise StudyError(" ".join(str(error).split()) or type(error).__name__) from None

    return check


def _check_same(study: "optuna.Study", plan: StudyPlan, app: App) -> None:
    """Refuses to mix trials of another space, objective or direction into the study."""
    now, another = plan.identity(app.config), elsewhere(app.config, plan.settings.study_name)
    # A study that another program made has no identity: it is taken as it is.
    then, wanted = study.user_attrs.get(IDENTITY, now), plan.settings.directions
    had = [d.name.lower() for d in study.directions]
    if had != wanted:
        raise StudyError(
            f"study {study.study_name} has the direction {', '.join(had)}, not {', '.join(wanted)}: choose another"
            f" {another}"
        )
    # An option that a later version brought, and that is unset, changes nothing.
    unset = {None, "None", "{}"}
    changes = [
        f"{k} was {then.get(k, 'not there')}, is {now.get(k, 'not there')}"
        for k in sorted(then | now)
        if then.get(k) != now.get(k)
        and k.lstrip("+") not in place_keys(app.config)
        and not {then.get(k), now.get(k)} <= unset
    ]
    if not changes:
        return
    difference = f"study {study.study_name} was begun with other settings: {'; '.join(changes)}"
    if plan.until is not None:
        raise StudyError(f"{difference}: a verdict's design is fixed, choose another {another}")
    if not plan.settings.extend:
        raise StudyError(f"{difference}: choose another {another}, or go on with hydra.sweeper.extend=true")
    if plan.is_grid or _changed_choices(plan.space, then, now):
        raise StudyError(
            f"{difference}: neither choices nor a grid can be extended within a study: choose another {another}"
        )
    study.set_user_attr(IDENTITY, now)


def _changed_choices(space: Space, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parameters whose choices changed: Optuna takes new bounds of a number, but refuses other choices."""
    from optuna.distributions import CategoricalDistribution

    return [
        name
        for name, d in space.distributions.items()
        if then.get(name) not in (None, now[name])
        and (isinstance(d, CategoricalDistribution) or then[name].startswith("one of "))
    ]


def _say_what_searches(study: "optuna.Study", searcher: Searcher) -> None:
    """A study may go on with another sampler or pruner, but not without a word."""
    then, now = study.user_attrs.get(SEARCHER), str(searcher)
    if then not in (None, now):  # None: another program made the study
        log.warning("study %s goes on with %s, it had %s", study.study_name, now, then)
        study.set_user_attr(SEARCHER, now)


def _check_unused(place: StudyPlace, another: str) -> None:
    """Refuses to begin a study where jobs of something else lie."""
    for entry in sorted(place.directory.iterdir()):
        if entry.name.isdecimal() and ((entry / ".hydra").exists() or (entry / RUN_FILE).exists()):
            raise StudyError(
                f"{entry} holds a job that study {place.name} knows nothing of: move {place.directory} away, or"
                f" choose another {another}"
            )
