"""The entry point as a user meets it: what it writes, refuses, continues and says."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import hydra
import numpy as np
import own
import pytest
import torch
from commands import LONGER, ONE, TINY, start_train
from omegaconf import OmegaConf
from once import made_once
from pages import blank_pictures
from safetensors.torch import load_file
from waiting import wait_until

from reg_sweep import train
from reg_sweep.config.digest import digest
from reg_sweep.config.schema import GHOST_BATCH_SIZE, RunConfig, to_dict
from reg_sweep.hydra_app import app
from reg_sweep.hydra_app.errors import explain
from reg_sweep.hydra_app.internals import VERSION_BASE
from reg_sweep.runs import reading
from reg_sweep.runs import record as records
from reg_sweep.runs.study import read_study
from reg_sweep.train import objective_value
from reg_sweep.training.norms import GhostBatchNorm2d


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / records.WEIGHTS_FILE)


def assert_same(first: dict[str, torch.Tensor] | Path, second: dict[str, torch.Tensor] | Path) -> None:
    """Weights, or those of a run's folder, are the same to the bit."""
    first, second = (weights(given) if isinstance(given, Path) else given for given in (first, second))
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def composed(*typed: str) -> RunConfig:
    """The run that the command would train."""
    with hydra.initialize_config_dir(str(train.CONF), **VERSION_BASE):
        return train.to_run_config(hydra.compose("config", list(typed)))


# ---- what a run leaves


@pytest.mark.slow
def test_a_run_leaves_a_record_from_which_it_can_be_judged_and_repeated(start, tmp_path, capsys):
    gbn = ["norm=gbn", "norm.ghost_batch_size=25", "model.channels=16"]
    assert start(*TINY, *gbn, "l1=0.00001", "l2=0.0005", "name=a") == 0
    folder = tmp_path / "outputs" / "a"
    run = reading.read_run(folder)
    assert run.status == "complete"
    assert run.config["norm"] == {"name": "gbn", "ghost_batch_size": 25, "groups": None}
    data = run.record["data"]
    assert (data["source"], data["n_train"], data["n_val"], data["n_test"]) == ("offline sample", 200, 100, 1000)
    assert run.record["n_parameters"] == 9680
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert run.record["last"] == run.metrics[-1]
    assert run.record["best_val"] == min(run.metrics, key=lambda row: row["val_loss"])
    assert {"python", "torch", "reg_sweep"} <= run.record["versions"].keys()
    assert run.record["device"]["threads"] == 1
    predictions = np.load(folder / records.PREDICTIONS_FILE)
    accuracy = (predictions["predicted"] == predictions["label"]).mean()
    assert accuracy == pytest.approx(run.record["last"]["test_accuracy"])
    assert len(predictions["index"]) == 1000
    assert sum(w.numel() for n, w in weights(folder).items() if "running" not in n and "num" not in n) == 9680
    assert sorted(p.name for p in (folder / ".hydra").iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
    assert not (folder / records.CHECKPOINT_FILE).exists()
    said = capsys.readouterr().out
    parts = ("blocks.0.conv Conv2d", "val ", "test ", "of the training loss", "are zero", "outputs/a")
    assert [part for part in (*parts, "python -m reg_sweep.report") if part not in said] == []


@pytest.mark.slow
def test_the_recorded_command_repeats_the_run_bit_for_bit(start, tmp_path):
    assert start(*ONE, "norm=gbn", "l1=0.001", "penalty.l1_update=proximal", "name=a") == 0
    command = shlex.split(reading.read_record(tmp_path / "outputs" / "a")["command"])
    assert command[:3] == ["python", "-m", "reg_sweep.train"]
    assert start(*command[3:], "name=b") == 0
    assert_same(tmp_path / "outputs" / "a", tmp_path / "outputs" / "b")


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again_and_its_directory_is_refused_to_another_config(start, tmp_path, capsys):
    assert start(*ONE, "name=a") == 0
    folder = tmp_path / "outputs" / "a"
    files = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".json", ".csv")}
    assert start(*ONE, "name=a") == 0
    assert "nothing to train" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in files} == files
    before = contents(folder)
    assert start(*ONE, "l1=0.5", "name=a") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "l1 0.0 there, 0.5 here" in error
    assert contents(folder) == before


