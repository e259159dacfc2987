"""Refusals of each command: one line that names what is wrong and what to do, before any work, with its exit code.

Each table has what is typed and the words of the line. `tests/config/test_schema.py` has the ranges of every setting,
`tests/test_hostile.py` what chance types.
"""

import math
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pages import BN
from toy_apps import DESIGN, STUDY, X
from trees import write_arms

from reg_sweep.hydra_app import app as hydra_app
from reg_sweep.hydra_app.refusals import MAX_JOBS, wrong_grid
from reg_sweep.report import ReportError, main, write_report

OPTUNA = ["study=optuna", "l1=0,1"]
UNTIL = ["study=until_verdict", "norm=bn,gbn"]
SMALL = "data=mnist_5k"

TRAIN = [
    # values
    (["l1=-1"], ["l1", "at least 0", "-1"]),

    (["l2=abc"], ["l2", "number", "'abc'"]),

    (["label_smoothing=0.1", SMALL], ["loss.label_smoothing"]),

    (["+penalties.mine={_target_: math.sqrt}", SMALL], ["penalties.mine.strength", "be given"]),
    (["+penalties.mine={_target_: math.sqrt, strength: 1}", SMALL], ["penalties.mine", "as documented", "sqrt"]),

    (["data.val_size=70000"], ["data.val_size", "60000", "70000"]),
    (["data.train_size=50001"], ["data.train_size", "50000", "50001"]),
    (["data.val_size=0"], ["objective", "data.val_size"]),
    (["runtime.device=mps"], ["runtime.device", "'mps'", "auto"]),

    (["model.channels=few"], ["model.channels", "whole number", "'few'"]),
    (["model.channels=100000", SMALL], ["model", "memory", "weights"]),
    (["model._target_=nowhere.Net", SMALL], ["model._target_", "nowhere.Net"]),
    (["model._target_=..", SMALL], ["model._target_", "dotted path", "'..'"]),
    (["data.source={_target_:os.getcwd}"], ["data.source", "os.getcwd", "arguments"]),
    (["data.source.dataset=[1]"], ["data.source.dataset", "[1]"]),
    (["data.root=file/data"], ["data.root"]),

    (["l1=${nope}"], ["nope"]),
    (["l1=[1"], ["l1=[1", "can't be read", "unmatched"]),
    (["x y=0"], ["a key without spaces", "'x y'"]),
    (["hydra.sweeper=x"], ["hydra.sweeper must be a mapping", "hydra/sweeper=x"]),
    (["-m", "hydra.launcher=x", "l1=0,1"], ["hydra.launcher must be a mapping"]),
    (["hydra.sweep=x"], ["hydra.sweep must be a mapping"]),
    (["+cluster=population", SMALL], ["+cluster=population must have several runs", "got one", "-m seed=1,2"]),
    (["-m", "+cluster=population", "seed=1", SMALL], ["+cluster=population must have several runs", "got one"]),
    (["-m", "+cluster=population", "data=mnist_5k,kmnist"], ["data.source must be the same", "KMNIST", "for each"]),
    (["-m", "+cluster=population", "runtime.threads=1,2", SMALL], ["runtime must be the same", "'threads': 2"]),
    (["-m", "+cluster=population", "hydra.launcher.members=1", "seed=1,2", SMALL], ["hydra.launcher.members", "2"]),
    (["+cluster=population", *OPTUNA, SMALL, "hydra.sweeper.n_jobs=1"], ["hydra.sweeper.n_jobs", "at least 2"]),
    (["+cluster=population", *OPTUNA, SMALL, "hydra.sweeper.workers=2"], ["hydra.sweeper.workers must be 1"]),
    (["+cluster=population", *OPTUNA, SMALL, "hydra.sweeper.trial_timeout=9s"], ["trial_timeout must be null", "9s"]),
    (["+cluster=population", "study=optuna", "data=mnist_5k,kmnist"], ["data must not be swept", "for each"]),
    (["-m", "--cfg", "job", "l1=0,1"], ["--cfg shows the config of one run: leave out -m"]),
    (["--cfg", "job", "l1=0,1"], ["--cfg shows the config of one run, got l1=0,1"]),
    (["keep=nothing"], ["keep must be last, or last,best_val, got 'nothing'"]),
    (["keep=best_val"], ["keep must be last, or last,best_val"]),
    (["keep=last,best_val", "data.val_size=0", "objective=test_loss"], ["keep", "data.val_size above 0"]),
    (["objective_at=best"], ["objective_at", "last, best_val"]),
    (["objective_at=best_val", "objective=zero_share"], ["objective_at", "zero_share"]),
    # settings that do not go together
    (["norm=bn", "norm.ghost_batch_size=8"], ["norm.ghost_batch_size", "norm=gbn"]),

    ([SMALL, "norm=gn", "norm.groups=3"], ["norm.groups", "divide", "3"]),
    ([SMALL, "model=mlp", "norm=in"], ["norm", "mlp"]),

    # keys and options
    (["epoch=3"], ["epoch", "'epochs'"]),
    (["data.rotate=3"], ["data.rotate", "'data.rotation'"]),
    (["model.chanels=3"], ["model.chanels", "'model.channels'"]),
    (["model.width=8"], ["model.width", "write +model.width=8"]),
    (["+l3=1"], ["l3", "key of the config"]),
    (["n_trials=5"], ["n_trials", "'hydra.sweeper.n_trials'"]),
    (["max_seeds=5"], ["max_seeds must be used with a study, got none: add study=until_verdict"]),
    (["norm=batch"], ["norm", "bn, gbn", "'batch'"]),
    (["data=3"], ["data", "option", "3"]),
    (["schedule=null"], ["schedule", "option", "null"]),
    (["=3"], ["'=3' must be key=value: name the setting, as in l1=0.001"]),
    *((["norm=" + value], ["norm must be the name of an option, got "]) for value in ("1.5", "true", "[]", "[bn,3]")),
    (["report=4000"], ["report", "true or false", "4000"]),
    (["report=0.5"], ["report", "true or false", "0.5"]),
    (["~seed"], ["seed must be set, got ~seed: give it a value instead"]),
    (["~optimizer.lr"], ["optimizer.lr", "deletion"]),
    (["~name"], ["name", "~name"]),
    # grids
    (["-m", "l1=0,-1", SMALL], ["l1", "-1"]),
    (["-m", "batch_size=64,16", "norm=bn,gbn", SMALL], ["batch_size", "16"]),
    (["-m", "norm=choice(bn,3)"], ["norm", "option", "3"]),
    (["-m", "l1=interval(0,1)"], ["l1 must list its values in a grid, got", "is searched, add study=optuna"]),
    (["l1=interval(0,1)"], ["l1 must be one value, got interval(0,1): an interval is searched, add study=optuna"]),
    (["hydra/sweeper/sampler=tpe"], ["hydra/sweeper/sampler must be used with a study", "add study=optuna"]),
    (["-m", "report=true,2"], ["report must be true or false"]),
    (["-m", "seed=range(3,0)"], ["seed must have at least one value to sweep, got an empty sweep"]),
    (["-m", "seed=range(0,3,0)"], ["seed must have at least one value to sweep, got an empty sweep"]),
    (["-m", "seed=range(0,100000000)"], ["a grid must have at most 100,000 jobs, got 100,000,000: sweep fewer values"]),
    (["-m", *(f"{key}=range(0,1000)" for key in ("seed", "l1", "l2"))], ["got 1,000,000,000:"]),
    *((["norm=[bn,gbn]", *more], ["norm must be one value, got [bn,gbn]: add -m to train each, as norm=bn,gbn -m"])
      for more in ([], ["-m", "seed=1,2"], ["study=l1_search"])),
    *(([several], ["add -m"]) for several in ("norm=bn,gbn", "l1=0,0.1", "seed=range(1,3)")),
    # studies
    (["hydra.sweeper.params={l1:null}"], ["hydra.sweeper.params.l1 must be a value or a sweep, got null"]),
    (["hydra.sweeper.params.l1=null"], ["hydra.sweeper.params.l1 must be a value or a sweep, got null"]),
    *(([*OPTUNA, f"hydra.sweeper.{typed}"], [f"hydra.sweeper.{words}\n"]) for typed, words in (
        ("params.l2=choice(0,0.1)", "params.l2 can't be swept, got choice(0,0.1): write 'l2=choice(0,0.1)'"),
        ("n_trials=1,2", "n_trials must be one value, the same for all jobs of a sweep, got 1,2"),
        ("direction=minimize,maximize", "direction must be one value, the same for all jobs of a sweep, got"
         " minimize,maximize: as a list, write hydra.sweeper.direction=[minimize,maximize]"),
        ("params={l2:choice(0,0.1)}", "params={l2:choice(0,0.1)}' must not sweep within a mapping: sweep each key"
         " separately"),
        ("params=5", "params must be a mapping: set its keys one by one, got 5"),
        ("stop_when=5", "stop_when must be a mapping: set its keys one by one, got 5"),
        ("zip=x", "zip must be a list, in brackets, got x"),
        ("report=maybe", "report must be true or false, got maybe"))),
    ([*OPTUNA, "hydra.sweeper.direction=null"], ["hydra.sweeper.direction", "None"]),
    (["study=optuna", "l1=tag(int,interval(0.1,0.2))"], ["l1", "whole number"]),
    (["study=l1_search", "data.val_size=0"], ["objective", "data.val_size", "objective=test_loss"]),
    (["study=l1_search", "+hydra.sweeper.params.norm='bn,3'"], ["norm", "option", "3"]),
    ([*UNTIL, "margin=0"], ["margin", "above 0, got 0"]),
    ([*UNTIL, "max_seeds=2"], ["max_seeds must be at least the first look (3), got 2"]),
    *((["study=l1_search", f"hydra.sweeper.{wrong}"], words) for wrong, words in (
        ("timeout=-1", ["timeout must be a time above 0", "-1"]), ("direction=up", ["direction must be", "'up'"]),
        ("timeuot=1", ["'hydra.sweeper.timeout'"]), ("storage=/nowhere/a.log", ["/nowhere/a.log can't be used"]))),
    *(([*more, f"hydra.{node}.dir=file/x", SMALL], [f"hydra.{node}.dir must be a folder", "file/x", "choose another"])
      for node, more in (("run", []), ("sweep", ["-m", "l1=0,1"]), ("sweep", ["study=l1_search"]))),
    *((["-m", "l1=0,1", f"hydra.sweeper.{key}=-1"], [f"{key} must be used with a study, got none", "study=optuna"])
      for key in ("timeout", "n_trials", "report", "n_jobs")),
    *((["study=l1_search", f"{key}='vault://me:s3cr3t@somewhere/vault.db?key=s3cr3t'"], [key.strip("+")])
      for key in ("hydra.sweeper.storge", "+hydra.sweeper.storge", "l1", "nope", "+hydra.sweeper.n_jobs")),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "words"), TRAIN, ids=lambda value: " ".join(value))
