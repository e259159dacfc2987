"""Penalties compared with torch's weight decay, autograd, known optima and scikit-learn's logistic regression."""

import copy
import math
import pickle
from functools import cache
from itertools import pairwise

import own
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from reg_sweep.config.schema import ConfigError, PenaltyConfig
from reg_sweep.training.penalties import Penalty, penalize
from reg_sweep.training.weights import count_zeros, penalized

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
    """Gradients after `before_step`, if they were zero before."""
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    penalty_of(model, torch.optim.SGD(model.parameters(), 0.1), **settings).before_step()
    return [p.grad for p in model.parameters()]


# ---- no penalty, and torch's weight decay


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


# ---- which weights change


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
    """Minimizes sum (w - target)^2 / 2 + l1 |w| + l2 w^2 / 2 from a distant start, with a rate that falls to 0."""
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
    # |target| = l1 is the boundary between zero and nonzero optima.
    inner = [i for i, a in enumerate(TARGETS) if abs(a) != 0.5]
    assert [found[i] == 0 for i in inner] == [expected[i] == 0 for i in inner]


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """400 of scikit-learn's digits, with pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x[:400] / 16), torch.from_numpy(y[:400])


@cache
def scikit_learns_optimum(x: Tensor, y: Tensor, strength: float, *, l1: bool) -> tuple[Tensor, Tensor]:
    """Weights and unpenalized intercepts that minimize mean cross-entropy + strength (sum |w| or sum w^2 / 2)."""
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
    assert best < math.log(10) / 2  # the optimum is far from the start


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


# ---- closures and third-party optimizers


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, arXiv 2302.06675, here without a weight decay in its groups."""

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
    """Wraps an optimizer like those of Accelerate and Lightning, and passes a closure on only if there is one."""

    def __init__(self, optimizer) -> None:
        self.optimizer = optimizer

    def __getattr__(self, name):
        return getattr(self.optimizer, name)

    def step(self, closure=None):
        return self.optimizer.step() if closure is None else self.optimizer.step(closure)


def train_by_closure(model: nn.Module, step, n_steps: int = 5) -> list[float]:
    """Calls `step` with a closure as in training loops; returns the losses that it returns."""
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
    """The optimum of sum (w - target)^2 / 2 + l1 |w| + l2 w^2 / 2 is (target - l1) / (1 + l2) for targets above l1."""
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
    with pytest.raises(
        ConfigError, match="l2_update must be coupled with SGD, got 'decoupled': its groups have no learning"
    ):
        penalize(model, nameless, l2=0.1, l2_update="decoupled")


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("l1", [0.0, 0.1])
def test_cautious_l2_decays_the_weights_that_the_step_moves_towards_zero(make, l1):
    plain, ours = small_net().double(), small_net().double()
    settings = {"lr": 0.05, "weight_decay": 0.0}
    optimizers = [make(m.parameters(), **settings) for m in (plain, ours)]
    penalize(plain, optimizers[0], l1)
    penalize(ours, optimizers[1], l1, 0.3, l2_update="cautious")
    weights = {id(w) for w in penalized(plain)}
    n_decayed = 0
    for i in range(5):
        before = [p.detach().clone() for p in plain.parameters()]
        steps_of(plain, optimizers[0], start=i, n=1)
        with torch.no_grad():
            for p, w in zip(plain.parameters(), before, strict=True):
                decays = ((w - p) * w >= 0) * (id(p) in weights)
                p.sub_(w * decays, alpha=0.05 * 0.3)
                n_decayed += int(decays.sum())
        for a, b in zip(plain.parameters(), steps_of(ours, optimizers[1], start=i, n=1), strict=True):
            torch.testing.assert_close(a.detach(), b, rtol=1e-9, atol=1e-12)
    assert 0 < n_decayed < 5 * sum(w.numel() for w in penalized(plain))


# ---- all kinds of weights that torch has


def decayed(make, model: nn.Module, l2: float, **settings) -> torch.optim.Optimizer:
    """A torch optimizer that decays the weights itself."""
    weights = set(penalized(model))
    others = [p for p in model.parameters() if p not in weights]
    groups = [{"params": list(weights), "weight_decay": l2}, {"params": others, "weight_decay": 0.0}]
    return make(groups, **{"lr": 0.05, **settings})


