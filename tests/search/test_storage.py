"""Where a study lies, and what is written of its address."""

import io
import json
import re
import shlex
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from toy_apps import STUDY, X, load, options, run_process, states

from reg_sweep import train
from reg_sweep.hydra_app.errors import holds_address
from reg_sweep.runs.addresses import is_secret, public_location
from reg_sweep.search.compose import hide_storage
from reg_sweep.search.settings import Settings, StudyError
from reg_sweep.search.storage import (
    check_shared,
    file_of,
    open_storage,
    sqlite_url,
    storage_location,
    study_name,
    unreachable,
)


@pytest.mark.parametrize("folder", ["q?x", "ws_feature%2Ffoo", "per%cent", "a{b}", "a#b", "ä ö", "a'b", "a&b=c;d"])
def test_a_study_lies_in_its_own_folder_whatever_characters_that_has(tmp_path, folder):
    url = sqlite_url(tmp_path / folder / "study.db")
    file_of(url).parent.mkdir()
    storage = open_storage(url)
    optuna.create_study(study_name="it", storage=storage)
    storage.close()
    assert {p.name for p in (tmp_path / folder).iterdir()} >= {"study.db", "study.db.lock"}
    assert [p.name for p in tmp_path.iterdir()] == [folder]


@pytest.mark.slow
def test_studies_below_folders_of_any_name_do_not_meet(tmp_path):
    for folder in ("q?x", "q?y", "a{b}%41"):
        (tmp_path / folder).mkdir()
        done = run_process(tmp_path / folder, "sphere", *STUDY[:2], X, "hydra.sweeper.n_trials=1")
        assert "0 of 1 trials done" in done.out
        assert len(list((tmp_path / folder / "multirun").glob("sphere-*.db"))) == 1


