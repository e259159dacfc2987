"""Shared by the tests of engines: servers, and the serial study that every engine must reproduce bit for bit."""

import engines
import mariadb
import postgres
import pytest
import slurm
from once import made_once


@pytest.fixture(scope="session")
def serial(tmp_path_factory):
    """The outcomes of the study's runs, trained one after another in one process."""

    def make():
        folder = tmp_path_factory.mktemp("serial")
        code, said = engines.run(folder, *engines.STUDY)
        assert code == 0, said
        found = engines.outcomes(folder / "outputs" / "it")
        assert len(found) == engines.N_TRIALS
        engines.check_study(folder, found)
        return found

    return made_once(tmp_path_factory, "serial", make)


@pytest.fixture(scope="session")
def cluster():
    """A SLURM cluster of one node. Skipped elsewhere: pip can't install SLURM, and its daemons need root."""
    if not slurm.IS_HERE:
        pytest.skip("needs root, and Debian's packages slurmctld slurmd slurm-client munge")
    with slurm.cluster() as made:
        yield made


@pytest.fixture(scope="session")
def server():
    """A PostgreSQL server that requires a password."""
    with postgres.server() as made:
        yield made


@pytest.fixture(scope="session")
def maria():
    """A MariaDB server that requires a password. Skipped if it is not installed: pip can't install it."""
    pytest.importorskip("pymysql", reason="needs pymysql: pip install pymysql")
    if not mariadb.IS_HERE:
        pytest.skip("needs MariaDB's server (Debian's package mariadb-server)")
    with mariadb.server() as made:
        yield made
