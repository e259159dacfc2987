"""Shared by the servers that tests start: a temporary folder and free ports."""

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar


class Stoppable(Protocol):
    def stop(self) -> None: ...


Daemon = TypeVar("Daemon", bound=Stoppable)


@contextmanager
def running(make: Callable[[Path], Daemon], prefix: str) -> Iterator[Daemon]:
    """Starts a server in a new folder; stops it and removes the folder at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        made = make(folder)
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    """Returns `n` different free ports of this machine."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
