"""The sweeper's options in Hydra: samplers and pruners by name, with Optuna's own arguments, typed."""

import inspect
import os
import subprocess
import sys

import optuna
import pytest
from omegaconf import OmegaConf
from toy_apps import APPS, GRID, SEED, STUDY, X, load

from hydra_plugins.reg_sweep_plugins.optuna_study import PRUNERS, SAMPLERS, OptunaStudyConf
from reg_sweep.search.settings import Settings

# Arguments that take Python objects, or that the sweeper gives itself.
OBJECTS = {"gamma", "weights", "constraints_func", "search_space"}
OBJECTS |= {"elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy"}
PARTS = [(optuna.samplers, *part) for part in SAMPLERS.values()]
PARTS += [(optuna.pruners, *part) for name, part in PRUNERS.items() if name != "none"]


@pytest.mark.parametrize(("module", "target", "options"), PARTS, ids=[part[1] for part in PARTS])
def test_the_typed_options_are_those_of_optunas_class(module, target, options):
    wanted = set(inspect.signature(getattr(module, target).__init__).parameters) - {"self"}
    assert set(options) == wanted - OBJECTS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # what Optuna calls NSGA-III
def test_options_need_no_plus_and_what_is_not_given_is_optunas_to_choose(app):
    sampler = ["hydra/sweeper/sampler=nsgaiii", SEED, "hydra.sweeper.sampler.population_size=4"]
    pruner = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2"]
    app("sphere", *STUDY, X, *sampler, *pruner, "hydra.sweeper.n_trials=2")
    assert load().user_attrs["searcher"] == "NSGAIIISampler and MedianPruner"


OTHER = """
from dataclasses import dataclass, field
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

@dataclass
class SamplerConfig:
    _target_: str = MISSING

@dataclass
class TPESamplerConfig(SamplerConfig):
    _target_: str = "optuna.samplers.TPESampler"
    seed: int | None = None
    n_startup_trials: int = 10

@dataclass
class GridSamplerConfig(SamplerConfig):
    _target_: str = "optuna.samplers.GridSampler"
    _partial_: bool = True

@dataclass
class OtherSweeperConf:
    _target_: str = "somewhere.Sweeper"
    defaults: list = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: SamplerConfig = MISSING

store = ConfigStore.instance().store
store(group="hydra/sweeper", name="other", node=OtherSweeperConf)
store(group="hydra/sweeper/sampler", name="tpe", node=TPESamplerConfig)
store(group="hydra/sweeper/sampler", name="grid", node=GridSamplerConfig)
"""


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["another", "zulu"])  # imported before ours, and after
def test_a_sweeper_that_types_samplers_of_the_same_names_works_beside_ours(tmp_path, folder):
    """Hydra's own Optuna sweeper does; its grid is a partial, and its sampler takes no class but its own."""
    (tmp_path / "more/hydra_plugins" / folder).mkdir(parents=True)
    (tmp_path / "more/hydra_plugins" / folder / "__init__.py").write_text(OTHER)
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(tmp_path / "more")])

    def run(*arguments):
        command, env = [sys.executable, str(APPS / "sphere.py"), *arguments], {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    theirs = run("hydra/sweeper=other", "hydra.sweeper.sampler.seed=3", "--cfg", "hydra", "-p", "hydra.sweeper")
    assert OmegaConf.create(theirs).sampler.seed == 3
    run(*STUDY, "x=0,1", GRID)
    run(*STUDY[:-1], "hydra.sweep.dir=tpe", X, "hydra.sweeper.sampler.seed=3", "hydra.sweeper.n_trials=1")


def test_settings_are_what_the_plugin_offers():
    own = set(OptunaStudyConf.__dataclass_fields__) - {"_target_", "_recursive_", "_convert_", "defaults"}
    assert own == set(Settings.__dataclass_fields__)
