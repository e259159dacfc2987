"""Custom callbacks, and those for trackers."""

import importlib
import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
import tiny
from own import Recorder, StopAfter, spec

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig
from reg_sweep.runs.reading import read_metrics, read_record, read_runs
from reg_sweep.runs.record import RUN_FILE, WEIGHTS_FILE, RunRecord
from reg_sweep.training.callbacks import RECORD_FILE, settings
from reg_sweep.training.fit import fit
from reg_sweep.training.run import train
from reg_sweep.training.turns import Interrupted

EPOCHS = [1, 2, 3]


@pytest.fixture
def heard(monkeypatch) -> list:
    monkeypatch.setattr(Recorder, "heard", [])
    return Recorder.heard


def start(folder, callbacks, trial=None, **changes) -> RunRecord:
    return train(tiny.tiny_run(callbacks=callbacks, **changes), folder, lambda: None, "python -m it", trial=trial)


def test_a_callback_is_told_of_start_epochs_and_end(tmp_path, heard):
    start(tmp_path / "a", {"mine": spec("Recorder")})
    assert heard == [("start", "running", 0, "a"), 1, 2, ("end", "complete", 2)]
    start(tmp_path / "a", {"mine": spec("Recorder")})  # finished: no callback is called
    assert len(heard) == 4


@pytest.mark.parametrize(
    "callbacks", [[spec("Recorder"), spec("Recorder", title="x")], {"a": spec("Recorder"), "b": spec("Recorder")}]
)
def test_several_may_be_a_list_or_have_names(tmp_path, heard, callbacks):
    start(tmp_path / "a", callbacks, epochs=1)
    assert heard.count(1) == 2


def test_a_resumed_run_tells_each_epoch_once(tmp_path, heard):
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
        f"callbacks.bad is no longer called, the run continues without it: OSError: no space left {at}"
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
    assert "callbacks.0 is no longer called, the run continues without it: SystemExit: I leave" in caplog.text


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (spec("Nobody"), "callbacks.mine._target_ must be importable from here, got 'own.Nobody': "),
        (spec("Recorder", nam="x"), "callbacks.mine must take the arguments of its config, got 'own.Rec.*: .*'nam'"),
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


def stopped_and_resumed(folder: Path, tracker: str) -> RunRecord:
    """A run of three epochs that was stopped after the first and then resumed."""
    run = tiny.tiny_run(epochs=3, l1=0.5, callbacks={"it": {"_target_": f"reg_sweep.{tracker}"}})
    with pytest.raises(Interrupted):
        train(run, folder, lambda: None, "it", trial=StopAfter(1))
    return train(run, folder, lambda: None, "it")


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces a package's module by a mock."""

    def put(name: str) -> MagicMock:
        module = MagicMock(spec=ModuleType(name), name=name)
        module.configure_mock(**{part: MagicMock() for part in PARTS[name]})
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


PARTS = {
    "torch.utils.tensorboard": ["SummaryWriter"],
    "torch.utils.tensorboard.summary": ["hparams"],
    "mlflow": ["MlflowClient", "entities", "exceptions"],
    "wandb": ["init", "Settings", "Artifact"],
}


def test_tensorboard_gets_settings_once_measures_each_epoch_and_the_record(stand_in, tmp_path):
    writer = stand_in("torch.utils.tensorboard").SummaryWriter.return_value
    hparams = stand_in("torch.utils.tensorboard.summary").hparams
    hparams.return_value = ("experiment", "start", "end")
    record = stopped_and_resumed(tmp_path / "a", "TensorBoard")
    losses = [call.args[1:] for call in writer.add_scalar.call_args_list if call.args[0] == "val_loss"]
    rows = read_metrics(tmp_path / "a")
    assert losses == [(row["val_loss"], epoch) for row, epoch in zip(rows, EPOCHS, strict=True)]
    assert hparams.call_args.args[0]["l1"] == 0.5
    added = [call.args[0] for call in writer.file_writer.add_summary.call_args_list]
    assert added == ["experiment", "start", "end", "end"]
    assert json.dumps(record["status"]) in writer.add_text.call_args.args[1]
    assert writer.close.call_count == 2


