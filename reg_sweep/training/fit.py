"""The training loop: one run from its config to its weights, with evaluation and a checkpoint after every epoch."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from reg_sweep.config.digest import digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.runs import files
from reg_sweep.runs.reading import is_metrics
from reg_sweep.runs.record import (
    CHECKPOINT_FILE,
    METRICS_FILE,
    RUN_FILE,
    LayerFacts,
    MetricsRow,
    Status,
    WeightCounts,
    append_metrics,
    write_metrics,
)
from reg_sweep.training import checkpoint, turns
from reg_sweep.training.augmentation import Augmentation, n_train_batches
from reg_sweep.training.data import Data, Split, load_data
from reg_sweep.training.data_parallel import DataParallel, check_model
from reg_sweep.training.devices import ALONE, choose_device, kept_memory, own_torch_state
from reg_sweep.training.dropout import seed_dropout
from reg_sweep.training.epoch_log import EpochLog
from reg_sweep.training.evaluation import Averaging, Evaluation, evaluate
from reg_sweep.training.model import layers, make_model
from reg_sweep.training.norms import has_norm
from reg_sweep.training.objective import Objective, Step, kind_of
from reg_sweep.training.optimizer import check_first_state, make_optimizer, switch
from reg_sweep.training.own_penalties import with_columns
from reg_sweep.training.penalties import Penalty
from reg_sweep.training.ranks import Ranks
from reg_sweep.training.rng import epoch_seed, generator, of_rank
from reg_sweep.training.schedule import Schedule
from reg_sweep.training.weights import count_zeros

log = logging.getLogger(__name__)

PURPOSES = "order", "augment", "move", "mix"  # random streams that all ranks share


@dataclass(frozen=True)
class Fitted:
    """A run's outcome.

    `status` is complete, diverged (a loss was not finite), pruned (`on_epoch` returned True) or running (`stop`
    returned True: the run can be resumed). `test` is the evaluation after the last complete epoch; None if that epoch
    was not evaluated on test, or the run was stopped.
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
        """The number of parameters of the model, including its norms'."""
        return sum(p.numel() for p in self.model.parameters())


def fit(
    run: RunConfig,
    data: Data | None = None,
    directory: Path | str | None = None,
    *,
    on_epoch: Callable[[MetricsRow], bool] = lambda row: False,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
) -> Fitted:
    """Trains one run.

    The training loss is `Objective`'s plus the penalty; the val and test losses are the cross-entropy, of the averaged
    weights if there are any (`Averaging`). Every random draw depends only on the run's seed, its purpose and the epoch:
    two arms with the same seed see the same initial weights, batches, augmentation and dropout masks.

    The program's own torch settings (default type and device, threads, autocast, no_grad, generators) don't affect the
    run, and are restored at each `on_epoch` and at the end. They are process-wide, so threads that call `fit` take
    turns, epoch by epoch; to train in parallel, start processes. Another thread that draws from torch's generator
    during a fit changes what the fit draws.

    Args:
        run: what to train.
        data: the images; by default loaded according to `run.data`.
        directory: the directory for metrics.csv and checkpoint.pt. If it holds a checkpoint of the same run, the run
            resumes from it, with bit-for-bit the same result as an uninterrupted one; a damaged checkpoint is logged,
            and the run starts again. The directory is locked until the fit ends. A relative path is resolved at the
            call.
        on_epoch: called with each epoch's metrics; returns True to prune the run. A resumed run first calls it with the
            last epoch of its checkpoint, because it may have been killed before that call.
        stop: called before each batch; if it returns True, the fit ends, and the last epoch's checkpoint remains.
        progress: whether to show a line per epoch (logged, or on standard error), and a progress bar on a terminal.

    Raises:
        ConfigError: model, norm and data don't fit together; the device is not available; `directory` holds another
            run's checkpoint or a run of python -m reg_sweep.train, or another process or thread trains there; or the
            run has callbacks, which need a record that `fit` does not keep.
        DataError: the data set can't be read.
        OSError: the disk is full or not writable; the previous checkpoint is still there.
    """
    if run.callbacks:
        raise ConfigError("callbacks must be left out with fit, which keeps no record: pass on_epoch instead")
    if directory == "":
        raise ConfigError("directory must name a folder, got '': leave it out to write no files")
    kept = None if directory is None else Path(directory).absolute()
    with nullcontext() if kept is None else _locked(kept):
        return fit_prepared(prepare(run, data), kept, on_epoch=on_epoch, stop=stop, progress=progress)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Locks `directory`; refuses it if it holds a run of python -m reg_sweep.train, or files that no fit wrote."""
    if (directory / RUN_FILE).exists():
        raise ConfigError(
            f"{directory} must be new or hold files that fit wrote, got a run of python -m reg_sweep.train: choose "
            "another directory"
        )
    with files.locked_directory(directory):
        for path, is_ours in (
            (directory / CHECKPOINT_FILE, checkpoint.is_ours),
            (directory / METRICS_FILE, is_metrics),
        ):
            if path.is_symlink() or (path.exists() and not is_ours(path)):
                found = "a link" if path.is_symlink() else "another program's file"
                raise ConfigError(f"{path} must be a file that fit wrote, got {found}: choose another directory")
        yield


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train.

    `model` has its initial weights, on `device`; `digest` is the config's; `ranks` train it together.
    """

    run: RunConfig
    data: Data
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    penalty: Penalty
    schedule: Schedule
    objective: Objective
    averaging: Averaging
    layers: list[LayerFacts]
    digest: str
    ranks: Ranks


