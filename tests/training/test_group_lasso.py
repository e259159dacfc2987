"""L1 on channels and scales: known optima, exact zeros of channels and their norms, and refused settings."""

import copy
from functools import cache

import pytest
import reference
import torch
from networks import fill_gradients, tied
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig, PenaltyConfig
from reg_sweep.training.channels import all_channels
from reg_sweep.training.group_lasso import GroupLasso, channel_costs
from reg_sweep.training.model import make_model
from reg_sweep.training.penalties import penalize

pytest.importorskip("torch_pruning")

CHANNELS = {"l1_update": "proximal", "l1_on": "channels"}
SCALES = {"l1_update": "proximal", "l1_on": "scales"}
IMAGES = torch.zeros(2, 1, 20, 20)


def squeeze_expand(norm: str = "bn", channels: int = 4) -> nn.Module:
    spec = {"_target_": "reg_sweep.SqueezeExpand", "channels": channels}
    return make_model(spec, NormConfig(norm), (1, 20, 20), 10, 1)


def regression() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear map from 6 numbers to 5 channels, followed by a fixed rotation: the loss is convex in the map."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    nn.init.orthogonal_(model[1].weight).requires_grad_(False)
    x = torch.randn(100, 6, dtype=torch.double)
    signal = x @ torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.2, 0.1, 0.0], dtype=torch.double))[:, :5]
    return model, x, signal @ model[1].weight.detach().T + 0.1 * torch.randn(100, 5, dtype=torch.double)


@cache
def optimum_of_the_regression() -> Tensor:
    model, x, y = regression()
    return reference.group_lasso(x, y @ model[1].weight.detach(), 0.1 * 6**0.5)


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), 1e-6),
        (lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, nesterov=True), 1e-6),
        (lambda p: torch.optim.AdamW(p, 0.02, weight_decay=0.0), 1e-3),
    ],
    ids=["sgd", "momentum", "adamw"],
)
def test_a_convex_problem_reaches_the_optimum_of_the_group_lasso(make, tolerance):
    model, x, y = regression()
    optimizer = make([model[0].weight])
    penalize(model, optimizer, 0.1, **CHANNELS, example=x[:2])
    rate = optimizer.param_groups[0]["lr"]
    for i in range(1500):
        optimizer.param_groups[0]["lr"] = rate * (1 - i / 1500)
        optimizer.zero_grad()
        (F.mse_loss(model(x), y, reduction="sum") / 200).backward()
        optimizer.step()
    optimum = optimum_of_the_regression()
    assert 0 < int((optimum.norm(dim=1) == 0).sum()) < 5
    torch.testing.assert_close(model[0].weight.detach(), optimum, rtol=0, atol=tolerance)
    assert torch.equal(model[0].weight.norm(dim=1) == 0, optimum.norm(dim=1) == 0)


def test_the_step_in_adams_metric_is_that_of_a_fine_search():
    w, scale = torch.tensor([[0.5, -1.0, 0.2]]), torch.tensor([[0.1, 0.4, 2.0]])
    layer = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 1, bias=False))
    adam = torch.optim.Adam(layer.parameters(), lr=1.0, eps=0.0)
    lasso = GroupLasso(layer, adam, 0.3, PenaltyConfig(**CHANNELS), torch.zeros(2, 3))
    fill_gradients(layer)
    lasso.before_step()
    with torch.no_grad():
        layer[0].weight.copy_(w)
    adam.state[layer[0].weight] = {"exp_avg_sq": scale.pow(-2) * (1 - 0.999), "step": torch.tensor(1.0)}
    lasso.after_step()
    after = layer[0].weight.detach()

    def goal(u: Tensor) -> float:
        return float(((u - w).square() / scale).sum() / 2 + 0.3 * 3**0.5 * u.norm())

    generator = torch.Generator().manual_seed(1)
    moved = [after + 1e-2 * torch.randn(1, 3, generator=generator) for _ in range(200)]
    assert after.abs().min() > 0
    assert all(goal(after) < goal(u) for u in moved)


@pytest.mark.parametrize("norm", ["bn", "gbn", "in"])
def test_a_channel_is_zero_with_its_norm_or_not_at_all(norm):
    torch.manual_seed(0)
    model = squeeze_expand(norm)
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    penalize(model, sgd, 0.03, **CHANNELS, example=IMAGES)
    for _ in range(12):
        sgd.zero_grad()
        F.cross_entropy(model(torch.randn(40, 1, 20, 20)), torch.randint(10, (40,))).backward()
        sgd.step()
    zero = [block.conv.weight.flatten(1).eq(0).all(1) for block in model.blocks]
    assert 0 < int(torch.cat(zero).sum()) < 20
    for block, gone in zip(model.blocks, zero, strict=True):
        assert torch.equal(block.norm.weight == 0, gone)
        assert torch.equal(block.norm.bias == 0, gone)
    assert (model.classify.weight.flatten(1).abs().sum(1) > 0).all()  # the network's outputs are never removed


def test_layers_whose_outputs_are_added_up_share_their_channels():
    model = make_model({"_target_": "reg_sweep.ResNet", "channels": 4}, NormConfig("bn"), (1, 8, 8), 10, 1)
    groups = all_channels(model, torch.zeros(2, 1, 8, 8))
    names = {module: name for name, module in model.named_modules()}
    stem = next(group for group in groups if group.name == "stem")
    assert {names[part.module] for part in stem.made_by} == {
        *("stem", "norm"),
        *(f"blocks.{i}.{layer}2" for i in range(3) for layer in ("conv", "norm")),
    }
    assert {names[part.module] for part in stem.read_by} == {
        *(f"blocks.{i}.conv1" for i in range(4)),
        "blocks.3.shortcut.0",
    }


