"""A run's network on disk: the checkpoint, and loading the trained network."""

import hashlib
import io
import json
import logging
import os
import random
import shutil
from contextlib import contextmanager

import pytest
import tiny
import torch
from torch import nn

import reg_sweep
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig
from reg_sweep.runs.record import CHECKPOINT_FILE, METRICS, RUN_FILE, WEIGHTS_FILE, RecordError, RunRecord
from reg_sweep.training import checkpoint
from reg_sweep.training.run import train

MINE = {"digest": "d" * 16, "fingerprint": "f" * 16}
ROW = {**dict.fromkeys(METRICS, 0.5), "epoch": 1, "val_loss": None}


def parts(weight: float = 0.0) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, weight)
    return model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


@pytest.fixture
def saved(tmp_path):
    checkpoint.save(tmp_path, MINE, *parts(7.0), [ROW])
    return tmp_path


def with_digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def saved_bytes(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_what_was_saved_comes_back(saved):
    model, optimizer = parts()
    assert checkpoint.restore(saved, MINE, model, optimizer) == [ROW]
    assert (model.weight == 7).all()


def test_without_a_checkpoint_there_are_no_epochs(tmp_path):
    assert checkpoint.restore(tmp_path, MINE, *parts()) == []


def test_no_flipped_bit_and_no_lost_end_goes_unseen(saved, caplog):
    path = saved / CHECKPOINT_FILE
    whole = path.read_bytes()
    rng = random.Random(1)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(50)]
    for _ in range(300):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    model, optimizer = parts()
    for content in damaged:
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert checkpoint.restore(saved, MINE, model, optimizer) == []
        assert [r.getMessage() for r in caplog.records] == [
            f"{path} is damaged: the run starts again from its first epoch"
        ]
    assert (model.weight == 0).all()


class Harm:
    """An object whose pickle runs code when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


STRANGE = {
    "a pickle that runs code": saved_bytes({**MINE, "model": Harm(), "optimizer": {}, "history": []}),
    "no file of torch's": b"something else",
    "no dictionary": saved_bytes([1, 2]),
    "other keys": saved_bytes({"model": {}}),
    "rows that are none": saved_bytes({**MINE, "model": {}, "optimizer": {}, "history": [{"epoch": "one"}]}),
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_a_strangers_file_is_not_run_whatever_its_digest(content, saved, monkeypatch, caplog):
    monkeypatch.chdir(saved)
    (saved / CHECKPOINT_FILE).write_bytes(with_digest(content))
    assert checkpoint.restore(saved, MINE, *parts()) == []
    assert "starts again" in caplog.text
    assert not (saved / "harm").exists()


@pytest.mark.parametrize("key", MINE)
def test_another_runs_checkpoint_is_refused(key, saved):
    with pytest.raises(ConfigError, match=r"checkpoint.pt must be a checkpoint of this run, got one of another config"):
        checkpoint.restore(saved, {**MINE, key: "other"}, *parts())


def test_weights_that_do_not_fit_the_model_are_one_line(saved):
    model = nn.Linear(4, 2)
    message = r"must fit the run's model, got weights of another model \(.*size mismatch"
    with pytest.raises(ConfigError, match=message) as error:
        checkpoint.restore(saved, MINE, model, torch.optim.SGD(model.parameters(), 0.1))
    assert "\n" not in str(error.value)


def test_a_disk_that_is_full_at_any_byte_is_an_oserror_and_leaves_the_checkpoint_before(saved, monkeypatch):
    path = saved / CHECKPOINT_FILE
    before = path.read_bytes()
    for n_free in (0, 10, 65, 66, 500, len(before) - 1):
        monkeypatch.setattr(checkpoint.files, "replacing", full_after(n_free, checkpoint.files.replacing))
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(saved, MINE, *parts(8.0), [ROW])
        monkeypatch.undo()
        assert [p.name for p in saved.iterdir()] == [path.name]
        assert path.read_bytes() == before


def full_after(n_free, replacing):
    """`files.replacing` on a disk with `n_free` bytes left."""

    class Full:
        def __init__(self, file):
            self.file, self.n_free = file, n_free

        def write(self, content):
            self.n_free -= len(content)
            if self.n_free < 0:
                raise OSError(28, "No space left on device")
            return self.file.write(content)

    @contextmanager
    def full(path):
        with replacing(path) as file:
            yield Full(file)

    return full


def trained(folder, **changes) -> RunRecord:
    return train(tiny.tiny_run(epochs=1, **changes), folder, lambda: None, "python -m it")


def edit(folder, change) -> None:
    path = folder / RUN_FILE
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


GIVEN_BACK = {
    "own layers": {},
    "gbn": {"norm": NormConfig("gbn")},
    "a model of one's own": {"model": {"_target_": "own.Lazy"}},
    "colours": {"data": tiny.tiny_data_config(channels=3)},
}


@pytest.mark.parametrize("changes", GIVEN_BACK.values(), ids=GIVEN_BACK)
def test_a_trained_network_is_given_back_in_evaluation_mode(tmp_path, changes):
    record = trained(tmp_path / "a", **changes)
    model = reg_sweep.load_model(tmp_path / "a", device="cpu")
    assert not model.training
    channels = 3 if "data" in changes else 0
    again = tiny.on_test(model, channels=channels)
    assert again.loss == pytest.approx(record["last"]["test_loss"], rel=1e-6)
    assert again.accuracy == record["last"]["test_accuracy"]
    assert record["data"]["in_shape"] == [channels or 1, tiny.SIDE, tiny.SIDE]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's directory, which nothing changes."""
    directory = tmp_path_factory.mktemp("runs") / "0"
    trained(directory)
    return directory


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(finished, tmp_path / "a")


