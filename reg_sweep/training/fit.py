"""Training and evaluation: one run from its config to its weights, with a checkpoint after every epoch."""

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from reg_sweep import files, records
from reg_sweep.config import ConfigError, OptimizerConfig, RunConfig, digest, to_dict
from reg_sweep.records import METRIC, LayerFacts, MetricsRow, Status, WeightCounts
from reg_sweep.training.augmentation import Augmentation, batches, n_train_batches
from reg_sweep.training.data import Data, Split, load_data
from reg_sweep.training.dropout import seed_dropout
from reg_sweep.training.model import layers, make_model
from reg_sweep.training.penalties import Penalty, count_zeros
from reg_sweep.training.schedule import set_lr
from reg_sweep.training.streams import epoch_seed, random_stream

log = logging.getLogger(__name__)

EVAL_BATCH = 1_000


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, accuracy as a share, and for each image the predicted class and its probability."""

    loss: float
    accuracy: float
    predicted: npt.NDArray[np.int64] = field(repr=False)
    probability: npt.NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class Fitted:
    """A run's outcome.

    `status` is complete, diverged (a loss that is not finite), pruned (`on_epoch` said so) or running (`stop` said so:
    it can be continued). `test` is the evaluation after the last epoch; None where there is none to speak of.
    """

    status: Status
    model: nn.Module
    history: list[MetricsRow]
    layers: list[LayerFacts]
    test: Evaluation | None
    weights: WeightCounts
    device: torch.device
    message: str | None = None

    @property
    def n_parameters(self) -> int:
        """All parameters of the model, the norm's too."""
        return sum(p.numel() for p in self.model.parameters())


