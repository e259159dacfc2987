"""Hostile configs: keys times nasty values. Each is taken, or refused in one clear line; nothing else is ever raised.

A few dozen in the ordinary suite; `REG_SWEEP_FUZZ=5000` tries that many.
"""

import os
import random
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from reg_sweep import train
from reg_sweep.config.schema import RunConfig
from reg_sweep.hydra_app import app, errors, refusals
from reg_sweep.hydra_app.internals import VERSION_BASE, grid_jobs
from reg_sweep.hydra_app.overrides import leaves
from reg_sweep.images import check_split
from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.settings import Settings
from reg_sweep.search.space import space

CASES, IN_A_BATCH = int(os.environ.get("REG_SWEEP_FUZZ", "40")), 20
GROUPS = sorted(p.name for p in (Path(train.CONF)).iterdir() if p.is_dir())
KEYS = [
    *(key for key, _ in leaves(OmegaConf.structured(RunConfig))),
    *GROUPS,
    *("hydra/sweeper", "hydra/sweeper/sampler", "hydra/launcher", "hydra.run.dir", "hydra.sweep.dir", "hydra.mode"),
    *("model.width", "data.source", "optimizer.nope", "nope", "nope.deeper", "l1.deeper", "data.mean.0", "norm@here"),
]
STUDY_KEYS = [f"hydra.sweeper.{name}" for name in (*Settings.__dataclass_fields__, "params.l1", "params.norm", "nope")]
VALUES = (
    *("", "null", "true", "0", "1", "-1", "3", "4000", "1.5", "1e300", "-1e300", "1e-300", "1e309", "nan", "inf"),
    *("1000000000000000000000000000000", "bn", "gbn", "3d", "..", "../x", "/", "a/b", "a b", "'a b'", "''", "'null'"),
    *("[]", "[1]", "[null]", "[[]]", "[bn,gbn]", "[nan]", "[1e300]", "{}", "{a:1}", "{a:{b:[]}}", "{_target_:os}"),
    *("${l1}", "${seed}", "${nope}", "${oc.env:NOPE}", "${hydra:job.num}", "'${'", "${", "$", "(", "{", "[", "'", "\\"),
    *("os", "os.getcwd", "..", "a.b.c", "reg_sweep.Mlp", "sys.exit", "val_loss", "test_loss", "minimize", "x" * 300),
    *("1,2", "bn,gbn", "bn,3", "1,null", "[1],{}", "choice()", "choice(1)", "choice(bn,3)", "shuffle(1,2)", "glob(*)"),
    *("range(3)", "range(3,0)", "range(0,3,0)", "range(0,100000000)", "range(0,1,1e-9)", "int(range(1,3))"),
    *("sort(2,1)", "interval(0,1)", "interval(1,0)", "tag(log,interval(0,1))", "tag(int,interval(0.1,0.2))"),
    *("tag(x,interval(0,1))", "int(3.5)", "int(x)", "float(x)", "bool(7)", "str(3)", "json_str({a:1})", "nope(3)"),
    "tag(log,interval(1e-9,1e300))",
)


def a_case(number: int) -> tuple[bool, list[str]]:
    """Whether it is a study, and its overrides: one to three keys with nasty values, some added, forced or deleted."""
    draw = random.Random(number)
    is_study = draw.random() < 0.3
    overrides = []
    for _ in range(draw.randint(1, 3)):
        key = draw.choice(STUDY_KEYS if is_study and draw.random() < 0.6 else KEYS)
        sign = draw.choice(["", "", "", "", "+", "++", "~"])
        overrides.append(f"~{key}" if sign == "~" else f"{sign}{key}={draw.choice(VALUES)}")
    return is_study, ["study=optuna", "l1=0,1", *overrides] if is_study else overrides


def check_as_the_command_does(is_study: bool, overrides: list[str]) -> None:
    """The steps of `reg_sweep.train` before training, in order."""
    app.refuse_typed(overrides)
    parsed = OverridesParser.create().parse_overrides(overrides)
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    config = compose("config", fixed, return_hydra_config=True)
    if is_study:
        sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        settings = Settings.of({k: v for k, v in sweeper.items() if not k.startswith("_")})
        written = [f"{key}={'null' if v is None else v}" for key, v in (settings.params or {}).items()]
        plan = StudyPlan(settings, space(OverridesParser.create().parse_overrides([*written, *overrides])))
        plan.sampler()
        plan.pruner()
        plan.points()
        return
    if any(o.is_sweep_override() for o in parsed):
        app.refuse_if(refusals.wrong_grid(parsed))
        jobs = list(grid_jobs(overrides))
    else:
        jobs = [overrides]
    for job in jobs[:2]:
        check_split(train.to_run_config(compose("config", job)).data)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CASES, IN_A_BATCH))
def test_a_hostile_config_is_taken_or_refused_in_one_clear_line(first, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    fell = []
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        for number in range(first, min(first + IN_A_BATCH, CASES)):
            is_study, overrides = a_case(number)
            try:
                check_as_the_command_does(is_study, overrides)
            except Exception as error:  # before the config is composed the command explains whatever is raised
                line = errors.explain(error, typed=overrides)
                if "\n" in line or len(line) < 10 or "can't be composed" in line:
                    fell.append(f"{number}: {overrides}: {line}")
    assert fell == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        (["optimizer=own", "optimizer.source={_target_:a.B,alpha:0.9}"], {"_target_": "a.B", "alpha": 0.9}),
        (["optimizer={name: mine, momentum: null, nesterov: null, source: {_target_: a.B}}"], {"_target_": "a.B"}),
        (["optimizer=own", *(f"optimizer.source.{s}" for s in ("_target_=a.B", "n=1"))], {"_target_": "a.B", "n": 1}),
        (["optimizer.source={}"], None),
        (["optimizer.source=null"], None),
    ],
)
def test_an_optimizers_source_is_taken_as_a_mapping_too(overrides, source):
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        assert train.to_run_config(compose("config", overrides)).optimizer.source == source


def test_a_schedules_source_is_taken_as_a_mapping_too():
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        run = train.to_run_config(compose("config", ["schedule.name=own", "schedule.source={_target_:a.b,share:0.1}"]))
    assert run.schedule.source == {"_target_": "a.b", "share": 0.1}
