"""A Hydra app with a constraint, which the best value breaks: x is good, but may not be above 0.5."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from reg_sweep.hydra_app.internals import VERSION_BASE
from reg_sweep.search import current_trial

ConfigStore.instance().store(name="limited", node={"x": 0.0, "tells": True, "prunes": False})


def too_large(trial: FrozenTrial) -> tuple[float, float]:
    return trial.params["x"] - 0.5, -1.0


def broken(trial: FrozenTrial) -> tuple[float]:
    raise ValueError(f"no limit for {trial.params['x']}")


@hydra.main(config_path=None, config_name="limited", **VERSION_BASE)
def main(config: DictConfig) -> float:
    trial = current_trial()
    if trial is not None and config.tells:
        trial.set_constraint("size", config.x - 0.5)
        trial.set_constraint("size", -1)  # the first counts
        trial.set_user_attr("twice", 2 * config.x)
    return -config.x


if __name__ == "__main__":
    main()