def steps_of(
    model: nn.Module, optimizer, scaler=None, *, inf_at=None, clears=True, start: int = 0, n: int = 8
) -> list[Tensor]:
    """Parameters after `n` steps. The gradients of step `inf_at` overflow; without `clears` they are accumulated."""
    scaler = torch.amp.GradScaler("cpu", enabled=False) if scaler is None else scaler
    for i in range(start, start + n):
        x, y = batch(i)
        if clears:
            optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x.to(model[0].weight.dtype)), y)).backward()
        if i == inf_at:
            next(model.parameters()).grad.view(-1)[0] = math.inf
        scaler.step(optimizer)
        scaler.update(65536.0 if scaler.is_enabled() else None)
    return [p.detach() for p in model.parameters()]


class Inherited(torch.optim.AdamW):
    """An optimizer whose step calls its parent's, as in LR finders and loggers, so that torch runs the hooks twice."""

    def step(self, closure=None):
        return super().step(closure)


class Twice(torch.optim.AdamW):
    """An optimizer whose step does two steps of its parent."""

    def step(self, closure=None):
        super().step()
        return super().step()


torch.optim.AdamW([nn.Parameter(torch.zeros(1))])  # a class's step runs hooks only once it has an instance

DECAYING = {
    "sgd, coupled": (torch.optim.SGD, {"momentum": 0.9}, "coupled"),
    "adam, coupled": (torch.optim.Adam, {}, "coupled"),
    "adamw, decoupled": (torch.optim.AdamW, {}, "decoupled"),
    "a step that calls its parent's": (Inherited, {}, "decoupled"),
    "a step of two": (Twice, {}, "decoupled"),
}
CIRCUMSTANCES = {
    "rate as a tensor": ({"lr": torch.tensor(0.05, dtype=torch.float64), "foreach": False}, {}),
    "maximize": ({"maximize": True}, {}),
    "kept gradients": ({}, {"clears": False}),
    "kept gradients, maximize": ({"maximize": True}, {"clears": False}),
    "scaler": ({}, {"scaler": True}),
    "scaler, fused": ({"fused": True}, {"scaler": True}),
    "scaler, skipped": ({}, {"scaler": True, "inf_at": 3}),
    "scaler, fused, skipped": ({"fused": True}, {"scaler": True, "inf_at": 3}),
}


@pytest.mark.parametrize(("settings", "loop"), CIRCUMSTANCES.values(), ids=CIRCUMSTANCES)
@pytest.mark.parametrize(("make", "more", "l2_update"), DECAYING.values(), ids=DECAYING)
def test_l2_is_torchs_own_weight_decay_in_float64_wherever_a_step_is_taken(make, more, l2_update, settings, loop):
    theirs, ours = small_net().double(), small_net().double()
    loop = dict(loop)
    scalers = [torch.amp.GradScaler("cpu", 65536.0) if loop.get("scaler") else None for _ in range(2)]
    loop.pop("scaler", None)
    expected = steps_of(theirs, decayed(make, theirs, 0.3, **more, **settings), scalers[0], **loop)
    optimizer = make(ours.parameters(), **{"lr": 0.05, "weight_decay": 0.0, **more, **settings})
    penalize(ours, optimizer, l2=0.3, l2_update=l2_update)
    for a, b in zip(steps_of(ours, optimizer, scalers[1], **loop), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"maximize": True}])
