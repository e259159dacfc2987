"""Predictions and weights: what is written comes back, and what others wrote is looked at before it is unpacked."""

import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reg_sweep.runs.arrays import read_predictions, read_weights, write_predictions, write_weights
from reg_sweep.runs.record import PREDICTIONS_FILE, WEIGHTS_FILE, RecordError


def test_predictions_and_weights_come_back_as_they_were_written(tmp_path):
    write_predictions(tmp_path, predicted=np.array([1, 2]), probability=np.array([0.5, 0.25], np.float32), index=None)
    with np.load(tmp_path / PREDICTIONS_FILE) as arrays:
        assert set(arrays) == {"predicted", "probability"}
        assert arrays["predicted"].tolist() == [1, 2]
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    write_weights(tmp_path, {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    loaded = load_file(tmp_path / WEIGHTS_FILE)
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


# ---- what others wrote

N = 50


def write(directory, **changes):
    arrays = {"predicted": np.zeros(N, int), "probability": np.ones(N, np.float32), "label": np.zeros(N, int)}
    np.savez_compressed(directory / PREDICTIONS_FILE, **(arrays | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"predicted": np.zeros(N)}, "predicted must hold whole numbers, got float64"),
        ({"probability": np.zeros(N, int)}, "probability must hold floating-point numbers, got int64"),
        ({"predicted": np.full(N, "a")}, "predicted must hold whole numbers, got <U1"),
        ({"predicted": np.full(N, 4096)}, "predicted must lie between 0 and 4095, got 4096 to 4096"),
        ({"label": np.full(N, -1)}, "label must lie between 0 and 4095"),
        ({"probability": np.full(N, np.nan)}, "probability must lie between 0 and 1"),
        ({"label": np.zeros((N, 1), int)}, r"label must have shape \(50,\)"),
        ({"label": np.array([None] * N)}, "label must be an array of numpy's format"),
    ],
)
def test_predictions_that_are_none_are_named_with_what_is_wrong(tmp_path, changes, says):
    write(tmp_path, **changes)
    with pytest.raises(RecordError, match=rf"predictions\.npz: {says}"):
        read_predictions(tmp_path, N)


@pytest.mark.parametrize("odd", ["<i3", "<f3", ">f7", "|b9", "<U0", "|S0", "<V1", "<M8", "<c8", "|O8"])
def test_an_odd_type_of_numbers_is_named_as_any_other_damage(tmp_path, odd):
    write(tmp_path)
    path = tmp_path / PREDICTIONS_FILE
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part.replace(b"<f4", odd.encode()))
    with pytest.raises(RecordError, match=r"predictions\.npz: (probability must hold floating|unreadable)"):
        read_predictions(tmp_path, N)


def test_predictions_are_not_unpacked_beyond_what_the_test_images_take(tmp_path):
    write(tmp_path, predicted=np.zeros(30_000_000, np.int8))
    path = tmp_path / PREDICTIONS_FILE
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(RecordError, match=r"must have shape \(50,\), the test images, got \(30000000,\)"):
        read_predictions(tmp_path, N)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_weights_without_values_are_left_out_and_what_is_not_finite_is_zero(tmp_path):
    assert read_weights(tmp_path) is None
    odd = np.array([[np.nan, np.inf]], np.float32)
    shapes = {"a.weight": (0, 3, 3, 3), "b.weight": (3,), "c.bias": (2, 2), "d.weight": (2, 3)}
    write_weights(tmp_path, {name: np.ones(shape, np.float32) for name, shape in shapes.items()} | {"e.weight": odd})
    found = read_weights(tmp_path)
    assert {name: w.shape for name, w in found.items()} == {"d": (2, 3), "e": (1, 2)}
    assert np.isfinite(found["e"]).all()


def test_a_file_that_is_no_weights_is_named(tmp_path):
    (tmp_path / WEIGHTS_FILE).write_bytes(b"torn")
    with pytest.raises(RecordError, match=r"weights\.safetensors: unreadable"):
        read_weights(tmp_path)


def header_of(names, shape=(0,)):
    tensors = {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 0]} for name in names}
    content = json.dumps(tensors).encode()
    return len(content).to_bytes(8, "little") + content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (header_of(f"{i}.weight" for i in range(60_000)), "must name its tensors in at most 4,000,000 bytes"),
        (header_of(["x" * 301]), "names of at most 300 characters, got 301"),
        ((2**63).to_bytes(8, "little") + b"{}", "must name its tensors in at most"),
    ],
)
def test_weights_of_too_many_or_too_long_names_are_named_before_they_are_read(tmp_path, content, says):
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(RecordError, match=rf"weights\.safetensors: .*{says}"):
        read_weights(tmp_path)


def test_a_sparse_file_that_claims_gigabytes_is_not_read(tmp_path):
    with (tmp_path / WEIGHTS_FILE).open("wb") as file:
        file.write(header_of(["a.weight"], (400_000_000, 1)))
        file.truncate(1_900_000_000)
    with pytest.raises(RecordError, match=r"must hold at most 400,000,000 bytes to be drawn, got 1,900,000,000"):
        read_weights(tmp_path)


def test_names_of_many_digits_and_of_control_characters_are_sorted_and_escaped(tmp_path):
    names = [f"{'9' * 290}.weight", "b.10.weight", "b.2.weight", "\x1b[31m.weight"]
    write_weights(tmp_path, {name: np.ones((1, 2), np.float32) for name in names})
    assert list(read_weights(tmp_path)) == ["\\x1b[31m", "b.2", "b.10", "9" * 290]


def test_weights_of_other_types_are_left_out(tmp_path):
    bits = torch.ones(2, 2, dtype=torch.bfloat16)
    save_file(
        {"a.weight": bits, "b.weight": torch.ones(2, 2), "c.weight": torch.ones(2, 2).int()}, tmp_path / WEIGHTS_FILE
    )
    assert list(read_weights(tmp_path)) == ["b"]