def database_of_another_program(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()


def study_database(path):
    storage = open_storage(f"sqlite:///{path}")
    optuna.create_study(storage=storage)
    storage.close()


FOREIGN = {
    "study.db": (
        study_database,
        "{path}",
        "an SQLite database: to use it, type hydra.sweeper.storage=sqlite:///{path}",
    ),
    "r.json": (lambda path: path.write_text('{"a": 1}'), "{path}", "something else, and is left unchanged"),
    "notes.txt": (lambda path: path.write_text("one\ntwo"), "{path}", "something else"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), "{path}", "something else"),
    "folder": (lambda path: path.mkdir(), "{path}", "not a file"),
    "mine.db": (database_of_another_program, "sqlite:///{path}", "something else"),
    "text.db": (lambda path: path.write_text("mine"), "sqlite:///{path}", "something else"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_something_else_is_refused_with_its_name_and_stays_as_it_is(tmp_path, name):
    make, written, complaint = FOREIGN[name]
    path = tmp_path / name
    make(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(StudyError, match=re.escape(complaint.format(path=path))) as refused:
        open_storage(written.format(path=path))
    assert str(path) in str(refused.value)
    assert path.is_dir() or path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} <= {name, f"{name}.lock"}


def test_attributes_that_another_program_wrote_in_a_study_end_nothing(app):
    app("sphere", *STUDY, X, "hydra.sweeper.n_trials=2")
    study = load()
    numbers = {"job": "text", "error": {"a": 1}, "retry_of": "two"}
    for name in ("directory", "searcher", "reg_sweep"):
        study.set_user_attr(name, 7)
    strange = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs=numbers)
    study.add_trial(strange)
    app("sphere", *STUDY, X, "hydra.sweeper.n_trials=4")
    assert json.loads(Path("out/study.json").read_text())["trials"][2]["message"] == "{'a': 1}"


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u202eb"])
def test_a_name_that_is_no_line_of_text_is_refused(name):
    hydra = SimpleNamespace(sweep=SimpleNamespace(dir=f"out/{name}"))
    with pytest.raises(StudyError, match="study_name must be one line of printable characters"):
        Settings(study_name=name)
    with pytest.raises(StudyError, match="study_name must be set if the directory's name has unprintable"):
        study_name(Settings(), hydra)


def test_a_name_of_printable_characters_is_a_study_that_is_resumed(app):
    name = "a?b {x}%41 ü"
    quoted = f"hydra.sweeper.study_name='{name}'"
    for n in (1, 2):
        app("sphere", *STUDY, X, quoted, f"hydra.sweeper.n_trials={n}")
    assert len(load(name=name).trials) == 2
    assert f"# study {name}: trial" in Path("out/experiment/best.yaml").read_text()


@pytest.mark.parametrize(
    "url", ["sqlite:////data/a@b/x.db?key=Zqkey", "sqlite+pysqlcipher://:Zqkey@//data/x.db?cipher=Zqkey"]
)
def test_a_files_options_may_be_secret_too(url):
    assert is_secret(url)
    assert "Zqkey" not in public_location(url) + str(unreachable(url, ValueError(f"no {url}, option Zqkey")))
    assert public_location(url).endswith("x.db")
    assert holds_address(f"hydra.sweeper.storage='{url}'")
    assert not is_secret("sqlite:////data/a@b/x.db")
    assert not holds_address("hydra.sweeper.storage=sqlite:////data/a@b/x.db")


def test_a_journal_files_url_is_refused_for_its_path(tmp_path):
    hydra = SimpleNamespace(runtime=SimpleNamespace(cwd=str(tmp_path)), sweep=SimpleNamespace(dir="out"))
    with pytest.raises(StudyError, match=r"its path alone, such as shared/study.log, got journal:///a.log"):
        storage_location(Settings(storage="journal:///a.log"), hydra)
    assert storage_location(Settings(storage="a.log"), hydra) == str(tmp_path / "a.log")


@pytest.mark.slow
@pytest.mark.parametrize("written", ["'{url}'", "'${{oc.env:VAULT_URL}}'"])
def test_workers_write_a_storages_password_nowhere(tmp_path, monkeypatch, written):
    url = f"vault://me:s3cr3t@somewhere/{tmp_path}/vault.db"
    monkeypatch.setenv("VAULT_URL", url)
    more = options(storage=written.format(url=url), n_trials=3, workers=2)
    done = run_process(tmp_path, "vault", *STUDY, X, *more)
    assert list(tmp_path.rglob("hydra.yaml"))
    assert holding_the_password(tmp_path) == []
    assert "s3cr3t" not in done.out


def holding_the_password(folder):
    return [p for p in folder.rglob("*") if "s3cr3t" in p.name or (p.is_file() and b"s3cr3t" in p.read_bytes())]


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


def run_vault(tmp_path, spelling, code=0):
    """Runs a study with its storage's address written so; checks that no file and no word of the run holds it."""
    folder = tmp_path / "work"
    (folder / "conf" / "mine").mkdir(parents=True)
    url = URL.format(folder=folder)
    written = [word.format(url=url) for word in spelling]
    flags = [written.pop(at) for at in [written.index("--config-dir")] * 2] if "--config-dir" in written else []
    file = folder / "conf" / "mine" / "study.yaml"
    file.write_text(IN_A_FILE.format(url=url))
    where = ["hydra.sweep.dir=out", "hydra.run.dir=run"]
    done = run_process(folder, "vault", "-m", *flags, *where, *written, X, code=code)
    file.unlink()
    assert holding_the_password(folder) == []
    assert "s3cr3t" not in done.out
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_however_a_password_is_spelt_a_study_writes_it_nowhere(tmp_path, spelling):
    folder = run_vault(tmp_path, spelling)
    assert "REG_SWEEP_STORAGE" in (folder / "out" / "multirun.yaml").read_text()
    assert (folder / "out" / "1" / ".hydra" / "hydra.yaml").exists()
    assert (folder / "vault.db").exists()


def test_a_single_run_of_the_command_writes_no_password(start, monkeypatch, tmp_path):
    def trained(run, directory, save_config, *_, **__):
        save_config()
        return {"status": "diverged"}

    monkeypatch.setenv("REG_SWEEP_STORAGE", "")
    monkeypatch.setattr(train, "train", trained)
    assert start(OPTION, "hydra.sweeper.storage='postgresql://me:s3cr3t@host/it'", "name=a") == 1  # diverged
    assert list(tmp_path.rglob("hydra.yaml"))
    assert holding_the_password(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("spelling", REFUSED.values(), ids=REFUSED)
def test_a_refused_command_says_no_password(tmp_path, spelling):
    run_vault(tmp_path, spelling, code=1)


@pytest.mark.slow
def test_a_wrong_password_is_one_line_that_does_not_hold_it(tmp_path):
    url = f"vault://me:Zqwrong@somewhere/{tmp_path}/vault.db"
    done = run_process(tmp_path, "vault", *STUDY, X, f"hydra.sweeper.storage='{url}'", code=1)
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
    app("descent", *STUDY, X, *options(storage="journal.log", n_trials=3))
    assert not Path("journal.log.lock").exists()  # Optuna's, which it makes and removes: nobody else may hold it
    backend = optuna.storages.journal.JournalFileBackend("journal.log")
    study = optuna.load_study(study_name="out", storage=optuna.storages.JournalStorage(backend))
    assert states(study) == ["COMPLETE"] * 3


def test_a_study_whose_folder_another_machine_does_not_share_says_so(app):
    shared = [*STUDY[:2], X, "hydra.sweeper.storage=study.log", "hydra.sweeper.study_name=it"]
    assert "is not visible here" not in app("sphere", *shared, "hydra.sweep.dir=here", "hydra.sweeper.n_trials=1").out
    said = app("sphere", *shared, "hydra.sweep.dir=there", "hydra.sweeper.n_trials=2").out
    assert f"{Path.cwd()}/there/0, where trial 0 ran on {socket.gethostname()}, is not visible here" in said


@pytest.mark.parametrize("storage", ["study.log", "sqlite:///shared.db"])
def test_folders_of_one_name_do_not_share_a_study_unless_it_is_named(app, storage):
    shared = [*STUDY[:2], X, f"hydra.sweeper.storage={storage}", "hydra.sweeper.n_trials=1"]
    app("sphere", *shared, "hydra.sweep.dir=a/the best")
    refused = app("sphere", *shared, "hydra.sweep.dir='c/the best'", code=1)
    assert "has a study the best whose jobs are in a/the best, not in" in refused.err
    assert not Path("c/the best/study.json").exists()
    typed = re.search(r": type (\S.*) to continue it here", refused.err).group(1).rpartition(": ")[2]
    assert "1 of 1 trials done" in app("sphere", *shared, "hydra.sweep.dir='c/the best'", shlex.split(typed)[0]).out
    Path("elsewhere").mkdir()
    Path("a").rename("elsewhere/a")  # with its folder a study is found again
    app("sphere", *shared, "hydra.sweep.dir='elsewhere/a/the best'")


def test_a_study_without_a_trial_yet_belongs_to_its_folder(app, database, monkeypatch):
    study = optuna.create_study(study_name="it", storage=database)
    study.set_user_attr("directory", "a/it")
    Path("a/it").mkdir(parents=True)
    Path("a/it/multirun.yaml").write_text("hydra: {}")
    shared = [*STUDY[:2], X, f"hydra.sweeper.storage={database}", "hydra.sweeper.n_trials=1"]
    assert "whose jobs are in a/it" in app("sphere", *shared, "hydra.sweep.dir=c/it", code=1).err
    with monkeypatch.context() as there:
        Path("there/a/it").mkdir(parents=True)
        Path("there/a/it/multirun.yaml").write_text("# reg_sweep_plugins: a study, about to begin\n")
        there.chdir("there")  # the same words mean another folder, in which nothing has begun
        assert "whose jobs are in a/it" in app("sphere", *shared, "hydra.sweep.dir=a/it", code=1).err
    app("sphere", *shared, "hydra.sweep.dir=a/../a/it")


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
