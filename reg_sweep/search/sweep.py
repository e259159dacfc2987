"""Optuna studies as Hydra sweeps, for any Hydra app: `hydra/sweeper=optuna_study`.

A trial is a job, and its number is the job's: trial 7 runs as job 7, in job 7's directory. All that a study knows lies
in its storage, so that any number of processes may work on it and any of them may be killed:

    claim    under a lock, a process asks Optuna for its next trial, or takes over one whose process is dead
    launch   Hydra's launcher runs the job; while it runs, its process writes a heartbeat into the trial
    tell     the job tells its own result, so that a launcher that raises loses nothing

A trial whose heartbeat stops goes back to waiting, with the parameters and the reports that it has, and runs again in
its directory; the next process to claim finds it there first. The app's function may return its objective and know
nothing of this, or call `current_trial()` to report and be pruned.

Optuna is imported where it is used: Hydra imports this module at every start of every app.
"""

import copy
import json
import logging
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from reg_sweep.files import locked, replacing
from reg_sweep.overrides import experiment_yaml, leaves, missing_overrides, search_path, search_path_overrides
from reg_sweep.records import RUN_FILE, STUDY_FILE
from reg_sweep.search import progress
from reg_sweep.search.settings import (
    ERROR,
    JOB,
    Settings,
    StudyError,
    is_secret,
    job_facts,
    locked_at,
    make_part,
    make_pruner,
    open_storage,
    public_arguments,
    public_location,
    storage_location,
    study_name,
    unreachable,
)
from reg_sweep.search.space import Space, space
from reg_sweep.search.text import best_first, outcome_text, params_text, standing_text, study_json, table_text
from reg_sweep.search.trial import Beats, StudyTask, StudyTrial, asked, current_trial

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

__all__ = ["Settings", "StudyError", "StudySweep", "StudyTrial", "current_trial"]

log = logging.getLogger(__name__)

BEST_FILE = "experiment/best.yaml"
STORAGE_VARIABLE = "REG_SWEEP_STORAGE"
WORKER_VARIABLE = "REG_SWEEP_WORKER"
DEFAULT_TRIALS = 20
POLL_S = 0.5
STUDY_GROUP = "study"  # the config group whose files make a command a study; best.yaml must not be one again

_IDENTITY = "reg_sweep"  # study attribute: what the trials have in common
_SEARCHER = "searcher"  # study attribute: the last start's sampler and pruner


