"""The command that was typed, as text."""

from reg_sweep.search.command import public_arguments


def test_a_command_is_printed_without_its_storages_password():
    typed = ["x=1", "hydra.sweeper.storage='postgresql://me:s3cr3t@db/studies'", "hydra.sweeper.n_trials=3"]
    assert public_arguments(typed) == ["x=1", "hydra.sweeper.storage=...", "hydra.sweeper.n_trials=3"]
    plain = [
        "hydra.sweeper.storage=sqlite:///a.db",
        "+hydra.sweeper.storage=a.log",
        "hydra.sweeper.storage=${oc.env:URL}",
    ]
    assert public_arguments(plain) == plain
