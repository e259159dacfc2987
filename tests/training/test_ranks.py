"""One run on several processes: its results, its files, and that all processes end together."""

import os
import re
import shlex
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import tiny
import torch
from commands import Command, check_run, start_train
from safetensors.torch import load_file
from torch.distributed import TCPStore
from waiting import wait_until

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RuntimeConfig
from reg_sweep.runs.reading import read_record, read_run, read_runs
from reg_sweep.runs.record import CHECKPOINT_FILE, METRICS_FILE, PREDICTIONS_FILE, RUN_FILE, WEIGHTS_FILE
from reg_sweep.training import ranks
from reg_sweep.training.data_parallel import DataParallel, check_model
from reg_sweep.training.devices import choose_device
from reg_sweep.training.fit import prepare
from reg_sweep.training.norms import GhostBatchNorm2d
from reg_sweep.training.ranks import Ranks, joined, launch_command, launched

CPU = torch.device("cpu")

# Several ranks sum numbers in another order. Within an epoch, a ReLU or a maximum can turn a difference in the last
# digit into one in the third. Float64 distinguishes such rounding from mistakes.
DOUBLE = """
import torch
from torch import nn


class Double(nn.Module):
    def __init__(self, in_shape, n_classes, norm):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(in_shape[0], 4, 5, 3, bias=False), norm(4)
        self.second, self.norm2 = nn.Conv2d(4, 6, 3, bias=False), norm(6)
        self.classify = nn.Linear(6, n_classes)
        self.double()

    def forward(self, x):
        x = self.norm1(self.first(x.double()).relu())
        x = self.norm2(self.second(x).relu())
        return self.classify(x.mean((2, 3)))


class Centred(Double):
    "Draws from torch's generator, and keeps a buffer that is no batch norm's."

    def __init__(self, in_shape, n_classes, norm):
        super().__init__(in_shape, n_classes, norm)
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        if self.training:
            self.centre.lerp_(x.double().mean(), 0.1)
        return super().forward(nn.functional.dropout(x - self.centre, 0.2, self.training))
"""
# Five batches of 64, and a last one of 16 images, which leaves none to the second of two processes.
RUN = ["model._target_=double.Double", "data=mnist_5k", "data.val_size=100", "batch_size=64", "epochs=2"]
RUN += ["runtime.threads=1", "~model.channels", "~model.dropout"]
SMALL = ["data=mnist_5k", "data.train_size=128", "data.val_size=100", "batch_size=64", "model.channels=4"]
SMALL += ["runtime.threads=1"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "double.py").write_text(DOUBLE)
    return tmp_path


@contextmanager
def started(folder: Path, *commands: list[str]) -> Iterator[list[Command]]:
    """Starts a process for each command, as the ranks of one run. This process hosts torchrun's store."""
    store = TCPStore("localhost", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
    n = str(len(commands))
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}
    ranks = [start_train(folder, *c, **shared, RANK=str(r), LOCAL_RANK=str(r)) for r, c in enumerate(commands)]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()


def ended(ranks: list[Command]) -> tuple[list[int], str]:
    """The exit codes and the combined output of all processes."""
    done = [rank.end(timeout_s=100) for rank in ranks]
    return [each.returncode for each in done], "".join(each.stdout + each.stderr for each in done)


def train(folder: Path, *arguments: str, n: int = 2) -> tuple[list[int], str]:
    with started(folder, *[list(arguments)] * n) as ranks:
        return ended(ranks)


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "outputs" / name / WEIGHTS_FILE)


def rows(folder: Path, name: str) -> list[dict]:
    """The history, without the columns that depend on the clock."""
    run = read_run(folder / "outputs" / name)
    assert run.status == "complete"
    return [tiny.timeless(row) for row in run.metrics]


def assert_same_bits(folder: Path, a: str, b: str) -> None:
    assert rows(folder, a) == rows(folder, b)
    first, second = weights(folder, a), weights(folder, b)
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_equal_but_for_rounding(folder: Path, a: str, b: str) -> None:
    first, second = weights(folder, a), weights(folder, b)
    assert first.keys() == second.keys()
    for name, w in first.items():
        # The loss, and so the gradient of the logits, is computed in float32.
        assert (w - second[name]).abs().max() <= 1e-8 * (1 + w.abs().max()), name
    for one, other in zip(rows(folder, a), rows(folder, b), strict=True):
        assert one == pytest.approx(other, rel=1e-6)


