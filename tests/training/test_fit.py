"""Training on a tiny data set: that it learns, repeats exactly, and resumes as if it had never stopped."""

import dataclasses
import logging
import math
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import own
import pytest
import tiny
import torch
from commands import check_run
from tiny import KilledError, kill_after, killed_and_continued, same_bits, timeless
from torch.nn import functional as F
from waiting import wait_until

from reg_sweep.config.regularizers import LossConfig
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import NormConfig, OptimizerConfig, PenaltyConfig, RunConfig, RuntimeConfig, ScheduleConfig
from reg_sweep.runs.reading import read_metrics
from reg_sweep.runs.record import CHECKPOINT_FILE, METRICS, METRICS_FILE, RUN_FILE, append_metrics
from reg_sweep.training import checkpoint
from reg_sweep.training import dropout as dropout_module
from reg_sweep.training.devices import choose_device
from reg_sweep.training.fit import Fitted, fit
from reg_sweep.training.rng import epoch_seed

MLP = {"_target_": "reg_sweep.Mlp", "hidden": 16, "dropout": 0.2}


def train(run: RunConfig, directory: Path | str | None = None, **settings) -> Fitted:
    return fit(run, directory=directory, progress=False, **settings)


def timeless_rows(rows: list) -> list[dict]:
    return [timeless(row) for row in rows]


def assert_same(a: Fitted, b: Fitted) -> None:
    """Asserts that two results are equal bit for bit."""
    assert a.status == b.status == "complete"
    assert timeless_rows(a.history) == timeless_rows(b.history)
    assert same_bits(a.model, b.model)
    assert (a.test.predicted == b.test.predicted).all()
    assert (a.test.probability == b.test.probability).all()
    assert (a.test.loss, a.test.accuracy, a.weights) == (b.test.loss, b.test.accuracy, b.weights)


# ---- learning


def test_a_run_learns_the_tiny_set():
    fitted = train(tiny.tiny_run(epochs=6, optimizer=OptimizerConfig(lr=0.1)))
    first, last = fitted.history[0], fitted.history[-1]
    assert fitted.status == "complete"
    assert last["train_loss"] < first["train_loss"] / 2
    assert last["test_accuracy"] > 0.9
    assert last["val_accuracy"] > 0.9
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4, 5, 6]
    assert all(row.keys() == set(METRICS) for row in fitted.history)


def test_the_last_row_and_the_predictions_are_those_of_the_returned_model():
    run = tiny.tiny_run(l1=0.001, l2=0.002)
    fitted = train(run)
    again = tiny.on_test(fitted.model)
    assert again.loss == fitted.test.loss == fitted.history[-1]["test_loss"]
    assert again.accuracy == fitted.history[-1]["test_accuracy"]
    assert (again.predicted == fitted.test.predicted).all()
    assert again.accuracy == (again.predicted == tiny.tiny_data().test.labels.numpy()).mean()
    assert 0.1 <= again.probability.min() <= again.probability.max() <= 1
    weights = [p for p in fitted.model.parameters() if p.ndim > 1]
    penalty = sum(0.001 * w.abs().sum() + 0.001 * w.square().sum() for w in weights).item()
    assert fitted.history[-1]["penalty"] == pytest.approx(penalty, rel=1e-5)
    assert fitted.n_parameters == sum(row["n_parameters"] for row in fitted.layers)
    assert fitted.weights["n"] == sum(w.numel() for w in weights)
    assert not fitted.model.training


def test_with_test_epochs_last_only_the_last_epoch_is_tested_and_the_weights_are_the_same():
    every, last = train(tiny.tiny_run()), train(tiny.tiny_run(test_epochs="last"))
    assert same_bits(every.model, last.model)
    assert [row["test_loss"] for row in last.history[:-1]] == [None] * (len(last.history) - 1)
    assert last.history[-1]["test_loss"] == every.history[-1]["test_loss"]
    assert [row["val_loss"] for row in last.history] == [row["val_loss"] for row in every.history]
    pruned = train(tiny.tiny_run(test_epochs="last"), on_epoch=lambda row: True)
    assert (pruned.status, pruned.test) == ("pruned", None)


