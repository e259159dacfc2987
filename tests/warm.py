"""Python's commands in processes of their own that need not import torch, Hydra and Optuna: forked from one that has.

What a command imports takes seconds, a fork takes milliseconds. `Popen` and `run` are subprocess's, for commands that
begin with sys.executable: the child has arguments, folder, environment, pipes, signals and an exit code of its own. So
have the processes that it starts in turn: a study's workers, joblib's, submitit's jobs, torchrun's ranks. Where a fork
might not be what a start is (an option of the interpreter, a variable that a library reads when it is loaded), Popen
starts. Tests of the start itself use subprocess.

The server that forks belongs to one pytest, whose processes share it, and ends with it. It imports, and learns what
every command learns again: Hydra's grammar, the offline sample, the rotations of a digit.
"""

import atexit
import fcntl
import inspect
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# What commands import, but for reg_sweep.train: it reads the environment, and is __main__ in most of them.
IMPORTED = """
    alembic.command antlr4 contourpy hydra.main hydra._internal.core_plugins.basic_launcher
    hydra._internal.core_plugins.basic_sweeper hydra._internal.core_plugins.file_config_source hydra._internal.hydra
    hydra.core.override_parser.overrides_parser hydra_plugins.reg_sweep_plugins.optuna_study joblib
    joblib.externals.loky.backend.popen_loky_posix matplotlib.backends.backend_agg matplotlib.backends.backend_svg
    mlxtend.data optuna.importance._fanova._evaluator optuna.samplers optuna.storages optuna.storages._rdb.models
    sqlalchemy.orm sqlalchemy.dialects.sqlite reg_sweep.report.page reg_sweep.search.journal reg_sweep.search.sweep
    reg_sweep.training.fit
"""
# Of each form that the grammar knows; to parse a form for the first time takes long.
OVERRIDES = """
    norm=gbn | norm=bn,gbn | l1=0.0001 | l1=0,1e-05 | seed=1,2 | report=false | ~model.dropout | +a.b=x | ++a@b=c
    a=null | a=[1, 2] | a={b: 1} | a='b c' | a.b=c/d | a=${b.c} | a=range(1,5) | a=int(1.5) | hydra/sweeper=optuna_study
    l1=choice(0, 0.001) | l1=interval(0, 1) | l1=tag(log, interval(1e-6, 0.001))
"""
SERVER = "REG_SWEEP_WARM_SERVER"  # names the socket to the processes that the server forks
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
UNBUFFERED = "-u"  # the only option of the interpreter that a forked process can still take
# No library reads these when it is loaded.
READ_LATE = ("REG_SWEEP_", "PYTEST_", "HYDRA_", "SUBMITIT_", "CUDA_VISIBLE_DEVICES", "ENABLE_IPC")
READ_LATE += ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "TORCH_NCCL_")
_Started = subprocess.Popen  # which forked processes replace


# ---- who asks


