"""Which parameters are weights, in torch's layers, in models like timm's, and in custom layers; counts of zeros."""

import pytest
import reference
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NEAR_ZERO, NORMS, NormConfig
from reg_sweep.training.norms import make_norm
from reg_sweep.training.weights import count_zeros, penalized


def test_an_unknown_penalty_penalizes_nothing_and_is_refused():
    with pytest.raises(ConfigError, match="name must be one of textbook, notebook, got 'notebok'"):
        penalized(nn.Linear(2, 2), "notebok")


class Bag(nn.Module):
    """A custom layer with the given parameters."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.ones(shape)))


class Exempting(nn.Sequential):
    """Names weights that should not decay, as timm's models and Swin do."""

    def no_weight_decay(self):
        return {"0.weight", "2.weight"}

    def no_weight_decay_keywords(self):
        return {"1.we"}


@pytest.mark.parametrize("norm", NORMS)
def test_textbook_penalizes_weights_but_no_bias_and_no_norm(norm):
    layer = make_norm(NormConfig(norm))(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.Flatten(), nn.Linear(32, 5))
    assert [id(w) for w in penalized(model)] == [id(model[0].weight), id(model[3].weight)]
    assert [id(w) for w in penalized(model, "notebook")] == [id(p) for p in model.parameters()]


LAYERS = {  # the weights of each, by name; everything else is left out
    "linear": (lambda: nn.Linear(3, 2), ["weight"]),
    "one output": (lambda: nn.Linear(3, 1), ["weight"]),
    "bilinear": (lambda: nn.Bilinear(2, 3, 4), ["weight"]),
    "convolution": (lambda: nn.Conv1d(2, 3, 3), ["weight"]),
    "transposed": (lambda: nn.ConvTranspose3d(2, 3, 3), ["weight"]),
    "recurrent": (lambda: nn.LSTM(2, 4, proj_size=3), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
    "recurrent cell": (lambda: nn.GRUCell(2, 3), ["weight_ih", "weight_hh"]),
    "attention": (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), ["in_proj_weight", "out_proj.weight"]),
    "attention of three": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=2),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
    ),
    "lazy": (lambda: nn.LazyConv2d(3, 3), ["weight"]),
    "embedding": (lambda: nn.Embedding(5, 3), []),
    "bag of embeddings": (lambda: nn.EmbeddingBag(5, 3), []),
    "prelu": (lambda: nn.PReLU(4), []),
    "norms over two axes": (lambda: nn.Sequential(nn.LayerNorm((2, 6)), nn.RMSNorm((2, 6))), []),
    "own matrix": (lambda: Bag(weight=(3, 2), bias=(3, 1)), ["weight"]),
    "own scales": (lambda: Bag(weight=(1, 1, 1, 8), gamma=(8, 1, 1)), []),
    "own tables": (lambda: Bag(pos_embed=(1, 9, 4), cls_token=(1, 1, 4), relative_position_bias_table=(9, 2)), []),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), ["parametrizations.weight.original1"]),
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(3, 2)), ["parametrizations.weight.original"]),
    "pruned": (lambda: prune.random_unstructured(nn.Linear(3, 2), "weight", 0.5), ["weight_orig"]),
    "older spectral norm": (lambda: spectral_norm(nn.Linear(3, 2)), ["weight_orig"]),
    "pruned embedding": (lambda: prune.random_unstructured(nn.Embedding(3, 2), "weight", 0.5), []),
}


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize(("make", "names"), LAYERS.values(), ids=LAYERS)
def test_the_weights_of_linear_maps_are_penalized_and_nothing_else_is(make, names):
    found = penalized(make())
    assert found.names == names
    assert all(why for why in found.left_out.values())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_the_older_weight_norms_length_is_no_weight():
    model = weight_norm(nn.Linear(3, 2))
    assert penalized(model).names == ["weight_v"]
    assert penalized(model).left_out == {"bias": "bias", "weight_g": "length of a weight-normalized weight"}