# ---- results


needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two ranks need two GPUs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train_size", "device"),
    [
        pytest.param(336, "cpu", id="nothing_left"),
        pytest.param(372, "cpu", id="a_part_left"),
        pytest.param(321, "cpu", id="one_left"),
        pytest.param(372, "cuda", id="two_gpus", marks=needs_two_gpus),
    ],
)
def test_bn_on_two_ranks_is_gbn_of_half_the_batch_on_one_in_training_and_in_evaluation(folder, train_size, device):
    run = [*RUN, f"data.train_size={train_size}", "l1=0.0001", "l2=0.001", f"runtime.device={device}"]
    assert train(folder, *run, "norm=bn", "name=two")[0] == [0, 0]
    assert train(folder, *run, "norm=gbn", "norm.ghost_batch_size=32", "name=one", n=1)[0] == [0]
    assert_equal_but_for_rounding(folder, "two", "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    "penalty",
    [
        ["l1=0.0001", "l2=0.001"],
        ["l1=0.01", "l2=0.01", "penalty=notebook"],
        ["l1=0.001", "penalty.l1_update=proximal", "optimizer=adamw", "l2=0.01", "penalty.l2_update=decoupled"],
        ["penalties=orthogonality", "l2=0.01", "l2_schedule=cosine", "averaging=ema", "loss.label_smoothing=0.1"],
    ],
    ids=["textbook", "notebook", "proximal", "own"],
)
def test_without_a_norm_two_ranks_compute_what_one_does_and_penalize_once(folder, penalty):
    run = [*RUN, "data.train_size=336", "norm=none", *penalty]
    assert train(folder, *run, "name=two")[0] == [0, 0]
    assert train(folder, *run, "name=one", n=1)[0] == [0]
    assert_equal_but_for_rounding(folder, "two", "one")
    zeros = [read_record(folder / "outputs" / name)["weights"] for name in ("two", "one")]
    assert zeros[0] == zeros[1]
    assert (zeros[0]["n_zero"] > 0) == ("penalty.l1_update=proximal" in penalty)


@pytest.mark.slow
def test_two_ranks_give_the_same_bits_twice_and_leave_one_whole_record_that_one_rank_does_not_resume(folder):
    command = [*SMALL, "epochs=2", "mix=cutmix", "averaging=ema"]
    for name in ("a", "b"):
        codes, said = train(folder, *command, f"name={name}")
        assert codes == [0, 0]
        assert said.count("complete after 2 epochs") == 1
    assert_same_bits(folder, "a", "b")
    (run,) = read_runs(folder / "outputs" / "a")
    assert run.config["runtime"]["ranks"] == 2
    assert shlex.split(run.record["command"])[:5] == ["torchrun", "--nproc-per-node", "2", "-m", "reg_sweep.train"]
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    left = {path.name for path in (folder / "outputs" / "a").iterdir()}
    files = {RUN_FILE, METRICS_FILE, PREDICTIONS_FILE, WEIGHTS_FILE}
    assert left == files | {".hydra", ".lock", "train.log"}
    assert (folder / "outputs" / "a" / "train.log").read_text().count("epoch 1/2") == 1
    assert train(folder, *command, "name=a")[1].count("is complete already: nothing to train") == 1
    codes, said = train(folder, *command, "name=a", n=1)
    assert codes == [2]
    assert "got a run with another config (runtime.ranks 2 there, None here)" in said