def test_label_smoothing_gives_a_share_of_each_train_label_to_all_classes():
    """In one step of plain SGD, the weights of a linear model change in the direction of mean (target - p) x."""
    still = tiny.tiny_data_config(rotation=0, brightness=0, contrast=0)
    step = OptimizerConfig(lr=0.001, momentum=0.0)
    model, norm = {"_target_": f"{__name__}.Bare"}, NormConfig("none")
    run = tiny.tiny_run(epochs=1, batch_size=240, data=still, model=model, norm=norm, optimizer=step)
    plain, smoothed = (train(dataclasses.replace(run, loss=LossConfig(share))).model for share in (0.0, 0.3))
    data = tiny.tiny_data()
    x = ((data.train.images / 255 - data.mean[:, None, None]) / data.std[:, None, None]).flatten(1)
    more = 0.3 * (1 / 10 - F.one_hot(data.train.labels, 10).float())  # (N, 10)
    moved = smoothed.linear.weight - plain.linear.weight
    torch.testing.assert_close(moved, 0.001 * more.T @ x / 240, rtol=0.01, atol=1e-6)
    assert moved.abs().max() > 1e-5


@pytest.mark.parametrize("norm", ["none", "bn", "gbn", "gn", "ln", "in"])
def test_every_norm_trains(norm):
    fitted = train(tiny.tiny_run(epochs=1, norm=NormConfig(norm)))
    assert fitted.status == "complete"
    assert math.isfinite(fitted.history[0]["test_loss"])


class Bare(torch.nn.Module):
    """A custom model that takes `norm` and ignores it."""

    def __init__(self, in_shape, n_classes, norm) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(math.prod(in_shape), n_classes)

    def forward(self, x):
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(("norm", "n_warnings"), [("gn", 1), ("none", 0)])
def test_a_model_without_the_norm_that_was_asked_for_is_warned_of_in_one_line(norm, n_warnings, caplog):
    train(tiny.tiny_run(model={"_target_": f"{__name__}.Bare"}, norm=NormConfig(norm)))
    assert caplog.text.count(f"norm={norm} has no effect, because {__name__}.Bare has no such layer") == n_warnings
    train(tiny.tiny_run(epochs=1, norm=NormConfig(norm)))
    assert caplog.text.count("has no effect") == n_warnings


def test_without_val_images_the_val_columns_are_empty():
    run = tiny.tiny_run(epochs=1, data=tiny.tiny_data_config(val_size=0), objective="test_loss")
    row = train(run).history[0]
    assert row["val_loss"] is None
    assert row["val_accuracy"] is None


def test_a_stronger_l2_leaves_smaller_weights():
    sizes = []
    for l2 in (0.0, 0.01, 0.1):
        model = train(tiny.tiny_run(l2=l2)).model
        sizes.append(sum(p.square().sum().item() for p in model.parameters() if p.ndim > 1))
    assert sizes[0] > sizes[1] > sizes[2]


def test_proximal_l1_is_recorded_in_exact_zeros():
    run = tiny.tiny_run(l1=0.01, penalty=PenaltyConfig(l1_update="proximal"))
    assert train(run).weights["n_zero"] > train(tiny.tiny_run()).weights["n_zero"] == 0


def test_the_loss_is_counted_by_images_whatever_the_batches(monkeypatch):
    model = train(tiny.tiny_run(epochs=1)).model
    whole = tiny.on_test(model)
    monkeypatch.setattr("reg_sweep.training.evaluation.EVAL_BATCH", 7)
    parts = tiny.on_test(model)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.accuracy == whole.accuracy


def test_bfloat16_runs_and_differs_from_float32():
    lower = train(tiny.tiny_run(epochs=1, runtime=RuntimeConfig(device="cpu", threads=1, precision="bfloat16")))
    full = train(tiny.tiny_run(epochs=1))
    assert lower.history[0]["train_loss"] != full.history[0]["train_loss"]
    assert lower.history[0]["train_loss"] == pytest.approx(full.history[0]["train_loss"], rel=0.1)


