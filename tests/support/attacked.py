"""Runs a command of reg_sweep in a process of its own, with a fault injected at its k-th write.

REG_SWEEP_FAULTS is the number of points tried for each command and fault; by default it is one.
"""

import builtins
import errno
import io
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sqlalchemy import event
from sqlalchemy.engine import Engine

import reg_sweep.search.sweep
import reg_sweep.training.fit  # noqa: F401
from reg_sweep import images
from reg_sweep import train as entry

N_POINTS = int(os.environ.get("REG_SWEEP_FAULTS", "1"))
TINY = ["data=mnist_5k", "data.train_size=100", "data.val_size=50", "batch_size=50", "runtime.threads=1"]
TINY += ["model.channels=4", "norm=gbn", "norm.ghost_batch_size=25", "name=a"]
SIGNALS = {"SIGKILL": 9, "SIGTERM": 15, "SIGINT": 2, "SIGHUP": 1}
ERRORS = {"full disk": errno.ENOSPC, "read-only disk": errno.EROFS, "broken disk": errno.EIO}
FAULTS = [*SIGNALS, *ERRORS, "clock back"]


class Ended(NamedTuple):
    """The end of a command: its exit code (minus the signal that killed it), its number of writes, and its output."""

    code: int
    n_writes: int
    said: str


def command(folder: Path, arguments: Sequence[str], fault: str | None = None, point: int = 0) -> Ended:
    """Runs the train command in `folder`, with the fault at its `point`th write, counted from 1."""
    return forked(folder, lambda: train_with(arguments), fault, point)


def forked(folder: Path, main: Callable[[], None], fault: str | None = None, point: int = 0) -> Ended:
    """Runs `main` in `folder` in a forked process, which need not repeat the imports."""
    said, count = folder / "said.txt", folder / "count.bin"
    for path in (said, count):
        path.write_bytes(b"")
    images.offline_sample()  # read once, before the forks
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        torch.set_num_threads(1)  # recreates torch's thread pool now, before two threads need it at once
        for number in SIGNALS.values():
            if number != 9:
                signal.signal(number, signal.SIG_DFL if number != 2 else signal.default_int_handler)
        out = os.open(said, os.O_WRONLY)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os._exit(_child(main, fault, point, os.open(count, os.O_WRONLY)))
    _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), count.stat().st_size, said.read_text(errors="replace"))


def train_with(arguments: Sequence[str]) -> None:
    sys.argv = ["reg_sweep.train", *arguments]
    sys.orig_argv = [sys.executable, "-m", *sys.argv]
    entry.main()


def _child(main: Callable[[], None], fault: str | None, point: int, counter: int) -> int:
    reached = 0
    act = _act(fault) if fault is not None else lambda: None

    def reach() -> None:
        nonlocal reached
        reached += 1
        os.write(counter, b".")
        if reached == point:
            act()

    _on_writes(reach)
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush(), sys.stderr.flush()
    return code


def _on_writes(reach: Callable[[], None]) -> None:
    """Calls `reach` before every replace, rename, fsync, open for writing and commit of this process."""

    def wrapped(function: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if writes(*arguments, **named):
                reach()
            return function(*arguments, **named)

        return call

    def always(*_: Any, **__: Any) -> bool:
        return True

    def for_writing(file: Any, mode: Any = "r", *_: Any, **__: Any) -> bool:
        return not isinstance(file, int) and isinstance(mode, str) and bool(set(mode) & set("wax+"))

    def by_flags(_path: Any, flags: int = 0, *_: Any, **__: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR))

    for name in ("replace", "rename", "fsync"):
        setattr(os, name, wrapped(getattr(os, name), always))
    os.open = wrapped(os.open, by_flags)
    builtins.open = io.open = wrapped(io.open, for_writing)
    event.listen(Engine, "commit", lambda _connection: reach())


def _act(fault: str) -> Callable[[], None]:
    """A function that triggers the fault."""
    if fault in SIGNALS:
        return lambda: os.kill(os.getpid(), SIGNALS[fault])
    if fault == "clock back":
        return _clock_back

    def fail() -> None:
        raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]))

    return fail


def _clock_back() -> None:
    now = time.time
    time.time = lambda: now() - 3600


def points(name: str, fault: str, n_writes: int) -> Iterator[int]:
    """The points at which to try the fault: all of them, or REG_SWEEP_FAULTS randomly chosen ones if there are more."""
    every = list(range(1, n_writes + 1))
    yield from every if len(every) <= N_POINTS else sorted(random.Random(f"{name}, {fault}").sample(every, N_POINTS))


def codes(fault: str) -> set[int]:
    """The exit codes that a process may have after the fault; 0 if it came too late to matter, or was handled."""
    if fault in SIGNALS:
        number = SIGNALS[fault]
        return {0, -number, 128 + number}
    return {0} if fault == "clock back" else {0, 1, 2}


def left(folder: Path) -> set[str]:
    """The relative paths of the files in a folder, without those of a report."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "report" not in p.parts}


def family(root: Path) -> dict[int, bool]:
    """The processes whose working directory is `root`, and whether each is a worker."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cwd").readlink() == root:
                found[int(process.name)] = b"REG_SWEEP_WORKER=" in (process / "environ").read_bytes()
        except OSError:
            continue  # another user's process, or one that has ended
    return found
