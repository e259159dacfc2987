"""Callbacks: told of each epoch once, and never able to cost a run."""

import logging

import pytest
import tiny
from own import Recorder, StopAfter, spec

from reg_sweep.config.schema import ConfigError, RunConfig
from reg_sweep.runs.reading import read_record
from reg_sweep.runs.record import WEIGHTS_FILE, RunRecord
from reg_sweep.training.fit import fit
from reg_sweep.training.run import Interrupted, train


@pytest.fixture
def heard(monkeypatch) -> list:
    monkeypatch.setattr(Recorder, "heard", [])
    return Recorder.heard


def start(folder, callbacks, trial=None, **changes) -> RunRecord:
    return train(tiny.tiny_run(callbacks=callbacks, **changes), folder, lambda: None, "python -m it", trial=trial)


def test_a_callback_is_told_of_start_epochs_and_end(tmp_path, heard):
    start(tmp_path / "a", {"mine": spec("Recorder")})
    assert heard == [("start", "running", 0, "a"), 1, 2, ("end", "complete", 2)]
    start(tmp_path / "a", {"mine": spec("Recorder")})  # finished: nothing begins
    assert len(heard) == 4


@pytest.mark.parametrize(
    "callbacks", [[spec("Recorder"), spec("Recorder", title="x")], {"a": spec("Recorder"), "b": spec("Recorder")}]
)
def test_several_may_be_a_list_or_have_names(tmp_path, heard, callbacks):
    start(tmp_path / "a", callbacks, epochs=1)
    assert heard.count(1) == 2


def test_a_run_that_goes_on_tells_each_epoch_once(tmp_path, heard):
    for epoch in (1, 2):
        with pytest.raises(Interrupted):
            start(tmp_path / "a", [spec("Recorder")], trial=StopAfter(epoch), epochs=4)
    start(tmp_path / "a", [spec("Recorder")], epochs=4)
    assert [e for e in heard if isinstance(e, int)] == [1, 2, 3, 4]
    assert heard[0:3] == [("start", "running", 0, "a"), 1, ("end", "running", 1)]
    assert heard[3:6] == [("start", "running", 1, "a"), 2, ("end", "running", 2)]
    assert heard[-1] == ("end", "complete", 4)


def ended(*_, **__):
    raise KeyboardInterrupt


def test_epochs_are_told_once_though_a_later_start_was_killed_before_its_first(tmp_path, heard, monkeypatch):
    with pytest.raises(Interrupted):
        start(tmp_path / "a", [spec("Recorder")], trial=StopAfter(1), epochs=3)
    with monkeypatch.context() as patch:
        patch.setattr("reg_sweep.training.fit.fit_prepared", ended)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "a", [spec("Recorder")], epochs=3)
    assert read_record(tmp_path / "a")["epochs_done"] == 1
    start(tmp_path / "a", [spec("Recorder")], epochs=3)
    assert [e for e in heard if isinstance(e, int)] == [1, 2, 3]


@pytest.mark.parametrize("at", ["epoch", "end"])
def test_one_that_raises_is_warned_of_once_and_costs_nothing(tmp_path, heard, caplog, at):
    with caplog.at_level(logging.WARNING):
        record = start(tmp_path / "a", {"bad": spec("Broken", at=at), "good": spec("Recorder")})
    assert record["status"] == "complete"
    assert heard[1:] == [1, 2, ("end", "complete", 2)]
    assert caplog.messages == [
        f"callbacks.bad is not called any more, the run goes on without it: OSError: no space left {at}"
    ]


def test_one_that_can_not_start_ends_the_run_before_it_begins(tmp_path, heard):
    with pytest.raises(ConfigError, match=r"callbacks.bad must be able to start, got OSError: no space left start: "):
        start(tmp_path / "a", {"good": spec("Recorder"), "bad": spec("Broken", at="start")})
    assert heard == [("start", "running", 0, "a"), ("end", "running", 0)]
    assert not (tmp_path / "a").exists()


def test_a_run_that_fails_is_told_of_as_failed(tmp_path, heard, monkeypatch):
    monkeypatch.setattr("reg_sweep.training.fit.fit_prepared", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(tmp_path / "a", [spec("Recorder")])
    assert heard == [("start", "running", 0, "a"), ("end", "failed", 0)]


def test_a_callback_that_leaves_the_program_does_not_end_the_run(tmp_path, caplog):
    assert start(tmp_path / "a", [spec("Leaving")])["status"] == "complete"
    assert "callbacks.0 is not called any more, the run goes on without it: SystemExit: I leave" in caplog.text


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (spec("Nobody"), "callbacks.mine._target_ must be importable from here, got 'own.Nobody': "),
        (
            spec("Recorder", nam="x"),
            "callbacks.mine must take the arguments of its config, got 'own.Recorder': .*'nam'",
        ),
        ({"_target_": "builtins.dict"}, "callbacks.mine must be a reg_sweep.Callback, got dict from 'builtins.dict'"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path, callback, message):
    with pytest.raises(ConfigError, match=message):
        start(tmp_path / "a", {"mine": callback})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ("tensorboard", "callbacks must be a mapping or a list, got 'tensorboard'"),
        (None, "callbacks must be a mapping or a list, got None"),
        ({"mine": "Recorder"}, "callbacks.mine._target_ must be the dotted path of a callable, got 'Recorder'"),
        ([{}], "callbacks.0._target_ must be the dotted path of a callable, got None"),
    ],
)
def test_what_names_no_callback_is_refused_by_the_config(callbacks, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(callbacks=callbacks)


def test_fit_refuses_callbacks_instead_of_telling_them_nothing():
    with pytest.raises(ConfigError, match="callbacks must be left out with fit"):
        fit(tiny.tiny_run(callbacks=[spec("Recorder")]))


def test_callbacks_change_neither_digest_nor_weights(tmp_path, heard):
    plain, told = start(tmp_path / "a", {}), start(tmp_path / "b", [spec("Recorder")])
    assert plain["digest"] == told["digest"]
    a, b = ((tmp_path / name / WEIGHTS_FILE).read_bytes() for name in "ab")
    assert a == b