# ---- seeds


@pytest.mark.slow
@pytest.mark.parametrize("model", [None, MLP], ids=["squeeze_expand", "mlp"])
def test_the_same_seed_gives_the_same_run_and_another_seed_another(model):
    settings = {} if model is None else {"model": model}
    torch.manual_seed(1)
    first = train(tiny.tiny_run(**settings))
    torch.manual_seed(2)
    assert_same(first, train(tiny.tiny_run(**settings)))
    other = train(tiny.tiny_run(seed=0, **settings))
    assert other.history[0]["train_loss"] != first.history[0]["train_loss"]
    assert not torch.equal(next(other.model.parameters()), next(first.model.parameters()))


def test_training_leaves_torchs_generator_as_it_was():
    before = torch.get_rng_state()
    train(tiny.tiny_run(epochs=1, model=MLP))
    assert torch.equal(torch.get_rng_state(), before)


def test_fits_in_several_threads_at_once_end_as_each_would_alone():
    runs = [tiny.tiny_run(seed=seed, model=MLP) for seed in range(4)]
    alone = [train(run) for run in runs]
    with ThreadPoolExecutor(len(runs)) as threads:
        together = list(threads.map(train, runs))
    for a, b in zip(alone, together, strict=True):
        assert_same(a, b)


# ---- in a program


@contextmanager
def default_dtype(dtype: torch.dtype):
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(torch.float32)


PROGRAMS = {
    "another type": lambda: default_dtype(torch.float64),
    "another device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_what_a_program_has_set_changes_nothing_and_stands_again_at_each_epoch(program):
    run = tiny.tiny_run(l1=0.001, l2=0.01, model=MLP)
    plain = train(run)

    def state() -> tuple:
        enabled = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        return *enabled, torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()

    data = tiny.tiny_data()
    with program():
        seen, before = [], state()
        fitted = train(run, on_epoch=lambda row: seen.append(state()) is not None)
        assert seen == [before] * 2
        assert state() == before
        assert_same(plain, train(run, data=data))
    assert_same(plain, fitted)
    assert not any(p.is_inference() for p in fitted.model.parameters())


def test_backends_that_a_program_has_set_change_no_bit_and_stand_again():
    plain = train(tiny.tiny_run())
    torch.backends.mkldnn.set_flags(False)
    try:
        assert_same(train(tiny.tiny_run()), plain)
        assert not torch.backends.mkldnn.enabled
    finally:
        torch.backends.mkldnn.set_flags(True)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
def test_the_newer_setting_of_float32s_precision_is_no_error(tmp_path):
    set_it = "import torch; torch.backends.fp32_precision = 'tf32'; "
    code = set_it + "import tiny; from reg_sweep import fit; fit(tiny.tiny_run(epochs=1), progress=False)"
    check_run(tmp_path, "-c", code)  # in its own process, because the setting can't be undone


def test_the_number_of_threads_is_the_programs_again_after_a_fit():
    torch.set_num_threads(2)
    seen = []
    run = tiny.tiny_run(epochs=1, runtime=RuntimeConfig(device="cpu", threads=1))
    train(run, stop=lambda: seen.append(torch.get_num_threads()) is not None)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_a_thread_that_on_epoch_starts_and_waits_for_may_fit_too():
    run = tiny.tiny_run(model=MLP)
    found = []

    def on_epoch(row) -> bool:
        thread = threading.Thread(target=lambda: found.append(train(run)))
        thread.start()
        thread.join(60)
        return False

    assert_same(train(run), train(run, on_epoch=on_epoch))
    assert len(found) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_another_thread_fits_can_fit(tmp_path):
    torch.set_num_threads(2)
    run = tiny.tiny_run(epochs=1, model=MLP, runtime=RuntimeConfig(device="cpu"))
    reached, forked = threading.Event(), threading.Event()

    def stop() -> bool:
        reached.set()
        forked.wait(60)
        return False

    thread = threading.Thread(target=lambda: train(run, stop=stop))
    thread.start()
    assert reached.wait(60)
    child = os.fork()
    if child == 0:  # the child does only this, without pytest's report and teardown
        status = 1
        with suppress(BaseException):
            ended = train(run).status
            with pytest.raises(ConfigError, match=r"runtime.threads must be 1 in a forked process"):
                train(tiny.tiny_run(runtime=RuntimeConfig(device="cpu", threads=2)))
            status = int(ended != "complete")
        os._exit(status)
    forked.set()
    thread.join(60)
    ended = []
    try:
        wait_until(lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0] == child, "end of the child")
    finally:
        if not ended or ended[-1][0] == 0:
            os.kill(child, signal.SIGKILL)
    assert ended[-1] == (child, 0)


