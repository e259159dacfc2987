"""Where a study lies, and what is written of its address."""

import io
import json
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.hydra_config import HydraConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from toy_apps import STUDY, X, run_process, states

from reg_sweep.search.compose import hide_storage
from reg_sweep.search.settings import Settings, StudyError
from reg_sweep.search.storage import check_shared, public_location, storage_location, unreachable


@given(st.text("abc%:@/?&=#", min_size=1, max_size=8).map(lambda s: f"Zq{s}"))
def test_no_part_of_a_password_is_printed(password):
    from urllib.parse import quote

    url = f"postgresql://me:{quote(password, safe='')}@db.example:5432/studies?sslpassword=Zqoption"
    said = str(unreachable(url, ValueError(f"can't parse '{url}', password {password}, option Zqoption")))
    assert "Zq" not in said
    assert public_location(url) == "postgresql://db.example:5432/studies"


def test_a_journal_files_url_is_refused_for_its_path(tmp_path):
    hydra = SimpleNamespace(runtime=SimpleNamespace(cwd=str(tmp_path)), sweep=SimpleNamespace(dir="out"))
    with pytest.raises(StudyError, match=r"its path alone, such as shared/study.log, got journal:///a.log"):
        storage_location(Settings(storage="journal:///a.log"), hydra)
    assert storage_location(Settings(storage="a.log"), hydra) == str(tmp_path / "a.log")


@pytest.mark.slow
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


URL = "vault://me:s3cr3t@somewhere/{folder}/vault.db"
IN_A_FILE = "# @package _global_\nhydra: {{sweeper: {{storage: '{url}'}}}}\n"
OPTION = "hydra/sweeper=optuna_study"
SPELLINGS = {
    "plain": [OPTION, "hydra.sweeper.n_trials=2", "hydra.sweeper.storage='{url}'"],
    "forced": [OPTION, "hydra.sweeper.n_trials=2", '++hydra.sweeper.storage="{url}"'],
    "dict": [OPTION, "hydra.sweeper={{storage: '{url}', n_trials: 2}}"],
    "forced dict": [OPTION, "++hydra.sweeper={{n_trials: 2, storage: '{url}'}}"],
    "file": [OPTION, "hydra.sweeper.n_trials=2", "--config-dir", "conf", "+mine=study"],
}
REFUSED = {
    "misspelt, added": [OPTION, "+hydra.sweeper.storge='{url}'"],
    "beside a wrong value": [OPTION, "hydra.sweeper.storage='{url}'", "hydra.sweeper.n_trials=few"],
    "beside a wrong setting": [OPTION, "hydra.sweeper={{storage: '{url}', n_trials: 0}}"],
}


def run_vault(tmp_path, spelling, *more):
    """Runs the app with its storage's address written so; checks that no file and no word of the run holds it."""
    folder = tmp_path / "work"
    (folder / "conf" / "mine").mkdir(parents=True)
    url = URL.format(folder=folder)
    written = [word.format(url=url) for word in spelling]
    flags = [written.pop(at) for at in [written.index("--config-dir")] * 2] if "--config-dir" in written else []
    file = folder / "conf" / "mine" / "study.yaml"
    file.write_text(IN_A_FILE.format(url=url))
    done = run_process(folder, "vault", *more, *flags, "hydra.sweep.dir=out", "hydra.run.dir=run", *written)
    file.unlink()
    assert [p for p in folder.rglob("*") if "s3cr3t" in p.name or (p.is_file() and b"s3cr3t" in p.read_bytes())] == []
    assert "s3cr3t" not in done.out
    return done, folder


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_however_a_password_is_spelt_a_study_writes_it_nowhere(tmp_path, spelling):
    done, folder = run_vault(tmp_path, [*spelling, X], "-m")
    assert done.code == 0, done.out
    assert "REG_SWEEP_STORAGE" in (folder / "out" / "multirun.yaml").read_text()
    assert (folder / "out" / "1" / ".hydra" / "hydra.yaml").exists()
    assert (folder / "vault.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_however_a_password_is_spelt_a_single_run_writes_it_nowhere(tmp_path, spelling):
    done, folder = run_vault(tmp_path, spelling)
    assert done.code == 0, done.out
    assert "REG_SWEEP_STORAGE" in (folder / "run" / ".hydra" / "hydra.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("spelling", REFUSED.values(), ids=REFUSED)
def test_a_refused_command_says_no_password(tmp_path, spelling):
    done, _ = run_vault(tmp_path, [*spelling, X], "-m")
    assert done.code == 1


@pytest.mark.slow
def test_a_wrong_password_is_one_line_that_does_not_hold_it(tmp_path):
    url = f"vault://me:Zqwrong@somewhere/{tmp_path}/vault.db"
    done = run_process(tmp_path, "vault", *STUDY, X, f"hydra.sweeper.storage='{url}'")
    assert done.code == 1
    (line,) = (line for line in done.out.splitlines() if "password authentication failed" in line)
    assert line.startswith("hydra.sweeper.storage: vault://somewhere/")
    assert "Zqwrong" not in done.out
    assert "Traceback" not in done.out


def test_the_config_that_hydra_holds_beside_the_sweeps_hides_the_password_too(monkeypatch):
    def config():
        hydra = {"sweeper": {"storage": "postgresql://me:Zqpw@host/it"}, "overrides": {"hydra": []}}
        return OmegaConf.create({"hydra": hydra})

    monkeypatch.setenv("REG_SWEEP_STORAGE", "")
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config())
    swept = config()
    hide_storage(swept)
    assert "Zqpw" not in f"{swept} {HydraConfig.instance().cfg}"


def test_a_journal_file_is_a_storage_too(app):
    more = ["hydra.sweeper.storage=journal.log", "hydra.sweeper.n_trials=3"]
    assert app("descent", *STUDY, X, *more).code == 0
    assert not Path("journal.log.lock").exists()  # Optuna's, which it makes and removes: nobody else may hold it
    backend = optuna.storages.journal.JournalFileBackend("journal.log")
    study = optuna.load_study(study_name="out", storage=optuna.storages.JournalStorage(backend))
    assert states(study) == ["COMPLETE"] * 3


def test_a_study_whose_folder_another_machine_does_not_share_says_so(app):
    shared = [*STUDY[:2], X, "hydra.sweeper.storage=study.log", "hydra.sweeper.study_name=it"]
    assert "is not here" not in app("sphere", *shared, "hydra.sweep.dir=here", "hydra.sweeper.n_trials=1").out
    said = app("sphere", *shared, "hydra.sweep.dir=there", "hydra.sweeper.n_trials=2").out
    assert f"{Path.cwd()}/there/0, where trial 0 ran on {socket.gethostname()}, is not here" in said


def test_a_job_whose_machine_has_another_folder_is_refused_in_a_line(tmp_path):
    with pytest.raises(StudyError, match="shares with the machine that sweeps, got"):
        check_shared(tmp_path)
    (tmp_path / "multirun.yaml").touch()
    check_shared(tmp_path)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_database_that_a_killed_process_left_is_whole(app):
    app("descent", *STUDY, X, "hydra.sweeper.n_trials=1")
    with sqlite3.connect("out/study.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
