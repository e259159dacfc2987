"""Starts a temporary PostgreSQL server on this machine for tests, which can restart it."""

import os
import pwd
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from daemons import free_ports, running

BINARIES = [p for p in (shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))) if p]
PASSWORD = "Zqpw"


class Server:
    """A server in a folder of its own, which listens only on a free local port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binaries = Path(BINARIES[0]).parent
        # PostgreSQL refuses to run as root.
        self.user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        (self.port,) = free_ports(1)
        (folder / "password").write_text(PASSWORD)
        more = ["-A", "scram-sha-256", f"--pwfile={folder}/password"]
        self._run("initdb", "-D", f"{folder}/data", "-U", "me", "-N", *more)
        self.start()

    @property
    def url(self) -> str:
        """The server's URL, with the password."""
        return self.open_url.replace("me@", f"me:{PASSWORD}@")

    @property
    def open_url(self) -> str:
        """The server's URL without the password, for users who store that elsewhere."""
        return f"postgresql+psycopg://me@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -k {self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-D", f"{self.folder}/data", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        user = self.user if os.geteuid() == 0 else None
        path = self.binaries / program
        done = subprocess.run([path, *arguments], user=user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()


def server() -> AbstractContextManager[Server]:
    """A running server. Skips the test if PostgreSQL is not installed: pip can't install it."""
    if not BINARIES:
        pytest.skip("needs PostgreSQL's initdb (Debian's package postgresql)")
    return running(Server, "reg_sweep_postgres_")
