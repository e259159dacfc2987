"""Optuna studies as Hydra sweeps, for any Hydra app: `hydra/sweeper=optuna_study`.

A trial is a job, and both have the same number: trial 7 runs as job 7, in job 7's directory. A study's whole state is
in its storage, so that any number of processes may work on it and any of them may be killed:

    take     under the storage's lock, a process asks Optuna for its next trial, or takes over one whose process is dead
    launch   Hydra's launcher runs the job; while it runs, its process writes heartbeats to the trial
    finish   the job writes its own result, so that a launcher that raises loses nothing

A trial whose heartbeat stops returns to the queue with its parameters and reports. The next process that takes trials
gets it first, and it runs again in its directory. The app's function may simply return its objective, or call
`current_trial()` to report values and be pruned.

Optuna is imported only where it is used: Hydra imports this module at every start of every app.
"""

import copy
import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import OverrideParseException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.command_line import TypedCommand
from reg_sweep.hydra_app.internals import basic_launcher, quiet_basic_launcher
from reg_sweep.hydra_app.overrides import written_overrides
from reg_sweep.hydra_app.refusals import wrong_choice
from reg_sweep.search import interrupt
from reg_sweep.search.best import check_judging, confirmation, log_confirmed
from reg_sweep.search.compose import App, JobComposer, hide_storage, pin
from reg_sweep.search.console import Progress, typed_text
from reg_sweep.search.job import StudyTask
from reg_sweep.search.launchers import (
    LauncherError,
    TrialLauncher,
    at_once,
    check_launcher,
    check_population_study,
    runs_here,
)
from reg_sweep.search.parameter import as_choice, zip_members
from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.results import conclude, conclude_verdict, write_report
from reg_sweep.search.settings import Settings, StudyError
from reg_sweep.search.space import Space, extension, space
from reg_sweep.search.storage import (
    StudyPlace,
    directory_of,
    is_dated,
    opened_storage,
    storage_location,
    study_name,
    undated_storage,
    unreachable,
    unshared,
)
from reg_sweep.search.study import opened_study
from reg_sweep.search.trial_queue import TrialQueue
from reg_sweep.search.workers import Orders, Workers, die_with_sweeper, workers_of

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)


