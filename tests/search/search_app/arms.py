"""A Hydra app whose arms differ by a known amount, under noise that the seed gives to all arms and to each alone."""

import math
import os
import random
import signal
import time

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from reg_sweep.hydra_app.internals import VERSION_BASE

GAIN = {"plain": 0.0, "same": 0.0, "good": 1.0, "bad": -1.0, "wild": 0.0, "broken": 0.0}

ConfigStore.instance().store(
    name="arms", node={"arm": "plain", "x": 0.0, "seed": 0, "noise": 0.01, "pause_s": 0.0, "kills_itself_at": -1}
)


@hydra.main(config_path=None, config_name="arms", **VERSION_BASE)
def main(config: DictConfig) -> float:
    time.sleep(config.pause_s)
    if config.seed == config.kills_itself_at and config.arm == "same":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.arm == "broken" and config.seed == 2:
        raise ValueError("it broke")
    if config.arm == "wild":
        return -math.inf
    shared, own = random.Random(config.seed), random.Random(f"{config.arm} {config.x} {config.seed}")
    return shared.gauss() + config.noise * own.gauss() + GAIN[config.arm] - abs(config.x - 0.3)


if __name__ == "__main__":
    main()