def test_mlflow_resumes_the_run_that_was_begun(stand_in, tmp_path):
    mlflow = stand_in("mlflow")
    mlflow.entities = SimpleNamespace(Param=lambda k, v: (k, v), Metric=lambda k, v, time, step: (k, v, step))
    client = mlflow.MlflowClient.return_value
    client.create_run.return_value.info.run_id = "r1"
    begun = SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    client.search_runs.side_effect = [[], [begun]]
    record = stopped_and_resumed(tmp_path / "a", "Mlflow")
    assert client.create_run.call_count == 1
    searched = client.search_runs.call_args.args[1]
    assert client.create_run.call_args.kwargs["tags"]["reg_sweep"] in searched
    logged = [call.kwargs for call in client.log_batch.call_args_list]
    assert ("l1", "0.5") in logged[0]["params"]
    steps = [step for batch in logged for name, _, step in batch.get("metrics", []) if name == "test_accuracy"]
    assert steps == EPOCHS
    assert [call.args[1] for call in client.set_terminated.call_args_list] == ["KILLED", "FINISHED"]
    assert client.log_dict.call_args.args == ("r1", record, "record.json")


def test_wandb_gets_one_id_and_each_epoch_once_and_no_command_line(stand_in, tmp_path):
    wandb = stand_in("wandb")
    run = wandb.init.return_value
    record = stopped_and_resumed(tmp_path / "a", "Wandb")
    first, second = (call.kwargs for call in wandb.init.call_args_list)
    assert first["id"] == second["id"]
    assert (first["mode"], first["config"]["l1"]) == ("offline", 0.5)
    assert wandb.Settings.call_args.kwargs["x_disable_meta"] is True
    assert [call.kwargs["step"] for call in run.log.call_args_list] == EPOCHS
    assert run.finish.call_count == 2
    assert run.log_artifact.call_count == 2
    run.summary.__setitem__.assert_called_with("status", record["status"])


def test_a_record_is_kept_under_a_name_that_no_reader_of_runs_takes_for_a_run():
    assert RECORD_FILE != RUN_FILE


def test_settings_are_dotted_plain_values_without_the_callbacks(tmp_path):
    record = {"config": {"l1": 0.5, "data": {"mean": [0.1], "std": None}, "callbacks": {"it": {"_target_": "a.B"}}}}
    assert settings(record) == {"l1": 0.5, "data.mean": "[0.1]"}


TRACKERS = [("TensorBoard", "tensorboard"), ("Mlflow", "mlflow"), ("Wandb", "wandb")]


@pytest.mark.parametrize(("tracker", "package"), TRACKERS)
def test_a_package_that_is_not_there_is_one_line_that_names_the_extra(tracker, package, tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=package)

    monkeypatch.setattr(importlib, "import_module", lambda name: missing(name) if name in PARTS else REAL(name))
    run = tiny.tiny_run(callbacks={"it": {"_target_": f"reg_sweep.{tracker}"}})
    message = rf"^callbacks.it: {package} is not installed: pip install 'reg_sweep\[{package}\]'$"
    with pytest.raises(ConfigError, match=message):
        train(run, tmp_path / "a", lambda: None, "it")
    assert not (tmp_path / "a").exists()


REAL = importlib.import_module


# Warnings between these packages can't be fixed here.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
@pytest.mark.parametrize(("tracker", "package"), TRACKERS)
def test_the_package_itself_takes_what_it_is_told(tracker, package, tmp_path, monkeypatch, caplog):
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    assert stopped_and_resumed(tmp_path / "a", tracker)["status"] == "complete"
    assert "is no longer called" not in caplog.text
    assert len(read_runs(tmp_path)) == 1
    if package == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
        events.Reload()
        assert [event.step for event in events.Scalars("val_loss")] == EPOCHS
    elif package == "mlflow":
        client = REAL("mlflow").MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("reg_sweep").experiment_id])
        assert [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")] == EPOCHS
        assert run.info.status == "FINISHED"
    else:
        assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2
