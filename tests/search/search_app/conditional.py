"""A Hydra app with a space that depends on what was chosen: each kind has options of its own."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from optuna import Trial

from reg_sweep.hydra_app.internals import VERSION_BASE

ConfigStore.instance().store(name="conditional", node={"kind": "plain", "rate": 0.0, "width": 0.5, "y": 0})


def configure(config: DictConfig, trial: Trial) -> None:
    if trial.params["kind"] == "rated":
        trial.suggest_float("rate", 1, 1 + config.width)
        trial.suggest_categorical("+word", ["a b", "c"])


def fixes(config: DictConfig, trial: Trial) -> None:
    trial.suggest_int("y", 0, 3)


def fails(config: DictConfig, trial: Trial) -> None:
    trial.suggest_float("rate", 0, config.nothing)


@hydra.main(config_path=None, config_name="conditional", **VERSION_BASE)
def main(config: DictConfig) -> float:
    assert (config.kind == "rated") == ("word" in config) == (config.rate != 0)
    return -config.rate


if __name__ == "__main__":
    main()
