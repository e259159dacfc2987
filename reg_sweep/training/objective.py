"""The loss and gradients of a training step: cross-entropy or a custom loss, on images that may be mixed in pairs."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.regularizers import LossConfig, MixConfig
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig
from reg_sweep.config.targets import locate, own_code
from reg_sweep.training import turns
from reg_sweep.training.data import Data


@dataclass(frozen=True)
class Labels:
    """The labels (B,) of a batch and, if its images are mixed, the labels of the `other` images.

    A mixed image belongs to its own class by `share`, and to the other one by 1 - `share`. `main` is the class with the
    larger share.
    """

    own: Tensor
    other: Tensor | None = None
    share: float = 1.0

    @property
    def main(self) -> Tensor:
        """The label with the larger share of each image; train accuracy is computed from it."""
        return self.own if self.other is None or self.share >= 0.5 else self.other


class Objective:
    """The loss that a run's optimizer minimizes, without penalties.

    Cross-entropy: mean over the batch of -sum_k t_k log p_k, with the targets t = (1 - s) onehot(y) + s / K for K
    classes and s = `label_smoothing`.

    A custom loss is named by `loss.source`: a function `(logits, labels, **arguments)` of logits (B, K) and labels
    (B,), or a class whose instances are called that way, such as torch's. It returns the mean over the batch, as a
    tensor without axes.

    Each image is mixed with the one before it in the batch, and the first with the last, with one share per batch, as
    in torchvision.transforms.v2's MixUp and CutMix:

        share ~ Beta(alpha, alpha)
        mixup: x <- share x + (1 - share) x'
        cutmix: the pixels in a box come from x'. Its centre is uniform, its sides are sqrt(1 - share) of the image's,
            cut off at the border; `share` then becomes the share of pixels outside the box.

    The loss is share loss(y) + (1 - share) loss(y'), which for cross-entropy equals the loss of the mixed targets. Each
    of several ranks mixes its own part of a batch, with the same share and box.

    Sources: Szegedy et al. 2016, arXiv 1512.00567, section 7; Zhang et al. 2018, arXiv 1710.09412; Yun et al. 2019,
    arXiv 1905.04899.

    Raises:
        ConfigError: a custom loss can't be imported, made or called, or returns no number with a gradient.
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
        """Mixes the images x (B, C, H, W); returns them and their labels. Mixup and cutmix draw the same numbers."""
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
        """The label smoothing if the loss of these labels is a single cross-entropy; otherwise None."""
        return self._smoothing if self._own is None and labels.other is None else None

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        if self._own is not None:
            return self._own(logits, y)
        return F.cross_entropy(logits, y, label_smoothing=self._smoothing)


def _side(n: int, at: float, share: float) -> slice:
    """The pixels of a side of length `n` that lie in a box centred at `at` in [0, 1)."""
    centre, half = int(at * n), int(math.sqrt(1 - share) / 2 * n)
    return slice(max(centre - half, 0), min(centre + half, n))


# ---- the user's callables


def called_with(key: str, positional: str, spec: dict[str, Any], *, leave: tuple[str, ...] = ()) -> Callable[..., Any]:
    """The function that a spec names, bound to its arguments; for a class, an instance made from them.

    Raises:
        ConfigError: it can't be imported, or the class can't be instantiated with these arguments.
    """
    name = spec["_target_"]
    make = locate(key, spec) if isinstance(name, str) else name
    arguments = {k: v for k, v in spec.items() if k not in ("_target_", *leave)}
    if not isinstance(make, type):
        return _Called(make, arguments)
    with own_code(key, "take the arguments of its config", name):
        made: Callable[..., Any] = make(**arguments)
    if not callable(made):
        raise ConfigError(f"{key} must make an object that is called with {positional}, got {name!r}")
    return made


@dataclass(frozen=True)
class _Called:
    """A function with keyword arguments. Unlike functools.partial, it shows the function's name in errors."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, *values: Any) -> Any:
        return self.function(*values, **self.arguments)


def check_number(key: str, name: object, value_of: Callable[[], Any], *, needs_gradient: bool = True) -> None:
    """Refuses a function that does not return a number with a gradient, before the work starts.

    Raises:
        ConfigError: the call fails, or returns anything but a finite real tensor without axes that has a gradient (if
            `needs_gradient`).
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
    """Computes the gradients of a run's steps from its network and objective.

    Runs of the same `kind` have networks and batches of the same shape, so their steps can be computed together.
    """

    model: nn.Module
    objective: Objective
    autocast: torch.autocast
    memory_format: torch.memory_format
    kind: str

    def __call__(self, number: int, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Computes the gradients of batch `number` of an epoch; the parameters must have none yet.

        Returns the mean loss and the number of correctly classified images. In a job of a `Population`, the gradients
        are computed together with those of its other runs.
        """
        job = turns.current()
        if job is None:
            return self.compute(x, labels)
        answer: tuple[Tensor, Tensor] = job.ask(Batch(self, number, x, labels))
        return answer

    def compute(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Computes the same for this run alone."""
        with self.autocast:
            logits = wide(self.model(x.contiguous(memory_format=self.memory_format)))
        loss = self.objective.loss(logits, labels)
        loss.backward()
        return loss.detach(), (logits.argmax(1) == labels.main).sum()


@dataclass(frozen=True)
class Batch:
    """A step that is waiting to be computed."""

    step: Step
    number: int
    x: Tensor
    labels: Labels


def wide(logits: Tensor) -> Tensor:
    """Logits in the type in which losses are computed: float32, or float64 if the network computes in float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def kind_of(run: RunConfig, data: Data) -> str:
    """A description of a run's steps; equal descriptions mean that they can be computed together."""
    shape = "x".join(map(str, data.in_shape))
    model = " ".join(f"{k.removeprefix('_')}={v}" for k, v in run.model.items()).replace("target_=", "")
    norm = " ".join(f"{k}={v}" for k, v in asdict(run.norm).items() if v is not None).replace("name=", "norm=")
    batches = f"{len(data.train)} images {shape} in {data.n_classes} classes, batches of {run.batch_size}"
    return f"{model}, {norm}, {run.runtime.precision}, {batches}"
