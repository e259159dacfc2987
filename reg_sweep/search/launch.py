"""Trials as jobs of Hydra's launcher: claimed, launched, and failed or given back where a job told no end."""

import time
from collections.abc import Sequence
from logging import getLogger
from typing import TYPE_CHECKING

from hydra.plugins.launcher import Launcher

from reg_sweep.search.progress import Progress
from reg_sweep.search.settings import StudyError
from reg_sweep.search.space import Space
from reg_sweep.search.trial import Heartbeat, StudyTask, StudyTrial
from reg_sweep.search.trial_queue import TrialQueue

if TYPE_CHECKING:
    import optuna

log = getLogger(__name__)

POLL_S = 0.5  # how long a process without work waits before it looks again


class TrialLauncher:
    """One process's part in a study: its trials, run as jobs until nothing is left to do."""

    def __init__(self, launcher: Launcher, task: StudyTask, *, heartbeat_s: float, in_process: bool) -> None:
        """Launches `task`; `in_process` says that the launcher runs it here, and not in processes of its own."""
        self._launcher = launcher
        self._task = task
        self._heartbeat_s = heartbeat_s
        self._in_process = in_process

    def run(self, queue: TrialQueue, space: Space, progress: Progress | None) -> None:
        """Claims and launches until nothing is left to do; stays while others run, in case they die."""
        while True:
            claim = queue.claim()
            if progress is not None:
                progress.update(claim.seen)
            for group in consecutive(claim.trials):
                self._launch(group, queue, space, progress)
            if not claim.trials and claim.others_run:
                time.sleep(POLL_S)
            elif not claim.trials:
                return

    def _launch(self, trials: "list[optuna.Trial]", queue: TrialQueue, space: Space, progress: Progress | None) -> None:
        """Launches trials of consecutive numbers as the jobs of these numbers."""
        try:
            overrides = [space.job(t) for t in trials]
        except StudyError:  # a function of the app's is at fault: once it is mended, the trials go on
            queue.give_back(trials)
            raise
        self._task.hand_out(trials, progress)
        # Jobs here beat for themselves; those that a launcher queues can't, before they have begun.
        queued = [] if self._in_process else list(map(StudyTrial, trials))
        trouble: str | None = None
        try:
            with Heartbeat(queued, self._heartbeat_s):
                self._launcher.launch(overrides, initial_job_idx=trials[0].number)
        except Exception as error:  # whatever a launcher makes of a dead job; the others have told their results
            # Those of joblib, submitit and Ray raise when one job is killed, and drop every result of the batch. So no
            # result is taken from a launcher at all.
            trouble = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            log.warning("the launcher raised %s", trouble)
        except BaseException:  # an interrupt
            if self._in_process:  # jobs in other processes may live on: their heartbeats decide
                queue.give_back(trials)
            raise
        finally:
            # Whatever happened: the next batch must not find these under its numbers.
            untold = self._task.take_back()
        if self._in_process:  # nobody else will tell
            for trial in untold:
                queue.fail(trial, trouble or "the job ended without a result")


def consecutive(trials: "Sequence[optuna.Trial]") -> "list[list[optuna.Trial]]":
    """Splits a batch where its numbers jump: launchers number their jobs consecutively."""
    groups: list[list[optuna.Trial]] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if groups and groups[-1][-1].number + 1 == trial.number:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups
