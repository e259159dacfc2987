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
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from reg_sweep.records import RUN_FILE, STUDY_FILE, replacing

try:
    import fcntl
except ImportError:  # Windows: one process per study
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

STORAGE_FILE = "study.db"
BEST_FILE = "experiment/best.yaml"
STORAGE_VARIABLE = "REG_SWEEP_STORAGE"
WORKER_VARIABLE = "REG_SWEEP_WORKER"
TRIAL_VARIABLE = "REG_SWEEP_TRIAL"  # set while a trial runs: an app need not import this module to know that none does
DEFAULT_TRIALS = 20
POLL_S = 0.5
STUDY_GROUP = "study"  # the config group whose files make a command a study; best.yaml must not be one again

_IDENTITY = "reg_sweep"  # study attribute: what the trials have in common
_JOB = "job"  # trial attribute: attempt, directory and heartbeat
_ERROR = "error"  # trial attribute: a failed trial's last line


class StudyError(CompactHydraException):
    """A study that can't be run as asked. The message is one line; Hydra prints it without a traceback."""


class JobError(RuntimeError):
    """What a failed job raises, in plain words: the app's own exception may not survive the way to the launcher."""


class TakenOverError(RuntimeError):
    """Another process, which missed this job's heartbeat, runs the trial now."""


@dataclass
class Settings:
    """What `hydra.sweeper` takes.

    `params` holds the space, in Hydra's grammar; the command line's sweeps come on top. `n_trials` is the total over
    all starts; left out, it is the grid's size, or 20 with another sampler. `workers` local processes share the
    study; `n_jobs` trials go to the launcher at once. `storage` is an RDB URL or a journal file's path; left out, an
    SQLite file in the sweep's directory. `enqueue` lists points to try first. A study whose space, objective or app
    config has changed is refused, unless `extend`; keys that `may_differ`, such as a device, are left out of account. A
    job that is silent for `grace_period` seconds is run again, at most `max_retries` times. Where more than
    `max_failure_rate` of the trials fail, the sweep ends with an error.

    Raises:
        StudyError: a value is out of its range.
    """

    sampler: Any = None
    pruner: Any = None
    params: dict[str, Any] | None = None
    direction: Any = "minimize"
    n_trials: int | None = None
    n_jobs: int = 1
    workers: int = 1
    storage: str | None = None
    study_name: str | None = None
    enqueue: list[Any] | None = None
    extend: bool = False
    may_differ: list[str] = field(default_factory=list)
    max_retries: int = 2
    max_failure_rate: float = 0.5
    heartbeat_interval: float = 5.0
    grace_period: float = 30.0

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, rule: str) -> None:
            if not holds:
                raise StudyError(f"hydra.sweeper.{name} must {rule}, got {getattr(self, name)!r}")

        require(self.n_trials is None or self.n_trials >= 1, "n_trials", "be at least 1")
        require(self.n_jobs >= 1, "n_jobs", "be at least 1")
        require(self.workers >= 1, "workers", "be at least 1")
        require(self.max_retries >= 0, "max_retries", "be at least 0")
        require(0 <= self.max_failure_rate <= 1, "max_failure_rate", "be between 0 and 1")
        require(self.heartbeat_interval > 0, "heartbeat_interval", "be a number of seconds above 0")
        require(self.grace_period > self.heartbeat_interval, "grace_period", "be longer than heartbeat_interval")
        known = ("minimize", "maximize")
        require(
            bool(self.directions) and all(d in known for d in self.directions),
            "direction",
            "be minimize or maximize, or a list of these",
        )

    @property
    def directions(self) -> list[Any]:
        return [self.direction] if isinstance(self.direction, str) else list(self.direction)


# The space


