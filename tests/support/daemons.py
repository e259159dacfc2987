"""Common ground of the tests' own servers: a folder, and free ports."""

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
    """A server in a new folder; stopped in the end, and its folder removed."""
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
    """Ports of this machine that nothing listens on, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
