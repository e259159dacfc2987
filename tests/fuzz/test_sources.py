"""Strangers' files, mutated: whatever their bytes, the readers answer, or name the file in one line."""

import gzip
import shutil
from pathlib import Path

import foreign_runs
import pytest
from fuzz_cases import Bytes, bytes_mutated, cases, csv_mutated, json_mutated, n_cases

from reg_sweep.comparison.results import strangers
from reg_sweep.readers.catches import caught
from reg_sweep.readers.choose import choose
from reg_sweep.readers.foreign import ReadError, Wanted
from reg_sweep.readers.sources import find_foreign

DATA = Path(__file__).parents[1] / "readers" / "data"
ATTACKED: list[tuple[str, str, Bytes]] = [
    ("csv", "results.csv", csv_mutated),
    ("csv", "results.csv", bytes_mutated),
    ("lightning", "lightning_logs/version_0/hparams.yaml", bytes_mutated),
    ("lightning", "lightning_logs/version_0/metrics.csv", csv_mutated),
    ("huggingface", "base-1/trainer_state.json", json_mutated),
    ("huggingface", "base-1/training_args.bin", bytes_mutated),
    ("tensorboard", "base-1/events.out.tfevents.1.host.1.0", bytes_mutated),
    ("wandb", "wandb/*/*.wandb", bytes_mutated),
    ("mlflow", "mlruns/*/*/meta.yaml", bytes_mutated),
    ("mlflow", "mlruns/*/*/metrics/val_acc", bytes_mutated),
    ("mlflow_db", "mlflow.db", bytes_mutated),
    ("optuna", "study.db", bytes_mutated),
    ("trackio", "digits.db", bytes_mutated),
]


@pytest.mark.parametrize(("kind", "name", "mutated"), ATTACKED)
def test_a_strangers_file_is_read_or_named(kind, name, mutated, tmp_path):
    folder = tmp_path / kind
    if kind == "csv":
        foreign_runs.main(tmp_path, [kind])
    else:
        shutil.copytree(DATA / kind, folder)
    for packed in folder.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    path = sorted(folder.glob(name))[0]
    valid = path.read_bytes()
    said: list[str] = []
    for number, r in cases(n_cases(12), f"{kind}/{name}"):
        path.write_bytes(mutated(r, valid))
        try:
            found = find_foreign([folder], Wanted())
            said += found.problems
            if found.runs:
                strangers(caught(choose(found.runs, Wanted())), kind)
        except ReadError as error:
            said.append(str(error))
        except Exception as error:
            error.add_note(f"case {number} of {kind}/{name}")
            raise
    assert [line for line in said if not line.isprintable() or len(line) > 2000] == []