def test_a_directory_may_be_text_and_stays_where_it_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    train(tiny.tiny_run(), "run", on_epoch=lambda row: os.chdir(tmp_path / "elsewhere"))
    assert (tmp_path / "run" / CHECKPOINT_FILE).exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


ARMS_OF_ONE_SEED = [
    {"l2": 0.1},
    {"norm": NormConfig("in"), "l1": 0.01},
    {"norm": NormConfig("none")},
    {"optimizer": OptimizerConfig("adamw", lr=0.001)},
]


@pytest.mark.slow
def test_arms_of_one_seed_see_the_same_batches_augmentation_and_masks(monkeypatch):
    batches: list[torch.Tensor] = []
    masks: list[torch.Tensor] = []
    call, draw = torch.nn.Module.__call__, dropout_module.dropped_indices

    def watched(model, *args):
        if isinstance(args[0], torch.Tensor) and model.training:
            batches.append(args[0].clone())
        return call(model, *args)

    def watched_draw(*args):
        masks.append(draw(*args))
        return masks[-1]

    monkeypatch.setattr("reg_sweep.training.dropout.dropped_indices", watched_draw)
    monkeypatch.setattr("reg_sweep.training.model.SqueezeExpand.__call__", watched, raising=False)
    for changes in ARMS_OF_ONE_SEED:
        train(tiny.tiny_run(epochs=1, **changes))
    for seen, n in ((batches, 8), (masks, 8 * 5)):
        assert len(seen) == 4 * n
        assert all(torch.equal(one, seen[i % n]) for i, one in enumerate(seen))


def test_epochs_draw_their_own_numbers():
    assert len({epoch_seed(s, e) for s in range(5) for e in range(5)}) == 25


# ---- stop and resume

ARMS = {
    "sgd": {"l1": 0.001, "l2": 0.01},
    "proximal_onecycle": {
        "l1": 0.001,
        "l2": 0.01,
        "penalty": PenaltyConfig(l1_update="proximal", l2_update="decoupled"),
        "schedule": ScheduleConfig("onecycle"),
        "norm": NormConfig("gbn", ghost_batch_size=8),
    },
    "adamw_cosine": {
        "l1": 0.001,
        "l2": 0.01,
        "penalty": PenaltyConfig(l1_update="proximal", l2_update="decoupled"),
        "optimizer": OptimizerConfig("adamw", lr=0.003),
        "schedule": ScheduleConfig("cosine"),
    },
    "mlp": {"model": MLP, "optimizer": OptimizerConfig("adamw", lr=0.003), "l1": 0.001},
    "moved": {
        "model": MLP,
        "data": tiny.tiny_data_config(
            flip=0.5, crop=2, transforms=[{"_target_": "torchvision.transforms.v2.RandomErasing", "p": 0.5}]
        ),
    },
}
N_EPOCHS = 3


def arm(name: str) -> RunConfig:
    return tiny.tiny_run(epochs=N_EPOCHS, **ARMS[name])


