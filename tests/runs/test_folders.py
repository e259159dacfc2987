"""Where a run lies: unique names, and a grid's runs found by what they compute."""

import pytest
import tiny

from reg_sweep.config.schema import digest, to_dict
from reg_sweep.runs.folders import job_folder, new_name
from reg_sweep.runs.record import CHECKPOINT_FILE, RUN_FILE, WEIGHTS_FILE, new_record, write_record


def config(seed: int = 1, **runtime) -> dict:
    config = to_dict(tiny.tiny_run(seed=seed))
    return {**config, "runtime": {**config["runtime"], **runtime}}


def leave(folder, config: dict, status: str = "complete") -> None:
    folder.mkdir(parents=True)
    facts = {
        "fingerprint": "f",
        "source": "tiny",
        "name": "tiny",
        "n_train": 10,
        "n_val": 0,
        "n_test": 5,
        "n_classes": 2,
        "mean": [0.1],
        "std": [0.3],
    }
    record = new_record(
        name="g",
        config=config,
        digest=digest(config),
        data=facts,
        versions={},
        git_commit=None,
        device={"name": "cpu", "threads": 1, "processor": ""},
        started="",
        command="",
        trial=None,
    )
    write_record(folder, record | {"status": status})


def test_names_of_one_second_differ_and_sort_by_time():
    names = [new_name() for _ in range(500)]
    assert len(set(names)) == 500
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


@pytest.mark.parametrize("left", [RUN_FILE, WEIGHTS_FILE, CHECKPOINT_FILE])
def test_a_folder_with_a_torn_record_or_with_what_a_run_left_is_not_free(tmp_path, left):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / left).write_bytes(b"{")
    assert job_folder(tmp_path, 0, config(1)) == digest(config(1))
