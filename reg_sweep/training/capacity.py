"""How much memory a step takes, and how much there is."""

import copy
import math
from pathlib import Path

import torch
from torch import Tensor

from reg_sweep.training.devices import generators, set_generators
from reg_sweep.training.step import Batch


def step_bytes(batch: Batch) -> float:
    """Bytes that one run's forward and backward pass takes, by a forward pass of a copy of its network.

    Twice what the backward pass needs kept: gradients of activations, and the workspace of convolutions, come to it.
    """
    step, sizes = batch.step, dict[int, int]()
    model, before = copy.deepcopy(step.model), generators()

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved), step.autocast:
        logits = model(batch.x.contiguous(memory_format=step.memory_format))
    del logits
    set_generators(before)
    return max(1.0, 2.0 * sum(sizes.values()))


def available_bytes(device: torch.device) -> float:
    """Bytes that can be taken on a device; infinite where nothing tells."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return math.inf


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or this machine, had no memory left."""
    lacks = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return lacks or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
