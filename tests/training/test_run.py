"""A run in its directory, without Hydra or a study: prepared, trained, finished."""

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest
import tiny
from tiny import timeless

from reg_sweep.config.digest import digest
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig, OptimizerConfig, RunConfig, to_dict
from reg_sweep.runs import arrays
from reg_sweep.runs.folders import differences
from reg_sweep.runs.reading import read_metrics, read_record
from reg_sweep.runs.record import BEST_VAL_FILE, CHECKPOINT_FILE, PREDICTIONS_FILE, WEIGHTS_FILE, RunRecord
from reg_sweep.train import objective_value
from reg_sweep.training import run as run_module
from reg_sweep.training.checkpoint import check_best_weights
from reg_sweep.training.run import log_summary, train
from reg_sweep.training.turns import Interrupted


class FakeTrial:
    """Records what is reported; prunes after epoch `prune_after`."""

    def __init__(self, prune_after: int = 100, chooses: bool = True) -> None:
        self.prune_after, self.chooses, self.told = prune_after, chooses, []

    def facts(self):
        return {"study": "s", "number": 3, "params": {"l1": 0.5}}

    def report(self, value, step):
        self.told.append((value, step))

    def should_prune(self):
        return len(self.told) >= self.prune_after


def start(folder, run: RunConfig | None = None, **settings) -> RunRecord:
    return train(run or tiny.tiny_run(), folder, lambda: None, "python -m it", **settings)


def test_the_record_that_is_returned_is_the_one_on_disk(tmp_path):
    record = start(tmp_path / "a")
    assert record == read_record(tmp_path / "a")
    assert (record["status"], record["epochs_done"], record["command"]) == ("complete", 2, "python -m it")
    assert start(tmp_path / "a") == record  # nothing to train


def test_a_trial_gets_each_epochs_objective_and_its_facts_are_recorded(tmp_path):
    trial = FakeTrial()
    record = start(tmp_path / "a", trial=trial)
    rows = read_metrics(tmp_path / "a")
    assert trial.told == [(row["val_loss"], row["epoch"]) for row in rows]
    assert record["trial"] == trial.facts()


def test_a_trial_that_prunes_ends_the_run_as_pruned(tmp_path):
    record = start(tmp_path / "a", tiny.tiny_run(epochs=5), trial=FakeTrial(prune_after=1))
    assert (record["status"], record["epochs_done"]) == ("pruned", 1)
    assert record["message"] == "pruned after epoch 1 of 5"
    assert (tmp_path / "a" / WEIGHTS_FILE).exists()


@pytest.mark.parametrize("objective", ["zero_share", ["val_loss", "val_accuracy"]], ids=["zero_share", "several"])
def test_an_objective_without_a_value_an_epoch_is_not_reported(objective, tmp_path):
    trial = FakeTrial(prune_after=0)
    assert start(tmp_path / "a", tiny.tiny_run(objective=objective), trial=trial)["status"] == "complete"
    assert trial.told == []


def test_a_signal_leaves_a_run_that_can_be_continued(tmp_path):
    class Stop(FakeTrial):
        def should_prune(self):
            signal.raise_signal(signal.SIGTERM)
            return False

    with pytest.raises(Interrupted) as stopped:
        start(tmp_path / "a", trial=Stop())
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    record = read_record(tmp_path / "a")
    assert (record["status"], record["message"]) == ("running", "stopped by SIGTERM after 1 epoch; it can be resumed")
    assert start(tmp_path / "a")["status"] == "complete"