class StudySweep:
    """One process's part in a study: that of the sweeper or of a worker."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
        *,
        search: App | None = None,
        command: list[str] | None = None,
        orders: Orders | None = None,
    ) -> None:
        """Prepares everything that the study's jobs share, and Hydra's launcher.

        Args:
            settings: `hydra.sweeper`.
            hydra_context: Hydra's context.
            task_function: the app's function.
            config: the sweep's config.
            search: the search that this sweep confirms, if any.
            command: the command that starts a worker; None for the one that started this process.
            orders: a worker's orders, in a launcher's job.

        Raises:
            StudyError: a setting, or the storage's address, can't be used.
        """
        self._settings = Settings.of(settings)
        self._place_at = partial(place_of, self._settings, is_named=self._settings.study_name is not None)
        self._command = command
        self._context, self._function = hydra_context, task_function
        self._composer = JobComposer(hydra_context.config_loader)
        typed = TypedCommand.of(config) if search is None else search.typed
        # JobComposer does not inherit from ConfigLoader: see `Loader`.
        self._app = App(config, self._composer, typed)  # type: ignore[arg-type]
        # Removed from the environment before a job starts processes, which would think they are workers.
        self._is_in_job, self._orders = orders is not None, orders or Orders.from_environment()
        if self._orders is not None:
            if not self._is_in_job:
                die_with_sweeper()
            pin(config, "hydra.sweep.dir", self._orders.dir)
            self._settle(self._orders.study_name, self._orders.location)
        self._place = self._place_at(config.hydra)
        hide_storage(config)  # before the launcher is made: it keeps a copy of the config
        task = StudyTask(task_function)
        task.is_workers = self._orders is not None and not self._is_in_job
        self._launcher = self._make_launcher(hydra_context, task)

    def _make_launcher(self, hydra_context: HydraContext, task: StudyTask) -> TrialLauncher:
        config = self._app.config
        in_process = self._is_in_job or runs_here(config.hydra.launcher)
        if in_process:
            # Only in this process: other launchers pickle the context for each job and would lose the composer's cache.
            hydra_context = HydraContext(config_loader=self._app.loader, callbacks=hydra_context.callbacks)
        if not self._is_in_job:
            check_launcher(config.hydra.launcher)
        # Made before anything is written: a launcher that refuses its settings leaves no study behind.
        # In a job, only the object differs, not the config: Hydra refuses a job whose launcher is not the sweep's.
        made = basic_launcher if self._is_in_job else Plugins.instance().instantiate_launcher
        launcher = made(hydra_context=hydra_context, task_function=task, config=config)
        # One of many processes takes only one trial at a time: further ones would have to wait.
        asked = None if self._orders is not None and in_process else self._settings.n_jobs
        n = asked or (1 if self._is_in_job else at_once(config.hydra.launcher))
        beat_s = self._settings.heartbeat_interval
        keeps = not self._settings.has_objective
        return TrialLauncher(launcher, task, heartbeat_s=beat_s, at_once=n, in_process=in_process, keeps_returns=keeps)

    def sweep(self, arguments: list[str]) -> list[list[JobReturn]] | None:
        """Runs the study to its end, prints its results, and writes the best trial's experiment file.

        For a plain grid, returns the results of the jobs launched by this call as one batch, as Hydra's own sweeper
        does. For other studies, returns None.

        Raises:
            StudyError: the study can't be run, or too many trials failed.
            KeyboardInterrupt: the program that started it was interrupted.
            SystemExit: the command was interrupted, and can be resumed; or this process is a worker, and done.
        """
        plan = StudyPlan(self._settings, swept_space(self._settings, self._app, arguments))
        check_judging(plan, self._app)
        if self._orders is None:  # refuses workers that can't be started, before anything is written
            workers_of(self._settings.workers, plan.total, self._app.config, self._app.typed, self._command)
        with quiet_optuna(), quiet_basic_launcher():
            self._sweep(plan, arguments)
        return None if self._settings.has_objective else [self._launcher.returned]

    def _sweep(self, plan: StudyPlan, arguments: list[str]) -> None:
        if self._orders is None and is_dated(self._app.config):
            self._find_again(plan)
        self._composer.prepare(plan.space, self._app.config.hydra.runtime.choices)
        worker = None if self._orders is None else self._orders.index
        with self._explained(), opened_study(plan, self._place, self._app, worker) as study:
            queue = TrialQueue(study, plan)
            more = MoreTrials(self._context, self._function, self._app.config, arguments, Orders.of(0, self._place))
            self._launcher.equip(self._place.directory, more)
            if worker is not None:
                # A launcher's job must not wait for others: a running trial's job may be queued behind this very job.
                self._launcher.run(queue, plan.space, progress=None, waits=not self._is_in_job)
                # Not a return: only the sweeper must call Hydra's callbacks for the end of a sweep, such as a report.
                raise SystemExit(0)
            self._run_all(study, plan, queue)
            end = plan.budgets.end(study, queue.trials(), queue.spent_s())
            finish = conclude if plan.until is None else conclude_verdict
            finish(study, plan, self._place, self._app, end)
            if self._settings.confirm:
                self._confirm(study, plan)
            elif self._settings.report:  # a search with a confirmation leaves the report to it
                write_report(self._place.directory)

    def _settle(self, name: str, location: str | None) -> None:
        """Gives this process and its jobs the study's name, and its storage's address unless that is secret."""
        self._settings.study_name = name
        pin(self._app.config, "hydra.sweeper.study_name", name)
        if location is not None:
            self._settings.storage = location
            pin(self._app.config, "hydra.sweeper.storage", location)

    def _find_again(self, plan: StudyPlan) -> None:
        """Finds the study of an earlier start of the same command, if each start gets a new directory.

        Hydra's default directory is dated. The study's name is then derived from what the command sweeps, and the study
        itself records where its jobs are.
        """
        hydra, name = self._app.config.hydra, self._settings.study_name or plan.name(self._app)
        own = None if self._settings.storage is not None else undated_storage(self._app.config, name)
        self._settle(name, own)
        if self._app.typed is not None:  # printed commands must not name the directory: they would not find this study
            self._app = replace(self._app, typed=replace(self._app.typed, place=[]))
        # Pinned, because a job in another process may compose its config at a later time.
        pin(self._app.config, "hydra.sweep.dir", directory_of(self._place_at(hydra)) or str(hydra.sweep.dir))
        self._place = self._place_at(self._app.config.hydra)
        log.info("study %s: in %s; the same command resumes it there", name, hydra.sweep.dir)

    def _confirm(self, search: "optuna.Study", plan: StudyPlan) -> None:
        """Judges the search's best points on fresh seeds, in a separate sweep."""
        import optuna

        confirmed = confirmation(search, plan, self._place, self._app)
        if confirmed is None:
            log.warning("no point of the search differs from the baseline: there is nothing to confirm")
            return
        config, app, its = self._app.sweep_config(confirmed.overrides), self._app, (self._context, self._function)
        sweep = StudySweep(settings_of(config), *its, config, search=app, command=confirmed.command)
        sweep.sweep(written_overrides(config.hydra, "task"))
        with opened_storage(sweep._place.location) as storage:
            study = optuna.load_study(study_name=sweep._place.name, storage=storage)
            log_confirmed(confirmed, study, self._app, sweep._app, sweep._place)

    def _run_all(self, study: "optuna.Study", plan: StudyPlan, queue: TrialQueue) -> None:
        """Runs the study's remaining trials, here or in workers, and shows progress."""
        config = self._app.config
        finished = {t.number for t in queue.trials() if t.state.is_finished()}
        total = plan.n_planned(queue.trials())
        log.info("study %s: %d of %d trials done", study.study_name, len(finished), total)
        # If a trial is only one seed of an arm or point, none is called best: they are compared at the end.
        has_best = plan.until is None and not plan.replicates and self._settings.has_objective
        directions = self._settings.directions if has_best else []
        with Progress(total, directions, finished, sys.stderr, plan.metric_names(config)) as progress:
            asked, n_left = self._settings.workers, plan.n_left(study)
            n_workers, command = workers_of(asked, n_left, config, self._app.typed, self._command)
            if not command:
                self._launcher.run(queue, plan.space, progress)
            else:
                cwd, limit_s = config.hydra.runtime.cwd, self._settings.trial_timeout_s
                Workers(n_workers, command, cwd, self._place, limit_s).run(queue, progress)
        if (elsewhere := unshared(queue.trials(), self._place.directory)) is not None:
            log.warning(elsewhere)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Ends a sweep that was interrupted, or whose storage or launcher failed, with a line on how to resume it."""
        import sqlite3

        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        kept = "finished trials are kept, resume with:"
        try:
            # SIGTERM requeues trials like Ctrl+C. By default they would have to wait for the grace period.
            with interrupt.handled():
                yield
                interrupt.check()
        except KeyboardInterrupt:
            number = interrupt.received() or signal.SIGINT
            if self._orders is None:
                said = f"interrupted: the same command resumes study {self._place.name}:\n{self._app.again()}"
                with suppress(OSError):  # a job that has just begun may have removed its folder, with the log file
                    log.info(said)
                if self._app.typed is None and number == signal.SIGINT:
                    raise  # the calling program handles it
            raise SystemExit(128 + number) from None
        except LauncherError as error:
            raise StudyError(f"{error}; fix it, and resume with: {self._app.again()}") from None
        except OSError as error:  # such as a full disk
            raise StudyError(f"{error}; {kept} {self._app.again()}") from None
        except (optuna.exceptions.StorageInternalError, SQLAlchemyError, sqlite3.Error) as error:
            trouble = unreachable(self._place.location, error)
            raise StudyError(f"{trouble}; {kept} {self._app.again()}") from None


def place_of(settings: Settings, hydra: Any, *, is_named: bool) -> StudyPlace:
    """A study's name, storage and directory, from its settings."""
    name, location = study_name(settings, hydra), storage_location(settings, hydra)
    return StudyPlace(name, location, Path(hydra.runtime.cwd) / hydra.sweep.dir, is_named)


