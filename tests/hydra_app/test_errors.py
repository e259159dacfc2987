"""Errors in a config, each as one line."""

import re

import pytest
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from reg_sweep.config.schema import ConfigError, RunConfig
from reg_sweep.hydra_app.errors import explain, unknown_key


def refused(**changes) -> OmegaConfBaseException:
    with pytest.raises(OmegaConfBaseException) as error:
        OmegaConf.merge(OmegaConf.structured(RunConfig), changes)
    return error.value


def test_a_missing_option_names_the_group_its_options_and_the_closest():
    error = MissingConfigException("long text", "norm/gbm", ["bn", "gbn", "none"])
    assert explain(error) == "norm must be one of bn, gbn, none, got 'gbm': did you mean 'gbn'?"


def test_a_launcher_that_is_not_installed_is_told_with_what_brings_it():
    error = MissingConfigException("long text", "hydra/launcher/submitit_slurm", ["basic", "joblib"])
    assert explain(error) == (
        "hydra/launcher must be one of basic, joblib, got 'submitit_slurm': pip install 'reg_sweep[slurm]'"
    )


def test_an_override_that_can_not_be_read_is_quoted():
    assert explain(OverrideParseException("l1=[1", "mismatched\n  input")) == "'l1=[1' can't be read: mismatched input"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l1": "abc"}, "l1 must be a number, got 'abc'"),
        ({"epochs": "few"}, "epochs must be a whole number, got 'few'"),
        ({"data": {"rotation": "left"}}, "data.rotation must be a number, got 'left'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_the_type_that_it_must_have(changes, message):
    assert explain(refused(**changes)) == message


def test_an_unknown_key_is_named_with_the_closest_known_one():
    assert explain(refused(epoch=3)) == (
        "epoch must be a key of the config, got an unknown one: did you mean 'epochs'? (--help lists them)"
    )
    assert "did you mean 'data.rotation'?" in explain(refused(data={"rotate": 3}))


def test_a_sweepers_setting_is_told_where_it_belongs():
    import hydra_plugins.reg_sweep_plugins.optuna_study  # noqa: F401 - Hydra imports it at every command's start

    assert explain(refused(n_trials=3)) == (
        "n_trials must be a key of the config, got the sweeper's: did you mean 'hydra.sweeper.n_trials'?"
    )


def test_a_key_like_no_other_gets_no_suggestion():
    assert unknown_key("zzz", ["epochs"]) == "zzz must be a key of the config, got an unknown one (--help lists them)"


def test_any_other_error_is_its_own_words_in_one_line():
    assert explain(ConfigError("l1 must be\n  small")) == "l1 must be small"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["l1=1", "data.mean.0=1"], "data.mean.0 must lie in a list or a mapping that is set, but data.mean is null: "),
        (["++optimizer.betas.1=1"], "optimizer.betas.1 must lie in .*, but optimizer.betas is null: give .* whole"),
        (["l1=1"], "a key must lie in a list or a mapping that is set"),
    ],
)
def test_a_key_below_what_is_null_is_named_with_what_to_do(typed, told):
    with pytest.raises((AssertionError, OmegaConfBaseException)) as error:  # before OmegaConf 2.4, and since
        OmegaConf.update(OmegaConf.structured(RunConfig), "data.mean.0", 1)
    assert re.match(told, explain(error.value, typed=typed))
    assert "\n" not in explain(error.value, typed=typed)


def test_an_interpolation_that_can_not_be_read_is_quoted_with_its_key():
    error = HydraException("")
    error.__cause__ = GrammarParseError("no viable alternative at input '${'")
    assert explain(error, typed=["l1=1", "norm='${'"]) == "norm='${' can't be read: no viable alternative at input '${'"
    assert explain(error) == "a value can't be read: no viable alternative at input '${'"
