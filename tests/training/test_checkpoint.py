"""checkpoint.pt: what was written or nothing, whatever happened to the file."""

import hashlib
import io
import logging
import os
import random
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from reg_sweep.config.schema import ConfigError
from reg_sweep.runs.record import CHECKPOINT_FILE, METRICS
from reg_sweep.training import checkpoint

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
            f"{path} is damaged, its contents are not what was written: the run starts anew in its directory"
        ]
    assert (model.weight == 0).all()


class Harm:
    """A pickle that runs code where it is read."""

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
    assert "starts anew" in caplog.text
    assert not (saved / "harm").exists()


@pytest.mark.parametrize("key", MINE)
def test_another_runs_checkpoint_is_refused(key, saved):
    with pytest.raises(ConfigError, match=r"checkpoint.pt must be a checkpoint of this run, got one of another config"):
        checkpoint.restore(saved, {**MINE, key: "other"}, *parts())


def test_weights_that_do_not_fit_the_model_are_one_line(saved):
    model = nn.Linear(4, 2)
    with pytest.raises(
        ConfigError, match=r"must fit the run's model, got another's weights \(.*size mismatch"
    ) as error:
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