class JobComposer:
    """Hydra's config loader, which composes anew for other choices only: where numbers alone differ, it sets them.

    Composing takes Hydra 40 ms a job, for a config that differs from the last one in a few numbers.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader
        self._numbers: set[str] = set()
        self._templates: dict[tuple[str, ...], DictConfig] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def prepare(self, space: Space) -> None:
        """Learns which keys of the space are plain numbers that no fixed override could overwrite."""
        self._numbers = {
            key
            for key in (p.key for p in space.parameters.values() if p.texts == {})
            if not key.startswith("+") and not any(key.startswith(f"{fixed}.") for fixed in space.fixed)
        }

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        texts = dict(o.split("=", 1) for o in sweep_overrides if o.partition("=")[0] in self._numbers)
        rest = tuple(o for o in sweep_overrides if o.partition("=")[0] not in self._numbers)
        if not texts:
            return self._loader.load_sweep_config(master_config, sweep_overrides)
        if rest not in self._templates:
            while len(self._templates) >= 8:  # each is half a megabyte
                del self._templates[next(iter(self._templates))]
            self._templates[rest] = self._loader.load_sweep_config(master_config, sweep_overrides)
        config = copy.deepcopy(self._templates[rest])
        for key, text in texts.items():
            OmegaConf.update(config, key, int(text) if text.lstrip("-").isdecimal() else float(text), merge=True)
        job = config.hydra.job
        config.hydra.overrides.task = list(sweep_overrides)
        format_ = job.config.override_dirname
        lines = sorted(o for o in sweep_overrides if o.partition("=")[0].lstrip("+~") not in format_.exclude_keys)
        job.override_dirname = format_.item_sep.join(lines).replace("=", format_.kv_sep)
        return config


class StudySweep:
    """One process's part in a study: the sweeper's own, or a worker's.

    Raises:
        StudyError: a setting, the space or the storage can't be used.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        self._settings = Settings(**settings)
        self._loader = hydra_context.config_loader
        self._composer = JobComposer(self._loader)
        self._config = config
        self._orders = json.loads(os.environ.pop(WORKER_VARIABLE, "null"))
        if self._orders is not None:
            _die_with_parent()
            self._pin("hydra.sweep.dir", self._orders["dir"])
        self._hydra = config.hydra
        self._dir = Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir
        self._location = storage_location(self._settings, config.hydra)
        if is_secret(self._location):
            self._hide_storage()
        self._in_process = config.hydra.launcher._target_.endswith(".BasicLauncher")
        if self._in_process:
            hydra_context = HydraContext(config_loader=self._composer, callbacks=hydra_context.callbacks)  # type: ignore[arg-type]
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=StudyTask(task_function), config=config
        )
        self._seen: dict[int, tuple[Any, float]] = {}  # each running trial's last sign of life, and when it was new

    def _pin(self, key: str, value: str) -> None:
        """Gives every job, whatever process composes its config, this value of a hydra key."""
        text = QuotedString(value, Quote.single).with_quotes()
        OmegaConf.set_readonly(self._config.hydra, False)
        with open_dict(self._config.hydra):
            OmegaConf.update(self._config, key, value)
            overrides = self._config.hydra.overrides
            written = OmegaConf.to_container(overrides.hydra, resolve=False)  # or a secret would be written out
            assert isinstance(written, list)
            kept = [o for o in written if not str(o).lstrip("+").startswith(f"{key}=")]
            overrides.hydra = [*kept, f"{key}={text}"]

    def _hide_storage(self) -> None:
        """Keeps a server's address out of all files that Hydra and launchers write: jobs find it in the environment."""
        written = OmegaConf.to_container(self._config.hydra.sweeper, resolve=False)
        assert isinstance(written, dict)
        if "${" not in written["storage"]:
            os.environ[STORAGE_VARIABLE] = self._location
            self._pin("hydra.sweeper.storage", f"${{oc.env:{STORAGE_VARIABLE}}}")

    def sweep(self, arguments: list[str]) -> None:
        """Runs the study to its end, prints what came of it, and writes the best trial's experiment file.

        Raises:
            StudyError: it can't be run, or too many trials failed.
            SystemExit: it was interrupted; the same command continues. Or this process is a worker, and done.
        """
        import optuna

        written = [f"{key}={'null' if v is None else v}" for key, v in (self._settings.params or {}).items()]
        self._space = space(OverridesParser.create(config_loader=self._loader).parse_overrides(written + arguments))
        self._composer.prepare(self._space)
        self._dir.mkdir(parents=True, exist_ok=True)
        file = self._location.partition("://")[2].removeprefix("/") if "://" in self._location else self._location
        # Not FILE.lock: Optuna locks a journal file by that name.
        self._lock = self._dir / "study.claim" if is_secret(self._location) else Path(f"{file}.claim")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            self._open()
            if self._orders is not None:
                self._work()
                raise SystemExit(0)
            self._run()
        except KeyboardInterrupt:
            if self._orders is None:
                command = shlex.join([*_app(), *public_arguments(sys.argv[1:])])
                log.info("interrupted: the same command goes on with study %s:\n%s", self._study_name, command)
            raise SystemExit(130) from None
        except optuna.exceptions.StorageInternalError as error:
            trouble = unreachable(self._location, error)
            raise StudyError(f"{trouble}; what was finished stays, the same command goes on") from None
        finally:
            signal.signal(signal.SIGTERM, before)

    # Opening

    @property
    def _study_name(self) -> str:
        return study_name(self._settings, self._hydra)

    def _sampler(self) -> "optuna.samplers.BaseSampler":
        import optuna

        spec, arguments = self._settings.sampler, {}
        if self._is_grid:
            listed = {name: p.listed() for name, p in self._space.parameters.items()}
            endless = [name for name, values in listed.items() if values is None]
            if endless:
                raise StudyError(
                    f"a grid needs values that can be listed, but {', '.join(endless)} is an interval: write choices or"
                    " a range, or take another hydra/sweeper/sampler"
                )
            arguments["search_space"] = listed
        return make_part("sampler", spec, optuna.samplers.BaseSampler, **arguments)

    @property
    def _is_grid(self) -> bool:
        spec = self._settings.sampler
        return isinstance(spec, Mapping) and str(spec.get("_target_")).endswith(".GridSampler")

    @property
    def _total(self) -> int:
        if not self._is_grid:
            return self._settings.n_trials or DEFAULT_TRIALS
        size = math.prod(len(p.listed() or []) for p in self._space.parameters.values())
        whole = size + len(self._settings.enqueue or [])  # the grid does not know of enqueued points
        return min(self._settings.n_trials or whole, whole)

    def _open(self) -> None:
        """Opens the study, or makes it; the sweeper, before that, checks that all parts fit together."""
        import optuna

        directions, sampler = self._settings.directions, self._sampler()
        pruner = make_pruner(self._settings.pruner)
        if len(directions) > 1 and not isinstance(pruner, optuna.pruners.NopPruner):
            raise StudyError(
                "Optuna prunes studies of one objective only: take hydra/sweeper/pruner=none, or a single"
                " hydra.sweeper.direction"
            )
        points = [self._point(p) for p in self._settings.enqueue or []]
        if len(points) > self._total:
            raise StudyError(
                f"hydra.sweeper.n_trials must be at least the {len(points)} enqueued points, got {self._total}"
            )
        if self._orders is None:
            self._rehearse(directions, pruner)
        with locked_at(self._lock, self._location):
            storage = open_storage(self._location)
            if self._study_name in optuna.get_all_study_names(storage):
                self._study = optuna.load_study(
                    study_name=self._study_name, storage=storage, sampler=sampler, pruner=pruner
                )
                self._check_same(directions)
                self._say_what_searches(sampler, pruner)
            else:
                self._check_unused()
                self._study = optuna.create_study(
                    study_name=self._study_name, storage=storage, sampler=sampler, pruner=pruner, directions=directions
                )
                self._study.set_user_attr(_IDENTITY, self._identity())
                self._study.set_user_attr(_SEARCHER, _searcher(sampler, pruner))
            for point in points:
                self._study.enqueue_trial(point, skip_if_exists=True)
            self._study.stop = lambda: None  # type: ignore[method-assign] # a grid's wish; we count ourselves
            if (self._orders or {"index": 0})["index"] > 0 or self._study.get_trials(deepcopy=False):
                sampler.reseed_rng()  # a seed would draw the first start's, or the first worker's, points again

    def _rehearse(self, directions: list[Any], pruner: "optuna.pruners.BasePruner") -> None:
        """Draws points, in memory, and composes the first's config: what doesn't fit shows before the study begins."""
        import optuna

        sampler = self._sampler()
        study = optuna.create_study(directions=directions, sampler=sampler, pruner=pruner)
        try:
            trial = study.ask(self._space.distributions)
            params = trial.params
            study.tell(trial, [0.0] * len(directions))
            study.ask(self._space.distributions)  # some samplers show what they lack once there is a result
        except Exception as error:  # every sampler has its own way to refuse
            reason = str(error).strip().splitlines()[0]
            raise StudyError(f"{type(sampler).__name__} can't search this space: {reason}") from None
        self._loader.load_sweep_config(self._config, self._space.overrides(params))

    def _point(self, point: Any) -> dict[str, Any]:
        """An enqueued point's values, as Optuna's."""
        if not isinstance(point, Mapping):
            raise StudyError(f"hydra.sweeper.enqueue must list points such as {{l1: 0.001}}, got {point!r}")
        params = {}
        for name, value in point.items():
            p = self._space.parameters.get(name)
            if p is None:
                raise StudyError(
                    f"hydra.sweeper.enqueue: {name} is not swept: the space has {', '.join(self._space.parameters)}"
                )
            try:
                fits = p.distribution._contains(p.distribution.to_internal_repr(value))
            except ValueError:
                fits = False
            if not fits:
                raise StudyError(f"hydra.sweeper.enqueue: {name} must be {p}, got {value}")
            params[name] = value
        if self._is_grid and len(params) < len(self._space.parameters):
            raise StudyError(f"hydra.sweeper.enqueue: with a grid a point needs all parameters, got {dict(point)}")
        return params

    def _identity(self) -> dict[str, str]:
        """What must not change between two starts of a study, as text by name."""
        kept = {key: str(value) for key, value in leaves(self._config)}
        kept |= {key: o.get_value_string() if o.value_type else "deleted" for key, o in self._space.fixed.items()}
        for name in self._settings.may_differ:
            kept = {k: v for k, v in kept.items() if k != name and not k.startswith(f"{name}.")}
        return kept | {name: str(p) for name, p in self._space.parameters.items()}

    def _check_same(self, directions: list[str]) -> None:
        """Refuses to mix trials of another space, objective or direction into the study."""
        from optuna.distributions import CategoricalDistribution

        study, now = self._study, self._identity()
        then = study.user_attrs.get(_IDENTITY, now)
        had = [d.name.lower() for d in study.directions]
        if had != directions:
            raise StudyError(
                f"study {study.study_name} has the direction {', '.join(had)}, not {', '.join(directions)}: choose"
                " another hydra.sweeper.study_name"
            )
        changes = [
            f"{k} was {then.get(k, 'not there')}, is {now.get(k, 'not there')}"
            for k in sorted(then | now)
            if then.get(k) != now.get(k)
        ]
        if not changes:
            return
        difference = f"study {study.study_name} was begun with other settings: {'; '.join(changes)}"
        if not self._settings.extend:
            raise StudyError(
                f"{difference}: choose another hydra.sweeper.study_name, or go on with hydra.sweeper.extend=true"
            )
        choices = [
            name
            for name, d in self._space.distributions.items()
            if then.get(name) not in (None, now[name])
            and (isinstance(d, CategoricalDistribution) or then[name].startswith("one of "))
        ]
        if choices or self._is_grid:
            raise StudyError(
                f"{difference}: neither choices nor a grid can be extended within a study: choose another"
                " hydra.sweeper.study_name"
            )
        study.set_user_attr(_IDENTITY, now)

    def _say_what_searches(self, sampler: "optuna.samplers.BaseSampler", pruner: "optuna.pruners.BasePruner") -> None:
        """A study may go on with another sampler or pruner, but not without a word."""
        then, now = self._study.user_attrs.get(_SEARCHER), _searcher(sampler, pruner)
        if then not in (None, now):
            log.warning("study %s goes on with %s, it had %s", self._study_name, now, then)
            self._study.set_user_attr(_SEARCHER, now)

    def _check_unused(self) -> None:
        """Refuses to begin a study where jobs of something else lie."""
        for entry in sorted(self._dir.iterdir()):
            if entry.name.isdecimal() and ((entry / ".hydra").exists() or (entry / RUN_FILE).exists()):
                raise StudyError(
                    f"{entry} holds a job that study {self._study_name} knows nothing of: move {self._dir} away, or"
                    " choose another hydra.sweep.dir"
                )

    # Working

    def _run(self) -> None:
        OmegaConf.save(self._config, self._dir / "multirun.yaml")
        trials = self._study.get_trials(deepcopy=False)
        finished = {t.number for t in trials if t.state.is_finished()}
        log.info("study %s: %d of %d trials done", self._study_name, len(finished), self._total)
        with progress.Progress(self._total, self._settings.directions, finished, sys.stderr):
            if self._settings.workers == 1:
                self._work()
            else:
                self._supervise()
        self._conclude()

    def _work(self) -> None:
        """Claims and launches until nothing is left to do; stays while others run, in case they die."""
        while True:
            batch, others_run = self._claim()
            if batch:
                for group in _consecutive(batch):
                    self._launch(group)
            elif others_run:
                time.sleep(POLL_S)
            else:
                return

    def _claim(self) -> tuple[list["optuna.Trial"], bool]:
        """The next trials for this process, and whether other processes run some."""
        with locked(self._lock):
            trials = self._study.get_trials(deepcopy=False)
            silent = [t for t in trials if t.state.name == "RUNNING" and self._is_silent(t)]
            for trial in silent:
                self._take_over(trial)
            if silent:
                trials = self._study.get_trials(deepcopy=False)
            progress.update(trials)
            if self._too_many_failed(trials):
                return [], False
            n_begun = sum(t.state.name != "WAITING" for t in trials)
            n = max(0, min(self._settings.n_jobs, self._total - n_begun))
            batch = [self._study.ask(self._space.distributions) for _ in range(n)]
        return batch, any(t.state.name == "RUNNING" for t in trials)

    def _is_silent(self, trial: "FrozenTrial") -> bool:
        """Whether a running trial's heartbeat has stood still for the grace period, by this process's clock alone."""
        # The attempt counts too: a trial that another process has just taken over has not had a heartbeat yet.
        sign, now = (job_facts(trial).get("attempt", 1), job_facts(trial).get("beat")), time.monotonic()
        if trial.number not in self._seen or self._seen[trial.number][0] != sign:
            self._seen[trial.number] = (sign, now)
        return now - self._seen[trial.number][1] > self._settings.grace_period

    def _take_over(self, trial: "FrozenTrial") -> None:
        """Sends a trial whose process is dead back to waiting, or, after its last attempt, fails it."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        storage, attempt = self._study._storage, job_facts(trial).get("attempt", 1)
        self._seen.pop(trial.number, None)
        try:
            if attempt > self._settings.max_retries:
                error = f"killed or silent {attempt} times (hydra.sweeper.max_retries={self._settings.max_retries})"
                storage.set_trial_user_attr(trial._trial_id, ERROR, error)
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            else:
                log.info("trial %d is silent: it runs again, from where it was", trial.number)
                storage.set_trial_user_attr(trial._trial_id, JOB, {"attempt": attempt + 1})
                storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        except UpdateFinishedTrialError:  # its result came at the last moment
            pass

    def _launch(self, trials: list["optuna.Trial"]) -> None:
        """Launches trials of consecutive numbers as the jobs of these numbers."""
        overrides = [self._space.overrides(t.params) for t in trials]
        asked.update({t.number: t for t in trials})
        beats = Beats([] if self._in_process else list(map(StudyTrial, trials)), self._settings.heartbeat_interval)
        trouble: str | None = None
        try:
            with beats:
                self._launcher.launch(overrides, initial_job_idx=trials[0].number)
        except Exception as error:  # whatever a launcher makes of a dead job; the others have told their results
            trouble = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            log.warning("the launcher raised %s", trouble)
        except BaseException:  # an interrupt
            self._give_back(trials)
            raise
        finally:
            untold = dict(asked)
            asked.clear()
        if self._in_process:  # nobody else will tell
            for trial in untold.values():
                self._fail(trial, trouble or "the job ended without a result")

    def _fail(self, trial: "optuna.Trial", error: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr(ERROR, error)
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _give_back(self, trials: list["optuna.Trial"]) -> None:
        """Sends interrupted trials back to waiting. Jobs in other processes may live on: their heartbeats decide."""
        from optuna.trial import TrialState

        storage = self._study._storage
        for trial in trials if self._in_process else []:
            frozen = storage.get_trial(trial._trial_id)
            if frozen.state == TrialState.RUNNING:
                storage.set_trial_user_attr(trial._trial_id, JOB, {"attempt": job_facts(frozen).get("attempt", 1)})
                storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _too_many_failed(self, trials: Sequence["FrozenTrial"]) -> bool:
        return sum(t.state.name == "FAIL" for t in trials) > self._settings.max_failure_rate * self._total

    # Workers

    def _supervise(self) -> None:
        """Runs the workers: the same command, each in a process of its own; one that dies is replaced."""
        command = [sys.executable, *sys.orig_argv[1:]]
        if not set(self._config.hydra.overrides.task) <= set(command):
            raise StudyError("hydra.sweeper.workers must be 1 where the app was not started from a command line")
        n = self._settings.workers
        workers = {index: self._worker(index, command) for index in range(n)}
        in_vain = dict.fromkeys(range(n), 0)  # deaths since a worker's last trial
        try:
            while workers:
                time.sleep(POLL_S)
                trials = self._study.get_trials(deepcopy=False)
                progress.update(trials)
                for index, process in list(workers.items()):
                    if process.poll() is None:
                        continue
                    del workers[index]
                    if process.returncode == 0:
                        continue
                    in_vain[index] = 0 if self._bury(process.pid) else in_vain[index] + 1
                    log.warning("worker %d ended with code %d", index, process.returncode)
                    if in_vain[index] < 3:
                        workers[index] = self._worker(index, command)
        finally:
            _end(list(workers.values()))
        if all(in_vain[index] >= 3 for index in range(n)):
            raise StudyError(f"no worker lived to begin a trial: see {self._dir}/worker_0.log")

    def _worker(self, index: int, command: list[str]) -> subprocess.Popen[bytes]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // self._settings.workers)
        orders = json.dumps({"index": index, "dir": str(self._dir.absolute())})
        with (self._dir / f"worker_{index}.log").open("ab") as output:
            return subprocess.Popen(
                command,
                env={"OMP_NUM_THREADS": str(threads), **os.environ, WORKER_VARIABLE: orders},
                cwd=self._hydra.runtime.cwd,
                stdin=subprocess.PIPE,  # never written to: it closes when this process dies, and ends the worker
                stdout=output,
                stderr=output,
                start_new_session=True,  # a terminal's Ctrl+C is for this process, which then ends its workers
            )

    def _bury(self, pid: int) -> bool:
        """Takes over a dead worker's trial at once. Whether the worker had begun any."""
        with locked(self._lock):
            trials = self._study.get_trials(deepcopy=False)
            its = [
                t for t in trials if (job_facts(t).get("host"), job_facts(t).get("pid")) == (socket.gethostname(), pid)
            ]
            for trial in its:
                if trial.state.name == "RUNNING":
                    self._take_over(trial)
        return bool(its)

    # The end

    def _conclude(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        directions = self._settings.directions
        finished = [t for t in trials if t.state.is_finished()]
        log.info("study %s: %d trials%s", self._study_name, len(finished), standing_text(finished, directions))
        ranked = self._study.best_trials if len(directions) > 1 else best_first(trials, directions)
        best = [t for t in ranked if all(map(math.isfinite, t.values))]
        command = None
        if best:
            log.info("%s\n%s", "best trials" if len(directions) == 1 else "Pareto front", table_text(best[:10]))
            command = self._write_best(best if len(directions) > 1 else best[:1])
            log.info("run it:    %s%s", command, " -m" if len(directions) > 1 and len(best) > 1 else "")
        elif ranked:
            log.warning("no trial has a finite value: there is no best one")
        importances = self._importances(best)
        with replacing(self._dir / STUDY_FILE) as file:
            file.write(study_json(self._study, importances, command).encode())
        if importances:
            log.info("importance of each parameter: %s", params_text(importances))
        if any((self._dir / str(t.number) / RUN_FILE).exists() for t in best):
            log.info("report:    python -m reg_sweep.report %s", os.path.relpath(self._dir))
        log.info("dashboard: optuna-dashboard %s", public_location(self._location))
        if self._too_many_failed(trials):
            failed = [t for t in trials if t.state.name == "FAIL"]
            raise StudyError(
                f"{len(failed)} of {self._total} trials failed, more than hydra.sweeper.max_failure_rate="
                f"{self._settings.max_failure_rate:g} allows: trial {failed[-1].number} {outcome_text(failed[-1])}"
            )

    def _importances(self, best: Sequence["FrozenTrial"]) -> dict[str, float]:
        import optuna

        finite = [t for t in self._study.get_trials(deepcopy=False) if t.values and all(map(math.isfinite, t.values))]
        if len(self._space.parameters) < 2 or len({tuple(t.values) for t in finite if t.values}) < 2 or not best:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that few trials make it inaccurate
            return optuna.importance.get_param_importances(self._study)

    def _write_best(self, best: Sequence["FrozenTrial"]) -> str:
        """Writes each best trial as an experiment file; returns the command that runs them.

        What a study's file sets beyond the space is written out, for the experiment must not be a study again.
        """
        raw = OmegaConf.to_container(self._config.hydra.sweep, resolve=False)
        assert isinstance(raw, dict)
        places = set(re.findall(r"\$\{([\w.]+)\}", raw["dir"]))  # a best run must not lie where the study lies
        ignored = {*places, STUDY_GROUP}
        parser = OverridesParser.create(config_loader=self._loader)
        names = []
        for trial in best:
            names.append("best" if len(self._settings.directions) == 1 else f"best_{trial.number}")
            written = self._space.overrides(trial.params)
            before = trial.params.keys() - self._space.parameters.keys()  # swept before the study was extended
            written += [f"{n}={Override._get_value_element_as_str(trial.params[n])}" for n in sorted(before)]
            kept = [
                o
                for o, p in zip(written, parser.parse_overrides(written), strict=True)
                if p.key_or_group not in ignored
            ]
            if STUDY_GROUP in self._hydra.runtime.choices:
                whole = self._loader.load_sweep_config(self._config, written)
                kept += missing_overrides(whole, whole.hydra.runtime.choices, kept, self._compose, ignored)
            path = (self._dir / BEST_FILE).with_stem(names[-1])
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                text = experiment_yaml(parser.parse_overrides(kept), lambda g: bool(self._loader.get_group_options(g)))
                file.write(text.encode())
        found = search_path(self._hydra.runtime, str(self._dir.absolute()))
        group = "experiment" if "experiment" in self._hydra.runtime.choices else "+experiment"
        return shlex.join([*_app(), *found, f"{group}={','.join(names)}"])

    def _compose(self, overrides: list[str]) -> DictConfig:
        """The app's config as a single run's, in the same config folders."""
        whole = [*search_path_overrides(self._hydra), *overrides]
        return self._loader.load_configuration(self._hydra.job.config_name, whole, RunMode.RUN)


def _searcher(sampler: object, pruner: object) -> str:
    return f"{type(sampler).__name__} and {type(pruner).__name__}"


def _consecutive(trials: list["optuna.Trial"]) -> list[list["optuna.Trial"]]:
    """Splits a batch where its numbers jump: launchers number their jobs consecutively."""
    groups: list[list[optuna.Trial]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if groups and groups[-1][-1].number + 1 == trial.number:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def _app() -> list[str]:
    """The app as it was started, without its arguments."""
    module = sys.orig_argv[1:3]
    return ["python", *module] if module[:1] == ["-m"] else ["python", os.path.relpath(sys.argv[0])]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _die_with_parent() -> None:
    """Ends this worker at once when the sweeper, which holds the other end of its standard input, dies."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold when a worker ends by itself
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    """Asks workers to give their trials back and end; kills those that don't within 10 seconds."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + 10
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
