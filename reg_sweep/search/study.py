"""Opens a study, or refuses settings under which new trials could not be compared with its earlier ones.

Several processes may open a study, at different times.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf, open_dict

from reg_sweep.hydra_app.command_line import elsewhere, place_keys, typed_override
from reg_sweep.hydra_app.errors import first_line
from reg_sweep.hydra_app.overrides import defaults
from reg_sweep.runs.files import first_missing, remove_empty
from reg_sweep.runs.folders import holds_sweep
from reg_sweep.runs.record import RUN_FILE, STUDY_FILE
from reg_sweep.search.compose import App
from reg_sweep.search.optuna_internals import ignore_stops
from reg_sweep.search.plan import StudyPlan, retried
from reg_sweep.search.sequential import SEED
from reg_sweep.search.settings import Searcher, StudyError, located
from reg_sweep.search.space import Space
from reg_sweep.search.storage import (
    BEST_FILE,
    DIRECTORY,
    EARLIER,
    IDENTITY,
    LOOKS,
    RESULTS_FILE,
    RETRY_OF,
    SEARCHER,
    SWEEP_FILE,
    StudyPlace,
    job_facts,
    locked,
    opened_storage,
    own_trials,
    patiently_in,
)
from reg_sweep.search.warm_start import earlier_variance, learned

if TYPE_CHECKING:
    import optuna

    from reg_sweep.search.storage import Storage

log = logging.getLogger(__name__)

MAX_OPTIONS = 16  # options of a group that are composed before a study begins
N_REHEARSED = 10  # points checked before a study begins; it is refused if all of them are


@contextmanager
def opened_study(plan: StudyPlan, place: StudyPlace, app: App, worker: int | None) -> "Iterator[optuna.Study]":
    """Opens or creates the study, and closes it at the end. The sweeper first checks that all settings fit together.

    Args:
        plan: the study's plan.
        place: its name, storage and directory.
        app: the app that is swept.
        worker: this process's number if it is a worker; None in the sweeper.

    Raises:
        StudyError: the settings don't fit together, or don't fit the existing study.
    """
    searcher, points = Searcher(plan.sampler(), plan.pruner()), plan.points()
    known = learned(plan, app) if worker is None else []
    if worker is None:
        _rehearse(plan, searcher.pruner, app)
        if not place.directory.exists():
            earlier_variance(plan, app)  # called for its errors; an existing study has stored the value
    # A server may be unreachable for a moment while workers run. When a sweep begins, a wrong address is more likely.
    with _placed_storage(place, waits=worker is not None) as storage:
        study = patiently_in(storage, lambda: _open(plan, place, app, storage, searcher, worker))
        with locked(study):
            resumes = bool(own_trials(study))  # asked before points are enqueued, which adds trials
            for trial in known if not resumes else []:
                study.add_trial(trial)
            for point in points:
                # At every start, because points may have been added; known ones are skipped.
                study.enqueue_trial(point, skip_if_exists=True)
            if plan.settings.retry_failed and worker is None:
                retry_failed(study)
        ignore_stops(study)  # the queue counts the trials
        if (worker or 0) > 0 or resumes:
            # With the same seed, the sampler would draw the points of the first start or worker again.
            searcher.sampler.reseed_rng()
        yield study


@contextmanager
def _placed_storage(place: StudyPlace, *, waits: bool) -> "Iterator[Storage]":
    """Opens the study's storage. Creates the sweep's directory, which may hold it, and removes it if opening fails."""
    top = first_missing(place.directory)
    place.directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        try:
            storage = opened.enter_context(opened_storage(place.location, waits=waits))
        except StudyError:
            if top is not None:
                remove_empty(place.directory, top)
            raise
        yield storage


def _open(
    plan: StudyPlan, place: StudyPlace, app: App, storage: "Storage", searcher: Searcher, worker: int | None
) -> "optuna.Study":
    import optuna

    plan.space.check_kept(storage)
    # Under the lock: if several processes created the study at the same time, all but one would fail.
    with storage.lock(place.name):
        is_new = place.name not in optuna.get_all_study_names(storage)
        if is_new:
            # Before the study is created, so that a refused one leaves nothing behind.
            another = elsewhere(app.config, plan.settings.study_name)
            _check_unused(place, another)
            _note_sweep(place, app)  # before other processes see the study: `_check_own` looks for this file
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
                    f"the storage must not hold a study whose name it can't distinguish from {place.name} (MySQL"
                    f" ignores case): choose another {another}"
                ) from None
        else:
            study = optuna.load_study(
                study_name=place.name, storage=storage, sampler=searcher.sampler, pruner=searcher.pruner
            )
            _check_own(study, place, app)
        if IDENTITY not in study.user_attrs and not study.get_trials(deepcopy=False):  # new, or killed while new
            if plan.until is not None:
                study.set_user_attr(LOOKS, [])
                study.set_user_attr(EARLIER, earlier_variance(plan, app))
            study.set_user_attr(DIRECTORY, str(app.config.hydra.sweep.dir))
            study.set_user_attr(SEARCHER, str(searcher))
            _name_objectives(study, plan.metric_names(app.config))
            study.set_user_attr(IDENTITY, plan.identity(app.config))
        _check_same(study, plan, app)
        if not is_new and worker is None:
            _note_sweep(place, app)
        _log_searcher(study, searcher)
        return study


def _note_sweep(place: StudyPlace, app: App) -> None:
    """Writes the sweep's config into its directory, as Hydra's own sweeper does."""
    OmegaConf.save(app.config, place.directory / SWEEP_FILE)


def _name_objectives(study: "optuna.Study", names: list[str] | None) -> None:
    """Sets the objectives' names, for dashboards and plots."""
    from optuna.exceptions import ExperimentalWarning

    if names is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # this method is experimental since Optuna 3.2
            study.set_metric_names(names)


