"""A process that is forked from a warm one is to a test what a started one is."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import warm
from waiting import wait_until

PYTHON = sys.executable
SAY = "import json, os, sys; print(json.dumps([sys.argv, sys.orig_argv, os.getcwd(), dict(os.environ), sys.path[0]]))"
SLEEP = "import sys, time; print('up', flush=True); time.sleep(60)"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone"),
]


def own(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | more


@pytest.fixture(params=[warm.run, subprocess.run], ids=["forked", "started"])
def run(request):
    def func(*arguments, **options):
        return request.param([PYTHON, *arguments], capture_output=True, text=True, **options)

    return func


def without(environment: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k not in (warm.SERVER, "LC_CTYPE")}


def test_it_is_a_fork_of_what_has_loaded_torch_where_torch_is_not_imported(tmp_path):
    done = warm.run([PYTHON, "-c", "import sys; print('torch' in sys.modules)"], env=own(), capture_output=True)
    assert done.stdout == b"True\n"


@pytest.mark.parametrize("how", ["-c", "-m", "script"])
def test_it_has_arguments_a_folder_and_an_environment_of_its_own(run, tmp_path, how):
    (tmp_path / "said.py").write_text(SAY)
    start = {"-c": ["-c", SAY], "-m": ["-m", "said"], "script": ["said.py"]}[how]
    done = run(*start, "a", "b c", cwd=tmp_path, env=own(REG_SWEEP_OWN="mine"))
    argv, orig_argv, cwd, environment, first = json.loads(done.stdout)
    assert argv == [{"-c": "-c", "-m": str(tmp_path / "said.py"), "script": "said.py"}[how], "a", "b c"]
    assert orig_argv == [PYTHON, *start, "a", "b c"]
    assert cwd == str(tmp_path)
    assert without(environment) == without(own(REG_SWEEP_OWN="mine"))
    assert first == ("" if how == "-c" else str(tmp_path))


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("", (0, "", "")),
        ("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", (3, "out\n", "err\n")),
        ("raise SystemExit('no')", (1, "", "no\n")),
        ("import atexit; atexit.register(print, 'last')", (0, "last\n", "")),
        ("import os; os._exit(5)", (5, "", "")),
        ("import os; os.abort()", (-signal.SIGABRT, "", "")),
    ],
)
def test_it_ends_and_speaks_as_python_does(run, code, ends):
    done = run("-c", code, env=own())
    assert (done.returncode, done.stdout, done.stderr) == ends


def test_an_error_is_a_traceback_and_exit_code_1(run):
    done = run("-c", "1 / 0", env=own())
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_its_id_ends_it_and_nothing_else(number):
    one, other = (
        warm.Popen([PYTHON, "-c", SLEEP], env=own(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in "ab"
    )
    for process in (one, other):
        assert process.stdout.readline() == b"up\n"
        assert process.poll() is None
    os.kill(one.pid, number)
    assert one.wait(timeout=60) == -number
    assert other.poll() is None
    other.kill()
    for process in (one, other):
        process.communicate()
    assert other.returncode == -signal.SIGKILL


def test_waiting_has_an_end():
    with warm.Popen([PYTHON, "-c", SLEEP], env=own(), stdout=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.1)
        process.terminate()


def test_what_is_written_to_it_arrives_and_its_files_are_its_own(tmp_path):
    code = "import sys; text = sys.stdin.read(); print(text.upper()); print(text, file=sys.stderr)"
    with (tmp_path / "out").open("wb") as file:
        process = warm.Popen(
            [PYTHON, "-c", code], env=own(), stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, text=True
        )
        process.communicate("words")
    assert (tmp_path / "out").read_text() == "words\nWORDS\n" or (tmp_path / "out").read_text() == "WORDS\nwords\n"


def test_who_reads_what_it_writes_sees_it_end_however_it_ends():
    """As a worker does, whose standard input its sweeper holds."""
    waits = "import sys; sys.stdin.read(); print('closed', flush=True)"
    start = f"import subprocess, sys, time; subprocess.Popen([{PYTHON!r}, '-c', {waits!r}], stdin=subprocess.PIPE)"
    sweeper = warm.Popen(
        [PYTHON, "-c", f"{start}; print('up', flush=True); time.sleep(60)"], env=own(), stdout=subprocess.PIPE
    )
    assert sweeper.stdout.readline() == b"up\n"
    sweeper.kill()
    assert sweeper.communicate(timeout=60)[0] == b"closed\n"


def test_a_process_that_asks_for_a_session_leads_one(run):
    said = "import os; print(os.getsid(0) == os.getpid())"
    assert run("-c", said, env=own(), start_new_session=True).stdout == "True\n"
    assert run("-c", said, env=own()).stdout == "False\n"


def test_random_numbers_are_not_those_of_the_process_beside_it(run):
    code = "import numpy, random; print(numpy.random.random(), random.random())"
    assert not set(run("-c", code, env=own()).stdout.split()) & set(run("-c", code, env=own()).stdout.split())


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (["-W", "error", "-c"], {}),
        (["-c"], {"PYTHONPATH": "elsewhere"}),
        (["-c"], {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_what_the_interpreter_or_a_library_reads_at_its_start_is_not_forked(arguments, more):
    command = [PYTHON, *arguments, "import sys; print('torch' in sys.modules)"]
    assert warm.run(command, env=own(**more), capture_output=True).stdout == b"False\n"


@pytest.mark.parametrize("more", [{"MKL_NUM_THREADS": "1"}, {"SUBMITIT_LOCAL_NODEID": "0"}, {"GROUP_RANK": "0"}])
def test_what_launchers_and_torchrun_start_is_forked_and_unbuffered(more):
    command = [PYTHON, "-u", "-c", "import sys; print('torch' in sys.modules, sys.stdout.write_through)"]
    assert warm.run(command, env=own(**more), capture_output=True).stdout == b"True True\n"


def test_a_descriptor_that_is_passed_has_its_number_there(run):
    ends = [os.pipe() for _ in range(3)]
    passed = [ends[2][1], ends[0][1]]
    code = "import os, sys; [os.write(int(end), end.encode()) for end in sys.argv[1:]]"
    assert run("-c", code, *map(str, passed), env=own(), pass_fds=passed).returncode == 0
    assert [os.read(ends[i][0], 10) for i in (2, 0)] == [str(end).encode() for end in passed]
    for pair in ends:
        for end in pair:
            os.close(end)


def test_a_scripts_python_is_a_fork_that_ends_as_it_does(tmp_path):
    says = "import sys; print('torch' in sys.modules, sys.argv[1:])"
    script = f'python -c "{says}" a "b c" && python -c "raise SystemExit(3)"'
    environment = warm.environment_of_a_shell(tmp_path)
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "True ['a', 'b c']\n", "")


@pytest.mark.parametrize("moment", ["connected", "handed over", "ordered"])
def test_who_is_killed_while_asking_takes_nobody_along(tmp_path, moment):
    code = "import pathlib; pathlib.Path('done').touch()"
    order = {"args": [PYTHON, "-c", code], "cwd": str(tmp_path), "env": own(), "new_session": False, "ends": [0, 1, 2]}
    with socket.socket(socket.AF_UNIX) as asking, open(os.devnull, "r+b") as file:
        asking.connect(warm._address())
        if moment != "connected":
            socket.send_fds(asking, [b"."], [file.fileno()] * 3)
        if moment == "ordered":
            asking.sendall(json.dumps(order).encode() + b"\n")
    assert warm.run([PYTHON, "-c", "print('next')"], env=own(), capture_output=True).stdout == b"next\n"
    if moment == "ordered":  # what was started goes on without who started it
        wait_until((tmp_path / "done").exists, "word of what was started")
