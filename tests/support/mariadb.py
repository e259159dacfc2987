"""Starts a temporary MariaDB server on this machine for tests."""

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

from daemons import free_ports, running
from waiting import wait_until

PASSWORD = "Zqpw"
IS_HERE = all(map(shutil.which, ("mariadbd", "mariadb-install-db", "mariadb")))


class Server:
    """A server in a folder of its own, which listens only on a free local port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # MariaDB refuses to run as root.
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user is not None:
            shutil.chown(folder, self.user)
        (self.port,) = free_ports(1)
        at = ["--no-defaults", f"--datadir={folder}/data"]
        self._run("mariadb-install-db", *at, "--auth-root-authentication-method=normal", "--skip-test-db")
        options = [*at, f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.socket}"]
        self.process = subprocess.Popen(
            ["mariadbd", *options], user=self.user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self.socket.exists, "socket of the server")
        self._run("mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root", "-e", SETUP)

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    @property
    def url(self) -> str:
        """The server's URL, with the password."""
        return f"mysql+pymysql://me:{PASSWORD}@127.0.0.1:{self.port}/studies"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()


SETUP = f"""
CREATE DATABASE studies;
CREATE DATABASE empty;
CREATE USER me@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';
CREATE USER me@localhost IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO me@'127.0.0.1', me@localhost;
"""


def server() -> AbstractContextManager[Server]:
    return running(Server, "reg_sweep_mariadb_")
