"""Your own optimizer, schedule, callback, penalty and loss. Run these in the folder of this file:

python -m reg_sweep.train --config-dir conf data=digits model=small_net optimizer=lion schedule=rise +callbacks=watch
python -m reg_sweep.train --config-dir conf data=digits model=small_net penalties=filters loss=focal
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep import Callback


class Lion(torch.optim.Optimizer):
    """w <- w - lr sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g (Chen et al. 2023, arXiv 2302.06675).

    It has no weight decay, because l2 does that. Its state is in `self.state`, so that a stopped run resumes exactly.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            first, second = group["betas"]
            for w in group["params"]:
                if w.grad is not None:
                    m = self.state[w].setdefault("m", torch.zeros_like(w))
                    w -= group["lr"] * m.lerp(w.grad, 1 - first).sign()
                    m.lerp_(w.grad, 1 - second)


def rise(step: int, epoch: int, n_steps: int, share: float) -> float:
    """Fraction of the full rate at a step: linear from 0 over the first `share` of all steps, then 1."""
    return min((step + 1) / (share * n_steps), 1.0)


class Watch(Callback):
    """Print a line when the val loss rises. A callback changes nothing in the run."""

    def on_start(self, record: dict, directory: Path) -> None:
        last = record["last"]  # None, unless the run is resumed
        self.before = float("inf") if last is None else last["val_loss"]
        print(f"watching {directory} from epoch {record['epochs_done'] + 1} on")

    def on_epoch(self, row: dict) -> None:
        if row["val_loss"] > self.before:
            print(f"the val loss rose in epoch {row['epoch']}, from {self.before:.4f} to {row['val_loss']:.4f}")
        self.before = row["val_loss"]

    def on_end(self, record: dict) -> None:
        print(f"watched {record['epochs_done']} epochs: {record['status']}")


def filters(weight: Tensor) -> Tensor:
    """Sum of the norms of a convolution's filters (out, in, h, w): group lasso."""
    return weight.flatten(1).norm(dim=1).sum()


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Mean of -(1 - p)^gamma log p, with p the probability of the label (Lin et al. 2017, arXiv 1708.02002)."""
    log_p = F.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma * log_p).mean()
