"""The option `hydra/sweeper=optuna_study`, with the groups `hydra/sweeper/sampler` and `hydra/sweeper/pruner`.

Hydra imports this at every start of every app, so it must stay light: `reg_sweep.search` does the work.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reg_sweep.search.compose import hide_storage
from reg_sweep.search.settings import Settings
from reg_sweep.search.sweep import StudySweep

SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "grid": "GridSampler",
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "wilcoxon": "WilcoxonPruner",
}


class OptunaStudySweeper(Sweeper):
    """Runs a multirun as an Optuna study."""

    def __init__(self, **settings: Any) -> None:
        """Takes what the config's node `hydra.sweeper` holds; Hydra calls `setup` next."""
        self._settings = settings
        self._sweep: StudySweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Refuses settings that can't be used, before anything is written."""
        self._sweep = StudySweep(self._settings, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Runs the study to its end; see `StudySweep.sweep`."""
        assert self._sweep is not None, "Hydra calls setup() first"
        self._sweep.sweep(arguments)


class HideStorage(Callback):
    """Keeps a storage's password out of the files of a single run, for which Hydra makes no sweeper that could."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Moves the address from the config, which Hydra is about to write, to the environment."""
        hide_storage(config)


@dataclass
class OptunaStudyConf(Settings):
    """The settings as Hydra's option, with what tells Hydra how to make the sweeper."""

    _target_: str = f"{__name__}.{OptunaStudySweeper.__name__}"
    _recursive_: bool = False  # sampler and pruner are made where they are needed
    _convert_: str = "all"
    defaults: list[Any] = field(
        default_factory=lambda: [
            "_self_",
            {"sampler": "tpe"},
            {"pruner": "none"},
            {"/hydra/sweeper/secrecy@_global_": "hide_storage"},
        ]
    )


store = ConfigStore.instance().store
store(group="hydra/sweeper", name="optuna_study", node=OptunaStudyConf, provider="reg_sweep")
store(
    group="hydra/sweeper/secrecy",
    name="hide_storage",
    node={"hydra": {"callbacks": {"hide_storage": {"_target_": f"{__name__}.{HideStorage.__name__}"}}}},
    provider="reg_sweep",
)
for name, target in SAMPLERS.items():
    store(
        group="hydra/sweeper/sampler", name=name, node={"_target_": f"optuna.samplers.{target}"}, provider="reg_sweep"
    )
for name, target in PRUNERS.items():
    store(group="hydra/sweeper/pruner", name=name, node={"_target_": f"optuna.pruners.{target}"}, provider="reg_sweep")
