"""A run's network on disk: the checkpoint of the last complete epoch, and the final weights.

checkpoint.pt begins with a line that holds the SHA-256 of the rest, so that damage is detected. The rest is what torch
saves: the run's identity, model, optimizer and history. It holds no RNG state: every epoch's draws follow from the seed
and the epoch's number.
"""

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import DataConfig, NormConfig, RuntimeConfig
from reg_sweep.runs import arrays, files
from reg_sweep.runs.reading import find_runs, is_metrics_column, read_record
from reg_sweep.runs.record import BEST_VAL_FILE, CHECKPOINT_FILE, METRICS, RUN_FILE, WEIGHTS_FILE, MetricsRow, RunRecord
from reg_sweep.runs.validation import one_line
from reg_sweep.training.data import load_data
from reg_sweep.training.devices import choose_device
from reg_sweep.training.model import make_model

log = logging.getLogger(__name__)


def save(
    directory: Path,
    identity: dict[str, str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[MetricsRow],
) -> None:
    """Replaces the checkpoint in `directory`; `identity` says which run it belongs to.

    Raises:
        OSError: the disk is full or not writable; the previous checkpoint is still there.
    """
    # Saved to memory first: on a full disk torch raises only a RuntimeError, 'unexpected pos'.
    content = packed(identity, model, optimizer, history)
    with files.replacing(directory / CHECKPOINT_FILE) as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


def write_weights(directory: Path, model: nn.Module, name: str = WEIGHTS_FILE, epoch: float | None = None) -> None:
    """Writes a model's parameters and buffers, with the number of their epoch, into the run's directory."""
    state = {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}
    arrays.write_weights(directory, state, name, None if epoch is None else {"epoch": f"{epoch:.0f}"})


def best_after(
    directory: Path, model: nn.Module, row: MetricsRow, best: MetricsRow | None, *, keeps: bool
) -> MetricsRow | None:
    """The epoch with the best val loss up to `row`, the first of equal ones; `best` is the best epoch before `row`.

    If `keeps` is set and `row` is the best, the weights of `model` are written. That happens before the record is
    written, which says that they exist. A resumed run processes the last epoch of its checkpoint again, and so rewrites
    weights that a kill may have cut off.
    """
    if row["epoch"] == 1:  # the record of a run that starts over still names its earlier best epoch
        best = None
    loss, least = row["val_loss"], None if best is None else best["val_loss"]
    if loss is None or (least is not None and loss >= least and row != best):
        return best
    if keeps:
        write_weights(directory, model, BEST_VAL_FILE, row["epoch"])
    return row


def check_best_weights(directory: Path, best: MetricsRow | None, *, keeps: bool) -> None:
    """Removes the best weights if they are of another epoch: the run trained its best epoch without keeping them."""
    path = directory / BEST_VAL_FILE
    epoch = None if best is None else f"{best['epoch']:.0f}"
    is_best = arrays.weights_notes(directory, path.name).get("epoch") == epoch
    if not is_best:
        path.unlink(missing_ok=True)
    if keeps and not is_best:
        log.warning("%s: the weights of epoch %s, the best on val, were not saved when it was trained", path, epoch)


def packed(
    identity: dict[str, str], model: nn.Module, optimizer: torch.optim.Optimizer, history: list[MetricsRow]
) -> bytes:
    """The contents of a checkpoint, serialized by torch."""
    state = {**identity, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(content: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[MetricsRow]:
    """Loads another process's checkpoint contents into model and optimizer; returns its epochs."""
    return _load(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), model, optimizer)


def restore(
    directory: Path, identity: dict[str, str], model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[MetricsRow]:
    """Loads the checkpoint of `directory` into model and optimizer; returns its epochs.

    Without a checkpoint there are no epochs. A damaged one is logged and ignored. No code in the file is executed.

    Raises:
        ConfigError: the checkpoint is another run's, or does not fit the model.
    """
    path = directory / CHECKPOINT_FILE
    if not path.exists():
        return []
    state = _read(path)
    if state is None:
        log.warning("%s is damaged: the run starts again from its first epoch", path)
        return []
    if {key: state[key] for key in identity} != identity:
        raise ConfigError(
            f"{path} must be a checkpoint of this run, got one of another config or data set: choose another "
            "directory, or remove the file to start again"
        )
    try:
        return _load(state, model, optimizer)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} must fit the run's model, got weights of another model ({reason:.200}): "
            f"if the model's code has changed, remove the file to start again"
        ) from None


def is_ours(path: Path) -> bool:
    """Whether a path is a file that begins like a checkpoint, damaged or not."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return re.fullmatch(rb"[0-9a-f]{0,63}|[0-9a-f]{64}\n?", file.read(65)) is not None


def _load(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> list[MetricsRow]:
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    history: list[MetricsRow] = state["history"]
    return history


def _read(path: Path) -> dict[str, Any] | None:
    """The checkpoint's contents; None if the file is damaged."""
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # not one of our files, though its digest is right: torch may raise anything
        return None
    keys = {"digest", "fingerprint", "model", "optimizer", "history"}
    is_whole = isinstance(state, dict) and state.keys() == keys and isinstance(state["history"], list)
    return state if is_whole and all(_is_row(row) for row in state["history"]) else None


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() >= set(METRICS)
        and all(map(is_metrics_column, row))
        and all(value is None or isinstance(value, int | float) for value in row.values())
    )


