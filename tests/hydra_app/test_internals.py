"""A command's config and a grid's jobs as Hydra composes them, composed once."""

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf
from test_train import close_logs, start  # noqa: F401 # two fixtures

from reg_sweep import train
from reg_sweep.hydra_app.internals import VERSION_BASE, CommandLoader, JobLoader


def hydras_loader():
    return GlobalHydra.instance().hydra.config_loader


def test_each_job_of_a_grid_is_composed_once_and_as_hydra_composes_it(start, monkeypatch):  # noqa: F811
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        plain = type(hydras_loader())
    by_hydra, shared = plain.load_sweep_config, JobLoader.load_sweep_config
    composed, equal = [], []

    def noted(loader, master_config, sweep_overrides):
        composed.append(sweep_overrides)
        return by_hydra(loader, master_config, sweep_overrides)

    def compared(loader, master_config, sweep_overrides):
        config = shared(loader, master_config, sweep_overrides)
        reference = by_hydra(loader._loader, master_config, sweep_overrides)
        equal.append(repr(config) == repr(reference) and OmegaConf.to_yaml(config) == OmegaConf.to_yaml(reference))
        return config

    monkeypatch.setattr(plain, "load_sweep_config", noted)
    monkeypatch.setattr(JobLoader, "load_sweep_config", compared)
    monkeypatch.setattr(train, "train", lambda *_, **__: {"status": "diverged"})
    assert start("-m", "norm=bn,gbn", "l1=0.001", "name=a", "report=false") == 0
    assert composed == [[f"norm={norm}", "l1=0.001", "name=a", "report=False"] for norm in ("bn", "gbn")]
    assert len(equal) >= 2 * 2
    assert all(equal)


@pytest.mark.parametrize(
    ("overrides", "more", "mode"),
    [
        (["norm=gbn"], ["hydra.mode=RUN"], RunMode.RUN),
        (["norm=gbn", "hydra.mode=RUN"], [], RunMode.RUN),
        (["l1=0,0.1"], ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN),
        (["study=l1_search"], [], RunMode.MULTIRUN),
        (["norm=bn"], ["norm=gbn"], RunMode.RUN),
    ],
)
def test_a_commands_config_is_the_one_that_hydra_composes(overrides, more, mode):
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        loader = CommandLoader(hydras_loader())
        loader.load_configuration("config", overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        config = loader.load_configuration("config", overrides + more, mode)
        reference = hydras_loader().load_configuration("config", overrides + more, mode)
    assert repr(config) == repr(reference)
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(reference)


def test_a_command_is_composed_once(start, monkeypatch):  # noqa: F811
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        plain = type(hydras_loader())
    by_hydra, composed = plain.load_configuration, []

    def noted(loader, config_name, overrides, *more, **named):
        composed.append(overrides)
        return by_hydra(loader, config_name, overrides, *more, **named)

    monkeypatch.setattr(plain, "load_configuration", noted)
    monkeypatch.setattr(train, "train", lambda *_, **__: {"status": "diverged"})
    assert start("norm=bn", "name=a") == 1  # diverged
    assert len(composed) == (1 if hydra.__version__.startswith("1.3.") else 0)  # 1.4 asks its loader otherwise


@pytest.mark.parametrize(
    ("override", "reason"),
    [("l1=0,0.1", "Ambiguous value for argument 'l1=0,0.1'"), ("norm=???", "You must specify 'norm'")],
)
def test_what_hydra_refuses_in_a_run_alone_is_refused(override, reason):
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        loader = CommandLoader(hydras_loader())
        loader.load_configuration("config", [override], RunMode.MULTIRUN, validate_sweep_overrides=False)
        with pytest.raises(ConfigCompositionException, match=reason):
            loader.load_configuration("config", [override], RunMode.RUN)


@pytest.mark.parametrize("ours", [JobLoader, CommandLoader])
def test_another_process_gets_hydras_own_loader(ours):
    """As joblib's launcher sends it."""
    cloudpickle = pytest.importorskip("cloudpickle")
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        loader = hydras_loader()
    assert type(cloudpickle.loads(cloudpickle.dumps(ours(loader)))) is type(loader)
    assert ours(loader).get_search_path() == loader.get_search_path()
