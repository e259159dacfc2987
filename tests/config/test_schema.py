"""Ranges and messages of every setting, and what a digest tells apart."""

import json
import math
import runpy
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.config.digest import arm_digest, digest
from reg_sweep.config.regularizers import LossConfig
from reg_sweep.config.rules import ConfigError
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
from reg_sweep.config.targets import locate

OWN = {"_target_": "a.B"}
NOT_FINITE = [math.nan, math.inf, -math.inf]
MODELS = ["compacted", "mlp", "no_dropout", "resnet", "squeeze_expand"]


def run_digest(**changes) -> str:
    return digest(to_dict(RunConfig(**changes)))


# ---- ranges

OUT_OF_RANGE = [
    (RunConfig, "l1", "l1 must be a finite number of at least 0", [-1, -1e-9, *NOT_FINITE, "abc", None, True]),
    (RunConfig, "l2", "l2 must be a finite number of at least 0", [-1, *NOT_FINITE, "abc"]),
    (RunConfig, "seed", "seed must be a whole number of at least 0", [-1, 2**63, 1.0, "1", True]),
    (RunConfig, "epochs", "epochs must be a whole number of at least 1", [0, -3, 1.5, True]),
    (RunConfig, "batch_size", "batch_size must be a whole number of at least 1", [0, -1, 2.0]),
    (RunConfig, "name", "name must have at most 255 bytes between slashes", ["x" * 256, "a/" + "é" * 128]),
    (RunConfig, "name", "name must be a folder's name inside outputs/", ["", "/tmp", "../a", "a/../b", "a/..", "./a"]),
    (RunConfig, "objective", "objective must be one of val_loss, ", ["loss", "train_loss", ["val_loss", "x"]]),
    (RunConfig, "model", "model._target_ must be the dotted path of a callable", [{}, {"_target_": "Net"}]),
    (DataConfig, "source", "data.source._target_ must be the dotted path", [{}, {"_target_": 3}, {"_target_": "x"}]),
    (DataConfig, "root", "data.root must name a folder", [""]),
    (DataConfig, "val_size", "data.val_size must be a whole number of at least 0", [-1, 0.5]),
    (DataConfig, "split_seed", "data.split_seed must be a whole number of at least 0", [-1]),
    (DataConfig, "train_size", "data.train_size must be a whole number of at least 1", [0, -1, 0.5]),
    (DataConfig, "label_noise", "data.label_noise must be a share between 0 and 1", [-0.1, 1.1, math.nan, "a"]),
    (DataConfig, "rotation", "data.rotation must be between 0 and 180 degrees", [-1, 181, math.nan]),
    (DataConfig, "brightness", "data.brightness must be a share between 0 and 1", [-0.1, 1.1, math.inf]),
    (DataConfig, "contrast", "data.contrast must be a share between 0 and 1", [-0.1, 1.1]),
    (DataConfig, "fill", "data.fill must be a whole number in 0..255", [-1, 256, 0.5]),
    (DataConfig, "mean", "data.mean must be set together with data.std", [[0.1]]),
    (NormConfig, "name", "norm must be one of none, bn, gbn, gn, ln, in", ["batch", "BN", "", None]),
    (PenaltyConfig, "name", "penalty must be one of textbook, notebook", ["l1"]),
    (PenaltyConfig, "l1_update", "penalty.l1_update must be one of subgradient, proximal", ["prox"]),
    (PenaltyConfig, "l2_update", "penalty.l2_update must be one of coupled, decoupled", ["adamw"]),
    (OptimizerConfig, "name", "optimizer must be one of sgd, adamw", ["adam"]),
    (OptimizerConfig, "lr", "optimizer.lr must be a finite number above 0", [0, -0.1, *NOT_FINITE, "fast"]),
    (OptimizerConfig, "momentum", "optimizer.momentum must be at least 0 and below 1", [1, -0.1, math.nan]),
    (ScheduleConfig, "name", "schedule must be one of constant, step, onecycle, cosine", ["linear"]),
    (RuntimeConfig, "device", "runtime.device must be one of auto, cpu, cuda, mps", ["gpu", "cuda:0"]),
    (RuntimeConfig, "threads", "runtime.threads must be a whole number of at least 1", [0, 1.5]),
    (RuntimeConfig, "precision", "runtime.precision must be one of float32, bfloat16", ["float16"]),
]


