"""Spaces that depend on what was chosen."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from toy_apps import APPS, SEED, STUDY, load, run_process

KIND = "kind=plain,rated"
CUSTOM = "hydra.sweeper.custom_search_space=conditional"
RANDOM = "hydra/sweeper/sampler=random"


@pytest.mark.slow
def test_a_parameter_is_suggested_where_another_asks_for_it(tmp_path):
    arguments = [*STUDY, KIND, RANDOM, SEED, f"{CUSTOM}.configure", "hydra.sweeper.n_trials=8", "width=0.25"]
    done = run_process(tmp_path, "conditional", *arguments)
    assert done.code == 0, done.out
    study = load(tmp_path / "out")
    assert {t.params["kind"] for t in study.trials} == {"plain", "rated"}
    for t in study.trials:
        assert ("rate" in t.params) == ("+word" in t.params) == (t.params["kind"] == "rated")
        assert 1 <= t.params.get("rate", 1) <= 1.25
    results = OmegaConf.load(tmp_path / "out/optimization_results.yaml")
    assert results.best_params == study.best_params
    best = run_process(tmp_path, "conditional", "--config-dir", "out", "+experiment=best", "--cfg", "job")
    assert f"rate: {study.best_params['rate']}\n" in best.out
    changed = run_process(tmp_path, "conditional", *arguments[:-1], "width=0.25", f"{CUSTOM}.fixes")
    assert "study out was begun with other settings: hydra.sweeper.custom_search_space was" in changed.out


@pytest.mark.slow
def test_a_later_parameter_may_be_enqueued(app, monkeypatch):
    monkeypatch.syspath_prepend(APPS)
    point = "hydra.sweeper.enqueue=[{kind: rated, rate: 1.125}]"
    done = app("conditional", *STUDY, KIND, RANDOM, f"{CUSTOM}.configure", point, "hydra.sweeper.n_trials=1")
    assert done.code == 0, done.err
    assert load().trials[0].params["rate"] == 1.125


@pytest.mark.slow
def test_fixed_values_and_notes_of_the_app_are_attributes_of_each_trial(app):
    done = app("sphere", *STUDY, "x=0,1", "scale=ten", "z=2", "hydra/sweeper/sampler=grid")
    assert done.code == 0, done.err
    for t in load().trials:
        assert {k: v for k, v in t.user_attrs.items() if k != "job"} == {"scale": "ten", "z": 2}
    facts = json.loads(Path("out/study.json").read_text())
    assert facts["trials"][0]["attributes"] == {"scale": "ten", "z": 2}
