"""Runs that are trained together: that they equal runs trained alone, however they end; and what is computed alone."""

import logging
from functools import partial

import own
import pytest
import tiny
import torch
from tiny import KilledError, kill_after, same_bits, timeless
from torch import nn

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig, OptimizerConfig, RunConfig
from reg_sweep.runs.record import CHECKPOINT_FILE
from reg_sweep.training import population as population_module
from reg_sweep.training import turns
from reg_sweep.training.fit import Fitted, fit
from reg_sweep.training.population import Population
from reg_sweep.training.stacked import NotStackableError, check_stackable

CPU = torch.device("cpu")
NORMS: dict[str, dict] = {"none": {}, "bn": {}, "gbn": {"ghost_batch_size": 5}, "gn": {"groups": 2}, "ln": {}, "in": {}}
# Small: three batches per epoch, the last one smaller.
DATA = {"n_train": 60, "n_test": 20, "val_size": 20}
# Settings that may differ between runs in a stack.
ARMS: dict[str, dict] = {
    "no_penalty": {},
    "textbook": {"l1": 0.001, "l2": 0.01},
    "notebook": {"l1": 0.1, "l2": 0.01, "penalty": "notebook"},
    "proximal": {"l1": 0.001, "penalty": {"l1_update": "proximal"}},
    "decoupled": {"l2": 0.1, "penalty": {"l2_update": "decoupled"}},
    "cautious": {"l2": 0.1, "penalty": {"l2_update": "cautious"}},
    "channels": {"l1": 0.001, "penalty": {"l1_on": "channels", "l1_update": "proximal"}},
    "own_penalty": {"penalties": {"ortho": {"_target_": "reg_sweep.orthogonality", "strength": 0.01}}},
    "moving_l1": {"l1": 0.001, "l1_schedule": "warmup"},
    "adamw": {"l1": 0.001, "l2": 0.01, "optimizer": {"name": "adamw", "lr": 0.003}},
    "own_optimizer": {"optimizer": {"name": "own", "source": own.spec("SignMomentum"), "lr": 0.001}},
    "onecycle": {"schedule": "onecycle"},
    "smoothing": {"loss": {"label_smoothing": 0.1}},
    "mixup": {"mix": {"name": "mixup", "alpha": 0.5}},
    "ema": {"averaging": {"name": "ema", "decay": 0.9}},
    "crops": {"data": tiny.tiny_data_config(**DATA, crop=2, flip=0.5)},
}


def run_of(arm: str, seed: int = 1, **more) -> RunConfig:
    settings = {"epochs": 3, "batch_size": 16, "data": tiny.tiny_data_config(**DATA), **ARMS[arm], **more}
    return tiny.tiny_run(seed=seed, **{"model": own.spec("DoubleCnn"), **settings})


def together(runs: list[RunConfig], at_most: int = 99, directory=None, **settings) -> list[Fitted]:
    def one(i: int) -> Fitted:
        where = None if directory is None else directory / str(i)
        return fit(runs[i], directory=where, progress=False, **settings)

    return Population(CPU, 1, at_most).run([partial(one, i) for i in range(len(runs))])


def assert_close(found: Fitted, expected: Fitted, tolerance: float = 1e-8) -> None:
    assert found.status == expected.status
    assert len(found.history) == len(expected.history)
    for name, tensor in expected.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], tensor, rtol=0, atol=tolerance, msg=name)
    for row, other in zip(found.history, expected.history, strict=True):
        for name in timeless(row):
            assert row[name] == pytest.approx(other[name], rel=1e-5, nan_ok=True), name
    if expected.test is not None:
        assert (found.test.predicted == expected.test.predicted).all()


def assert_equal_to_single_runs(found: list[Fitted], runs: list[RunConfig], tolerance: float = 1e-8) -> None:
    for one, run in zip(found, runs, strict=True):
        assert_close(one, fit(run, progress=False), tolerance)


@pytest.fixture
def stacks(monkeypatch) -> list[int]:
    """The number of runs in each pass of a stack."""
    sizes: list[int] = []
    compute = population_module.Stack.compute

    def counted(self, batches):
        sizes.append(len(batches))
        return compute(self, batches)

    monkeypatch.setattr(population_module.Stack, "compute", counted)
    return sizes


# ---- equal to single runs


