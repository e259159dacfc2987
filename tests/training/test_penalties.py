"""Penalties against torch's weight decay, autograd, known optima, and scikit-learn's logistic regression."""

import copy
import math
from functools import cache
from itertools import pairwise

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.schema import NORMS, ConfigError, NormConfig, PenaltyConfig
from reg_sweep.training.norms import make_norm
from reg_sweep.training.penalties import NEAR_ZERO, Penalty, count_zeros, penalize, penalized

STRENGTHS = st.floats(1e-6, 0.5)
SGDS = [
    pytest.param({"momentum": 0.0}, id="sgd"),
    pytest.param({"momentum": 0.9}, id="momentum"),
    pytest.param({"momentum": 0.9, "nesterov": True}, id="nesterov"),
]


def small_net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def batch(i: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(i)
    return torch.randn(8, 2, 4, 4, generator=generator), torch.randint(3, (8,), generator=generator)


def penalty_of(model: nn.Module, optimizer, l1: float = 0.0, l2: float = 0.0, **form) -> Penalty:
    return Penalty(model, optimizer, l1, l2, PenaltyConfig(**form))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, penalty: Penalty | None, n_steps: int = 5) -> nn.Module:
    for i in range(n_steps):
        x, y = batch(i)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if penalty is not None:
            penalty.before_step()
        optimizer.step()
        if penalty is not None:
            penalty.after_step()
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def penalty_gradients(model: nn.Module, **settings) -> list[Tensor]:
    """What `before_step` adds to gradients of zero."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    penalty_of(model, torch.optim.SGD(model.parameters(), 0.1), **settings).before_step()
    return [p.grad for p in model.parameters()]


# ---- no penalty, and torch's own


@pytest.mark.parametrize("l1_update", ["subgradient", "proximal"])
@pytest.mark.parametrize("l2_update", ["coupled", "decoupled"])
@pytest.mark.parametrize("name", ["textbook", "notebook"])
def test_penalties_of_zero_change_nothing_to_the_last_bit(name, l1_update, l2_update):
    plain, ours = small_net(), small_net()
    sgd = torch.optim.SGD(ours.parameters(), 0.1, momentum=0.9)
    train(plain, torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9), None)
    train(ours, sgd, penalty_of(ours, sgd, 0.0, 0.0, name=name, l1_update=l1_update, l2_update=l2_update))
    assert same(plain, ours)


@pytest.mark.slow
@pytest.mark.parametrize("settings", SGDS)
@given(l2=STRENGTHS)
def test_coupled_l2_is_the_weight_decay_of_torchs_sgd_to_the_last_bit(settings, l2):
    theirs, ours = small_net(), small_net()
    train(theirs, torch.optim.SGD(theirs.parameters(), 0.1, weight_decay=l2, **settings), None)
    sgd = torch.optim.SGD(ours.parameters(), 0.1, **settings)
    train(ours, sgd, penalty_of(ours, sgd, 0.0, l2, name="notebook"))
    assert same(theirs, ours)


@pytest.mark.slow
@given(l2=STRENGTHS)
def test_decoupled_l2_is_the_weight_decay_of_torchs_adamw_to_the_last_bit(l2):
    theirs, ours = small_net(), small_net()
    train(theirs, torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=l2), None)
    adamw = torch.optim.AdamW(ours.parameters(), 0.01, weight_decay=0.0)
    train(ours, adamw, penalty_of(ours, adamw, 0.0, l2, name="notebook", l2_update="decoupled"))
    assert same(theirs, ours)


def test_textbook_l2_is_weight_decay_on_the_weight_tensors_alone():
    theirs, ours = small_net(), small_net()
    weights, others = penalized(theirs), [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    train(theirs, torch.optim.SGD(groups, 0.1, momentum=0.9), None)
    sgd = torch.optim.SGD(ours.parameters(), 0.1, momentum=0.9)
    train(ours, sgd, penalty_of(ours, sgd, 0.0, 0.01))
    assert same(theirs, ours)


# ---- which tensors


@pytest.mark.parametrize("norm", NORMS)
def test_textbook_penalizes_weights_but_no_bias_and_no_norm(norm):
    layer = make_norm(NormConfig(norm))(8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.Flatten(), nn.Linear(32, 5))
    assert [id(w) for w in penalized(model)] == [id(model[0].weight), id(model[3].weight)]
    assert [id(w) for w in penalized(model, "notebook")] == [id(p) for p in model.parameters()]


def test_a_norm_over_several_axes_is_still_a_norm():
    model = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm((2, 6)), nn.RMSNorm((2, 6)))
    assert [id(w) for w in penalized(model)] == [id(model[0].weight)]


@pytest.mark.parametrize("name", ["textbook", "notebook"])
def test_frozen_and_untouched_parameters_are_left_alone(name):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[0].weight.requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalty_of(model, sgd, 0.1, 0.1, name=name, l1_update="proximal", l2_update="decoupled")
    model[2].weight.grad = torch.zeros_like(model[2].weight)  # as if only the last layer had been used
    penalty.before_step()
    sgd.step()
    penalty.after_step()
    assert torch.equal(model[0].weight, before[0])
    assert torch.equal(model[1].weight, before[1])
    assert (model[2].weight.abs() < before[2].abs()).all()


# ---- values and derivatives


@pytest.mark.parametrize("name", ["textbook", "notebook"])
@given(l1=STRENGTHS, l2=STRENGTHS)
def test_value_and_gradient_are_those_that_autograd_finds_for_the_formula(name, l1, l2):
    model = small_net().double()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    tensors = [p for p in model.parameters() if p.ndim > 1 or name == "notebook"]
    value = reference.penalty(tensors, l1, l2, notebook=name == "notebook")
    assert penalty_of(model, sgd, l1, l2, name=name).value() == pytest.approx(value.item(), rel=1e-12)
    expected = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(penalty_gradients(model, l1=l1, l2=l2, name=name), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_the_subgradient_at_zero_is_zero():
    model = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(model.weight)
    assert penalty_gradients(model, l1=1.0, l2=1.0)[0].abs().max() == 0


@given(
    weights=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=6), l1=st.floats(0.01, 1), lr=st.floats(0.1, 1)
)
def test_one_proximal_step_of_plain_sgd_is_the_soft_threshold(weights, l1, lr):
    model = nn.Linear(len(weights), 1, bias=False).double()
    model.weight.data = torch.tensor([weights], dtype=torch.float64)
    model.weight.grad = torch.zeros_like(model.weight)
    sgd = torch.optim.SGD(model.parameters(), lr)
    penalize(model, sgd, l1, l1_update="proximal")
    sgd.step()
    assert model.weight.tolist()[0] == pytest.approx([reference.soft_threshold(w, lr * l1) for w in weights], abs=1e-15)


def test_proximal_l1_gives_exact_zeros_where_the_subgradient_gives_none():
    n_zero = {}
    for update in ("subgradient", "proximal"):
        model = small_net()
        sgd = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        train(model, sgd, penalty_of(model, sgd, 0.1, l1_update=update), n_steps=30)
        n_zero[update] = count_zeros(model)["n_zero"]
    assert n_zero["subgradient"] == 0
    assert n_zero["proximal"] > 20


# ---- known optima

TARGETS = [3.0, -2.0, 0.4, -0.3, 0.0, 1.01, -0.99, 0.5]


def lasso(make_optimizer, l1: float, l2: float, n_steps: int, **settings) -> list[float]:
    """Minimizes sum (w - target)^2 / 2 + l1 |w| + l2 w^2 / 2 from a start away from it, the rate falling to 0."""
    model = nn.Linear(len(TARGETS), 1, bias=False).double()
    nn.init.constant_(model.weight, 0.7)
    optimizer = make_optimizer(model.parameters())
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, n_steps)
    penalize(model, optimizer, l1, l2, **settings)
    target = torch.tensor([TARGETS], dtype=torch.float64)
    for _ in range(n_steps):
        optimizer.zero_grad()
        (model.weight - target).square().sum().div(2).backward()
        optimizer.step()
        schedule.step()
    return model.weight.tolist()[0]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [*SGDS, pytest.param({"momentum": 0.8, "dampening": 0.5}, id="dampening")])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_proximal_sgd_comes_to_rest_at_the_optimum_of_the_penalty_whatever_its_momentum(settings, l2):
    found = lasso(lambda p: torch.optim.SGD(p, 0.05, **settings), 1.0, l2, 1_000, l1_update="proximal")
    expected = [reference.soft_threshold(a, 1.0) / (1 + l2) for a in TARGETS]
    assert found == pytest.approx(expected, abs=1e-6)
    assert [w == 0 for w in found] == [w == 0 for w in expected]


@pytest.mark.slow
@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.Adam], ids=["adamw", "adam"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_proximal_adam_comes_to_rest_at_the_optimum_of_the_penalty(make, amsgrad):
    found = lasso(
        lambda p: make(p, 0.02, betas=(0.9, 0.99), weight_decay=0.0, amsgrad=amsgrad),
        0.5,
        0.0,
        2_000,
        l1_update="proximal",
    )
    expected = [reference.soft_threshold(a, 0.5) for a in TARGETS]
    assert found == pytest.approx(expected, abs=1e-3)
    # |target| = l1 lies on the edge: any neighbourhood of it holds zeros and others.
    inner = [i for i, a in enumerate(TARGETS) if abs(a) != 0.5]
    assert [found[i] == 0 for i in inner] == [expected[i] == 0 for i in inner]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """400 of scikit-learn's digits, pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x[:400] / 16), torch.from_numpy(y[:400])