def swept_space(settings: Settings, app: App, arguments: list[str]) -> Space:
    """The search space of the config, overridden by the command line's.

    Raises:
        StudyError: it is not a valid space, or the launcher can't run it.
    """
    from_config, groups = _written_params(settings, app)
    overrides = [*from_config, *app.parsed(arguments)]
    sweeps = Counter(o.get_key_element().lstrip("+") for o in app.parsed(arguments) if o.is_sweep_override())
    for key, n in sweeps.items():
        if n > 1:
            raise StudyError(f"{key} must be swept only once, got {n} sweeps: list all of its values in one")
    wrong = wrong_choice(overrides, lambda key: bool(app.loader.get_group_options(key)))
    if wrong is not None:  # otherwise it would fail only when the option is drawn, with Hydra's traceback
        raise StudyError(wrong)
    typed = {o.get_key_element().lstrip("+") for o in app.parsed(arguments)}
    extend = extension(settings.custom_search_space, app.config)
    grouped = [*(settings.zip or []), *groups]
    may_be_empty = not settings.has_objective or settings.until_verdict  # which reports missing arms itself
    found = space(overrides, grouped, extend, settings.conditions, typed, may_be_empty=may_be_empty)
    leave_out_points(settings, found, app)
    check_population_study(app.config.hydra.launcher, settings, found.parameters)
    return found


