"""Keys that vary together in a study."""

import json
from pathlib import Path

import pytest
from toy_apps import STUDY, load

ZIP = ["x=0,0.25,1", "y=0,-0.25,-0.25", "hydra.sweeper.zip=[[x,y]]", "hydra/sweeper/sampler=grid"]


@pytest.mark.slow
def test_a_zipped_grid_has_a_trial_for_each_row_and_its_record_the_single_keys(app):
    done = app("sphere", *STUDY, *ZIP)
    assert done.code == 0, done.err
    wanted = {(0, 0), (0.25, -0.25), (1, -0.25)}
    assert {(t.user_attrs["x"], t.user_attrs["y"]) for t in load().trials} == wanted
    facts = json.loads(Path("out/study.json").read_text())
    assert {(t["params"]["x"], t["params"]["y"]) for t in facts["trials"]} == wanted
    assert all("attributes" not in t for t in facts["trials"])
    best = Path("out/experiment/best.yaml").read_text()
    assert "x: 0.25\n'y': -0.25\n" in best
    assert Path("out/optimization_results.yaml").read_text().startswith("name: optuna\nbest_params:\n  x: 0.25\n")
    assert "trial 0: x,y=" in done.out


@pytest.mark.slow
def test_a_point_of_zipped_keys_is_enqueued_by_single_keys(app):
    done = app("sphere", *STUDY, *ZIP[:3], "hydra.sweeper.n_trials=1", "hydra.sweeper.enqueue=[{x: 1, y: -0.25}]")
    assert done.code == 0, done.err
    assert load().trials[0].params == {"x,y": "1,-0.25"}


def test_a_seed_can_not_be_zipped(app):
    done = app("arms", *STUDY, "seed=1,2", "x=1,2", "hydra.sweeper.zip=[[seed,x]]")
    assert done.code == 1
    assert "hydra.sweeper.zip: seed must vary with every point, since results are averaged over it" in done.err
