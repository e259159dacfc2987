"""Custom penalties, compared with differentiating the whole penalized loss, from Python and in a run."""

import copy

import pytest
import tiny
import torch
from networks import fill_gradients
from torch import nn

from reg_sweep import orthogonality, penalize
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import OptimizerConfig
from reg_sweep.runs.reading import read_metrics
from reg_sweep.training.fit import fit
from reg_sweep.training.penalties import Penalty
from reg_sweep.training.schedule import Schedule


def fourth(model, factor=1.0):
    return factor * sum(p.pow(4).sum() for p in model.parameters())


def fourth_of_each(weight):
    return weight.pow(4).sum()


class Fourth:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, model):
        return fourth(model, self.factor)


def no_number(model):
    return 3


def no_gradient(model):
    return next(model.parameters()).detach().sum()


def a_vector(model):
    return next(model.parameters()).flatten()


def of_nothing(model):
    return torch.ones((), requires_grad=True) * 2


def infinite(model):
    return fourth(model) / 0


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        ({"_target_": fourth, "factor": 2.0}, lambda m: fourth(m, 2.0)),
        ({"_target_": f"{__name__}.Fourth", "factor": 2.0}, lambda m: fourth(m, 2.0)),
        ({"_target_": fourth_of_each, "of": "weights"}, lambda m: sum(m[i].weight.pow(4).sum() for i in (0, 2))),
        ({"_target_": fourth_of_each, "of": "2.*"}, lambda m: fourth(m[2])),
        ({"_target_": "reg_sweep.orthogonality"}, lambda m: orthogonality(m[0].weight) + orthogonality(m[2].weight)),
    ],
    ids=["function", "class", "weights", "pattern", "orthogonality"],
)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_is_that_of_the_penalized_loss_and_gradients_are_given_back(spec, reference, kind):
    ours, x = network(), torch.randn(5, 3)
    theirs = copy.deepcopy(ours)
    optimizer, other = (kind(m.parameters(), lr=0.1, weight_decay=0.0) for m in (ours, theirs))
    penalty = penalize(ours, optimizer, l1=0.01, l2=0.02, penalties={"own": {**spec, "strength": 0.3}})
    for _ in range(4):
        for model, its in ((ours, optimizer), (theirs, other)):
            its.zero_grad()
            loss = model(x).square().mean()
            if model is theirs:
                weights = [model[i].weight for i in (0, 2)]
                loss = loss + 0.3 * reference(model)
                loss = loss + sum(0.01 * w.abs().sum() + 0.01 * w.square().sum() for w in weights)
            loss.backward()
            before = [p.grad.clone() for p in model.parameters()]
            its.step()
            assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))
    assert penalty.own_values() == {"own": pytest.approx(0.3 * reference(ours).item())}


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"_target_": no_number}, "penalties.bad must return a number: a real tensor without axes, got int"),
        ({"_target_": a_vector}, "penalties.bad must return a number: a real tensor without axes, got a tensor (12,)"),
        ({"_target_": no_gradient}, "penalties.bad must return a number with a gradient"),
        ({"_target_": of_nothing}, "penalties.bad must depend on a parameter that the optimizer trains"),
        ({"_target_": infinite}, "penalties.bad must return a number: a real tensor without axes that is finite, got"),
        ({"_target_": fourth, "power": 3}, "penalties.bad must be callable as documented, got 'fourth'"),
        ({"_target_": fourth, "of": "conv*"}, "penalties.bad.of must match a parameter, got 'conv*'"),
        ({"_target_": fourth, "schedule": "cosine"}, "penalties.bad.schedule must be left out with penalize"),
        ({"_target_": fourth, "strength": None}, "penalties.bad.strength must be given"),
        ({"_target_": fourth, "strength": -1}, "penalties.bad.strength must be a finite number of at least 0, got -1"),
        ({"_target_": fourth, "strength": 1e39}, "penalties.bad.strength must be at most 3.4e+38"),
        ({"_target_": 3}, "penalties.bad._target_ must be the dotted path of a callable, got 3"),
        (3, "penalties.bad must be a mapping with _target_ and strength, got 3"),
    ],
)
def test_what_is_no_penalty_is_refused_in_one_line(spec, rule):
    model = network()
    spec = {"strength": 1.0, **spec} if isinstance(spec, dict) else spec
    with pytest.raises(ConfigError) as error:
        penalize(model, torch.optim.SGD(model.parameters(), lr=0.1), penalties={"bad": spec})
    assert str(error.value).startswith(rule)
    assert "\n" not in str(error.value)


def test_a_runs_metrics_have_a_column_for_each_penalty(tmp_path):
    spec = {"_target_": "reg_sweep.orthogonality", "strength": 0.01}
    fitted = fit(tiny.tiny_run(penalties={"ortho": spec}), directory=tmp_path, progress=False)
    row = read_metrics(tmp_path)[-1]
    assert row == fitted.history[-1]
    assert row["penalties.ortho"] == row["penalty"] == pytest.approx(0.01 * orthogonality(fitted.model).item())


def test_a_strength_of_zero_changes_nothing_and_costs_no_call():
    calls = []
    spec = {"_target_": lambda model: calls.append(1), "strength": 0}
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = penalize(model, optimizer, penalties={"own": spec})
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert penalty.value() == 0
    assert calls == []


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("warmup", [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1]), ("cosine", [1.0, None, None, None, 0.5, None, None, None])],
)
def test_strengths_follow_their_schedules(schedule, shares):
    moves = {"name": schedule, "warmup": 0.5} if schedule == "warmup" else {"name": schedule}
    own = {"four": {"_target_": f"{__name__}.fourth", "strength": 0.3, "schedule": moves}}
    run = tiny.tiny_run(epochs=2, l1=0.1, l1_schedule=moves, penalties=own, optimizer=OptimizerConfig(lr=0.1))
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    penalty = Penalty(model, optimizer, run.l1, run.l2, run.penalty, own=run.penalties)
    made = Schedule(optimizer, run, 4, penalty)
    full = penalty.own_values()["four"], penalty.value()
    for step, share in enumerate(shares):
        made.set_step(step)
        if share is not None:
            assert penalty.own_values()["four"] == pytest.approx(share * full[0])
            assert penalty.value() == pytest.approx(share * full[1])


def test_a_penalty_that_grows_without_bound_ends_the_run_as_diverged():
    spec = {"_target_": f"{__name__}.fourth", "strength": 1e6}
    fitted = fit(tiny.tiny_run(penalties={"four": spec}), progress=False)
    assert fitted.status == "diverged"
    assert "not finite" in fitted.message or "became" in fitted.message


def test_a_step_within_autocast_computes_the_penalty_in_the_weights_precision():
    found = []
    for enabled in (False, True):
        model = network()
        sgd = torch.optim.SGD(model.parameters(), 0.1)
        penalty = penalize(model, sgd, penalties={"ortho": {"_target_": orthogonality, "strength": 0.3}})
        fill_gradients(model)
        with torch.autocast("cpu", enabled=enabled):
            value = penalty.value()
            sgd.step()
        found.append((value, [p.detach() for p in model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