@cache
def uninterrupted(name: str) -> Fitted:
    return train(arm(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("epoch", range(1, N_EPOCHS + 1))
def test_a_run_killed_after_any_epoch_ends_bit_for_bit_as_if_never_stopped(name, epoch, tmp_path):
    continued = killed_and_continued(arm(name), tmp_path, epoch)
    assert_same(continued, uninterrupted(name))
    assert timeless_rows(read_metrics(tmp_path)) == timeless_rows(continued.history)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["proximal_onecycle", "mlp"])
@pytest.mark.parametrize("n_batches", [0, 1, 9, 15, 23])
def test_a_run_stopped_within_an_epoch_continues_after_the_last_whole_one(name, n_batches, tmp_path):
    asked = iter(range(1_000))
    stopped = train(arm(name), tmp_path, stop=lambda: next(asked) == n_batches)
    assert stopped.status == "running"
    assert len(stopped.history) == len(read_metrics(tmp_path)) == n_batches // 8
    assert (tmp_path / CHECKPOINT_FILE).exists() == (n_batches >= 8)
    assert stopped.test is None
    assert_same(train(arm(name), tmp_path), uninterrupted(name))


@pytest.mark.slow
def test_a_run_killed_again_and_again_is_still_the_same(tmp_path):
    continued = killed_and_continued(arm("adamw_cosine"), tmp_path, *range(1, N_EPOCHS + 1))
    assert_same(continued, uninterrupted("adamw_cosine"))


def test_a_row_without_its_checkpoint_is_written_anew(tmp_path):
    with pytest.raises(KilledError):
        train(arm("sgd"), tmp_path, on_epoch=kill_after(1))
    append_metrics(tmp_path, {**uninterrupted("sgd").history[0], "epoch": 2})  # killed before its checkpoint
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write("3,0.02")
    continued = train(arm("sgd"), tmp_path)
    assert timeless_rows(read_metrics(tmp_path)) == timeless_rows(continued.history)
    assert_same(continued, uninterrupted("sgd"))


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch):
    save = checkpoint.save

    def full(directory, identity, model, optimizer, history) -> None:
        if len(history) == 2:
            raise OSError(28, "No space left on device")
        save(directory, identity, model, optimizer, history)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(arm("sgd"), tmp_path)
    monkeypatch.undo()
    assert_same(train(arm("sgd"), tmp_path), uninterrupted("sgd"))


