"""Averaged weights compared with averages by hand; with averaging and mixing, exact resumption and several ranks."""

import pytest
import tiny
import torch
from tiny import killed_and_continued, same_bits
from torch import nn

from reg_sweep.config.regularizers import AveragingConfig, MixConfig
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig, OptimizerConfig
from reg_sweep.training.evaluation import Averaging
from reg_sweep.training.fit import fit
from reg_sweep.training.norms import GhostBatchNorm2d


def trained(config: AveragingConfig, n_epochs: int, n_steps: int, norm: nn.Module):
    """Changes a network's weights at random; returns the averages, and its weights after each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(36, 2))
    averaging = Averaging(model, torch.optim.SGD(model.parameters(), lr=0.1), config, n_epochs)
    seen, batches = [], [torch.randn(7, 1, 5, 5), torch.randn(4, 1, 5, 5)]
    for epoch in range(n_epochs):
        for _ in range(n_steps):
            for p in model.parameters():
                p.data.add_(torch.randn_like(p))
            averaging.after_step()
            seen.append([p.detach().clone() for p in model.parameters()])
        averaging.end_epoch(epoch, batches)
    return model, averaging, seen, batches


def test_ema_is_the_average_by_its_formula():
    model, averaging, seen, _ = trained(AveragingConfig("ema", 0.6), 2, 10, nn.BatchNorm2d(4))
    expected = seen[0]
    for t, weights in enumerate(seen[1:], 2):
        d = min(0.6, t / (9 + t))
        expected = [d * a + (1 - d) * w for a, w in zip(expected, weights, strict=True)]
    assert averaging.evaluated is not model
    torch.testing.assert_close(list(averaging.evaluated.parameters()), expected)


def test_swa_is_the_mean_of_the_weights_after_the_last_epochs():
    model, averaging, seen, _ = trained(AveragingConfig("swa", start=0.5), 4, 3, nn.BatchNorm2d(4))
    expected = [(a + b) / 2 for a, b in zip(seen[8], seen[11], strict=True)]
    torch.testing.assert_close(list(averaging.evaluated.parameters()), expected)
    early = Averaging(model, torch.optim.SGD(model.parameters(), lr=0.1), AveragingConfig("swa"), 4)
    early.end_epoch(2, [])
    assert early.evaluated is model


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), GhostBatchNorm2d(4, 3)], ids=["bn", "gbn"])
def test_norms_get_the_statistics_of_the_averaged_weights(norm):
    model, averaging, _, batches = trained(AveragingConfig("ema"), 1, 3, norm)
    conv, found = averaging.evaluated[0], averaging.evaluated[1]
    ghosts = [batches[0][:3], batches[0][3:], batches[1]]  # a single last image joins those before it
    parts = [conv(part) for part in (ghosts if isinstance(norm, GhostBatchNorm2d) else batches)]
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    var = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
    torch.testing.assert_close(found.running_mean, mean.detach())
    torch.testing.assert_close(found.running_var, var.detach())
    assert not torch.equal(model[1].running_mean, found.running_mean)


def test_a_network_or_optimizer_that_can_not_be_averaged_is_refused_in_one_line():
    class Uncopied(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("only one of me")

    class ScheduleFree(torch.optim.SGD):
        def train(self) -> None: ...

        def eval(self) -> None: ...

    for model, kind in ((Uncopied(2, 2), torch.optim.SGD), (nn.Linear(2, 2), ScheduleFree)):
        with pytest.raises(ConfigError, match="averaging must be none with") as error:
            Averaging(model, kind(model.parameters(), lr=0.1), AveragingConfig("ema"), 2)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "regularizers",
    [
        {"averaging": AveragingConfig("ema"), "mix": MixConfig("mixup"), "norm": NormConfig("gbn", 8)},
        {"averaging": AveragingConfig("swa", start=0.5), "mix": MixConfig("cutmix")},
        {
            "l1": 0.001,
            "l1_schedule": {"name": "warmup", "warmup": 0.5},
            "penalties": {"ortho": {"_target_": "reg_sweep.orthogonality", "strength": 0.01, "schedule": "cosine"}},
        },
    ],
    ids=["ema", "swa", "penalties"],
)
def test_a_killed_run_ends_with_the_same_bits(regularizers, tmp_path):
    run = tiny.tiny_run(epochs=4, **regularizers)
    whole = fit(run, progress=False)
    resumed = killed_and_continued(run, tmp_path, 1, 3)
    assert same_bits(whole.model, resumed.model)
    assert whole.test.loss == resumed.test.loss
    assert [r["penalty"] for r in whole.history] == [r["penalty"] for r in resumed.history]


def test_a_run_returns_the_averaged_network_and_draws_as_one_without():
    plain, averaged = (fit(tiny.tiny_run(averaging=AveragingConfig(name)), progress=False) for name in ("none", "ema"))
    assert [r["train_loss"] for r in plain.history] == [r["train_loss"] for r in averaged.history]
    assert plain.test.loss != averaged.test.loss
    assert averaged.history[-1]["test_loss"] == averaged.test.loss
    assert not same_bits(plain.model, averaged.model)


def test_an_optimizer_of_ones_own_may_be_averaged():
    optimizer = OptimizerConfig("own", 0.001, source={"_target_": "torch.optim.RMSprop"})
    run = tiny.tiny_run(epochs=1, optimizer=optimizer, averaging=AveragingConfig("ema"))
    assert fit(run, progress=False).status == "complete"