@cache
def scikit_learns_optimum(x: Tensor, y: Tensor, strength: float, *, l1: bool) -> tuple[Tensor, Tensor]:
    """Weights and intercepts that minimize mean cross-entropy + strength (sum |w| or sum w^2 / 2), intercepts free."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=1 / (len(x) * strength),
        l1_ratio=1.0 if l1 else 0.0,
        solver="saga" if l1 else "lbfgs",
        tol=1e-6 if l1 else 1e-10,
        max_iter=20_000,
        random_state=0,
    )
    model.fit(x.numpy(), y.numpy())
    return torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)


def our_optimum(x: Tensor, y: Tensor, n_steps: int, lr: float = 0.4, **settings) -> nn.Linear:
    model = nn.Linear(64, 10).double()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    sgd = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    penalize(model, sgd, **settings)
    for _ in range(n_steps):
        sgd.zero_grad()
        F.cross_entropy(model(x), y).backward()
        sgd.step()
    return model


def objective(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, *, l1: float = 0.0, l2: float = 0.0) -> float:
    loss = F.cross_entropy(x @ weight.T + bias, y) + reference.penalty([weight], l1, l2, notebook=False)
    return loss.item()


@pytest.mark.slow
def test_l2_reaches_the_optimum_of_scikit_learns_logistic_regression(digits):
    x, y = digits
    theirs = scikit_learns_optimum(x, y, 0.01, l1=False)
    ours = our_optimum(x, y, 2_000, l2=0.01)
    best = objective(x, y, *theirs, l2=0.01)
    assert objective(x, y, ours.weight, ours.bias, l2=0.01) == pytest.approx(best, abs=1e-7)
    torch.testing.assert_close(ours.weight.detach(), theirs[0], atol=1e-4, rtol=0)
    assert best < math.log(10) / 2  # an optimum worth reaching


@pytest.mark.slow
def test_proximal_l1_reaches_the_optimum_of_scikit_learns_logistic_regression_and_its_zeros(digits):
    x, y = digits
    theirs = scikit_learns_optimum(x, y, 0.01, l1=True)
    ours = our_optimum(x, y, 4_000, l1=0.01, l1_update="proximal")
    best = objective(x, y, *theirs, l1=0.01)
    assert objective(x, y, ours.weight, ours.bias, l1=0.01) == pytest.approx(best, abs=1e-7)
    torch.testing.assert_close(ours.weight.detach(), theirs[0], atol=2e-3, rtol=0)
    zero, expected = ours.weight == 0, theirs[0] == 0
    assert 100 < expected.sum() < 600
    assert torch.equal(zero, expected)


@pytest.mark.slow
def test_subgradient_l1_comes_the_closer_to_the_optimum_the_smaller_its_steps(digits):
    x, y = digits
    best = objective(x, y, *scikit_learns_optimum(x, y, 0.01, l1=True), l1=0.01)
    models = [our_optimum(x, y, 2_000, lr, l1=0.01) for lr in (0.4, 0.1)]
    far, near = (objective(x, y, model.weight, model.bias, l1=0.01) - best for model in models)
    assert 0 < near < far / 2
    assert near < 0.01


# ---- hooks


@pytest.mark.parametrize("l1_update", ["subgradient", "proximal"])
@pytest.mark.parametrize("l2_update", ["coupled", "decoupled"])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW], ids=["sgd", "adamw"])
def test_penalize_hooks_do_to_the_last_bit_what_calls_by_hand_do(make, l1_update, l2_update):
    settings = {"l1": 0.02, "l2": 0.03, "l1_update": l1_update, "l2_update": l2_update}
    by_hand, hooked = small_net(), small_net()
    optimizers = [make(m.parameters(), 0.01, weight_decay=0.0) for m in (by_hand, hooked)]
    train(by_hand, optimizers[0], penalty_of(by_hand, optimizers[0], **settings))
    returned = penalize(hooked, optimizers[1], **settings)
    train(hooked, optimizers[1], None)
    assert same(by_hand, hooked)
    assert returned.value() == penalty_of(by_hand, optimizers[0], **settings).value() > 0


@pytest.mark.parametrize("settings", [{"l1": 0.5, "l1_update": "proximal"}, {"l2": 0.5, "l2_update": "decoupled"}])
def test_the_learning_rate_of_the_moment_counts_also_after_the_optimizers_state_was_loaded(settings):
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalty_of(model, sgd, **settings)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    sgd.load_state_dict(copy.deepcopy(sgd.state_dict()))
    sgd.param_groups[0]["lr"] = 0.0
    before = [w.clone() for w in penalized(model)]
    penalty.before_step()
    sgd.step()
    penalty.after_step()
    assert all(torch.equal(w, b) for w, b in zip(penalized(model), before, strict=True))


def test_each_group_of_an_optimizer_shrinks_by_its_own_learning_rate():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    groups = [{"params": [model[0].weight], "lr": 0.1}, {"params": [model[1].weight], "lr": 0.01}]
    sgd = torch.optim.SGD(groups)
    for p in model.parameters():
        nn.init.ones_(p)
        p.grad = torch.zeros_like(p)
    penalize(model, sgd, 1.0, l1_update="proximal")
    sgd.step()
    torch.testing.assert_close(model[0].weight.detach(), torch.full((3, 3), 0.9))
    torch.testing.assert_close(model[1].weight.detach(), torch.full((3, 3), 0.99))


# ---- closures, and optimizers of others


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, arXiv 2302.06675, whose groups know no weight decay here."""

    def __init__(self, params, lr: float = 0.001, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.sub_(group["lr"] * (group["betas"][0] * momentum + (1 - group["betas"][0]) * p.grad).sign())
                momentum.mul_(group["betas"][1]).add_(p.grad, alpha=1 - group["betas"][1])
        return loss


class Wrapper:
    """Holds an optimizer as those of Accelerate and Lightning do, and hands a closure on only where there is one."""

    def __init__(self, optimizer) -> None:
        self.optimizer = optimizer

    def __getattr__(self, name):
        return getattr(self.optimizer, name)

    def step(self, closure=None):
        return self.optimizer.step() if closure is None else self.optimizer.step(closure)


def train_by_closure(model: nn.Module, step, n_steps: int = 5) -> list[float]:
    """`step` gets a closure as training loops have it; returns the losses that it gives back."""
    losses = []
    for i in range(n_steps):
        x, y = batch(i)

        def closure(x=x, y=y):
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss.detach()

        losses.append(float(step(closure)))
    return losses


MAKERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "lion": lambda p: Lion(p, 0.01),
}
FORMS = {
    "subgradient, coupled": {"l1": 0.02, "l2": 0.03},
    "decoupled": {"l1": 0.02, "l2": 0.03, "l2_update": "decoupled"},
    "notebook": {"l1": 0.5, "l2": 0.03, "name": "notebook"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("keyword", [True, False], ids=["keyword", "position"])
@pytest.mark.parametrize("wrap", [Wrapper, lambda optimizer: optimizer], ids=["wrapped", "bare"])
def test_a_step_with_a_closure_does_to_the_last_bit_what_a_step_without_does(wrap, keyword, make, form):
    plain, closed = small_net(), small_net()
    optimizers = [make(m.parameters()) for m in (plain, closed)]
    penalize(plain, optimizers[0], **form)
    train(plain, optimizers[0], None)
    wrapped = wrap(optimizers[1])
    penalty = penalize(closed, wrapped, **form)
    before = penalty.value()
    with torch.no_grad():
        loss = float(F.cross_entropy(copy.deepcopy(closed)(batch(0)[0]), batch(0)[1]))
    losses = train_by_closure(closed, lambda c: wrapped.step(closure=c) if keyword else wrapped.step(c))
    assert same(plain, closed)
    assert losses[0] == pytest.approx(loss + before)


def test_a_step_with_a_closure_applies_the_soft_threshold():
    plain, closed = small_net(), small_net()
    for model, train_it in ((plain, train), (closed, None)):
        sgd = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        penalize(model, sgd, 0.1, l1_update="proximal")
        train_by_closure(model, sgd.step) if train_it is None else train_it(model, sgd, None)
    assert count_zeros(plain)["n_zero"] > 20
    assert same(plain, closed)


def test_a_closure_that_only_goes_backward_and_returns_nothing_is_enough():
    plain, closed = small_net(), small_net()
    sgds = [torch.optim.SGD(m.parameters(), 0.05) for m in (plain, closed)]
    for model, sgd in zip((plain, closed), sgds, strict=True):
        penalize(model, sgd, 0.02, 0.03)
    train(plain, sgds[0], None)
    for i in range(5):
        x, y = batch(i)
        sgds[1].zero_grad()
        assert sgds[1].step(lambda x=x, y=y: F.cross_entropy(closed(x), y).backward()) is None
    assert same(plain, closed)


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_reaches_the_optimum_of_the_penalized_loss(line_search):
    """Of sum (w - target)^2 / 2 + l1 |w| + l2 w^2 / 2, for targets above l1: w = (target - l1) / (1 + l2)."""
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.constant_(model.weight, 0.5)
    lbfgs = torch.optim.LBFGS(model.parameters(), 1.0 if line_search else 0.5, line_search_fn=line_search)
    penalty = penalize(model, lbfgs, 0.25, 1.0)
    target = torch.tensor([[3.0, 2.0]], dtype=torch.float64)

    def closure():
        lbfgs.zero_grad()
        loss = (model.weight - target).square().sum() / 2
        loss.backward()
        return loss

    for _ in range(5):
        lbfgs.step(closure)
    assert model.weight.tolist()[0] == pytest.approx([2.75 / 2, 1.75 / 2], abs=1e-4)
    with torch.no_grad():
        assert float(lbfgs.step(closure)) == pytest.approx(
            float((model.weight - target).square().sum() / 2) + penalty.value()
        )


def test_two_models_under_one_optimizer_are_each_penalized_once_by_a_step_with_a_closure():
    model, other = small_net(), small_net()
    sgd = torch.optim.SGD([*model.parameters(), *other.parameters()], 0.1)
    penalize(model, sgd, l2=0.5)
    penalize(other, sgd, l2=0.25)
    before = [w.detach().clone() for m in (model, other) for w in penalized(m)]

    def closure():
        for p in (*model.parameters(), *other.parameters()):
            p.grad = torch.zeros_like(p)

    sgd.step(closure)
    after = [w for m in (model, other) for w in penalized(m)]
    shares = [0.95, 0.95, 0.975, 0.975]
    for w, b, share in zip(after, before, shares, strict=True):
        torch.testing.assert_close(w.detach(), share * b)


def test_what_is_no_optimizer_or_can_not_be_decoupled_is_one_line():
    model = small_net()
    with pytest.raises(ConfigError, match=r"optimizer must be a torch.optim.Optimizer, or hold one as .optimizer, got"):
        penalize(model, model, 0.1)
    with pytest.raises(ConfigError, match="l2_update must be coupled with LBFGS, got 'decoupled'"):
        penalize(model, torch.optim.LBFGS(model.parameters()), l2=0.1, l2_update="decoupled")
    nameless = torch.optim.SGD(model.parameters(), 0.1)
    del nameless.param_groups[0]["lr"]
    with pytest.raises(ConfigError, match="l2_update must be coupled with SGD, got 'decoupled': its groups name no"):
        penalize(model, nameless, l2=0.1, l2_update="decoupled")


# ---- zeros


def test_zeros_near_zeros_and_dead_kernels_are_counted_as_a_loop_counts_them():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(-1)
        model[0].weight[0, 0] = 0
        model[0].weight[1, 2] = NEAR_ZERO / 2
        model[0].weight[2, 1] = -NEAR_ZERO / 2
        model[0].weight[3, 0, 1, 1] = NEAR_ZERO  # the first that is not near
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
    }


def test_more_l1_never_leaves_fewer_zeros():
    counts = []
    for l1 in (0.0, 0.01, 0.1, 1.0, 10.0):
        model = small_net()
        sgd = torch.optim.SGD(model.parameters(), 0.01)
        train(model, sgd, penalty_of(model, sgd, l1, l1_update="proximal"), n_steps=20)
        counts.append(count_zeros(model)["n_zero"])
    assert all(a <= b for a, b in pairwise(counts))
    assert counts[0] == 0
    assert counts[-1] == count_zeros(small_net())["n"]


# ---- errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "note"}, "penalty must be one of textbook, notebook, got 'note'"),
        ({"l1_update": "prox"}, "penalty.l1_update must be one of subgradient, proximal, got 'prox'"),
        ({"l2_update": "adamw"}, "penalty.l2_update must be one of coupled, decoupled, got 'adamw'"),
        ({"l1": -0.1}, "l1 must be a finite number of at least 0, got -0.1"),
        ({"l2": math.inf}, "l2 must be a finite number of at least 0, got inf"),
        ({"l1": math.nan}, "l1 must be a finite number of at least 0, got nan"),
    ],
)
def test_a_setting_out_of_its_range_is_one_line(settings, message):
    model = small_net()
    with pytest.raises(ConfigError) as error:
        penalty_of(model, torch.optim.SGD(model.parameters(), 0.1), **settings)
    assert str(error.value) == message