@pytest.mark.parametrize(
    ("kind", "name", "message", "value"), [(*rule, value) for *rule, values in OUT_OF_RANGE for value in values]
)
def test_a_value_out_of_its_range_is_one_line_with_name_rule_and_value(kind, name, message, value):
    with pytest.raises(ConfigError) as error:
        kind(**{name: value})
    text = str(error.value)
    assert text.startswith(message)
    shown = value[-1] if name == "objective" and isinstance(value, list) else value
    assert "got " in text
    assert repr(shown.get("_target_") if isinstance(shown, dict) else shown) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (RunConfig, {"l1": 0, "l2": 0.0, "seed": 0, "epochs": 1, "batch_size": 2, "name": "a/b c"}),
        (RunConfig, {"l1": 1e300, "seed": 2**63 - 1, "objective": ["val_loss", "zero_share"]}),
        (RunConfig, {"batch_size": 1, "norm": NormConfig("gn")}),
        (RunConfig, {"batch_size": 32, "norm": NormConfig("gbn")}),
        (DataConfig, {"val_size": 0, "label_noise": 1, "rotation": 180, "brightness": 1, "fill": 255}),
        (DataConfig, {"mean": [0, -1.5], "std": [1, 0.1]}),
        (NormConfig, {"name": "gbn", "ghost_batch_size": 2}),
        (NormConfig, {"name": "gn", "groups": 1}),
        (OptimizerConfig, {"momentum": 0}),
        (OptimizerConfig, {"name": "adamw", "betas": [0, 0.5]}),
        (ScheduleConfig, {"name": "step", "gamma": 2, "step_size": 1}),
        (ScheduleConfig, {"name": "onecycle", "warmup": 0}),
        (RuntimeConfig, {"threads": 1}),
    ],
)
def test_values_on_the_edge_of_their_range_are_taken(kind, settings):
    config = kind(**settings)
    assert {name: getattr(config, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "written_out"),
    [
        ({"norm": "gbn"}, {"norm": NormConfig("gbn")}),
        ({"norm": {"name": "gbn", "ghost_batch_size": 16}}, {"norm": NormConfig("gbn", ghost_batch_size=16)}),
        ({"optimizer": "adamw"}, {"optimizer": OptimizerConfig("adamw", lr=0.001)}),
        ({"schedule": "cosine"}, {"schedule": ScheduleConfig("cosine")}),
        ({"penalty": "notebook"}, {"penalty": PenaltyConfig("notebook")}),
        ({"runtime": "cpu"}, {"runtime": RuntimeConfig("cpu")}),
        ({"model": "mlp"}, {"model": {"_target_": "reg_sweep.Mlp", "hidden": 128, "dropout": 0.05}}),
        ({"data": "mnist_5k"}, {"data": DataConfig("mnist_5k", {"_target_": "reg_sweep.mnist_sample"}, val_size=1000)}),
    ],
)
def test_a_group_is_chosen_by_its_name_as_on_the_command_line(settings, written_out):
    assert RunConfig(**settings) == RunConfig(**written_out)