@pytest.mark.slow
def test_a_run_that_diverges_leaves_its_record_says_so_and_ends_with_code_1(start, tmp_path, capsys):
    assert start(*ONE, "norm=none", "optimizer.lr=1e12", "name=a") == 1
    record = reading.read_record(tmp_path / "outputs" / "a")
    assert record["status"] == "diverged"
    assert "became" in record["message"] or "not finite" in record["message"]
    assert "diverged" in capsys.readouterr().out


def test_a_diverged_runs_objective_is_the_worst_there_is():
    record = {"status": "diverged"}
    assert objective_value("val_loss", record) == float("inf")
    assert objective_value("val_accuracy", record) == float("-inf")


@pytest.mark.slow
def test_an_exception_in_training_is_recorded_as_failed(start, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "_n_calls", 0)
    with pytest.raises(RuntimeError, match="at call 2"):
        start(*ONE, "loss=own", "loss.source={_target_: own.failing_loss, at: 2}", "name=a")
    record = reading.read_record(tmp_path / "outputs" / "a")
    assert (record["status"], record["message"]) == ("failed", "RuntimeError: at call 2")


@pytest.mark.slow
def test_what_was_finished_survives_a_full_disk_and_is_continued(start, tmp_path, monkeypatch, capsys):
    from reg_sweep.training import fit

    append, full = fit.append_metrics, OSError(28, "No space left on device")

    def append_once(directory, row):
        if row["epoch"] == 2:
            raise full
        append(directory, row)

    monkeypatch.setattr(fit, "append_metrics", append_once)
    assert start(*TINY, "name=a") == 1
    error = capsys.readouterr().err
    assert "Error executing job" not in error  # Hydra's line, before ours
    (said,) = (line for line in error.splitlines() if "No space left" in line)
    assert "; finished work is kept: fix this, then continue with python -m reg_sweep.train" in said
    assert "name=a" in said
    assert [row["epoch"] for row in reading.read_metrics(tmp_path / "outputs" / "a")] == [1]
    monkeypatch.setattr(fit, "append_metrics", append)
    assert start(*TINY, "name=a") == 0
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert start(*TINY, "name=b") == 0
    assert_same(tmp_path / "outputs" / "a", tmp_path / "outputs" / "b")


# ---- interrupted


