"""Where a run lies: unique names, and a grid's runs found by what they compute."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import tiny

from reg_sweep.config.digest import digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import to_dict
from reg_sweep.runs.folders import begin_sweep, check_log, check_own, job_folder, new_name, withdraw_sweep, work_in
from reg_sweep.runs.record import (
    BEST_VAL_FILE,
    CHECKPOINT_FILE,
    METRICS_FILE,
    RUN_FILE,
    WEIGHTS_FILE,
    new_record,
    write_record,
)


def config(seed: int = 1, **runtime) -> dict:
    config = to_dict(tiny.tiny_run(seed=seed))
    return {**config, "runtime": {**config["runtime"], **runtime}}


def leave(folder, config: dict, status: str = "complete") -> None:
    device = {"name": "cpu", "threads": 1, "processor": ""}
    begun = {"name": "g", "versions": {}, "git_commit": None, "started": "", "command": "", "device": device}
    data = {"fingerprint": "f", "source": "tiny", "name": "tiny", "mean": [0.1], "std": [0.3]}
    data |= {"n_train": 10, "n_val": 0, "n_test": 5, "n_classes": 2}
    folder.mkdir(parents=True)
    record = new_record(**begun, config=config, digest=digest(config), data=data, trial=None)
    write_record(folder, record | {"status": status})


def test_names_of_one_second_differ_and_sort_by_time():
    names = [new_name() for _ in range(100)]
    assert len(set(names)) == 100
    assert sorted({name[:19] for name in names}) == list(dict.fromkeys(name[:19] for name in names))


def test_a_new_grids_jobs_lie_under_their_numbers(tmp_path):
    assert [job_folder(tmp_path, n, config(seed=n)) for n in (0, 1)] == ["0", "1"]


def test_a_run_that_is_older_than_the_number_of_ranks_is_found(tmp_path):
    older = config(1)
    del older["runtime"]["ranks"]
    leave(tmp_path / "5", older)
    assert job_folder(tmp_path, 0, config(1)) == "5"


def test_a_grown_grids_run_is_found_whatever_its_number_was_and_a_new_one_takes_no_others_folder(tmp_path):
    leave(tmp_path / "0", config(1))
    leave(tmp_path / "1", config(2))
    assert job_folder(tmp_path, 0, config(1)) == "0"
    assert job_folder(tmp_path, 1, config(3)) == digest(config(3))
    assert job_folder(tmp_path, 2, config(2)) == "1"
    assert job_folder(tmp_path, 3, config(4)) == "3"
    leave(tmp_path / digest(config(3)), config(3))
    assert job_folder(tmp_path, 7, config(3)) == digest(config(3))


def test_of_two_the_same_the_finished_one_is_reused(tmp_path):
    leave(tmp_path / "0", config(1), "failed")
    leave(tmp_path / "1", config(1))
    assert job_folder(tmp_path, 5, config(1)) == "1"
    assert job_folder(tmp_path, 0, config(1)) == "0"  # its own number comes first: the same command, the same folders


def test_a_job_on_another_device_or_with_other_threads_is_a_run_of_its_own(tmp_path):
    leave(tmp_path / "0", config(1, threads=1))
    assert job_folder(tmp_path, 1, config(1, threads=2)) == "1"


@pytest.mark.parametrize("left", [RUN_FILE, WEIGHTS_FILE, CHECKPOINT_FILE, BEST_VAL_FILE])
def test_a_folder_with_a_torn_record_or_with_what_a_run_left_is_not_free(tmp_path, left):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / left).write_bytes(b"{")
    assert job_folder(tmp_path, 0, config(1)) == digest(config(1))


# ---- whose folder it is


def made(folder, work) -> None:
    """The files of a command that has just begun its work in a folder."""
    folder.mkdir(parents=True)
    sweeper = {"grid": "hydra._internal.core_plugins.basic_sweeper", "study": "hydra_plugins.reg_sweep_plugins"}
    if work == "run":
        (folder / METRICS_FILE).write_text("epoch\n")
    else:
        launcher = "hydra_plugins.reg_sweep_plugins.population.PopulationLauncher"  # of either
        text = f"callbacks: reg_sweep.train\nlauncher: {launcher}\nsweeper: {sweeper[work]}\n"
        (folder / "multirun.yaml").write_text(text)


@pytest.mark.parametrize("there", ["run", "grid", "study"])
@pytest.mark.parametrize("comes", ["run", "grid", "study"])
def test_one_kind_of_work_owns_a_folder(tmp_path, there, comes):
    made(tmp_path / "a", there)
    check_own(tmp_path / "new", comes)
    if there == comes:
        check_own(tmp_path / "a", comes)
    else:
        with pytest.raises(ConfigError, match=r"a must be new or hold this .*: choose another name="):
            check_own(tmp_path / "a", comes)


@pytest.mark.parametrize("left", ["study.json", "study.db", "study.log", "0/run.json", "0123456789abcdef/run.json"])
def test_what_a_sweep_of_an_older_version_left_is_a_sweeps_too(tmp_path, left):
    path = tmp_path / left
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="must be new or hold this run, got a s"):
        check_own(tmp_path, "run")


@pytest.mark.parametrize("work", ["run", "grid", "study"])
@pytest.mark.parametrize(
    "name", ["train.log", ".hydra", "multirun.yaml", ".hydra/config.yaml", "metrics.csv", "run.json"]
)
@pytest.mark.parametrize("leads", ["to a file", "nowhere"])
def test_nothing_is_written_through_a_link(tmp_path, work, name, leads):
    precious = tmp_path / "precious"
    if leads == "to a file":
        precious.write_text("mine")
    path = tmp_path / "a" / name
    path.parent.mkdir(parents=True)
    path.symlink_to(precious)
    with pytest.raises(ConfigError, match=f"a/{name} must be a plain file, got a link: remove it"):
        check_own(tmp_path / "a", work)


@pytest.mark.parametrize("name", [".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "multirun.yaml"])
def test_what_another_app_left_of_its_config_is_kept(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("db: mysql\n")
    work = "grid" if name == "multirun.yaml" else "run"
    with pytest.raises(
        ConfigError, match=f"{name} must belong to this program, got another app's: choose another name"
    ):
        check_own(tmp_path, work)
    path.write_text("seed: 1\nl1: 0.0\ncallbacks: reg_sweep.train\n")
    if name in (".hydra/config.yaml", "multirun.yaml"):
        check_own(tmp_path, work)


def test_of_a_grid_and_a_study_that_begin_at_once_in_one_folder_one_is_refused(tmp_path):
    for n in range(20):
        folder, at_once = tmp_path / str(n), Barrier(4)

        def begins(work, folder=folder, at_once=at_once):
            at_once.wait(10)
            try:
                begin_sweep(folder, work)
            except ConfigError:
                return None
            return work

        with ThreadPoolExecutor(4) as pool:
            done = set(pool.map(begins, ["grid", "study", "grid", "study"])) - {None}
        assert done == {work_in(folder)}
        assert [path.name for path in folder.iterdir()] == ["multirun.yaml"]


@pytest.mark.parametrize("work", ["grid", "study"])
def test_a_sweep_that_never_began_leaves_nothing_and_one_that_began_stays(tmp_path, work):
    assert begin_sweep(tmp_path / "a", work)
    assert not begin_sweep(tmp_path / "a", work)
    withdraw_sweep(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    made(tmp_path / "b", work)
    withdraw_sweep(tmp_path / "b")
    assert (tmp_path / "b" / "multirun.yaml").exists()


def test_another_programs_log_is_not_written_on(tmp_path):
    (tmp_path / "train.log").write_text("my notes\n")
    with pytest.raises(
        ConfigError, match=r"train\.log must belong to this program, got another's: choose another name"
    ):
        check_log(tmp_path)
    (tmp_path / "train.log").write_text("2026-11-30 03:24:51,123 INFO root: killed before its record\n")
    check_log(tmp_path)
