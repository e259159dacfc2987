"""A run's state after its last whole epoch, in a file that tells damage from contents.

checkpoint.pt is a line, the SHA-256 of what follows it, and what torch saves: the run's identity, model, optimizer and
history. No random state is in it: every epoch's draws follow from the seed and its number.
"""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reg_sweep.config.schema import ConfigError
from reg_sweep.runs import files
from reg_sweep.runs.reading import is_metrics_column
from reg_sweep.runs.record import CHECKPOINT_FILE, METRICS, MetricsRow

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