# ---- ending together


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_the_same_command_ends_as_if_nothing_had_been(folder):
    command = [*RUN, "model._target_=double.Centred", "data.train_size=200", "epochs=6", "l1=0.0001", "norm=gbn"]
    assert train(folder, *command, "name=whole")[0] == [0, 0]
    with started(folder, *[[*command, "name=stopped"]] * 2) as ranks:
        wait_for_an_epoch(folder / "outputs" / "stopped")
        os.kill(ranks[1].pid, signal.SIGTERM)
        codes, said = ended(ranks)
    assert codes == [128 + signal.SIGTERM] * 2
    assert said.count("stopped; continue with\n  torchrun --nproc-per-node 2 -m reg_sweep.train") == 1
    record = read_record(folder / "outputs" / "stopped")
    assert record["status"] == "running"
    assert re.fullmatch(r"stopped by SIGTERM after \d epochs?; it can be resumed", record["message"])
    assert (folder / "outputs" / "stopped" / CHECKPOINT_FILE).exists()
    codes, said = train(folder, *command, "name=stopped")
    assert codes == [0, 0]
    assert said.count("resuming after epoch") == 1
    assert_same_bits(folder, "whole", "stopped")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_rank_is_killed_the_other_ends_in_one_line_and_the_run_can_be_continued(folder, killed):
    command = [*SMALL, "epochs=12", "name=a"]
    with started(folder, *[command] * 2) as ranks:
        wait_for_an_epoch(folder / "outputs" / "a")
        ranks[killed].kill()
        codes, said = ended(ranks)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 1
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("reg_sweep: error:")]
    assert "another process of this run has ended" in line
    assert line.endswith("continue with torchrun --nproc-per-node 2 -m reg_sweep.train " + shlex.join(command))
    assert train(folder, *command)[0] == [0, 0]
    assert len(rows(folder, "a")) == 12


@pytest.mark.slow
def test_a_run_that_diverges_does_so_on_both(folder):
    codes, said = train(folder, *SMALL, "epochs=2", "norm=none", "optimizer.lr=1e30", "name=a")
    assert codes == [1, 1]
    assert said.count("diverged after 0 epochs") == 1
    record = read_record(folder / "outputs" / "a")
    assert record["status"] == "diverged"
    assert record["message"].startswith("the train loss became nan in epoch 1, batch 2")


def wait_for_an_epoch(directory: Path) -> None:
    wait_until((directory / CHECKPOINT_FILE).exists, "first epoch")


# ---- errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["batch_size=63"], "batch_size must be a multiple of runtime.ranks (2), got 63: each process computes an"),
        (["study=l1_search"], "a multirun (-m, study=...) must be started as one process, got 2 from torchrun"),
        (["runtime.ranks=4"], "runtime.ranks must be the number of processes that train the run (2), got 4:"),
        (["callbacks.a._target_=nothing.there"], "callbacks"),
        (["model._target_=nothing.There"], "model._target_ must be importable from here, got 'nothing.There'"),
    ],
    ids=["batch_size", "study", "ranks", "callback", "model"],
)
def test_what_is_wrong_on_all_ranks_is_told_in_one_line_and_leaves_nothing(folder, arguments, line):
    codes, said = train(folder, "data=mnist_5k", *arguments)
    assert codes == [2, 2]
    (told,) = said.splitlines()
    assert told.startswith(f"reg_sweep: error: {line}")
    assert list(folder.glob(f"outputs/*/{RUN_FILE}")) == []


@pytest.mark.slow
def test_what_is_wrong_on_one_rank_ends_both(folder):
    with started(folder, *[[*SMALL, "epochs=1", f"seed={seed}"] for seed in (1, 2)]) as ranks:
        codes, said = ended(ranks)
    assert codes == [2, 2]
    (told,) = said.splitlines()
    assert told.startswith("reg_sweep: error: the command must be the same on every process of a run, got ")


@pytest.mark.slow
def test_torchrun_starts_a_run_without_a_name_in_one_directory(folder):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    check_run(folder, *torchrun, "-m", "reg_sweep.train", *SMALL, "epochs=1")
    (directory,) = (folder / "outputs").iterdir()
    assert read_run(directory).status == "complete"


# ---- in this process


def test_a_process_that_nobody_started_beside_others_is_alone(monkeypatch):
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    assert launched() == Ranks()
    assert launch_command() == ["python", "-m", "reg_sweep.train"]
    monkeypatch.setenv("WORLD_SIZE", "8")  # set by a cluster, without RANK
    assert launched() == Ranks()
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launched() == Ranks(5, 8, 1, 4)
    assert launch_command()[:5] == ["torchrun", "--nnodes", "2", "--nproc-per-node", "4"]


