"""A grid's jobs as Hydra composes them."""

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from reg_sweep import train
from reg_sweep.hydra_app.internals import VERSION_BASE, JobLoader


def hydras_loader():
    return GlobalHydra.instance().hydra.config_loader


def test_each_job_of_a_grid_is_composed_as_hydra_composes_it(start, monkeypatch):
    shared, equal = JobLoader.load_sweep_config, []

    def compared(loader, master_config, sweep_overrides):
        config = shared(loader, master_config, sweep_overrides)
        reference = loader._loader.load_sweep_config(master_config, sweep_overrides)
        equal.append(repr(config) == repr(reference) and OmegaConf.to_yaml(config) == OmegaConf.to_yaml(reference))
        return config

    monkeypatch.setattr(JobLoader, "load_sweep_config", compared)
    monkeypatch.setattr(train, "train", lambda *_, **__: {"status": "diverged"})
    assert start("-m", "norm=bn,gbn", "l1=0.001", "name=a", "report=false") == 0
    assert len(equal) >= 2 * 2
    assert all(equal)


def test_another_process_gets_hydras_own_loader():
    """As joblib's launcher sends it."""
    cloudpickle = pytest.importorskip("cloudpickle")
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        loader = hydras_loader()
    assert type(cloudpickle.loads(cloudpickle.dumps(JobLoader(loader)))) is type(loader)
    assert JobLoader(loader).get_search_path() == loader.get_search_path()
