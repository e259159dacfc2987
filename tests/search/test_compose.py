"""A job's config, composed quickly."""

from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from toy_apps import STUDY, X

from reg_sweep.search.compose import JobComposer
from reg_sweep.search.space import space


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
    done = app(
        "sphere", *STUDY, *swept, "hydra.sweeper.n_trials=8", "hydra.job.config.override_dirname.exclude_keys=[z]"
    )
    assert done.code == 0, done.err
    assert compared == [True] * 10  # the rehearsed one, eight jobs, the best one


def test_only_what_is_a_number_to_hydra_too_and_no_option_of_a_group_is_set_without_composing():
    loader = SimpleNamespace(get_group_options=lambda name: ["1", "2"] if name == "size" else [])
    composer = JobComposer(loader)
    swept = [
        "a=1,-2.5e-3",
        "b=range(1,3)",
        "size=1,2",
        "other=1,2",
        "c=01,1",
        "e='1',2",
        "f=null,1",
        "+g=1,2",
    ]
    composer.prepare(space(OverridesParser.create().parse_overrides([*swept, "h={i: 1}", "h.i=1,2"])), {"other"})
    assert composer._numbers == {"a", "b"}
