"""Writes small trees of runs for the report's tests with `reg_sweep.runs.record`, without training."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.compare import Comparison, make_comparisons
from reg_sweep.comparison.results import result
from reg_sweep.comparison.study_runs import match_runs
from reg_sweep.config.digest import digest
from reg_sweep.config.schema import DataConfig, NormConfig, RunConfig, to_dict
from reg_sweep.images import Pixels
from reg_sweep.runs.reading import read_runs
from reg_sweep.runs.record import (
    METRICS,
    PREDICTIONS_FILE,
    DataFacts,
    TrialFacts,
    new_record,
    write_metrics,
    write_record,
)
from reg_sweep.runs.study import read_studies

N_TEST = 50


def share(value: float) -> float:
    """The nearest accuracy that is possible with the test images."""
    return min(max(value, 0.0), 1.0)


def write_run(
    folder: Path,
    *,
    norm: str = "bn",
    l1: float = 0.0,
    l2: float = 0.0,
    seed: int = 1,
    accuracy: float = 0.9,
    val_accuracy: float | None = None,
    loss: float = 0.3,
    status: str = "complete",
    n_epochs: int = 3,
    label_noise: float = 0.0,
    dataset: str = "MNIST",
    data: dict[str, Any] | None = None,
    n_wrong: int | None = None,
    predictions: bool = True,
    trial: TrialFacts | None = None,
    **settings: Any,
) -> Path:
    """Writes a run whose last epoch has these scores; `settings` are other keys of its config."""
    source = {"_target_": "reg_sweep.torchvision_images", "dataset": dataset}
    config = RunConfig(
        l1=l1,
        l2=l2,
        seed=seed,
        epochs=n_epochs,
        norm=NormConfig(norm),
        data=DataConfig(root="nowhere", label_noise=label_noise, source=source),
        **settings,
    )
    facts: DataFacts = {
        "name": "digits",
        "source": "local copy",
        "fingerprint": "0123456789abcdef",
        "n_train": 100,
        "n_val": 20,
        "n_test": N_TEST,
        "n_classes": 10,
        "mean": [0.1],
        "std": [0.3],
    }
    facts |= data or {}
    val = accuracy if val_accuracy is None else val_accuracy
    rows = []
    for epoch in range(1, n_epochs + 1):
        missing = 0.1 * (n_epochs - epoch)
        values = dict.fromkeys(METRICS, 0.0) | {"epoch": epoch, "lr": 0.1, "seconds": 1.0, "images_per_s": 100.0}
        values |= {"train_accuracy": share(accuracy - missing), "train_loss": loss + missing}
        values |= {"test_accuracy": share(accuracy - missing), "test_loss": loss + missing}
        values |= {"val_accuracy": share(val - missing), "val_loss": loss + missing}
        if facts["n_val"] == 0:
            values |= {"val_accuracy": None, "val_loss": None}
        rows.append(values)
    folder.mkdir(parents=True)
    write_metrics(folder, rows)
    record = new_record(
        name="test",
        config=to_dict(config),
        digest=digest(to_dict(config)),
        data=facts,
        versions={},
        git_commit=None,
        device={"name": "cpu", "threads": 1, "processor": "none"},
        started="2026-01-01T00:00:00+00:00",
        command=f"python -m reg_sweep.train norm={norm} l1={l1:g} l2={l2:g} seed={seed}",
        trial=trial,
    )
    record |= {
        "status": status,
        "epochs_done": n_epochs,
        "last": rows[-1] if rows else None,
        "best_val": rows[-1] if rows and facts["n_val"] else None,
        "weights": {"n": 10, "n_zero": 1, "n_near_zero": 2, "n_kernels": 5, "n_dead_kernels": 1},
        "layers": [{"name": f"{norm} conv Conv2d", "output": [2, 3, 3], "n_parameters": 18, "receptive_field": 3}],
        "n_parameters": 18,
        "seconds": 3.0,
        "ended": "2026-01-01T00:00:00+00:00",
    }
    write_record(folder, record)
    if predictions:
        write_predictions(folder, round((1 - accuracy) * facts["n_test"]) if n_wrong is None else n_wrong)
    return folder


def edit_record(run: Path, **facts: Any) -> None:
    """Changes facts of a run's record. For a fact that is a dict, it changes only the given keys."""
    record = json.loads((run / "run.json").read_text())
    for name, value in facts.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    (run / "run.json").write_text(json.dumps(record))


def write_predictions(folder: Path, n_wrong: int, n_test: int = N_TEST) -> None:
    """Predicts the next class for the first `n_wrong` images, with the first as the most confident."""
    label = np.arange(n_test) % 10
    wrong = np.arange(n_test) < n_wrong
    probability = np.where(wrong, 0.99 - 0.005 * np.arange(n_test), 1.0).astype(np.float32)
    np.savez(folder / PREDICTIONS_FILE, predicted=(label + wrong) % 10, probability=probability, label=label)


def write_arms(root: Path, scores: dict[tuple[str, float, float], list[float]], **shared: Any) -> None:
    """Writes arms (norm, l1, l2), given the test accuracies of seeds 1, 2, and so on."""
    for i, ((norm, l1, l2), accuracies) in enumerate(scores.items()):
        for seed, accuracy in enumerate(accuracies, 1):
            write_run(root / f"{i}-{seed}", norm=norm, l1=l1, l2=l2, seed=seed, accuracy=accuracy, **shared)


def write_study(folder: Path, trials: list[dict[str, Any]], **facts: Any) -> Path:
    """Writes a study.json of trials numbered as listed, each in the directory of its number, by default complete."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"state": "complete", "values": [0.1], "params": {}, "steps": [], "message": None}
    written = [{"number": n, "directory": str(n)} | whole | t for n, t in enumerate(trials)]
    study = {"schema": 1, "study": folder.name, "directions": ["minimize"], "importances": {}, "trials": written}
    (folder / "study.json").write_text(json.dumps(study | facts))
    return folder / "study.json"


def design_of(metric: str, looks: list[int], arms: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The design of a sequential study, as in study.json. The first arm is the baseline."""
    plain = {"alpha": 0.05, "margin": None, "variance": "moderated", "first_seed": 1}
    told = {"looks": looks, "max_seeds": looks[-1], "metric": metric, "baseline": arms[0], "arms": arms[1:]}
    return plain | told | more


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, n_test: int = N_TEST) -> Pixels:
    """Writes a made-up test batch of CIFAR-10 and makes its checksum the expected one; returns (n_test, 32, 32, 3)."""
    images = np.random.default_rng(0).integers(0, 256, (n_test, 32, 32, 3), np.uint8)
    batch = {"data": images.transpose(0, 3, 1, 2).reshape(n_test, -1), "labels": [i % 10 for i in range(n_test)]}
    content = pickle.dumps(batch)
    path = root / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    known = {"test_batch": hashlib.md5(content, usedforsecurity=False).hexdigest()}
    monkeypatch.setattr("reg_sweep.images._CIFAR10_TEST_MD5", known)
    return images


def comparisons(root: Path, **options: Any) -> list[Comparison]:
    """The comparisons of the runs under `root`; a sequential study judges its own runs."""
    results = [result(run) for run in read_runs(root)]
    studies = [match_runs(n, study, results) for n, study in enumerate(read_studies(root, problems=[]), 1)]
    return make_comparisons(results, studies=studies, **options)


def arm_of(comparison: Comparison, label: str) -> Arm:
    """The arm with this label."""
    return next(arm for arm in comparison.arms if arm.label == label)
