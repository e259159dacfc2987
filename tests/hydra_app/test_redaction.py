"""Addresses that may hold a password are printed without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.hydra_app.command_line import public_arguments
from reg_sweep.hydra_app.errors import holds_address, public_text

URL = "postgresql+psycopg://me:s3cr3t@db.example:5432/studies?sslpassword=s3cr3t"


@pytest.mark.parametrize(
    "argument",
    [
        f"hydra.sweeper.storage={URL}",
        f"hydra.sweeper.storage='{URL}'",
        f'++hydra.sweeper.storage="{URL}"',
        f"hydra.sweeper={{storage: '{URL}', n_trials: 3}}",
        f"+hydra.sweeper.storge={URL}",
        f"hydra.sweeper.storage ={URL}",
    ],
)
def test_a_printed_argument_has_no_address_of_a_server(argument):
    (printed,) = public_arguments([argument])
    assert printed == f"{argument.partition('=')[0]}=..."
    assert "s3cr3t" not in public_text(f"Could not override: use {argument} instead")


PLAIN = ["l1=0.1", *(f"+hydra.sweeper.storage={path}" for path in ("sqlite:///a.db", "a.log", "${oc.env:URL}"))]


@pytest.mark.parametrize("argument", [*PLAIN, "hydra.searchpath=[file://a]"])
def test_what_holds_no_password_is_printed_as_it_was_typed(argument):
    assert public_arguments([argument]) == [argument]
    assert not holds_address(argument)
    assert public_text(argument) == argument


@given(st.text("abc%:@/?&=# '\"", min_size=1, max_size=8).map(lambda s: f"Zq{s}"))
def test_whatever_a_password_is_made_of_it_is_not_printed(password):
    assert "Zq" not in public_text(f"can't read vault://me:{password}@db.example/studies, sorry")