def test_training_refuses_in_one_line_before_any_work(start, tmp_path, capfd, typed, words):
    (tmp_path / "file").write_text("not a folder")
    assert start(*typed) == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1
    assert said.err.startswith("reg_sweep: error: ")
    assert [word for word in words if word not in said.err] == []
    assert "s3cr3t" not in said.err + said.out
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "typed",
    [
        *("norm=bn", "norm='3'", "norm=bn,gbn", "norm=[bn,gbn]", "norm={name:bn}", "~experiment", "l1=7"),
        *("report=true", "report=1", "report=0", "report=yes", "report=true,false", "hydra.sweeper.params={l1:'0,1'}"),
    ],
)
def test_what_an_override_may_say_is_taken(typed):
    hydra_app.refuse_typed([typed])


def test_a_grid_is_counted_without_being_listed():
    for typed in (
        [f"seed=range(0,{MAX_JOBS})", "l1=0", "norm=[bn,gbn]"],
        ["l1=range(0,1,0.1)", "norm=bn,gbn", "x=glob(*)"],
    ):
        assert wrong_grid(OverridesParser.create().parse_overrides(typed)) is None


# ---- a sweep of anybody's app

TWO_GOALS = "hydra.sweeper.direction=[minimize,maximize]"
KIND = ["kind=plain,rated"]
CUSTOM = "hydra.sweeper.custom_search_space=conditional"
STOP, LEARN = "hydra.sweeper.stop_when", "hydra.sweeper.learn_from"
CONFIRM = ["hydra.sweeper.confirm=true", "x=interval(0, 1)", "hydra.sweeper.n_trials=6"]
BASELINE = "hydra.sweeper.baseline={x: 0, arm: plain}"
ARMS = ["arm=plain,good", *CONFIRM, "hydra.sweeper.direction=maximize"]

