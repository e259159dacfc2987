"""A run's directory: writes that are whole or not at all, and reads that tolerate what a crash leaves."""

import json
import math
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reg_sweep import read_runs
from reg_sweep.config.digest import arm_digest, digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import OPTIMIZERS, DataConfig, OptimizerConfig, RunConfig, to_dict
from reg_sweep.runs import files
from reg_sweep.runs.files import locked_directory, replacing
from reg_sweep.runs.reading import find_runs, read_metrics, read_record, read_run
from reg_sweep.runs.record import (
    MAX_LAYERS,
    MAX_MESSAGE,
    METRICS,
    METRICS_FILE,
    RecordError,
    append_metrics,
    check_recordable,
    new_record,
    write_metrics,
    write_record,
)

VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=True)
SHARES = st.none() | st.floats(0, 1)
ACCURACIES = [name for name in METRICS if "accuracy" in name]
ROWS = st.fixed_dictionaries({name: SHARES if "accuracy" in name else VALUES for name in METRICS})


def begin(**changes) -> dict:
    """A record as a run begins it, without data and trial."""
    return {
        "name": "run",
        "config": to_dict(RunConfig()),
        "digest": digest(to_dict(RunConfig())),
        "versions": {},
        "git_commit": None,
        "device": {"name": "cpu", "threads": 1, "processor": "none"},
        "started": "2026-01-01T00:00:00+00:00",
        "command": "python -m reg_sweep.train",
        **changes,
    }


def record(**changes) -> dict:
    counts = {"n_train": 3, "n_val": 2, "n_test": 1}
    data = {"name": "mnist", "source": "local copy", "fingerprint": "0", "mean": [0.1], "std": [0.3], **counts}
    whole = new_record(**begin(), data=data, trial=None)
    return {**whole, "status": "complete", **changes}


def row(epoch: int, **changes) -> dict[str, float | None]:
    return {**dict.fromkeys(METRICS, 0.5), "epoch": float(epoch), "val_loss": None, **changes}


def make_run(directory: Path, **changes) -> Path:
    directory.mkdir(parents=True)
    write_record(directory, record(**changes))
    return directory


def in_another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


# ---- writing


def test_a_record_comes_back_as_it_was_written(tmp_path):
    written = record(message="λ is 0.1", trial=None, last=row(3))
    write_record(tmp_path, written)
    assert read_record(tmp_path) == written
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    write_record(tmp_path, record(more={"a": math.nan, "b": [math.inf, 1.5, (-math.inf, True)]}, n=np.float64("nan")))
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["more"] == {"a": None, "b": [None, 1.5, [None, True]]}
    assert read_record(tmp_path)["n"] is None