def prepare(run: RunConfig, data: Data | None = None, ranks: Ranks = ALONE, own: str | None = None) -> Prepared:
    """Loads the images if `data` is None, and makes the model, optimizer, penalty and schedule.

    `own` is the run's digest, if known.

    Raises:
        ConfigError: model, norm and data, or optimizer, penalty and schedule, don't fit together; one of them can't be
            made; the device is not available; or `runtime.ranks` is not the number of processes.
        DataError: the data set can't be read.
    """
    if run.runtime.ranks != ranks.n:
        raise ConfigError(
            f"runtime.ranks must be the number of processes that train the run ({ranks.n}), got {run.runtime.ranks}: "
            f"start that many with torchrun --nproc-per-node, or leave it out"
        )
    device = choose_device(run.runtime.device, ranks)
    with own_torch_state(device):
        data = load_data(run.data) if data is None else data
        Augmentation(run.data, data, torch.device("cpu"))  # raises if the settings don't fit these images
        model = make_model(run.model, run.norm, data.in_shape, data.n_classes, run.seed)
        table = layers(model, data.in_shape)
        optimizer = make_optimizer(model.to(device), run.optimizer, run.seed)
        objective = Objective(run.loss, run.mix, data.n_classes, device)
        check_model(model, ranks)
        example = torch.zeros(2, *data.in_shape, device=device)
        penalty = Penalty(model, optimizer, run.l1, run.l2, run.penalty, example=example, own=run.penalties)
    schedule = Schedule(optimizer, run, n_train_batches(len(data.train), run.batch_size), penalty)
    averaging = Averaging(model, optimizer, run.averaging, run.epochs)
    if run.optimizer.source is not None or run.schedule.source is not None:
        check_first_state(optimizer)
    if not has_norm(model, run.norm):
        log.warning(
            "norm=%s has no effect, because %s has no such layer: make its norms with `norm`, or choose norm=none",
            run.norm.name,
            run.model["_target_"],
        )
    own = own or digest(to_dict(run))
    return Prepared(run, data, device, model, optimizer, penalty, schedule, objective, averaging, table, own, ranks)