SEVEN_EPOCHS = [*TINY, LONGER, "epochs=7"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing stopped."""

    def make() -> dict[str, torch.Tensor]:
        folder = tmp_path_factory.mktemp("unbroken")
        done = start_train(folder, *SEVEN_EPOCHS, "name=b").end()
        assert done.returncode == 0, done.stderr
        return weights(folder / "outputs" / "b")

    return made_once(tmp_path_factory, "unbroken", make)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_ends_bit_for_bit_as_if_it_had_not_been(start, tmp_path, unbroken, number):
    child = start_train(tmp_path, *SEVEN_EPOCHS, "name=a")
    folder = tmp_path / "outputs" / "a"
    wait_until(lambda: len(reading.read_metrics(folder)) >= 2 or child.code is not None, "second epoch")
    child.send(number)
    done = child.end()
    assert done.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert reading.read_record(folder)["status"] == "running"
    assert (folder / records.CHECKPOINT_FILE).exists()
    if number == signal.SIGKILL:
        command = [*SEVEN_EPOCHS, "name=a"]
    else:
        assert "Traceback" not in done.stderr
        assert f"stopped by {signal.Signals(number).name} after" in reading.read_record(folder)["message"]
        command = shlex.split(done.stderr.splitlines()[-1])[3:]
    assert start(*command) == 0
    assert reading.read_record(folder)["epochs_done"] == 7
    assert_same(folder, unbroken)


# ---- refused


def test_full_error_asks_for_the_traceback(start, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(hydra.errors.ConfigCompositionException):
        start("epoch=3")


# ---- sweeps


@pytest.mark.slow
@blank_pictures()
def test_a_grid_trains_every_combination_and_ends_with_its_report(start, tmp_path, capsys):
    grid = ["-m", *ONE, "norm=bn,none", "seed=1,2", "name=grid"]
    assert start(*grid) == 0
    runs = reading.read_runs(tmp_path / "outputs" / "grid")
    jobs = [("0", "bn", 1), ("1", "bn", 2), ("2", "none", 1), ("3", "none", 2)]
    assert [(r.path.name, r.config["norm"]["name"], r.seed) for r in runs] == jobs
    assert runs[0].arm == runs[1].arm != runs[2].arm
    page = tmp_path / "outputs" / "grid" / "report" / "index.html"
    assert page.exists()
    said = capsys.readouterr().out
    assert str(page) in said.replace("outputs", str(tmp_path / "outputs"))
    assert said.count("receptive field") == 1
    assert "next " not in said
    assert start(*grid, "report=false") == 0
    assert capsys.readouterr().out.count("nothing to train") == 4


def test_a_studys_config_is_shown_with_the_training_that_it_brings(start, capsys):
    start("study=l1_search", "--cfg", "job")
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.name, shown.epochs, shown.schedule.name, shown.optimizer.lr) == ("l1_search", 6, "onecycle", 0.2)
    start("study=l1_search", "experiment=b_l1", "--cfg", "job")
    assert OmegaConf.create(capsys.readouterr().out).epochs == 40  # what is typed wins


@pytest.mark.slow
def test_the_sparsest_study_judges_its_front_and_writes_the_smallest_network_that_is_not_worse(
    start, capsys, timed_here
):
    study = ["study=sparsest", "confirm=true", "data=mnist_5k", "data.train_size=300", "epochs=2", "model=mlp"]
    study += ["model.hidden=16", "runtime.threads=1", "report=false", "hydra.sweeper.n_trials=2"]
    study += ["hydra.sweeper.enqueue=[{l1: 0.01},{l1: 0.003}]", "hydra.sweeper.design.margin=0.9"]
    assert start(*study, "hydra.sweeper.design.looks=[3]", "hydra.sweeper.design.max_seeds=3") == 0
    said = capsys.readouterr().out
    folder = Path("outputs/sparsest")
    costs = [r.record["weights"]["multiply_adds"] for r in reading.read_runs(folder) if r.record["trial"]]
    assert len(set(costs)) > 1
    assert re.search(r"val accuracy [\d.]+%, multiply adds \d", said)
    design = read_study(folder / "confirm" / "study.json").design
    assert (design.question, design.in_order) == ("not_worse", True)
    assert re.search(r"first by multiply_adds that is shown not worse: l1=0\.\d+, on 3 seeds", said)
    assert re.search(r"compact networks of 3 seeds: \d+ \(\d+ to \d+\)% of the multiply-adds, [\d.]+ \(", said)
    best = said.partition("the best of them on val: ")[2].split()[0]
    assert (Path(best) / "program.pt2").exists()
    assert len(list((folder / "confirm").glob("*/compact/compact.json"))) == 3


@pytest.mark.slow
def test_a_study_until_a_verdict_trains_its_arms_on_common_seeds_and_resumes_with_more(start, tmp_path, capsys):
    arms = ["study=until_verdict", "norm=bn,none", *TINY[:-2], "epochs=1", "runtime.threads=1", "report=false"]
    arms.append("hydra.sweeper.design.looks=[2,3]")
    # By workers: each reads the same command line, with two norms and no -m, and max_seeds at the root.
    assert start(*arms, "max_seeds=2", "margin=0.001", "hydra.sweeper.workers=2") == 0
    said = capsys.readouterr().out
    assert "the choice is made on test" not in said
    assert "verdict of study until_verdict by test_accuracy, each arm against norm=bn" in said
    folder = tmp_path / "outputs" / "until_verdict"
    study = read_study(folder / "study.json")
    assert (study.kind, study.design.metric, study.design.margin) == ("until_verdict", "test_accuracy", 0.001)
    runs = reading.read_runs(folder)
    assert sorted((r.config["norm"]["name"], r.seed) for r in runs) == [(n, s) for n in ("bn", "none") for s in (1, 2)]
    assert start(*arms, "max_seeds=3", "margin=0.001", "hydra.sweeper.workers=1") == 0
    assert len(reading.read_runs(folder)) == (6 if "no difference shown" in said else 4)


@pytest.mark.slow
def test_what_a_users_own_study_sets_is_in_its_best_trial_and_in_its_trials_commands(start, tmp_path, capsys):
    folder = tmp_path / "conf of mine"
    (folder / "study").mkdir(parents=True)
    (folder / "experiment").mkdir()
    head = "# @package _global_\n"
    (folder / "experiment" / "low.yaml").write_text(f"{head}optimizer: {{lr: 0.01}}\n")
    (folder / "study" / "mine.yaml").write_text(
        f"{head}defaults: [l1_search, override /data: mnist_5k]\n"
        "epochs: 1\nbatch_size: 50\nmodel: {channels: 4}\n"
        "data: {train_size: 200, val_size: 100}\nruntime: {threads: 1}\n"
    )
    arguments = ["--config-dir", str(folder), "study=mine", "experiment=low", "norm=gbn", "hydra.sweeper.n_trials=2"]
    assert start(*arguments, "name=study", "report=false") == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("run it"))
    outputs = tmp_path / "outputs"
    best, *_ = json.loads((outputs / "study" / "study.json").read_text())["trials"]
    trial = next(r for r in reading.read_runs(outputs / "study") if r.path.name == "0")
    for name, command in {"best": said.partition(":")[2], "trial": trial.record["command"]}.items():
        assert start(*shlex.split(command)[3:], f"name={name}") == 0
        again = reading.read_record(outputs / name)["config"]
        assert again | {k: trial.config[k] for k in ("name", "report", "l1")} == trial.config
    assert reading.read_record(outputs / "trial")["config"]["l1"] == best["params"]["l1"]
    # A launcher's process has the job's config, and no Hydra that could compose another.
    cfg, hydra_cfg = (OmegaConf.load(outputs / "study" / "0" / ".hydra" / f"{n}.yaml") for n in ("config", "hydra"))
    recorded = shlex.split(trial.record["command"])[3:]
    assert app.own_arguments(cfg, hydra_cfg.hydra) == recorded


@pytest.mark.slow
def test_a_single_run_and_a_sweep_never_share_a_directory(start, tmp_path, capfd):
    sweep, single = ["-m", *ONE, "seed=1,2"], ONE
    assert start(*sweep, "name=a", "report=false") == 0
    assert start(*single, "name=b") == 0
    capfd.readouterr()
    (tmp_path / "outputs" / "c").mkdir()
    (tmp_path / "outputs" / "c" / "study.db").touch()
    for typed, said in (
        ([*single, "name=a"], "must be new or hold this run, got a sweep's runs"),
        ([*sweep, "name=b"], "must be new or hold this sweep, got a single run"),
        ([*sweep, "name=c"], "must be new or hold this sweep, got a study"),
    ):
        assert start(*typed) == 2
        assert said in capfd.readouterr().err
    assert not (tmp_path / "outputs" / "a" / records.RUN_FILE).exists()
    assert not (tmp_path / "outputs" / "b" / "0").exists()


@pytest.mark.slow
def test_flags_may_stand_anywhere_among_the_overrides(start, tmp_path):
    folder = tmp_path / "conf=mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nl2: 0.001\n")
    middle = ["experiment=mine", "--config-dir", "conf=mine", "-m", *ONE]
    assert start("norm=bn", *middle, "l1=0,1e-5", "name=mixed", "report=false") == 0
    runs = reading.read_runs(tmp_path / "outputs" / "mixed")
    assert [(r.config["l1"], r.config["l2"]) for r in runs] == [(0, 0.001), (1e-5, 0.001)]


# ---- config


ADDED = ("callbacks", "cluster")  # groups that the defaults list does not name


def options() -> list[str]:
    return [
        f"{'+' * (path.parent.name in ADDED)}{path.parent.relative_to(train.CONF)}={path.stem}"
        for path in sorted(train.CONF.rglob("*.yaml"))
        if path.parent != train.CONF
    ]


@pytest.mark.parametrize("option", options())
def test_every_file_in_conf_composes_and_opens_with_its_command(option):
    group, _, name = option.partition("=")
    heading = (train.CONF / group.lstrip("+") / f"{name}.yaml").read_text().splitlines()[:2]
    assert any(line.startswith(f"# python -m reg_sweep.train {option}") for line in heading)
    # What is one's own has to be named, as the heading does.
    arguments = shlex.split(heading[0].partition("reg_sweep.train ")[2]) if name == "own" else [option]
    if option == "+cluster=ray" and find_spec("hydra_plugins.hydra_ray_launcher") is None:  # it is no extra
        with pytest.raises(hydra.errors.MissingConfigException) as missing:
            composed(*arguments)
        assert explain(missing.value).endswith("pip install hydra-ray-launcher 'ray>=2.60' 'cloudpickle<3'")
        return
    assert isinstance(composed(*arguments), RunConfig)


def test_the_composed_defaults_are_those_of_the_dataclasses():
    assert {**to_dict(composed()), "name": "run"} == to_dict(RunConfig())


def test_the_ghost_batch_size_that_the_config_shows_is_the_layers_own():
    shown = composed("norm=gbn").norm.ghost_batch_size
    assert shown == GHOST_BATCH_SIZE == GhostBatchNorm2d(3).ghost_batch_size


def test_exercise_b_is_the_published_protocol():
    run = composed("experiment=b_l1_l2")
    assert (run.l1, run.l2, run.epochs, run.batch_size) == (0.001, 0.0005, 40, 128)
    assert (run.optimizer.name, run.optimizer.lr, run.optimizer.momentum) == ("sgd", 0.025, 0.9)
    assert (run.data.val_size, run.data.mean, run.data.std) == (0, [0.1307], [0.3081])
    assert (run.data.rotation, run.data.brightness, run.data.contrast, run.data.fill) == (7, 0.1, 0.1, 1)
    assert (run.penalty.name, run.schedule.name, run.norm.name) == ("notebook", "constant", "bn")


@pytest.mark.slow
def test_a_sweep_that_leaves_its_runs_to_workers_does_not_load_torch(tmp_path):
    code = "import sys; from reg_sweep import train; train.main(); print('torch is loaded:', 'torch' in sys.modules)"
    (tmp_path / "sweep.py").write_text(code)
    study = ["study=optuna", "l1=0,0.001", "hydra/sweeper/sampler=grid", "hydra.sweeper.workers=2", "name=grid"]
    command = [sys.executable, "sweep.py", *study, *ONE, "report=false"]  # whose own test is tests/test_light.py
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "torch is loaded: False"
    assert len(list((tmp_path / "outputs/grid").glob("*/run.json"))) == 2


@pytest.mark.slow
def test_help_shows_groups_and_commands_without_loading_torch(tmp_path):
    code = "import sys; sys.argv = ['train', '--help']; from reg_sweep import train; train.main()"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^  python -m reg_sweep", done.stdout, re.MULTILINE)) >= 5
    for group in ("data", "experiment", "model", "norm", "optimizer", "penalty", "runtime", "schedule", "study"):
        assert re.search(rf"^{group}: \w+", done.stdout, re.MULTILINE)


def test_the_shell_completes_options(tmp_path):
    command = Path(sys.executable).with_name("reg-sweep-train")
    environment = os.environ | {"COMP_LINE": "reg-sweep-train norm=g", "COMP_POINT": "22"}
    said = subprocess.check_output([command, "-sc", "query=bash"], cwd=tmp_path, env=environment, text=True)
    assert said.split() == ["norm=gbn", "norm=gn"]


# ---- real MNIST


@pytest.mark.slow
@pytest.mark.mnist
def test_the_main_job_trains_on_50000_real_images(mnist_root, start, tmp_path):
    quick = ["epochs=1", "model.channels=8", "name=a"]
    assert start("norm=gbn", "l1=0.00001", "l2=0.0005", f"data.root={mnist_root}", *quick) == 0
    record = reading.read_record(tmp_path / "outputs" / "a")
    assert record["data"]["n_train"] == 50_000
    assert record["data"]["source"] == "local copy"
    assert record["last"]["test_accuracy"] > 0.9
    assert json.loads(json.dumps(record["config"])) == record["config"]


def test_a_job_arrays_run_has_a_name_that_follows_from_its_settings():
    def name(*more):
        run = composed("+cluster=array", *more)
        assert run.name == f"run_{digest(to_dict(run))}"
        return run.name

    assert name("seed=1") == name("seed=1", "runtime.threads=1") != name("seed=2")


@pytest.mark.slow
def test_a_grid_whose_report_can_not_be_written_says_so_and_how_to_have_it(start, tmp_path, capsys):
    page = tmp_path / "outputs" / "a" / "report" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    assert start("-m", *ONE, "seed=1,2", "name=a") == 1
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert "no report was written: --out must name a new folder" in said
    assert said.endswith("the runs are kept: retry with python -m reg_sweep.report outputs/a --out outputs/a-report")
    assert page.read_text() == "mine"


@pytest.mark.slow
def test_a_folder_that_may_not_be_looked_at_is_one_line(start, tmp_path, monkeypatch, capsys):
    def closed(path):
        if "outputs" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(Path, "is_symlink", closed)
    assert start(*ONE, "name=a") == 2
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line)
    assert "Permission denied" in said
    assert "choose another, hydra.run.dir=FOLDER" in said