def test_the_cost_of_a_channel_is_what_the_network_saves_without_it():
    model = squeeze_expand()
    groups = all_channels(model, IMAGES)
    costs = channel_costs(model, IMAGES, [g for g in groups if g.fixed is None])
    sides = [18, 16, 6, 4, 2]
    made = [n * n * 9 * c for n, c in zip(sides, [1, 4, 4, 4, 4], strict=True)]
    read = [*(n * n * 9 * 4 for n in sides[1:]), 10]
    assert [cost.tolist() for cost in costs] == [[m + r] * 4 for m, r in zip(made, read, strict=True)]


def test_scales_shrink_by_the_soft_threshold_and_weights_not_at_all():
    model = squeeze_expand()
    before = copy.deepcopy(model.state_dict())
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.5)
    penalty = penalize(model, sgd, 0.25, **SCALES)
    assert penalty.value() == pytest.approx(0.25 * 20)
    fill_gradients(model)
    sgd.step()
    for name, value in model.state_dict().items():
        is_scale = name.endswith("norm.weight")
        expected = before[name] - 0.1 * 0.25 / (1 - 0.5) if is_scale else before[name]
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("form", [SCALES, CHANNELS])
@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
def test_vectors_shrink_in_adams_metric_too(make, form):
    """A group of one element, such as a scale, is soft-thresholded by lr l1 / (sqrt(v) + eps)."""
    model = squeeze_expand()
    adam = make(model.parameters(), 0.01, weight_decay=0.0)
    penalize(model, adam, 0.25, example=IMAGES, **form)
    scale = model.blocks[0].norm.weight
    before = scale.detach().clone()
    fill_gradients(model, 2.0)
    adam.step()
    if form is SCALES:
        torch.testing.assert_close(scale.detach(), before - 0.01 - 0.01 * 0.25 / 2)
    else:
        assert (scale < before - 0.01).all()


def test_frozen_parameters_and_those_without_a_gradient_stay_and_nan_stays_visible():
    model = squeeze_expand()
    model.blocks[0].norm.weight.requires_grad_(False)
    sgd = torch.optim.SGD(model.parameters(), 1.0)
    penalize(model, sgd, 0.03, **CHANNELS, example=IMAGES)
    model.blocks[1].conv.weight.data[0, 0, 0, 0] = torch.nan
    before = copy.deepcopy(model.state_dict())
    fill_gradients(model.blocks[:2])
    model.blocks[0].norm.weight.grad = None
    sgd.step()
    assert torch.equal(model.blocks[0].norm.weight, before["blocks.0.norm.weight"])
    assert (model.blocks[0].conv.weight.norm() < before["blocks.0.conv.weight"].norm()).all()
    assert model.blocks[1].conv.weight[0].isnan().all()
    assert torch.equal(model.blocks[2].conv.weight, before["blocks.2.conv.weight"])


def test_penalize_takes_channels_and_a_deep_copy_keeps_them():
    model = squeeze_expand()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalize(model, sgd, 1.0, **CHANNELS, channel_weight="cost", example=IMAGES)
    copied, optimizer = copy.deepcopy((model, sgd))
    fill_gradients(copied)
    optimizer.step()
    assert (copied.blocks[0].conv.weight == 0).all()
    assert (model.blocks[0].conv.weight != 0).any()


# ---- refusals


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"l1_on": "channels"}, "penalty.l1_update must be proximal.*add penalty.l1_update=proximal"),
        ({"l1_on": "scales", "l1_update": "proximal", "name": "notebook"}, "choose penalty=scales"),
        ({"channel_weight": "cost"}, "penalty.channel_weight"),
        ({"l1_on": "layers"}, "penalty.l1_on must be one of weights, channels, scales"),
    ],
)
def test_settings_that_zero_nothing_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        PenaltyConfig(**settings)


@pytest.mark.parametrize(
    ("model", "form", "example", "says"),
    [
        (squeeze_expand("ln"), CHANNELS, IMAGES, "blocks.0.norm .GroupNorm. normalizes several channels"),
        (nn.Sequential(nn.Flatten(), nn.Linear(400, 10)), CHANNELS, IMAGES, "the network's outputs"),
        (nn.Sequential(nn.Flatten(), nn.Linear(400, 10)), SCALES, IMAGES, "choose norm=bn"),
        (tied(), CHANNELS, torch.zeros(2, 4), "tied weights"),
        (squeeze_expand(), CHANNELS, None, "example=images"),
        (squeeze_expand(), CHANNELS, torch.zeros(2, 3, 20, 20), "channels can be traced"),
    ],
)
def test_models_without_channels_to_lose_are_refused_with_the_reason(model, form, example, says):
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ConfigError, match=says):
        penalize(model, sgd, 0.1, **form, example=example)


def test_an_optimizer_whose_threshold_is_unknown_is_refused():
    model = squeeze_expand()
    with pytest.raises(ConfigError, match="threshold is known for SGD, Adam and AdamW only"):
        penalize(model, torch.optim.RMSprop(model.parameters()), 0.1, **SCALES)
