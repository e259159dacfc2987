"""A study's settings and its storage."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.search.settings import (
    Settings,
    StudyError,
    public_arguments,
    public_location,
    storage_location,
    unreachable,
)


@given(st.text("abc%:@/?&=#", min_size=1, max_size=8).map(lambda s: f"Zq{s}"))
def test_no_part_of_a_password_is_printed(password):
    from urllib.parse import quote

    url = f"postgresql://me:{quote(password, safe='')}@db.example:5432/studies?sslpassword=Zqoption"
    said = str(unreachable(url, ValueError(f"can't parse '{url}', password {password}, option Zqoption")))
    assert "Zq" not in said
    assert public_location(url) == "postgresql://db.example:5432/studies"


def test_a_command_is_printed_without_its_storages_password():
    typed = ["x=1", "hydra.sweeper.storage='postgresql://me:s3cr3t@db/studies'", "hydra.sweeper.n_trials=3"]
    assert public_arguments(typed) == ["x=1", "hydra.sweeper.storage=...", "hydra.sweeper.n_trials=3"]
    plain = [
        "hydra.sweeper.storage=sqlite:///a.db",
        "+hydra.sweeper.storage=a.log",
        "hydra.sweeper.storage=${oc.env:URL}",
    ]
    assert public_arguments(plain) == plain


def test_a_journal_files_url_is_refused_for_its_path(tmp_path):
    hydra = SimpleNamespace(runtime=SimpleNamespace(cwd=str(tmp_path)), sweep=SimpleNamespace(dir="out"))
    with pytest.raises(StudyError, match=r"its path alone, such as shared/study.log, got journal:///a.log"):
        storage_location(Settings(storage="journal:///a.log"), hydra)
    assert storage_location(Settings(storage="a.log"), hydra) == str(tmp_path / "a.log")


def test_settings_are_what_the_plugin_offers():
    from hydra_plugins.reg_sweep_plugins.optuna_study import OptunaStudyConf

    own = set(OptunaStudyConf.__dataclass_fields__) - {"_target_", "_recursive_", "_convert_", "defaults"}
    assert own == set(Settings.__dataclass_fields__)
