"""Errors in a config, each as one line."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException

from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig, to_dict
from reg_sweep.config.targets import CONF
from reg_sweep.hydra_app.errors import SYNONYMS, explain, meant, unknown_key
from reg_sweep.hydra_app.internals import VERSION_BASE
from reg_sweep.hydra_app.refusals import wrong_flag


def refused(**changes) -> OmegaConfBaseException:
    with pytest.raises(OmegaConfBaseException) as error:
        OmegaConf.merge(OmegaConf.structured(RunConfig), changes)
    return error.value


def test_a_missing_option_names_the_group_its_options_and_the_closest_or_what_brings_it():
    error = MissingConfigException("long text", "norm/gbm", ["bn", "gbn", "none"])
    assert explain(error) == "norm must be one of bn, gbn, none, got 'gbm': did you mean 'gbn'?"
    error = MissingConfigException("long text", "hydra/launcher/submitit_slurm", ["basic", "joblib"])
    said = "hydra/launcher must be one of basic, joblib, got 'submitit_slurm': pip install 'reg_sweep[slurm]'"
    assert explain(error) == said


def test_an_override_that_can_not_be_read_is_quoted_with_what_to_type():
    """Hydra's parser says why in terms of its grammar's tokens."""
    said = explain(OverrideParseException("l1=[1", "mismatched\n  input"))
    assert said.startswith("'l1=[1' can't be read: a bracket, quote or comma is unmatched")
    assert said.endswith("""as text, write l1="'[1'\"""")
    assert "a key without spaces, got 'l 1'" in explain(OverrideParseException("l 1=0", "no viable alternative"))


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
        "n_trials must be a key of the config, got a sweeper's key: did you mean 'hydra.sweeper.n_trials', with "
        "study=optuna or another study?"
    )
    assert explain(refused(max_seeds=3)).endswith(
        "must be used with a study, got none: add study=until_verdict, or another study"
    )


def test_a_key_like_no_other_gets_no_suggestion():
    assert unknown_key("zzz", ["epochs"]) == "zzz must be a key of the config, got an unknown one (--help lists them)"


def test_any_other_error_is_its_own_words_in_one_line():
    assert explain(ConfigError("l1 must be\n  small")) == "l1 must be small"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["l1=1", "data.mean.0=1"], "data.mean.0 must be in a list or mapping that is set, but data.mean is null: "),
        (["++optimizer.betas.1=1"], "optimizer.betas.1 must be in .*, but optimizer.betas is null: set all of"),
        (["l1=1"], "a key must be in a list or mapping that is set"),
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


MEANT = {
    "optimizer.lr": "lr learning_rate optimizer.learning_rate max_lr",
    "l2": "weight_decay optimizer.weight_decay wd",
    "l1": "l1_lambda L1",
    "model.dropout": "dropout",
    "optimizer.momentum": "momentum",
    "runtime.device": "device gpu cpu",
    "runtime.threads": "num_workers",
    "epochs": "n_epochs epoch train.epochs",
    "batch_size": "batch bs",
    "data": "dataset",
    "schedule": "scheduler",
    "seed": "random_state seeds torch_seed",
    "schedule.gamma": "gamma",
    "model.channels": "channels",
    "name": "output_dir",
    "data.transforms": "augmentation",
    "data.flip": "hflip",
    "data.crop": "padding",
    "norm": "batch_norm",
    "norm.ghost_batch_size": "virtual_batch_size",
    "schedule.warmup": "warmup",
    "averaging": "ema",
    "callbacks": "tensorboard",
    "objective": "metric",
}


@pytest.mark.parametrize(("typed", "ours"), [(word, ours) for ours, words in MEANT.items() for word in words.split()])
def test_the_fields_words_lead_to_the_keys_of_this_program(typed, ours):
    known = list(to_dict(RunConfig()))
    assert f"got an unknown one: did you mean '{ours}'?" in unknown_key(typed, known)


@pytest.mark.parametrize(
    "word",
    ["eps", "image_size", "max_norm", "normalize", "project", "prune", "resume", "shuffle", "test_size", "version"],
)
def test_a_word_that_is_half_alike_leads_to_no_key_of_another_meaning(word):
    assert "did you mean" not in unknown_key(word, list(to_dict(RunConfig())))


def test_every_key_that_a_synonym_leads_to_is_there():
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", ["model=mlp", "+model.channels=1"])
    options = {path.stem for path in CONF.glob("*/*.yaml")}
    for ours in SYNONYMS:
        assert ours in options or OmegaConf.select(config, ours, default="absent") != "absent", ours
    words = [word for words in SYNONYMS.values() for word in words]
    assert {word for word in words if words.count(word) > 1} <= {"batch"}


FLAGS = {"--epochs=3": "epochs=3", "--lr=0.1": "optimizer.lr=0.1", "--weight-decay=0.1": "l2=0.1"}


@pytest.mark.parametrize(("argument", "write"), [*FLAGS.items(), ("--batch-size", "batch_size=...")])
def test_a_setting_typed_as_a_flag_is_told_as_what_it_is(argument, write):
    assert wrong_flag([argument], meant) == f"{argument} must be a setting, without dashes: write {write}"
    assert wrong_flag(["--multirun", "--cfg", "job", "--conf", "-m", "--config-dir=a", "l1=0"], meant) is None


@pytest.mark.parametrize("override", ["name=a\nb", "l1=\x1b[31m", "name=a\u202eb"])
def test_characters_that_are_not_printable_are_told_without_the_grammars_words(override):
    said = explain(OverrideParseException(override=override, message="LexerNoViableAltException: name=a"))
    assert said == f"{override!r} must be one line of printable characters"


@pytest.mark.parametrize("override", ["l1=0,", "0.001", "epochs"])
def test_a_setting_in_pieces_is_told_without_the_grammars_words(override):
    said = explain(OverrideParseException(override=override, message="no viable alternative at input '0.001'"))
    assert "viable" not in said
    assert "in one piece: a list has no spaces, as in l1=0,0.001" in said
