"""A study's settings."""

from reg_sweep.search.settings import Settings


def test_settings_are_what_the_plugin_offers():
    from hydra_plugins.reg_sweep_plugins.optuna_study import OptunaStudyConf

    own = set(OptunaStudyConf.__dataclass_fields__) - {"_target_", "_recursive_", "_convert_", "defaults"}
    assert own == set(Settings.__dataclass_fields__)