def _written_params(settings: Settings, app: App) -> tuple[list[Override], list[list[str]]]:
    """The overrides of `hydra.sweeper.params`, and the groups of keys that vary together by a `zip(...)` in it.

    Raises:
        StudyError: a value can't be parsed.
    """
    overrides: list[Override] = []
    groups: list[list[str]] = []
    for key, value in (settings.params or {}).items():
        text = "null" if value is None else str(value)
        try:
            members = zip_members(key, text)
            if members is None:
                overrides += app.parsed([f"{key}={text}"])
                continue
            if not key.isidentifier() or key in app.config or app.loader.get_group_options(key):
                raise StudyError(
                    f"hydra.sweeper.params.{key}: the name of a zip must be one word that is not a key or group of the"
                    " config"
                )
            zipped_keys = [as_choice(o) for o in app.parsed(members)]
            overrides += app.parsed(zipped_keys)
            groups.append([o.partition("=")[0].lstrip("+") for o in zipped_keys])
        except OverrideParseException as error:
            reason = " ".join(str(error).partition("\n")[0].split())
            raise StudyError(f"hydra.sweeper.params.{key} must be a valid sweep, got {text!r}: {reason}") from None
    return overrides, groups


def leave_out_points(settings: Settings, swept: Space, app: App) -> None:
    """Drops the enqueued points of a config file that are outside the space, if the command has changed it."""
    typed = written_overrides(app.config.hydra, "hydra")
    is_typed = any(o.lstrip("+").startswith("hydra.sweeper.enqueue") for o in typed)
    if not settings.enqueue or settings.until_verdict or is_typed or swept.extend is not None:
        return
    kept = [p for p in settings.enqueue if not isinstance(p, Mapping) or swept.has(p)]
    if len(kept) < len(settings.enqueue):
        out = [typed_text(p) for p in settings.enqueue if p not in kept]
        log.info("hydra.sweeper.enqueue: points outside this space are left out: %s", "; ".join(out))
        settings.enqueue = kept


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Within the block, Optuna does not log trials: `Progress` does."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The sweeper's settings in a config, for `Settings.of`."""
    settings = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert isinstance(settings, dict)
    return {str(k): v for k, v in settings.items() if not str(k).startswith("_")}


@dataclass(frozen=True)
class MoreTrials:
    """Runs further trials of the study, in a launcher's process whose own trial has ended.

    Launchers pickle it along with the job. By then, the config no longer contains a secret storage address.
    """

    context: HydraContext
    function: TaskFunction
    config: DictConfig
    arguments: list[str]
    orders: Orders

    def __call__(self) -> None:
        """Runs further trials, like a worker.

        Raises:
            KeyboardInterrupt: a signal asked the process to end.
        """
        config = copy.deepcopy(self.config)
        sweep = StudySweep(settings_of(config), self.context, self.function, config, orders=self.orders)
        try:
            sweep.sweep(self.arguments)
        except SystemExit as end:
            if end.code != 0:
                raise KeyboardInterrupt from None
