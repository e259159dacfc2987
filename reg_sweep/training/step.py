"""Forward and backward pass of a training step: the loss of a batch, and its gradients."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from reg_sweep.config.schema import RunConfig
from reg_sweep.training import turns
from reg_sweep.training.data import Data
from reg_sweep.training.objective import Labels, Objective


@dataclass(frozen=True)
class Step:
    """The parts that a run's steps share: its network, and how a loss comes out of it.

    Runs of the same `kind` have networks and batches of the same shape, and can be computed together.
    """

    model: nn.Module
    objective: Objective
    autocast: torch.autocast
    memory_format: torch.memory_format
    kind: str

    def __call__(self, number: int, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Computes the gradients of batch `number` of an epoch; the parameters have none yet.

        Returns the mean loss, and how many images are classified right. In a job of a `Population` the gradients are
        computed together with those of its other runs.
        """
        job = turns.current()
        if job is None:
            return self.compute(x, labels)
        answer: tuple[Tensor, Tensor] = job.ask(Batch(self, number, x, labels))
        return answer

    def compute(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """As the call, for this run alone."""
        with self.autocast:
            logits = wide(self.model(x.contiguous(memory_format=self.memory_format)))
        loss = self.objective.loss(logits, labels)
        loss.backward()
        return loss.detach(), (logits.argmax(1) == labels.main).sum()


@dataclass(frozen=True)
class Batch:
    """A step that waits to be computed."""

    step: Step
    number: int
    x: Tensor
    labels: Labels


def wide(logits: Tensor) -> Tensor:
    """Logits in the type in which losses are computed: float32, or float64 of a network that computes in it."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def kind_of(run: RunConfig, data: Data) -> str:
    """The kind of a run's steps, in words."""
    shape = "x".join(map(str, data.in_shape))
    model = " ".join(f"{k.removeprefix('_')}={v}" for k, v in run.model.items()).replace("target_=", "")
    norm = " ".join(f"{k}={v}" for k, v in asdict(run.norm).items() if v is not None).replace("name=", "norm=")
    batches = f"{len(data.train)} images {shape} in {data.n_classes} classes, batches of {run.batch_size}"
    return f"{model}, {norm}, {run.runtime.precision}, {batches}"