def test_one_rank_agrees_with_itself():
    alone = Ranks()
    assert alone.all_of("a") == ["a"]
    assert alone.first_of("a") == "a"
    assert [alone.any(holds) for holds in (False, True)] == [False, True]
    assert alone.in_turn([3, 1, 2]) == [3, 1, 2]
    with pytest.raises(OSError, match="full"), alone.together():
        raise OSError("full")


def test_what_is_dealt_out_in_turn_comes_back_in_order(monkeypatch):
    items = list("abcdefg")
    for n in (2, 3, 9):
        dealt = [items[rank::n] for rank in range(n)]
        monkeypatch.setattr(Ranks, "all_of", lambda self, own, dealt=dealt: dealt)
        assert Ranks(1, n).in_turn(dealt[1]) == items


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranks_cut_a_batch_as_ghost_batch_norm_does_and_each_has_images(n_ranks, size, monkeypatch):
    seen: list[int] = []
    ghosts = GhostBatchNorm2d(1, size) if size > 1 else None
    monkeypatch.setattr(GhostBatchNorm2d, "_normalize", lambda self, x: (seen.append(len(x)), x)[1])
    ranks = [DataParallel(torch.nn.Identity(), Ranks(r, n_ranks), size * n_ranks, CPU) for r in range(n_ranks)]
    for n in range(1, size * n_ranks + 2):
        parts = [rank.part(n) for rank in ranks]
        own = [part for part in parts if part.share > 0]
        assert [part.start for part in own] == [0, *(part.stop for part in own[:-1])]
        assert own[-1].stop == n
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert all(part[:3] == (0, parts[0].stop, n) for part in parts[len(own) :])
        if ghosts is not None:
            seen.clear()
            ghosts(torch.zeros(n, 1, 1, 1))
            assert seen == [part.stop - part.start for part in own]


def test_a_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cuda"):
        with pytest.raises(
            ConfigError, match=r"runtime.device=cuda needs a GPU for each of a machine's processes \(2\), got 1"
        ):
            choose_device(name, Ranks(0, 2, 0, 2))
    with pytest.raises(ConfigError, match="must be cpu or cuda for several processes, got 'mps'"):
        choose_device("mps", Ranks(0, 2, 0, 2))
    assert choose_device("cpu", Ranks(0, 2, 0, 2)) == CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    assert choose_device("auto", Ranks(3, 4, 1, 2)) == torch.device("cuda", 1)


def test_a_run_for_two_ranks_is_not_trained_by_one():
    run = tiny.tiny_run(runtime=RuntimeConfig(device="cpu", threads=1, ranks=2))
    with pytest.raises(ConfigError, match=r"runtime.ranks must be the number of processes that train the run \(1\)"):
        prepare(run)


def test_a_batch_norm_without_a_momentum_has_no_order_of_ranks():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3, momentum=None))
    with pytest.raises(ConfigError, match="batch norms must have a momentum on several processes, got momentum N"):
        check_model(model, Ranks(0, 2))
    check_model(model, Ranks())
    check_model(torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.SyncBatchNorm(3, momentum=None)), Ranks(0, 2))


def left_over(monkeypatch, rank: int, port: int) -> None:
    """Sets the variables left over from a launcher that has ended, and makes waits short."""
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("_JOIN_S", "_CONNECT_S"):
        monkeypatch.setattr(ranks, name, 0.3)
    monkeypatch.setattr(ranks, "_LOG_AFTER_S", 0.0)
    ranks._store.cache_clear()


@pytest.mark.parametrize(
    ("rank", "message"), [(0, "only 1 of the 2 processes of this run connected"), (1, "process 0 must be reachable at")]
)
def test_a_process_that_waits_for_others_says_so_and_ends_in_one_line(rank, message, monkeypatch, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        left_over(monkeypatch, rank, free.getsockname()[1])
    with (
        pytest.raises(ConnectionError, match=f"{message}.*unset them to train in one process") as error,
        joined(launched()),
    ):
        pass
    assert "\n" not in str(error.value)
    assert f"process {rank} is waiting for the other processes (2 in all)" in caplog.text
    ranks._store.cache_clear()
