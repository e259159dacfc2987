"""The networks' sizes, and their outputs compared with a plain network given the same masks."""

import numpy as np
import pytest
import reference
import torch
from tiny import same_bits
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NORMS, NormConfig
from reg_sweep.training.dropout import dropped_indices, seed_dropout
from reg_sweep.training.model import layer_table, layers, make_model
from reg_sweep.training.norms import make_norm

SQUEEZE_EXPAND = {"_target_": "reg_sweep.SqueezeExpand", "channels": 16, "dropout": 0.05}
MLP = {"_target_": "reg_sweep.Mlp"}
RESNET = {"_target_": "reg_sweep.ResNet"}
MNIST = (1, 28, 28)
FORMATS = [torch.contiguous_format, torch.channels_last]


def make(spec=SQUEEZE_EXPAND, norm="bn", in_shape=MNIST, n_classes=10, seed=1) -> nn.Module:
    return make_model(spec, NormConfig(norm), in_shape, n_classes, seed)


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# ---- sizes


@pytest.mark.parametrize(("norm", "expected"), [("none", 9_520), ("bn", 9_680), ("gbn", 9_680), ("gn", 9_680)])
def test_the_squeeze_expand_net_has_the_exercises_number_of_parameters(norm, expected):
    assert n_parameters(make(norm=norm)) == expected


def test_its_table_of_layers_is_that_of_the_exercise():
    rows = layers(make(), MNIST)
    convolutions = [row for row in rows if "Conv2d" in row["name"] or "Pool" in row["name"]]
    assert [row["output"][-1] for row in convolutions] == [26, 24, 12, 10, 8, 6, 1, 1]
    assert [row["receptive_field"] for row in convolutions] == [3, 5, 6, 10, 14, 18, 28, 28]
    assert [row["output"][0] for row in convolutions] == [16] * 7 + [10]
    assert sum(row["n_parameters"] for row in rows) == 9_680
    lines = layer_table(rows).splitlines()
    assert lines[0].split() == ["layer", "output", "parameters", "receptive", "field"]
    assert lines[1].split() == ["blocks.0.conv", "Conv2d", "16x26x26", "144", "3"]
    assert len(lines) == len(rows) + 1


@pytest.mark.parametrize("spec", [SQUEEZE_EXPAND, MLP, RESNET], ids=["squeeze_expand", "mlp", "resnet"])
def test_telling_the_layers_leaves_the_model_as_it_was(spec):
    model, untouched = make(spec), make(spec)
    layers(model, MNIST)
    assert model.training
    assert layers(model.eval(), MNIST) != []
    assert not model.training
    assert same_bits(model, untouched)
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("spec", "norm"),
    [
        pytest.param(spec, norm, id=f"{spec['_target_'].rpartition('.')[2]}-{norm}")
        for spec in (SQUEEZE_EXPAND, MLP, RESNET)
        for norm in NORMS
        if (spec, norm) != (MLP, "in")  # refused: see the test of errors
    ],
)
@pytest.mark.parametrize("in_shape", [MNIST, (3, 32, 32), (1, 18, 23)])
def test_every_model_takes_every_norm_and_images_of_other_sizes_and_channels(spec, norm, in_shape):
    model = make(spec, norm, in_shape, n_classes=7)
    x = torch.randn(3, *in_shape, generator=torch.Generator().manual_seed(0))
    assert model(x).shape == model.eval()(x).shape == (3, 7)
    assert sum(row["n_parameters"] for row in layers(model, in_shape)) == n_parameters(model)


def test_the_residual_net_has_the_papers_size():
    assert 0.265e6 < n_parameters(make(RESNET, in_shape=(3, 32, 32))) < 0.28e6


def test_receptive_fields_grow_through_the_residual_nets_blocks_but_not_its_shortcuts():
    rows = {row["name"]: row["receptive_field"] for row in layers(make(RESNET, in_shape=(3, 64, 64)), (3, 64, 64))}
    assert rows["stem Conv2d"] == 3
    assert rows["blocks.2.conv2 Conv2d"] == 3 + 6 * 2
    assert rows["blocks.3.conv1 Conv2d"] == 15 + 2  # its stride increases the growth in later layers
    assert rows["blocks.3.conv2 Conv2d"] == 17 + 4
    assert rows["classify Linear"] == 64


def test_widths_and_dropout_are_settings():
    assert n_parameters(make({**SQUEEZE_EXPAND, "channels": 8})) < 9_680 / 2
    assert make({**SQUEEZE_EXPAND, "dropout": 0.5}).blocks[0].dropout.p == 0.5
    assert make({**MLP, "hidden": 32}).classify.in_features == 32


# ---- initial weights


@pytest.mark.parametrize("spec", [SQUEEZE_EXPAND, MLP, RESNET], ids=["squeeze_expand", "mlp", "resnet"])
def test_arms_start_from_the_same_weights_whatever_their_norm_and_the_generators_state(spec):
    def weights(norm: str, seed: int = 1) -> list[Tensor]:
        return [p for p in make(spec, norm, (1, 20, 20), seed=seed).parameters() if p.ndim > 1]

    first = weights("bn")
    for norm in ("none", "gbn", "gn", "ln"):
        torch.rand(1)
        assert all(torch.equal(a, b) for a, b in zip(first, weights(norm), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, weights("bn", seed=2), strict=True))


