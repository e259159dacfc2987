"""Reports on runs that lie on servers: the same verdict as from a file, and a password that is written nowhere."""

import json
from pathlib import Path

import foreign_runs
import mlflow_server
import optuna
import postgres
import pytest

from reg_sweep.report.command import main

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PASSWORD = postgres.PASSWORD  # of every server here
KEYS = ("arm", "verdict", "difference", "difference_ci_low", "difference_ci_high", "p_corrected", "n_seeds")


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server with no other test's studies."""
    with postgres.server() as made:
        yield made


@pytest.fixture
def database(request):
    """A database with Optuna's study of the runs."""
    made = request.getfixturevalue(request.param)
    storage = optuna.storages.RDBStorage(made.url)
    if "digits" not in optuna.get_all_study_names(storage):
        foreign_runs._write_study(optuna.create_study(study_name="digits", storage=storage, direction="maximize"))
    storage.remove_session()
    storage.engine.dispose()
    return made


def judged(capsys, source: object, *options: str) -> list[dict]:
    """The verdict of each arm, without the folder and the name of the score."""
    assert main([str(source), "--json", *options]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    return [{k: arm[k] for k in KEYS} for arm in table["arms"]]


def from_a_table(capsys, folder: Path) -> list[dict]:
    foreign_runs.main(folder, ["csv"])
    return judged(capsys, folder / "csv" / "results.csv")


@pytest.mark.parametrize("database", ["server", "maria"], indirect=True)
def test_a_study_in_a_database_is_judged_as_a_table_is(tmp_path, monkeypatch, capsys, database):
    monkeypatch.chdir(tmp_path)
    assert judged(capsys, database.url, "--margin", "0.001") == from_a_table(capsys, tmp_path)
    assert main([database.url, "--margin", "0.001"]) == 0
    said = capsys.readouterr().out
    assert f"USER:PASSWORD@127.0.0.1:{database.port}/" in said
    written = [path for path in Path("report").iterdir() if PASSWORD.encode() in path.read_bytes()]
    assert not written
    assert PASSWORD not in said
    assert 'href="/' not in (page := Path("report/index.html").read_text())
    assert f"://127.0.0.1:{database.port}/" in page


@pytest.mark.parametrize(
    ("database", "elsewhere"), [("server", "/template1"), ("maria", "/empty")], indirect=["database"]
)
def test_what_a_database_says_is_one_line_without_the_password(tmp_path, monkeypatch, capsys, database, elsewhere):
    monkeypatch.chdir(tmp_path)
    empty = database.url.rpartition("/")[0] + elsewhere
    for address, said in (
        (empty, "it has none of Optuna's tables"),
        (database.url.replace(PASSWORD, f"{PASSWORD}!"), "for user"),
        (database.url.replace(f":{database.port}", ":1"), "refused"),
    ):
        assert main([address]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert PASSWORD not in error
    assert not Path("report").exists()


def test_runs_on_an_mlflow_server_are_judged_as_a_table_is(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow.server", reason="needs mlflow with its server: pip install mlflow")
    monkeypatch.chdir(tmp_path)
    with mlflow_server.server() as made:
        foreign_runs._write_mlflow(made.url)
        capsys.readouterr()
        assert judged(capsys, made.url) == from_a_table(capsys, tmp_path)
        with_password = made.url.replace("//", f"//me:{PASSWORD}@")
        assert main([with_password, "--out", "other"]) == 0
        said = capsys.readouterr().out
    assert PASSWORD not in said + Path("other/index.html").read_text() + Path("other/runs.csv").read_text()
