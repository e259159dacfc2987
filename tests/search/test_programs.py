"""Sweeps that programs start: a notebook, a test, a script with flags of its own, whose command line is not Hydra's."""

import sys
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from toy_apps import STUDY, load, states

from reg_sweep.hydra_app.internals import store_config
from reg_sweep.search import current_trial
from reg_sweep.search.settings import StudyError

PROGRAMS = {
    "notebook": ["ipykernel_launcher.py", "-f", "/run/user/1000/jupyter/kernel-1.json"],
    "pytest": ["/usr/bin/pytest", "-q", "tests/test_mine.py"],
    "flags": ["mine.py", "--fast", "--config-name", "x", "--multirun", "y=3"],
    "emptied": [],
    "no texts": [1, None],
}


def sphere(config):
    return (config.x - 0.3) ** 2


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Runs a function as hydra-zen's `launch` does: by Hydra's classes, past its command line."""
    monkeypatch.chdir(tmp_path)
    store_config("program", {"x": 0.0, "seed": 0})

    def run(function, *overrides):
        GlobalHydra.instance().clear()
        program = Hydra.create_main_hydra2("program", create_config_search_path(None))
        try:
            return program.multirun("program", function, [*overrides, "hydra.job.chdir=false"])
        finally:
            GlobalHydra.instance().clear()

    return run


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_programs_sweep_ends_with_all_of_its_files_and_is_resumed_by_the_same_call(
    launch, monkeypatch, caplog, program
):
    monkeypatch.setattr(sys, "argv", PROGRAMS[program])
    caplog.set_level("INFO")
    overrides = [*STUDY[1:], "x=interval(-1, 1)", "hydra.sweeper.workers=auto"]
    for n in (1, 2):
        launch(sphere, *overrides, f"hydra.sweeper.n_trials={n}")
    assert states(load()) == ["COMPLETE"] * 2
    assert {"study.json", "study.db", "optimization_results.yaml"} <= {p.name for p in Path("out").iterdir()}
    assert "x: " in Path("out/experiment/best.yaml").read_text()
    assert "run it:" not in caplog.text  # there is no command
    assert sys.argv == PROGRAMS[program]


def test_a_plain_grid_returns_what_hydras_own_does_and_once(launch, monkeypatch):
    monkeypatch.setattr(sys, "argv", PROGRAMS["notebook"])
    grid = ["hydra/sweeper=resumable_grid", "hydra.sweep.dir=out", "hydra.sweep.subdir=job_${hydra.job.num}", "x=1,2"]
    (batch,) = launch(lambda config: {"twice": 2 * config.x}, *grid)
    assert [job.return_value for job in batch] == [{"twice": 2}, {"twice": 4}]
    assert [list(job.overrides) for job in batch] == [["x=1"], ["x=2"]]
    assert [job.cfg.x for job in batch] == [1, 2]
    assert Path("out/job_1/.hydra").is_dir()
    assert launch(sphere, *grid) == [[]]
    assert launch(sphere, *STUDY[1:], "hydra.sweep.dir=search", "x=1,2", "hydra.sweeper.n_trials=1") is None


def test_a_programs_confirmation_and_verdict_need_no_command(launch, monkeypatch):
    monkeypatch.setattr(sys, "argv", PROGRAMS["notebook"])
    common = [*STUDY[1:], "hydra.sweeper.design.max_seeds=3", "hydra.sweeper.baseline={x: 0}"]
    search = ["x=0,0.1,0.2", "hydra.sweeper.n_trials=3", "hydra/sweeper/sampler=grid", "hydra.sweeper.confirm=true"]
    launch(lambda config: config.x**2 + 0.01 * config.seed, *common, *search)
    assert len(load("out/confirm", "out_confirm").trials) >= 6


def test_workers_of_a_program_are_refused_before_anything_runs(launch, monkeypatch):
    monkeypatch.setattr(sys, "argv", PROGRAMS["notebook"])
    with pytest.raises(StudyError, match=r"hydra.sweeper.workers must be 1 if the app was not started from a comm"):
        launch(sphere, *STUDY[1:], "x=interval(-1, 1)", "hydra.sweeper.workers=2", "hydra.sweeper.n_trials=3")


def test_an_interrupted_programs_sweep_raises_keyboard_interrupt(launch, monkeypatch):
    def interrupted(config):
        import signal

        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "argv", PROGRAMS["notebook"])
    with pytest.raises(KeyboardInterrupt):
        launch(interrupted, *STUDY[1:], "x=interval(-1, 1)", "hydra.sweeper.n_trials=1")
    assert states(load()) == ["WAITING"]


def test_an_integration_reports_through_optunas_own_trial(launch):
    def integrated(config):
        trial = current_trial().optuna_trial
        trial.report(config.x, 1)
        trial.set_user_attr("by", "an integration")
        assert not trial.should_prune()
        return config.x

    launch(integrated, *STUDY[1:], "x=0.25,0.5", "hydra.sweeper.n_trials=1", "hydra.sweeper.metric_names=[loss]")
    study = load()
    (trial,) = study.trials
    assert trial.intermediate_values == {1: trial.params["x"]}
    assert trial.user_attrs["by"] == "an integration"
    assert study.metric_names == ["loss"]
