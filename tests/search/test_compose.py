"""A job's config, composed quickly."""

import pytest
from omegaconf import OmegaConf
from toy_apps import STUDY, X

from reg_sweep.search.compose import JobComposer, check_same_sweep


def test_a_sweep_whose_points_are_not_a_number_is_the_same_sweep():
    nodes = {"launcher": {}, "sweep": {}, "sweeper": {"baseline": {"x": float("nan")}}}
    check_same_sweep(OmegaConf.create({"hydra": nodes}), OmegaConf.create({"hydra": nodes}), ["x=1"])


@pytest.mark.slow
def test_a_config_composed_quickly_is_the_one_that_hydra_composes(app, monkeypatch):
    """The reference is Hydra's own loader, for every job of a study with numbers, choices, groups and fixed values."""
    compared = []
    quick = JobComposer.load_sweep_config

    def both(self, master, overrides):
        config, reference = quick(self, master, overrides), self._loader.load_sweep_config(master, overrides)
        compared.append(config == reference and repr(config) == repr(reference))
        assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(reference)
        return config

    monkeypatch.setattr(JobComposer, "load_sweep_config", both)
    swept = [X, "y=range(-1, 1)", "scale=ten,one", "+extra=interval(0, 1)", "z=2", "scale.factor=choice(1.5, 2)"]
    app("sphere", *STUDY, *swept, "hydra.sweeper.n_trials=8", "hydra.job.config.override_dirname.exclude_keys=[z]")
    assert all(compared)
    assert len(compared) >= 10  # the rehearsed ones, eight jobs, the best one
