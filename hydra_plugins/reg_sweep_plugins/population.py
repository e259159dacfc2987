"""The option `hydra/launcher=population`: jobs train together in this process, with their networks stacked.

Hydra imports this at every start of every app, so it must stay light: `reg_sweep.training.population` does the work.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from reg_sweep.hydra_app.internals import basic_launcher, quiet_basic_launcher
from reg_sweep.search.trial import job_state, set_job_state

if TYPE_CHECKING:
    from reg_sweep.training.population import Population

log = logging.getLogger(__name__)


class PopulationLauncher(Launcher):
    """Runs jobs in threads that take turns, at most `members` at a time; see `Population`."""

    def __init__(self, members: int) -> None:
        """Receives the contents of the config's node `hydra.launcher`; Hydra calls `setup` next."""
        self._members = members
        self._parts: dict[str, Any] = {}
        self._population: Population | None = None
        self._handlers: set[logging.Handler] = set()  # of all jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Receives what Hydra's own launcher needs for a job."""
        self._parts = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of jobs to their end, and returns the result of each in order."""
        jobs = []
        for i, overrides in enumerate(job_overrides, initial_job_idx):
            log.info("\t#%d : %s", i, " ".join(filter_overrides(overrides)))
            jobs.append(functools.partial(self._job, list(overrides), i))
        if self._population is None:
            self._population = self._made()
        before = self._state()
        try:
            with quiet_basic_launcher():
                return self._population.run(jobs)
        finally:
            self._set_state(before)
            for handler in self._handlers - set(logging.root.handlers):
                handler.close()  # Hydra itself only closes those of the last job it configured
            self._handlers.clear()

    def _made(self) -> "Population":
        from reg_sweep.training.devices import choose_device
        from reg_sweep.training.population import Population

        device, threads = (OmegaConf.select(self._parts["config"], f"runtime.{key}") for key in ("device", "threads"))
        return Population(choose_device(device or "auto"), threads, self._members, [(self._state, self._set_state)])

    def _job(self, overrides: list[str], number: int) -> JobReturn:
        return basic_launcher(**self._parts).launch([overrides], initial_job_idx=number)[0]

    def _state(self) -> tuple[Any, ...]:
        """The state that Hydra sets for a job in the whole process, and the job's trial."""
        self._handlers.update(logging.root.handlers)
        return HydraConfig.instance().cfg, list(logging.root.handlers), logging.root.level, job_state()

    def _set_state(self, state: tuple[Any, ...]) -> None:
        HydraConfig.instance().cfg, logging.root.handlers[:], level, trial = state
        logging.root.setLevel(level)
        set_job_state(trial)


@dataclass
class PopulationConf:
    """The launcher as an option for Hydra; `members` is the number of runs that train at a time."""

    _target_: str = f"{__name__}.{PopulationLauncher.__name__}"
    members: int = 8


ConfigStore.instance().store(group="hydra/launcher", name="population", node=PopulationConf, provider="reg_sweep")