def test_a_damaged_checkpoint_starts_the_run_anew_in_its_directory(tmp_path, caplog):
    with pytest.raises(KilledError):
        train(arm("sgd"), tmp_path, on_epoch=kill_after(2))
    content = bytearray((tmp_path / CHECKPOINT_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / CHECKPOINT_FILE).write_bytes(content)
    continued = train(arm("sgd"), tmp_path)
    assert caplog.text.count("starts again") == 1
    assert_same(continued, uninterrupted("sgd"))
    assert timeless_rows(read_metrics(tmp_path)) == timeless_rows(continued.history)


OTHERS = {
    "l1": {"l1": 0.002},
    "norm": {"norm": NormConfig("none")},
    "seed": {"seed": 2},
    "batch_size": {"batch_size": 16},
    "epochs": {"epochs": 4},
    "data": {"data": tiny.tiny_data_config(n_test=70)},
}


@pytest.fixture(scope="module")
def killed_after_1(tmp_path_factory) -> Path:
    """The directory of a run of three epochs that was killed after the first."""
    directory = tmp_path_factory.mktemp("killed")
    with pytest.raises(KilledError):
        train(tiny.tiny_run(epochs=3), directory, on_epoch=kill_after(1))
    return directory


@pytest.mark.parametrize("other", [*OTHERS.values(), None], ids=[*OTHERS, "other data under the same config"])
def test_the_checkpoint_of_another_config_or_data_is_refused_and_left_alone(other, killed_after_1):
    run, data = tiny.tiny_run(**{"epochs": 3, **(other or {})}), tiny.tiny_data(n_train=310) if other is None else None
    before = (killed_after_1 / CHECKPOINT_FILE).read_bytes()
    message = "checkpoint.pt must be a checkpoint of this run, got one of another config or data set: choose another"
    with pytest.raises(ConfigError, match=message):
        train(run, killed_after_1, data=data)
    assert (killed_after_1 / CHECKPOINT_FILE).read_bytes() == before
    assert len(read_metrics(killed_after_1)) == 1


def test_a_directory_in_which_something_trains_is_refused_until_it_ends(tmp_path):
    def intrude(row) -> bool:
        with pytest.raises(ConfigError, match="must be free, got one in which another process trains"):
            train(arm("mlp"), tmp_path)
        return False

    ended = train(arm("mlp"), tmp_path, on_epoch=intrude)
    assert_same(ended, uninterrupted("mlp"))
    assert_same(train(arm("mlp"), tmp_path), ended)
    assert timeless_rows(read_metrics(tmp_path)) == timeless_rows(ended.history)


def test_a_run_of_the_commands_is_never_fitted_over(tmp_path):
    (tmp_path / RUN_FILE).write_text("{}")
    with pytest.raises(ConfigError, match=r"hold files that fit wrote, got a run of python -m reg_sweep\.train"):
        train(tiny.tiny_run(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [RUN_FILE]


@pytest.mark.parametrize("name", [CHECKPOINT_FILE, METRICS_FILE])
@pytest.mark.parametrize("what", ["file", "folder", "link", "torch's"])
def test_what_a_fit_did_not_make_is_refused_and_left_alone(name, what, tmp_path):
    path, other = tmp_path / "a" / name, tmp_path / "precious"
    path.parent.mkdir()
    other.write_text("epoch,lr,loss\n1,0.1,2.3\n")
    if what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(other)
    elif what == "file":
        path.write_bytes(other.read_bytes())
    else:
        torch.save({"model": torch.ones(2)}, path)
    before = None if what == "folder" else path.read_bytes()
    with pytest.raises(ConfigError, match=f"{name} must be a file that fit wrote, got .*: choose another directory"):
        train(tiny.tiny_run(), tmp_path / "a")
    assert what == "folder" or path.read_bytes() == before


def test_an_empty_directory_is_no_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="directory must name a folder, got ''"):
        fit(tiny.tiny_run(), directory="", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["wrong", "Wrong"])
@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("data.source", lambda spec: {"data": tiny.tiny_data_config(source=spec)}),
        ("data.transforms", lambda spec: {"data": tiny.tiny_data_config(transforms=[spec])}),
        ("model", lambda spec: {"model": spec}),
        ("optimizer.source", lambda spec: {"optimizer": OptimizerConfig("own", source=spec)}),
        ("schedule.source", lambda spec: {"schedule": ScheduleConfig("own", source=spec)}),
        ("loss.source", lambda spec: {"loss": LossConfig(name="own", source=spec)}),
        ("penalties.p", lambda spec: {"penalties": {"p": {**spec, "strength": 1.0}}}),
    ],
)
def test_whatever_a_part_of_ones_own_raises_is_one_line_with_its_place(key, changes, kind):
    raised = {"wrong": "KeyError: 'what'", "Wrong": "AttributeError: what"}[kind]
    line = rf"{key} must .*, got 'own.{kind}'( .*)?: {raised} \(own.py, line \d+\)"
    with pytest.raises(ConfigError, match=line.replace("'own.wrong'", "'(own.)?wrong'")) as error:
        fit(tiny.tiny_run(**changes(own.spec(kind))), progress=False)
    assert "\n" not in str(error.value)


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(tiny.tiny_run(epochs=1))
    assert list(tmp_path.iterdir()) == []


# ---- other ends


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged():
    fitted = train(tiny.tiny_run(epochs=9, norm=NormConfig("none"), optimizer=OptimizerConfig(lr=1e20)))
    assert fitted.status == "diverged"
    assert len(fitted.history) < 9
    assert "not finite" in fitted.message or "the train loss became" in fitted.message


