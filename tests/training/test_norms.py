"""Ghost batch norm compared with its slow reference and with torch's batch norm; the table of norms."""

import warnings

import pytest
import reference
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NORMS, NormConfig
from reg_sweep.training.norms import GhostBatchNorm2d, has_norm, make_norm


def make_gbn(channels: int, size: int) -> GhostBatchNorm2d:
    """A norm in float64, whose parameters and buffers all differ from their initial values."""
    generator = torch.Generator().manual_seed(channels)
    gbn = GhostBatchNorm2d(channels, size).double()
    for tensor in (gbn.weight, gbn.bias, gbn.running_mean):
        tensor.data.normal_(generator=generator)
    gbn.running_var.data.uniform_(0.5, 2, generator=generator)
    return gbn


def images(n: int, c: int, h: int, w: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n * 1000 + h)
    return torch.randn(n, c, h, w, dtype=torch.float64, generator=generator) * 3 + 1


@given(
    n=st.integers(2, 13),
    size=st.integers(2, 14),
    c=st.integers(1, 3),
    h=st.integers(1, 3),
    w=st.integers(1, 3),
    channels_last=st.booleans(),
)
@example(n=9, size=4, c=2, h=2, w=3, channels_last=False)  # a single last sample
@example(n=7, size=4, c=2, h=2, w=3, channels_last=True)  # a smaller last ghost batch
@example(n=3, size=2, c=1, h=1, w=1, channels_last=False)  # the single last sample joins the only other ghost batch
@example(n=8, size=4, c=2, h=1, w=1, channels_last=False)
def test_gbn_equals_the_loop_over_ghost_batches_forward_backward_and_in_its_statistics(n, size, c, h, w, channels_last):
    gbn = make_gbn(c, size)
    x = images(n, c, h, w)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight, bias = (p.detach().clone().requires_grad_() for p in (gbn.weight, gbn.bias))
    expected, mean, var = reference.ghost_batch_norm(theirs, weight, bias, gbn.running_mean, gbn.running_var, size)

    y = gbn(ours)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gbn.running_mean, mean)
    torch.testing.assert_close(gbn.running_var, var)
    assert gbn.num_batches_tracked == len(reference.ghost_parts(n, size))

    upstream = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(5))
    y.backward(upstream)
    expected.backward(upstream)
    tolerance = {"rtol": 1e-7, "atol": 1e-7}
    torch.testing.assert_close(ours.grad, theirs.grad, **tolerance)
    torch.testing.assert_close(gbn.weight.grad, weight.grad, **tolerance)
    torch.testing.assert_close(gbn.bias.grad, bias.grad, **tolerance)


@pytest.mark.parametrize(
    "arguments", [{"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"dtype": torch.float64}]
)
@pytest.mark.parametrize("is_training", [True, False])
def test_gbn_takes_batch_norms_arguments_and_means_the_same_by_them(arguments, is_training):
    """Compared with a batch norm that gets one ghost batch after another."""
    gbn, bn = GhostBatchNorm2d(3, 4, **arguments).train(is_training), nn.BatchNorm2d(3, **arguments).train(is_training)
    x = images(8, 3, 2, 2).to(arguments.get("dtype", torch.float32))
    for _ in range(2):
        expected = torch.cat([bn(part) for part in x.split(4)])
        torch.testing.assert_close(gbn(x), expected)
    assert gbn.state_dict().keys() == bn.state_dict().keys()
    for name, value in bn.state_dict().items():
        torch.testing.assert_close(gbn.state_dict()[name], value)


@given(n=st.integers(2, 9), extra=st.integers(0, 3), steps=st.integers(1, 3))
def test_gbn_is_batch_norm_to_the_last_bit_where_the_ghost_batch_holds_the_batch(n, extra, steps):
    gbn, bn = GhostBatchNorm2d(3, n + extra), nn.BatchNorm2d(3)
    for step in range(steps):
        x = images(n, 3, 2, 2).float() + step
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        gbn(ours).square().sum().backward()
        bn(theirs).square().sum().backward()
        assert torch.equal(ours.grad, theirs.grad)
    assert torch.equal(gbn.weight.grad, bn.weight.grad)
    assert torch.equal(gbn.bias.grad, bn.bias.grad)
    assert all(torch.equal(a, b) for a, b in zip(gbn.buffers(), bn.buffers(), strict=True))


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    gbn = make_gbn(3, 4).eval()
    buffers = [b.clone() for b in gbn.buffers()]
    x = images(9, 3, 2, 2)
    y = gbn(x)
    shaped = {name: t[:, None, None] for name, t in gbn.state_dict().items() if t.ndim == 1}
    expected = (x - shaped["running_mean"]) / (shaped["running_var"] + 1e-5).sqrt() * shaped["weight"] + shaped["bias"]
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.cat([gbn(part) for part in x.split(1)]), y)
    assert all(torch.equal(a, b) for a, b in zip(gbn.buffers(), buffers, strict=True))


def test_gbn_and_batch_norm_load_each_others_state():
    gbn, bn = make_gbn(3, 4), nn.BatchNorm2d(3).double()
    gbn(images(9, 3, 2, 2))
    bn.load_state_dict(gbn.state_dict())
    x = images(5, 3, 2, 2)
    torch.testing.assert_close(bn.eval()(x), gbn.eval()(x))
    fresh = GhostBatchNorm2d(3, 2).double()
    fresh.load_state_dict(bn.state_dict())
    assert torch.equal(fresh.eval()(x), bn(x))


# ---- with other tools


def small_net(norm: nn.Module) -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).float()
    model(images(6, 2, 2, 2).float())
    return model


