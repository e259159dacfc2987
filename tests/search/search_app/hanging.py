"""A Hydra app whose job hangs where it is asked to: in Python, in C, or in Python that swallows every exception."""

import contextlib
import sys
import time

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from reg_sweep.hydra_app.internals import VERSION_BASE

ConfigStore.instance().store(name="hanging", node={"x": 0, "hangs": "never"})


@hydra.main(config_path=None, config_name="hanging", **VERSION_BASE)
def main(config: DictConfig) -> float:
    if config.x == 1 and config.hangs == "in_python":
        time.sleep(600)
    if config.x == 1 and config.hangs == "in_c":
        sum(range(10**15))  # C code that lets no other thread run, and no signal's handler
    while config.x == 1 and config.hangs == "swallows":
        with contextlib.suppress(BaseException):
            time.sleep(600)
    return float(config.x)


if __name__ == "__main__":
    if "hydra/launcher=submitit_local" in sys.argv:
        import submitit

        submitit.Job._results_timeout_s = 1  # a killed job leaves no result, for which submitit would wait 15 seconds
    main()
