"""Starts a temporary MLflow tracking server on this machine for tests."""

import subprocess
import sys
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from daemons import free_ports, running
from waiting import wait_until


class Server:
    """A server with a database in a folder of its own, which listens only on a free local port."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        at = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--host", "127.0.0.1", "--port", str(port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *at, "--workers", "1"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, "answer of the server", 300, 0.5)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return bool(urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def server() -> AbstractContextManager[Server]:
    return running(Server, "reg_sweep_mlflow_")
