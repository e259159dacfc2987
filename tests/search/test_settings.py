"""A study's settings."""

import pytest

from reg_sweep.search.settings import Settings, StudyError


def test_settings_are_what_the_plugin_offers():
    from hydra_plugins.reg_sweep_plugins.optuna_study import OptunaStudyConf

    own = set(OptunaStudyConf.__dataclass_fields__) - {"_target_", "_recursive_", "_convert_", "defaults"}
    assert own == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("replicates", [[[]], [None], "seed", 3])
def test_replicates_are_a_list_of_keys(replicates):
    with pytest.raises(StudyError, match=r"hydra.sweeper.replicates must be a list of keys, such as \[seed\], got "):
        Settings(replicates=replicates)
