"""The sweeper, on toy apps that are no part of this package."""

import io
import json
import logging
import math
import os
import re
import runpy
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from reg_sweep.search import Settings, current_trial
from reg_sweep.search import sweep as search

APPS = Path(__file__).parent / "search_app"
STUDY = ["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out"]
X = "x=interval(-1, 1)"
Y = "y=interval(-1, 1)"
SEED = "+hydra.sweeper.sampler.seed=1"


@pytest.fixture
def app(tmp_path, monkeypatch, capfd):
    """Runs a toy app in this process, in a fresh directory; gives its exit code, output and errors."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [str(APPS / f"{name}.py"), *arguments])
        capfd.readouterr()
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            for handler in set(root.handlers) - set(before[0]):
                handler.close()
            root.handlers[:], root.level = before
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


def start(tmp_path, name, *arguments, **kwargs):
    """Starts a toy app as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(APPS / f"{name}.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def run_process(tmp_path, name, *arguments):
    process = start(tmp_path, name, *arguments)
    out, _ = process.communicate(timeout=120)
    return SimpleNamespace(code=process.returncode, out=out)


def load(folder="out", name="out"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/study.db")


def states(study):
    return [t.state.name for t in study.trials]


def test_a_config_composed_quickly_is_the_one_that_hydra_composes(app, monkeypatch):
    """The reference is Hydra's own loader, for every job of a study with numbers, choices, groups and fixed values."""
    compared = []
    quick = search.JobComposer.load_sweep_config

    def both(self, master, overrides):
        config, reference = quick(self, master, overrides), self._loader.load_sweep_config(master, overrides)
        compared.append(config == reference and repr(config) == repr(reference))
        assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(reference)
        return config

    monkeypatch.setattr(search.JobComposer, "load_sweep_config", both)
    swept = [X, "y=range(-1, 1)", "scale=ten,one", "+extra=interval(0, 1)", "z=2", "scale.factor=choice(1.5, 2.5)"]
    done = app(
        "sphere", *STUDY, *swept, "hydra.sweeper.n_trials=12", "hydra.job.config.override_dirname.exclude_keys=[z]"
    )
    assert done.code == 0, done.err
    assert compared == [True] * 12


# Credentials


@pytest.mark.parametrize("written", ["'{url}'", "'${{oc.env:VAULT_URL}}'"])
@pytest.mark.parametrize("more", [[], ["hydra.sweeper.workers=2"]])
def test_a_storages_password_is_written_nowhere(tmp_path, monkeypatch, written, more):
    url = f"vault://me:s3cr3t@somewhere/{tmp_path}/vault.db"
    monkeypatch.setenv("VAULT_URL", url)
    storage = f"hydra.sweeper.storage={written.format(url=url)}"
    done = run_process(tmp_path, "vault", *STUDY, X, storage, "hydra.sweeper.n_trials=3", *more)
    assert done.code == 0, done.out
    written_files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert any(p.name == "hydra.yaml" for p in written_files)
    assert [p for p in written_files if b"s3cr3t" in p.read_bytes()] == []
    assert "s3cr3t" not in done.out


def test_a_wrong_password_is_one_line_that_does_not_hold_it(tmp_path):
    url = f"vault://me:Zqwrong@somewhere/{tmp_path}/vault.db"
    done = run_process(tmp_path, "vault", *STUDY, X, f"hydra.sweeper.storage='{url}'")
    assert done.code == 1
    assert "password authentication failed" in done.out.splitlines()[0]
    assert "Zqwrong" not in done.out
    assert "Traceback" not in done.out


# Studies


def test_tpe_finds_the_spheres_optimum(app):
    done = app("sphere", *STUDY, X, "y=interval(-1, 1)", "hydra.sweeper.n_trials=60", SEED)
    assert done.code == 0, done.err
    study = load()
    assert study.best_value < 0.02
    assert study.best_params == pytest.approx({"x": 0.3, "y": -0.2}, abs=0.15)


def test_a_seeded_study_repeats_itself_and_a_continued_one_does_not_repeat_its_points(app):
    for folder in ("a", "b"):
        app(
            "sphere",
            "-m",
            "hydra/sweeper=optuna_study",
            f"hydra.sweep.dir={folder}",
            X,
            "hydra.sweeper.n_trials=5",
            SEED,
        )
    a, b = (load(folder, folder) for folder in ("a", "b"))
    assert [t.params for t in a.trials] == [t.params for t in b.trials]
    app("sphere", "-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=a", X, "hydra.sweeper.n_trials=10", SEED)
    assert len({t.params["x"] for t in a.trials}) == 10


def test_a_grid_is_run_whole_and_once(app):
    done = app("sphere", *STUDY, "hydra/sweeper/sampler=grid", "x=0,0.3", "y=range(-0.2, 0.2, 0.1)", "scale=glob(*)")
    assert done.code == 0, done.err
    trials = load().trials
    points = [tuple(sorted(t.params.items(), key=str)) for t in trials]
    assert len(points) == len(set(points)) == 2 * 4 * 2
    config = Path("out/3/.hydra/overrides.yaml").read_text()
    assert all(f"- {k}={v}" in config for k, v in trials[3].params.items())


def test_enqueued_points_come_first_and_once(app):
    points = "hydra.sweeper.enqueue=[{x: 0.25}, {x: 0.5}]"
    for total in (3, 4):
        app("sphere", *STUDY, X, points, f"hydra.sweeper.n_trials={total}")
    values = [t.params["x"] for t in load().trials]
    assert values[:2] == [0.25, 0.5]
    assert len(values) == 4
    assert values.count(0.25) == 1


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc", "cmaes", "nsgaii"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_of_the_group_runs_as_installed(app, sampler):
    done = app("sphere", *STUDY, X, Y, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=3")
    assert done.code == 0, done.err
    assert states(load()) == ["COMPLETE"] * 3


def test_a_sampler_whose_library_is_missing_is_refused_before_the_study_begins(app, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    # another test may have had Optuna load it
    monkeypatch.setattr("optuna.samplers._cmaes.cmaes", optuna._imports._LazyImport("cmaes"))
    done = app("sphere", *STUDY, X, Y, "hydra/sweeper/sampler=cmaes", "hydra.sweeper.n_trials=3")
    assert done.code != 0
    assert "CmaEsSampler can't search this space" in done.err
    assert "cmaes" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out" / "0").exists()


def test_two_objectives_give_a_pareto_front(app):
    done = app(
        "descent", *STUDY, X, "returns=pair", "hydra.sweeper.n_trials=4", "hydra.sweeper.direction=[minimize,maximize]"
    )
    assert done.code == 0, done.err
    study = load()
    assert states(study) == ["COMPLETE"] * 4
    assert study.trials[0].values == [1.0, 2.0]
    assert "Pareto front" in done.out


def test_the_job_is_told_its_trial_and_only_there(app):
    assert current_trial() is None
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=2")
    assert current_trial() is None
    assert "REG_SWEEP_TRIAL" not in os.environ
    assert app("descent", "x=0.3").code == 0
    study = load()
    for trial in study.trials:
        assert list(trial.intermediate_values) == [1, 2, 3, 4]
        assert trial.user_attrs["job"]["directory"] == str(trial.number)


def test_a_pruner_ends_trials_that_do_worse_than_the_others(app):
    more = ["hydra/sweeper/pruner=median", "+hydra.sweeper.pruner.n_startup_trials=2"]
    done = app("descent", *STUDY, X, *more, "hydra.sweeper.n_trials=12", SEED)
    assert done.code == 0, done.err
    pruned = [t for t in load().trials if t.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert not Path(f"out/{trial.number}/done.txt").exists()
        assert f"pruned at step {trial.last_step}" in done.out


def test_a_failed_trial_is_recorded_with_its_last_line_and_the_study_goes_on(app):
    more = ["fails_above=0.5", "hydra.sweeper.enqueue=[{x: 0.9}]", "hydra.sweeper.max_failure_rate=0.9"]
    done = app("descent", *STUDY, "x=0,0.9", *more, "hydra.sweeper.n_trials=6")
    assert done.code == 0, done.err
    study = load()
    assert states(study)[0] == "FAIL"
    assert len(study.trials) == 6
    assert study.trials[0].user_attrs["error"] == "ValueError: x is too large: True"
    assert "Traceback" in Path("out/0/descent.log").read_text()


def test_too_many_failures_end_the_study_with_an_error(app):
    done = app(
        "descent", *STUDY, X, "fails_above=-2", "hydra.sweeper.n_trials=10", "hydra.sweeper.max_failure_rate=0.2"
    )
    assert done.code == 1
    assert done.err.splitlines()[-3].startswith("3 of 10 trials failed") or "3 of 10 trials failed" in done.err
    assert states(load()) == ["FAIL"] * 3


@pytest.mark.parametrize(
    ("returned", "state", "error"),
    [
        ("infinity", "COMPLETE", None),
        ("not_a_number", "FAIL", "the objective must be a number, the app's function returned nan"),
        ("text", "FAIL", "the objective must be a number, the app's function returned 'three'"),
        ("pair", "FAIL", "the objective must be 1 number, the app's function returned 2"),
        ("exit", "FAIL", "SystemExit: 3"),
    ],
)
def test_what_a_function_returns_is_a_result_or_a_failure(app, returned, state, error):
    app("descent", *STUDY, X, f"returns={returned}", "hydra.sweeper.n_trials=1", "hydra.sweeper.max_failure_rate=1")
    trial = load().trials[0]
    assert (trial.state.name, trial.user_attrs.get("error")) == (state, error)
    assert error is not None or trial.value == math.inf


def test_the_same_command_goes_on_to_the_total_in_new_directories(app):
    assert app("descent", *STUDY, X, "hydra.sweeper.n_trials=3").code == 0
    before = {t.number: (t.value, t.datetime_complete) for t in load().trials}
    assert app("descent", *STUDY, X, "hydra.sweeper.n_trials=5").code == 0
    assert app("descent", *STUDY, X, "hydra.sweeper.n_trials=5").code == 0
    trials = load().trials
    assert [t.number for t in trials] == [0, 1, 2, 3, 4]
    assert {n: (trials[n].value, trials[n].datetime_complete) for n in before} == before
    assert all(Path(f"out/{n}/done.txt").read_text() == "done\n" for n in range(5))


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (["x=interval(-2, 1)"], "x was -1.0 to 1.0, is -2.0 to 1.0"),
        ([X, "epochs=5"], "epochs was 4, is 5"),
        ([X, "pause_s=interval(0, 0.001)"], "pause_s was 0.0, is 0.0 to 0.001"),
    ],
)
def test_a_changed_study_is_refused_unless_it_is_extended(app, changed, difference):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=2")
    refused = app("descent", *STUDY, *changed, "hydra.sweeper.n_trials=3")
    assert refused.code == 1
    assert difference in refused.err.splitlines()[0]
    assert len(load().trials) == 2
    assert app("descent", *STUDY, *changed, "hydra.sweeper.n_trials=3", "hydra.sweeper.extend=true").code == 0
    assert len(load().trials) == 3
    assert app("descent", *STUDY, *changed, "hydra.sweeper.n_trials=4").code == 0


def test_another_sampler_goes_on_with_a_study_but_not_without_a_word(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=2")
    same = app("descent", *STUDY, X, "hydra.sweeper.n_trials=3")
    other = app("descent", *STUDY, X, "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=4")
    assert "goes on with" not in same.out
    assert "goes on with RandomSampler and NopPruner, it had TPESampler and NopPruner" in other.out
    assert len(load().trials) == 4


def test_keys_that_may_differ_do_not_stop_a_study(app):
    app("descent", *STUDY, X, "pause_s=0", "hydra.sweeper.n_trials=1", "hydra.sweeper.may_differ=[pause_s]")
    more = ["pause_s=0.001", "hydra.sweeper.n_trials=2", "hydra.sweeper.may_differ=[pause_s]"]
    assert app("descent", *STUDY, X, *more).code == 0
    assert len(load().trials) == 2


def test_choices_can_not_be_extended(app):
    app("descent", *STUDY, "x=0,1", "hydra.sweeper.n_trials=1")
    done = app("descent", *STUDY, "x=0,1,2", "hydra.sweeper.extend=true")
    assert done.code == 1
    assert "neither choices nor a grid can be extended" in done.err.splitlines()[0]


def test_a_directory_of_other_jobs_is_not_overwritten(app):
    app("sphere", "-m", "hydra.sweep.dir=out", "x=1,2")
    before = {p: p.read_bytes() for p in Path("out").rglob("*") if p.is_file()}
    done = app("sphere", *STUDY, X)
    assert done.code == 1
    assert "out/0 holds a job that study out knows nothing of" in done.err.splitlines()[0]
    assert all(p.read_bytes() == content for p, content in before.items())


def test_the_best_trials_file_runs_as_it_is(app):
    app("sphere", *STUDY, X, "y=-0.2", "scale=ten,one", "hydra.sweeper.n_trials=8", SEED)
    best = load().best_trial
    done = app("sphere", "--config-dir", "out", "experiment=best", "--cfg", "job")
    assert done.code == 0, done.err
    wanted = {"one": 1.0, "ten": 10.0}[best.params["scale"]]
    assert f"factor: {wanted}\n" in done.out
    assert f"x: {best.params['x']}\n" in done.out
    assert "'y': -0.2\n" in done.out


def test_a_study_ends_with_its_best_trials_and_the_next_commands(app):
    done = app("sphere", *STUDY, X, "y=interval(-1, 1)", "hydra.sweeper.n_trials=6", SEED)
    best = load().best_trial
    table = done.out[done.out.index("best trials") :].splitlines()
    assert table[1].split() == ["trial", "value", "x", "y"]
    assert table[2].split()[0] == str(best.number)
    assert re.search(r"importance of each parameter: [xy]=0\.\d+ [xy]=0\.\d+", done.out)
    assert f"optuna-dashboard sqlite:///{Path('out/study.db').absolute()}" in done.out
    assert "--config-dir out experiment=best" in done.out


def test_the_best_trial_of_an_app_without_experiments_has_a_command_that_runs(app):
    done = app("descent", *STUDY, X, "hydra.sweeper.n_trials=3", SEED)
    command = re.search(r"run it: .*(--config-dir .*)", done.out)[1]
    again = app("descent", *shlex.split(command), "--cfg", "job")
    assert again.code == 0, again.err
    assert f"x: {load().best_trial.params['x']}\n" in again.out


def test_a_study_without_a_finite_value_has_no_best_trial(app):
    done = app("descent", *STUDY, "x=1,2", "returns=infinity", "hydra.sweeper.n_trials=2")
    assert done.code == 0, done.err
    assert states(load()) == ["COMPLETE"] * 2
    assert "no trial has a finite value" in done.out
    assert "run it" not in done.out
    assert not Path("out/experiment").exists()


def test_each_trial_has_one_line_where_there_is_no_terminal(app):
    done = app("sphere", *STUDY, X, "hydra.sweeper.n_trials=3")
    lines = [line for line in done.out.splitlines() if re.search(r"trial \d+: x=", line)]
    assert len(lines) == 3
    assert re.search(r"1 of 3, best .* \(trial 0\), 0 pruned, 0 failed, about \d+ s left", lines[0])
    assert "\x1b" not in done.out + done.err


def test_batches_go_to_the_launcher_at_once(app):
    assert app("descent", *STUDY, X, "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2").code == 0
    assert states(load()) == ["COMPLETE"] * 5
    assert all(Path(f"out/{n}/done.txt").exists() for n in range(5))


def test_a_journal_file_is_a_storage_too(app):
    more = ["hydra.sweeper.storage=journal.log", "hydra.sweeper.n_trials=3"]
    assert app("descent", *STUDY, X, *more).code == 0
    assert not Path("journal.log.lock").exists()  # Optuna's, which it makes and removes: nobody else may hold it
    backend = optuna.storages.journal.JournalFileBackend("journal.log")
    study = optuna.load_study(study_name="out", storage=optuna.storages.JournalStorage(backend))
    assert states(study) == ["COMPLETE"] * 3


def test_optuna_dashboard_shows_names_states_and_reports(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=2")
    from optuna_dashboard._app import create_app

    server = create_app(optuna.storages.RDBStorage("sqlite:///out/study.db"))
    answers = []

    def ask(path):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "after=0", "wsgi.input": io.BytesIO()}
        answers.clear()
        body = b"".join(server(environ, lambda status, headers, *_: answers.append(status)))
        assert answers == ["200 OK"]
        return json.loads(body)

    (summary,) = ask("/api/studies")["study_summaries"]
    assert summary["study_name"] == "out"
    trials = ask(f"/api/studies/{summary['study_id']}")["trials"]
    assert [t["state"] for t in trials] == ["Complete", "Complete"]
    assert [v["step"] for v in trials[0]["intermediate_values"]] == [1, 2, 3, 4]


def test_joblibs_jobs_tell_their_own_results_also_where_one_is_killed(tmp_path):
    more = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4"]
    kill = ["hydra.sweeper.enqueue=[{x: 0.1}, {x: 0.9}]", "kills_itself_above=0.8", "epochs=3"]
    alive = ["hydra.sweeper.heartbeat_interval=0.2", "hydra.sweeper.grace_period=2"]
    done = run_process(tmp_path, "descent", *STUDY, "x=0.1,0.9", *more, *kill, *alive)
    assert done.code == 0, done.out
    study = load(tmp_path / "out")
    assert states(study) == ["COMPLETE"] * 4
    assert study.trials[1].user_attrs["job"]["attempt"] == 2
    assert (tmp_path / "out/1/steps.txt").read_text() == "1\n2\n3\n"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([X, "hydra/sweeper/sampler=grid"], "a grid needs values that can be listed, but x is an interval"),
        (
            [X, "hydra/sweeper/sampler=cmaes", "hydra.sweeper.direction=[minimize,maximize]"],
            "CmaEsSampler can't search this space",
        ),
        (["x=1"], "the search space is empty"),
        (["x=tag(log, interval(0, 1))"], "on a log scale an interval must start above 0"),
        ([X, "hydra/sweeper/pruner=guillotine"], "Could not find 'hydra/sweeper/pruner/guillotine'"),
        ([X, "hydra.sweeper.pruner._target_=optuna.pruners.Guillotine"], "optuna.pruners.Guillotine can't be made"),
        ([X, "hydra.sweeper.pruner._target_=pathlib.Path"], "hydra.sweeper.pruner must be one of Optuna's pruners"),
        ([X, "+hydra.sweeper.sampler.n_trees=3"], "optuna.samplers.TPESampler can't be made"),
        ([X, "hydra.sweeper.sampler=null"], "hydra.sweeper.sampler must name a class"),
        ([X, "hydra.sweeper.storage=sqlite:////nowhere/at/all.db"], "sqlite:////nowhere/at/all.db can't be used"),
        ([X, "hydra.sweeper.storage=/nowhere/at/all.log"], "/nowhere/at/all.log can't be used"),
        ([X, "hydra.sweeper.storage='nosuch://me:Zqpw@host/db'"], "nosuch://host/db can't be used"),
        ([X, "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be at least 1, got 0"),
        ([X, "hydra.sweeper.workers=0"], "hydra.sweeper.workers must be at least 1, got 0"),
        ([X, "hydra.sweeper.n_jobs=0"], "hydra.sweeper.n_jobs must be at least 1, got 0"),
        ([X, "hydra.sweeper.max_failure_rate=2"], "hydra.sweeper.max_failure_rate must be between 0 and 1, got 2"),
        ([X, "hydra.sweeper.direction=sideways"], "hydra.sweeper.direction must be minimize or maximize"),
        ([X, "hydra.sweeper.grace_period=1"], "hydra.sweeper.grace_period must be longer than heartbeat_interval"),
        ([X, "hydra.sweeper.enqueue=[{y: 1}]"], "hydra.sweeper.enqueue: y is not swept"),
        ([X, "hydra.sweeper.enqueue=[{x: 3}]"], "hydra.sweeper.enqueue: x must be -1.0 to 1.0, got 3"),
        ([X, "hydra.sweeper.enqueue=[{x: 0}, {x: 1}]", "hydra.sweeper.n_trials=1"], "at least the 2 enqueued points"),
        ([X, "wrong=1"], "Could not override 'wrong'"),
        (["x=interval(a, b)"], "interval"),
        (
            [X, "hydra.sweeper.direction=[minimize,maximize]", "hydra/sweeper/pruner=median"],
            "Optuna prunes studies of one objective only",
        ),
        (
            [X, "hydra.sweeper.workers=2"],
            "hydra.sweeper.workers must be 1 where the app was not started from a command",
        ),
    ],
)
def test_bad_input_is_one_clear_line_and_starts_no_trial(app, arguments, complaint):
    done = app("sphere", *STUDY, *arguments)
    assert done.code == 1
    assert complaint in done.err
    assert "Traceback" not in done.err + done.out
    assert "Zqpw" not in done.err + done.out
    assert not Path("out/0").exists()


def test_a_study_of_another_direction_is_refused(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=1")
    done = app("descent", *STUDY, X, "hydra.sweeper.direction=maximize")
    assert done.code == 1
    assert "study out has the direction minimize, not maximize" in done.err.splitlines()[0]
    assert len(load().trials) == 1


# Workers, interrupts, kills


def test_workers_share_a_study_and_leave_nothing_running(tmp_path):
    done = run_process(
        tmp_path, "descent", *STUDY, X, "hydra.sweeper.n_trials=8", "hydra.sweeper.workers=2", "pause_s=0.1"
    )
    assert done.code == 0, done.out
    study = load(tmp_path / "out")
    assert states(study) == ["COMPLETE"] * 8
    assert len({t.user_attrs["job"]["pid"] for t in study.trials}) == 2
    assert len({t.params["x"] for t in study.trials}) == 8
    assert done.out.count(" | ") == 8


def test_an_interrupted_trial_goes_on_where_it_was(tmp_path):
    more = ["hydra.sweeper.n_trials=2", "epochs=4"]
    process = start(tmp_path, "descent", *STUDY, X, *more, "pause_s=0.5", "hydra.sweeper.may_differ=[pause_s]")
    steps = tmp_path / "out/0/steps.txt"
    wait_until(lambda: steps.exists() and steps.read_text())
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on with study out" in out
    assert f"python {os.path.relpath(APPS / 'descent.py', tmp_path)} {shlex.join(STUDY)}" in out
    assert "Traceback" not in out
    assert states(load(tmp_path / "out")) == ["WAITING"]
    done = run_process(tmp_path, "descent", *STUDY, X, *more, "hydra.sweeper.may_differ=[pause_s]")
    assert done.code == 0, done.out
    study = load(tmp_path / "out")
    assert states(study) == ["COMPLETE"] * 2
    assert study.trials[0].user_attrs["job"]["attempt"] == 1
    assert (tmp_path / "out/0/steps.txt").read_text() == "1\n2\n3\n4\n"


def test_a_worker_that_dies_is_replaced_and_its_trial_goes_on(tmp_path):
    more = ["hydra.sweeper.n_trials=3", "hydra.sweeper.workers=2"]
    kill = ["hydra.sweeper.enqueue=[{x: 0.9}]", "kills_itself_above=0.8", "epochs=2"]
    done = run_process(
        tmp_path, "descent", *STUDY, "x=interval(0, 0.9)", *more, *kill, "hydra.sweeper.max_failure_rate=1"
    )
    assert done.code == 0, done.out
    trial = load(tmp_path / "out").trials[0]
    # the first attempt died at its second epoch; the next found both done
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["job"]["attempt"] == 2


def test_a_trial_that_is_silent_too_often_fails(app):
    """Its process is gone each time: another one, which only ever sees it run, gives it up after its last retry."""
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=1")
    study = load()
    study.ask({"x": FloatDistribution(-1, 1)}).set_user_attr("job", {"attempt": 3, "beat": 1})
    more = ["hydra.sweeper.heartbeat_interval=0.1", "hydra.sweeper.grace_period=0.3", "hydra.sweeper.n_trials=3"]
    done = app("descent", *STUDY, X, *more)
    assert done.code == 0, done.err
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs["error"] == "killed or silent 3 times (hydra.sweeper.max_retries=2)"


def test_a_trial_that_was_just_taken_over_is_not_taken_over_again():
    """Two processes watch a trial that died before its first heartbeat; one takes it over and has yet to begin it."""
    study = optuna.create_study()
    asked = study.ask({"x": FloatDistribution(0, 1)})
    watcher = object.__new__(search.StudySweep)
    watcher._settings, watcher._seen = Settings(heartbeat_interval=0.01, grace_period=0.05), {}
    assert not watcher._is_silent(study.trials[0])
    time.sleep(0.1)
    assert watcher._is_silent(study.trials[0])
    asked.set_user_attr("job", {"attempt": 2})  # the other process was first
    assert not watcher._is_silent(study.trials[0])


def wait_until(holds, timeout_s=60):
    import time

    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_database_that_a_killed_process_left_is_whole(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=1")
    with sqlite3.connect("out/study.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