def test_weights_are_never_penalized_twice():
    model = small_net()
    with pytest.raises(ConfigError, match="weight_decay must be 0"):
        penalize(model, torch.optim.AdamW(model.parameters()), l2=0.1)
    penalty_of(model, torch.optim.AdamW(model.parameters()), l1=0.1)  # torch's decay beside our l1 is one of each


def test_penalize_is_refused_where_it_holds_already_and_can_be_removed():
    model, other = small_net(), small_net()
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], 0.1)
    penalty = penalize(model, optimizer, l1=0.5, l1_update="proximal")
    penalize(other, optimizer, l2=0.5)
    with pytest.raises(ConfigError, match="penalize must be called once for a model"):
        penalize(model, optimizer, l2=0.5)
    penalty.remove()
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    penalize(model, optimizer, l1=0.5, l1_update="proximal")
    optimizer.step()
    assert not all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_an_optimizer_whose_threshold_is_unknown_refuses_proximal_l1():
    model = small_net()
    with pytest.raises(ConfigError, match="must be subgradient with RMSprop, got 'proximal'"):
        penalize(model, torch.optim.RMSprop(model.parameters()), 0.1, l1_update="proximal")
    penalize(model, torch.optim.RMSprop(model.parameters()), 0.1)


def test_a_weight_that_the_optimizer_does_not_hold_is_an_error():
    model = small_net()
    with pytest.raises(ConfigError, match="must hold every penalized weight, 1 of them"):
        penalize(model, torch.optim.SGD(model[4].parameters(), 0.1), 0.1)


def test_a_step_without_gradients_leaves_the_weights():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    for update in ("subgradient", "proximal"):
        penalty = penalize(model, sgd, 0.1, 0.1, l1_update=update)
        sgd.step()
        penalty.remove()
    assert same(model, small_net())


def test_the_penalty_of_no_weights_is_zero():
    model = nn.BatchNorm2d(3)
    assert penalty_of(model, torch.optim.SGD(model.parameters(), 0.1), 1.0, 1.0).value() == 0
    assert count_zeros(model)["n"] == 0
