"""A Hydra app that knows nothing of Optuna: the squared distance from (0.3, -0.2), under a scale from a group."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from reg_sweep.hydra_app.internals import VERSION_BASE

store = ConfigStore.instance().store
store(name="sphere", node={"defaults": [{"scale": "one"}, "_self_", {"experiment": None}], "x": 0.0, "y": 0.0, "z": 1})
store(group="scale", name="one", node={"factor": 1.0})
store(group="scale", name="ten", node={"factor": 10.0})


@hydra.main(config_path=None, config_name="sphere", **VERSION_BASE)
def main(config: DictConfig) -> float:
    return config.scale.factor * ((config.x - 0.3) ** 2 + (config.y + 0.2) ** 2)


if __name__ == "__main__":
    main()
