"""Loads a trained network from its run's directory."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from reg_sweep.config.schema import ConfigError, DataConfig, NormConfig, RuntimeConfig
from reg_sweep.runs.reading import find_runs, read_record
from reg_sweep.runs.record import RUN_FILE, WEIGHTS_FILE, RunRecord
from reg_sweep.runs.validation import one_line
from reg_sweep.training.data import load_data
from reg_sweep.training.devices import choose_device
from reg_sweep.training.model import make_model


def load_model(directory: str | Path, device: str = "auto") -> nn.Module:
    """The network of a finished run, with its last weights, in evaluation mode.

    It maps images (N, C, H, W) to logits (N, n_classes). Images are expected as in training: pixels divided by 255,
    less the `mean` of each channel, divided by its `std`; both stand in the record under `data`.

    A model of one's own is imported by the `_target_` in the run's config, which runs its code: load only runs that you
    trust.

    Args:
        directory: the run's own, such as outputs/NAME, or outputs/NAME/0 in a sweep.
        device: auto (CUDA, else Apple's GPU, else the CPU), cpu, cuda or mps.

    Raises:
        ConfigError: there is no run, or one that is not finished; its model can't be made here, or the weights are
            missing, damaged or another model's; the device is not on this machine.
        RecordError: its record can't be read.
    """
    directory = Path(directory)
    record = _finished(directory)
    path, on = directory / WEIGHTS_FILE, choose_device(RuntimeConfig(device).device)
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise ConfigError(f"{path} must hold the weights, got no file: train the run again under a new name") from None
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} must hold the weights as they were written, got a damaged file: {error}") from None
    config = record["config"]
    try:
        norm, n_classes = NormConfig(**config["norm"]), record["data"]["n_classes"]
        model = make_model(config["model"], norm, _in_shape(record), n_classes, config["seed"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{directory} must hold a run's whole record, got one that lacks or has {error}") from None
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:  # sizes that no network has
        if isinstance(error, ConfigError):
            raise
        said = one_line(error)
        raise ConfigError(f"{directory} must hold the record of a network, got sizes that make none: {said}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} must hold the weights of {config['model']['_target_']!r} as it is here, got others: {reason}"
        ) from None
    return model.to(on).eval()


def _finished(directory: Path) -> RunRecord:
    if not (directory / RUN_FILE).exists():
        inside = next(find_runs(directory), None)
        among = "" if inside is None else f", got a folder of several: name one of them, such as {inside}"
        raise ConfigError(f"{directory} must be a run's directory{among or ', got none'}")
    record = read_record(directory, raw=True)  # its model's arguments as they were
    if record["status"] in ("running", "failed"):
        raise ConfigError(
            f"{directory} must hold a finished run, got one that is {record['status']} after {record['epochs_done']} "
            f"of {record['config']['epochs']} epochs: go on with it first, by the command that began it"
        )
    return record


def _in_shape(record: RunRecord) -> tuple[int, int, int]:
    """(C, H, W) of the images; records that are older than this fact have their data loaded to tell it."""
    if "in_shape" in record["data"]:
        c, h, w = record["data"]["in_shape"]
        return c, h, w
    return load_data(DataConfig(**record["config"]["data"])).in_shape