PRUNED_WEIGHT_NORMS = {
    "older": (weight_norm, lambda layer: (layer, "weight_v"), "weight_v_orig", "weight_g"),
    "older, lengths": (weight_norm, lambda layer: (layer, "weight_g"), "weight_v", "weight_g_orig"),
    "parametrization": (
        parametrizations.weight_norm,
        lambda layer: (layer.parametrizations.weight, "original1"),
        "parametrizations.weight.original1_orig",
        "parametrizations.weight.original0",
    ),
    "parametrization, lengths": (
        parametrizations.weight_norm,
        lambda layer: (layer.parametrizations.weight, "original0"),
        "parametrizations.weight.original1",
        "parametrizations.weight.original0_orig",
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize(("norm", "part", "weight", "length"), PRUNED_WEIGHT_NORMS.values(), ids=PRUNED_WEIGHT_NORMS)
def test_a_pruned_weight_norms_length_is_no_weight(norm, part, weight, length):
    layer = norm(nn.Linear(4, 3))
    prune.l1_unstructured(*part(layer), 1)
    found = penalized(layer)
    assert found.names == [weight]
    assert found.left_out[length] == "length of a weight-normalized weight"
    assert count_zeros(layer)["n"] == 12


def test_names_that_a_module_exempts_from_weight_decay_are_left_out():
    model = nn.Sequential(
        nn.Linear(2, 2),
        Exempting(nn.Linear(2, 2), nn.Linear(2, 2), parametrizations.weight_norm(nn.Linear(2, 2)), nn.Linear(2, 2)),
    )
    assert penalized(model).names == ["0.weight", "1.3.weight"]


def test_a_weight_that_an_embedding_shares_is_the_linear_layers():
    embedding, linear = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    linear.weight = embedding.weight
    assert penalized(nn.Sequential(embedding, linear)).names == ["0.weight"]


def test_the_choice_is_printed_with_the_reasons():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert repr(penalized(model)).splitlines() == [
        "penalized: 1 of 4 parameters",
        "  0.weight  (2, 1, 3, 3)",
        "left out:",
        "  0.bias    bias",
        "  1.weight  normalization layer",
        "  1.bias    normalization layer",
    ]


# ---- counts


def test_zeros_near_zeros_and_dead_kernels_are_counted_as_a_loop_counts_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(-1)
        model[0].weight[0, 0] = 0
        model[0].weight[1, 2] = NEAR_ZERO / 2
        model[0].weight[2, 1] = -NEAR_ZERO / 2
        model[0].weight[3, 0, 1, 1] = NEAR_ZERO  # the smallest value that is not near zero
        model[2].weight[0] = 0
        model[0].bias.zero_()
        model[1].weight.zero_()
    n_zero, n_near_zero, n_dead = reference.count_zeros([model[0].weight.detach(), model[2].weight.detach()], NEAR_ZERO)
    assert (n_zero, n_near_zero, n_dead) == (13, 31, 3)
    counted = count_zeros(model)
    assert counted == {
        "n": 108 + 20,
        "n_zero": n_zero,
        "n_near_zero": n_near_zero,
        "n_kernels": 12,
        "n_dead_kernels": n_dead,
        "n_channels": 9,
        "n_dead_channels": 1,
    }


def test_the_output_channels_of_a_transposed_convolution_are_counted_as_such():
    model = nn.ConvTranspose2d(3, 4, 2, bias=False)
    with torch.no_grad():
        model.weight.fill_(1)[:, 1] = 0
    counted = count_zeros(model)
    assert (counted["n_channels"], counted["n_dead_channels"]) == (4, 1)


def ghost_of(weight: torch.Tensor) -> torch.Tensor:
    """Zeroes half of a weight's kernels."""
    mask = torch.ones_like(weight)
    mask[: len(mask) // 2] = 0
    return mask


class Masked(nn.Module):
    """A custom parametrization."""

    def forward(self, weight):
        return weight * ghost_of(weight)


REPARAMETRIZED = {
    "pruned": lambda conv: prune.custom_from_mask(conv, "weight", ghost_of(conv.weight)),
    "parametrized": lambda conv: nn.utils.parametrize.register_parametrization(conv, "weight", Masked()),
    "frozen": lambda conv: conv.requires_grad_(False),
    "weight norm": lambda conv: parametrizations.weight_norm(conv),
}


@pytest.mark.parametrize("change", REPARAMETRIZED.values(), ids=REPARAMETRIZED)
@pytest.mark.parametrize("make", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_counted_is_what_the_layer_computes_with(make, change):
    conv = make(3, 4, 3)
    change(conv)
    with torch.no_grad():  # a step after the last forward pass
        for p in conv.parameters():
            p.mul_(2).add_(1)
            if p.shape == (4, *[1] * (p.ndim - 1)):  # the lengths of weight norm
                p[:2] = 0
    conv(torch.zeros(1, 3, *[5] * (conv.weight.ndim - 2)))
    computed = conv.weight.detach()
    expected = [int((computed == 0).sum()), int((computed.flatten(2).abs().amax(2) < NEAR_ZERO).sum())]
    again = count_zeros(nn.Sequential(conv, conv))
    assert [again["n"], again["n_zero"], again["n_dead_kernels"]] == [computed.numel(), *expected]
    assert again["n_kernels"] == 12
    assert expected[0] > 0 or change is REPARAMETRIZED["frozen"]


def test_counting_after_a_step_sees_the_pruned_weights_of_the_moment():
    conv = prune.random_unstructured(nn.Conv2d(1, 1, 3), "weight", 1)
    with torch.no_grad():
        conv.weight_orig.zero_()
    assert count_zeros(conv)["n_zero"] == 9


def test_counting_moves_no_vector_of_a_spectral_norm():
    layer = parametrizations.spectral_norm(nn.Linear(3, 2))
    before = [b.clone() for b in layer.buffers()]
    count_zeros(layer)
    assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), before, strict=True))
    assert all(m.training for m in layer.modules())
