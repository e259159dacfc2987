"""Ranks: the processes that train one run together, as torchrun starts them, and the exchange of values between them.

torch is imported only if there are several. In a single process, every exchange returns the process's own value.
"""

import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from reg_sweep.config.rules import ConfigError, DataError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

T = TypeVar("T")
_CONNECT_S = 60
_JOIN_S, _LOG_AFTER_S, _POLL_S = 600, 10, 0.02
_VARIABLES = (
    "RANK, WORLD_SIZE and MASTER_ADDR are set, as torchrun does; "
    "if they are left over from another launcher, unset them to train in one process"
)
log = logging.getLogger(__name__)
_SOURCE_LINE = re.compile(r"^\[[^]]*/[^]]*\] ")  # the beginning of gloo's messages


@dataclass(frozen=True)
class Ranks:
    """Process `rank` of a run's `n` processes, and process `local_rank` of the `n_local` on its machine.

    All processes must call the methods in the same order.

    Raises:
        ConnectionError: (from every method) another process has ended, or can't be reached.
    """

    rank: int = 0
    n: int = 1
    local_rank: int = 0
    n_local: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that keeps the record."""
        return self.rank == 0

    @property
    def refuses_multirun(self) -> str | None:
        """The reason why several processes can't train a multirun; None for a single process."""
        if self.n == 1:
            return None
        return (
            f"a multirun (-m, study=...) must be started as one process, got {self.n} from torchrun, which train one "
            f"run together: start its runs one after another"
        )

    def all_of(self, value: T) -> list[T]:
        """The values of all ranks, in rank order."""
        if self.n == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.n
        with connected():
            dist.all_gather_object(values, value)
        return values

    def first_of(self, value: T) -> T:
        """The first rank's value, on every rank."""
        if self.n == 1:
            return value
        import torch.distributed as dist

        values = [value]
        with connected():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def highest(self, number: int) -> int:
        """The maximum over all ranks."""
        if self.n == 1:
            return number
        import torch
        import torch.distributed as dist

        numbers = torch.tensor([number])
        with connected():
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def any(self, holds: bool) -> bool:
        """Whether `holds` is true on some rank."""
        return self.highest(int(holds)) == 1

    def in_turn(self, own: list[T]) -> list[T]:
        """Reassembles a list whose item i was handled by rank i mod n, from each rank's `own` items."""
        dealt = self.all_of(own)
        return [dealt[i % self.n][i // self.n] for i in range(sum(map(len, dealt)))]

    def check_alike(self, what: str, value: str) -> None:
        """Raises a ConfigError on every rank if `value` is not the same on all ranks."""
        values = self.all_of(value)
        if len(set(values)) > 1:
            raise ConfigError(f"{what} must be the same on every process of a run, got {', '.join(values)}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """If one rank raises in this block, all ranks raise: the others a ConfigError with its message.

        The block itself must not exchange values between ranks.
        """
        if self.n == 1:
            yield
            return
        error = None
        try:
            yield
        except (ConfigError, DataError, OSError) as caught:
            error = caught
        said = [message for message in self.all_of(None if error is None else str(error)) if message is not None]
        if error is not None:
            raise error
        if said:
            raise ConfigError(said[0])


def launched() -> Ranks:
    """Reads the ranks from torchrun's environment variables; without them, this is the only process."""
    rank, n = _number("RANK"), _number("WORLD_SIZE")
    if rank is None or n is None or n == 1:
        return Ranks()
    local_rank, n_local = _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")
    return Ranks(rank, n, rank if local_rank is None else local_rank, n if n_local is None else n_local)


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None


def launch_command() -> list[str]:
    """The command, without arguments, that starts the app on as many processes as this run has."""
    ranks = launched()
    if ranks.n == 1:
        return ["python", "-m", "reg_sweep.train"]
    machines = [] if ranks.n == ranks.n_local else ["--nnodes", str(ranks.n // ranks.n_local)]
    return ["torchrun", *machines, "--nproc-per-node", str(ranks.n_local), "-m", "reg_sweep.train"]


@contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Connects the ranks for the block. From then on, only the first rank logs."""
    if ranks.n == 1:
        yield
        return
    import torch.distributed as dist

    with connected():
        store = dist.PrefixStore(f"attempt {_attempt()}", _store())  # type: ignore[attr-defined]
        _await_all(store, ranks)
        if not ranks.is_first:
            logging.disable(logging.CRITICAL)
        dist.init_process_group("gloo", store=store, rank=ranks.rank, world_size=ranks.n)
    yield
    dist.destroy_process_group()  # not after an error: it would wait for a rank that has died


def _await_all(store: Any, ranks: Ranks) -> None:
    """Waits until every rank has called this.

    Raises:
        ConnectionError: some have not called it within `_JOIN_S`.
    """
    store.add("come", 1)
    with _logged_if_long(ranks):
        for _ in range(round(_JOIN_S / _POLL_S)):
            if (n := int(store.add("come", 0))) >= ranks.n:
                return
            time.sleep(_POLL_S)
    raise ConnectionError(f"only {n} of the {ranks.n} processes of this run connected in {_JOIN_S} s: {_VARIABLES}")


@contextmanager
def _logged_if_long(ranks: Ranks) -> Iterator[None]:
    """Logs that this process is waiting for others, if the block takes unusually long."""
    message = f"process {ranks.rank} is waiting for the other processes ({ranks.n} in all): {_VARIABLES}"
    timer = threading.Timer(_LOG_AFTER_S, log.warning, ("%s", message))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def connected() -> Iterator[None]:
    """Turns torch's long RuntimeErrors about lost ranks into a ConnectionError of one line."""
    try:
        yield
    except RuntimeError as error:
        reason = _SOURCE_LINE.sub("", " ".join(str(error).split())).split(". ")[0]
        raise ConnectionError(f"another process of this run has ended, or can't be reached ({reason:.160})") from error


# ---- before the ranks are joined, and after one is lost


def agreed(what: str, make: Callable[[], str]) -> str:
    """One text for all ranks, made by the first rank that calls this. It survives a restart by torchrun."""
    if launched().n == 1:
        return make()
    with connected():
        text: str = _store().compare_set(f"{what} of {_run_id()}", "", make()).decode()
        return text


def print_error(error: str) -> None:
    """Prints an error that ends the run, unless another rank has printed one: an error of all ranks appears once."""
    if launched().n > 1:
        with suppress(ConfigError, ConnectionError), connected():  # without a store, every rank prints
            if _store().add(f"errors of {_run_id()} {_attempt()}", 1) > 1:
                return
    print(error, file=sys.stderr)


@cache
def _store() -> "TCPStore":
    """The key-value store that the ranks share: torchrun's, or else one that the first rank hosts."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = os.environ.get("MASTER_ADDR"), _number("MASTER_PORT")
    if host is None or port is None:
        raise ConfigError(
            "MASTER_ADDR and MASTER_PORT must be set if RANK and WORLD_SIZE are: start the run with torchrun, or unset "
            "RANK and WORLD_SIZE"
        )
    is_host = launched().is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    with _logged_if_long(launched()):
        if not is_host:
            _await_host(host, port)
        return TCPStore(host, port, None, is_host, timedelta(seconds=_CONNECT_S), wait_for_workers=False)


def _await_host(host: str, port: int) -> None:
    """Waits until the host accepts connections. torch's own wait takes longer, and fails with a hundred lines."""
    deadline = time.monotonic() + _CONNECT_S
    while True:
        try:
            socket.create_connection((host, port), timeout=_CONNECT_S).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConnectionError(
                    f"process 0 must be reachable at {host}:{port}, got {error}: {_VARIABLES}"
                ) from None
        time.sleep(_POLL_S)


def _run_id() -> str:
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def _attempt() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