@pytest.mark.parametrize("what", ["write_predictions", "write_weights"])
def test_a_run_whose_last_files_find_no_room_is_recorded_as_failed_and_can_be_continued(tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(arrays, what, full)
        with pytest.raises(OSError, match="No space left"):
            start(tmp_path / "a")
    record = read_record(tmp_path / "a")
    assert (record["status"], record["message"]) == ("failed", "OSError: [Errno 28] No space left on device")
    assert start(tmp_path / "a")["status"] == "complete"


class KilledError(BaseException):
    """Simulates the end of the process."""


def killed(*_, **__):
    raise KilledError


@pytest.mark.parametrize("diverges", [False, True])
def test_a_run_killed_between_its_last_checkpoint_and_its_record_ends_as_it_would_have(diverges, tmp_path, monkeypatch):
    settings = {"norm": NormConfig("none"), "optimizer": OptimizerConfig(lr=1e38)} if diverges else {}
    run = tiny.tiny_run(epochs=1, batch_size=300, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_finish", killed)
        with pytest.raises(KilledError):
            start(tmp_path / "a", run)
    assert read_record(tmp_path / "a")["status"] == "running"
    for folder in ("a", "b"):
        start(tmp_path / folder, run)
    record, alone = (read_record(tmp_path / folder) for folder in ("a", "b"))
    assert timeless(record["last"]) == timeless(alone["last"])
    for key in ("status", "message", "epochs_done", "weights"):
        assert record[key] == alone[key]
    assert record["status"] == ("diverged" if diverges else "complete")
    files = {p.name for p in (tmp_path / "a").iterdir()}
    assert files == {p.name for p in (tmp_path / "b").iterdir()} >= {WEIGHTS_FILE, PREDICTIONS_FILE}


def test_the_next_look_at_a_finished_run_removes_the_checkpoint_that_a_kill_left(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", lambda path, missing_ok=False: killed() if path.suffix == ".pt" else None)
        with pytest.raises(KilledError):
            start(kept)
    assert read_record(kept)["status"] == "complete"
    assert (kept / CHECKPOINT_FILE).exists()
    start(kept)
    assert not (kept / CHECKPOINT_FILE).exists()


@pytest.mark.parametrize("lost", [WEIGHTS_FILE, PREDICTIONS_FILE])
def test_a_finished_run_that_lost_a_file_keeps_its_record_and_says_what_it_lost(lost, tmp_path, caplog):
    record = start(tmp_path / "a")
    (tmp_path / "a" / lost).unlink()
    assert start(tmp_path / "a") == record == read_record(tmp_path / "a")
    assert caplog.text.count(f"lacks its {lost}: the record is kept; to get the files again") == 1
    assert not (tmp_path / "a" / lost).exists()


@pytest.mark.parametrize("left", [WEIGHTS_FILE, PREDICTIONS_FILE])
def test_a_finished_run_that_lost_its_record_is_never_trained_over(left, tmp_path):
    (tmp_path / left).write_bytes(b"hours of work")
    with pytest.raises(ConfigError, match=rf"got {left} without a run.json that shows which"):
        start(tmp_path)
    assert (tmp_path / left).read_bytes() == b"hours of work"


def test_the_config_is_saved_once_the_directory_is_known_to_be_the_runs_own(tmp_path):
    start(tmp_path / "a")
    saved = []
    with pytest.raises(ConfigError, match=r"l1 0.0 there, 0.5 here"):
        train(tiny.tiny_run(l1=0.5), tmp_path / "a", lambda: saved.append(1), "")
    assert saved == []
    train(tiny.tiny_run(l1=0.5), tmp_path / "b", lambda: saved.append(1), "")
    assert saved == [1]


def test_a_directory_that_holds_a_sweep_is_refused(tmp_path):
    start(tmp_path / "sweep" / "0")
    with pytest.raises(ConfigError, match="got a sweep's runs"):
        start(tmp_path / "sweep")


def test_differences_are_named_by_their_whole_key_as_there_and_here():
    old, new = {"l1": 0.1, "data": {"name": "a", "fill": 1}}, {"l1": 0.1, "data": {"name": "b", "fill": 1}, "l2": 0.5}
    assert differences(old, new) == ["data.name a there, b here", "l2 None there, 0.5 here"]


@pytest.mark.parametrize(("job", "n_tables"), [(None, 1), (0, 1), (1, 0)])
def test_only_a_sweeps_first_job_shows_the_table_of_layers(job, n_tables, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        start(tmp_path / "a", job=job)
    assert caplog.text.count("receptive field") == n_tables
    assert caplog.text.count("next      ") == (job is None)


def test_the_summary_says_what_came_out(tmp_path, caplog):
    record = start(tmp_path / "a")
    record["last"] |= {"val_accuracy": None, "val_loss": None, "penalty": 3.0, "train_loss": 1.0}
    record["weights"] = {"n": 2_000, "n_zero": 1_000, "n_near_zero": 1_500, "n_kernels": 9, "n_dead_kernels": 1}
    caplog.clear()
    with caplog.at_level(logging.INFO):
        log_summary(record, tmp_path / "a", brief=False, penalized=True)
    assert "val " not in caplog.text
    assert "test      accuracy" in caplog.text
    assert "penalty   3.0000, 75% of the training loss\n          the penalty outweighs the data" in caplog.text
    assert "1,000 of 2,000 are zero, 1,500 are below 0.001; 1 of 9 kernels are dead" in caplog.text


@pytest.mark.parametrize("chooses", [True, False])
def test_a_choice_on_test_is_warned_of_and_a_judgement_on_test_is_not(tmp_path, caplog, chooses):
    start(tmp_path / "a", tiny.tiny_run(objective="test_accuracy", epochs=1), trial=FakeTrial(chooses=chooses))
    assert ("the choice is made on test" in caplog.text) == chooses


@pytest.mark.slow
def test_a_run_loads_no_compiler(tmp_path):
    """Importing torch._dynamo takes longer than importing torch itself, and a run compiles nothing."""
    code = """
import sys
from pathlib import Path
from reg_sweep.runs.folders import differences
from reg_sweep.training.run import train
from tiny import tiny_run
train(tiny_run(epochs=1, l1=1e-4, l2=1e-4), Path("run"), lambda: None, "command")
assert "torch.optim.sgd" in sys.modules
print([n for n in ("torch._dynamo", "torch._inductor", "torchvision", "matplotlib") if n in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines()[-1:] == ["[]"], ended.stderr


# ---- the best epoch on val

ROUGH = OptimizerConfig(lr=2.0)  # so that val loss does not fall to the end


def tensors(folder, name):
    from safetensors.numpy import load_file

    return {key: value.tobytes() for key, value in load_file(folder / name).items()}


def test_the_weights_of_the_best_epoch_on_val_are_kept_also_over_a_kill(tmp_path, monkeypatch):
    run = tiny.tiny_run(epochs=4, keep="last,best_val", optimizer=ROUGH)
    whole = start(tmp_path / "whole", run)
    best = int(whole["best_val"]["epoch"])
    assert best < 4
    write = run_module.write_record

    def killed_at_the_best(directory, record):
        if record["epochs_done"] == best:
            raise KilledError
        write(directory, record)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_record", killed_at_the_best)
        with pytest.raises(KilledError):
            start(tmp_path / "killed", run)
    assert timeless(start(tmp_path / "killed", run)["best_val"]) == timeless(whole["best_val"])
    start(tmp_path / "up_to_it", tiny.tiny_run(epochs=4, optimizer=ROUGH), trial=FakeTrial(prune_after=best))
    expected = tensors(tmp_path / "up_to_it", WEIGHTS_FILE)
    assert [tensors(tmp_path / name, BEST_VAL_FILE) for name in ("whole", "killed")] == [expected, expected]
    assert not (tmp_path / "up_to_it" / BEST_VAL_FILE).exists()


def test_weights_that_were_not_kept_when_the_best_epoch_was_trained_are_missed_and_none_is_in_their_place(
    tmp_path, caplog
):
    start(tmp_path / "a", tiny.tiny_run(epochs=4, optimizer=ROUGH), trial=FakeTrial(prune_after=100))
    record = read_record(tmp_path / "a")
    (tmp_path / "a" / BEST_VAL_FILE).write_bytes((tmp_path / "a" / WEIGHTS_FILE).read_bytes())
    check_best_weights(tmp_path / "a", record["best_val"], keeps=True)
    assert not (tmp_path / "a" / BEST_VAL_FILE).exists()
    assert "the best on val, were not saved" in caplog.text


def test_an_objective_at_the_best_epoch_is_reported_as_the_best_so_far_and_returned(tmp_path):
    trial = FakeTrial()
    run = tiny.tiny_run(epochs=4, optimizer=ROUGH, objective="val_accuracy", objective_at="best_val")
    record = start(tmp_path / "a", run, trial=trial)
    rows = read_metrics(tmp_path / "a")
    told = [min(rows[:n], key=lambda row: row["val_loss"])["val_accuracy"] for n in range(1, 5)]
    assert [value for value, _ in trial.told] == told
    assert objective_value("val_accuracy", record, "best_val") == told[-1]
    assert digest(to_dict(run)) == digest(to_dict(tiny.tiny_run(epochs=4, optimizer=ROUGH)))