def test_a_config_is_made_again_from_its_own_dict():
    run = RunConfig(norm="gn", optimizer="adamw", data="mnist_5k", l1=0.1)
    assert RunConfig(**to_dict(run)) == run


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "batch"}, "norm must be one of bn, gbn, gn, in, ln, none, or a mapping of settings, got 'batch'"),
        ({"model": "vgg"}, f"model must be one of {', '.join(MODELS)}, or a mapping of settings, got 'vgg'"),
        ({"norm": 3}, "norm must be the name of a choice, a mapping or a NormConfig, got 3"),
        ({"norm": {"nam": "bn"}}, "norm must have only the settings name, ghost_batch_size, groups, got 'nam'"),
        ({"loss": "hinge"}, "loss must be one of cross_entropy, own, or a mapping of settings, got 'hinge'"),
    ],
)
def test_a_group_that_is_no_choice_is_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as error:
        RunConfig(**settings)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NormConfig("gbn", ghost_batch_size=1), "norm.ghost_batch_size must be a whole number of at least 2, "),
        (lambda: NormConfig("gn", groups=0), "norm.groups must be a whole number of at least 1, got 0"),
        (lambda: OptimizerConfig("adamw", betas=[0.9]), "optimizer.betas must hold two numbers, got [0.9]"),
        (lambda: OptimizerConfig("adamw", betas=[0.9, 1]), "optimizer.betas must be at least 0 and below 1, got 1"),
        (lambda: OptimizerConfig(nesterov=True, momentum=0.0),
         "optimizer.nesterov must be false without momentum, got True: set optimizer.momentum above 0"),
        (lambda: ScheduleConfig("step", step_size=0), "schedule.step_size must be a whole number of at least 1, got 0"),
        (lambda: ScheduleConfig("step", gamma=0), "schedule.gamma must be a finite number above 0, got 0"),
        (lambda: ScheduleConfig("onecycle", warmup=1), "schedule.warmup must be at least 0 and below 1, got 1"),
        (lambda: OptimizerConfig(source=OWN), "optimizer must be another name with optimizer.source, got 'sgd'"),
        (lambda: OptimizerConfig("own", source=OWN, momentum=0.9),
         "optimizer.momentum must be left out with optimizer=own, got 0.9: it belongs to optimizer=sgd"),
        (lambda: OptimizerConfig("own"), "optimizer must be one of sgd, adamw, got 'own'"),
        (lambda: OptimizerConfig("own", source={"_target_": None}),
         "optimizer.source._target_ must be the dotted path"),
        (lambda: ScheduleConfig("own", source={"_target_": "B"}), "schedule.source._target_ must be the dotted path"),
        (lambda: ScheduleConfig(interval="step"), "schedule.interval must be epoch or step, and set with schedule."),
        (lambda: ScheduleConfig("own", source=OWN, interval="batch"),
         "schedule.interval must be epoch or step, and set with schedule.source, got 'batch'"),
        (lambda: DataConfig(mean=[0.1], std=[0]), "data.std must be a finite number above 0, got 0"),
        (lambda: DataConfig(mean=[math.nan], std=[1]), "data.mean must hold finite numbers, got nan"),
        (
            lambda: RunConfig(batch_size=16, norm=NormConfig("gbn")),
            "batch_size must be at least norm.ghost_batch_size (32), got 16: "
            "lower norm.ghost_batch_size or raise batch_size",
        ),
        (lambda: RunConfig(batch_size=1),
         "batch_size must be at least 2 with norm=bn, got 1: raise batch_size or choose norm=gn"),
        (
            lambda: RunConfig(data=DataConfig(val_size=0)),
            "objective must not be measured on val without val images (data.val_size=0), got 'val_loss': "
            "set data.val_size above 0, or objective=test_loss to select on test",
        ),
        (lambda: RunConfig(model=OWN | {"dropout": 1.0}), "model.dropout must be at least 0 and below 1, got 1.0"),
        (lambda: RunConfig(model=OWN | {"channels": 0}),
         "model.channels must be a whole number from 1 to 100000, got 0"),
        (lambda: RunConfig(model=OWN | {"hidden": 1.5}),
         "model.hidden must be a whole number from 1 to 100000, got 1.5"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_one_line(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("kind", "name", "setting", "value", "owner"),
    [
        (NormConfig, "bn", "ghost_batch_size", 32, "norm=gbn"),
        (NormConfig, "gbn", "groups", 4, "norm=gn"),
        (OptimizerConfig, "adamw", "momentum", 0.9, "optimizer=sgd"),
        (OptimizerConfig, "adamw", "nesterov", False, "optimizer=sgd"),
        (OptimizerConfig, "sgd", "betas", [0.9, 0.99], "optimizer=adamw"),
        (ScheduleConfig, "constant", "step_size", 3, "schedule=step"),
        (ScheduleConfig, "cosine", "gamma", 0.1, "schedule=step"),
        (ScheduleConfig, "step", "warmup", 0.1, "schedule=onecycle"),
    ],
)
def test_a_setting_that_would_do_nothing_is_an_error_that_names_its_owner(kind, name, setting, value, owner):
    with pytest.raises(ConfigError, match=rf"{setting} must be left out with .*={name}, got .*: it belongs to {owner}"):
        kind(name, **{setting: value})


def test_defaults_depend_on_what_was_chosen():
    assert NormConfig("gbn").ghost_batch_size == 32
    assert NormConfig("gn").groups == 4
    assert (OptimizerConfig().momentum, OptimizerConfig().nesterov, OptimizerConfig().betas) == (0.9, False, None)
    assert (OptimizerConfig("adamw").momentum, OptimizerConfig("adamw").betas) == (None, [0.9, 0.999])
    assert (ScheduleConfig("step").step_size, ScheduleConfig("step").gamma) == (6, 0.1)
    assert ScheduleConfig("onecycle").warmup == 0.2


@pytest.mark.parametrize(("variable", "root"), [("/some/where", "/some/where"), (None, "data"), ("", "data")])
def test_the_environment_names_the_data_folder(monkeypatch, variable, root):
    monkeypatch.delenv("REG_SWEEP_DATA", raising=False)
    if variable is not None:
        monkeypatch.setenv("REG_SWEEP_DATA", variable)
    assert DataConfig().root == root


def test_objectives_are_a_list_whether_one_or_several():
    assert RunConfig().objectives == ["val_loss"]
    assert RunConfig(objective=["val_loss", "zero_share"]).objectives == ["val_loss", "zero_share"]


# ---- digests


@given(l1=st.integers(0, 10**6), l2=st.integers(0, 10**6))
def test_whole_and_decimal_numbers_are_the_same_run(l1, l2):
    assert run_digest(l1=l1, l2=l2) == run_digest(l1=float(l1), l2=float(l2))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other/place"},
        {"objective": "test_loss"},
        {"report": False},
        {"callbacks": {"mine": {"_target_": "a.B"}}},
        {"data": DataConfig(root="/else/where")},
        {"data": DataConfig(offline_sample=False)},
        {"runtime": RuntimeConfig(device="cpu")},
        {"runtime": RuntimeConfig(threads=3)},
        {"data": DataConfig(rotation=7, label_noise=0)},
        {"model": {"dropout": 0.05, "channels": 16, "_target_": "reg_sweep.SqueezeExpand"}},
        {"norm": NormConfig()},
    ],
)
def test_where_a_run_lies_and_on_what_machine_does_not_change_its_digest(changes):
    assert run_digest(**changes) == run_digest()
    assert arm_digest(to_dict(RunConfig(**changes))) == arm_digest(to_dict(RunConfig()))


