"""Removing zero channels, through every kind of layer: the same outputs, or the reason why it is not possible."""

from collections.abc import Callable

import pytest
import torch
from networks import lively, ours, tied, torchvisions
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.schema import NormConfig
from reg_sweep.training.channels import all_channels, live_multiply_adds
from reg_sweep.training.model import make_model

pytest.importorskip("torch_pruning")
from reg_sweep.compact import CompactError, compact
from reg_sweep.compact.measure import sizes


def zero_every_third(model: nn.Module, x: Tensor) -> int:
    """Zeroes every third channel of each group of removable channels; returns their number."""
    n = 0
    for group in all_channels(model, x):
        if group.fixed is None:
            n += len(range(0, group.n, 3))
            for part in group.made_by:
                part.parameter.data.index_fill_(part.axis, part.index[part.channel % 3 == 0], 0)
    return n


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(ours("SqueezeExpand", n), id=f"squeeze-expand-{n}") for n in ("bn", "gbn", "in", "none")),
        pytest.param(ours("ResNet", "gbn"), id="resnet-gbn"),
        pytest.param(ours("Mlp", "bn"), id="mlp"),
        pytest.param(torchvisions("resnet18"), id="resnet18"),
        pytest.param(torchvisions("mobilenet_v3_small"), id="mobilenet", marks=pytest.mark.slow),
        pytest.param(torchvisions("densenet"), id="densenet"),
        pytest.param(torchvisions("vit"), id="vit"),
    ],
)
def test_zeroed_channels_go_and_the_outputs_stay(make):
    torch.manual_seed(0)
    model, x = lively(make()), torch.randn(2, 3, 32, 32)
    n = zero_every_third(model, x)
    found = compact(model, x)
    assert found.n_removed == n
    assert found.kept == [] or all("LayerNorm" in why for why in found.kept)
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in found.model.parameters()) < sum(p.numel() for p in model.parameters())


class Net(nn.Module):
    """Two convolutions with a norm and optional layers `between`, then a linear layer on the channels' means."""

    def __init__(self, padding: int = 0, between: Callable[[Tensor], Tensor] = F.relu, norm: nn.Module | None = None):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6) if norm is None else norm
        self.second, self.last = nn.Conv2d(6, 6, 3, padding=padding, bias=False), nn.Linear(6, 4)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        y = self.between(self.norm(self.first(x)))
        logits: Tensor = self.last(self.second(y).mean((2, 3)))
        return logits


def test_the_constant_that_a_zero_scale_leaves_moves_into_the_next_bias():
    model = lively(Net())
    model.norm.weight.data[:3] = 0
    model.norm.bias.data[:3] = torch.tensor([0.7, -0.7, 0.2])
    found = compact(model, torch.randn(2, 1, 9, 9))
    assert found.n_removed == 3
    assert found.model.second.bias is not None
    assert found.difference < 1e-5


def test_a_constant_that_padding_breaks_stays_and_is_named():
    model = lively(Net(padding=1))
    model.norm.weight.data[:2] = 0
    model.norm.bias.data[:2] = torch.tensor([0.7, -0.7])  # ReLU sets the second one to 0
    found = compact(model, torch.randn(2, 1, 9, 9))
    assert found.n_removed == 1
    assert found.kept == ["first: 1 channel is zero, but second pads with zeros, unlike the constant that they leave"]


def test_channels_that_nobody_reads_go_and_those_that_only_they_read():
    model = lively(Net())
    model.last.weight.data[:, 2:] = 0  # four of second's channels are not read
    model.second.weight.data[:2, 4:] = 0  # two of first's are read only by those
    found = compact(model, torch.randn(2, 1, 9, 9))
    assert [(c.name, *c.outputs) for c in found.layers] == [("first", 6, 4), ("second", 6, 2), ("last", 4, 4)]


def test_a_channel_that_another_layer_is_added_to_stays_and_is_named():
    model = lively(make_model({"_target_": "reg_sweep.ResNet", "channels": 4}, NormConfig("bn"), (1, 8, 8), 10, 1))
    model.blocks[0].norm2.weight.data[0] = model.blocks[0].norm2.bias.data[0] = 0
    with pytest.raises(CompactError, match=r"stem: 1 channel is zero, but .* because another layer's output is added"):
        compact(model, torch.randn(2, 1, 8, 8))


def test_one_channel_of_a_layer_is_kept():
    model = lively(Net())
    for p in (model.first.weight, model.first.bias, model.norm.weight, model.norm.bias):
        p.data.zero_()
    found = compact(model, torch.randn(2, 1, 9, 9))
    assert found.layers[0].outputs == (6, 1)
    assert "a layer keeps at least one channel" in found.kept[0]


def test_a_model_that_mixes_channels_out_of_sight_is_found_out_by_its_outputs():
    model = lively(Net(between=lambda y: y - y.mean(1, keepdim=True)))
    model.norm.weight.data[0] = model.norm.bias.data[0] = 0
    model.second.weight.data[:, 0] = 0
    with pytest.raises(CompactError, match="must give the same outputs"):
        compact(model, torch.randn(2, 1, 9, 9))


def with_weight_norm() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.utils.parametrizations.weight_norm(model[0])
    model[0].parametrizations.weight.original0.data[0] = 0
    return model


@pytest.mark.parametrize(
    ("model", "x", "says"),
    [
        (Net(), torch.randn(2, 1, 9, 9), "exactly zero, got none: train it with penalty=channels"),
        (Net(norm=nn.GroupNorm(2, 6)), torch.randn(2, 1, 9, 9), "normalizes several channels by one statistic"),
        (tied(), torch.randn(2, 4), "tied weights"),
        (with_weight_norm(), torch.randn(2, 4), "is computed from other tensors"),
    ],
)
def test_what_can_not_be_made_smaller_is_told_with_the_reason(model, x, says):
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    if "got none" not in says and not hasattr(first, "parametrizations"):
        first.weight.data[0] = 0
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(CompactError, match=says):
        compact(model, x)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["SqueezeExpand", "ResNet", "Mlp"])
def test_the_recorded_multiply_adds_are_those_of_the_compact_network(name):
    model, x = lively(ours(name, "bn")()), torch.randn(2, 3, 32, 32)
    whole = live_multiply_adds(model, (3, 32, 32), x.device)
    assert whole == sizes(model, x, 0)["multiply_adds"]
    zero_every_third(model, x)
    left = live_multiply_adds(model, (3, 32, 32), x.device)
    assert left == sizes(compact(model, x).model, x, 0)["multiply_adds"] < whole