def retry_failed(study: "optuna.Study") -> None:
    """Enqueues the point of each failed trial once more. Call it under the study's lock."""
    trials = own_trials(study)
    again = retried(trials)
    for trial in trials:
        if trial.state.name == "FAIL" and trial.number not in again:
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})


# ---- before a study begins


def _rehearse(plan: StudyPlan, pruner: "optuna.pruners.BasePruner", app: App) -> None:
    """Draws points from a study in memory and composes their configs, so that errors appear before the study begins."""
    import optuna

    check = _checked(plan, app)
    if plan.until is not None:
        if SEED not in app.config:
            raise StudyError(
                f"hydra.sweeper.until_verdict trains arms on several seeds: the app's config needs the key {SEED}"
            )
        for arm in plan.until.arms:
            check(plan.space.overrides({**arm, SEED: plan.until.first_seed}))
        return
    for point in _options(plan, app):
        app.job_config(plan.space.overrides(point))
    if plan.is_grid:
        _check_some(check, (plan.space.overrides(p) for p in plan.grid[:N_REHEARSED]))
        return
    sampler, directions = plan.sampler(), plan.settings.directions  # a second sampler: the study's must not draw yet
    study = optuna.create_study(directions=directions, sampler=sampler, pruner=pruner)
    try:
        trial = study.ask(plan.space.distributions)
        overrides = plan.space.job(trial)
        ignore_stops(study)
        study.tell(trial, [0.0] * len(directions))
        study.ask(plan.space.distributions)  # some samplers fail only once there is a result
    except StudyError:
        raise
    except Exception as error:  # samplers refuse a space with exceptions of any type
        reason = first_line(error)
        raise StudyError(f"{type(sampler).__name__} can't search this space: {reason}") from None
    others = (plan.space.job(study.ask(plan.space.distributions)) for _ in range(N_REHEARSED - 1))
    _check_some(check, chain([overrides], others))


def _check_some(check: Callable[[list[str]], None], jobs: Iterable[list[str]]) -> None:
    """Refuses jobs if none of them can run. A bad point among good ones later fails as a trial."""
    refused: StudyError | None = None
    for overrides in jobs:
        try:
            check(overrides)
        except StudyError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _options(plan: StudyPlan, app: App) -> Iterator[dict[str, Any]]:
    """Points that contain each option of each swept group once: an option might choose another launcher."""
    listed = {name: p.listed() for name, p in plan.space.parameters.items()}
    first = {name: values[0] for name, values in listed.items() if values}
    groups = [name for name in first if app.loader.get_group_options(name.partition("@")[0])]
    for name in groups:
        for value in islice(listed[name] or [], MAX_OPTIONS):
            yield {**first, name: value}


def _checked(plan: StudyPlan, app: App) -> Callable[[list[str]], None]:
    """A function that composes a job's config and passes it to the app's own check."""
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
        except Exception as error:  # an app may raise anything
            raise StudyError(" ".join(str(error).split()) or type(error).__name__) from None

    return check


