"""Evaluation of a run on a split: loss, accuracy and predictions of its weights, or of averages of its weights."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, update_bn

from reg_sweep.config.regularizers import AveragingConfig
from reg_sweep.config.rules import ConfigError
from reg_sweep.training.augmentation import batches
from reg_sweep.training.data import Split
from reg_sweep.training.devices import ALONE
from reg_sweep.training.optimizer import is_schedule_free, keep_in_state
from reg_sweep.training.ranks import Ranks
from reg_sweep.training.torch_internals import foreach_lerp_

EVAL_BATCH = 1_000


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, accuracy in [0, 1], and for each image the predicted class and its probability."""

    loss: float
    accuracy: float
    predicted: npt.NDArray[np.int64] = field(repr=False)
    probability: npt.NDArray[np.float32] = field(repr=False)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    mean: Tensor,
    std: Tensor,
    autocast: torch.autocast,
    memory_format: torch.memory_format = torch.contiguous_format,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Loss, accuracy and predictions of a model, which is left in evaluation mode, on a split without augmentation.

    The batches are dealt out to the `ranks` in turn, and every rank gets the complete result.
    """
    model.eval()
    own: list[tuple[float, Tensor, Tensor]] = []
    for x, y in islice(batches(split, mean, std, EVAL_BATCH), ranks.rank, None, ranks.n):
        with autocast:
            logits = model(x.contiguous(memory_format=memory_format)).float()
        loss = float(F.cross_entropy(logits, y, reduction="sum"))
        top = logits.softmax(1).max(1)
        own.append((loss, top.indices.cpu(), top.values.cpu()))
    losses, predicted, probability = zip(*ranks.in_turn(own), strict=True)
    classes = torch.cat(predicted)
    return Evaluation(
        loss=sum(losses) / len(split),
        accuracy=int((classes == split.labels.cpu()).sum()) / len(split),
        predicted=classes.numpy(),
        probability=torch.cat(probability).numpy(),
    )


class Averaging:
    """A second network that holds averages w' of the trained network's weights w.

    ema: after step t, counted from 1, w' <- d w' + (1 - d) w with d = min(decay, t / (9 + t)), so that the first steps
        are soon forgotten (the warm-up of TensorFlow's ExponentialMovingAverage). After the first step w' = w.
    swa: w' is the mean of the weights after each epoch, starting with the first epoch that begins at or after the share
        `start` of all epochs (Izmailov et al. 2018, arXiv 1803.05407). Before that there is no average, and `evaluated`
        is the trained network.

    The averages are those of torch.optim.swa_utils. After each epoch, the running statistics of batch and ghost batch
    norms are recomputed for the averaged weights, as means over one pass of the augmented train images in training mode
    (`update_bn`). Other buffers are the trained network's. Val, test, predictions, saved weights and counts of zeros
    come from `evaluated`; train loss and penalty come from the trained network.

    The state is stored in the optimizer's, so that one checkpoint restores both. With averaging=none nothing is
    averaged, and `evaluated` is the trained network.

    Raises:
        ConfigError: the network can't be copied, or the optimizer averages weights itself.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: AveragingConfig, epochs: int) -> None:
        self._model, self._decay = model, config.decay
        self._first_epoch = None if config.start is None else min(math.ceil(config.start * epochs - 1e-9), epochs - 1)
        self._averaged: AveragedModel | None = None
        if config.name == "none":
            return
        if is_schedule_free(optimizer):
            name = type(optimizer).__name__
            raise ConfigError(f"averaging must be none with {name}, which averages weights itself, got {config.name!r}")
        try:
            self._averaged = AveragedModel(model, multi_avg_fn=self._ema if config.name == "ema" else None)
        except (TypeError, RuntimeError, copy.Error) as error:  # what deepcopy raises
            said = " ".join(str(error).split())
            raise ConfigError(
                f"averaging must be none with a model that copy.deepcopy can't copy, got {config.name!r}: {said:.160}"
            ) from None
        keep_in_state(optimizer, "averaging", self._averaged)

    @property
    def network(self) -> nn.Module | None:
        """The network that holds the averages; None with averaging=none."""
        return None if self._averaged is None else self._averaged.module

    @property
    def evaluated(self) -> nn.Module:
        """The network to evaluate: the averaged one once there are averages, else the trained one."""
        if self._averaged is None or self._averaged.n_averaged == 0:
            return self._model
        module: nn.Module = self._averaged.module
        return module

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Converts the averages to the trained network's memory format."""
        if self._averaged is not None:
            self._averaged.module.to(memory_format=memory_format)

    def _ema(self, averaged: PARAM_LIST, current: PARAM_LIST, n_before: Tensor | int) -> None:
        assert self._decay is not None
        t = int(n_before) + 1
        foreach_lerp_(averaged, current, 1 - min(self._decay, t / (9 + t)))

    def after_step(self) -> None:
        """Updates the averages after an optimizer's step."""
        if self._averaged is not None and self._first_epoch is None:
            self._averaged.update_parameters(self._model)

    def end_epoch(self, epoch: int, inputs: Iterable[Tensor]) -> None:
        """Updates the averages after an epoch, counted from 0, and computes the norms' statistics on `inputs`."""
        if self._averaged is None:
            return
        if self._first_epoch is not None and epoch >= self._first_epoch:
            self._averaged.update_parameters(self._model)
        if self._averaged.n_averaged > 0:
            update_bn(inputs, self._averaged.module)