def fit(
    run: RunConfig,
    data: Data | None = None,
    directory: Path | None = None,
    *,
    on_epoch: Callable[[MetricsRow], bool] = lambda row: False,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> Fitted:
    """Trains one run.

    The loss is cross-entropy plus the penalty. Every random draw follows from the run's seed, its purpose and the
    epoch alone: two arms with the same seed see the same initial weights, batches, augmentation and dropout masks.

    Args:
        run: what to train.
        data: the images; loaded as `run.data` says where left out.
        directory: where metrics.csv and checkpoint.pt are kept. A checkpoint of the same run found there is continued,
            and ends bit for bit as if it had never stopped.
        on_epoch: called with each epoch's metrics; returns True to prune the run there.
        stop: asked before each batch; True ends the fit, leaving the checkpoint of the last whole epoch.
        progress: whether a bar (on a terminal) or a line an epoch (elsewhere) is shown.

    Raises:
        ConfigError: model, norm and data do not go together, the device is not there, or `directory` holds the
            checkpoint of another run.
    """
    return fit_prepared(prepare(run, data), directory, on_epoch=on_epoch, stop=stop, progress=progress)


@dataclass(frozen=True)
class Prepared:
    """A run that can be trained: what `fit` makes first, and what a record is begun with.

    `model` has its initial weights, on `device`; `digest` is that of the config.
    """

    run: RunConfig
    data: Data
    device: torch.device
    model: nn.Module
    layers: list[LayerFacts]
    digest: str


def prepare(run: RunConfig, data: Data | None = None) -> Prepared:
    """Loads the images where `data` is left out, and makes the model.

    Raises:
        ConfigError: model, norm and data do not go together, or the device is not there.
    """
    device = choose_device(run.runtime.device)
    data = load_data(run.data) if data is None else data
    model = make_model(run.model, run.norm, data.in_shape, data.n_classes, run.seed)
    with torch.random.fork_rng(devices=[]):
        table = layers(model, data.in_shape)
    return Prepared(run, data, device, model.to(device), table, digest(to_dict(run)))


def fit_prepared(
    prepared: Prepared,
    directory: Path | None,
    *,
    on_epoch: Callable[[MetricsRow], bool],
    stop: Callable[[], bool],
    progress: bool = True,
) -> Fitted:
    """As `fit`, for a run that is prepared already. Its model is trained in place, once."""
    if prepared.run.runtime.threads is not None:
        torch.set_num_threads(prepared.run.runtime.threads)
    with torch.random.fork_rng(devices=[prepared.device] if prepared.device.type == "cuda" else []):
        return _train(prepared, directory, on_epoch, stop, progress)


def _train(
    prepared: Prepared,
    directory: Path | None,
    on_epoch: Callable[[MetricsRow], bool],
    stop: Callable[[], bool],
    progress: bool,
) -> Fitted:
    run, data, device, table = prepared.run, prepared.data, prepared.device, prepared.layers
    # Convolutions are a quarter faster with the channels innermost; only models that never view their activations
    # say that they allow it.
    memory_format = torch.channels_last if getattr(prepared.model, "channels_last", False) else torch.contiguous_format
    model = prepared.model.to(memory_format=memory_format)
    optimizer = make_optimizer(model, run.optimizer)
    penalty = Penalty(
        model,
        optimizer,
        run.l1,
        run.l2,
        name=run.penalty.name,
        l1_update=run.penalty.l1_update,
        l2_update=run.penalty.l2_update,
    )
    train, val, test = (split.to(device) for split in (data.train, data.val, data.test))
    mean, std = data.mean.to(device), data.std.to(device)
    augmentation = Augmentation(run.data, data, device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=run.runtime.precision == "bfloat16")
    n_batches = n_train_batches(len(train), run.batch_size)

    history = _restore(prepared, directory, optimizer)
    evaluation = None
    status, message, left = _go_on(run, history, on_epoch)
    bar = _Progress(run, n_batches, len(history), shown=progress)
    for epoch in left:
        started = time.perf_counter()
        torch.manual_seed(epoch_seed(run.seed, epoch))  # for layers that draw from torch's own generator
        seed_dropout(model, random_stream(run.seed, "dropout", epoch))
        order, draws = random_stream(run.seed, "order", epoch), random_stream(run.seed, "augment", epoch)
        loss_sum = torch.zeros((), dtype=torch.float64)
        n_correct, n_seen, lr = 0, 0, run.optimizer.lr
        model.train()
        for i, (x, y) in enumerate(augmentation.batches(train, run.batch_size, order, draws)):
            if stop():
                bar.close()
                return Fitted("running", model, history, table, None, count_zeros(model), device)
            lr = set_lr(optimizer, run, epoch * n_batches + i, n_batches)
            with autocast:
                logits = model(x.contiguous(memory_format=memory_format)).float()
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            penalty.before_step()
            optimizer.step()
            penalty.after_step()

            value = loss.item()
            if not math.isfinite(value):
                status, message = "diverged", f"the train loss became {value} in epoch {epoch + 1}, batch {i + 1}"
                break
            n_seen += len(y)
            loss_sum += value * len(y)
            n_correct += int((logits.argmax(1) == y).sum())
            bar.batch(epoch, float(loss_sum) / n_seen, n_correct / n_seen)
        if status == "diverged":
            break
        seconds = time.perf_counter() - started

        on_val = evaluate(model, val, mean, std, autocast, memory_format) if len(val) > 0 else None
        evaluation = evaluate(model, test, mean, std, autocast, memory_format)
        row: MetricsRow = {
            "epoch": epoch + 1,
            "lr": lr,
            "train_loss": float(loss_sum) / n_seen,
            "train_accuracy": n_correct / n_seen,
            "val_loss": None if on_val is None else on_val.loss,
            "val_accuracy": None if on_val is None else on_val.accuracy,
            "test_loss": evaluation.loss,
            "test_accuracy": evaluation.accuracy,
            "penalty": penalty.value(),
            "seconds": round(time.perf_counter() - started, 3),
            "images_per_s": round(n_seen / seconds, 1),
        }
        history.append(row)
        if directory is not None:
            records.append_metrics(directory, row)
            _save(prepared, directory, optimizer, history)
        bar.epoch(row)
        if not math.isfinite(evaluation.loss) or not math.isfinite(row["penalty"] or 0.0):
            status, message = "diverged", f"the test loss or the penalty is not finite after epoch {epoch + 1}"
            break
        if on_epoch(row) and epoch + 1 < run.epochs:
            status, message = "pruned", f"pruned after epoch {epoch + 1} of {run.epochs}"
            break
    bar.close()
    if evaluation is None and status != "diverged":  # every epoch was there already
        evaluation = evaluate(model, test, mean, std, autocast, memory_format)
    seed_dropout(model, None)
    return Fitted(status, model.eval(), history, table, evaluation, count_zeros(model), device, message)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    mean: Tensor,
    std: Tensor,
    autocast: torch.autocast,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Evaluation:
    """Loss, accuracy and predictions of a model, in evaluation mode, on a split without augmentation."""
    model.eval()
    loss_sum, predicted, probability = 0.0, [], []
    for x, y in batches(split, mean, std, EVAL_BATCH):
        with autocast:
            logits = model(x.contiguous(memory_format=memory_format)).float()
        loss_sum += float(F.cross_entropy(logits, y, reduction="sum"))
        top = logits.softmax(1).max(1)
        predicted.append(top.indices.cpu())
        probability.append(top.values.cpu())
    classes = torch.cat(predicted)
    return Evaluation(
        loss=loss_sum / len(split),
        accuracy=int((classes == split.labels.cpu()).sum()) / len(split),
        predicted=classes.numpy(),
        probability=torch.cat(probability).numpy(),
    )


def choose_device(name: str) -> torch.device:
    """auto: CUDA, else Apple's GPU, else the CPU.

    Raises:
        ConfigError: the named device is not on this machine.
    """
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        return torch.device(next(d for d, is_there in there.items() if is_there()))
    if not there[name]():
        raise ConfigError(f"runtime.device must be on this machine, got {name!r}: choose runtime.device=auto")
    return torch.device(name)


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over all parameters, without weight decay: that is the penalty's."""
    if config.name == "sgd":
        assert config.momentum is not None
        assert config.nesterov is not None
        return torch.optim.SGD(
            model.parameters(), config.lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=0.0
        )
    assert config.betas is not None
    return torch.optim.AdamW(model.parameters(), config.lr, betas=(config.betas[0], config.betas[1]), weight_decay=0.0)


# ---- checkpoint


def _go_on(
    run: RunConfig, history: list[MetricsRow], on_epoch: Callable[[MetricsRow], bool]
) -> tuple[Status, str | None, range]:
    """What a run is after the epochs that a checkpoint holds, told again, and those that are left.

    The kill may have come between a checkpoint and its telling; whether to prune was then asked of nobody.
    """
    answers = [on_epoch(row) for row in history]
    if answers and answers[-1] and len(history) < run.epochs:
        return "pruned", f"pruned after epoch {len(history)} of {run.epochs}", range(0)
    return "complete", None, range(len(history), run.epochs)


def _identity(prepared: Prepared) -> dict[str, str]:
    return {"digest": prepared.digest, "fingerprint": prepared.data.fingerprint}


def _save(prepared: Prepared, directory: Path, optimizer: torch.optim.Optimizer, history: list[MetricsRow]) -> None:
    checkpoint = {
        **_identity(prepared),
        "model": prepared.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    with files.replacing(directory / records.CHECKPOINT_FILE) as file:
        torch.save(checkpoint, file)


def _restore(prepared: Prepared, directory: Path | None, optimizer: torch.optim.Optimizer) -> list[MetricsRow]:
    """Loads the checkpoint of `directory` into model and optimizer; returns the epochs that it holds.

    No random state is in it: every epoch's draws follow from the seed and its number. metrics.csv is written anew from
    it, since a row may have been written just before the end, without its checkpoint.
    """
    if directory is None:
        return []
    path = directory / records.CHECKPOINT_FILE
    history: list[MetricsRow] = []
    if path.exists():
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if {k: checkpoint[k] for k in ("digest", "fingerprint")} != _identity(prepared):
            raise ConfigError(f"{path} must be a checkpoint of this run, got one of another config or other data")
        prepared.model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        history = checkpoint["history"]
        log.info("continuing after epoch %d of %d", len(history), prepared.run.epochs)
    records.write_metrics(directory, history)
    return history


# ---- progress


class _Progress:
    """A bar on a terminal, a line an epoch elsewhere."""

    def __init__(self, run: RunConfig, n_batches: int, n_done: int, *, shown: bool) -> None:
        self._n_epochs, self._shown = run.epochs, shown
        self._batch_size = run.batch_size
        self._bar = tqdm(
            total=run.epochs * n_batches,
            initial=n_done * n_batches,
            disable=not (shown and sys.stderr.isatty()),
            bar_format="{desc} |{bar}| {percentage:3.0f}% [{elapsed}<{remaining}]{postfix}",
            mininterval=0.2,
            leave=False,
        )

    def batch(self, epoch: int, loss: float, accuracy: float) -> None:
        if self._bar.update():
            rate = (self._bar.format_dict["rate"] or 0.0) * self._batch_size
            self._bar.set_description_str(f"epoch {epoch + 1}/{self._n_epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}, {rate:,.0f} images/s", refresh=False)

    def epoch(self, row: MetricsRow) -> None:
        if self._shown:
            line = f"epoch {row['epoch']:.0f}/{self._n_epochs}  train {_pair(row, 'train')}"
            if row["val_loss"] is not None:
                line += f"  val {_pair(row, 'val')}"
            self._bar.clear()
            log.info("%s  test %s  %s images/s", line, _pair(row, "test"), f"{row['images_per_s']:,.0f}")

    def close(self) -> None:
        self._bar.close()


def _pair(row: MetricsRow, split: str) -> str:
    loss, accuracy = METRIC[f"{split}_loss"].of(row), METRIC[f"{split}_accuracy"].of(row)
    return f"{loss:.4f} {accuracy:.2%}"