DIFFERENT = [
    {"l1": 1e-12},
    {"l2": 1e-12},
    {"seed": 0},
    {"epochs": 19},
    {"batch_size": 127},
    {"data": DataConfig(val_size=9_999)},
    {"data": DataConfig(label_noise=0.1)},
    {"data": DataConfig(train_size=1_000)},
    {"data": DataConfig(name="other")},
    {"data": DataConfig(source={"_target_": "reg_sweep.mnist_sample"})},
    {"model": {"_target_": "reg_sweep.Mlp"}},
    {"norm": NormConfig("gbn")},
    {"norm": NormConfig("gbn", ghost_batch_size=16)},
    {"penalty": PenaltyConfig("notebook")},
    {"penalty": PenaltyConfig(l1_update="proximal")},
    {"optimizer": OptimizerConfig(lr=0.1)},
    {"schedule": ScheduleConfig("cosine")},
    {"optimizer": OptimizerConfig("own", source={"_target_": "a.B"})},
    {"optimizer": OptimizerConfig("own", source={"_target_": "a.B", "beta": 0.5})},
    {"schedule": ScheduleConfig("own", source={"_target_": "a.B"})},
    {"schedule": ScheduleConfig("own", source={"_target_": "a.B"}, interval="step")},
    {"runtime": RuntimeConfig(precision="bfloat16")},
    {"runtime": RuntimeConfig(ranks=2)},
]