def test_converting_to_sync_batch_norm_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="ghost batch norm must not be converted to SyncBatchNorm"):
        nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3), GhostBatchNorm2d(3, 4)))


def test_tools_that_ask_every_layer_about_quantization_are_answered():
    model = small_net(GhostBatchNorm2d(3, 4))
    assert not hasattr(model[1], "qconfig")
    quantization = pytest.importorskip("torch.ao.quantization")
    with warnings.catch_warnings(action="ignore"):
        quantized = quantization.quantize_dynamic(model.eval(), {nn.Linear})
    assert isinstance(quantized[1], GhostBatchNorm2d)
    x = images(5, 2, 2, 2).float()
    torch.testing.assert_close(quantized(x), model(x), atol=0.1, rtol=0.1)


def traced(model: nn.Module, x: torch.Tensor):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(model, x)


def exported(model: nn.Module, x: torch.Tensor):
    batch = torch.export.Dim("batch", min=1, max=512)
    return torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()


@pytest.mark.parametrize("make", [traced, exported])
def test_a_traced_or_exported_program_takes_batches_of_any_size(make):
    model = small_net(make_gbn(3, 4)).eval()
    program = make(model, images(6, 2, 2, 2).float())
    for n in (1, 3, 11, 200):
        x = images(n, 2, 2, 2).float()
        torch.testing.assert_close(program(x), model(x))


def test_a_compiled_step_is_the_layers_own_for_batches_of_any_size():
    gbn, compiled = make_gbn(3, 4), make_gbn(3, 4)
    step = torch.compile(compiled, backend="eager")
    for n in (9, 4, 5, 20, 2):
        x = images(n, 3, 2, 2)
        torch.testing.assert_close(step(x), gbn(x))
    torch.testing.assert_close(compiled.state_dict(), gbn.state_dict())


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("n", [0, 1, 9])
def test_batches_without_samples_and_tensors_without_data_have_shapes(n, is_training):
    gbn = GhostBatchNorm2d(3, 4).train(is_training)
    assert gbn(torch.zeros(n, 3, 2, 2)).shape == (n, 3, 2, 2)
    meta = GhostBatchNorm2d(3, 4, device="meta").train(is_training)
    assert meta(torch.zeros(n, 3, 2, 2, device="meta")).shape == (n, 3, 2, 2)


def test_what_averages_weights_finds_its_statistics():
    """`update_bn` sets them to the mean over all ghost batches, as it does for a batch norm's batches."""
    gbn, bn = GhostBatchNorm2d(3, 4).eval(), nn.BatchNorm2d(3).eval()
    loader = [images(8, 3, 2, 2).float() + shift for shift in (0, -5)]
    gbn.running_mean.fill_(7)
    torch.optim.swa_utils.update_bn(loader, gbn)
    torch.optim.swa_utils.update_bn([part for x in loader for part in x.split(4)], bn)
    assert not gbn.training
    for name, expected in bn.state_dict().items():
        torch.testing.assert_close(gbn.state_dict()[name], expected)


@pytest.mark.parametrize("is_training", [True, False])
def test_a_traced_graph_keeps_it_as_a_layer_that_follows_the_mode(is_training):
    model = small_net(make_gbn(3, 4))
    graph = torch.fx.symbolic_trace(model.train(is_training))
    for mode in (False, True):
        model.train(mode)
        graph.train(mode)
        x = images(9, 2, 2, 2).float()
        torch.testing.assert_close(graph(x), model(x))
    assert isinstance(graph.get_submodule("1"), GhostBatchNorm2d)


def test_gbn_may_go_without_its_bias():
    gbn = GhostBatchNorm2d(3, 4, bias=False)
    assert gbn.bias is None
    assert [name for name, _ in gbn.named_parameters()] == ["weight"]
    x = images(8, 3, 2, 2).float()
    torch.testing.assert_close(gbn(x), GhostBatchNorm2d(3, 4)(x))


