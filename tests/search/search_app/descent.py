"""A Hydra app that trains, so to speak: it reports, can be pruned, and resumes from its checkpoint when it was killed.

Each epoch adds a line to steps.txt; the end adds one to done.txt.
"""

import errno
import math
import os
import signal
import sys
import time
from pathlib import Path

import hydra
import optuna
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from reg_sweep.hydra_app.internals import VERSION_BASE
from reg_sweep.search import current_trial

ConfigStore.instance().store(
    name="descent",
    node={"x": 0.0, "epochs": 4, "pause_s": 0.0, "waits_for": 0, "returns": None}
    | {"fails_above": 2.0, "kills_itself_above": 2.0},
)

RETURNS = {"infinity": math.inf, "pair": [1.0, 2.0]}


def wait_for(n_jobs: int, sweep: Path) -> None:
    """Waits until so many jobs of the sweep have ended."""
    deadline = time.monotonic() + 100
    while len(list(sweep.glob("*/done.txt"))) < n_jobs:
        if time.monotonic() > deadline:
            raise TimeoutError("no other job has ended meanwhile")
        time.sleep(0.05)


@hydra.main(config_path=None, config_name="descent", **VERSION_BASE)
def main(config: DictConfig) -> object:
    folder = Path(HydraConfig.get().runtime.output_dir)
    steps = folder / "steps.txt"
    trial = current_trial()
    if config.returns == "os_exit":
        os._exit(0)
    if config.returns == "full_disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.pt")

    if config.x > config.fails_above:
        raise ValueError(f"x is too large: {config.x > 0}\nand more")
    wait_for(config.waits_for, folder.parent)
    begun = len(steps.read_text().splitlines()) if steps.exists() else 0
    value = float("nan")
    for epoch in range(begun + 1, config.epochs + 1):
        time.sleep(config.pause_s)
        value = (config.x - 0.3) ** 2 + 1 / epoch
        with steps.open("a") as file:
            file.write(f"{epoch}\n")
        if config.x > config.kills_itself_above and epoch == 2:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if trial is not None:
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
    with (folder / "done.txt").open("a") as file:
        file.write("done\n")
    value = (config.x - 0.3) ** 2 + 1 / config.epochs
    return value if config.returns is None else RETURNS[config.returns]


if __name__ == "__main__":
    main()