def test_whatever_changes_what_is_computed_changes_the_digest():
    digests = [run_digest(), *(run_digest(**changes) for changes in DIFFERENT)]
    assert len(set(digests)) == len(digests)
    assert all(len(d) == 16 and int(d, 16) >= 0 for d in digests)


@given(seed=st.integers(0, 2**63 - 1))
def test_replicates_share_their_arms_digest_and_differ_in_their_own(seed):
    config, first = to_dict(RunConfig(seed=seed)), to_dict(RunConfig(seed=1))
    assert arm_digest(config) == arm_digest(first)
    assert (digest(config) == digest(first)) == (seed == 1)


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        (("runtime", "ranks"), {"runtime": RuntimeConfig(ranks=2)}),
        (("data", "flip"), {"data": DataConfig(flip=0.5)}),
        (("data", "crop"), {"data": DataConfig(crop=4)}),
        (("data", "transforms"), {"data": DataConfig(transforms=[OWN])}),
        (("loss",), {"loss": LossConfig(0.1)}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_a_digest_is_that_of_before_there_was_a_setting_where_it_is_not_set(path, changed):
    older = to_dict(RunConfig())
    inner = older
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    assert digest(older) == run_digest() != run_digest(**changed)


def test_a_digest_survives_the_way_through_json():
    config = to_dict(RunConfig(l1=0.1 + 0.2, norm=NormConfig("gbn")))
    assert digest(json.loads(json.dumps(config))) == digest(config)


def test_a_strangers_config_without_groups_that_came_later_has_a_digest_too():
    config = to_dict(RunConfig())
    assert digest({**config, "optimizer": 3}) != digest({k: v for k, v in config.items() if k != "optimizer"})


def test_telling_a_digest_leaves_the_config_as_it_was():
    config = to_dict(RunConfig())
    before = json.dumps(config)
    digest(config)
    arm_digest(config)
    assert json.dumps(config) == before


def test_a_config_becomes_plain_dicts():
    run = RunConfig(l1=0.5, norm=NormConfig("gn"))
    assert to_dict(run) == asdict(run)


# ---- targets


def test_a_target_is_found_by_its_dotted_path():
    assert locate("model", {"_target_": "math.sqrt"}) is math.sqrt


def test_a_target_in_the_programs_own_file_is_the_programs_and_the_file_is_not_run_again(tmp_path, monkeypatch):
    (tmp_path / "own_program.py").write_text(
        "from reg_sweep.config.targets import locate\n\ndef make(): ...\n\n"
        "if __name__ == '__main__':\n    found = locate('model', {'_target_': 'own_program.make'})\n"
        "    found_later = locate('model', {'_target_': 'own_program.later'})\n\ndef later(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    program = runpy.run_path(str(tmp_path / "own_program.py"), run_name="__main__")
    assert program["found"] is program["make"]
    assert program["found_later"].__module__ == "own_program"  # not yet defined in the program


HERE = "be importable from here"


@pytest.mark.parametrize(
    ("target", "rule"), [("no_such_module.thing", HERE), ("math.no_such_name", HERE), ("math.pi", "be callable")]
)
def test_a_target_that_is_not_there_or_no_callable_is_one_line(target, rule):
    with pytest.raises(ConfigError, match=rf"model._target_ must {rule}, got '{target}'"):
        locate("model", {"_target_": target})
