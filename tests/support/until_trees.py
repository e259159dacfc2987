"""Writes made-up sequential studies, with their runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from trees import design_of, write_run

from reg_sweep.runs.study import Study, read_study

LOOKS = (3, 5, 8)
BASE, WORSE, OPEN = 0.0, 0.001, 0.1


Scores = dict[float, list[float | None]]


def scores(seed: int = 0) -> Scores:
    """The scores of a baseline and two arms, one far worse and one equally good, on eight seeds each."""
    g = np.random.default_rng(seed)
    base = 0.9 + 0.01 * g.normal(size=8)
    worse, still_open = base - 0.3 + 0.002 * g.normal(size=8), base + 0.01 * g.normal(size=8)
    return {BASE: base.tolist(), WORSE: worse.tolist(), OPEN: still_open.tolist()}


def write_until(
    root: Path, values: Scores, looks: list[dict[str, Any]], margin: float | None = None, n: int = 8
) -> Study:
    """Writes a study over l1 and its runs, given the trials' values: None is a failed trial, inf a diverged one."""
    trials = []
    for l1, of_seeds in values.items():
        for seed, value in enumerate(of_seeds[:n], 1):
            number = len(trials)
            state, listed = ("failed", None) if value is None else ("complete", [value if np.isfinite(value) else None])
            params = {"l1": l1, "seed": seed}
            facts = {"values": listed, "steps": [], "message": None, "directory": str(number)}
            trials.append({"number": number, "state": state, "params": params, **facts})
            status = "failed" if value is None else "complete" if np.isfinite(value) else "diverged"
            score = value if status == "complete" else 0.1
            trial = {"study": "until_verdict", "number": number, "params": params, "sequential": True}
            write_run(root / str(number), l1=l1, seed=seed, accuracy=score, status=status, trial=trial)
    arms = [{"l1": l1} for l1 in values]
    design = design_of("test_accuracy", list(LOOKS), arms, margin=margin)
    record = {"schema": 1, "study": "until_verdict", "directions": ["maximize"], "command": None, "importances": {}}
    record |= {"trials": trials, "kind": "until_verdict", "design": design, "looks": looks}
    (root / "study.json").write_text(json.dumps(record))
    return read_study(root / "study.json")


def look(seeds: int, **decisions: str) -> dict[str, Any]:
    """The record of an interim analysis, with the decisions on WORSE and OPEN."""
    l1 = {"worse": WORSE, "open": OPEN}
    rest = {"n_seeds": seeds, "n_diverged": 0, "n_failed": 0, "estimate": None, "ci_low": None, "ci_high": None}
    return {"seeds": seeds, "arms": [{"params": {"l1": l1[k]}, "decision": v} | rest for k, v in decisions.items()]}


ALL_LOOKS = [look(3, worse="worse", open="undecided"), look(5, open="undecided"), look(8, open="undecided")]
