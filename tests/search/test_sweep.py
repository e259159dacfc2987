"""Whole studies of toy apps: that they find, repeat, resume, and refuse what makes no sense."""

import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from toy_apps import APPS, DESIGN, SEED, STUDY, X, load, options, run_process, start, states
from waiting import wait_until

from reg_sweep.search.sweep import StudySweep


@pytest.mark.slow
def test_tpe_finds_the_spheres_optimum(app):
    app("sphere", *STUDY, X, "y=interval(-1, 1)", "hydra.sweeper.n_trials=40", SEED)
    study = load()
    assert study.best_value < 0.02
    assert study.best_params == pytest.approx({"x": 0.3, "y": -0.2}, abs=0.15)


@pytest.mark.slow
def test_a_seeded_study_repeats_itself_beside_enqueued_points_and_a_continued_one_does_not_repeat_its_points(app):
    for folder, n_trials in (("a", 4), ("b", 4), ("b", 8)):
        search = [*STUDY[:-1], f"hydra.sweep.dir={folder}", X, "hydra.sweeper.enqueue=[{x: 0.25}]", SEED]
        app("sphere", *search, f"hydra.sweeper.n_trials={n_trials}")
    a, b = ([t.params["x"] for t in load(folder, folder).trials] for folder in ("a", "b"))
    assert a == b[:4]
    assert len(set(b)) == 8


@pytest.mark.slow
def test_two_objectives_give_a_pareto_front(app):
    done = app("descent", *STUDY, X, "returns=pair", *options(n_trials=4, direction="[minimize,maximize]"))
    study = load()
    assert states(study) == ["COMPLETE"] * 4
    assert study.trials[0].values == [1.0, 2.0]
    assert "Pareto front" in done.out


@pytest.mark.slow
def test_the_same_command_resumes_to_the_total_in_new_directories(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=3")
    before = {t.number: (t.value, t.datetime_complete) for t in load().trials}
    killed = [Path(f"out/{name}.12-0123abcd.reg_sweep.tmp") for name in (".study.json", "experiment/.best.yaml")]
    for half_written in killed:
        half_written.touch()
    for _ in range(2):
        app("descent", *STUDY, X, "hydra.sweeper.n_trials=5")
        assert not any(half_written.exists() for half_written in killed)
    trials = load().trials
    assert [t.number for t in trials] == [0, 1, 2, 3, 4]
    assert {n: (trials[n].value, trials[n].datetime_complete) for n in before} == before
    assert all(Path(f"out/{n}/done.txt").read_text() == "done\n" for n in range(5))


@pytest.mark.slow
def test_an_interrupted_trial_resumes_where_it_was(tmp_path):
    study = ["descent", *STUDY, X, "epochs=4", *options(n_trials=2, may_differ="[pause_s]")]
    process = start(tmp_path, *study, "pause_s=0.5")
    steps = tmp_path / "out/0/steps.txt"
    wait_until(lambda: steps.exists() and steps.read_text(), "first step")
    process.send(signal.SIGTERM)
    stopped = process.end()
    out = stopped.stdout + stopped.stderr
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "the same command resumes study out" in out
    assert f"python {os.path.relpath(APPS / 'descent.py', tmp_path)} {shlex.join(STUDY[1:])}" in out
    assert out.rstrip().endswith(" -m")
    assert "Traceback" not in out
    assert states(load(tmp_path / "out")) == ["WAITING"]
    run_process(tmp_path, *study)
    trials = load(tmp_path / "out").trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 2
    assert trials[0].user_attrs["job"]["attempt"] == 1
    assert steps.read_text() == "1\n2\n3\n4\n"


@pytest.mark.slow
def test_a_confirmation_and_a_full_disk_name_the_search_s_command(app, monkeypatch):
    """Its folder is named by the clock: without that name the command would start anew."""
    dated = ["+name='${now:%H%M%S%f}'", "hydra.sweep.dir='out/${name}'"]
    search = ["x=interval(0, 1)", "hydra.sweeper.n_trials=2", "hydra.sweeper.baseline={x: 0}", SEED]
    typed = ["-m", "hydra/sweeper=optuna_study", *dated, *search, "hydra.sweeper.confirm=true", *DESIGN]
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, str(APPS / "arms.py"), *typed])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reg_sweep.search.sweep.conclude_verdict", full)
    done = app("arms", *typed, "hydra.sweeper.direction=maximize", code=1)
    (folder,) = (p for p in Path("out").iterdir() if p.is_dir())
    assert "No space left on device; finished trials are kept, resume with: python " in done.err
    command = shlex.split(done.err.partition("resume with: ")[2].splitlines()[0])
    (named,) = (a for a in command if a.startswith("+name="))
    value = OverridesParser.create().parse_override(named).value()  # quoted for Hydra, too, where it reads as a number
    assert getattr(value, "text", value) == folder.name


def test_an_interrupt_stays_one_where_the_jobs_log_can_not_be_written_any_more(monkeypatch):
    class Gone(logging.Handler):
        def emit(self, record):
            raise FileNotFoundError("out/3/train.log")

    logger = logging.getLogger("reg_sweep.search.sweep")
    monkeypatch.setattr(logger, "handlers", [Gone()])
    monkeypatch.setattr(logger, "level", logging.INFO)
    place, app = SimpleNamespace(name="a"), SimpleNamespace(typed="typed", again=lambda: "again")
    sweep = SimpleNamespace(_orders=None, _place=place, _app=app)
    with pytest.raises(SystemExit) as end, StudySweep._explained(sweep):
        raise KeyboardInterrupt
    assert end.value.code == 130