def fit_prepared(
    prepared: Prepared,
    directory: Path | None,
    *,
    on_epoch: Callable[[MetricsRow], bool],
    stop: Callable[[], bool],
    progress: bool = True,
    label: str = "",
) -> Fitted:
    """`fit` for a prepared run, whose model is trained in place, only once. `label` begins the lines it logs."""
    with kept_memory():
        return _train(prepared, directory, on_epoch, stop, label, shown=progress and prepared.ranks.is_first)


def _train(
    prepared: Prepared,
    directory: Path | None,
    on_epoch: Callable[[MetricsRow], bool],
    stop: Callable[[], bool],
    label: str,
    *,
    shown: bool,
) -> Fitted:
    run, data, device, table, ranks = prepared.run, prepared.data, prepared.device, prepared.layers, prepared.ranks
    optimizer, penalty = prepared.optimizer, prepared.penalty
    objective, averaging = prepared.objective, prepared.averaging
    # Convolutions are a quarter faster with channels innermost. Only models that never call `view` on their activations
    # declare that they allow it.
    memory_format = torch.channels_last if getattr(prepared.model, "channels_last", False) else torch.contiguous_format
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=run.runtime.precision == "bfloat16")
    identity = {"digest": prepared.digest, "fingerprint": data.fingerprint}
    with own_torch_state(device, run.runtime.threads):
        model = prepared.model.to(memory_format=memory_format)
        averaging.lay_out(memory_format)
        train, val, test = (split.to(device) for split in (data.train, data.val, data.test))
        mean, std = data.mean.to(device), data.std.to(device)
        augmentation = Augmentation(run.data, data, device)
        n_batches = n_train_batches(len(train), run.batch_size)
        history = [] if directory is None else _resume(directory, identity, model, optimizer, run)
        parallel = DataParallel(model, ranks, run.batch_size, device)
        history = parallel.begin(identity, optimizer, history)
        evaluated = averaging.evaluated
        is_tested = bool(history) and history[-1]["test_loss"] is not None
        evaluation = evaluate(evaluated, test, mean, std, autocast, memory_format, ranks) if is_tested else None
        step = Step(model, objective, autocast, memory_format, kind_of(run, data))
        bar = EpochLog(run, n_batches, len(history), device, shown=shown, label=label)
    status, message = _judge(history, run.epochs, on_epoch)
    for epoch in range(len(history), run.epochs if status == "complete" else 0):
        with own_torch_state(device, run.runtime.threads):
            started = turns.seconds()
            torch.manual_seed(epoch_seed(run.seed, epoch, ranks.rank))  # for layers that draw from torch's generator
            seed_dropout(model, generator(run.seed, of_rank("dropout", ranks.rank), epoch))
            order, draws, moves, mixes = (generator(run.seed, what, epoch) for what in PURPOSES)
            loss_sum = torch.zeros((), dtype=torch.float64)
            n_correct, n_seen, lr = 0, 0, run.optimizer.lr
            switch(model, optimizer, training=True)
            epoch_batches = augmentation.batches(train, run.batch_size, order, draws, parallel.part, moves)
            for i, (x, y, part) in enumerate(epoch_batches):
                if ranks.any(stop()):
                    bar.close()
                    switch(model, optimizer, training=False)
                    return Fitted("running", evaluated, history, table, None, count_zeros(evaluated), device)
                lr = prepared.schedule.set_step(epoch * n_batches + i)
                x, labels = objective.mixed(x, y, mixes)
                optimizer.zero_grad()
                loss, n_right = parallel.combine(part, *step(i, x, labels))
                penalty.before_step()
                optimizer.step()
                penalty.after_step()
                averaging.after_step()

                value = loss.item()
                if not math.isfinite(value):
                    status, message = "diverged", f"the train loss became {value} in epoch {epoch + 1}, batch {i + 1}"
                    break
                n_seen += part.n
                loss_sum += value * part.n
                n_correct += int(n_right)
                bar.batch(epoch, float(loss_sum) / n_seen, n_correct / n_seen)
            if status == "diverged":
                break
            seconds = turns.seconds() - started

            switch(model, optimizer, training=False)
            parallel.end_epoch()
            evaluated = _average(averaging, run, augmentation, train, epoch, autocast, memory_format)
            on_val = evaluate(evaluated, val, mean, std, autocast, memory_format, ranks) if len(val) > 0 else None
            is_tested = run.test_epochs == "every" or epoch + 1 == run.epochs
            evaluation = evaluate(evaluated, test, mean, std, autocast, memory_format, ranks) if is_tested else None
            row: MetricsRow = {
                "epoch": epoch + 1,
                "lr": lr,
                "train_loss": float(loss_sum) / n_seen,
                "train_accuracy": n_correct / n_seen,
                "val_loss": None if on_val is None else on_val.loss,
                "val_accuracy": None if on_val is None else on_val.accuracy,
                "test_loss": None if evaluation is None else evaluation.loss,
                "test_accuracy": None if evaluation is None else evaluation.accuracy,
                "penalty": penalty.value(),
                "seconds": round(turns.seconds() - started, 3),
                "images_per_s": round(n_seen / seconds, 1),
            }
            history.append(row := with_columns(row, penalty.own_values()))
            prepared.schedule.end_epoch(row)
            if directory is not None:
                append_metrics(directory, row)
                checkpoint.save(directory, identity, model, optimizer, history)
        bar.epoch(row)
        status, message = _judge(history, run.epochs, on_epoch)
        if status != "complete":
            break
    bar.close()
    seed_dropout(model, None)
    switch(model, optimizer, training=False)
    evaluated.eval()
    return Fitted(status, evaluated, history, table, evaluation, count_zeros(evaluated), device, message)


