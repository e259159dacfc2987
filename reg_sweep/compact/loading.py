"""Loads compact networks from their files, to use them or to train them further as the model of a run."""

from pathlib import Path
from shlex import quote
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reg_sweep.compact.removal import set_sizes
from reg_sweep.compact.writing import FOLDER, RECORD_FILE, read_compact_record
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig
from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import WEIGHTS_FILE
from reg_sweep.training.model import make_model


def load_compact(directory: str | Path) -> nn.Module:
    """Loads the compact network of a run that `python -m reg_sweep.compact` wrote, in evaluation mode.

    Args:
        directory: the run's directory, such as outputs/RUN, or its subdirectory with the compact network.

    Raises:
        ConfigError: there is no compact network, its files are damaged, or its model can't be made here.
        RecordError: the run's record can't be read.
    """
    directory = Path(directory)
    if directory.name == FOLDER and (directory / RECORD_FILE).exists():
        directory = directory.parent
    folder = directory / FOLDER
    if not (folder / RECORD_FILE).exists():
        raise ConfigError(
            f"{directory} must have a compact network: python -m reg_sweep.compact {quote(str(directory))}"
        )
    record = read_record(directory, raw=True)
    config = record["config"]
    c, h, w = read_compact_record(folder)["in_shape"]
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{folder / WEIGHTS_FILE} must hold the network's weights, got a damaged file: {error}"
        ) from None
    model = make_model(
        config["model"], NormConfig(**config["norm"]), (c, h, w), record["data"]["n_classes"], config["seed"]
    )
    fit_to(model, weights)
    return model.eval()


def fit_to(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Replaces a model's weights by `weights`, and adapts the sizes of its layers.

    Raises:
        ConfigError: the weights are another model's.
    """
    modules = dict(model.named_modules())
    strangers = set(model.state_dict()) - set(weights)
    for name, tensor in weights.items():
        path, _, own = name.rpartition(".")
        module = modules.get(path)
        if module is None or not (hasattr(module, own) or own == "bias"):
            strangers.add(name)
            continue
        old = getattr(module, own)
        is_parameter = old is None or isinstance(old, nn.Parameter)
        setattr(module, own, nn.Parameter(tensor.clone()) if is_parameter else tensor.clone())
        set_sizes(module)
    if strangers:
        raise ConfigError(f"weights must be those of the run's model, got others: {', '.join(sorted(strangers)[:3])}")


def compacted(in_shape: tuple[int, int, int], n_classes: int, norm: Any, *, run: str) -> nn.Module:
    """The compact network of a run as the model of another: `model={_target_: reg_sweep.compacted, run: outputs/RUN}`.

    Training starts from the compact weights, so an arm with this model fine-tunes after removal. With
    `run: outputs/NAME/${seed}`, each seed starts from its own run.

    Raises:
        ConfigError: `run` is empty, or `load_compact` finds no usable network.
        RecordError: the run's record can't be read.
    """
    if run == "":
        raise ConfigError(
            "model.run must name the folder of a run that has a compact network, got '': model.run=outputs/RUN"
        )
    with torch.device("cpu"):
        return load_compact(run).train()
