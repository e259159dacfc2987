"""A Hydra app with two main configs, a list, a group and a key to take out, which keeps no more than its config."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from reg_sweep.hydra_app.internals import VERSION_BASE

store = ConfigStore.instance().store
for name in ("echo", "other"):
    node = {"defaults": [{"scale": "one"}, "_self_"], "x": 0.0, "list": [1, 2, {"a": "b"}], "gone": 1, "main": name}
    store(name=name, node=node)
store(group="scale", name="one", node={"factor": 1.0})


@hydra.main(config_path=None, config_name="echo", **VERSION_BASE)
def main(config: DictConfig) -> float | list[float]:
    return [float(config.x)] * 2 if "two" in config else float(config.x)


if __name__ == "__main__":
    main()
