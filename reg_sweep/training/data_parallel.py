"""One model on several ranks: combines the ranks' gradients and running statistics into those of the global batch.

Every rank holds the same weights and takes the same steps. It computes the gradient of its own images; the sum over the
ranks, weighted by images, is the gradient of the mean loss over the global batch. Each step sums everything in a single
buffer, so that ranks wait for one another only once. (DistributedDataParallel weights all ranks equally, which gives
another gradient when the last batch is smaller, and defines no order in which running statistics are updated.)
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reg_sweep.config.rules import ConfigError
from reg_sweep.runs.record import MetricsRow
from reg_sweep.training import checkpoint
from reg_sweep.training.augmentation import Part
from reg_sweep.training.ranks import Ranks, connected
from reg_sweep.training.torch_internals import AnyBatchNorm, foreach_copy_


class DataParallel:
    """A model that all `ranks` train in lockstep; with one rank, every method does nothing.

    The global batch of `batch_size` is cut into contiguous parts of `batch_size / n`, as ghost batch norm cuts it. A
    batch norm sees only its rank's part. The running statistics are then updated with each rank's, in rank order:

        running = (1 - momentum) running + momentum statistic_i,   i = 0 .. n - 1

    So `norm=bn` on n ranks equals `norm=gbn` with ghost batches of `batch_size / n` on one rank, in training and in
    evaluation, except for the order of summation. After each epoch, all other buffers are set to the first rank's.
    """

    def __init__(self, model: nn.Module, ranks: Ranks, batch_size: int, device: torch.device) -> None:
        self._model, self._ranks, self._device = model, ranks, device
        self._size = batch_size // ranks.n
        if ranks.n == 1:
            return
        self._group: Any = dist.new_group(backend="nccl") if device.type == "cuda" else None
        self._norms = _norms(model)
        ours = {id(b) for norm in self._norms for b in norm.buffers()}
        self._other_buffers = [b for b in model.buffers() if id(b) not in ours]

    def begin(
        self, identity: dict[str, str], optimizer: torch.optim.Optimizer, history: list[MetricsRow]
    ) -> list[MetricsRow]:
        """Sends the first rank's weights, optimizer state and history to all ranks; returns the history."""
        if self._ranks.n == 1:
            return history
        kept = checkpoint.packed(identity, self._model, optimizer, history) if self._ranks.is_first else b""
        kept = self._ranks.first_of(kept)
        if not self._ranks.is_first:
            history = checkpoint.unpack(kept, self._model, optimizer)
        self._remember()
        return history

    def part(self, n: int) -> Part:
        """This rank's part of a global batch of `n` images, cut as `GhostBatchNorm2d` cuts it.

        If a small last batch leaves no images for this rank, it computes the first rank's part with share 0, because
        layers need images.
        """
        size, rank = self._size, self._ranks.rank
        starts = list(range(0, n, size))[: self._ranks.n]
        if len(starts) > 1 and n - starts[-1] == 1 and size > 1:  # a single last image joins the part before it
            del starts[-1]
        stops = [*starts[1:], n]
        if rank >= len(starts):
            return Part(0, stops[0], n, 0.0)
        return Part(starts[rank], stops[rank], n, (stops[rank] - starts[rank]) / n)

    @torch.no_grad()
    def combine(self, part: Part, loss: Tensor, n_correct: Tensor) -> tuple[Tensor, Tensor]:
        """After `backward`: replaces this rank's gradients and running statistics by those of the global batch.

        Takes the mean loss and the number of correct predictions of this rank's part; returns both for the global
        batch.
        """
        if self._ranks.n == 1:
            return loss, n_correct
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        scaled = torch.cat([g.flatten() for g in (*gradients, loss)]).mul_(part.share)
        counted = n_correct.to(scaled.dtype) if part.share > 0 else torch.zeros_like(n_correct, dtype=scaled.dtype)
        statistics = self._statistics(part)
        buffer = torch.cat([scaled, counted.view(1), statistics.flatten().to(scaled.dtype)])
        with connected():
            dist.all_reduce(buffer, group=self._group)
        totals = buffer.split([*(g.numel() for g in gradients), 1, 1, statistics.numel()])
        foreach_copy_(gradients, [t.view_as(g) for t, g in zip(totals, gradients, strict=False)])
        self._update_statistics(totals[-1].view_as(statistics))
        return totals[-3][0], totals[-2][0]

    def end_epoch(self) -> None:
        """Sets all buffers except running statistics to the first rank's."""
        if self._ranks.n == 1 or not self._other_buffers:
            return
        firsts = self._ranks.first_of([b.cpu() for b in self._other_buffers])
        for b, first in zip(self._other_buffers, firsts, strict=True):
            b.copy_(first)

    # ---- running statistics: S numbers in one row, and the number of updates of each layer

    def _remember(self) -> None:
        """Saves the running statistics, equal on all ranks, before the next step changes them."""
        self._before, self._n_before = self._running(), self._n_updates()
        sizes = torch.tensor([2 * norm.num_features for norm in self._norms], dtype=torch.long)
        self._layer_of = torch.arange(len(sizes)).repeat_interleave(sizes).to(self._device)
        keeps = [1 - norm.momentum for norm in self._norms]
        self._keeps = torch.tensor(keeps, dtype=torch.float64, device=self._device)

    def _running(self) -> Tensor:
        parts = [b for norm in self._norms for b in (norm.running_mean, norm.running_var)]
        return torch.cat(parts) if parts else torch.empty(0, device=self._device)

    def _n_updates(self) -> Tensor:
        counts = [norm.num_batches_tracked for norm in self._norms]
        return torch.stack(counts) if counts else torch.empty(0, dtype=torch.long, device=self._device)

    def _statistics(self, part: Part) -> Tensor:
        """This rank's running statistics and each layer's number of updates, in its row of (n, S + layers) zeros."""
        rows = self._before.new_zeros(self._ranks.n, len(self._before) + len(self._n_before))
        counts = part.share > 0
        rows[self._ranks.rank] = torch.cat(
            [self._running() if counts else self._before, (self._n_updates() - self._n_before) * counts]
        )
        return rows

    def _update_statistics(self, rows: Tensor) -> None:
        """Applies the ranks' updates in order: a rank that starts at r ends at (1 - m)^j r + c after j updates."""
        if not self._norms:
            return
        running, n_updates = self._before, rows[:, len(self._before) :]
        for row, n in zip(rows[:, : len(self._before)], n_updates, strict=True):
            keeps = (self._keeps**n)[self._layer_of]
            running = keeps * running + (row - keeps * self._before)
        self._n_before = self._n_before + n_updates.sum(0).long()
        self._before = running.to(self._before.dtype)
        places = [b for norm in self._norms for b in (norm.running_mean, norm.running_var)]
        foreach_copy_(places, list(self._before.split([len(b) for b in places])))
        for norm, n_done in zip(self._norms, self._n_before, strict=True):
            norm.num_batches_tracked.copy_(n_done)


def check_model(model: nn.Module, ranks: Ranks) -> None:
    """Refuses a model whose running statistics can't be updated rank by rank.

    Raises:
        ConfigError: there are several ranks, and a batch norm has running statistics without a momentum.
    """
    if ranks.n > 1 and any(norm.momentum is None for norm in _norms(model)):
        raise ConfigError("model's batch norms must have a momentum on several processes, got momentum None")


def _norms(model: nn.Module) -> list[Any]:
    """The batch norms that keep running statistics, except synchronized ones."""
    found = [m for m in model.modules() if isinstance(m, AnyBatchNorm)]
    return [m for m in found if m.running_mean is not None and not isinstance(m, nn.SyncBatchNorm)]
