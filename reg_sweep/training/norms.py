"""Normalization layers by name, and ghost batch normalization."""

import functools
import inspect
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import GHOST_BATCH_SIZE, NormConfig
from reg_sweep.training.torch_internals import AnyBatchNorm, AnyInstanceNorm


class GhostBatchNorm2d(AnyBatchNorm):
    """Batch normalization over ghost batches: parts of the batch, each normalized by its own statistics.

    For a ghost batch B and channel c, over its samples and positions,

        y = (x - mean_B) / sqrt(var_B + eps) * weight + bias,

    with the biased variance. The running statistics are updated as `BatchNorm2d` would, ghost batch after ghost batch
    in order: running = (1 - momentum) running + momentum statistic_B, with the unbiased variance.

    Shapes: (N, C, H, W) -> (N, C, H, W). A batch is cut every `ghost_batch_size` samples. A last part of at least 2
    samples is a ghost batch of its own; a single last sample joins the ghost batch before it. Evaluation uses the
    running statistics, if they are tracked, for batches of any size, including in exported programs. With
    `ghost_batch_size >= N` it equals `BatchNorm2d`, with which it shares the state dict and all other arguments.

    Tools that look for torch's batch norms find it (`torch.optim.swa_utils.update_bn`, averaging callbacks), and
    `torch.fx` keeps it as a layer. TorchScript can trace it in evaluation mode, but not script it.
    `nn.SyncBatchNorm.convert_sync_batchnorm` would normalize over the samples of all devices; it is refused, because
    each device already cuts its own part into ghost batches.

    Source: Hoffer, Hubara, Soudry 2017, "Train longer, generalize better", arXiv 1705.08741, algorithm 1. There, the
    running statistics are a weighted sum, which equals ours for equal momentum in order.

    Raises:
        ConfigError: `ghost_batch_size` is not a whole number of at least 2 (a single sample has no variance across the
            batch), or the layer is converted to SyncBatchNorm.
        ValueError: (in `forward`) the input is not 4D.
    """

    def __init__(
        self,
        num_features: int,
        ghost_batch_size: int = GHOST_BATCH_SIZE,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        if not isinstance(ghost_batch_size, int) or ghost_batch_size < 2:
            raise ConfigError(f"ghost_batch_size must be a whole number of at least 2, got {ghost_batch_size!r}")
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:  # as in torch's norms since 2.14
            self.register_parameter("bias", None)
        self.ghost_batch_size = ghost_batch_size

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, fx.Proxy):
            kept: Tensor = x.tracer.create_proxy("call_module", x.tracer.path_of_module(self), (x,), {})
            return kept
        # Checked before the batch size, which an exported program would fix to that of its example.
        if not self.training and self.running_mean is not None:
            return self._normalize(x)
        n, size = len(x), self.ghost_batch_size
        if n <= size:
            return self._normalize(x)
        parts = list(torch.split(x, size))
        if n % size == 1:
            parts[-2:] = [x[-size - 1 :]]
        return torch.cat([self._normalize(part) for part in parts])

    def _normalize(self, x: Tensor) -> Tensor:
        return super().forward(x)  # torch's batch norm, so results are bit-identical

    def _check_input_dim(self, input: Tensor) -> None:  # called by torch
        if input.ndim != 4:
            raise ValueError(f"ghost batch norm takes images (N, C, H, W), 4D, got {input.ndim}D")

    def __getattr__(self, name: str) -> Any:
        # convert_sync_batchnorm has no hook, but it reads qconfig. So does quantization, hence the check of the caller.
        if name == "qconfig" and _is_called_by(inspect.currentframe(), "convert_sync_batchnorm"):
            raise ConfigError(
                "ghost batch norm must not be converted to SyncBatchNorm, because each device normalizes its own ghost "
                "batches: convert only the other layers"
            )
        return super().__getattr__(name)

    def extra_repr(self) -> str:
        return f"{AnyBatchNorm.extra_repr(self)}, ghost_batch_size={self.ghost_batch_size}"


def _is_called_by(frame: FrameType | None, name: str) -> bool:
    return frame is not None and frame.f_back is not None and frame.f_back.f_code.co_name == name


class InstanceNorm(nn.GroupNorm):
    """Normalizes each channel of each image over its positions, like torch's affine `InstanceNorm2d`.

    It has no running statistics. It is computed as group norm with one group per channel, which keeps the channels
    innermost: a training step of the squeeze-expand CNN takes half as long as with torch's layer.

    Shapes: (N, C, ...) -> (N, C, ...).

    Raises:
        ValueError: (in `forward`) there is a single position, which has no variance.
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels, channels, eps, affine, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:].numel() == 1:
            raise ValueError(f"instance norm needs more than one position, got shape {tuple(x.shape)}")
        return super().forward(x)


def make_norm(config: NormConfig) -> Callable[..., nn.Module]:
    """The configured norm as a function of the number of channels: C -> a module (N, C, H, W) -> (N, C, H, W).

    bn: batch norm. gbn: ghost batch norm. gn: group norm. ln: group norm with one group, which is layer norm over
    (C, H, W). in: instance norm. All but none have a weight and a bias for each channel; all but bn and gbn compute the
    same in training and evaluation.

    The function also takes the keywords that model libraries such as timm pass to a norm: `eps`, `affine`, `device`,
    `dtype` and `momentum`, which norms without running statistics ignore.

    Raises:
        ConfigError: (from the returned function) `norm.groups` does not divide the number of channels.
    """

    def group_norm(groups: int, channels: int, **settings: Any) -> nn.Module:
        if channels % groups != 0:
            raise ConfigError(
                f"norm.groups must divide every layer's channels ({channels}), got {groups}: "
                f"choose a divisor of {channels}"
            )
        return nn.GroupNorm(groups, channels, **settings)

    def without_momentum(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        return lambda channels, momentum=None, **settings: make(channels, **settings)

    table: dict[str, Callable[..., nn.Module]] = {
        "none": lambda channels, eps=None, momentum=None, affine=True, device=None, dtype=None: nn.Identity(),
        "bn": nn.BatchNorm2d,
        "gbn": lambda channels, **settings: GhostBatchNorm2d(channels, config.ghost_batch_size or 0, **settings),
        "gn": without_momentum(functools.partial(group_norm, config.groups or 0)),
        "ln": without_momentum(functools.partial(group_norm, 1)),
        "in": without_momentum(InstanceNorm),
    }
    return table[config.name]


def has_norm(model: nn.Module, config: NormConfig) -> bool:
    """Whether some layer of `model` is the configured norm; always True for norm=none."""
    if config.name == "bn":
        return any(isinstance(m, AnyBatchNorm) and not isinstance(m, GhostBatchNorm2d) for m in model.modules())
    kinds: dict[str, tuple[type[nn.Module], ...]] = {
        "gbn": (GhostBatchNorm2d,),
        "gn": (nn.GroupNorm,),
        "ln": (nn.LayerNorm, nn.GroupNorm),
        "in": (InstanceNorm, AnyInstanceNorm),
    }
    return config.name == "none" or any(isinstance(module, kinds[config.name]) for module in model.modules())
