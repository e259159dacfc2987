"""One model on several ranks: of each rank's gradients and running statistics, those of the global batch.

Every rank holds the same weights and takes the same steps. It computes the gradient of its own images; the sum over the
ranks, weighted by images, is the gradient of the mean loss over the global batch. All that a step sums goes in a single
buffer, so that it waits for the others once. (DistributedDataParallel weights ranks alike, which is another gradient
where the last batch is smaller, and has no order in which running statistics are updated.)
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reg_sweep.config.schema import ConfigError
from reg_sweep.runs.record import MetricsRow
from reg_sweep.training import checkpoint
from reg_sweep.training.augmentation import Part
from reg_sweep.training.ranks import Ranks, connected


class DataParallel:
    """A model that all `ranks` train in lockstep; with one rank, nothing is done to it.

    The global batch of `batch_size` is cut into contiguous parts of `batch_size / n`, as ghost batch norm cuts it. A
    batch norm sees its rank's part alone. Its running statistics are then updated with each rank's, in their order:

        running = (1 - momentum) running + momentum statistic_i,   i = 0 .. n - 1

    so that `norm=bn` on n ranks is `norm=gbn` with ghost batches of `batch_size / n` on one, in training and in
    evaluation, but for the order in which numbers are summed. Other buffers become the first rank's after each epoch.
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
        """Gives every rank the first one's weights, optimizer state and history; returns the history."""
        if self._ranks.n == 1:
            return history
        kept = checkpoint.packed(identity, self._model, optimizer, history) if self._ranks.is_first else b""
        kept = self._ranks.first_of(kept)
        if not self._ranks.is_first:
            history = checkpoint.unpack(kept, self._model, optimizer)
        self._remember()
        return history

    def part(self, n: int) -> Part:
        """This rank's images of a global batch of `n`.

        The cuts are those of `GhostBatchNorm2d`; a rank for which a last batch leaves nothing takes the first rank's
        part, which then counts nothing: layers need images.
        """
        size, rank = self._size, self._ranks.rank
        starts = list(range(0, n, size))[: self._ranks.n]
        if len(starts) > 1 and n - starts[-1] == 1 and size > 1:  # a last image alone joins those before it
            del starts[-1]
        stops = [*starts[1:], n]
        if rank >= len(starts):
            return Part(0, stops[0], n, 0.0)
        return Part(starts[rank], stops[rank], n, (stops[rank] - starts[rank]) / n)

    @torch.no_grad()
    def combine(self, part: Part, loss: Tensor, n_correct: Tensor) -> tuple[Tensor, Tensor]:
        """After `backward`: makes of each rank's gradients and running statistics those of the global batch.

        Takes the mean loss of the rank's part and how many of it are right; returns both for the global batch.
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
        torch._foreach_copy_(gradients, [t.view_as(g) for t, g in zip(totals, gradients, strict=False)])
        self._update_statistics(totals[-1].view_as(statistics))
        return totals[-3][0], totals[-2][0]

    def end_epoch(self) -> None:
        """Makes buffers that are no running statistics the first rank's."""
        if self._ranks.n == 1 or not self._other_buffers:
            return
        firsts = self._ranks.first_of([b.cpu() for b in self._other_buffers])
        for b, first in zip(self._other_buffers, firsts, strict=True):
            b.copy_(first)

    # ---- running statistics: S numbers in one row, and how often each was updated

    def _remember(self) -> None:
        """Notes the running statistics, alike on all ranks, before the next step changes them."""
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
        """(n, S + layers): in this rank's row its running statistics, and the updates of each layer; 0 elsewhere."""
        rows = self._before.new_zeros(self._ranks.n, len(self._before) + len(self._n_before))
        counts = part.share > 0
        rows[self._ranks.rank] = torch.cat(
            [self._running() if counts else self._before, (self._n_updates() - self._n_before) * counts]
        )
        return rows

    def _update_statistics(self, rows: Tensor) -> None:
        """A rank that began at r and made j updates ends at (1 - m)^j r + c: its c is added in its turn."""
        if not self._norms:
            return
        running, n_updates = self._before, rows[:, len(self._before) :]
        for row, n in zip(rows[:, : len(self._before)], n_updates, strict=True):
            keeps = (self._keeps**n)[self._layer_of]
            running = keeps * running + (row - keeps * self._before)
        self._n_before = self._n_before + n_updates.sum(0).long()
        self._before = running.to(self._before.dtype)
        places = [b for norm in self._norms for b in (norm.running_mean, norm.running_var)]
        torch._foreach_copy_(places, list(self._before.split([len(b) for b in places])))
        for norm, n_done in zip(self._norms, self._n_before, strict=True):
            norm.num_batches_tracked.copy_(n_done)


def check_model(model: nn.Module, ranks: Ranks) -> None:
    """Refuses a model whose running statistics have no order in which ranks update them.

    Raises:
        ConfigError: a batch norm has running statistics and no momentum, and there are several ranks.
    """
    if ranks.n > 1 and any(norm.momentum is None for norm in _norms(model)):
        raise ConfigError("model must have batch norms with a momentum on several processes, got one with None")


def _norms(model: nn.Module) -> list[Any]:
    """The batch norms of a rank's own images that keep running statistics."""
    found = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return [m for m in found if m.running_mean is not None and not isinstance(m, nn.SyncBatchNorm)]
