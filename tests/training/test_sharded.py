"""Penalties of sharded weights (FSDP2, tensor parallel), compared with whole weights."""

import pytest
import torch
from commands import forked
from torch import nn
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.training.penalties import penalize
from reg_sweep.training.weights import count_zeros

pytestmark = pytest.mark.slow

FORMS = [
    {"l1": 0.02, "l2": 0.3},
    {"l1": 0.02, "l2": 0.3, "l2_update": "decoupled"},
    {"l1": 0.02, "l2": 0.3, "l1_update": "proximal", "l2_update": "cautious"},
    {"l1": 0.5, "l2": 0.3, "name": "notebook"},
    {"own": True},
]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.LayerNorm(7), nn.Linear(7, 3)).double()


def square(w: torch.Tensor) -> torch.Tensor:
    return w.square().sum()


def trained(model: nn.Module, part: slice, form: dict) -> dict:
    """The values on a rank after four steps on its part of each batch."""
    adam = torch.optim.Adam(model.parameters(), 0.05)
    own = {"square": {"_target_": square, "strength": 0.1, "of": "weights"}} if form == {"own": True} else None
    penalty = penalize(model, adam, penalties=own) if own else penalize(model, adam, **form)
    values = [penalty.value()]
    for i in range(4):
        generator = torch.Generator().manual_seed(i)
        x = torch.randn(8, 5, generator=generator).double()
        y = torch.randint(3, (8,), generator=generator)
        adam.zero_grad()
        F.cross_entropy(model(x[part]), y[part]).backward()
        adam.step()
    values.append(penalty.value())
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]
    return {"weights": [w.tolist() for w in whole], "values": values, "counts": count_zeros(model)}


def rank_of_two(rank: int, store: str) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for form in FORMS:
        whole = trained(network(), slice(8), form)
        shards = trained(fully_shard(network(), mesh=mesh), slice(4 * rank, 4 * rank + 4), form)
        for a, b in zip(whole["weights"], shards["weights"], strict=True):
            torch.testing.assert_close(torch.tensor(a), torch.tensor(b))
        assert shards["values"] == pytest.approx(whole["values"])
        assert shards["counts"] == whole["counts"]
    scales = fully_shard(network(), mesh=mesh)
    with pytest.raises(ConfigError, match="l1_on must be weights if the weights are sharded, got 'scales'"):
        penalize(scales, torch.optim.Adam(scales.parameters()), 0.1, l1_on="scales", l1_update="proximal")
    flat = FullyShardedDataParallel(network(), use_orig_params=True, device_id=torch.device("cpu"))
    with pytest.raises(ConfigError, match="must not be sharded by FSDP1"):
        penalize(flat, torch.optim.Adam(flat.parameters()), 0.1)
    destroy_process_group()


def test_shards_are_penalized_valued_and_counted_as_the_whole_weights_are(tmp_path):
    ranks = [forked(rank_of_two, rank, str(tmp_path / "store")) for rank in range(2)]
    for process in ranks:
        process.join(120)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    assert codes == [0, 0]
