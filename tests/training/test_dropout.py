"""Dropout drawn by its gaps, compared with torch's and with independent draws; its derivative."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from reg_sweep.config.rules import ConfigError
from reg_sweep.training.dropout import Dropout, dropped_indices

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 0.9])
def test_as_many_elements_are_dropped_as_independent_draws_would_drop(p):
    generator = np.random.default_rng(0)
    n, n_draws = 300, 3_000
    masks = np.zeros((n_draws, n), bool)
    for mask in masks:
        mask[dropped_indices(n, p, generator)] = True
    counts = masks.sum(1)
    low, high = stats.binom.ppf([0.005, 0.995], n, p)
    edges = np.unique(np.linspace(low, high, 12).astype(int))
    cdf = np.concatenate([[0], stats.binom.cdf(edges, n, p), [1]])
    observed = np.bincount(np.searchsorted(edges, counts), minlength=len(edges) + 1)
    expected = np.diff(cdf) * n_draws
    kept = expected > 5
    assert ((observed - expected)[kept] ** 2 / expected[kept]).sum() < stats.chi2.ppf(0.9999, kept.sum())
    # All places are dropped equally often, including the first and the last, and neighbours independently.
    places = (masks.sum(0) - n_draws * p) / np.sqrt(n_draws * p * (1 - p))
    assert np.abs(places).max() < 6
    together = (masks[:, :-1] & masks[:, 1:]).sum()
    expected_pairs = n_draws * (n - 1) * p**2
    assert abs(together - expected_pairs) < 6 * np.sqrt(expected_pairs) + 1


@given(n=st.integers(0, 2_000), p=st.floats(1e-300, 0.99), seed=st.integers(0, 100))
def test_dropped_places_are_ascending_and_within_bounds(n, p, seed):
    places = dropped_indices(n, p, np.random.default_rng(seed)).numpy()
    assert (np.diff(places) > 0).all()
    assert len(places) == 0 or (places[0] >= 0 and places[-1] < n)


def image_like(memory_format: torch.memory_format, dtype=torch.float64) -> Tensor:
    x = torch.randn(4, 3, 5, 6, dtype=dtype, generator=torch.Generator().manual_seed(2))
    return x.to(memory_format=memory_format)


def upstream(y: Tensor, other_format: bool) -> Tensor:
    gradient = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    return gradient.to(memory_format=torch.channels_last if other_format else torch.contiguous_format)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("fused", [False, True], ids=["after_norm", "after_relu"])
@pytest.mark.parametrize("gradient_channels_last", [False, True])
def test_sparse_dropout_is_dense_dropout_with_its_mask_forward_and_backward(
    memory_format, fused, gradient_channels_last
):
    layer = Dropout(0.3)
    layer.generator = np.random.default_rng(4)
    ours = image_like(memory_format).requires_grad_()
    theirs = image_like(memory_format).requires_grad_()
    y = (layer.after_relu if fused else layer)(ours * 1.0) * layer.gain(ours)
    dropped = dropped_indices(ours.numel(), 0.3, np.random.default_rng(4))
    expected = reference.dropout(F.relu(theirs) if fused else theirs * 1.0, dropped, 0.3)
    torch.testing.assert_close(y, expected)
    assert (y == 0).sum() >= len(dropped) > 50

    gradient = upstream(y, gradient_channels_last)
    before = gradient.clone()
    y.backward(gradient)
    expected.backward(before)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("method", ["forward", "after_relu"])
def test_dropouts_gradient_is_its_derivative_in_float64(method):
    layer = Dropout(0.4)

    def dropped(x: Tensor) -> Tensor:
        layer.generator = np.random.default_rng(9)
        return getattr(layer, method)(x * 1.0)

    x = torch.linspace(-2, 2, 24, dtype=torch.float64).view(2, 3, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(dropped, x)


@pytest.mark.parametrize("generator", [None, np.random.default_rng(0)], ids=["dense", "sparse"])
def test_evaluation_drops_nothing_and_scales_nothing(generator):
    layer = Dropout(0.5).eval()
    layer.generator = generator
    x = image_like(torch.contiguous_format)
    assert torch.equal(layer(x.clone()), x)
    assert torch.equal(layer.after_relu(x.clone()), F.relu(x))
    assert layer.gain(x) == 1


@pytest.mark.parametrize("generator", [None, np.random.default_rng(0)], ids=["dense", "sparse"])
def test_dropout_with_its_gain_keeps_the_mean(generator):
    layer = Dropout(0.2)
    layer.generator = generator
    torch.manual_seed(0)
    x = torch.ones(10, 1, 100, 100)
    gain = layer.gain(x)
    y = layer(x.clone()) * gain
    assert y.mean().item() == pytest.approx(1, abs=6 * np.sqrt(0.2 / 0.8 / 1e5))
    assert sorted(y.unique().tolist()) == pytest.approx([0, 1.25])
    assert gain == (1 if generator is None else 1.25)


def test_dropout_of_zero_is_the_identity_and_draws_nothing():
    layer = Dropout(0.0)
    layer.generator = np.random.default_rng(0)
    x = image_like(torch.contiguous_format)
    assert torch.equal(layer(x.clone()), x)
    assert layer.generator.integers(2**62) == np.random.default_rng(0).integers(2**62)


@pytest.mark.parametrize("p", [-0.1, 1, 1.5])
def test_dropout_of_all_or_less_than_nothing_is_refused(p):
    with pytest.raises(ConfigError, match=f"dropout must be at least 0 and below 1, got {p}"):
        Dropout(p)
