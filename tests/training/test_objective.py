"""The loss of a batch: mixed images compared with torchvision's transforms, and custom losses."""

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from reg_sweep.config.regularizers import LossConfig, MixConfig
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig, OptimizerConfig
from reg_sweep.training.fit import fit
from reg_sweep.training.objective import Labels, Objective

CPU = torch.device("cpu")


def squared(logits, labels, weight=1.0):
    return weight * (logits - F.one_hot(labels, logits.shape[1])).square().sum(1).mean()


def unreduced(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


def without_gradient(logits, labels):
    return F.cross_entropy(logits.detach(), labels)


def own(name: str, **arguments) -> LossConfig:
    return LossConfig(name="own", source={"_target_": name if "." in name else f"{__name__}.{name}", **arguments})


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_images_and_loss_are_those_of_torchvisions_transforms_for_the_same_draws(name, monkeypatch):
    from torchvision.transforms import v2

    x, y = torch.rand(6, 3, 9, 12), torch.tensor([0, 1, 2, 3, 1, 0])
    objective = Objective(LossConfig(0.2), MixConfig(name, 1.0), 4, CPU)
    theirs = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[name](alpha=1.0, num_classes=4)
    for seed in range(20):
        mixed, labels = objective.mixed(x, y, np.random.default_rng(seed))
        draws = np.random.default_rng(seed)
        share, (row, column) = draws.beta(1.0, 1.0), draws.random(2)
        drawn = iter([torch.tensor([int(column * 12)]), torch.tensor([int(row * 9)])])
        monkeypatch.setattr(theirs, "_dist", type("", (), {"sample": lambda self, _, s=share: torch.tensor(s)})())
        monkeypatch.setattr(torch, "randint", lambda *_, drawn=drawn, **__: next(drawn))
        images, targets = theirs(x, y)
        torch.testing.assert_close(mixed, images)
        logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        expected = F.cross_entropy(logits, targets, label_smoothing=0.2)
        torch.testing.assert_close(objective.loss(logits, labels), expected)
        assert torch.equal(labels.main, y if labels.share >= 0.5 else y.roll(1))


def test_without_mixing_a_batch_is_left_as_it_is():
    x, y = torch.rand(4, 1, 5, 5), torch.arange(4)
    mixed, labels = Objective(LossConfig(), MixConfig(), 4, CPU).mixed(x, y, np.random.default_rng(0))
    assert mixed is x
    assert labels == Labels(y)


def test_an_own_loss_gets_logits_labels_and_its_arguments():
    logits, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    of_function = Objective(own("squared", weight=2.0), MixConfig(), 3, CPU).loss(logits, Labels(y))
    assert of_function == squared(logits, y, 2.0)
    of_class = Objective(own("torch.nn.MultiMarginLoss", margin=0.5), MixConfig(), 3, CPU).loss(logits, Labels(y))
    assert of_class == nn.MultiMarginLoss(margin=0.5)(logits, y)


@pytest.mark.parametrize(
    ("loss", "rule"),
    [
        (own("unreduced"), "loss.source must return a number: a real tensor without axes, got a tensor (2,)"),
        (own("without_gradient"), "loss.source must return a number with a gradient"),
        (own("squared", weigth=2), "loss.source must be callable as documented, got"),
        (own("torch.nn.MultiMarginLoss", p=3), "loss.source must take the arguments of its config"),
        (own("math.pi"), "loss.source._target_ must be callable"),
    ],
)
def test_an_own_loss_that_is_no_loss_is_refused_in_one_line_before_any_work(loss, rule):
    with pytest.raises(ConfigError) as error:
        fit(tiny.tiny_run(loss=loss), progress=False)
    assert str(error.value).startswith(rule)
    assert "\n" not in str(error.value)


def test_an_own_loss_trains_and_val_and_test_stay_cross_entropy():
    run = tiny.tiny_run(epochs=6, loss=own("squared"), optimizer=OptimizerConfig(lr=0.02), norm=NormConfig("bn"))
    last = fit(run, progress=False).history[-1]
    assert last["test_accuracy"] > 0.5
    assert last["train_loss"] < 1  # the squared loss; the cross-entropy of such logits is above 1
    assert last["test_loss"] > 1