@pytest.mark.parametrize("norm", NORMS)
def test_each_run_of_a_stack_is_the_run_that_it_is_alone(norm, stacks):
    # gn and ln normalize several channels together, so none can be removed.
    arms = [arm for arm in ARMS if arm != "channels" or norm not in ("gn", "ln")]
    runs = [run_of(arm, seed, epochs=2, norm=NormConfig(norm, **NORMS[norm])) for seed, arm in enumerate(arms)]
    assert_equal_to_single_runs(together(runs), runs)
    assert stacks == [len(runs)] * 6


@pytest.mark.parametrize("model", ["DoubleMlp", "DoubleResNet"])
@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_other_networks_are_stacked_too(model, norm, stacks):
    made_of = {"model": own.spec(model), "norm": NormConfig(norm, **NORMS[norm])}
    runs = [run_of("textbook", seed, epochs=2, **made_of) for seed in (1, 2, 3)]
    assert_equal_to_single_runs(together(runs), runs)
    assert stacks == [3] * 6


def test_scales_are_penalized_in_a_stack(stacks):
    runs = [run_of("no_penalty", s, l1=0.01, penalty="scales", epochs=2) for s in (1, 2)]
    assert_equal_to_single_runs(together(runs), runs)
    assert stacks == [2] * 6


def test_runs_in_float32_and_bfloat16_are_close(stacks):
    for precision in ("float32", "bfloat16"):
        model, runtime = {"_target_": "reg_sweep.SqueezeExpand", "channels": 8}, {"device": "cpu", "threads": 1}
        runtime |= {"precision": precision}
        runs = [run_of("textbook", seed, model=model, runtime=runtime, epochs=1) for seed in (1, 2)]
        for found, run in zip(together(runs), runs, strict=True):
            expected = fit(run, progress=False).history[0]["train_loss"]
            assert found.history[0]["train_loss"] == pytest.approx(expected, rel=0.02)
    assert stacks == [2] * 6


# ---- what is not stacked


def test_runs_of_another_kind_go_in_other_stacks_or_alone(stacks, caplog):
    caplog.set_level(logging.INFO)
    runs = [run_of("textbook", s) for s in (1, 2)]
    runs += [run_of("no_penalty", s, norm=NormConfig("ln"), epochs=2) for s in (1, 2, 3)]
    runs += [run_of("no_penalty", batch_size=20)]
    assert_equal_to_single_runs(together(runs), runs)
    assert sorted(stacks) == [2] * 9 + [3] * 6
    assert "2 runs in stacks of at most 99: own.DoubleCnn, norm=bn" in caplog.text
    assert "training alone, as the only run of its kind: own.DoubleCnn, norm=bn, float32, 40 images" in caplog.text


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("AcrossChannels", "its own code computes something different with more channels"),
        ("FunctionalDropout", "its own code computes something different with more channels"),
        ("WithLayerNorm", "LayerNorm has no known stacked form"),
        ("Tied", "its layers share tensors"),
    ],
)
def test_a_network_that_looks_across_channels_is_computed_alone(model, why, stacks, caplog):
    caplog.set_level(logging.INFO)
    runs = [run_of("no_penalty", s, model=own.spec(model), epochs=1) for s in (1, 2)]
    assert_equal_to_single_runs(together(runs), runs, tolerance=0)
    assert stacks == []
    assert f"2 runs are computed one by one, because {why}: own.{model}" in caplog.text


def test_layers_with_hooks_or_of_other_sizes_are_not_stackable():
    def pair() -> list[nn.Module]:
        return [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()) for _ in range(2)]

    check_stackable(pair(), (1, 4, 4), torch.channels_last)
    hooked = pair()
    hooked[0][0].register_forward_hook(lambda *_: None)
    with pytest.raises(NotStackableError, match="hooks"):
        check_stackable(hooked, (1, 4, 4), torch.channels_last)
    with pytest.raises(NotStackableError, match="differ in size"):
        check_stackable([pair()[0], nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten())], (1, 4, 4), torch.channels_last)


# ---- runs that end early


def test_a_run_that_diverges_or_is_pruned_leaves_the_others_as_they_are(stacks):
    runs = [run_of("textbook", 1), run_of("no_penalty", 2, optimizer=OptimizerConfig(lr=1e30)), run_of("mixup", 3)]

    def prunes(row) -> bool:
        return row["epoch"] == 2 and turns.current().pruned

    def one(i: int) -> Fitted:
        turns.current().pruned = i == 2
        return fit(runs[i], progress=False, on_epoch=prunes)

    found = Population(CPU, 1, 9).run([partial(one, i) for i in range(3)])
    assert [f.status for f in found] == ["complete", "diverged", "pruned"]
    assert_close(found[0], fit(runs[0], progress=False))
    diverged = fit(runs[1], progress=False)
    assert (found[1].status, found[1].message) == (diverged.status, diverged.message)
    assert_close(found[2], fit(runs[2], progress=False, on_epoch=lambda row: row["epoch"] == 2))
    assert max(stacks) == 3
    assert min(stacks) == 2