def test_decoupled_l2_is_adafactors_own_weight_decay_though_its_step_measures_the_weights(settings):
    theirs, ours = small_net().double(), small_net().double()
    expected = steps_of(theirs, decayed(torch.optim.Adafactor, theirs, 0.3, **settings))
    optimizer = torch.optim.Adafactor(ours.parameters(), lr=0.05, **settings)
    penalize(ours, optimizer, l2=0.3, l2_update="decoupled")
    for a, b in zip(steps_of(ours, optimizer), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", [{"l1": 0.1, "l2": 0.3}, {"l2": 0.3, "l2_update": "decoupled"}])
def test_a_step_that_hands_its_closure_to_its_parents_is_penalized_once(form):
    plain, inherited = small_net(), small_net()
    losses = []
    for model, make in ((plain, torch.optim.AdamW), (inherited, Inherited)):
        optimizer = make(model.parameters(), 0.05, weight_decay=0.0)
        penalize(model, optimizer, **form)
        losses.append(train_by_closure(model, optimizer.step))
    assert same(plain, inherited)
    assert losses[0] == losses[1]


def test_a_closure_that_raises_is_penalized_again_at_the_next_step():
    model = nn.Linear(2, 1, bias=False)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalize(model, sgd, l2=0.5)

    def closure(error: type[Exception] | None = None):
        if error is not None:
            raise error
        model.weight.grad = torch.zeros_like(model.weight)
        return torch.tensor(2.0)

    with pytest.raises(MemoryError):
        sgd.step(lambda: closure(MemoryError))
    value = penalty.value()
    assert float(sgd.step(closure)) == pytest.approx(2 + value)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("form", [{"l1": 0.1}, {"l1": 0.1, "l1_update": "proximal"}, {"l1": 0.3, "name": "notebook"}])
def test_l1_knows_the_scale_and_the_skipped_steps_of_a_scaler(form, fused):
    found = []
    for scaler, inf_at in ((None, None), (torch.amp.GradScaler("cpu", 65536.0), None), (None, 7)):
        model = small_net().double()
        adam = torch.optim.Adam(model.parameters(), 0.05, fused=fused)
        penalize(model, adam, **form)
        if inf_at is not None:
            scaler = torch.amp.GradScaler("cpu", 65536.0)
        found.append(steps_of(model, adam, scaler, inf_at=inf_at, n=8 if inf_at else 7))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_maximize_with_l1_shrinks_and_a_closures_loss_is_less_the_penalty():
    model = nn.Linear(4, 1, bias=False).double()
    sgd = torch.optim.SGD(model.parameters(), 0.1, maximize=True)
    penalty = penalize(model, sgd, l1=0.5)
    size, value = model.weight.abs().sum().item(), penalty.value()

    def closure():
        model.weight.grad = torch.zeros_like(model.weight)
        return torch.tensor(2.0)

    assert float(sgd.step(closure)) == pytest.approx(2 - value)
    assert model.weight.abs().sum().item() < size


def test_the_gradient_after_a_step_is_the_losss_own():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalize(model, sgd, 0.1, 0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(2):
        sgd.step()
        assert all((p.grad == 1).all() for p in model.parameters())


def test_a_step_that_raised_leaves_no_penalty_in_the_gradients():
    model = nn.Linear(2, 1, bias=False)

    class Failing(torch.optim.SGD):
        fails = True

        def step(self, closure=None):
            if self.fails:
                raise MemoryError
            return super().step(closure)

    failing, plain = Failing(model.parameters(), 0.1), copy.deepcopy(model)
    penalize(model, failing, l2=0.5)
    model.weight.grad = torch.ones_like(model.weight)
    with pytest.raises(MemoryError):
        failing.step()
    failing.fails = False
    failing.step()
    torch.testing.assert_close(model.weight, plain.weight - 0.1 * (1 + 0.5 * plain.weight))


COPIES = {
    "deep copy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
    "deep copy of a pickle": lambda pair: copy.deepcopy(pickle.loads(pickle.dumps(pair))),
}


@pytest.mark.parametrize("form", [{"l2_update": "decoupled"}, {"l2_update": "cautious"}, {"l1_update": "proximal"}])
@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
def test_a_copy_of_model_and_optimizer_is_penalized_as_they_are_and_apart_from_them(make_copy, form):
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    penalty = penalize(model, optimizer, 0.02, 0.3, **form)
    train(model, optimizer, None)
    copied, its_optimizer = make_copy((model, optimizer))
    assert same(model, copied)
    train(model, optimizer, None)
    train(copied, its_optimizer, None)
    assert same(model, copied)
    with pytest.raises(ConfigError, match="penalize must be called only once"):
        penalize(copied, its_optimizer, l2=0.3)
    penalty.remove()
    train(model, optimizer, None)
    train(copied, its_optimizer, None)
    assert not same(model, copied)
    (its_penalty,) = its_optimizer.penalties
    its_penalty.remove()
    before = copy.deepcopy(copied)
    for p in copied.parameters():
        p.grad = torch.zeros_like(p)
    torch.optim.SGD(copied.parameters(), 0.1).step()
    assert same(before, copied)


def test_a_shallow_copy_of_an_optimizer_is_refused_at_its_first_step():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalize(model, sgd, l2=0.1)
    with pytest.raises(ConfigError, match=r"must be copied with copy.deepcopy, got a shallow copy"):
        copy.copy(sgd).step()
    sgd.step()


def test_frozen_weights_keep_still_though_their_gradients_are_zeros():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalize(model, sgd, 0.1, 0.5, l1_update="proximal", l2_update="decoupled")
    train(model, sgd, None)
    model[0].weight.requires_grad_(False)
    sgd.zero_grad(set_to_none=False)
    assert penalty.value() == pytest.approx(
        reference.penalty([model[4].weight.detach().double()], 0.1, 0.5, notebook=False).item()
    )
    before = model[0].weight.clone()
    sgd.step()
    assert torch.equal(model[0].weight, before)


def test_weights_that_come_later_are_penalized_from_then_on():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.requires_grad_(False)
    sgd = torch.optim.SGD(model[1].parameters(), 0.1)
    penalize(model, sgd, l2=1.0, l2_update="decoupled")

    def shrinks(w: Tensor) -> bool:
        before = w.detach().clone()
        w.grad = torch.zeros_like(w)
        sgd.step()
        return torch.equal(w.detach(), before * (1 - 0.1))

    assert shrinks(model[1].weight)
    model[0].weight.requires_grad_(True)  # unfrozen, and added to the optimizer
    sgd.add_param_group({"params": [model[0].weight]})
    assert shrinks(model[0].weight)
    model[1] = nn.Linear(2, 2, bias=False)  # replaced in both
    sgd.param_groups[0]["params"][0] = model[1].weight
    assert shrinks(model[1].weight)
    head = nn.Linear(2, 2, bias=False)  # in the optimizer before it is in the model
    sgd.add_param_group({"params": [head.weight]})
    sgd.step()
    model.append(head)
    assert shrinks(head.weight)
    sgd.add_param_group({"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.1})
    with pytest.raises(ConfigError, match="weight_decay must be 0"):
        sgd.step()


def test_weights_that_are_named_are_penalized_and_no_others():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.ones(2, 2))
            self.linear = nn.Linear(2, 2)

    model = Own()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalize(model, sgd, l2=1.0, weights=[model.matrix])
    assert penalty.value() == 2.0
    assert [id(w) for w in penalty.weights] == [id(model.matrix)]


def test_complex_weights_are_penalized_by_their_modulus():
    model = nn.Linear(3, 2, bias=False, dtype=torch.complex128)
    ours = penalty_gradients(model, l1=0.3, l2=0.2)[0]
    value = 0.3 * model.weight.abs().sum() + 0.1 * model.weight.abs().square().sum()
    torch.testing.assert_close(ours, torch.autograd.grad(value, model.weight)[0])
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    assert penalty_of(model, sgd, 0.3, 0.2).value() == pytest.approx(value.item())
    before = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    penalize(model, sgd, 0.3, l1_update="proximal")
    sgd.step()
    shrunk = (before.abs() - 0.03).clamp(min=0)
    torch.testing.assert_close(model.weight.detach(), torch.polar(shrunk, before.angle()))
    with pytest.raises(ConfigError, match="must be subgradient with complex weights and Adam"):
        penalize(model, torch.optim.Adam(model.parameters()), 0.1, l1_update="proximal")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_value_of_half_precision_weights_does_not_overflow(dtype):
    model = nn.Linear(300, 300, bias=False).to(dtype)
    nn.init.constant_(model.weight, 300)
    value = penalty_of(model, torch.optim.SGD(model.parameters(), 0.1), 1.0, 2.0).value()
    assert value == pytest.approx(90_000 * (300 + 300**2), rel=0.01)


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="this torch has no gradients of another dtype")
@pytest.mark.parametrize("form", [{"l2": 0.1}, {"penalties": {"all": {"_target_": torch.sum, "of": "weights"}}}])
def test_gradients_of_another_dtype_than_their_weights_are_refused_where_something_is_added(form):
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad_dtype = torch.bfloat16
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    for spec in form.get("penalties", {}).values():
        spec["strength"] = 0.1
    penalty = penalize(model, sgd, **form)
    model.weight.grad = torch.ones(1, 2, dtype=torch.bfloat16)
    with pytest.raises(
        ConfigError, match=r"a gradient's dtype differs from its weight's \(torch.float32\), got torch.bfloat16: choose"
    ):
        sgd.step()
    penalty.remove()
    penalize(model, sgd, l2=0.1, l2_update="decoupled")
    sgd.step()


def test_a_tensor_without_elements_adds_nothing():
    model = nn.Sequential(nn.Linear(2, 1), nn.Module())
    model[1].weight = nn.Parameter(torch.zeros(0, 3))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalize(model, sgd, 0.5, name="notebook")
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    sgd.step()
    assert penalty.value() == pytest.approx(0.5 * sum(p.detach().abs().mean().item() for p in model[0].parameters()))


def test_sparse_gradients_are_left_alone_or_refused_in_one_line():
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    penalty = penalize(model, sgd, 0.1, 0.1)
    model(torch.tensor([1, 2])).sum().backward()
    sgd.step()
    penalty.remove()
    penalize(model, sgd, 0.1, 0.1, name="notebook")
    with pytest.raises(ConfigError, match="penalty must be proximal or decoupled with sparse gradients"):
        sgd.step()
    sparse = torch.optim.SparseAdam(model[0].parameters(), 0.1)
    penalize(model[0], sparse, l2=0.1, name="notebook", l2_update="decoupled")
    sparse.step()


class Holding(torch.optim.Optimizer):
    """Wraps an optimizer that does its steps, as SAM and Lookahead do; `at` names its attribute."""

    def __init__(self, inner, at: str) -> None:
        super().__init__(inner.param_groups[0]["params"], {})
        setattr(self, at, [inner] if at == "parts" else inner)
        self.inner_step = inner.step

    def step(self, closure=None):
        return self.inner_step()


@pytest.mark.parametrize("at", ["optimizer", "base_optimizer", "_inner", "parts"])
def test_an_optimizer_that_holds_another_under_any_name_is_penalized_once(at):
    plain, held = small_net(), small_net()
    sgd = torch.optim.SGD(plain.parameters(), 0.05)
    penalize(plain, sgd, 0.02, 0.03)
    train(plain, sgd, None)
    outer = Holding(torch.optim.SGD(held.parameters(), 0.05), at)
    penalize(held, outer, 0.02, 0.03)
    train(held, outer, None)
    assert same(plain, held)


def test_an_optimizer_that_holds_itself_is_its_own_innermost():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.05)
    sgd.optimizer = sgd
    sgd.other = Wrapper(sgd)
    assert penalize(model, sgd, 0.1).value() > 0


def test_what_holds_several_optimizers_is_refused():
    model = small_net()
    both = Wrapper(None)
    both.first, both.second = (torch.optim.SGD(model.parameters(), 0.1) for _ in range(2))
    with pytest.raises(ConfigError, match=r"must hold one torch.optim.Optimizer, got Wrapper with 2"):
        penalize(model, both, 0.1)


@pytest.mark.parametrize(("form", "expected"), [({"l2": 0.5}, [2.0, -4 / 3]), ({"l1": 0.3}, [2.7, -1.7])])
def test_a_schedule_free_optimizer_comes_to_the_optimum_of_the_penalized_loss(form, expected):
    model = nn.Linear(2, 1, bias=False).double()
    target = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    optimizer = own.ScheduleFreeSGD(model.parameters(), 0.5)
    penalize(model, optimizer, **form)
    for _ in range(400):
        optimizer.train()
        optimizer.zero_grad()
        (model.weight - target).square().sum().div(2).backward()
        optimizer.step()
        optimizer.eval()
    assert model.weight.tolist()[0] == pytest.approx(expected, abs=0.01)


class Adapting(torch.optim.SGD):
    """Uses another rate than its groups show, like Prodigy and D-Adaptation."""

    def __init__(self, params) -> None:
        super().__init__(params, 1.0)
        self.param_groups[0].update(d=1e-6, growth_rate=math.inf)


class Stepping(torch.optim.SGD):
    """A subclass with a step of its own."""

    def step(self, closure=None):
        return super().step(closure)


class ClosureScheduleFree(torch.optim.SGD):
    """Has the groups of those schedulefree optimizers whose step takes a closure, which have no modes."""

    def __init__(self, params) -> None:
        super().__init__(params, 0.1)
        self.param_groups[0].update(weight_lr_power=2.0)


REFUSED = {
    "schedule-free by closures": (ClosureScheduleFree, {"l2_update": "decoupled"}, "it computes its weights from"),
    "schedule-free": (
        lambda p: own.ScheduleFreeSGD(p, 0.1),
        {"l2_update": "decoupled"},
        "it computes its weights from",
    ),
    "adapted rate": (Adapting, {"l2_update": "decoupled"}, "must be coupled with Adapting, got 'decoupled': it adapts"),
    "momentum 1": (lambda p: torch.optim.SGD(p, 0.1, momentum=1.0), {"l1_update": "proximal"}, "must be below 1 with"),
    "own step": (lambda p: Stepping(p, 0.1), {"l1_update": "proximal"}, "must be subgradient with Stepping"),
    "both signs": (
        lambda p: torch.optim.SGD([{"params": [q], "maximize": q.ndim == 4} for q in p], 0.1),
        {},
        "maximize must be the same for all penalized weights",
    ),
}


@pytest.mark.parametrize(("make", "form", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_compute_something_else_is_one_line(make, form, message):
    model = small_net()
    with pytest.raises(ConfigError, match=message) as error:
        penalize(model, make(model.parameters()), 0.1, 0.1, **form)
    assert "\n" not in str(error.value)


def test_a_momentum_that_reaches_1_later_is_refused_at_that_step():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    penalize(model, sgd, 0.1, l1_update="proximal")
    sgd.param_groups[0]["momentum"] = 1.0
    with pytest.raises(ConfigError, match="momentum must be below 1"):
        train(model, sgd, None)


def test_lazy_layers_are_penalized_once_they_have_seen_a_batch():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ConfigError, match="must have seen a batch before it is penalized"):
        penalize(model, sgd, 0.1)
    model(torch.zeros(2, 4))
    penalize(model, sgd, 0.1)


# ---- zeros


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
        ({"l2_update": "adamw"}, "penalty.l2_update must be one of coupled, decoupled, cautious, got 'adamw'"),
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
    penalty_of(model, torch.optim.AdamW(model.parameters()), l1=0.1)  # torch's weight decay with our l1 is allowed


def test_penalize_is_refused_where_it_holds_already_and_can_be_removed():
    model, other = small_net(), small_net()
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], 0.1)
    penalty = penalize(model, optimizer, l1=0.5, l1_update="proximal")
    penalize(other, optimizer, l2=0.5)
    with pytest.raises(ConfigError, match="penalize must be called only once for a model"):
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
    sgd = torch.optim.SGD(model[4].parameters(), 0.1)
    with pytest.raises(
        ConfigError, match=r"must hold every penalized weight, 1 are not in it: .* penalize\(..., weights="
    ):
        penalize(model, sgd, 0.1)
    penalize(model, sgd, 0.1, weights=[model[4].weight]).remove()
    penalize(model[4], sgd, 0.1)


def test_a_step_without_gradients_leaves_the_weights():
    model = small_net()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    for update in ("subgradient", "proximal"):
        penalty = penalize(model, sgd, 0.1, 0.1, l1_update=update)
        sgd.step()
        penalty.remove()
    assert same(model, small_net())


def test_a_strength_for_a_model_without_weights_is_an_error():
    model = nn.BatchNorm2d(3)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    assert penalty_of(model, sgd).value() == 0
    with pytest.raises(ConfigError, match="must have weights of convolutions or linear layers to penalize, got none"):
        penalty_of(model, sgd, l1=1.0)
    assert penalty_of(model, sgd, l1=1.0, name="notebook").value() == 1.0