@pytest.mark.parametrize("epochs", [1, 3])
def test_weights_that_are_not_finite_after_the_last_batch_are_a_divergence_also_over_a_kill_before_the_record(
    epochs, tmp_path
):
    run = tiny.tiny_run(epochs=epochs, batch_size=300, norm=NormConfig("none"), optimizer=OptimizerConfig(lr=1e38))
    ended = train(run, tmp_path)
    assert len(ended.history) == 1
    again = train(run, tmp_path, on_epoch=lambda row: pytest.fail("a diverged run has nothing to report"))
    assert (again.status, again.message) == (ended.status, ended.message) == ("diverged", ended.message)
    assert (again.test.predicted == ended.test.predicted).all()
    assert str(timeless_rows(again.history)) == str(
        timeless_rows(ended.history)
    )  # as text, because nan is not equal to itself


def test_a_run_killed_before_its_last_epoch_was_reported_is_pruned_where_it_would_have_been(tmp_path):
    with pytest.raises(KilledError):
        train(tiny.tiny_run(epochs=5), tmp_path, on_epoch=kill_after(2))
    told = []
    pruned = train(tiny.tiny_run(epochs=5), tmp_path, on_epoch=lambda row: told.append(row["epoch"]) or True)
    assert (pruned.status, pruned.message, told) == ("pruned", "pruned after epoch 2 of 5", [2])
    assert pruned.test.loss == pruned.history[-1]["test_loss"]


def test_a_run_is_pruned_after_the_epoch_that_on_epoch_names():
    fitted = train(tiny.tiny_run(epochs=5), on_epoch=lambda row: row["epoch"] == 2)
    assert (fitted.status, len(fitted.history)) == ("pruned", 2)
    assert fitted.message == "pruned after epoch 2 of 5"
    assert fitted.test.loss == fitted.history[-1]["test_loss"]


def test_a_run_is_not_pruned_after_its_last_epoch():
    assert train(tiny.tiny_run(), on_epoch=lambda row: row["epoch"] == 2).status == "complete"


def test_a_device_that_is_not_there_is_named():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            with pytest.raises(
                ConfigError, match=f"runtime.device must be available on this machine, got '{name}': choose"
            ):
                choose_device(name)


def test_on_cuda_a_convolution_computes_in_full_float32_and_the_same_twice_and_the_process_keeps_its_own_settings():
    found = []

    def look() -> bool:
        cudnn = torch.backends.cudnn
        found.append((cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32))
        return False

    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        train(tiny.tiny_run(epochs=1), stop=look)
        look()
    assert set(found[:-1]) == {(True, False, True, False)}
    assert found[-1] == (True, True, False, True)


# ---- learning rate


def test_the_rate_of_each_epoch_is_recorded_and_used():
    run = tiny.tiny_run(epochs=3, schedule=ScheduleConfig("step", step_size=1, gamma=0.1))
    assert [row["lr"] for row in train(run).history] == pytest.approx([0.025, 0.0025, 0.00025])


# ---- progress


def test_elsewhere_than_on_a_terminal_each_epoch_is_a_line(caplog):
    with caplog.at_level(logging.INFO):
        fit(tiny.tiny_run(), progress=True)
    messages = [record.getMessage() for record in caplog.records]
    first, second = messages
    assert first.startswith("epoch 1/2  train ")
    assert second.startswith("epoch 2/2  train ")
    for line in (first, second):
        assert all(word in line for word in ("  val ", "  test ", "%", "images/s"))


def test_without_progress_nothing_is_said(caplog, capfd):
    with caplog.at_level(logging.INFO):
        train(tiny.tiny_run(epochs=1))
    assert caplog.messages == []
    assert capfd.readouterr() == ("", "")


def test_a_continued_run_says_from_where(caplog, tmp_path):
    with pytest.raises(KilledError):
        train(arm("sgd"), tmp_path, on_epoch=kill_after(2))
    with caplog.at_level(logging.INFO):
        fit(arm("sgd"), directory=tmp_path)
    assert "resuming after epoch 2 of 3" in caplog.text
    assert "epoch 3/3" in caplog.text
    assert "epoch 2/3" not in caplog.text