def _average(
    averaging: Averaging,
    run: RunConfig,
    augmentation: Augmentation,
    train: Split,
    epoch: int,
    autocast: torch.autocast,
    memory_format: torch.memory_format,
) -> nn.Module:
    """Updates the averages after an epoch, identically on every rank; returns the network to evaluate."""
    if averaging.network is None:
        return averaging.evaluated
    order, draws, moves, masks = (generator(run.seed, f"{what} of averaging", epoch) for what in PURPOSES)
    torch.manual_seed(epoch_seed(run.seed, epoch))
    seed_dropout(averaging.network, masks)
    batched = augmentation.batches(train, run.batch_size, order, draws, moves=moves)
    with autocast:
        averaging.end_epoch(epoch, (x.contiguous(memory_format=memory_format) for x, _, _ in batched))
    seed_dropout(averaging.network, None)
    return averaging.evaluated


def _resume(
    directory: Path, identity: dict[str, str], model: nn.Module, optimizer: torch.optim.Optimizer, run: RunConfig
) -> list[MetricsRow]:
    """Loads the checkpoint in `directory`, if there is one, into model and optimizer; returns its epochs.

    metrics.csv is rewritten from them, because it may hold a row whose checkpoint was not written before a kill.
    """
    history = checkpoint.restore(directory, identity, model, optimizer)
    if history:
        log.info("resuming after epoch %d of %d", len(history), run.epochs)
    write_metrics(directory, history, list(run.penalties))
    return history


def _judge(
    history: list[MetricsRow], n_epochs: int, on_epoch: Callable[[MetricsRow], bool]
) -> tuple[Status, str | None]:
    """A run's status after its last epoch, and the reason.

    It does not depend on whether the epoch was just trained or read from a checkpoint.
    """
    if not history:
        return "complete", None
    last = history[-1]
    epoch = int(last["epoch"])
    split, loss = ("val", last["val_loss"]) if last["test_loss"] is None else ("test", last["test_loss"])
    if not all(math.isfinite(value or 0.0) for value in (loss, last["penalty"])):
        return "diverged", f"the {split} loss or the penalty is not finite after epoch {epoch}"
    if on_epoch(last) and epoch < n_epochs:
        return "pruned", f"pruned after epoch {epoch} of {n_epochs}"
    return "complete", None