def test_making_a_model_leaves_torchs_generator_as_it_was():
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)


# ---- the whole network


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("norm", NORMS)
def test_in_training_the_network_is_the_plain_one_given_the_same_masks(norm, memory_format):
    p = 0.3
    spec = {**SQUEEZE_EXPAND, "dropout": p, "channels": 4}
    ours, theirs = (make(spec, norm).double().to(memory_format=memory_format) for _ in range(2))
    if norm == "gbn":
        for block in (*ours.blocks, *theirs.blocks):
            block.norm.ghost_batch_size = 2
    x = torch.randn(5, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.arange(5)

    generator = np.random.default_rng(6)
    masks = []
    for side in (26, 24, 10, 8, 6):
        whole = torch.ones((5, 4, side, side), dtype=torch.float64).contiguous(memory_format=memory_format)
        dropped = dropped_indices(whole.numel(), p, generator)
        masks.append(reference.dropout(whole, dropped, p) * (1 - p))
    expected = reference.squeeze_expand(theirs, x, masks, p)

    seed_dropout(ours, np.random.default_rng(6))
    found = ours(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(found, expected)
    F.cross_entropy(found, y).backward()
    F.cross_entropy(expected, y).backward()
    gradients = ([p.grad for p in model.parameters()] for model in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()))


def test_the_same_generator_gives_the_same_masks_and_none_gives_torchs_dropout():
    model = make({**SQUEEZE_EXPAND, "dropout": 0.5}, "ln")
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    outputs = []
    for seed in (0, 0, 1):
        seed_dropout(model, np.random.default_rng(seed))
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    seed_dropout(model, None)
    torch.manual_seed(0)
    plain = model(x)
    torch.manual_seed(0)
    assert torch.equal(model(x), plain)


def test_an_image_is_classified_alike_alone_and_in_a_batch_in_evaluation():
    for spec in (SQUEEZE_EXPAND, MLP, RESNET):
        model = make(spec).eval()
        x = torch.randn(5, *MNIST, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model(x[2:3]), model(x)[2:3], rtol=1e-4, atol=1e-5)


# ---- a custom model


class OwnNet(nn.Module):
    """A model whose first layer is lazy: its shape is known only after the first image."""

    def __init__(self, in_shape, n_classes, norm, width: int = 4, n_outputs: int | None = None) -> None:
        super().__init__()
        self.hidden = nn.LazyLinear(width)
        self.norm = norm(width)
        self.classify = nn.Linear(width, n_classes if n_outputs is None else n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.norm(self.hidden(x.flatten(1))[:, :, None, None])[:, :, 0, 0])


def no_module(in_shape, n_classes, norm) -> str:
    return "a net"


def own(**arguments) -> dict:
    return {"_target_": f"{__name__}.OwnNet", **arguments}


def test_a_users_model_gets_its_arguments_and_starts_from_the_seed():
    models = [make(own(width=6), seed=seed) for seed in (1, 1, 2)]
    assert models[0].hidden.weight.shape == (6, 784)
    assert models[0].training
    assert torch.equal(models[0].hidden.weight, models[1].hidden.weight)
    assert not torch.equal(models[0].hidden.weight, models[2].hidden.weight)


def test_receptive_fields_of_a_model_that_does_not_say_it_is_sequential_are_not_told():
    rows = layers(make(own()), MNIST)
    assert [row["receptive_field"] for row in rows] == [None] * 3
    assert "None" not in layer_table(rows)


@pytest.mark.parametrize(
    ("spec", "norm", "in_shape", "message"),
    [
        ({"_target_": "no_module_of_this_name.Net"}, "bn", MNIST, "model._target_ must be importable from here"),
        ({"_target_": f"{__name__}.NoNet"}, "bn", MNIST, "model._target_ must be importable from here"),
        ({"_target_": f"{__name__}.MNIST"}, "bn", MNIST, "model._target_ must be callable, got '.*test_model.MNIST'"),
        ({"_target_": f"{__name__}.no_module"}, "bn", MNIST, "model must be a torch.nn.Module, got str"),
        (own(depth=3), "bn", MNIST, "unexpected keyword argument 'depth'"),
        (own(n_outputs=7), "bn", MNIST, r"model must map images .* to logits \(2, 10\), got \(2, 7\)"),
        (own(), "in", MNIST, r"model must take images of shape \(1, 28, 28\), got '.*test_model.OwnNet': "),
        (RESNET, "in", (1, 4, 4), r"model must take images of shape \(1, 4, 4\), got 'reg_sweep.ResNet': "),
        (SQUEEZE_EXPAND, "bn", (1, 17, 30), "must be at least 18x18 pixels, got 17x30: choose model=mlp"),
        (MLP, "in", MNIST, "norm=in must not be used with model=mlp"),
        (MLP | {"hidden": 4}, "gn", MNIST, "model.hidden must be above the number of normalized groups .4., .* raise "),
    ],
)
def test_a_model_that_can_not_be_is_one_line(spec, norm, in_shape, message):
    with pytest.raises(ConfigError, match=message) as error:
        make(spec, norm, in_shape)
    assert "\n" not in str(error.value)


def test_the_models_norm_layers_are_those_of_the_config():
    kinds = {type(make(norm=name).blocks[2].norm) for name in NORMS}
    assert kinds == {type(make_norm(NormConfig(name))(16)) for name in NORMS}
