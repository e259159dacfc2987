"""A trained network comes back from its directory as it was, or there is one line that says why not."""

import json

import pytest
import tiny
import torch

import reg_sweep
from reg_sweep.config.schema import ConfigError, NormConfig
from reg_sweep.runs.record import RUN_FILE, RecordError, RunRecord
from reg_sweep.training.evaluation import evaluate
from reg_sweep.training.run import train

QUIET = torch.autocast("cpu", torch.bfloat16, enabled=False)


def trained(folder, **changes) -> RunRecord:
    return train(tiny.tiny_run(epochs=1, **changes), folder, lambda: None, "python -m it")


def edit(folder, change) -> None:
    path = folder / RUN_FILE
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": NormConfig("gbn")},
        {"model": {"_target_": "own.Lazy"}},
        {"data": tiny.tiny_data_config(channels=3)},
    ],
    ids=["own layers", "gbn", "a model of one's own", "colours"],
)
def test_a_trained_network_is_given_back_in_evaluation_mode(tmp_path, changes):
    record = trained(tmp_path / "a", **changes)
    model = reg_sweep.load_model(tmp_path / "a", device="cpu")
    assert not model.training
    data = tiny.tiny_data(channels=3) if "data" in changes else tiny.tiny_data()
    again = evaluate(model, data.test, data.mean, data.std, QUIET, torch.channels_last)
    assert again.loss == pytest.approx(record["last"]["test_loss"], rel=1e-6)
    assert again.accuracy == record["last"]["test_accuracy"]
    assert record["data"]["in_shape"] == list(data.in_shape)


def test_a_record_from_before_shapes_were_recorded_is_read_too(tmp_path):
    trained(tmp_path / "a")
    edit(tmp_path / "a", lambda record: record["data"].pop("in_shape"))
    assert isinstance(reg_sweep.load_model(str(tmp_path / "a"), "cpu"), reg_sweep.SqueezeExpand)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: edit(f, lambda r: r["config"].pop("model")),
            "must hold a run's whole record, got one that .*'model'",
        ),
        (lambda f: (f / "run.json").unlink(), "a must be a run's directory, got none"),
        (
            lambda f: edit(f, lambda r: r.update(status="running", epochs_done=0)),
            "a must hold a finished run, got one that is running after 0 of 1 epochs: go on with it first",
        ),
        (
            lambda f: (f / "weights.safetensors").unlink(),
            "weights.safetensors must hold the weights, got no file: train the run again",
        ),
        (lambda f: (f / "weights.safetensors").write_bytes(b"torn"), "got a damaged file: "),
        (
            lambda f: edit(f, lambda r: r["config"]["model"].update(channels=4)),
            "must hold the weights of 'reg_sweep.SqueezeExpand' as it is here, got others: ",
        ),
        (
            lambda f: edit(f, lambda r: r["data"].update(in_shape=[1, 2, 2])),
            "must be at least 18x18, got 2x2",
        ),
        (lambda f: edit(f, lambda r: r["data"].update(in_shape=[1, 2])), "data.in_shape must be three sizes, got"),
        (
            lambda f: edit(f, lambda r: r["config"]["model"].update(channels=-1)),
            "must hold the record of a network, got sizes that make none: ",
        ),
        (
            lambda f: edit(f, lambda r: r["config"].update(model={"_target_": "gone.Net"})),
            "model._target_ must be importable from here, got 'gone.Net'",
        ),
    ],
    ids=[
        "a record without a model",
        "no record",
        "unfinished",
        "no weights",
        "torn weights",
        "another model",
        "images too small",
        "no sizes",
        "a negative width",
        "no such module",
    ],
)
def test_what_can_not_be_given_back_is_one_line(tmp_path, spoil, message):
    trained(tmp_path / "a")
    spoil(tmp_path / "a")
    with pytest.raises((ConfigError, RecordError), match=message) as error:
        reg_sweep.load_model(tmp_path / "a", "cpu")
    assert "\n" not in str(error.value)


def test_a_folder_of_several_runs_is_told_apart(tmp_path):
    trained(tmp_path / "grid" / "0")
    with pytest.raises(ConfigError, match=r"got a folder of several: name one of them, such as .*grid/0"):
        reg_sweep.load_model(tmp_path / "grid")


def test_a_device_that_is_not_there_is_one_line(tmp_path):
    trained(tmp_path / "a")
    for device in ("cuda", "mps"):
        if not (torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()):
            with pytest.raises(ConfigError, match=f"runtime.device must be on this machine, got '{device}'"):
                reg_sweep.load_model(tmp_path / "a", device)
    with pytest.raises(ConfigError, match="must be one of auto, cpu, cuda, mps, got 'gpu'"):
        reg_sweep.load_model(tmp_path / "a", "gpu")