@pytest.mark.parametrize("name", NORMS)
def test_the_norm_that_a_model_is_given_takes_what_model_libraries_pass(name):
    make = make_norm(NormConfig(name))
    layer = make(8, eps=0.5, momentum=0.3, device="cpu", dtype=torch.float64)
    plain = make(8, affine=False)
    assert not list(plain.parameters())
    assert all(p.dtype == torch.float64 for p in layer.parameters())
    assert getattr(layer, "eps", 0.5) == 0.5
    assert getattr(layer, "momentum", 0.3) == 0.3
    assert layer(images(6, 8, 2, 2)).dtype == torch.float64


@pytest.mark.parametrize("name", NORMS)
def test_a_model_has_the_norms_that_were_made_for_it_and_no_others(name):
    has = {other: has_norm(nn.Sequential(make_norm(NormConfig(name))(8)), NormConfig(other)) for other in NORMS}
    group_norms = {"gn": {"gn", "ln"}, "ln": {"gn", "ln"}, "in": {"in", "gn", "ln"}}  # all three are torch's GroupNorm
    assert {other for other, it in has.items() if it} == group_norms.get(name, {name}) | {"none"}


def test_norms_that_a_model_brings_along_count():
    assert has_norm(nn.Sequential(nn.BatchNorm1d(3)), NormConfig("bn"))
    assert has_norm(nn.Sequential(nn.LayerNorm(3)), NormConfig("ln"))
    assert has_norm(nn.Sequential(nn.InstanceNorm2d(3)), NormConfig("in"))
    assert not has_norm(nn.Sequential(nn.Linear(3, 3)), NormConfig("bn"))


@pytest.mark.parametrize("name", NORMS)
def test_every_norm_keeps_the_shape_and_draws_nothing(name):
    before = torch.get_rng_state()
    norm = make_norm(NormConfig(name))(8)
    x = images(6, 8, 5, 4).float()
    assert norm(x).shape == norm.eval()(x).shape == x.shape
    assert torch.equal(torch.get_rng_state(), before)
    assert [tuple(p.shape) for p in norm.parameters()] == ([] if name == "none" else [(8,), (8,)])


@pytest.mark.parametrize(("name", "axes"), [("bn", (0, 2, 3)), ("ln", (1, 2, 3)), ("in", (2, 3)), ("gbn", (0, 2, 3))])
def test_each_norm_centres_and_scales_over_its_own_axes(name, axes):
    y = make_norm(NormConfig(name))(4)(images(6, 4, 5, 5).float())
    torch.testing.assert_close(y.mean(axes), torch.zeros_like(y.mean(axes)), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(axes, correction=0), torch.ones_like(y.mean(axes)), atol=1e-3, rtol=0)


def test_group_norm_centres_each_group_of_channels():
    y = make_norm(NormConfig("gn", groups=2))(4)(images(6, 4, 5, 5).float()).view(6, 2, 2, 5, 5)
    torch.testing.assert_close(y.mean((2, 3, 4)), torch.zeros(6, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["gn", "ln", "in", "none"])
def test_norms_without_a_batch_do_the_same_in_training_and_evaluation(name):
    norm, x = make_norm(NormConfig(name))(8), images(6, 8, 5, 5).float()
    assert torch.equal(norm.train()(x), norm.eval()(x))
    torch.testing.assert_close(norm(x)[:1], norm(x[:1]))


def test_the_ghost_batch_size_of_the_config_is_that_of_the_layer():
    layer = make_norm(NormConfig("gbn", ghost_batch_size=5))(8)
    assert isinstance(layer, GhostBatchNorm2d)
    assert layer.ghost_batch_size == 5
    assert "ghost_batch_size=5" in repr(layer)


def test_what_no_norm_can_do_is_one_line_of_error():
    for size in (1, True, 4.0, "4"):
        with pytest.raises(ConfigError, match=f"ghost_batch_size must be a whole number of at least 2, got {size!r}"):
            GhostBatchNorm2d(3, size)
    with pytest.raises(ConfigError, match=r"norm.groups must divide every layer's channels \(16\), got 3: choose"):
        make_norm(NormConfig("gn", groups=3))(16)
    with pytest.raises(ValueError, match="4D"):
        GhostBatchNorm2d(3, 2)(torch.zeros(5, 3))


@given(n=st.integers(1, 5), c=st.integers(1, 6), side=st.integers(2, 7), seed=st.integers(0, 2**31))
def test_instance_norm_is_torchs(n, c, side, seed):
    x = torch.randn(n, c, side, side + 1, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(make_norm(NormConfig("in"))(c)(x), nn.InstanceNorm2d(c, affine=True)(x))
