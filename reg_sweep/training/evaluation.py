"""Evaluation of a network on a split: loss, accuracy and predictions."""

from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.training.augmentation import batches
from reg_sweep.training.data import Split
from reg_sweep.training.devices import ALONE
from reg_sweep.training.ranks import Ranks

EVAL_BATCH = 1_000


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats, accuracy as a share, and for each image the predicted class and its probability."""

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
    """Loss, accuracy and predictions of a model, in evaluation mode, on a split without augmentation.

    Each of the `ranks` takes batches of it in turn, and gets what all of them make.
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