def load_model(directory: str | Path, device: str = "auto") -> nn.Module:
    """Loads the network of a finished run, with its last weights, in evaluation mode.

    It maps images (N, C, H, W) to logits (N, n_classes). Images are normalized as in training: pixels divided by 255,
    minus the `mean` of each channel, divided by its `std`. The record holds both under `data`.

    A custom model is imported by the `_target_` in the run's config, which executes its code: load only runs that you
    trust.

    Args:
        directory: the run's directory, such as outputs/NAME, or outputs/NAME/0 in a sweep.
        device: auto (CUDA, else Apple's GPU, else the CPU), cpu, cuda or mps.

    Raises:
        ConfigError: there is no run, or it is not finished; its model can't be made here; the weights are missing,
            damaged or another model's; or the device is not available.
        DataError: the record is an older one, without the images' shape, and its data set can't be read.
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
        raise ConfigError(f"{path} must hold the run's weights, got a damaged file: {error}") from None
    config = record["config"]
    try:
        norm, n_classes = NormConfig(**config["norm"]), record["data"]["n_classes"]
        model = make_model(config["model"], norm, _in_shape(record), n_classes, config["seed"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{directory} must hold a complete record, got one with missing or unknown settings: {error}"
        ) from None
    except (RuntimeError, ValueError, ArithmeticError, MemoryError) as error:  # sizes that no network has
        if isinstance(error, ConfigError):
            raise
        said = one_line(error)
        raise ConfigError(f"{directory} must hold the record of a network, got impossible sizes: {said}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} must fit {config['model']['_target_']!r} as it is defined now, got other weights: {reason}"
        ) from None
    return model.to(on).eval()


def _finished(directory: Path) -> RunRecord:
    if not (directory / RUN_FILE).exists():
        inside = next(find_runs(directory), None)
        found = "no run" if inside is None else f"a folder of several runs: name one of them, such as {inside}"
        raise ConfigError(f"{directory} must be a run's directory, got {found}")
    record = read_record(directory, raw=True)  # raw: the model's arguments, unchanged
    if record["status"] in ("running", "failed"):
        raise ConfigError(
            f"{directory} must hold a finished run, got one that is {record['status']} after {record['epochs_done']} "
            f"of {record['config']['epochs']} epochs: resume it first, with the command that started it"
        )
    return record


def _in_shape(record: RunRecord) -> tuple[int, int, int]:
    """(C, H, W) of the images. Older records lack it, so their data are loaded to find it."""
    if "in_shape" in record["data"]:
        c, h, w = record["data"]["in_shape"]
        return c, h, w
    return load_data(DataConfig(**record["config"]["data"])).in_shape
