"""Trials as jobs of a launcher."""

from pathlib import Path

from toy_apps import STUDY, X, load, run_process, states


def test_batches_go_to_the_launcher_at_once(app):
    assert app("descent", *STUDY, X, "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2").code == 0
    assert states(load()) == ["COMPLETE"] * 5
    assert all(Path(f"out/{n}/done.txt").exists() for n in range(5))


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
