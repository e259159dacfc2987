"""Slow and obvious versions of fast computations in reg_sweep."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reg_sweep.training.model import SqueezeExpand


def ghost_parts(n: int, size: int) -> list[range]:
    """The samples of each ghost batch in a batch of `n`. A single last sample joins the ghost batch before it."""
    parts = [range(start, min(start + size, n)) for start in range(0, n, size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        *parts, before, last = parts
        parts.append(range(before.start, last.stop))
    return parts


def ghost_batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    size: int,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output and the new running statistics, computed one ghost batch and one channel at a time."""
    running_mean, running_var = running_mean.clone(), running_var.clone()
    outputs = []
    for part in ghost_parts(len(x), size):
        channels = []
        for c in range(x.shape[1]):
            values = x[part.start : part.stop, c]
            n = values.numel()
            mean = values.sum() / n
            variance = ((values - mean) ** 2).sum() / n
            channels.append((values - mean) / (variance + eps).sqrt() * weight[c] + bias[c])
            with torch.no_grad():
                running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean
                running_var[c] = (1 - momentum) * running_var[c] + momentum * variance * n / (n - 1)
        outputs.append(torch.stack(channels, 1))
    return torch.cat(outputs), running_mean, running_var


def penalty(tensors: list[Tensor], l1: float, l2: float, *, notebook: bool) -> Tensor:
    """The penalty as one differentiable expression of the penalized tensors."""
    total = torch.zeros((), dtype=tensors[0].dtype)
    for w in tensors:
        total = total + l1 * (w.abs().mean() if notebook else w.abs().sum()) + l2 / 2 * (w**2).sum()
    return total


def soft_threshold(w: float, t: float) -> float:
    """argmin over u of (u - w)^2 / 2 + t |u|"""
    if w > t:
        return w - t
    if w < -t:
        return w + t
    return 0.0


def jitter(image: np.ndarray, brightness: float, contrast: float, *, contrast_first: bool) -> np.ndarray:
    """Applies torchvision's brightness and contrast to a PIL image made of one (H, W) or (H, W, C) uint8 array."""
    from torchvision.transforms import functional as vision

    steps = [(vision.adjust_brightness, brightness), (vision.adjust_contrast, contrast)]
    picture = Image.fromarray(image)
    for adjust, factor in reversed(steps) if contrast_first else steps:
        picture = adjust(picture, factor)
    return np.asarray(picture)


def rotate(image: np.ndarray, angle: float, fill: int) -> np.ndarray:
    """Applies torchvision's rotation to a PIL image made of one (H, W) or (H, W, C) uint8 array."""
    from torchvision.transforms import functional as vision

    return np.asarray(vision.rotate(Image.fromarray(image), angle, fill=fill))


def dropout(x: Tensor, dropped: Tensor, p: float) -> Tensor:
    """x / (1 - p), with 0 at the dropped places in memory."""
    channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    mask = torch.ones(x.numel(), dtype=x.dtype)
    mask[dropped] = 0
    if channels_last:
        n, c, h, w = x.shape
        mask = mask.view(n, h, w, c).permute(0, 3, 1, 2)
    return x * mask.reshape(x.shape) / (1 - p)


def squeeze_expand(model: SqueezeExpand, x: Tensor, masks: list[Tensor], p: float) -> Tensor:
    """The network's output, from ordinary operations and given masks in the shapes of the activations."""
    for i, block in enumerate(model.blocks):
        x = block.norm(F.relu(F.conv2d(x, block.conv.weight)))
        x = x * masks[i] / (1 - p)
        if i == 1:
            x = F.max_pool2d(x, 2)
    return torch.einsum("nc,kc->nk", x.mean((2, 3)), model.classify.weight[:, :, 0, 0])


def count_zeros(kernels: list[Tensor], near: float) -> tuple[int, int, int]:
    """Numbers of zero weights, of weights below `near`, and of kernels whose weights are all below `near`.

    The tensors are (C_out, C_in, H, W).
    """
    n_zero = n_near = n_dead = 0
    for tensor in kernels:
        for output in tensor.tolist():
            for kernel in output:
                flat = np.asarray(kernel).ravel()
                n_zero += sum(w == 0 for w in flat)
                n_near += sum(abs(w) < near for w in flat)
                n_dead += len(flat) > 1 and all(abs(w) < near for w in flat)
    return n_zero, n_near, n_dead


def group_lasso(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """argmin over W of ||x W' - y||^2 / (2 n) + strength sum of ||row of W||, by many small proximal steps."""
    n, step = len(x), 1 / float(torch.linalg.matrix_norm(x, 2) ** 2 / len(x))
    w = torch.zeros(y.shape[1], x.shape[1], dtype=x.dtype)
    for _ in range(20_000):
        moved = w - step * (x @ w.T - y).T @ x / n
        for row in moved:
            row *= max(0.0, 1 - step * strength / max(float(row.norm()), 1e-300))
        if torch.equal(moved, w):
            break
        w = moved
    return w