def _check_unused(place: StudyPlace, another: str) -> None:
    """Refuses to begin a study in a directory that holds other work."""
    refused = f"move {place.directory} away, or choose another {another}"
    if (place.directory / RUN_FILE).exists():
        raise StudyError(f"{place.directory} must be new or hold study {place.name}, got a single run: {refused}")
    folder = (place.directory / BEST_FILE).parent
    kept = [place.directory / STUDY_FILE, place.directory / RESULTS_FILE, *sorted(folder.glob("best*.yaml"))]
    for path in (*kept, *([folder] if not folder.is_dir() else [])):
        if os.path.lexists(path):
            raise StudyError(f"{path} must be new or belong to study {place.name}, got another study's: {refused}")
    for entry in sorted(place.directory.iterdir()):
        if entry.name.isdecimal() and ((entry / ".hydra").exists() or (entry / RUN_FILE).exists()):
            raise StudyError(f"{entry} holds a job that is not part of study {place.name}: {refused}")


# ---- an existing study


def _check_same(study: "optuna.Study", plan: StudyPlan, app: App) -> None:
    """Refuses to add trials of another space, objective or direction to the study."""
    now, another = plan.identity(app.config), elsewhere(app.config, plan.settings.study_name)
    # A study created by another program has no identity and is accepted.
    then, wanted = study.user_attrs.get(IDENTITY), plan.settings.directions
    then = dict(then) if isinstance(then, Mapping) else now
    if plan.until is not None and str(then.get("design")).endswith(".sequential.Design"):
        del then["design"]  # earlier versions recorded the judging class here; it has not changed
    had = [d.name.lower() for d in study.directions]
    if had != wanted:
        raise StudyError(
            f"study {study.study_name} has the direction {', '.join(had)}, not {', '.join(wanted)}: choose another"
            f" {another}"
        )
    # Not a change: an option of a later version that is unset or at its default, or naming the option of a group that
    # is its default anyway.
    unset, chosen = {None, "None", "{}"}, dict(app.config.hydra.runtime.choices)
    default = defaults(app.config) | chosen
    changes = [
        f"{k} was {then.get(k, 'not there')}, is {now.get(k, 'not there')}"
        for k in sorted(then | now)
        if then.get(k) != now.get(k)
        and k.lstrip("+") not in place_keys(app.config)
        and not {then.get(k), now.get(k)} <= unset
        and (k in then or now[k] != default.get(k))
        and (k in now or then[k] != chosen.get(k))
    ]
    if not changes:
        return
    difference = f"study {study.study_name} was started with other settings: {'; '.join(changes)}"
    if plan.until is not None:
        raise StudyError(f"{difference}: the design of a verdict is fixed: choose another {another}")
    if plan.is_grid or _changed_choices(plan.space, then, now):
        raise StudyError(
            f"{difference}: neither choices nor a grid can be extended within a study: choose another {another}"
        )
    if not plan.settings.extend:
        raise StudyError(f"{difference}: choose another {another}, or extend it with hydra.sweeper.extend=true")
    study.set_user_attr(IDENTITY, now)


def _check_own(study: "optuna.Study", place: StudyPlace, app: App) -> None:
    """Refuses a study of this name whose jobs are in another directory, unless the user gave the name.

    Two directories with the same name, such as `a/it` and `b/it`, may share a storage. They must remain two studies.
    """
    then = study.user_attrs.get(DIRECTORY)
    if place.is_named or not isinstance(then, str):  # another program's study has no directory
        return
    begun = [facts["directory"] for facts in map(job_facts, own_trials(study)) if "directory" in facts]
    if begun:
        is_here = any((place.directory / directory).exists() for directory in begun)
    else:
        # The same relative path under another working directory names another directory, without the sweep's files.
        cwd = app.config.hydra.runtime.cwd
        is_same = os.path.normpath(os.path.join(cwd, then)) == os.path.normpath(place.directory)
        is_here = is_same and holds_sweep(place.directory)
    if not is_here:
        raise StudyError(
            f"the storage already has a study {place.name} whose jobs are in {then}, not in {place.directory}: type"
            f" {typed_override('hydra.sweeper.study_name', place.name)} to continue it here, or another name for a new"
            " study"
        )


def _changed_choices(space: Space, then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parameters whose choices changed: Optuna accepts new bounds of a number, but not other choices."""
    from optuna.distributions import CategoricalDistribution

    return [
        name
        for name, d in space.distributions.items()
        if then.get(name) not in (None, now[name])
        and (isinstance(d, CategoricalDistribution) or str(then[name]).startswith("one of "))
    ]


def _log_searcher(study: "optuna.Study", searcher: Searcher) -> None:
    """Warns if a study resumes with another sampler or pruner."""
    then, now = study.user_attrs.get(SEARCHER), str(searcher)
    if then not in (None, now):  # None: another program created the study
        log.warning("study %s resumes with %s instead of %s", study.study_name, now, then)
        study.set_user_attr(SEARCHER, now)
