"""A training step's loss and gradients: cross-entropy or a loss of your own, on images that may be mixed in pairs."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.regularizers import LossConfig, MixConfig
from reg_sweep.config.rules import own_code
from reg_sweep.config.schema import ConfigError, RunConfig, locate
from reg_sweep.training import turns
from reg_sweep.training.data import Data


@dataclass(frozen=True)
class Labels:
    """The labels (B,) of a batch; where images are mixed, those of the `other` images too, whose share is 1 - `share`.

    A mixed image belongs to both classes, with these shares. `main` is the class with the larger share.
    """

    own: Tensor
    other: Tensor | None = None
    share: float = 1.0

    @property
    def main(self) -> Tensor:
        """The label of each image's larger share, by which train accuracy is counted."""
        return self.own if self.other is None or self.share >= 0.5 else self.other


class Objective:
    """The loss that a run's optimizer minimizes, without penalties.

    Cross-entropy: mean over the batch of -sum_k t_k log p_k, with the targets t = (1 - s) onehot(y) + s / K for K
    classes and s = `label_smoothing`.

    An own loss is what `loss.source` names: a function `(logits, labels, **arguments)` of logits (B, K) and labels
    (B,), or a class made from its arguments whose instances are called so, such as torch's. It returns the mean over
    the batch, as a tensor without axes.

    Images are mixed with the one before them in the batch, the first with the last, with one share for each batch, as
    torchvision.transforms.v2's MixUp and CutMix do:

        share ~ Beta(alpha, alpha)
        mixup: x <- share x + (1 - share) x'
        cutmix: the pixels in a box come from x'. Its centre is uniform, its sides are sqrt(1 - share) of the image's,
            cut off at the border; `share` then becomes the share of pixels outside of the box.

    The loss is share loss(y) + (1 - share) loss(y'), which for cross-entropy is that of the mixed targets. Of several
    ranks each mixes its own part of a batch, with the same share and box.

    Sources: Szegedy et al. 2016, arXiv 1512.00567, section 7; Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019,
    arXiv 1905.04899.

    Raises:
        ConfigError: an own loss can't be imported, made or called, or returns no number with a gradient.
    """

    def __init__(self, loss: LossConfig, mix: MixConfig, n_classes: int, device: torch.device) -> None:
        self._smoothing, self._mix = loss.label_smoothing, mix
        self._own: Callable[[Tensor, Tensor], Tensor] | None = None
        if loss.source is not None:
            self._own = called_with("loss.source", "(logits, labels)", loss.source)
            if isinstance(self._own, nn.Module):
                self._own.to(device)
            logits = torch.zeros(2, n_classes, device=device, requires_grad=True)
            labels = torch.arange(2, device=device) % n_classes
            check_number("loss.source", loss.source["_target_"], lambda: self.loss(logits, Labels(labels)))

    def mixed(self, x: Tensor, y: Tensor, generator: np.random.Generator) -> tuple[Tensor, Labels]:
        """The images x (B, C, H, W) as they are trained on, and their labels. Every batch draws the same numbers."""
        if self._mix.name == "none":
            return x, Labels(y)
        assert self._mix.alpha is not None
        share, place = float(generator.beta(self._mix.alpha, self._mix.alpha)), generator.random(2)
        if self._mix.name == "mixup":
            return x.roll(1, 0).mul_(1 - share).add_(x.mul(share)), Labels(y, y.roll(1), share)
        h, w = x.shape[2:]
        rows, columns = (_side(n, float(at), share) for n, at in zip((h, w), place, strict=True))
        mixed = x.clone()
        mixed[..., rows, columns] = x.roll(1, 0)[..., rows, columns]
        outside = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (h * w)
        return mixed, Labels(y, y.roll(1), outside)

    def loss(self, logits: Tensor, labels: Labels) -> Tensor:
        """The mean loss of a batch with logits (B, K)."""
        of_own = self._loss(logits, labels.own)
        if labels.other is None:
            return of_own
        return labels.share * of_own + (1 - labels.share) * self._loss(logits, labels.other)

    def smoothing(self, labels: Labels) -> float | None:
        """The label smoothing where the loss of these labels is one cross-entropy; None where it is something else."""
        return self._smoothing if self._own is None and labels.other is None else None

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        if self._own is not None:
            return self._own(logits, y)
        return F.cross_entropy(logits, y, label_smoothing=self._smoothing)


def _side(n: int, at: float, share: float) -> slice:
    """The pixels of a side of `n` that lie in a box about a place `at` in [0, 1)."""
    centre, half = int(at * n), int(math.sqrt(1 - share) / 2 * n)
    return slice(max(centre - half, 0), min(centre + half, n))


# ---- callables of the user's own


def called_with(key: str, positional: str, spec: dict[str, Any], *, leave: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The function that a spec names, with its arguments; of a class, an instance made from them.

    Raises:
        ConfigError: it can't be imported, or a class can't be made from these arguments.
    """
    name = spec["_target_"]
    make = locate(key, spec) if isinstance(name, str) else name
    arguments = {k: v for k, v in spec.items() if k not in ("_target_", *leave)}
    if not isinstance(make, type):
        return _Called(make, arguments)
    with own_code(key, "take the arguments of its config", name):
        made: Callable[..., Any] = make(**arguments)
    if not callable(made):
        raise ConfigError(f"{key} must make something to be called with {positional}, got {name!r}")
    return made


@dataclass(frozen=True)
class _Called:
    """A function with keyword arguments; unlike functools.partial, it shows its name in errors."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, *values: Any) -> Any:
        return self.function(*values, **self.arguments)


def check_number(key: str, name: object, value_of: Callable[[], Any], *, needs_gradient: bool = True) -> None:
    """Refuses what returns no number, or one that has no gradient, before the work starts.

    Raises:
        ConfigError: calling it fails; or it returns something else than a finite real tensor without axes.
    """
    shown = name if isinstance(name, str) else getattr(name, "__qualname__", repr(name))
    with own_code(key, "be callable as documented", shown), torch.enable_grad():
        value = value_of()
    rule = "return a number: a real tensor without axes"
    if not isinstance(value, Tensor) or value.ndim > 0 or not value.is_floating_point():
        found = f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"{key} must {rule}, got {found} from {shown!r}: end it with .sum() or .mean()")
    if not math.isfinite(number := float(value.detach())):
        raise ConfigError(f"{key} must {rule} that is finite, got {number} from {shown!r}")
    if needs_gradient and not value.requires_grad:
        raise ConfigError(
            f"{key} must return a number with a gradient, got one without from {shown!r}: compute it from the tensors "
            f"it is given, without .item(), .detach() or no_grad()"
        )


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
