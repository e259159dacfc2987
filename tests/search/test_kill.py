"""kill -9 at random moments of a tiny study: the same command, started again, brings every trial to one end.

By default each kind of kill happens once. REG_SWEEP_KILLS=20 kills 20 times, each.
"""

import contextlib
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from attacked import family
from toy_apps import EXPIRED, STUDY, X, load, options, run_hanging, run_process, start
from waiting import wait_until

KILLS = int(os.environ.get("REG_SWEEP_KILLS", "1"))
N_TRIALS = 6
COMMAND = [*STUDY, X, "epochs=4", "pause_s=0.05", "hydra/sweeper/pruner=median"]
COMMAND += ["hydra.sweeper.pruner.n_startup_trials=2", *options(n_trials=N_TRIALS, workers=2, max_retries=10)]
COMMAND += options(heartbeat_interval=0.3, grace_period=1.5)


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("moment", range(KILLS))
@pytest.mark.parametrize("whom", ["sweeper", "worker", "all"])
def test_after_a_kill_the_same_command_ends_every_trial_once(tmp_path, whom, moment):
    rng = random.Random(f"{whom} {moment}")
    process = start(tmp_path, "descent", *COMMAND)
    time.sleep(rng.uniform(0.5, 5.0))
    running = family(tmp_path)
    workers = [pid for pid, is_worker in running.items() if is_worker]
    kill({"sweeper": [process.pid], "worker": rng.sample(workers, min(1, len(workers))), "all": list(running)}[whom])
    process.end()
    wait_until(lambda: not family(tmp_path), "end of the workers, whose sweeper is gone,", 10)
    marks = {p: p.read_text() for p in tmp_path.glob("out/*/done.txt")}

    run_process(tmp_path, "descent", *COMMAND)
    trials = load(tmp_path / "out").trials
    assert [t.number for t in trials] == list(range(N_TRIALS))
    assert {t.state.name for t in trials} <= {"COMPLETE", "PRUNED"}
    for trial in trials:
        folder = tmp_path / "out" / str(trial.number)
        steps = list(map(int, (folder / "steps.txt").read_text().split()))
        assert steps == list(range(1, len(steps) + 1))  # no epoch twice, none left out: each went on where it was
        assert steps[-1] == (4 if trial.state.name == "COMPLETE" else trial.last_step)
        ends = (folder / "done.txt").read_text() if (folder / "done.txt").exists() else ""
        assert ends in {"COMPLETE": ["done\n", "done\n" * 2], "PRUNED": [""]}[trial.state.name]
    assert all(p.read_text().startswith(text) for p, text in marks.items())
    assert family(tmp_path) == {}
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "study.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["in_python", "in_c", "swallows"])
def test_a_job_that_hangs_is_ended_and_the_study_continues(tmp_path, hangs):
    """Heartbeats of a hung job are no sign of life. A job that can't be interrupted ends with its process."""
    trials = run_hanging(tmp_path, hangs, "hydra.sweeper.max_retries=0")
    wait_until(lambda: family(tmp_path) == {}, "end of every process")
    assert trials[1].user_attrs["error"] == EXPIRED or hangs == "in_c"


@pytest.mark.slow
@pytest.mark.parametrize("hangs", ["in_python", "in_c"])
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_job_that_hangs_in_a_launchers_process_is_ended_too(tmp_path, launcher, hangs):
    pytest.importorskip(launcher.partition("_")[0])
    n = {"joblib": "hydra.launcher.n_jobs=2", "submitit_local": "hydra.launcher.timeout_min=10"}[launcher]
    trials = run_hanging(tmp_path, hangs, f"hydra/launcher={launcher}", n, "hydra.sweeper.n_jobs=2")
    wait_until(lambda: family(tmp_path) == {}, "end of every process")  # joblib's own outlive the command for a moment
    assert trials[1].user_attrs["error"] == EXPIRED
