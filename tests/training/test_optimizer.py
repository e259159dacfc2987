"""SGD, AdamW and custom optimizers: their settings, refused ones, and exact resumption."""

import pytest
import tiny
import torch
from own import spec
from tiny import killed_and_continued, same_bits

from reg_sweep.config.digest import digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import OptimizerConfig, PenaltyConfig, to_dict
from reg_sweep.training.fit import fit
from reg_sweep.training.optimizer import make_optimizer


def own(target: str, lr: float = 0.001, **arguments) -> OptimizerConfig:
    return OptimizerConfig("own", lr=lr, source={"_target_": target, **arguments})


def make(config: OptimizerConfig, seed: int = 0) -> torch.optim.Optimizer:
    return make_optimizer(torch.nn.Linear(2, 2), config, seed)


def test_optimizers_get_their_settings_and_decay_nothing():
    sgd = make(OptimizerConfig(lr=0.3, momentum=0.5, nesterov=True)).param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["nesterov"], sgd["weight_decay"]) == (0.3, 0.5, True, 0)
    adamw = make(OptimizerConfig("adamw", lr=0.3, betas=[0.8, 0.9])).param_groups[0]
    assert (adamw["lr"], adamw["betas"], adamw["weight_decay"]) == (0.3, (0.8, 0.9), 0)


def test_an_optimizer_of_ones_own_is_called_with_the_parameters_the_rate_and_its_arguments():
    optimizer = make(own("torch.optim.RMSprop", lr=0.3, alpha=0.5))
    assert isinstance(optimizer, torch.optim.RMSprop)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["alpha"], len(group["params"])) == (0.3, 0.5, 2)


def test_what_an_optimizer_draws_as_it_is_made_follows_from_the_seed_alone():
    rates = [make(own("own.drawn_rate"), seed).param_groups[0]["lr"] for seed in (1, 1, 2)]
    assert rates[0] == rates[1] != rates[2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (own("own.Nothing"), "optimizer.source._target_ must be importable from here, got 'own.Nothing': "),
        (own("own.SignMomentum", beta=2), "optimizer.source must take .*, got 'own.SignMomentum': beta must be at "),
        (own("own.SignMomentum", gamma=2), "optimizer.source must take .* unexpected keyword argument 'gamma'"),
        (own("own.ramp"), "optimizer.source must take .parameters, lr. and the arguments of its config, got 'own.r"),
        (own("builtins.dict"), "optimizer.source must make a torch.optim.Optimizer, got dict from 'builtins.dict'"),
        (own("torch.optim.AdamW"), "without weight decay, which l2 replaces, got 0.01 .*: add weight_decay: 0"),
        (own("torch.optim.LBFGS"), "make an optimizer whose step needs no closure, got 'torch.optim.LBFGS'"),
    ],
)
def test_a_source_that_is_no_good_is_refused_in_one_line(config, message):
    with pytest.raises(ConfigError, match=message) as error:
        make(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["own.SignMomentum", "torch.optim.NAdam", "own.two_rates", "own.ScheduleFreeSGD"])
def test_a_run_with_an_optimizer_of_ones_own_continues_bit_for_bit(target, tmp_path):
    run = tiny.tiny_run(epochs=3, optimizer=own(target, lr=0.01))
    whole = fit(run, progress=False)
    again = killed_and_continued(run, tmp_path, 1)
    assert len(again.history) == 3
    assert same_bits(whole.model, again.model)


def test_a_state_that_no_checkpoint_gives_back_is_refused_when_it_is_first_kept(tmp_path):
    run = tiny.tiny_run(optimizer=OptimizerConfig("own", source=spec("Hoarder")))
    with pytest.raises(ConfigError, match="must keep only plain values and tensors in their state") as error:
        fit(run, directory=tmp_path, progress=False)
    assert "\n" not in str(error.value)


def test_a_penalty_that_an_optimizer_can_not_take_is_refused_before_anything_is_trained(tmp_path):
    run = tiny.tiny_run(l1=0.1, optimizer=own("own.SignMomentum"), penalty=PenaltyConfig(l1_update="proximal"))
    with pytest.raises(ConfigError, match="must be subgradient with SignMomentum"):
        fit(run, directory=tmp_path / "a", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_source_and_each_of_its_arguments_are_part_of_the_digest():
    configs = [OptimizerConfig(), own("own.SignMomentum"), own("own.SignMomentum", beta=0.5), own("own.two_rates")]
    assert len({digest(to_dict(tiny.tiny_run(optimizer=config))) for config in configs}) == 4


def test_the_source_that_is_not_there_leaves_a_digest_as_it_was_before_there_were_sources():
    config = to_dict(tiny.tiny_run())
    older = {**config, "optimizer": {k: v for k, v in config["optimizer"].items() if k != "source"}}
    older["schedule"] = {k: v for k, v in config["schedule"].items() if k not in ("source", "interval")}
    del older["callbacks"]
    assert digest(older) == digest(config)


def test_a_schedule_free_optimizer_is_evaluated_at_the_weights_that_it_evaluates_at():
    run = tiny.tiny_run(l2=0.01, optimizer=own("own.ScheduleFreeSGD", lr=0.1))
    fitted = fit(run, progress=False)
    assert tiny.on_test(fitted.model).loss == fitted.history[-1]["test_loss"]