SWEEP = [
    ("sphere", [X, "x=0,1"], "x must be swept only once, got 2 sweeps:"),
    ("sphere", [X, "hydra/sweeper/sampler=grid"], "a grid needs values that can be listed, but x is an interval"),
    ("sphere", [X, "hydra/sweeper/sampler=cmaes", TWO_GOALS], "CmaEsSampler can't search this space"),
    ("sphere", ["x=1", "~y"], "the search space is empty"),
    ("arms", ["hydra.sweeper.until_verdict=true"], "at least 2 arms to compare, got 1: sweep a key"),
    ("vault", ["hydra.sweeper.until_verdict=true", "x=0,1"], "on several seeds: the app's config needs the key seed"),
    ("sphere", ["x=tag(log, interval(0, 1))"], "on a log scale an interval must start above 0"),
    ("sphere", ["x=interval(a, b)"], "interval"),
    ("sphere", [X, "wrong=1"], "Could not override 'wrong'"),
    ("sphere", [X, "hydra/sweeper/pruner=guillotine"], "Could not find 'hydra/sweeper/pruner/guillotine'"),
    *(("sphere", [X, f"hydra.sweeper.{node}={path}"], f"hydra.sweeper.{name} must be the dotted path of a {words}\n")
      for node, name, path, words in (
        ("pruner._target_", "pruner._target_", "optuna.pruners.Guillotine",
         "class, got 'optuna.pruners.Guillotine': optuna.pruners has no Guillotine"),
        ("sampler._target_", "sampler._target_", "optuna.samplers.TPESampl",
         "class, got 'optuna.samplers.TPESampl': optuna.samplers has no TPESampl:"
         " did you mean optuna.samplers.TPESampler?"),
        ("sampler._target_", "sampler._target_", "nowhere.It", "class, got 'nowhere.It': there is no module nowhere"),
        ("stop_when", "stop_when.terminator._target_", "{terminator: {_target_: optuna.terminator.No}}",
         "class, got 'optuna.terminator.No': optuna.terminator has no No"),
        ("check", "check", "it", "function, got 'it': it must have a dot between a module and a name"),
        ("constraints_func", "constraints_func", "os.sep", "function, got 'os.sep': it can't be called"))),
    ("sphere", [X, "hydra.sweeper.sampler=tpe"], "got 'tpe': to choose one, write hydra/sweeper/sampler=tpe\n"),
    ("sphere", [X, "hydra.sweeper.sampler._target_="], "sampler must name a class by its _target_, got ''\n"),
    ("sphere", ["x=interval(0, 1),2"], "must be one sweep: a list of values can't hold an interval or a range\n"),
    ("sphere", [X, "hydra.sweeper.workers=1.5"], "workers must be auto, or a number of at least 1, got 1.5\n"),
    ("sphere", [X, "hydra.sweeper.pruner._target_=pathlib.Path"], "pruner must be one of Optuna's pruners"),
    ("sphere", [X, TWO_GOALS, "hydra/sweeper/pruner=median"], "Optuna prunes only studies with one objective"),
    ("sphere", [X, "+hydra.sweeper.sampler.n_trees=3"], "optuna.samplers.TPESampler can't be made"),
    ("sphere", [X, "hydra.sweeper.sampler=null"], "hydra.sweeper.sampler must name a class"),
    ("sphere", [X, "hydra.sweeper.storage=sqlite:////nowhere/at/all.db"], "be used: there is no folder /nowhere/at\n"),
    ("sphere", [X, "hydra.sweeper.storage=/nowhere/at/all.log"], "can't be used: there is no folder /nowhere/at\n"),
    ("sphere", [X, "hydra.sweeper.storage='nosuch://me:Zqpw@host/db'"], "nosuch://host/db can't be used: it must"),
    ("sphere", [X, "hydra.sweeper.storage='mssql://me:Zqpw@host/db'"], "is not installed: pip install pyodbc\n"),
    ("sphere", [X, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1, got 0"),
    ("sphere", [X, "hydra.sweeper.workers=0"], "workers must be auto, or a number of at least 1, got 0"),
    ("sphere", [X, "hydra.sweeper.workers=all"], "workers must be auto, or a number of at least 1, got 'all'"),
    ("sphere", [X, "hydra.sweeper.workers=2"], "workers must be 1 if the app was not started from a command"),
    ("sphere", [X, "hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs must be at least 1, got 0"),
    ("sphere", [X, "hydra.sweeper.max_failure_rate=2"], "max_failure_rate must be between 0 and 1, got 2"),
    ("sphere", [X, "hydra.sweeper.direction=sideways"], "hydra.sweeper.direction must be minimize or maximize"),
    ("sphere", [X, "hydra.sweeper.grace_period=1"], "grace_period must be longer than heartbeat_interval"),
    ("sphere", [X, "hydra.sweeper.replicates=[[]]"], "hydra.sweeper.replicates must be a list of keys, such as [seed]"),
    ("sphere", [X, "hydra.sweeper.enqueue=[{y: 1}]"], "hydra.sweeper.enqueue: y is not swept"),
    ("sphere", [X, "hydra.sweeper.enqueue=[{x: 3}]"], "hydra.sweeper.enqueue: x must be -1.0 to 1.0, got 3"),
    ("sphere", [X, "hydra.sweeper.enqueue=[{x: 0}, {x: 1}]", "hydra.sweeper.n_trials=1"], "the 2 enqueued points"),
    ("conditional", [*KIND, f"{CUSTOM}.nowhere"], "custom_search_space must be the dotted path of a function"),
    ("conditional", [*KIND, f"{CUSTOM}.fails"], "conditional.fails failed: ConfigAttributeError"),
    ("conditional", [*KIND, f"{CUSTOM}.fixes", "y=1"], "must not suggest keys that the command fixes, got y"),
    ("conditional", [*KIND, f"{CUSTOM}.configure", "hydra.sweeper.until_verdict=true"], "left out with until_verdict"),
    ("conditional", [*KIND, f"{CUSTOM}.configure", "hydra.sweeper.confirm=true"], "without hydra.sweeper.custom"),
    ("limited", ["x=0.6,0.8", "hydra.sweeper.constraints_func=limited.nowhere"], "must be the dotted path of a"),
    ("limited", ["x=0.6,0.8", "+hydra.sweeper.sampler.constraints_func=limited.too_large"], "sweeper.constraints_func"),
    ("arms", [*ARMS, *DESIGN], "baseline must have a value for each of arm, x to confirm a search, got none"),
    ("arms", [*ARMS, *DESIGN, "hydra.sweeper.baseline={x: 0}"], "each of arm, x to confirm a search, got x=0"),
    ("arms", [*ARMS, *DESIGN, "hydra.sweeper.baseline={x: 0}"], "example, add +hydra.sweeper.baseline.arm=plain\n"),
    ("arms", [*ARMS, *DESIGN, "hydra.sweeper.baseline={x: 0, y: 1, arm: plain}"], "add '~hydra.sweeper.baseline.y'\n"),
    ("arms", [*ARMS, *DESIGN], "for example 'hydra.sweeper.baseline={arm: plain, x: 0}'\n"),
    ("arms", [*ARMS, *DESIGN, BASELINE, "seed=1,2"], "confirm needs a search that uses a single seed"),
    ("arms", [*ARMS, BASELINE, "hydra.sweeper.confirm_then=no.such"], "confirm_then must be the dotted path of"),
    ("arms", [*ARMS, BASELINE, "hydra.sweeper.design.margin=0"], "design: margin must be a finite number"),
    *(("sphere", [X, f"hydra.sweeper.{name}={value}"], f"hydra.sweeper.{name} must be a time above 0")
      for name in ("timeout", "trial_timeout") for value in (-1, 0, "soon", "5x", "nan")),
    ("sphere", [X, "hydra.sweeper.max_failures=-1"], "max_failures must be at least 0, got -1"),
    ("sphere", [X, f"{STOP}.no_better_in=0"], "stop_when.no_better_in must be at least 1, got 0"),
    ("sphere", [X, f"{STOP}.no_better_in=20"], "can never hold: no_better_in must be below the 20 trials"),
    ("sphere", [X, f"{STOP}.no_better_in=3", TWO_GOALS], "stop_when must be left out with several directions"),
    ("sphere", [X, f"{STOP}={{terminator: {{_target_: pathlib.Path}}}}"], "stop_when.terminator must be one of"),
    ("arms", ["seed=1,2", "x=1,2", f"{STOP}.no_better_in=1"], "left out when results are averaged over seed"),
    ("arms", ["arm=plain,good", f"{STOP}.no_better_in=1", "hydra.sweeper.until_verdict=true"], "with until_verdict"),
    ("sphere", [X, f"{LEARN}=nowhere"], "learn_from must be a study's folder, storage or CSV file, got"),
    ("sphere", ["x=0,1", f"{LEARN}=a", "hydra/sweeper/sampler=grid"], "GridSampler learns nothing"),
    ("sphere", [X, "hydra.sweeper.has_objective=false"], "has_objective must be true unless hydra/sweeper/sampler is"),
    ("sphere", ["x=0,1", "hydra.sweeper.conditions={y: {x: 0}}"], "y is not swept"),
    ("sphere", ["x=0,1", "y=0,1", "hydra.sweeper.conditions={y: {z: 0}}"], "z is not swept"),
    ("sphere", ["x=range(0,1000)", "y=range(0,1000)", "hydra/sweeper/sampler=grid"], "at most 100,000 points, got"),
    *(("sphere", [f"+hydra.sweeper.params.pair='{text}'"], words) for text, words in (
        ("zip(x=choice(1,2))", "two members or more"), ("zip(x=choice(1,2),y=choice(1))", "x has 2, y has 1"),
        ("zip(x=[1,2],y=interval(0,1))", "y is an interval"), ("zip(x=[1,2],y=shuffle(1,2))", "shuffle(zip(...))"),
        ("zip(x=[1,2],x=[1,2])", "must name x only once"), ("zip(x=[1,2],y=3)", "y=3 must be a list, a choice"),
        ("zip(x=[1,2],hydra.job.name=[a,b])", "belongs to Hydra"), ("[1", "must be a valid sweep, got '[1'"))),
    ("sphere", ["+hydra.sweeper.params.z='zip(x=[1,2],y=[1,2])'"], "one word that is not a key or group of the config"),
    ("descent", [*CONFIRM, *DESIGN, "hydra.sweeper.baseline={x: 0}"], "the app's config needs the key seed"),
    ("arms", ["seed=1,2", "x=1,2", "hydra.sweeper.zip=[[seed,x]]"], "zip: seed must vary at every point, because"),
    ("sphere", ["x=0,1", "hydra.sweeper.replicates=[fold]"], "replicates: fold is not swept: the space has x\n"),
    *(("sphere", [X, f"hydra.sweeper.storage={storage}"], "storage must be shared with other processes, got sqlite:")
      for storage in ("sqlite://", "sqlite:///:memory:")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "typed", "words"), SWEEP, ids=str)
def test_a_sweep_refuses_in_a_line_and_starts_no_trial(app, monkeypatch, name, typed, words):
    monkeypatch.syspath_prepend(Path(__file__).parent / "search" / "search_app")  # as `python app.py` does
    done = app(name, *STUDY, *typed, code=1)
    assert words in done.err
    assert "Traceback" not in done.err + done.out
    assert "Zqpw" not in done.err + done.out
    assert not Path("out").exists()


# ---- the report

REPORT = [
    (["nowhere"], "nowhere is not a file or folder"),
    (["runs", "nowhere"], "nowhere is not a file or folder"),
    (["nowhere", "--baseline", "bn"], "nowhere is not a file or folder"),
    (["circle"], "circle is not a file or folder: name the folder"),
    (["n" * 300], "nnn is not a file or folder: name the folder"),
    (["file"], "file: its first row must name the columns"),
    (["empty"], "no runs under empty"),
    (["foreign"], "no runs under foreign, only 2 files that can't be read, such as foreign/a/run.json: "),
    (["runs", "--out", "file"], "--out must name a folder, got file, but file is a file"),
    (["runs", "--out", "file/below/it"], "--out must name a folder, got file/below/it, but file is a file"),
    (["runs", "--baseline", "gn"], "use one of bn"),
    (["runs", "--metric", "test_loss", "--margin", "0"], "--margin must be a finite number above 0, got 0"),
    (["runs", "--seed", "seed"], "--seed is for runs of other programs, and there are none here: leave it out"),
    (["runs", "--score", "val_acc"], "one of test_accuracy, test_loss for runs of reg_sweep, got 'val_acc'"),
    (["runs", "--at", "step=3"], "--at must be one of last, best:val_loss for runs of reg_sweep, got 'step=3'"),
]


@pytest.mark.parametrize(("typed", "words"), REPORT, ids=str)
def test_a_report_refuses_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, typed, words):
    monkeypatch.chdir(tmp_path)
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "empty").mkdir()
    for name in "ab":
        (tmp_path / "foreign" / name).mkdir(parents=True)
        (tmp_path / "foreign" / name / "run.json").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(typed) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--fail-if", "better"], "--fail-if must be some of worse, undecided, got 'better'"),
        (["--files", "svg,gif"], "--files must be some of svg, png, pdf, got 'gif'"),
        (["--margin", "0,1"], "--margin must be a number, got '0,1'"),
        (["--margin"], "--margin: expected one argument"),
        (["--bad\x1bline"], "--bad\\x1bline"),
    ],
)
def test_a_reports_unknown_choice_is_refused_in_a_line(capsys, typed, words):
    with pytest.raises(SystemExit, match="2"):
        main(["nowhere", *typed])
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("margin", [0, -0.1, 1, 5.0, math.nan, math.inf])
def test_a_margin_that_is_no_share_is_refused_before_anything_is_read(tmp_path, margin):
    with pytest.raises(ReportError, match=f"--margin must be above 0 and below 1, got {margin}"):
        write_report([tmp_path / "nowhere"], margin=margin, progress=False)