@dataclass(frozen=True)
class Parameter:
    """One swept key: Optuna's distribution, and how a value of it is written as a Hydra override."""

    key: str  # as it stands before "=", Hydra's + or ++ included
    distribution: "BaseDistribution"
    texts: Mapping[Any, str] = field(default_factory=dict)  # of choices
    digits: int | None = None  # of a range's floats: undoes the rounding noise of low + k * step

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def override(self, value: Any) -> str:
        if self.texts:
            return f"{self.key}={self.texts[value]}"
        return f"{self.key}={value if self.digits is None else round(value, self.digits)}"

    def listed(self) -> list[Any] | None:
        """All values, where they can be listed."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if isinstance(d, IntDistribution) and not d.log:
            return list(range(d.low, d.high + 1, d.step))
        if isinstance(d, FloatDistribution) and d.step is not None:
            n = round((d.high - d.low) / d.step) + 1
            return [round(d.low + k * d.step, self.digits or 0) for k in range(n)]
        return None


def parameter(override: Override) -> Parameter:
    """Translates a sweep override: choice and glob, range (end excluded), interval, with the tags log and int.

    Raises:
        StudyError: the sweep is empty, has an unknown tag, or can't be on a log scale.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, sweep, written = override.get_key_element(), override.value(), override.input_line
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    allowed = {"log", "int"} if isinstance(sweep, IntervalSweep) else set()
    if tags - allowed:
        raise StudyError(
            f"{written}: unknown tag {', '.join(sorted(tags - allowed))}: an interval takes log and int, others none"
        )
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        is_int, is_log = "int" in tags or isinstance(sweep.start, int), "log" in tags
        if sweep.start > sweep.end:
            raise StudyError(f"{written}: the interval is empty: its start must not be above its end")
        if is_log and sweep.start <= 0:
            raise StudyError(f"{written}: on a log scale an interval must start above 0, got {sweep.start:g}")
        if is_int:
            return Parameter(key, IntDistribution(math.ceil(sweep.start), math.floor(sweep.end), log=is_log))
        return Parameter(key, FloatDistribution(sweep.start, sweep.end, log=is_log))
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep)
    # a choice's shuffle() would give each start of the study other choices; the sampler decides the order anyway
    listed = sweep.list if isinstance(sweep, ChoiceSweep) else list(override.sweep_iterator())
    if not listed:
        raise StudyError(f"{written}: there is nothing to choose from")
    texts = {_plain(e): Override._get_value_element_as_str(e) for e in listed}
    if len(texts) != len(listed):  # 1 and True are one key: go by what is written
        texts = {t: t for t in map(Override._get_value_element_as_str, listed)}
    return Parameter(key, CategoricalDistribution(list(texts)), texts)


def _range(key: str, sweep: RangeSweep) -> Parameter:
    """A range in decimals, as it is written: in binary, 0.3 may or may not lie below 3 * 0.1."""
    from optuna.distributions import FloatDistribution, IntDistribution

    start, stop, step = (Decimal(str(v)) for v in (sweep.start, sweep.stop, sweep.step))
    n = math.ceil((stop - start) / step) if step else 0
    if n < 1:
        raise StudyError(f"{key}: the range from {start} to {stop}, by steps of {step}, is empty")
    low, high = sorted((start, start + (n - 1) * step))
    if all(isinstance(v, int) for v in (sweep.start, sweep.stop, sweep.step)):
        return Parameter(key, IntDistribution(int(low), int(high), step=abs(int(step))))
    digits = max(0, *(-e for d in (low, step) if isinstance(e := d.as_tuple().exponent, int)))
    return Parameter(key, FloatDistribution(float(low), float(high), step=abs(float(step))), digits=digits)


def _plain(element: Any) -> Any:
    """A choice as one of the types that Optuna stores; lists and dicts as they are written."""
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, str | int | float | None) else Override._get_value_element_as_str(element)


@dataclass(frozen=True)
class Space:
    """A command's overrides, sorted: what varies, and what every job gets as it is, deletions included."""

    parameters: dict[str, Parameter]
    fixed: dict[str, Override]
    order: list[str]  # of all keys, as written

    @property
    def distributions(self) -> dict[str, "BaseDistribution"]:
        return {name: p.distribution for name, p in self.parameters.items()}

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The job's overrides for a trial's parameters, in the order of the command."""
        written = {key: str(o.input_line) for key, o in self.fixed.items()}
        written |= {p.key: p.override(params[name]) for name, p in self.parameters.items() if name in params}
        return [written[key] for key in self.order if key in written]


def space(overrides: Sequence[Override]) -> Space:
    """Sorts overrides into a space; of one key the last counts.

    Raises:
        StudyError: nothing is swept.
    """
    by_key = {o.get_key_element(): o for o in overrides}
    swept = [parameter(o) for o in by_key.values() if o.is_sweep_override()]
    if not swept:
        raise StudyError(
            "the search space is empty: sweep at least one key, for example 'l1=tag(log, interval(1e-7, 1e-1))', on the"
            " command line or in hydra.sweeper.params"
        )
    fixed = {key: o for key, o in by_key.items() if not o.is_sweep_override()}
    return Space({p.name: p for p in swept}, fixed, list(by_key))


# The storage


def _storage_location(sweeper: Any, hydra: Any) -> str:
    """A URL, or the path of a journal file, with absolute paths: a job may run in another directory."""
    cwd = Path(hydra.runtime.cwd)
    spec = sweeper.storage
    if spec is None:
        return f"sqlite:///{(cwd / hydra.sweep.dir / STORAGE_FILE).absolute()}"
    if "://" not in spec:
        return str((cwd / spec).absolute())
    scheme, _, path = spec.partition(":///")
    if scheme.startswith("sqlite") and path and path != ":memory:":
        return f"{scheme}:///{(cwd / path).absolute()}"
    return spec


def _is_secret(location: str) -> bool:
    """Whether a storage's address may hold credentials: that of any server may."""
    return "://" in location and not location.startswith("sqlite")


