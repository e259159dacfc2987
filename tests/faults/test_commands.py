"""A run, a grid or a study is stopped, or its disk fails, at every point at which it writes.

The same command then ends with the same bits, whole records, every run and trial once, and nothing left over.
"""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import pytest
from attacked import FAULTS, N_POINTS, TINY, codes, command, family, left, points
from once import made_once
from safetensors.numpy import load_file

from reg_sweep.runs.reading import read_run
from reg_sweep.runs.record import RUN_FILE, WEIGHTS_FILE

# The ordinary suite has two runs or trials to each sweep, `make faults` four.
SEEDS = "seed=1,2" if N_POINTS > 1 else "seed=1"
STUDY = [*TINY, "-m", "hydra/sweeper=optuna_study", "hydra/sweeper/sampler=grid", "report=false", "epochs=1"]
STUDY += ["l1=choice(0, 0.00001)", SEEDS, "hydra.sweeper.heartbeat_interval=0.1"]
STUDY += ["hydra.sweeper.grace_period=0.5", "hydra.sweeper.max_retries=10"]
JOURNAL = "outputs/a/study.log"
COMMANDS = {
    "run": [*TINY, "epochs=3", "l1=0.00001"],
    "grid": [*TINY, "-m", "l1=0,0.00001", SEEDS, "report=false", "epochs=1"],
    "study": STUDY,
    "journal": [*STUDY, f"hydra.sweeper.storage={JOURNAL}"],
}
N_RUNS = {"run": 1} | dict.fromkeys(("grid", "study", "journal"), 4 if N_POINTS > 1 else 2)

Weights = dict[str, np.ndarray]


class Whole(NamedTuple):
    """Files of an undisturbed command, and its number of writes."""

    weights: dict[str, Weights]
    files: set[str]
    n_writes: int


def weights(folder: Path, n_failed: int = 0) -> dict[str, Weights]:
    """Each run's weights, by the digest of its config; every run must be complete, and its own arm's only one.

    But for those of trials that failed, which were tried again in directories of their own.
    """
    found = {}
    runs = [(path, read_run(path.parent)) for path in folder.rglob(RUN_FILE)]
    assert sum(run.status == "failed" for _, run in runs) <= n_failed
    for path, run in runs:
        if run.status == "failed":
            continue
        assert run.status == "complete", path
        assert [row["epoch"] for row in run.metrics] == list(range(1, run.record["epochs_done"] + 1)), path
        assert run.record["digest"] not in found, path
        found[run.record["digest"]] = load_file(path.parent / WEIGHTS_FILE)
    return found


def trials(folder: Path, name: str) -> list[str]:
    """The states of the study's trials, in their order."""
    if name == "journal":
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        storage: optuna.storages.BaseStorage = optuna.storages.JournalStorage(backend)
    else:
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/outputs/a/study.db")
    found = optuna.load_study(study_name="a", storage=storage).trials
    if isinstance(storage, optuna.storages.RDBStorage):
        storage.engine.dispose()
    assert [trial.number for trial in found] == list(range(len(found)))
    return [trial.state.name for trial in found]


# The ordinary suite meets a run with every fault, and sweeps with the two that matter most; but a journal's lock that a
# killed process has left is waited for half a minute.
CASES = [(name, fault) for name in COMMANDS for fault in FAULTS]
FEWER = {"run": set(FAULTS), "journal": {"SIGTERM", "full disk"}}
CASES = [(n, fault) for n, fault in CASES if N_POINTS > 1 or fault in FEWER.get(n, {"SIGKILL", "full disk"})]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], Whole]:
    """Files of an undisturbed command, which runs once, when first asked for."""

    def of(name: str) -> Whole:
        folder = tmp_path_factory.mktemp(name)
        ended = command(folder, COMMANDS[name])
        assert ended.code == 0, ended.said
        found = weights(folder / "outputs")
        assert len(found) == N_RUNS[name]
        return Whole(found, left(folder / "outputs"), ended.n_writes)

    return cache(lambda name: made_once(tmp_path_factory, f"whole-{name}", lambda: of(name)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), CASES)
def test_whatever_befalls_a_write_the_same_command_ends_with_the_same_bits(tmp_path, whole, name, fault):
    expected = whole(name)
    tried, began = list(points(name, fault, expected.n_writes)), time.monotonic()
    for point in tried:
        folder = tmp_path / str(point)
        folder.mkdir()
        met = command(folder, COMMANDS[name], fault, point)
        where = f"{fault} at write {point} of {expected.n_writes} of a {name}: {met.said}"
        assert met.code in codes(fault), where
        assert "Traceback" not in met.said, where
        again, n_failed = COMMANDS[name], 0
        if "hydra.sweeper.retry_failed=true" in met.said:  # a trial that a full disk ended has failed, and says so
            again, n_failed = [*again, "hydra.sweeper.retry_failed=true"], 1
        then = command(folder, again)
        where += f"\nthen: {then.said}"
        assert then.code == 0, where
        found = weights(folder / "outputs", n_failed)
        assert found.keys() == expected.weights.keys(), where
        for digest, arrays in expected.weights.items():
            assert found[digest].keys() == arrays.keys()
            assert all((found[digest][key] == array).all() for key, array in arrays.items()), where
        if name in ("study", "journal"):
            states = trials(folder, name)
            assert states.count("FAIL") == n_failed, where
            assert states.count("COMPLETE") == len(states) - n_failed == N_RUNS[name], where
        # A failed trial, from whose checkpoint its own command would resume, and the one that tried it again.
        of_failed = {f"a/{n}/checkpoint.pt" for n in range(N_RUNS[name])} if n_failed else set()
        found_files = {file.replace(f"a/{N_RUNS[name]}/", "a/0/") for file in left(folder / "outputs")}
        assert found_files - of_failed <= expected.files, where
        assert family(folder) == {}, where
    took = time.monotonic() - began
    print(f"{fault} at {len(tried)} of {expected.n_writes} writes of a {name}: the same bits each time ({took:.0f} s)")
