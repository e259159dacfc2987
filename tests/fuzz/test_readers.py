"""Readers of what others may have made: whatever the bytes, they answer, or name the file in one line."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import Bytes, bytes_mutated, cases, csv_mutated, json_mutated, n_cases, npz_mutated, weights_mutated
from idx_files import idx
from trees import N_TEST, write_run
from until_trees import ALL_LOOKS, scores, write_until

from reg_sweep.comparison.results import result
from reg_sweep.config.rules import DataError
from reg_sweep.images import npz_images, read_test_images
from reg_sweep.images.source import read_npz_test_images
from reg_sweep.runs.arrays import read_predictions, read_weights, write_weights
from reg_sweep.runs.reading import Recorded, Run, read_metrics, read_record, read_recorded, read_rows, read_run
from reg_sweep.runs.record import RecordError
from reg_sweep.runs.recording import record_run
from reg_sweep.runs.study import read_study

ORDINARY = 40


def attack(path: Path, mutated: Bytes, read: Callable[[], object], ordinary: int = ORDINARY) -> tuple[int, int]:
    """Reads the file at `path` in many mutations; how many were refused, and of how many."""
    valid, said, n = path.read_bytes(), [], n_cases(ordinary)
    for number, r in cases(n, path.name):
        path.write_bytes(mutated(r, valid))
        try:
            read()
        except (RecordError, DataError) as error:
            said.append(str(error))
        except Exception as error:
            error.add_note(f"case {number} of {path.name}")
            raise
    unclear = [s for s in said if not (s.startswith(str(path)) and s.isprintable() and len(s) < len(str(path)) + 600)]
    assert not unclear
    print(f"{path.name}: {n:,} cases, {len(said):,} refused")
    return len(said), n


def test_any_record_is_read_or_named(tmp_path):
    folder = write_run(tmp_path / "run", trial={"study": "it", "number": 3, "params": {"l1": 0.1, "norm": "bn"}})
    refused, n = attack(folder / "run.json", json_mutated, lambda: result(read_run(folder)))
    assert 0.3 < refused / n < 0.98


def test_any_record_of_another_loop_is_read_or_named(tmp_path):
    with record_run(tmp_path / "run", {"method": "gbn", "opt": {"lr": 0.1}}, seed=3) as run:
        for epoch in (1, 2):
            run.log(epoch, **{"val/acc": 0.1 * epoch, "loss": 1.0})

    def read() -> None:
        record, rows = read_recorded(tmp_path / "run"), read_rows(tmp_path / "run")
        Recorded(tmp_path, record, rows).arm  # noqa: B018 - computed

    refused, n = attack(tmp_path / "run" / "run.json", json_mutated, read)
    assert 0.3 < refused / n < 0.98
    with record_run(tmp_path / "other", {}, seed=3) as run:
        run.log(1, acc=0.5)
    attack(tmp_path / "other" / "metrics.csv", csv_mutated, lambda: read_rows(tmp_path / "other"))


def test_any_history_gives_the_rows_before_its_damage(tmp_path):
    folder = write_run(tmp_path / "run")
    record = read_record(folder)
    attack(folder / "metrics.csv", csv_mutated, lambda: result(Run(folder, record, read_metrics(folder))))


@pytest.mark.parametrize("kind", ["search", "until_verdict"])
def test_any_study_is_read_or_named(tmp_path, kind):
    write_until(tmp_path, scores(), ALL_LOOKS)
    path = tmp_path / "study.json"
    if kind == "search":
        path.write_bytes(path.read_bytes().replace(b'"until_verdict", "design"', b'"search", "other"'))

    def read() -> None:
        study = read_study(path)
        assert study.ranked is not None
        assert study.parameters is not None

    attack(path, json_mutated, read)


def test_any_predictions_are_read_or_named(tmp_path):
    folder = write_run(tmp_path / "run")

    def read() -> None:
        for name, array in read_predictions(folder, N_TEST).items():
            assert array.shape == (N_TEST,)
            assert array.dtype == (np.float64 if name == "probability" else np.int64)

    attack(folder / "predictions.npz", npz_mutated, read)


def test_any_archive_of_ones_own_is_read_or_named(tmp_path):
    pixels, labels = np.zeros((9, 5, 4), np.uint8), np.arange(9)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, train_images=pixels, train_labels=labels, test_images=pixels, test_labels=labels)

    def read() -> None:
        read_npz_test_images(tmp_path, "a.npz")  # for a report: as good as none
        npz_images(str(tmp_path), "a.npz")

    attack(path, npz_mutated, read)


def test_any_weights_are_read_or_named(tmp_path):
    g = np.random.default_rng(0)
    shapes = {"conv.weight": (3, 2, 3, 3), "conv.bias": (3,), "norm.weight": (3,), "head.weight": (4, 3, 1, 1)}
    write_weights(tmp_path, {name: g.normal(size=s).astype(np.float32) for name, s in shapes.items()})

    def read() -> None:
        for array in (read_weights(tmp_path) or {}).values():
            assert array.size > 0
            assert np.isfinite(array).all()

    attack(tmp_path / "weights.safetensors", weights_mutated, read)


@pytest.mark.parametrize("part", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize("packed", [False, True])
def test_any_idx_file_is_read_or_as_good_as_none(tmp_path, part, packed):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {"images-idx3": np.zeros((7, 5, 4), np.uint8), "labels-idx1": np.arange(7, dtype=np.uint8)}
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if packed else idx(array)
        (raw / f"t10k-{name}-ubyte{'.gz' * packed}").write_bytes(content)

    def read() -> None:
        found = read_test_images(tmp_path, "MNIST")
        if found is not None:
            assert len(found[0]) == len(found[1]) > 0

    attack(raw / f"t10k-{part}-ubyte{'.gz' * packed}", bytes_mutated, read)
