"""Runs Python commands in processes of their own, as a shell would, but forked.

Starting `python -m reg_sweep.train` takes 2.5 seconds of CPU, mostly for imports; a fork takes milliseconds. Each
pytest process has a multiprocessing forkserver, which imports the modules that commands need, and forks a process for
each command. Processes that a command starts itself (workers, torchrun's ranks, a launcher's jobs) are not forked.

A test that only needs a command's outcome runs it in pytest's process instead, with the fixture `start` or `app`
(tests/conftest.py). A test of what a start imports uses subprocess.
"""

import atexit
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

TINY = ["data=mnist_5k", "data.train_size=200", "data.val_size=100", "batch_size=50", "model.channels=4"]
TINY += ["epochs=2", "runtime.threads=1"]
ONE = [*TINY, "epochs=1"]
LONGER = "model.channels=16"  # for a run that lasts long enough to be interrupted

# Without reg_sweep.train, which most commands run as __main__.
IMPORTED = """
    alembic.command alembic.config alembic.migration hydra._internal.hydra hydra.experimental hydra.main
    hydra_plugins.hydra_joblib_launcher.joblib_launcher
    hydra_plugins.hydra_submitit_launcher.submitit_launcher hydra_plugins.reg_sweep_plugins.optuna_study
    hydra_plugins.reg_sweep_plugins.population joblib
    matplotlib.backends.backend_svg mlxtend.data optuna.importance optuna.samplers optuna.storages
    optuna.storages._rdb.models pyarrow.parquet reg_sweep.hydra_app.app reg_sweep.report.page
    reg_sweep.search.backends reg_sweep.search.sweep reg_sweep.training.fit reg_sweep.training.run
    sqlalchemy.dialects.sqlite sqlalchemy.orm torch.utils.serialization warmed
"""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(IMPORTED.split())


@cache
def _start_server() -> None:
    """Starts the fork server, which can find this folder's module `warmed` only through PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


def forked(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """A process, forked by the server and started, that calls the function."""
    _start_server()
    process = _forks.Process(target=function, args=arguments)
    process.start()
    return process


class Command:
    """A started command. Its output is kept until it has ended."""

    def __init__(self, folder: Path, words: list[str], environment: dict[str, str]) -> None:
        self.words = words
        self._said = Path(tempfile.mkdtemp(prefix="said-"))
        for name in ("out", "err"):
            (self._said / name).touch()
        self._process = forked(_run, words, str(folder), environment, str(self._said))
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def send(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def end(self, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Waits for its end; returns its exit code and output. After `timeout_s` it is killed, and the test fails."""
        self._process.join(timeout_s)
        is_late = self.code is None
        self.kill()
        self._process.join()
        out, err = ((self._said / name).read_text() for name in ("out", "err"))
        shutil.rmtree(self._said)
        assert not is_late, f"{self.words} took longer than {timeout_s} s: {out}{err}"
        return subprocess.CompletedProcess(self.words, self.code, out, err)


def start(folder: Path, *words: str, **variables: str) -> Command:
    """Starts `python WORDS` in a folder, on one thread and without real data; `variables` extend its environment."""
    environment = {name: value for name, value in os.environ.items() if name != "REG_SWEEP_DATA"}
    return Command(folder, list(words), environment | {"OMP_NUM_THREADS": "1"} | variables)


def check_run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `python WORDS`, which must succeed."""
    done = start(folder, *words, **variables).end()
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def type_in(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Runs a printed command that begins with `python`, as a shell would; it must succeed."""
    first, *words = shlex.split(command)
    assert first == "python"
    return check_run(folder, *words)


def last_command(done: subprocess.CompletedProcess[str]) -> str:
    """The last command that it printed. Python may print lines after it, if an interrupt reaches a destructor."""
    return [line for line in (done.stdout + done.stderr).splitlines() if line.split()[:1] == ["python"]][-1]


def start_train(folder: Path, *arguments: str, **variables: str) -> Command:
    return start(folder, "-m", "reg_sweep.train", *arguments, **variables)


def _run(words: list[str], folder: str, environment: dict[str, str], said: str) -> None:
    """Does the interpreter's work in the forked process, from parsing the arguments to the exit."""
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{said}/{name}", os.O_WRONLY), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.modules["numpy"].random.seed()  # a fork inherits its parent's state
    sys.orig_argv = [sys.executable, *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and what it starts, ignores it
    try:
        _interpret(words, folder)
    finally:  # in the interpreter's order: multiprocessing would first wait for the workers that joblib ends here
        threading._shutdown()
        atexit._run_exitfuncs()


def _interpret(words: list[str], folder: str) -> None:
    first, *rest = words
    if first == "-m":
        sys.path.insert(0, folder)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path.insert(0, folder)
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(folder, first).parent))
        sys.argv = words
        runpy.run_path(first, run_name="__main__")
