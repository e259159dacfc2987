"""A Hydra app that knows nothing of Optuna: the squared distance from (0.3, -0.2)."""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=None, config_name="sphere")
def main(config: DictConfig) -> float:
    return (config.x - 0.3) ** 2 + (config.y + 0.2) ** 2


if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="sphere", node={"x": 0.0, "y": 0.0})
    main()
