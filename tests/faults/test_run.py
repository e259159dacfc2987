"""A run is stopped, or its disk fails, at every point at which it writes: the same command ends with the same bits.

By default one point of each fault is tried, `make faults` tries REG_SWEEP_FAULTS of them.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from reg_sweep import records
from reg_sweep import train as entry

N_POINTS = int(os.environ.get("REG_SWEEP_FAULTS", "1"))
RUN = ["data=mnist_5k", "data.train_size=100", "data.val_size=50", "batch_size=50", "epochs=3", "runtime.threads=1"]
RUN += ["model.channels=4", "norm=gbn", "norm.ghost_batch_size=25", "l1=0.00001", "name=a"]
SIGNALS = {"SIGKILL": 9, "SIGTERM": 15, "SIGINT": 2, "SIGHUP": 1}
ERRORS = {"full disk": errno.ENOSPC, "read-only disk": errno.EROFS, "broken disk": errno.EIO}
FAULTS = [*SIGNALS, *ERRORS, "clock back"]

Act = Callable[[], None]


def on_writes(reach: Callable[[], None]) -> None:
    """Calls `reach` before every replace, rename, fsync and open for writing of this process."""

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


def act_of(fault: str) -> Act:
    """What befalls the process."""
    if fault in SIGNALS:
        return lambda: os.kill(os.getpid(), SIGNALS[fault])
    if fault == "clock back":
        return clock_back

    def fail() -> None:
        raise OSError(ERRORS[fault], os.strerror(ERRORS[fault]))

    return fail


def clock_back() -> None:
    now = time.time
    time.time = lambda: now() - 3600


def train(folder: Path, fault: str | None = None, point: int = 0) -> tuple[int, int, str]:
    """The command in a forked process, which the fault meets at its `point`th write, counted from 1.

    Gives the exit code (negative of the signal that killed it), the number of writes it came to, and what it said.
    """
    said, count = folder / "said.txt", folder / "count.bin"
    pid = os.fork()
    if pid == 0:
        os.chdir(folder)
        for number in SIGNALS.values():
            if number != 9:
                signal.signal(number, signal.SIG_DFL if number != 2 else signal.default_int_handler)
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        counter = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os._exit(_child(fault, point, counter))
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), count.stat().st_size, said.read_text(errors="replace")


def _child(fault: str | None, point: int, counter: int) -> int:
    reached = 0
    act = act_of(fault) if fault is not None else lambda: None

    def reach() -> None:
        nonlocal reached
        reached += 1
        os.write(counter, b".")
        if reached == point:
            act()

    on_writes(reach)
    sys.argv = ["reg_sweep.train", *RUN]
    sys.orig_argv = [sys.executable, "-m", "reg_sweep.train", *RUN]
    code = 0
    try:
        entry.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush(), sys.stderr.flush()
    return code


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The run that nothing befell, and how often it wrote."""
    folder = tmp_path_factory.mktemp("whole")
    code, n_writes, said = train(folder)
    assert code == 0, said
    return folder, n_writes


def points(fault: str, n_writes: int) -> Iterator[int]:
    """The points at which the fault is tried: all where REG_SWEEP_FAULTS allows, else some of them."""
    every = list(range(1, n_writes + 1))
    yield from every if len(every) <= N_POINTS else sorted(random.Random(fault).sample(every, N_POINTS))


def left(folder: Path) -> set[str]:
    """The names of the files that a run leaves, wherever they lie."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "report" not in p.parts}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_befalls_a_write_the_same_command_ends_with_the_same_bits(tmp_path, whole, fault):
    reference, n_writes = whole
    expected = load_file(reference / "outputs" / "a" / records.WEIGHTS_FILE)
    for point in points(fault, n_writes):
        folder = tmp_path / str(point)
        folder.mkdir()
        code, _, said = train(folder, fault, point)
        where = f"{fault} at write {point} of {n_writes}: {said}"
        assert code in codes(fault), where
        assert "Traceback" not in said, where
        code, _, said = train(folder)
        assert code == 0, where + said
        run = records.read_run(folder / "outputs" / "a")
        assert run.status == "complete", where
        assert [row["epoch"] for row in run.metrics] == [1, 2, 3], where
        found = load_file(folder / "outputs" / "a" / records.WEIGHTS_FILE)
        assert found.keys() == expected.keys()
        assert all((found[name] == expected[name]).all() for name in expected), where
        assert left(folder / "outputs") <= left(reference / "outputs"), where


def codes(fault: str) -> set[int]:
    """How a process may end that met the fault; 0 where it came too late to matter, or was borne."""
    if fault in SIGNALS:
        number = SIGNALS[fault]
        return {0, -number, 128 + number}
    return {0} if fault == "clock back" else {0, 1, 2}
