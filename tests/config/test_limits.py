"""The largest run that may be asked for."""

import os

import pytest

from reg_sweep.config.rules import MAX_EPOCHS, MAX_THREADS, ConfigError
from reg_sweep.config.schema import (
    DataConfig,
    NormConfig,
    OptimizerConfig,
    PenaltyConfig,
    RunConfig,
    RuntimeConfig,
    ScheduleConfig,
)

STEP = ScheduleConfig("step", gamma=1e300, step_size=1)
PROXIMAL = PenaltyConfig(l1_update="proximal")
DECOUPLED = PenaltyConfig(l2_update="decoupled")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l2": 1e300}, "l2 must keep l2 times a weight within float32"),
        ({"optimizer": OptimizerConfig(lr=1e308)}, "optimizer.lr must keep the rate within float32"),
        ({"optimizer": OptimizerConfig("adamw", lr=1e38)}, "optimizer.lr must keep optimizer.lr / (1 - beta) within"),
        ({"schedule": STEP, "epochs": 2}, "schedule.gamma must keep optimizer.lr * schedule.gamma^1 within float32"),
        ({"schedule": STEP, "epochs": 900}, "schedule.gamma must keep optimizer.lr * schedule.gamma^899 within"),
        ({"l1": 1e300, "penalty": PROXIMAL}, "l1 must keep the rate times l1 within float32"),
        ({"l2": 1e38, "penalty": DECOUPLED, "optimizer": OptimizerConfig(lr=1e3)}, "l2 must keep the rate times l2"),
        ({"data": DataConfig(mean=[0.1], std=[1e300])}, "data.std must hold numbers within the range of float32"),
        ({"data": DataConfig(mean=[0.1], std=[1e-300])}, "data.std must hold numbers within the range of float32"),
        ({"data": DataConfig(mean=[-1e300], std=[0.1])}, "data.mean must hold numbers within the range of float32"),
        ({"epochs": MAX_EPOCHS + 1}, "epochs must be at most 1000000, got 1000001"),
        ({"runtime": RuntimeConfig(threads=100_000)}, "runtime.threads must be at most "),
        ({"batch_size": 6, "runtime": RuntimeConfig(ranks=4)},
         "batch_size must be a multiple of runtime.ranks (4), got 6: each process computes an equal part"),
        ({"batch_size": 4, "runtime": RuntimeConfig(ranks=4)},
         "batch_size must be at least 2 times runtime.ranks (4) with norm=bn, got 4: raise batch_size or choose"),
        ({"batch_size": 64, "norm": NormConfig("gbn", ghost_batch_size=33), "runtime": RuntimeConfig(ranks=2)},
         "batch_size must be at least norm.ghost_batch_size (33) times runtime.ranks (2), got 64: lower norm.ghost"),
        ({"data": DataConfig(train_size=1)}, "data.train_size must be at least 2 with norm=bn, got 1: raise"),
        ({"model": {"_target_": "a.B", "channels": 10**9}}, "model.channels must be a whole number from 1 to 100000"),
        ({"l1": 1e-4, "penalty": "channels", "averaging": "ema"},
         "averaging must not be ema with penalty.l1_on=channels, got 'ema': choose averaging=none, because"),
        ({"objective": []}, "objective must be a name or a list of names, got []"),
        ({"objective": 3}, "objective must be a name or a list of names, got 3"),
    ],
)  # fmt: skip
def test_a_run_that_could_not_be_trained_is_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as error:
        RunConfig(**settings)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"l1": 1e300, "l2": 3e38, "optimizer": OptimizerConfig(lr=3e38)},
        {"schedule": ScheduleConfig("step", gamma=1e300), "epochs": 6},
        {"schedule": ScheduleConfig("step", gamma=1e-300, step_size=1), "epochs": MAX_EPOCHS},
        {"l1": 0.0, "optimizer": OptimizerConfig(lr=1e30), "penalty": PROXIMAL},
        {"runtime": RuntimeConfig(threads=max(MAX_THREADS, os.cpu_count() or 1))},
        {"data": DataConfig(train_size=1), "norm": NormConfig("gn")},
        {"l1": 1e-4, "penalty": "channels", "averaging": "swa"},
        {"penalty": "channels", "averaging": "ema"},
        {"l1": 1e-4, "averaging": "ema"},
    ],
)
def test_what_can_be_trained_though_badly_is_taken(settings):
    RunConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": 3}, "name"),
        ({"name": ["a"]}, "name"),
        ({"keep": [{"last": 1}]}, "keep"),
        ({"l2": ["x" * 1_000_000]}, "l2"),
        ({"l2": 10**400}, "l2"),
        ({"seed": 10**5_000}, "seed"),
        ({"data": {"name": ["a"]}}, "data.name"),
        ({"data": {"root": 3}}, "data.root"),
        ({"data": {"flip": 10**400}}, "data.flip"),
        ({"data": {"crop": "x" * 1_000_000}}, "data.crop"),
    ],
)
def test_a_value_of_any_kind_and_size_is_refused_in_a_line_that_can_be_read(settings, key):
    with pytest.raises(ConfigError, match=f"^{key} must ") as error:
        RunConfig(**settings)
    assert len(str(error.value)) < 500
