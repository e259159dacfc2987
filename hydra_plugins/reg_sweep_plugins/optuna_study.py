"""The options `hydra/sweeper=optuna_study` and `resumable_grid`; the groups `hydra/sweeper/sampler` and `pruner`.

Hydra imports this at every start of every app, so it must stay light: `reg_sweep.search` does the work.
"""

from dataclasses import dataclass, field, make_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reg_sweep.search.settings import Settings
from reg_sweep.search.sweep import StudySweep

_GENETIC = {
    "seed": int,
    "population_size": int,
    "mutation": Any,
    "mutation_prob": float,
    "crossover": Any,
    "crossover_prob": float,
    "swapping_prob": float,
}
# Optuna's class, and its options that can be typed: all but those that take objects. Null leaves an option to Optuna's
# own default. A test compares them with Optuna's signatures.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpe": (
        "TPESampler",
        {
            "seed": int,
            "n_startup_trials": int,
            "n_ei_candidates": int,
            "multivariate": bool,
            "group": bool,
            "constant_liar": bool,
            "warn_independent_sampling": bool,
            "consider_prior": bool,
            "prior_weight": float,
            "consider_magic_clip": bool,
            "consider_endpoints": bool,
        },
    ),
    "gp": (
        "GPSampler",
        {
            "seed": int,
            "independent_sampler": Any,
            "n_startup_trials": int,
            "deterministic_objective": bool,
            "warn_independent_sampling": bool,
        },
    ),
    "random": ("RandomSampler", {"seed": int}),
    "qmc": (
        "QMCSampler",
        {
            "seed": int,
            "qmc_type": str,
            "scramble": bool,
            "independent_sampler": Any,
            "warn_asynchronous_seeding": bool,
            "warn_independent_sampling": bool,
        },
    ),
    "grid": ("GridSampler", {"seed": int}),
    "cmaes": (
        "CmaEsSampler",
        {
            "seed": int,
            "x0": Any,
            "sigma0": float,
            "n_startup_trials": int,
            "independent_sampler": Any,
            "warn_independent_sampling": bool,
            "consider_pruned_trials": bool,
            "restart_strategy": str,
            "popsize": int,
            "inc_popsize": int,
            "use_separable_cma": bool,
            "with_margin": bool,
            "lr_adapt": bool,
            "source_trials": Any,
        },
    ),
    "nsgaii": ("NSGAIISampler", _GENETIC),
    "nsgaiii": ("NSGAIIISampler", {**_GENETIC, "reference_points": Any, "dividing_parameter": int}),
}
PRUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("NopPruner", {}),
    "median": (
        "MedianPruner",
        {"n_startup_trials": int, "n_warmup_steps": int, "interval_steps": int, "n_min_trials": int},
    ),
    "hyperband": (
        "HyperbandPruner",
        {"min_resource": int, "max_resource": Any, "reduction_factor": int, "bootstrap_count": int},
    ),
    "successive_halving": (
        "SuccessiveHalvingPruner",
        {"min_resource": Any, "reduction_factor": int, "min_early_stopping_rate": int, "bootstrap_count": int},
    ),
    "wilcoxon": ("WilcoxonPruner", {"p_threshold": float, "n_startup_steps": int}),
}


class OptunaStudySweeper(Sweeper):
    """Runs a multirun as an Optuna study."""

    def __init__(self, **settings: Any) -> None:
        """Receives the contents of the config's node `hydra.sweeper`; Hydra calls `setup` next."""
        self._settings = settings
        self._sweep: StudySweep | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Refuses settings that can't be used, before anything is written."""
        self._sweep = StudySweep(self._settings, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Runs the study to its end; see `StudySweep.sweep`."""
        assert self._sweep is not None, "Hydra calls setup() first"
        return self._sweep.sweep(arguments)


@dataclass
class OptunaStudyConf(Settings):
    """The settings as an option for Hydra, with the keys that tell Hydra how to make the sweeper."""

    _target_: str = f"{__name__}.{OptunaStudySweeper.__name__}"
    _recursive_: bool = False  # the study makes sampler and pruner itself
    _convert_: str = "all"
    defaults: list[Any] = field(
        default_factory=lambda: [
            "_self_",
            {"sampler": "tpe"},
            {"pruner": "none"},
        ]
    )


@dataclass
class ResumableGridConf(OptunaStudyConf):
    """`hydra/sweeper=resumable_grid`: a plain grid whose finished jobs don't run again; the app may return nothing.

    All jobs run; the command fails at its end if one of them failed.
    """

    has_objective: bool = False
    max_failure_rate: float = 1.0
    defaults: list[Any] = field(
        default_factory=lambda: [
            "_self_",
            {"sampler": "grid"},
            {"pruner": "none"},
        ]
    )


def _store(group: str, parts: dict[str, tuple[str, dict[str, Any]]]) -> None:
    """Registers Optuna's samplers or pruners under their names, except names that are taken.

    Hydra's own Optuna sweeper registers samplers with the same names and accepts no others; ours accepts any.
    """
    config_store = ConfigStore.instance()
    try:
        taken = set(config_store.list(f"hydra/sweeper/{group}"))
    except OSError:
        taken = set()
    for name, (target, options) in parts.items():
        if f"{name}.yaml" in taken:
            continue
        fields = [(key, Any if kind is Any else kind | None, None) for key, kind in options.items()]
        node = make_dataclass(f"{target}Conf", [("_target_", str, f"optuna.{group}s.{target}"), *fields])
        node.__module__, globals()[node.__name__] = __name__, node  # where pickle finds it
        config_store.store(group=f"hydra/sweeper/{group}", name=name, node=node, provider="reg_sweep")


ConfigStore.instance().store(group="hydra/sweeper", name="optuna_study", node=OptunaStudyConf, provider="reg_sweep")
ConfigStore.instance().store(group="hydra/sweeper", name="resumable_grid", node=ResumableGridConf, provider="reg_sweep")
_store("sampler", SAMPLERS)
_store("pruner", PRUNERS)