class Popen(_Started):
    """subprocess.Popen, where Python need not start anew."""

    _server: socket.socket | None = None

    def _execute_child(self, *arguments: Any) -> None:
        given = inspect.signature(super()._execute_child).bind(*arguments).arguments
        args, env = given["args"], dict(os.environ if given["env"] is None else given["env"])
        if given["preexec_fn"] or given["shell"] or not _can_be_forked(args, env):
            super()._execute_child(*arguments)
            return
        ends = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        theirs = [own if end == -1 else end for own, end in zip((0, 1, 2), (ends[0], ends[3], ends[5]), strict=True)]
        passed = [int(end) for end in given["pass_fds"]]
        order = {
            "args": list(args),
            "cwd": str(given["cwd"] or Path.cwd()),
            "env": env,
            "new_session": bool(given["start_new_session"]),
            "ends": [0, 1, 2, *passed],
        }
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(_address())
        socket.send_fds(self._server, [b"."], theirs + passed)
        self._server.sendall(json.dumps(order).encode() + b"\n")
        self.pid, self._child_created = _number(self._server), True
        self._close_pipe_fds(*ends)

    def _internal_poll(self, *arguments: Any, **named: Any) -> int | None:
        if self._server is None:
            return super()._internal_poll(*arguments, **named)
        if self.returncode is None and _is_readable(self._server, 0):
            self._end()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._server is None:
            return super()._wait(timeout)
        if self.returncode is None:
            if not _is_readable(self._server, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._end()
        return self.returncode

    def _end(self) -> None:
        self.returncode = _number(self._server)
        self._server.close()


def run(
    command: Sequence[str], *, capture_output: bool = False, timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess:
    """subprocess.run, where Python need not start anew."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def environment_of_a_shell(folder: Path) -> dict[str, str]:
    """The environment for a script whose `python` need not start anew; `folder` gets that command."""
    python = folder / "python"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import warm"
    run = "sys.exit(warm.run([sys.executable, *sys.argv[1:]]).returncode)"
    python.write_text(f"#!{sys.executable} -SE\n{code}\n{run}\n")
    python.chmod(0o755)
    server = {SERVER: _address()} if sys.platform == "linux" else {}
    return os.environ | ONE_THREAD | server | {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}


def _can_be_forked(args: Any, env: dict[str, str]) -> bool:
    if sys.platform != "linux" or not isinstance(args, list | tuple) or len(args) < 2 or args[0] != sys.executable:
        return False
    first = args[2] if args[1] == UNBUFFERED else args[1]
    if first.startswith("-") and first not in ("-m", "-c"):
        return False
    theirs = dict(os.environ) | ONE_THREAD
    differ = {name for name in env.keys() | theirs.keys() if env.get(name) != theirs.get(name)}
    one_thread = {name for name in differ if name.endswith("_THREADS") and env.get(name) == "1"}
    return all(name.startswith(READ_LATE) for name in differ - one_thread)


@cache
def _address() -> str:
    """Where the server listens, which is started by whoever first asks."""
    if SERVER in os.environ:
        return os.environ[SERVER]
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        folder = Path(tempfile.mkdtemp(prefix="warm-"))
        _start(folder, os.getpid())
    else:
        folder = Path(tempfile.gettempdir()) / f"warm-{run}"
        with suppress(FileExistsError):  # another of pytest's processes was the first
            folder.mkdir(mode=0o700)
            _start(folder, os.getppid())
    deadline = time.monotonic() + 60
    while not (folder / "socket").exists():
        assert time.monotonic() < deadline, "the server of warm processes did not start"
        time.sleep(0.01)
    return str(folder / "socket")


def _start(folder: Path, owner: int) -> None:
    """Starts the server, which ends with its owner."""
    command = [sys.executable, __file__, str(folder / "socket"), str(owner)]
    server = _Started(command, env=os.environ | ONE_THREAD, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    server.returncode = 0  # nobody waits for it


def _number(connection: socket.socket | None) -> int:
    """The next line that the server says: first the process's id, then its exit code."""
    assert connection is not None
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("the server of warm processes has died")
        line += byte
    return int(line)


def _is_readable(connection: socket.socket, timeout: float | None) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(timeout))


# ---- the server


def _listening(address: Path) -> socket.socket:
    """A socket that is found under its address once it can be connected to."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(100)
    Path(f"{address}.new").rename(address)
    return listener


def _serve(listener: socket.socket, folder: Path, owner: int) -> dict[str, Any]:
    """Forks whatever is asked for, until its owner ends. In a forked process, returns what to run there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl+C is for the tests
    with listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(owner, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == owner:
                    shutil.rmtree(folder)
                    os._exit(0)
                elif key.fileobj is not listener:
                    selector.unregister(key.fileobj)
                    _tell_end(key.fd, *key.data)
                elif (order := _fork(listener.accept()[0], selector)) is not None:
                    os.close(owner)
                    return order


def _fork(connection: socket.socket, selector: selectors.BaseSelector) -> dict[str, Any] | None:
    """Forks one process and tells its id. In that process, returns what to run there."""
    _, ends, *_ = socket.recv_fds(connection, 1, 100)
    with connection.makefile("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):  # who asked was killed meanwhile
        connection.close()
        for end in ends:
            os.close(end)
        return None
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        order["received"] = ends
        others = [(key.fd, key.data[1]) for key in selector.get_map().values() if key.data is not None]
        connection.close()
        for other, its_connection in others:
            os.close(other)
            its_connection.close()
    else:
        with suppress(OSError):  # it was killed since
            connection.sendall(b"%d\n" % pid)
        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
        for end in ends:
            os.close(end)
    return order if pid == 0 else None


def _tell_end(pidfd: int, pid: int, connection: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with connection, suppress(OSError):  # who asked for it may have died first
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


# ---- what it forks


def _run(order: dict[str, Any], address: str) -> None:
    """Runs a command of Python's as Python does."""
    _take(order["received"], order["ends"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order["new_session"]:
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ |= order["env"] | {SERVER: address}
    sys.modules["numpy"].random.seed()  # as a fresh process's, which no other shares
    _fork_what_it_starts()
    sys.orig_argv = list(order["args"])
    _, first, *rest = order["args"]
    if first == UNBUFFERED:
        sys.stdout.reconfigure(write_through=True)
        first, *rest = rest
    if first == "-m":
        sys.path.insert(0, order["cwd"])
        sys.modules.pop(rest[0], None)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    else:
        sys.path.insert(0, str(Path(first).parent.absolute()))
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _take(received: list[int], ends: list[int]) -> None:
    """Gives each descriptor that came the number by which the command knows it."""
    aside = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, max(ends) + 1) for end in received]
    for end in received:
        os.close(end)
    for end, own in zip(aside, ends, strict=True):
        os.dup2(end, own)
        os.close(end)


def _fork_what_it_starts() -> None:
    """Makes forks of the processes that this one starts; loky, joblib's engine, starts and waits in its own ways."""
    from joblib.externals.loky.backend import fork_exec, popen_loky_posix

    started: dict[int, Popen] = {}

    def start(command: list[str], keep_fds: list[int], env: dict[str, str] | None = None) -> int:
        process = Popen(command, env=os.environ | (env or {}), pass_fds=sorted(map(int, keep_fds)))
        started[process.pid] = process
        return process.pid

    def poll(self: Any, flag: int = os.WNOHANG) -> int | None:
        process = started[self.pid]
        self.returncode = process.poll() if flag == os.WNOHANG else process.wait()
        return self.returncode

    subprocess.Popen = Popen
    fork_exec.fork_exec = start
    popen_loky_posix.Popen.poll = poll


def _learn() -> None:
    """What a command computes first, and the next one again."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from reg_sweep import images
    from reg_sweep.config.schema import DataConfig
    from reg_sweep.training.augmentation import rotation_table

    overrides = [override.strip() for line in OVERRIDES.strip().splitlines() for override in line.split(" | ")]
    OverridesParser.create().parse_overrides(overrides)
    for text in ("${a.b}", "${oc.env:HOME,x}", "outputs/${a.b}", "${a.b}/${oc.select:a.c,none}"):
        _ = OmegaConf.create({"a": {"b": "c"}, "of": text}).of
    images.offline_sample = cache(images.offline_sample)
    images.offline_sample()
    rotation_table(28, 28, DataConfig.rotation)


def _end(run: Callable[[], None]) -> NoReturn:
    """Runs and ends as Python does, but for taking down all that the server has imported, half a second's work."""
    code = 0
    try:
        run()
    except SystemExit as stop:
        if stop.code is not None and not isinstance(stop.code, int):
            print(stop.code, file=sys.stderr)
        code = 0 if stop.code is None else stop.code if isinstance(stop.code, int) else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    import gc

    del sys.path[0]  # this folder, whose modules are not the commands'
    address, owner = Path(sys.argv[1]), os.pidfd_open(int(sys.argv[2]))
    listener = _listening(address)
    for name in IMPORTED.split():
        import_module(name)
    _learn()
    gc.freeze()
    order = _serve(listener, address.parent, owner)
    _end(lambda: _run(order, str(address)))
