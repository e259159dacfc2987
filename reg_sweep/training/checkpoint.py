"""A run's network in its directory: its state after the last whole epoch, and, once it is trained, the network again.

checkpoint.pt tells damage from contents: it is a line, the SHA-256 of what follows it, and what torch saves: the run's
identity, model, optimizer and history. No random state is in it: every epoch's draws follow from the seed and its
number.
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

from reg_sweep.config.schema import ConfigError, DataConfig, NormConfig, RuntimeConfig
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
    """Replaces the checkpoint in `directory`; `identity` says whose it is.

    Raises:
        OSError: the disk is full or not writable; the checkpoint before is still there.
    """
    # By way of memory: torch says of a full disk no more than 'unexpected pos', as a RuntimeError.
    content = packed(identity, model, optimizer, history)
    with files.replacing(directory / CHECKPOINT_FILE) as file:
        file.write(hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


def write_weights(directory: Path, model: nn.Module, name: str = WEIGHTS_FILE, epoch: float | None = None) -> None:
    """Writes a model's parameters and buffers, with the number of their epoch, as a file of the run."""
    state = {key: tensor.detach().cpu().numpy() for key, tensor in model.state_dict().items()}
    arrays.write_weights(directory, state, name, None if epoch is None else {"epoch": f"{epoch:.0f}"})


def best_after(
    directory: Path, model: nn.Module, row: MetricsRow, best: MetricsRow | None, *, keeps: bool
) -> MetricsRow | None:
    """The epoch with the best val loss up to `row`, the first of equal ones; `best` is that of the epochs before.

    Where `keeps`, its weights, which `model` has now, are written; before the record, which says that they are there. A
    run that resumes comes to the last epoch of its checkpoint again, and writes again what a kill may have cut.
    """
    if row["epoch"] == 1:  # also of a run that starts anew, with a record of its former course
        best = None
    loss, least = row["val_loss"], None if best is None else best["val_loss"]
    if loss is None or (least is not None and loss >= least and row != best):
        return best
    if keeps:
        write_weights(directory, model, BEST_VAL_FILE, row["epoch"])
    return row


def check_best_weights(directory: Path, best: MetricsRow | None, *, keeps: bool) -> None:
    """Removes weights that are not those of the best epoch: the run was trained up to it without keeping them."""
    path = directory / BEST_VAL_FILE
    epoch = None if best is None else f"{best['epoch']:.0f}"
    is_best = arrays.weights_notes(directory, path.name).get("epoch") == epoch
    if not is_best:
        path.unlink(missing_ok=True)
    if keeps and not is_best:
        log.warning("%s: the weights of epoch %s, the best on val, were not kept when it was trained", path, epoch)


def packed(
    identity: dict[str, str], model: nn.Module, optimizer: torch.optim.Optimizer, history: list[MetricsRow]
) -> bytes:
    """The contents of a checkpoint, as torch saves them."""
    state = {**identity, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(content: bytes, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[MetricsRow]:
    """Loads another process's contents into model and optimizer; returns the epochs that they hold."""
    return _load(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), model, optimizer)


def restore(
    directory: Path, identity: dict[str, str], model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[MetricsRow]:
    """Loads the checkpoint of `directory` into model and optimizer; returns the epochs that it holds.

    Without a checkpoint there are none; a damaged one is logged, and counts as none. Nothing in the file is run.

    Raises:
        ConfigError: the checkpoint is another run's, or does not fit the model.
    """
    path = directory / CHECKPOINT_FILE
    if not path.exists():
        return []
    state = _read(path)
    if state is None:
        log.warning("%s is damaged, its contents are not what was written: the run starts anew in its directory", path)
        return []
    if {key: state[key] for key in identity} != identity:
        raise ConfigError(f"{path} must be a checkpoint of this run, got one of another config or other data")
    try:
        return _load(state, model, optimizer)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{path} must fit the run's model, got another's weights ({reason:.200}): "
            f"remove it to start anew, if the model's code was changed"
        ) from None


def is_ours(path: Path) -> bool:
    """Whether a file begins as a checkpoint does, damaged or whole; a folder does not."""
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
    """The checkpoint's contents; None where the file is damaged."""
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # a stranger's file, with a digest that is true: torch names no error that covers them all
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