def test_an_error_in_the_middle_of_a_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half of the new")
            file.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_record_and_no_other_file(tmp_path):
    write_record(tmp_path, record(message="old"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # bytes; what lies beyond fails as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            write_record(tmp_path, record(message="new"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_record(tmp_path)["message"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_that_json_can_not_hold_leaves_the_old_one(tmp_path):
    write_record(tmp_path, record(message="old"))
    with pytest.raises(TypeError):
        write_record(tmp_path, record(message=object()))
    assert read_record(tmp_path)["message"] == "old"


KILLED_IN_A_WRITE = """
import sys, time
from pathlib import Path
from reg_sweep.runs.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half of the new")
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_the_old_file_and_the_next_lock_clears_its_half(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"old")
    with in_another_process(KILLED_IN_A_WRITE, path) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    with locked_directory(tmp_path):
        assert sorted(p.name for p in tmp_path.iterdir()) == [files.LOCK_FILE, "run.json"]


# ---- whatever begins can be read back

ODD_TEXTS = ["\ud800", "a\0b", "x" * 301, "x" * 100_001, "\x1b[31m"]
ANY_TEXT = st.text(st.characters(), max_size=10) | st.sampled_from(ODD_TEXTS)
ANY_NUMBER = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e300, 1e-320])
ANY_VALUE = st.recursive(
    st.none() | ANY_TEXT | ANY_NUMBER,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(ANY_TEXT, inner, max_size=2),
    max_leaves=5,
)
ROUND_TRIPS = 150


def deep(n: int) -> Any:
    return {"a": deep(n - 1)} if n else 1


SIZES = st.sampled_from([1, 2**40, 2**63, 10**30])
NUMBERS = st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=2)
SOURCES = st.builds(lambda odd: {"_target_": "a.b", "odd": odd}, ANY_VALUE | st.just(deep(40)))
ODD = {
    "l1": st.floats(0, 1e300),
    "seed": st.sampled_from([0, 2**53 + 1, 2**63 - 1]),
    "batch_size": SIZES.map(lambda n: n + 1),
    "model": SOURCES,
    "optimizer": st.builds(OptimizerConfig, ANY_TEXT.filter(lambda s: s not in OPTIMIZERS), source=SOURCES),
    "callbacks": st.dictionaries(ANY_TEXT, SOURCES, max_size=1),
    "data": st.one_of(
        st.builds(DataConfig, name=ANY_TEXT, source=SOURCES),
        st.builds(lambda size, seed: DataConfig(val_size=size, split_seed=seed), SIZES, SIZES),
        st.builds(lambda mean, std: DataConfig(mean=mean, std=std), NUMBERS, NUMBERS),
    ),
    "facts": st.fixed_dictionaries({"name": ANY_TEXT})
    | st.fixed_dictionaries({"std": st.just([math.inf])})
    | st.fixed_dictionaries({"n_classes": st.sampled_from([2, 4096, 4097])}),
    "command": ANY_TEXT,
    "trial": st.builds(lambda name, x: {"study": name, "number": 3, "params": {"x": x}}, ANY_TEXT, ANY_VALUE),
}
ODD_SETTINGS = st.sets(st.sampled_from(sorted(ODD)), max_size=2).flatmap(
    lambda names: st.fixed_dictionaries({name: ODD[name] for name in names})
)
LAYERS = st.builds(lambda name: {"name": name, "output": [1], "n_parameters": 1, "receptive_field": None}, ANY_TEXT)
LAST_ROWS = st.floats().map(
    lambda v: dict.fromkeys(METRICS, v) | dict.fromkeys(ACCURACIES, 0.5) | {"epoch": 1.0, "seconds": 1.0, "lr": 0.1}
)


def test_whatever_run_begins_is_read_back(tmp_path):
    """Else a finished training could not be reported."""
    begun = []

    @settings(max_examples=ROUND_TRIPS, suppress_health_check=list(HealthCheck), deadline=None)
    @given(ODD_SETTINGS, LAST_ROWS, LAYERS, st.none() | ANY_TEXT)
    def attempt(odd, last, layer, message):
        facts = record()["data"] | odd.pop("facts", {})
        command, trial = odd.pop("command", ""), odd.pop("trial", None)
        try:
            config = to_dict(RunConfig(**odd))
            check_recordable(config)
            ours = {"config": config, "digest": digest(config), "command": command}
            fresh = new_record(**begin(**ours), data=facts, trial=trial)
        except ConfigError:
            return
        fresh |= {"last": last, "best_val": last, "layers": [layer] * 2, "message": message}
        write_record(tmp_path, fresh)
        assert read_record(tmp_path, raw=True)["config"] == json.loads(json.dumps(config))
        read_record(tmp_path)
        begun.append(config)

    attempt()
    assert ROUND_TRIPS / 5 < len(begun) < ROUND_TRIPS


def test_a_network_of_many_layers_is_read_back_with_the_first(tmp_path):
    layer = {"name": "x" * 400, "output": [1], "n_parameters": 1, "receptive_field": None}
    write_record(tmp_path, record(layers=[layer] * 50_000))
    assert read_record(tmp_path)["layers"] == [layer | {"name": "x" * 300}] * MAX_LAYERS


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 2**63}, "config.batch_size must be a whole number of at most 64 bits"),
        ({"l1": 1e300}, "config.l1 must be a number from 0 to 1e"),
        ({"model": {"_target_": "a.b", "x": deep(40)}}, "nested at most 32 deep"),
        ({"model": {"_target_": "a.b", "x": "\ud800"}}, "config.model.x must be a text that can be written"),
        ({"model": {"_target_": "a.b", "x": Path()}}, "must be made of plain values"),
        ({"model": {"_target_": "a.b", "x": ["x" * 90_000] * 20}}, "at most 1,000,000 bytes"),
        ({"command": "x" * 100_001}, "command must be a text of at most 100,000 characters"),
        ({"data": {"n_classes": 4097}}, "data must have at most 4,096 classes, got 4,097: train on fewer"),
        ({"data": {"std": [math.inf]}}, "must be made of plain values"),
    ],
)
def test_what_could_not_be_read_back_is_refused_before_the_run(changes, says):
    data, command = record()["data"] | changes.pop("data", {}), changes.pop("command", "")
    with pytest.raises(ConfigError, match=says):
        new_record(**begin(config=to_dict(RunConfig(**changes)), command=command), data=data, trial=None)


# ---- metrics


@given(rows=st.lists(ROWS, max_size=5), n_first=st.integers(0, 5))
def test_metrics_come_back_to_the_last_bit_written_at_once_or_row_by_row(rows, n_first, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    write_metrics(directory, rows[:n_first])
    for r in rows[n_first:]:
        append_metrics(directory, r)
    assert read_metrics(directory) == rows


def test_a_loss_that_is_not_a_number_is_kept_as_one(tmp_path):
    write_metrics(tmp_path, [row(1, train_loss=math.nan)])
    assert math.isnan(read_metrics(tmp_path)[0]["train_loss"])


@given(cut=st.integers(0, 400))
def test_metrics_torn_at_any_byte_give_the_whole_rows_before_it(cut, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    rows = [row(1), row(2, test_loss=math.inf), row(3)]
    write_metrics(directory, rows)
    path = directory / METRICS_FILE
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    assert read_metrics(directory) == rows[: max(0, content.count(b"\n") - 1)]


@pytest.mark.parametrize(
    "damage", [b"x,y", b"1.0,abc" + b",0" * 9, b"\0", b"", b"1" + b",0" * 11, b"\xff\xfe" + b",0" * 10]
)
def test_a_damaged_row_ends_the_metrics(damage, tmp_path):
    write_metrics(tmp_path, [row(1)])
    with (tmp_path / METRICS_FILE).open("ab") as file:
        file.write(damage + b"\n")
    append_metrics(tmp_path, row(3))
    assert read_metrics(tmp_path) == [row(1)]


def test_no_metrics_are_no_rows(tmp_path):
    assert read_metrics(tmp_path) == []
    (tmp_path / METRICS_FILE).touch()
    assert read_metrics(tmp_path) == []


def test_a_row_must_hold_every_metric(tmp_path):
    with pytest.raises(KeyError):
        append_metrics(tmp_path, {"epoch": 1.0})


# ---- reading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", ": must be an object"),
        (b"null", ": must be an object"),
        (b"{}", "not a record of reg_sweep"),
        (b'{"schema": "1"}', "not a record of reg_sweep"),
        (b'{"schema": 1, "status": "complete"}', "name is missing"),
        (b'{"schema": 1, "status": "odd"}', "status must be one of running, complete, .*, got 'odd'"),
        (b'{"schema": 2, "status": "complete", "config": {}, "data": {}}', r"newer reg_sweep \(.* up to 1\): upgrade"),
        (b"\xff\xfe", r"unreadable \("),
        (b"", r"unreadable \("),
        (b'{"schema": 1, "stat', r"unreadable \("),
        (None, "unreadable"),
    ],
)
def test_what_is_no_record_of_ours_is_named_with_its_path(content, message, tmp_path):
    if content is not None:  # else there is none
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RecordError, match=message) as error:
        read_record(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "run.json"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["config"].pop("l1"), "config.l1 is missing"),
        (lambda r: r["config"].update(l1=[0.1]), r"config.l1 must be a number, got \[0.1\]"),
        (lambda r: r["config"].update(seed=-1), "config.seed must be a whole number from 0"),
        (lambda r: r["config"]["norm"].update(name=None), "config.norm.name must be text, got None"),
        (lambda r: r["config"].update(penalty="textbook"), "config.penalty must be an object"),
        (lambda r: r["data"].update(n_test=10**9), "data.n_test must be a whole number from 0 to 1e"),
        (lambda r: r["data"].update(n_test=0), "data.n_test must be at least 1 in a complete run"),
        (lambda r: r.update(data=None), "data must be an object, got None"),
        (lambda r: r.update(last=row(3, test_accuracy=2)), "last.test_accuracy must be a number from 0 to 1, got 2"),
        (lambda r: r["data"].update(in_shape=[1, 2]), "data.in_shape must be three sizes, got"),
        (lambda r: r.update(trial=[]), "trial must be an object"),
        (lambda r: r.update(message="\ud800"), "message must be a text that can be written as UTF-8"),
    ],
)
def test_a_record_of_another_shape_is_named_with_its_key(change, says, tmp_path):
    altered = json.loads(json.dumps(record()))
    change(altered)
    (tmp_path / "run.json").write_text(json.dumps(altered))
    with pytest.raises(RecordError, match=f"run.json: {says}"):
        read_record(tmp_path)


def test_a_run_that_never_came_to_its_data_has_none(tmp_path):
    write_record(tmp_path, record(status="failed", data=None))
    assert read_record(tmp_path)["data"] is None


def test_the_first_records_commands_are_one_line(tmp_path):
    write_record(tmp_path, record(command=["python", "-m", "x"]))
    assert read_record(tmp_path)["command"] == "python -m x"


def test_any_errors_message_can_be_read_back(tmp_path):
    write_record(tmp_path, record(status="failed", message="no such file: a\udcff\0 " + "x" * 200_000))
    message = read_record(tmp_path)["message"]
    assert message.startswith("no such file: a\\udcff\\0 ")
    assert len(message) < MAX_MESSAGE + 10


def test_a_run_tells_its_status_seed_and_arm(tmp_path):
    config = to_dict(RunConfig(seed=0, l1=0.5))
    make_run(tmp_path / "a", config=config, status="pruned")
    write_metrics(tmp_path / "a", [row(1)])
    run = read_run(str(tmp_path / "a"))
    assert (run.status, run.seed, run.config, run.metrics) == ("pruned", 0, config, [row(1)])
    assert run.arm == arm_digest(to_dict(RunConfig(seed=9, l1=0.5)))


def test_runs_are_found_in_natural_order_at_any_depth(tmp_path):
    for name in ("10", "2", "1", "b", "a/3", "a/20", ".hidden/1"):
        make_run(tmp_path / name)
    (tmp_path / "empty").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["1", "2", "10", "a/3", "a/20", "b"]
    assert list(find_runs(tmp_path / "b")) == [tmp_path / "b"]
    assert [p.name for p in find_runs(tmp_path / "b", tmp_path / "1")] == ["b", "1"]


def test_linked_and_hidden_folders_that_hold_runs_are_named_as_left_out(tmp_path):
    make_run(tmp_path / "runs" / "1")
    make_run(tmp_path / "runs" / ".kept" / "1")
    make_run(tmp_path / "elsewhere")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "1")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "1" / ".hydra").mkdir()
    problems: list[str] = []
    assert list(find_runs(tmp_path / "runs", problems=problems)) == [tmp_path / "runs" / "1"]
    assert sorted(p.split(": left out")[0] for p in problems) == [
        f"{tmp_path}/runs/.kept: a hidden folder with a run.json",
        f"{tmp_path}/runs/linked: a link with a run.json",
    ]


def test_a_history_that_is_no_file_is_named(tmp_path):
    make_run(tmp_path / "1")
    (tmp_path / "1" / "metrics.csv").mkdir()
    with pytest.raises(RecordError, match=r"metrics\.csv: must be a regular file"):
        read_run(tmp_path / "1")


def test_a_run_that_can_not_be_read_is_named_and_the_others_are_read(tmp_path):
    make_run(tmp_path / "1")
    make_run(tmp_path / "2")
    (tmp_path / "1" / "run.json").write_text("{")
    problems: list[str] = []
    assert [run.path.name for run in read_runs(tmp_path, problems=problems)] == ["2"]
    (problem,) = problems
    assert str(tmp_path / "1") in problem
    with pytest.warns(UserWarning, match=r"1/run.json: unreadable"):
        assert len(read_runs(tmp_path)) == 1


# ---- locks

LOCK = """
import sys
from pathlib import Path
from reg_sweep.config.rules import ConfigError
from reg_sweep.runs.files import locked_directory
try:
    with locked_directory(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except ConfigError as error:
    print(error)
"""


def test_a_second_process_is_refused_until_the_first_has_ended_even_by_force(tmp_path):
    directory = tmp_path / "run"
    with in_another_process(LOCK, directory) as first:
        assert first.stdout.readline() == "held\n"
        with in_another_process(LOCK, directory) as second:
            refusal = second.stdout.read()
        assert refusal.startswith(f"{directory} must be free, got one in which another process trains: wait")
        with pytest.raises(ConfigError, match="must be free"), locked_directory(directory):
            pytest.fail("locked twice")
        first.kill()
    with locked_directory(directory):
        pass


def test_a_lock_under_which_nothing_was_written_leaves_no_folder(tmp_path):
    with locked_directory(tmp_path / "a" / "run"):
        assert (tmp_path / "a" / "run").is_dir()
    assert not (tmp_path / "a" / "run").exists()


def test_a_refusal_leaves_no_lock_in_somebodys_folder(tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError), locked_directory(tmp_path):
        raise ConfigError("no")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_locked_directory_keeps_what_was_written_also_after_an_error(tmp_path):
    def train() -> None:
        with locked_directory(tmp_path / "run"):
            write_record(tmp_path / "run", record())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert read_record(tmp_path / "run") == record()
    with locked_directory(tmp_path / "run"):  # and can be locked again
        pass
