"""Writes the runs of the reference pages: an exercise's arms, studies, and all kinds of failures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from trees import N_TEST, edit_record, write_run, write_study
from until_trees import ALL_LOOKS, WORSE, scores, write_until

from reg_sweep.config.schema import RuntimeConfig


def write_weights(run: Path) -> None:
    """Writes eight kernels, of which one is dead and one has a single large weight, and a 1x1 convolution."""
    kernels = np.ones((4, 2, 3, 3), np.float32)
    kernels[0, 0] = kernels[1, 1] = 0.0005
    kernels[1, 1, 0, 0] = 0.002
    others = {"norm.weight": np.zeros(4, np.float32), "classify.weight": np.zeros((10, 4, 1, 1), np.float32)}
    save_file({"conv.weight": kernels, **others}, run / "weights.safetensors")


def write_exercise(root: Path) -> None:
    """Writes a grid of norms and both lambdas over three seeds.

    L1 0.01 is within one standard error of the best; L2 0.001 is worse. One arm was computed by another version of
    torch, and one by two ranks. One seed of one arm diverged, one is still running, one was pruned.
    """
    arms = [(n, l1, l2) for n in ("bn", "gbn") for l1 in (0.0, 0.001, 0.01) for l2 in (0.0, 0.001)]
    rng = np.random.default_rng(5)
    luck = 0.004 * rng.normal(size=4)
    device = {"name": "cpu", "threads": 1, "processor": "made up"}
    for i, (norm, l1, l2) in enumerate(arms):
        for seed in (1, 2, 3):
            by = {0.0: 0.0, 0.001: 0.02, 0.01: 0.0195}[l1] - 60 * l2 + 0.003 * (norm == "gbn")
            accuracy = float(0.9 + by + luck[seed] + 0.002 * rng.normal())
            settings = {"norm": norm, "l1": l1, "l2": l2, "seed": seed}
            run = write_run(root / f"{i}-{seed}", **settings, accuracy=accuracy, loss=1 - accuracy)
            torch = "2.7.0" if (norm, l1, l2) == ("gbn", 0.01, 0.0) else "2.14.1"
            edit_record(run, versions={"torch": torch}, git_commit="0123456789abcdef", device=device)
            if (norm, l1, l2, seed) == ("bn", 0.0, 0.0, 1):
                write_weights(run)
    for seed in (1, 2):
        write_run(root / f"ranks-{seed}", seed=seed, accuracy=0.9 + 0.01 * seed, runtime=RuntimeConfig(ranks=2))
    for seed, status in enumerate(("running", "pruned", "diverged", "failed"), 1):
        write_run(root / status, norm="gn", l1=0.1, seed=seed, status=status)


def write_search(root: Path, **facts: Any) -> Path:
    """Writes a study of six trials: 3 complete, 2 pruned after one of four epochs, 1 failed without a record."""
    for n, l1 in enumerate((0.1, 0.01, 0.001)):
        write_run(root / str(n), l1=l1, accuracy=0.8 + 0.05 * n, loss=0.3 - 0.05 * n, n_epochs=4)
    for n in (3, 4):
        run = write_run(root / str(n), l1=1.0 * n, status="pruned", n_epochs=4, predictions=False)
        lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
        (run / "metrics.csv").write_text("".join(lines[:2]))
    trials = [{"params": {"l1": l1}, "values": [0.3 - 0.05 * n]} for n, l1 in enumerate((0.1, 0.01, 0.001))]
    trials += [{"params": {"l1": 1.0 * n}, "state": "pruned", "values": None, "steps": [[1, 2.0]]} for n in (3, 4)]
    trials += [{"params": {"l1": 0.5}, "state": "failed", "values": None, "message": "ValueError: <i>no</i>"}]
    return write_study(root, trials, **{"importances": {"l1": 1.0}, **facts})


def write_studies(root: Path) -> None:
    """Writes a sequential study and, on other data, several more.

    These are a search and its confirmation, a search of both lambdas with a constraint, a Pareto front of two
    objectives, a grid over seeds, and a study whose runs are lost.
    """
    values = {k: v[:3] if k == WORSE else v for k, v in scores().items()}
    write_until(root / "until_verdict", values, ALL_LOOKS, margin=0.001)
    letters = {"fingerprint": "other", "name": "letters"}
    write_search(root / "search")
    for path in (root / "search").glob("*/run.json"):
        edit_record(path.parent, data=letters)
    for seed in (2, 3, 4):
        shared: dict[str, Any] = {"seed": seed, "n_epochs": 4, "data": letters}
        write_run(root / "final" / f"a{seed}", accuracy=0.9 + 0.01 * seed, **shared)
        write_run(root / "final" / f"b{seed}", l1=0.001, accuracy=0.85 + 0.012 * seed, **shared)
    trials = []
    for n in range(1, 7):
        params = {"l1": 10.0**-n, "l2": 10.0 ** -(n * 3 % 7), "norm": "gbn" if n % 2 else "bn"}
        trials.append({"params": params, "values": [0.1 * n], "constraints": {"size": 1.5 - n}})
    write_run(root / "both" / "0", data=letters)
    write_study(root / "both", trials)
    for n in range(3):
        write_run(root / "front" / str(n), l1=0.1 * n, objective=["val_loss", "zero_share"], data=letters)
    pairs = [{"values": v, "params": {"l1": 0.1 * n}} for n, v in enumerate([[0.1, 0.1], [0.2, 0.5], [0.3, 0.4]])]
    write_study(root / "front", pairs, directions=["minimize", "maximize"])
    cells = {("bn", 1): 0.1, ("bn", 2): 0.9, ("gbn", 1): 0.4, ("gbn", 2): 0.4}
    for n, (norm, seed) in enumerate(cells):
        write_run(root / "grid" / str(n), norm=norm, seed=seed, data={"fingerprint": "third", "name": "signs"})
    grid = [{"params": {"norm": norm, "seed": seed}, "values": [v]} for (norm, seed), v in cells.items()]
    write_study(root / "grid", grid, kind="grid", replicates=["seed"])
    write_study(root / "lost", [{"state": "failed", "values": None, "directory": None, "message": "no disk"}])


def write_failures(root: Path) -> None:
    """Writes one seed of some arms on the offline sample, and all kinds of bad files that a folder may contain."""
    sample = {"source": "offline sample"}
    write_run(root / "base", accuracy=0.90, n_wrong=5, data=sample)
    write_run(root / "other", l1=0.001, accuracy=0.70, n_wrong=15, data=sample)
    write_run(root / "alone", data={"fingerprint": "other", "name": "letters"}, predictions=False)
    evil = "<script>alert(1)</script>"
    model = {"_target_": "my.Net", "note": f"{evil} &"}
    write_run(root / "evil", data={"fingerprint": "evil", "name": evil}, model=model)
    metrics = {
        "missing": lambda text: None,
        "empty": lambda text: "",
        "heading alone": lambda text: text.splitlines(keepends=True)[0],
        "cut off": lambda text: text[:-20],
        "not a table": lambda text: "\x00\n" * 9,
    }
    for n, (name, change) in enumerate(metrics.items()):
        path = write_run(root / f"metrics {name}", l2=0.001, seed=n, data=sample) / "metrics.csv"
        text = change(path.read_text())
        path.unlink()
        if text is not None:
            path.write_text(text)
    write_run(root / "not a number", l2=0.01, accuracy=math.nan, loss=math.inf, predictions=False, data=sample)
    records = {"truncated": '{"schema": ', "no record": "[]", "newer": '{"schema": 99}', "foreign": "mine"}
    for name, text in records.items():
        (root / name).mkdir()
        (root / name / "run.json").write_text(text)
    nothing = np.zeros(N_TEST, int)
    label = np.arange(N_TEST) % 10
    predictions: dict[str, dict[str, Any]] = {
        "other labels": {"predicted": nothing, "probability": np.zeros(N_TEST, np.float32), "label": nothing},
        "other size": {"predicted": [1], "probability": [1], "label": [1]},
        "no such class": {"predicted": np.full(N_TEST, 10**9), "probability": np.ones(N_TEST), "label": label},
    }
    for n, (name, arrays) in enumerate(predictions.items()):
        np.savez(write_run(root / name, l1=0.01, l2=0.001 * n, data=sample) / "predictions.npz", **arrays)
    (write_run(root / "torn", norm="gbn", data=sample) / "predictions.npz").write_bytes(b"torn")
    (root / "base" / "weights.safetensors").write_bytes(b"torn")
    early = write_run(root / "early", status="failed", predictions=False, n_epochs=1, data=sample)
    edit_record(early, data=None, last=None, best_val=None, weights=None, message="no network")
    (early / "metrics.csv").unlink()
    (root / "linked").symlink_to(root / "base")
