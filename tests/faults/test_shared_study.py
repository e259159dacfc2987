"""Many processes on one study: exactly as many trials as were asked for, each run once, whatever happens meanwhile.

Sizes are small by default. From REG_SWEEP_FAULTS=10 on they are ten times as large: 8 processes and 300 trials on
SQLite, 60 on PostgreSQL.
"""

import os
import signal
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from postgres import server
from toy_apps import X, start
from waiting import wait_until

SCALE = min(10, int(os.environ.get("REG_SWEEP_FAULTS", "1")))
STUDY = ["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=out", "hydra.sweeper.study_name=it"]


def run_together(folders: list[Path], *arguments: str, while_running=lambda: None) -> list[str]:
    """Starts the same command in each folder at once; gives what each has printed."""
    for folder in folders:
        folder.mkdir(exist_ok=True)
    processes = [start(folder, "descent", *STUDY, X, "epochs=1", *arguments) for folder in folders]
    try:
        while_running()
    except BaseException:
        for process in processes:
            process.send(signal.SIGTERM)
            print(process.end())
        raise
    ended = [process.end(timeout_s=600) for process in processes]
    said = [done.stdout + done.stderr for done in ended]
    assert [done.returncode for done in ended] == [0] * len(folders), "\n".join(said)
    assert not any("Traceback" in text for text in said), "\n".join(said)
    return said


def done(folders: list[Path]) -> list[Path]:
    """Results of the jobs that have ended."""
    return [path for folder in folders for path in folder.glob("out/*/done.txt")]


def check(storage: BaseStorage, folders: list[Path], n_trials: int) -> None:
    """Every trial is there, has ended well at its first attempt, and its job has run once in all folders."""
    trials = optuna.load_study(study_name="it", storage=storage).trials
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()
    assert [t.number for t in trials] == list(range(n_trials))
    ended = {t.number: t.user_attrs for t in trials if t.state.name != "COMPLETE"}
    assert ended == {}  # what is told of a trial that failed says why
    marks = done(folders)
    assert sorted(int(p.parent.name) for p in marks) == list(range(n_trials))
    assert {p.read_text() for p in marks} == {"done\n"}


@pytest.mark.slow
def test_processes_that_start_together_on_one_sqlite_study_run_exactly_its_trials(tmp_path):
    n_processes, n_trials = (8, 30 * SCALE) if SCALE > 1 else (3, 12)
    url = f"sqlite:///{tmp_path}/study.db"
    folders = [tmp_path / str(i) for i in range(n_processes)]
    run_together(folders, f"hydra.sweeper.storage={url}", f"hydra.sweeper.n_trials={n_trials}")
    check(RDBStorage(url), folders, n_trials)


@pytest.mark.slow
def test_processes_that_share_a_journal_file_run_exactly_its_trials(tmp_path):
    n_processes, n_trials = (4, 10 * SCALE) if SCALE > 1 else (2, 8)
    folders = [tmp_path / str(i) for i in range(n_processes)]
    path = tmp_path / "study.log"
    run_together(folders, f"hydra.sweeper.storage={path}", f"hydra.sweeper.n_trials={n_trials}")
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    check(optuna.storages.JournalStorage(backend), folders, n_trials)


@pytest.mark.slow
def test_folders_on_one_server_run_exactly_the_trials_through_its_restart(tmp_path):
    n_trials = 6 * SCALE if SCALE > 1 else 16
    folders = [tmp_path / "a", tmp_path / "b"]
    with server() as postgres:

        def restart() -> None:
            wait_until(lambda: len(done(folders)) >= n_trials // 3, "third of the trials")
            postgres.stop()
            time.sleep(1.5)
            postgres.start()

        more = [f"hydra.sweeper.storage='{postgres.url}'", f"hydra.sweeper.n_trials={n_trials}", "pause_s=0.2"]
        beats = ["hydra.sweeper.heartbeat_interval=1", "hydra.sweeper.grace_period=8", "hydra.sweeper.workers=2"]
        said = run_together(folders, *more, *beats, while_running=restart)
        check(RDBStorage(postgres.url), folders, n_trials)
    assert not any("Zqpw" in text for text in said)