def test_a_record_from_before_shapes_were_recorded_is_read_too(run):
    edit(run, lambda record: record["data"].pop("in_shape"))
    assert isinstance(reg_sweep.load_model(str(run), "cpu"), reg_sweep.SqueezeExpand)


SPOILED = {
    "a record without a model": (
        lambda f: edit(f, lambda r: r["config"].pop("model")),
        "must hold a complete record, got .*: 'model'",
    ),
    "no record": (lambda f: (f / RUN_FILE).unlink(), "a must be a run's directory, got no run"),
    "unfinished": (
        lambda f: edit(f, lambda r: r.update(status="running", epochs_done=0)),
        "a must hold a finished run, got one that is running after 0 of 1 epochs: resume it first",
    ),
    "no weights": (
        lambda f: (f / WEIGHTS_FILE).unlink(),
        "weights.safetensors must hold the weights, got no file: train the run again",
    ),
    "torn weights": (lambda f: (f / WEIGHTS_FILE).write_bytes(b"torn"), "got a damaged file: "),
    "another model": (
        lambda f: edit(f, lambda r: r["config"]["model"].update(channels=4)),
        "must fit 'reg_sweep.SqueezeExpand' as it is defined now, got other weights: ",
    ),
    "images too small": (
        lambda f: edit(f, lambda r: r["data"].update(in_shape=[1, 2, 2])),
        "must be at least 18x18 pixels, got 2x2",
    ),
    "no sizes": (
        lambda f: edit(f, lambda r: r["data"].update(in_shape=[1, 2])),
        "data.in_shape must be three sizes, got",
    ),
    "a negative width": (
        lambda f: edit(f, lambda r: r["config"]["model"].update(channels=-1)),
        "must hold the record of a network, got impossible sizes: ",
    ),
    "no such module": (
        lambda f: edit(f, lambda r: r["config"].update(model={"_target_": "gone.Net"})),
        "model._target_ must be importable from here, got 'gone.Net'",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_what_can_not_be_given_back_is_one_line(run, spoil, message):
    spoil(run)
    with pytest.raises((ConfigError, RecordError), match=message) as error:
        reg_sweep.load_model(run, "cpu")
    assert "\n" not in str(error.value)


def test_a_folder_of_several_runs_is_told_apart(finished):
    with pytest.raises(ConfigError, match=r"got a folder of several runs: name one of them, such as .*/0"):
        reg_sweep.load_model(finished.parent)


def test_a_device_that_is_not_there_is_one_line(finished):
    for device, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            with pytest.raises(ConfigError, match=f"runtime.device must be available on this machine, got '{device}'"):
                reg_sweep.load_model(finished, device)
    with pytest.raises(ConfigError, match="must be one of auto, cpu, cuda, mps, got 'gpu'"):
        reg_sweep.load_model(finished, "gpu")
