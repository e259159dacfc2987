"""Replicates: results are means over seeds."""

import json
from pathlib import Path

import pytest
from toy_apps import STUDY, load

from reg_sweep.runs.study import read_study

GRID = ["hydra/sweeper/sampler=grid", "seed=1,2,3"]


@pytest.mark.slow
def test_the_best_of_a_grid_with_seeds_is_an_arm_by_its_mean_and_no_seed_is_proposed(app):
    done = app("arms", *STUDY, *GRID, "arm=plain,good,bad", "noise=0", "hydra.sweeper.direction=maximize")
    assert done.code == 0, done.err
    best = Path("out/experiment/best.yaml").read_text()
    numbers = [t.number for t in load().trials if t.params["arm"] == "good"]
    values = [t.value for t in load().trials if t.params["arm"] == "good"]
    assert "arm: good" in best
    assert "seed:" not in best
    said = f"trials {', '.join(map(str, numbers))}, mean value {sum(values) / 3:.6g} over seed"
    assert best.splitlines()[1] == f"# study out: {said}"
    assert "best points, by the mean over seed" in done.out
    assert "best " not in done.out.split("best points")[0]  # no line calls a lucky seed the best
    facts = json.loads(Path("out/study.json").read_text())
    assert (facts["replicates"], facts["best"], facts["importances"]) == (["seed"], numbers, {})
    assert [t.number for t in read_study(Path("out/study.json")).ranked[:3]] == numbers
    results = Path("out/optimization_results.yaml").read_text()
    assert "arm: good" in results
    assert "seed" not in results


@pytest.mark.slow
def test_replicates_may_have_another_name_and_no_other_key_is_averaged(app):
    done = app("sphere", *STUDY, "hydra/sweeper/sampler=grid", "x=0,1", "z=1,2", "hydra.sweeper.replicates=[z]")
    assert done.code == 0, done.err
    assert read_study(Path("out/study.json")).ranked_points[0].params == {"x": 0}


def test_a_replicate_that_is_not_swept_is_refused(app):
    done = app("sphere", *STUDY, "x=0,1", "hydra.sweeper.replicates=[fold]")
    assert done.code == 1
    assert "hydra.sweeper.replicates: fold is not swept: the space has x" in done.err


def test_a_study_from_before_there_were_replicates_does_not_show_a_seeds_importance(tmp_path):
    from trees import write_study

    trials = [{"params": {"seed": s, "norm": n}, "values": [v]} for s, n, v in ((1, "a", 0.0), (2, "a", 9.0))]
    trials += [{"params": {"seed": s, "norm": "b"}, "values": [1.0]} for s in (1, 2)]
    study = read_study(write_study(tmp_path, trials, importances={"seed": 0.9, "norm": 0.1}))
    assert study.importances == {}
    assert [t.number for t in study.ranked] == [2, 3, 0, 1]
    assert study.kind == "grid"
