"""Every command that a sweep of any app prints, typed again: it does what its sentence says."""

import re
import signal
import sys
from pathlib import Path

import pytest
from commands import last_command, type_in
from omegaconf import OmegaConf
from toy_apps import APPS, STUDY, X, load, start
from waiting import wait_until

from reg_sweep.hydra_app.command_line import overrides_and_flags
from reg_sweep.runs.study import read_study


@pytest.fixture
def folders(tmp_path):
    """Two folders of a user's config files; the commands are typed in a third, from which they are relative."""
    (tmp_path / "own" / "extra").mkdir(parents=True)
    (tmp_path / "own" / "extra" / "mine.yaml").write_text("depth: 3\n")
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "start.yaml").write_text("x: 0.0\nlist: [4, 5]\ngone: 2\nmain: start\n")
    own = "defaults: [start, _self_, {experiment: null}]\n"
    (tmp_path / "main" / "whole.yaml").write_text(own)
    (tmp_path / "main" / "wins.yaml").write_text("defaults: [whole, _self_]\nx: 7.0\n")
    (tmp_path / "typed here").mkdir()
    return tmp_path / "typed here"


def config(folder: Path) -> dict:
    return OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"), resolve=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    [
        ["--config-name=other", "~gone"],
        ["--config-dir", "../own", "+extra=mine"],
        ["hydra.searchpath=[file://../own]", "+extra=mine", "--config-name", "other"],
        ["~scale", "list.0=range(1,5)"],
        ["list.2.a=c,'d e'", "list.1=7"],
        ["--config-path", "{root}/main", "-cn", "wins"],
    ],
    ids=" ".join,
)
def test_run_it_runs_the_best_trials_config_whatever_chose_it(app, folders, monkeypatch, typed):
    monkeypatch.chdir(folders)
    overrides, flags = overrides_and_flags([a.format(root=folders.parent) for a in typed])
    arguments = [*STUDY, X, "hydra.sweeper.n_trials=2", *overrides, *flags]
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, str(APPS / "echo.py"), *arguments])
    done = app("echo", *arguments)
    best = load().best_trial.number
    command = re.search(r"run it: +(python .*)", done.out)[1]
    type_in(folders, f"{command} hydra.run.dir=again")
    assert config(folders / "again") == config(folders / "out" / str(best))


@pytest.mark.slow
@pytest.mark.parametrize(
    "dated",
    [
        ["+name='${now:%H%M%S%f}'", "hydra.sweep.dir='out/${name}'"],
        ["hydra.sweep.dir='out/it at ${now:%H:%M:%S}'"],
        ["hydra.sweep.dir='out/${now:%S}'", "hydra.sweeper.study_name='a, b'"],
    ],
    ids=" ".join,
)
def test_an_interrupted_study_resumes_where_it_was_though_its_folder_is_named_by_the_clock(tmp_path, dated):
    study = ["-m", "hydra/sweeper=optuna_study", *dated, X, "pause_s=0.1", "hydra.sweeper.n_trials=4"]
    child = start(tmp_path, "descent", *study)
    wait_until(lambda: len(list(tmp_path.glob("out/*/1"))) == 1, "second trial")
    child.send(signal.SIGINT)
    stopped = child.end()
    (folder,) = (p for p in tmp_path.glob("out/*") if p.is_dir())
    type_in(tmp_path, last_command(stopped))
    assert [p for p in tmp_path.glob("out/*") if p.is_dir()] == [folder]
    assert [t.state for t in read_study(folder / "study.json").trials] == ["complete"] * 4


@pytest.mark.slow
def test_a_front_of_a_main_config_that_wins_over_files_has_a_command_for_each_point(app, folders, monkeypatch):
    monkeypatch.chdir(folders)
    arguments = [*STUDY, X, "hydra.sweeper.n_trials=2", "hydra.sweeper.direction=[minimize,maximize]", "+two=true"]
    arguments += ["--config-path", str(folders.parent / "main"), "-cn", "wins"]
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, str(APPS / "echo.py"), *arguments])
    done = app("echo", *arguments)
    commands = re.findall(r"run it: +(python .*)", done.out)
    assert len(commands) == 2
    for command in commands:
        number = int(re.search(r" experiment=best_(\d)", command)[1])
        assert f"x={load().trials[number].params['x']}" in command
