"""Folding batch norms into adjacent layers: the outputs stay the same, and where they would not, the norm stays."""

import pytest
import torch
from networks import lively, ours, torchvisions
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.compact.folding import folded, n_norms


class Reading(nn.Module):
    """Convolution, ReLU, norm, then `between`, then the layer that reads the norm."""

    def __init__(self, between, reader: nn.Module | None = None, norm: nn.Module | None = None):
        super().__init__()
        self.first, self.norm, self.between = nn.Conv2d(1, 6, 3), norm or nn.BatchNorm2d(6), between
        self.second = reader or nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.between(self.norm(F.relu(self.first(x)))))
        return y


without_2_7 = pytest.mark.skipif(
    torch.__version__.startswith("2.7."), reason="torch 2.7's exporter takes no batches of any size here"
)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        pytest.param(ours("SqueezeExpand", "bn"), 0, id="squeeze-expand"),
        pytest.param(ours("SqueezeExpand", "in"), 0, id="squeeze-expand-in"),
        pytest.param(ours("ResNet", "gbn"), 0, id="resnet-gbn"),
        pytest.param(ours("Mlp", "bn"), 2, id="mlp", marks=without_2_7),
        pytest.param(torchvisions("resnet18"), 0, id="resnet18"),
        pytest.param(torchvisions("mobilenet_v3_small"), 0, id="mobilenet", marks=pytest.mark.slow),
        pytest.param(torchvisions("densenet"), 12, id="densenet"),  # norm, ReLU, convolution
    ],
)
def test_outputs_stay_the_same_for_batches_of_any_size(make, left):
    torch.manual_seed(0)
    model = lively(make())
    program = folded(model, torch.randn(2, 3, 32, 32))
    x = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    assert n_norms(program) == left


def test_a_norm_before_a_max_pool_is_folded_where_its_scales_keep_the_order():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 9, 9)
    for scale, left in ((0.5, 0), (-0.5, 1)):
        model = lively(Reading(nn.MaxPool2d(2)))
        model.norm.weight.data[0] = scale
        program = folded(model, x)
        torch.testing.assert_close(program(x), model(x))
        assert n_norms(program) == left


@pytest.mark.parametrize(
    ("between", "reader"),
    [
        (nn.Identity(), nn.Conv2d(6, 4, 3, padding=1)),  # the zeros of padding don't pass through the norm
        (nn.Identity(), nn.Conv2d(6, 6, 1, groups=6)),
        (nn.Identity(), nn.Linear(6, 4)),  # reads the last axis, which is not the channels
        (F.relu, nn.Conv2d(6, 4, 1)),
        (lambda y: y + y.mean(), nn.Conv2d(6, 4, 1)),
        (nn.Flatten(), nn.Linear(6 * 36, 4)),
    ],
    ids=["padding", "groups", "last axis", "relu", "another reader", "positions"],
)
def test_a_norm_that_can_not_be_folded_exactly_stays(between, reader):
    torch.manual_seed(0)
    model = lively(Reading(between, reader))
    x = torch.randn(2, 1, 8, 8)
    program = folded(model, x)
    assert n_norms(program) == 1
    torch.testing.assert_close(program(x), model(x))


def test_a_layer_that_is_used_twice_keeps_its_weights():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(self.layer(self.layer(x)))
            return y

    model, x = lively(Twice()), torch.randn(2, 1, 9, 9)
    program = folded(model, x)
    assert n_norms(program) == 1
    torch.testing.assert_close(program(x), model(x))


def test_a_norm_without_a_scale_is_folded_too_and_the_model_stays():
    model = lively(Reading(nn.Identity(), norm=nn.BatchNorm2d(6, affine=False)))
    before = [p.clone() for p in model.parameters()]
    x = torch.randn(2, 1, 9, 9)
    program = folded(model, x)
    torch.testing.assert_close(program(x), model(x))
    assert n_norms(program) == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
