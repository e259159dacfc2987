"""The whole page over trees in which any file may be anything: it is written, and good runs are on it."""

import random
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzz_cases import Bytes, cases, csv_mutated, json_mutated, n_cases, npz_mutated, weights_mutated
from pages import BN, L1, report, rows
from trees import write_arms, write_run
from until_trees import ALL_LOOKS, scores, write_until

from reg_sweep.runs.arrays import write_weights

MUTATED: dict[str, Bytes] = {
    "run.json": json_mutated,
    "metrics.csv": csv_mutated,
    "predictions.npz": npz_mutated,
    "weights.safetensors": weights_mutated,
    "study.json": json_mutated,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Two good arms, a study of each kind, and runs that differ in a setting each."""
    root = tmp_path_factory.mktemp("tree")
    write_arms(root / "good", {BN: [0.8, 0.9], L1: [0.85, 0.95]})
    for n in range(4):
        trial = {"study": "search", "number": n, "params": {"l1": 0.1 * n, "norm": "bn"}}
        write_run(root / "search" / str(n), l1=0.1 * n, seed=5, trial=trial)
    write_until(root / "until", scores(), ALL_LOOKS, n=3)
    shutil.copy(root / "until" / "study.json", root / "search" / "study.json")
    for n, norm in enumerate(("bn", "bn", "gn", "none")):
        write_run(root / "odd" / str(n), norm=norm, l2=0.01 * n, seed=1 + n % 2)
    g = np.random.default_rng(0)
    for folder in [path.parent for path in root.rglob("run.json")]:
        shapes = {"conv.weight": (3, 2, 3, 3), "head.weight": (4, 3)}
        write_weights(folder, {name: g.normal(size=s).astype(np.float32) for name, s in shapes.items()})
    return root


def damage(r: random.Random, root: Path) -> list[Path]:
    """Mutates some of the files outside of `good`."""
    files = sorted(p for p in root.rglob("*") if p.name in MUTATED and "good" not in p.relative_to(root).parts)
    hurt = r.sample(files, r.choice((1, 3, 10)))
    for path in hurt:
        path.write_bytes(MUTATED[path.name](r, path.read_bytes()))
    return hurt


@pytest.mark.slow
def test_any_tree_becomes_a_page_with_its_good_runs(tree, tmp_path):
    n = n_cases(1, share=0.02)
    for number, r in cases(n, "page"):
        root = tmp_path / str(number)
        shutil.copytree(tree, root)
        hurt = damage(r, root)
        is_drawn = n > 10 and number % 10 == 0
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing from font")
                page, verdict = report(root, out=tmp_path / f"report{number}", is_drawn=is_drawn)
        except Exception as error:
            error.add_note(f"case {number}: {', '.join(str(p.relative_to(root)) for p in hurt)}")
            raise
        assert verdict
        assert len(page.ids) == len(set(page.ids))
        folders = {row["folder"] for row in rows(tmp_path / f"report{number}" / "runs.csv")}
        assert {str(root / "good" / f"{arm}-{seed}") for arm in (0, 1) for seed in (1, 2)} <= folders, number
        shutil.rmtree(root)
    print(f"{n:,} trees")
