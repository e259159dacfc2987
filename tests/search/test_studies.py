"""The ready studies in conf/study/."""

import math
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from reg_sweep.hydra_app.app import to_run_config
from reg_sweep.hydra_app.internals import VERSION_BASE
from reg_sweep.search.settings import Settings
from reg_sweep.search.space import space

CONF = Path(__file__).parents[2] / "conf"
STUDIES = sorted(p.stem for p in (CONF / "study").glob("*.yaml"))
N_TRIALS = {"five_arms": 18, "four_arms": 21, "l1_grid": 12, "l2_grid": 12, "l1_search": 30, "l2_search": 30}
N_TRIALS |= {"exercise_b": 33}


@pytest.fixture
def composed(request):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        yield request.param, lambda overrides, **more: compose("config", overrides, **more)


@pytest.mark.parametrize("composed", STUDIES, indirect=True)
def test_a_study_needs_no_flag_and_every_job_of_it_is_a_valid_run(composed):
    study, config_of = composed
    config = config_of([f"study={study}"], return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    settings = Settings(**{k: v for k, v in sweeper.items() if not k.startswith("_")})
    assert f"study={study}" in (CONF / "study" / f"{study}.yaml").read_text().splitlines()[1]
    if study == "optuna":  # the others' base: it has no space of its own
        assert settings.params == {}
        return
    assert config.name == study
    if study == "until_verdict":  # its arms are typed beside it; they are judged by what a run's objective is
        assert (settings.params, settings.until_verdict, settings.direction) == ({}, True, "maximize")
        assert to_run_config(config_of(["objective=test_accuracy"])).objectives == [config.objective]
        return
    s = space(OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in settings.params.items()]), settings.zip)
    for point in settings.enqueue or []:
        for name, value in point.items():
            distribution = s.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(value))
    listed = {name: p.listed() for name, p in s.parameters.items()}
    if settings.until_verdict:  # the arms are its points, whose first is the baseline, without a regularizer
        assert set(map(str, settings.enqueue[0].values())) == {"0", "none"}
    elif settings.n_trials is None:
        assert settings.sampler["_target_"] == "optuna.samplers.GridSampler"
        assert math.prod(map(len, listed.values())) == N_TRIALS[study]
    else:
        assert settings.n_trials == N_TRIALS.get(study, settings.n_trials)
    for pick in (0, -1):
        params = {
            n: v[pick] if v else (s.distributions[n].low, s.distributions[n].high)[pick] for n, v in listed.items()
        }
        run = to_run_config(config_of(s.overrides(params)))
        assert len(run.objectives) == len(settings.directions)


@pytest.mark.parametrize("group", ["study", "experiment"])
def test_the_help_tells_each_study_and_experiment_in_words(group):
    template = OmegaConf.load(CONF / "config.yaml").hydra.help.template
    told = template.partition("Studies (")[2].partition("Groups (")[0]
    names = {path.stem for path in (CONF / group).glob("*.yaml")}
    assert names <= set(re.findall(r"\w+", told))


def test_the_whole_of_exercise_b_is_its_three_studies():
    def pairs(name):
        params = OmegaConf.to_container(OmegaConf.load(CONF / "study" / f"{name}.yaml").hydra.sweeper.params)
        l1, l2 = (str(params[key]).split(",") for key in ("l1", "l2"))
        n = max(len(l1), len(l2))
        return set(zip(l1 * (n // len(l1)), l2 * (n // len(l2)), strict=True))

    assert pairs("exercise_b") == pairs("four_arms") | pairs("l1_grid") | pairs("l2_grid")