def public_location(location: str) -> str:
    """A storage's address without user, password and options, fit to be printed."""
    if not _is_secret(location):
        return location
    scheme, _, rest = location.partition("://")
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def open_storage(location: str) -> "BaseStorage":
    """Opens an RDB URL, or the path of a journal file.

    Raises:
        StudyError: it can't be reached; the message holds no credentials.
    """
    import optuna

    try:
        if "://" not in location:
            from optuna.storages.journal import JournalFileBackend

            return optuna.storages.JournalStorage(JournalFileBackend(location))
        if not location.startswith("sqlite"):
            return optuna.storages.RDBStorage(location)
        # processes on one file wait for each other instead of failing
        storage = optuna.storages.RDBStorage(location, engine_kwargs={"connect_args": {"timeout": 60}})
        _write_ahead(storage.engine)
        return storage
    except Exception as error:  # the database drivers' own types, of which we know none
        raise _unreachable(location, error) from None


def _write_ahead(engine: Any) -> None:
    """Lets SQLite commit without a disk sync: a killed process loses nothing, and a commit takes 1 ms, not 10."""
    from sqlalchemy import event

    def prepare(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(engine, "connect", prepare)
    engine.dispose()  # connections made so far


def _unreachable(location: str, error: BaseException) -> StudyError:
    """One line for a storage that fails, with every part of its address that may be secret taken out."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    if _is_secret(location):
        reason = reason.replace(location, public_location(location))
        for secret in _secrets(location):
            reason = reason.replace(secret, "***")
    return StudyError(f"hydra.sweeper.storage: {public_location(location)} can't be used: {reason}")


def _secrets(location: str) -> list[str]:
    from urllib.parse import unquote

    rest = location.partition("://")[2]
    address, _, options = rest.partition("?")
    password = address.rpartition("@")[0].partition(":")[2]
    parts = [password, *(o.partition("=")[2] for o in options.split("&"))]
    return [s for p in parts if p for s in (p, unquote(p))]


def _study_name(sweeper: Any, hydra: Any) -> str:
    return sweeper.study_name or Path(hydra.sweep.dir).name


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it when its process dies."""
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(what: str, spec: Any, base: type, **arguments: Any) -> Any:
    """Instantiates the sampler or pruner that `spec` names by `_target_`."""
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise StudyError(f"hydra.sweeper.{what} must name a class by its _target_, got {spec!r}")
    try:
        made = instantiate(spec, _convert_="all", **arguments)
    except Exception as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise StudyError(f"hydra.sweeper.{what}: {spec['_target_']} can't be made: {reason}") from None
    if not isinstance(made, base):
        raise StudyError(f"hydra.sweeper.{what} must be one of Optuna's {what}s, got {spec['_target_']}")
    return made


def _pruner(spec: Any) -> "optuna.pruners.BasePruner":
    import optuna

    return _made("pruner", spec, optuna.pruners.BasePruner)


# The trial in its job


class StudyTrial:
    """The running job's trial: report values, ask whether to stop."""

    def __init__(self, trial: "optuna.Trial") -> None:
        frozen = trial.storage.get_trial(trial._trial_id)
        self.number = frozen.number
        self.params = dict(frozen.params)
        self.study_name = trial.study.study_name
        self.taken_over = False
        self._trial = trial
        self._steps = set(frozen.intermediate_values)
        self._attempt = _job(frozen).get("attempt", 1)
        self._single = len(trial.study.directions) == 1

    def facts(self) -> dict[str, Any]:
        """What a record says of the trial."""
        return {"study": self.study_name, "number": self.number, "params": self.params}

    def report(self, value: float, step: int) -> None:
        """Reports a value of the objective at a step (an epoch). A study of several objectives takes no reports.

        Raises:
            TakenOverError: this process was silent for so long that another one runs the trial now.
        """
        self._check()
        if self._single and step not in self._steps:
            self._trial.report(float(value), step)
            self._steps.add(step)
            if _progress is not None:
                _progress.show(f"trial {self.number}: {_params(self.params)}, {value:.6g} at step {step}")

    def should_prune(self) -> bool:
        """Whether the study's pruner would stop here; then raise `optuna.TrialPruned`."""
        self._check()
        return self._single and self._trial.should_prune()

    def _check(self) -> None:
        if self.taken_over:
            raise TakenOverError(f"trial {self.number} is run by another process now: this one was silent for too long")

    def begin(self, **facts: Any) -> None:
        """Writes who runs the trial, and the first heartbeat."""
        mine = {"attempt": self._attempt, "host": socket.gethostname(), "pid": os.getpid(), "beat": time.time()}
        self._trial.set_user_attr(_JOB, {**mine, **facts})

    def beat(self, **facts: Any) -> None:
        """Writes a heartbeat, and notices when the trial has been taken over.

        A sweeper beats for a job that its launcher has queued, until the job, which knows its directory, does.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        written = _job(self._trial.storage.get_trial(self._trial._trial_id))
        self.taken_over = written.get("attempt", 1) != self._attempt
        if self.taken_over or ("directory" in written and "directory" not in facts):
            return
        try:
            self.begin(**facts)
        except UpdateFinishedTrialError:
            self.taken_over = True

    def tell(self, value: Any = None, *, pruned: bool = False, error: str | None = None) -> None:
        """Finishes the trial. A value that is no number, or a number of values that is wrong, is a failure.

        Raises:
            JobError: it was such a failure.
            TakenOverError: another process has the trial.
        """
        from optuna.trial import TrialState

        self._check()
        study, number = self._trial.study, self.number
        if pruned:
            study.tell(number, state=TrialState.PRUNED)
        elif error is None:
            values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            error = _not_an_objective(values, len(study.directions))
            if error is None:
                study.tell(number, [float(v) for v in values])
        if error is not None:
            self._trial.set_user_attr(_ERROR, error)
            study.tell(number, state=TrialState.FAIL)
        _asked.pop(number, None)
        if error is not None:
            raise JobError(error)


_current: StudyTrial | None = None
_asked: dict[int, "optuna.Trial"] = {}  # what this process's sweeper has handed to its launcher
_asked_in = os.getpid()
_progress: "Progress | None" = None


def current_trial() -> StudyTrial | None:
    """The trial that this job runs; None outside a study."""
    return _current


def _job(trial: "FrozenTrial") -> dict[str, Any]:
    return trial.user_attrs.get(_JOB, {})


def _not_an_objective(values: list[Any], n: int) -> str | None:
    """Why values can't be told, if they can't: infinity is a result, NaN is not."""
    if len(values) != n:
        return f"the objective must be {n} number{'s' if n > 1 else ''}, the app's function returned {len(values)}"
    for value in values:
        try:
            bad = math.isnan(float(value))
        except (TypeError, ValueError):
            bad = True
        if bad:
            return f"the objective must be a number, the app's function returned {value!r}"
    return None


def _this_jobs_trial() -> "optuna.Trial":
    """The trial whose number the running job has, also in a process that knows nothing but its config."""
    import optuna

    hydra = HydraConfig.get()
    number = hydra.job.num
    if os.getpid() == _asked_in and number in _asked:
        return _asked[number]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    location = _storage_location(hydra.sweeper, hydra)
    try:
        study = optuna.load_study(
            study_name=_study_name(hydra.sweeper, hydra),
            storage=open_storage(location),
            sampler=optuna.samplers.RandomSampler(),  # never asked here
            pruner=_pruner(OmegaConf.to_container(hydra.sweeper.pruner, resolve=True)),
        )
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        return optuna.Trial(study, trial_id)
    except optuna.exceptions.StorageInternalError as error:
        raise _unreachable(location, error) from None


class StudyTask:
    """The app's function, as a job of a study: it beats while it runs, and tells its own result."""

    def __init__(self, function: TaskFunction) -> None:
        self.function = function
        self.__wrapped__ = function

    def __call__(self, config: DictConfig) -> Any:
        global _current
        import optuna

        hydra = HydraConfig.get()
        trial = StudyTrial(_this_jobs_trial())
        directory = os.path.relpath(hydra.runtime.output_dir, Path(hydra.runtime.cwd) / hydra.sweep.dir)
        beats = _Beats([trial], hydra.sweeper.heartbeat_interval, directory=directory)
        trial.begin(directory=directory)
        _current, os.environ[TRIAL_VARIABLE] = trial, str(trial.number)
        try:
            with beats:
                value = self.function(config)
        except optuna.TrialPruned:
            trial.tell(pruned=True)
            return None
        except (Exception, SystemExit) as error:
            log.exception("trial %d failed", trial.number)
            said = str(error).strip().splitlines()
            trial.tell(error=": ".join([type(error).__name__, *said[:1]]))
        else:
            trial.tell(value)
            return value
        finally:
            _current = None
            del os.environ[TRIAL_VARIABLE]


class _Beats:
    """Beats for trials, from a thread of its own, until the block ends."""

    def __init__(self, trials: list[StudyTrial], interval_s: float, **facts: Any) -> None:
        self._trials, self._interval_s, self._facts = trials, interval_s, facts
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._done.wait(self._interval_s):
            self._beat()

    def _beat(self) -> None:
        for trial in self._trials:
            try:
                trial.beat(**self._facts)
            except Exception as error:  # a storage out of reach for a moment: the grace period decides
                log.warning("trial %d: no heartbeat written: %s", trial.number, type(error).__name__)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()


# What is shown


class Progress:
    """A line for every trial that ends, and, on a terminal, one that tells how the study stands."""

    def __init__(self, total: int, directions: list[str], finished: set[int], stream: TextIO) -> None:
        self._total, self._directions, self._stream = total, directions, stream
        self._seen = set(finished)
        self._begun, self._start_s = len(finished), time.monotonic()
        self._standing = ""

    def update(self, trials: Sequence["FrozenTrial"]) -> None:
        """Prints the trials that have ended since the last call."""
        finished = [t for t in trials if t.state.is_finished()]
        self._standing = _standing(finished, self._directions)
        for trial in finished:
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                self._clear()
                log.info(
                    "trial %d: %s: %s | %d of %d%s%s",
                    *(trial.number, _params(trial.params), _outcome(trial)),
                    *(len(self._seen), self._total, self._standing, self._left()),
                )
        running = [t for t in trials if t.state.name == "RUNNING"]
        if running:
            self.show("; ".join(map(_doing, running)))

    def show(self, doing: str) -> None:
        """Replaces the line about what is running."""
        if self._stream.isatty():
            self._clear()
            self._stream.write(f"{doing} | {len(self._seen)} of {self._total}{self._standing}{self._left()}\r")
            self._stream.flush()

    def _clear(self) -> None:
        if self._stream.isatty():
            self._stream.write("\x1b[K")

    def _left(self) -> str:
        done = len(self._seen) - self._begun
        if done == 0 or len(self._seen) >= self._total:
            return ""
        seconds = (time.monotonic() - self._start_s) / done * (self._total - len(self._seen))
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {seconds:.0f} s left"


def _params(params: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())


def _values(values: Sequence[float]) -> str:
    return ", ".join(f"{v:.6g}" for v in values)


def _outcome(trial: "FrozenTrial") -> str:
    if trial.state.name == "PRUNED":
        return "pruned" if trial.last_step is None else f"pruned at step {trial.last_step}"
    if trial.state.name == "FAIL":
        return f"failed: {trial.user_attrs.get(_ERROR, 'for an unknown reason')}"
    return _values(trial.values)


def _doing(trial: "FrozenTrial") -> str:
    step = trial.last_step
    last = "" if step is None else f", {trial.intermediate_values[step]:.6g} at step {step}"
    return f"trial {trial.number}: {_params(trial.params)}{last}"


def _standing(finished: Sequence["FrozenTrial"], directions: list[str]) -> str:
    best = _best(finished, directions)
    parts = [f"best {_values(best[0].values)} (trial {best[0].number})"] if best and len(directions) == 1 else []
    for state, word in (("PRUNED", "pruned"), ("FAIL", "failed")):
        parts.append(f"{sum(t.state.name == state for t in finished)} {word}")
    return "".join(f", {p}" for p in parts)


def _best(trials: Sequence["FrozenTrial"], directions: list[str]) -> list["FrozenTrial"]:
    """The completed trials, best first (of several objectives, by the first)."""
    sign = 1 if directions[0] == "minimize" else -1
    return sorted((t for t in trials if t.state.name == "COMPLETE"), key=lambda t: sign * t.values[0])


def _table(trials: Sequence["FrozenTrial"]) -> str:
    names = sorted({name for t in trials for name in t.params})
    rows = [["trial", "value", *names]]
    for t in trials:
        params = (_params({"": t.params[n]})[1:] if n in t.params else "" for n in names)
        rows.append([str(t.number), _values(t.values), *params])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def study_json(study: "optuna.Study", importances: Mapping[str, float]) -> str:
    """A study as a file for those that have no Optuna: names, trials, what each reported. Infinity becomes null.

    A trial's directory is relative to the sweep's; its message is a failed trial's last line.
    """

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    trials = [
        {
            "number": t.number,
            "state": _STATES[t.state.name],
            "params": t.params,
            "values": None if t.values is None else list(map(finite, t.values)),
            "steps": [[step, finite(value)] for step, value in sorted(t.intermediate_values.items())],
            "directory": _job(t).get("directory"),
            "message": t.user_attrs.get(_ERROR),
        }
        for t in study.get_trials(deepcopy=False)
    ]
    facts = {"schema": 1, "study": study.study_name, "directions": [d.name.lower() for d in study.directions]}
    return json.dumps({**facts, "importances": dict(importances), "trials": trials}, indent=1, allow_nan=False) + "\n"


def experiment_yaml(overrides: Sequence[Override], group_exists: Callable[[str], bool]) -> str:
    """Overrides as an experiment file: chosen groups in its defaults list, values below."""
    defaults: list[Any] = []
    left_out: list[str] = []
    values = OmegaConf.create()
    for o in overrides:
        group = o.key_or_group if o.package is None else f"{o.key_or_group}@{o.package}"
        if not group_exists(o.key_or_group):
            if o.is_delete():
                left_out.append(str(o.input_line))
            else:
                OmegaConf.update(values, o.key_or_group, o.value(), force_add=True)
        elif o.key_or_group == "experiment":  # a neighbour of this file; its group is chosen already
            defaults.insert(0, o.value())
        else:
            defaults.append({f"/{group}" if o.is_add() else f"override /{group}": None if o.is_delete() else o.value()})
    text = "# @package _global_\n"
    text += "".join(f"# to be given on the command line: {line}\n" for line in left_out)
    if defaults:
        text += OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"]}))
    return text + (OmegaConf.to_yaml(values) if values else "")


# The sweep


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
        self._location = _storage_location(self._settings, config.hydra)
        if _is_secret(self._location):
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
        self._lock = self._dir / "study.claim" if _is_secret(self._location) else Path(f"{file}.claim")
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
            log.info("interrupted: the same command goes on with study %s", self._study_name)
            raise SystemExit(130) from None
        except optuna.exceptions.StorageInternalError as error:
            raise _unreachable(self._location, error) from None
        finally:
            signal.signal(signal.SIGTERM, before)

    # Opening

    @property
    def _study_name(self) -> str:
        return _study_name(self._settings, self._hydra)

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
        return _made("sampler", spec, optuna.samplers.BaseSampler, **arguments)

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
        pruner = _pruner(self._settings.pruner)
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
        with _locked_at(self._lock, self._location):
            storage = open_storage(self._location)
            if self._study_name in optuna.get_all_study_names(storage):
                self._study = optuna.load_study(
                    study_name=self._study_name, storage=storage, sampler=sampler, pruner=pruner
                )
                self._check_same(directions)
            else:
                self._check_unused()
                self._study = optuna.create_study(
                    study_name=self._study_name, storage=storage, sampler=sampler, pruner=pruner, directions=directions
                )
                self._study.set_user_attr(_IDENTITY, self._identity())
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
                raise StudyError(f"hydra.sweeper.enqueue: {name}={value} lies outside of {p.distribution}")
            params[name] = value
        if self._is_grid and len(params) < len(self._space.parameters):
            raise StudyError(f"hydra.sweeper.enqueue: with a grid a point needs all parameters, got {dict(point)}")
        return params

    def _identity(self) -> dict[str, str]:
        """What must not change between two starts of a study, as text by name."""
        task = OmegaConf.masked_copy(self._config, [str(k) for k in self._config if k != "hydra"])
        kept = dict(_flat(OmegaConf.to_container(task, resolve=False)))
        kept |= {key: o.get_value_string() if o.value_type else "deleted" for key, o in self._space.fixed.items()}
        for name in self._settings.may_differ:
            kept = {k: v for k, v in kept.items() if k != name and not k.startswith(f"{name}.")}
        return kept | {name: str(d) for name, d in self._space.distributions.items()}

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
        changes = [f"{k}: {then.get(k)} -> {now.get(k)}" for k in sorted(then | now) if then.get(k) != now.get(k)]
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
            and (isinstance(d, CategoricalDistribution) or "Categorical" in then[name])
        ]
        if choices or self._is_grid:
            raise StudyError(
                f"{difference}: neither choices nor a grid can be extended within a study: choose another"
                " hydra.sweeper.study_name"
            )
        study.set_user_attr(_IDENTITY, now)

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
        global _progress
        OmegaConf.save(self._config, self._dir / "multirun.yaml")
        trials = self._study.get_trials(deepcopy=False)
        finished = {t.number for t in trials if t.state.is_finished()}
        log.info("study %s: %d of %d trials done", self._study_name, len(finished), self._total)
        _progress = Progress(self._total, self._settings.directions, finished, sys.stderr)
        try:
            if self._settings.workers == 1:
                self._work()
            else:
                self._supervise()
        finally:
            _progress = None
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
        with _locked(self._lock):
            trials = self._study.get_trials(deepcopy=False)
            silent = [t for t in trials if t.state.name == "RUNNING" and self._is_silent(t)]
            for trial in silent:
                self._take_over(trial)
            if silent:
                trials = self._study.get_trials(deepcopy=False)
            if _progress is not None:
                _progress.update(trials)
            if self._too_many_failed(trials):
                return [], False
            n_begun = sum(t.state.name != "WAITING" for t in trials)
            n = max(0, min(self._settings.n_jobs, self._total - n_begun))
            batch = [self._study.ask(self._space.distributions) for _ in range(n)]
        return batch, any(t.state.name == "RUNNING" for t in trials)

    def _is_silent(self, trial: "FrozenTrial") -> bool:
        """Whether a running trial's heartbeat has stood still for the grace period, by this process's clock alone."""
        # The attempt counts too: a trial that another process has just taken over has not had a heartbeat yet.
        sign, now = (_job(trial).get("attempt", 1), _job(trial).get("beat")), time.monotonic()
        if trial.number not in self._seen or self._seen[trial.number][0] != sign:
            self._seen[trial.number] = (sign, now)
        return now - self._seen[trial.number][1] > self._settings.grace_period

    def _take_over(self, trial: "FrozenTrial") -> None:
        """Sends a trial whose process is dead back to waiting, or, after its last attempt, fails it."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        storage, attempt = self._study._storage, _job(trial).get("attempt", 1)
        self._seen.pop(trial.number, None)
        try:
            if attempt > self._settings.max_retries:
                error = f"killed or silent {attempt} times (hydra.sweeper.max_retries={self._settings.max_retries})"
                storage.set_trial_user_attr(trial._trial_id, _ERROR, error)
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
            else:
                log.info("trial %d is silent: it runs again, from where it was", trial.number)
                storage.set_trial_user_attr(trial._trial_id, _JOB, {"attempt": attempt + 1})
                storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        except UpdateFinishedTrialError:  # its result came at the last moment
            pass

    def _launch(self, trials: list["optuna.Trial"]) -> None:
        """Launches trials of consecutive numbers as the jobs of these numbers."""
        overrides = [self._space.overrides(t.params) for t in trials]
        _asked.update({t.number: t for t in trials})
        beats = _Beats([] if self._in_process else list(map(StudyTrial, trials)), self._settings.heartbeat_interval)
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
            untold = dict(_asked)
            _asked.clear()
        if self._in_process:  # nobody else will tell
            for trial in untold.values():
                self._fail(trial, trouble or "the job ended without a result")

    def _fail(self, trial: "optuna.Trial", error: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr(_ERROR, error)
        self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)

    def _give_back(self, trials: list["optuna.Trial"]) -> None:
        """Sends interrupted trials back to waiting. Jobs in other processes may live on: their heartbeats decide."""
        from optuna.trial import TrialState

        storage = self._study._storage
        for trial in trials if self._in_process else []:
            frozen = storage.get_trial(trial._trial_id)
            if frozen.state == TrialState.RUNNING:
                storage.set_trial_user_attr(trial._trial_id, _JOB, {"attempt": _job(frozen).get("attempt", 1)})
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
                if _progress is not None:
                    _progress.update(trials)
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
        with _locked(self._lock):
            trials = self._study.get_trials(deepcopy=False)
            its = [t for t in trials if (_job(t).get("host"), _job(t).get("pid")) == (socket.gethostname(), pid)]
            for trial in its:
                if trial.state.name == "RUNNING":
                    self._take_over(trial)
        return bool(its)

    # The end

    def _conclude(self) -> None:
        trials = self._study.get_trials(deepcopy=False)
        directions = self._settings.directions
        finished = [t for t in trials if t.state.is_finished()]
        log.info("study %s: %d trials%s", self._study_name, len(finished), _standing(finished, directions))
        best = self._study.best_trials if len(directions) > 1 else _best(trials, directions)
        if best:
            log.info("%s\n%s", "best trials" if len(directions) == 1 else "Pareto front", _table(best[:10]))
            self._write_best(best if len(directions) > 1 else best[:1])
        importances = self._importances(best)
        with replacing(self._dir / STUDY_FILE) as file:
            file.write(study_json(self._study, importances).encode())
        if importances:
            log.info("importance of each parameter: %s", _params(importances))
        if any((self._dir / str(t.number) / RUN_FILE).exists() for t in best):
            log.info("report:    python -m reg_sweep.report %s", os.path.relpath(self._dir))
        log.info("dashboard: optuna-dashboard %s", public_location(self._location))
        if self._too_many_failed(trials):
            failed = [t for t in trials if t.state.name == "FAIL"]
            raise StudyError(
                f"{len(failed)} of {self._total} trials failed, more than hydra.sweeper.max_failure_rate="
                f"{self._settings.max_failure_rate:g} allows: trial {failed[-1].number} {_outcome(failed[-1])}"
            )

    def _importances(self, best: Sequence["FrozenTrial"]) -> dict[str, float]:
        import optuna

        finite = [t for t in self._study.get_trials(deepcopy=False) if t.values and all(map(math.isfinite, t.values))]
        if len(self._space.parameters) < 2 or len({tuple(t.values) for t in finite if t.values}) < 2 or not best:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that few trials make it inaccurate
            return optuna.importance.get_param_importances(self._study)

    def _write_best(self, best: Sequence["FrozenTrial"]) -> None:
        """Writes each best trial's overrides as a file that `--config-dir` and `experiment=` run."""
        raw = OmegaConf.to_container(self._config.hydra.sweep, resolve=False)
        assert isinstance(raw, dict)
        places = set(re.findall(r"\$\{([\w.]+)\}", raw["dir"]))  # a best run must not lie where the study lies
        parser = OverridesParser.create(config_loader=self._loader)
        for trial in best:
            name = "best" if len(self._settings.directions) == 1 else f"best_{trial.number}"
            written = self._space.overrides(trial.params)
            before = trial.params.keys() - self._space.parameters.keys()  # swept before the study was extended
            written += [f"{n}={Override._get_value_element_as_str(trial.params[n])}" for n in sorted(before)]
            overrides = parser.parse_overrides(written)
            kept = [o for o in overrides if o.key_or_group not in {*places, STUDY_GROUP}]
            path = (self._dir / BEST_FILE).with_stem(name)
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as file:
                file.write(experiment_yaml(kept, lambda g: bool(self._loader.get_group_options(g))).encode())
            log.info("run it:    %s --config-dir %s experiment=%s", _app(), os.path.relpath(self._dir), name)


@contextmanager
def _locked_at(lock: Path, location: str) -> Iterator[None]:
    """Like `_locked`, for a lock beside a storage whose folder may not be there."""
    try:
        lock.touch()
    except OSError as error:
        raise _unreachable(location, error) from None
    with _locked(lock):
        yield


def _consecutive(trials: list["optuna.Trial"]) -> list[list["optuna.Trial"]]:
    """Splits a batch where its numbers jump: launchers number their jobs consecutively."""
    groups: list[list[optuna.Trial]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if groups and groups[-1][-1].number + 1 == trial.number:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def _flat(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(config)


def _app() -> str:
    """The app as it was started, without its arguments."""
    module = sys.orig_argv[1:3]
    return f"python -m {module[1]}" if module[:1] == ["-m"] else f"python {os.path.relpath(sys.argv[0])}"


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
