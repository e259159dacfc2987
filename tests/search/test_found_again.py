"""Under Hydra's dated directories the same command finds its study, and the study its jobs."""

import os
from pathlib import Path

import optuna
import pytest
from toy_apps import X, run_process, states

DATED = ["-m", "hydra/sweeper=optuna_study", "hydra.sweep.dir=multirun/${now:%H-%M-%S-%f}"]


def studies(url):
    return optuna.load_study(study_name=None, storage=url)


@pytest.mark.slow
def test_the_same_command_resumes_in_the_first_starts_directory(app):
    app("descent", *DATED, X, "hydra.sweeper.n_trials=2")
    (database,) = Path("multirun").glob("*.db")
    (folder,) = (p for p in Path("multirun").iterdir() if p.is_dir())
    second = app("descent", *DATED, X, "hydra.sweeper.n_trials=3")
    assert f"study {database.stem}: in {folder}; the same command resumes it there" in second.out
    assert "2 of 3 trials done" in second.out
    assert [p for p in Path("multirun").iterdir() if p.is_dir()] == [folder]
    study = studies(f"sqlite:///{database}")
    assert states(study) == ["COMPLETE"] * 3
    assert all((folder / t.user_attrs["job"]["directory"] / "done.txt").exists() for t in study.trials)
    assert (folder / "study.json").exists()


@pytest.mark.slow
def test_another_space_is_another_study_of_the_shared_storage_and_the_same_is_one(app):
    shared = ["hydra.sweeper.storage=shared.log", "hydra.sweeper.n_trials=1"]
    for space in (X, "x=interval(0, 1)", X):
        app("descent", *DATED, space, *shared)
    backend = optuna.storages.journal.JournalFileBackend("shared.log")
    names = optuna.get_all_study_names(optuna.storages.JournalStorage(backend))
    assert len(names) == 2
    assert all(name.startswith("descent-") for name in names)
    assert len([p for p in Path("multirun").iterdir() if p.is_dir()]) == 2


@pytest.mark.slow
def test_a_name_that_was_chosen_is_kept(app):
    app("descent", *DATED, X, "hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=mine")
    assert Path("multirun/mine.db").exists()
    assert studies("sqlite:///multirun/mine.db").study_name == "mine"


@pytest.mark.slow
def test_workers_are_told_where_the_study_lies(tmp_path):

    run_process(tmp_path, "descent", *DATED, X, "hydra.sweeper.n_trials=3", "hydra.sweeper.workers=2")
    (database,) = tmp_path.glob("multirun/*.db")
    assert states(studies(f"sqlite:///{database}")) == ["COMPLETE"] * 3
    assert len([p for p in (tmp_path / "multirun").iterdir() if p.is_dir()]) == 1
    assert not os.path.exists(tmp_path / "study.db")
