"""The learning rate of each step: values computed by hand, and properties."""

import pytest
import tiny
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from own import two_rates
from tiny import killed_and_continued, same_bits

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import OptimizerConfig, ScheduleConfig
from reg_sweep.training.fit import fit
from reg_sweep.training.schedule import Schedule, lr_factor


def factors(schedule: ScheduleConfig, n_epochs: int, n_batches: int) -> list[float]:
    n = n_epochs * n_batches
    return [lr_factor(schedule, step, step // n_batches, n) for step in range(n)]


def test_schedules_by_hand():
    assert factors(ScheduleConfig("constant"), 2, 2) == [1, 1, 1, 1]
    assert factors(ScheduleConfig("step", step_size=2, gamma=0.5), 5, 1) == [1, 1, 0.5, 0.5, 0.25]
    assert factors(ScheduleConfig("step"), 7, 1) == pytest.approx([1] * 6 + [0.1])
    assert factors(ScheduleConfig("cosine"), 4, 1) == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert factors(ScheduleConfig("onecycle", warmup=0.5), 3, 2) == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1, 2 / 3, 1 / 3]
    )
    assert factors(ScheduleConfig("onecycle", warmup=0.0), 2, 2) == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])


@given(n_epochs=st.integers(1, 30), n_batches=st.integers(1, 30), warmup=st.floats(0, 0.999))
@example(n_epochs=1, n_batches=1, warmup=0.5)
@example(n_epochs=10, n_batches=1, warmup=0.999)
def test_onecycle_rises_to_one_and_falls_and_is_never_zero(n_epochs, n_batches, warmup):
    shares = factors(ScheduleConfig("onecycle", warmup=warmup), n_epochs, n_batches)
    assert min(shares) > 0
    assert max(shares) == 1
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert abs(peak - warmup * len(shares)) <= 1


# ---- custom schedules


def rates(schedule: ScheduleConfig, n_epochs: int = 3, steps_per_epoch: int = 2, **changes) -> list[float]:
    """The rate of each step of a run, with full rate 1 and a val loss that never falls."""
    run = tiny.tiny_run(epochs=n_epochs, schedule=schedule, **changes)
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=1.0)
    made = Schedule(optimizer, run, steps_per_epoch)
    found = []
    for step in range(n_epochs * steps_per_epoch):
        found.append(made.set_step(step))
        optimizer.step()
        if (step + 1) % steps_per_epoch == 0:
            made.end_epoch({"epoch": (step + 1) // steps_per_epoch, "val_loss": 1.0})
    return found


def own(target: str, interval: str | None = None, **arguments) -> ScheduleConfig:
    return ScheduleConfig("own", source={"_target_": target, **arguments}, interval=interval)


def test_a_function_of_the_step_gives_the_share_of_the_rate():
    assert rates(own("own.ramp")) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert rates(own("own.ramp", low=1)) == [1] * 6


def test_a_scheduler_is_stepped_once_an_epoch_or_once_a_step():
    assert rates(own("own.Halving")) == [1, 1, 1 / 2, 1 / 2, 1 / 4, 1 / 4]
    assert rates(own("own.Halving", interval="epoch")) == rates(own("own.Halving"))
    assert rates(own("own.Halving", interval="step")) == [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]
    sizes = {"max_lr": 2, "total_steps": 6, "cycle_momentum": False}
    assert max(rates(own("torch.optim.lr_scheduler.OneCycleLR", "step", **sizes))) == pytest.approx(2, rel=0.01)


def test_a_plateau_is_seen_in_the_val_loss():
    plateau = "torch.optim.lr_scheduler.ReduceLROnPlateau"
    assert rates(own(plateau, factor=0.5, patience=0)) == [1, 1, 1, 1, 0.5, 0.5]
    with pytest.raises(ConfigError, match=r"schedule.interval must be epoch with ReduceLROnPlateau"):
        rates(own(plateau, interval="step"))
    data = tiny.tiny_data_config(val_size=0)
    with pytest.raises(ConfigError, match="needs the val loss, but there are no val images"):
        rates(own(plateau), data=data, objective="test_loss")


def test_each_group_of_an_optimizer_keeps_its_part_of_the_rate():
    run = tiny.tiny_run(epochs=1, schedule=own("own.ramp", low=0.5), optimizer=OptimizerConfig(lr=1.0))
    optimizer = two_rates(torch.nn.Linear(2, 2).parameters(), lr=1.0)
    assert Schedule(optimizer, run, 2).set_step(0) == 0.5
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


OWN = [own("own.ramp"), own("own.Halving"), own("own.Halving", "step")]


@pytest.mark.parametrize("schedule", [*OWN, own("torch.optim.lr_scheduler.StepLR", step_size=1)])
def test_a_run_with_a_schedule_of_ones_own_continues_bit_for_bit(schedule, tmp_path):
    run = tiny.tiny_run(epochs=3, schedule=schedule)
    whole = fit(run, progress=False)
    again = killed_and_continued(run, tmp_path, 1)
    assert [row["lr"] for row in again.history] == [row["lr"] for row in whole.history]
    assert len({row["lr"] for row in again.history}) == 3
    assert same_bits(whole.model, again.model)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (own("own.nothing"), "schedule.source._target_ must be importable from here, got 'own.nothing': "),
        (own("own.ramp", high=1), r"schedule.source must take \(step, epoch, n_steps\) .* at step 0, got 'own.ramp': "),
        (own("own.ramp", low=-1), "must return a finite share of at least 0, got -1.0 from 'own.ramp' at step 0"),
        (own("own.ramp", low=float("nan")), "must return a finite share of at least 0, got nan"),
        (own("own.ramp", interval="step"), "schedule.interval must be left out if schedule.source returns a share"),
        (
            own("torch.optim.lr_scheduler.StepLR"),
            r"schedule.source must take \(optimizer\) .* got 'torch.*: .*step_size",
        ),
        (own("torch.optim.swa_utils.update_bn"), "schedule.source must take"),
        (own("own.no_schedule"), "schedule.source must make an LRScheduler, got list from 'own.no_schedule'"),
    ],
)
def test_a_source_that_is_no_good_is_refused_in_one_line(schedule, message):
    with pytest.raises(ConfigError, match=message) as error:
        rates(schedule)
    assert "\n" not in str(error.value)
