"""A real tiny study on a real PostgreSQL: four workers, one of them killed; a password that is written nowhere."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import daemons
import engines
import optuna
import postgres
import pytest
import sqlalchemy
from commands import start_train
from waiting import wait_until

from reg_sweep.search.settings import StudyError
from reg_sweep.search.storage import open_storage

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def holds_password(folder):
    return [p for p in folder.rglob("*") if p.is_file() and postgres.PASSWORD.encode() in p.read_bytes()]


def storage(url):
    return f"hydra.sweeper.storage={url}"


def named(name):
    return [*engines.STUDY, f"hydra.sweeper.study_name={name}"]


def test_four_workers_of_which_one_is_killed_end_as_one_process_does(tmp_path, serial, server):
    more = ["hydra.sweeper.workers=4", *engines.QUICK]
    process = start_train(tmp_path, *named("killed"), *more, storage(server.url))
    looked_at = open_storage(server.url)

    def running():
        if "killed" not in optuna.get_all_study_names(looked_at):
            return []
        trials = optuna.load_study(study_name="killed", storage=looked_at).trials
        return [t.user_attrs["job"]["pid"] for t in trials if "directory" in t.user_attrs.get("job", {})]

    wait_until(running, "running trial")
    os.kill(running()[0], signal.SIGKILL)
    looked_at.close()
    code, said = engines.ended(process)
    assert code == 0, said
    assert "ended by SIGKILL" in said
    engines.check_study(tmp_path, serial, said)
    assert holds_password(tmp_path) == []
    assert postgres.PASSWORD not in said


def test_a_launcher_writes_the_password_nowhere_when_it_pickles_its_jobs(tmp_path, serial, server):
    pytest.importorskip("submitit", reason="needs the extra reg_sweep[slurm]")
    code, said = engines.run(tmp_path, *named("launched"), "+cluster=local", storage(server.url))
    assert code == 0, said
    engines.check_study(tmp_path, serial, said)
    assert list(tmp_path.rglob("*.pkl"))
    assert holds_password(tmp_path) == []


def test_processes_that_make_the_tables_at_the_same_time_hold_no_connection_more_than_they_use(server):
    """Of them all but one lose a race, and open the database again; the server has few connections."""
    with sqlalchemy.create_engine(server.url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE fresh"))
        url = server.url.replace("/postgres", "/fresh")
        with ThreadPoolExecutor(4) as threads:
            opened = list(threads.map(lambda _: open_storage(url), range(4)))
        for storage in opened:
            storage.close()
        asked = sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE datname = 'fresh'")
        wait_until(lambda: connection.execute(asked).scalar() == 0, "end of the connections")


@pytest.mark.parametrize("keeper", ["PGPASSWORD", "PGPASSFILE"])
def test_the_password_may_be_where_postgresql_looks_for_it(tmp_path, monkeypatch, server, keeper):
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:{server.port}:*:me:{postgres.PASSWORD}\n")
    file.chmod(0o600)
    with pytest.raises(StudyError, match="no password supplied"):
        open_storage(server.open_url)
    monkeypatch.setenv(keeper, {"PGPASSWORD": postgres.PASSWORD, "PGPASSFILE": str(file)}[keeper])
    open_storage(server.open_url).close()


def test_a_wrong_password_and_a_server_that_is_not_there_are_one_line_each(tmp_path, server):
    wrong = server.url.replace(postgres.PASSWORD, "Zqwrong")
    absent = f"postgresql+psycopg://me:Zqwrong@127.0.0.1:{daemons.free_ports(1)[0]}/postgres"
    for url, word in ((wrong, "password authentication failed"), (absent, "refused")):
        code, said = engines.run(tmp_path, *engines.STUDY, storage(url))
        (line,) = said.strip().splitlines()
        assert code == 2
        assert line.startswith("reg_sweep: error: hydra.sweeper.storage: postgresql+psycopg://127.0.0.1:")
        assert word in line
        assert "Zqwrong" not in said