def test_a_run_that_fails_is_the_only_one_that_does():
    def breaks():
        raise ValueError("its own")

    def succeeds():
        done.append(fit(run_of("textbook", epochs=1), progress=False).status)

    done = []
    with pytest.raises(ValueError, match="its own"):
        Population(CPU, 1, 9).run([breaks, succeeds])
    assert done == ["complete"]


def test_more_runs_than_are_trained_at_a_time_join_as_others_leave(stacks):
    runs = [run_of("textbook", s, epochs=1 + s % 2) for s in range(1, 6)]
    assert_equal_to_single_runs(together(runs, at_most=3), runs)
    assert max(stacks) == 3


def test_runs_that_resume_are_what_they_would_have_been(tmp_path, stacks):
    runs = [run_of("textbook", 1), run_of("adamw", 2), run_of("ema", 3), run_of("mixup", 4)]
    runs = [RunConfig(**{**vars(r), "model": {"_target_": "reg_sweep.SqueezeExpand", "channels": 8}}) for r in runs]
    whole = together(runs)

    with pytest.raises(KilledError):
        together(runs, directory=tmp_path, on_epoch=kill_after(2))
    for i in (1, 2):  # these start again, so their epochs differ from their neighbours'
        (tmp_path / str(i) / CHECKPOINT_FILE).unlink()
    for found, expected in zip(together(runs, directory=tmp_path), whole, strict=True):
        assert same_bits(found.model, expected.model)


# ---- memory


def test_a_stack_without_memory_is_halved_and_nothing_is_lost(monkeypatch, stacks, caplog):
    runs = [run_of("textbook", s, norm=NormConfig("gbn", ghost_batch_size=5)) for s in range(1, 6)]
    logits, calls = population_module.StackedNetwork.logits, []

    def hungry(self, x):
        made = logits(self, x)  # draws masks and changes the norms' statistics before it fails
        calls.append(len(x))
        if len(calls) > 4 and len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made

    monkeypatch.setattr(population_module.StackedNetwork, "logits", hungry)
    found = together(runs)
    monkeypatch.undo()
    assert_equal_to_single_runs(found, runs)
    assert "not enough memory for a stack of 5 runs: continuing in stacks of 3" in caplog.text
    assert "not enough memory for a stack of 3 runs: continuing in stacks of 2" in caplog.text


def test_as_many_runs_are_stacked_as_memory_allows(monkeypatch, stacks, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(population_module, "step_bytes", lambda batch: 1e6)
    monkeypatch.setattr(population_module, "available_bytes", lambda device: 3e6)
    together([run_of("textbook", s, epochs=1) for s in range(5)])
    assert stacks == [2, 2] * 3  # and one alone
    assert "5 runs in stacks of at most 2" in caplog.text
    assert "a run's step takes 1 MB, and 3 MB are free" in caplog.text


# ---- errors and messages of a population


def test_a_loss_that_fails_in_a_stack_ends_its_own_run_alone(stacks, caplog):
    done = []

    def one(run: RunConfig) -> None:
        done.append(fit(run, progress=False).status)

    runs = [
        run_of("textbook", 1),
        run_of("no_penalty", 2, loss={"name": "own", "source": own.spec("failing_loss", at=4)}),
    ]
    with pytest.raises(RuntimeError, match="at call 4"):
        Population(CPU, 1, 9).run([partial(one, run) for run in runs])
    assert done == ["complete"]
    assert "a stack of 2 runs failed, the runs continue one by one: RuntimeError: at call 4" in caplog.text


def test_what_the_program_around_has_drawn_and_set_stands_afterwards():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    together([run_of("textbook", s, epochs=1) for s in (1, 2)])
    assert torch.equal(torch.rand(2), expected)
    assert turns.current() is None


def test_apples_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"runtime.device must be cuda or cpu .*, got mps"):
        Population(torch.device("mps"), None, 8)


def test_a_population_on_the_cpu_is_warned_of(caplog):
    together([run_of("textbook", s, epochs=1) for s in (1, 2)])
    assert caplog.text.count("a population on the CPU is no faster than its runs one after another") == 1
