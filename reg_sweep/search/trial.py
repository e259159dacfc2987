"""A trial in its job: `current_trial()`, reports, heartbeats, and the result that the job tells itself."""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from reg_sweep.search import progress
from reg_sweep.search.settings import (
    ERROR,
    JOB,
    job_facts,
    make_pruner,
    open_storage,
    storage_location,
    study_name,
    unreachable,
)
from reg_sweep.search.text import params_text

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

TRIAL_VARIABLE = "REG_SWEEP_TRIAL"  # set while a trial runs: an app need not import this module to know that none does


class JobError(RuntimeError):
    """What a failed job raises, in plain words: the app's own exception may not survive the way to the launcher."""


class TakenOverError(RuntimeError):
    """Another process, which missed this job's heartbeat, runs the trial now."""


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
        self._attempt = job_facts(frozen).get("attempt", 1)
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
            progress.show(f"trial {self.number}: {params_text(self.params)}, {value:.6g} at step {step}")

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
        self._trial.set_user_attr(JOB, {**mine, **facts})

    def beat(self, **facts: Any) -> None:
        """Writes a heartbeat, and notices when the trial has been taken over.

        A sweeper beats for a job that its launcher has queued, until the job, which knows its directory, does.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        written = job_facts(self._trial.storage.get_trial(self._trial._trial_id))
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
            self._trial.set_user_attr(ERROR, error)
            study.tell(number, state=TrialState.FAIL)
        asked.pop(number, None)
        if error is not None:
            raise JobError(error)


_current: StudyTrial | None = None
asked: dict[int, "optuna.Trial"] = {}  # what this process's sweeper has handed to its launcher
_asked_in = os.getpid()


def current_trial() -> StudyTrial | None:
    """The trial that this job runs; None outside a study."""
    return _current


def pruned_error(message: str) -> Exception:
    """What to raise when `should_prune` says so, for an app that does not import Optuna itself."""
    import optuna

    return optuna.TrialPruned(message)


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
    if os.getpid() == _asked_in and number in asked:
        return asked[number]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    location = storage_location(hydra.sweeper, hydra)
    try:
        study = optuna.load_study(
            study_name=study_name(hydra.sweeper, hydra),
            storage=open_storage(location),
            sampler=optuna.samplers.RandomSampler(),  # never asked here
            pruner=make_pruner(OmegaConf.to_container(hydra.sweeper.pruner, resolve=True)),
        )
        trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        return optuna.Trial(study, trial_id)
    except optuna.exceptions.StorageInternalError as error:
        raise unreachable(location, error) from None


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
        beats = Beats([trial], hydra.sweeper.heartbeat_interval, directory=directory)
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


class Beats:
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
