"""Addresses of servers are printed without any part that may be secret."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.runs.addresses import public_location, reason_of, typed_location

PASSWORDS = st.text("abc%:@/?&=#", min_size=1, max_size=8).map(lambda s: f"Zq{s.replace('a', 'Zq')}Zq")


@given(PASSWORDS)
def test_no_part_of_a_password_is_printed_whether_or_not_it_was_quoted(password):
    for written in (password, quote(password, safe="")):
        url = f"postgresql://me:{written}@db.example:5432/studies?sslpassword=Zqoption"
        said = reason_of(url, ValueError(f"can't parse '{url}', password {written}"))
        assert "Zq" not in public_location(url) + typed_location(url) + said
    assert public_location(url) == "postgresql://db.example:5432/studies"


@pytest.mark.parametrize(
    ("url", "typed"),
    [
        ("mysql://me:Zq@host/x?ssl=Zq", "mysql://USER:PASSWORD@host/x?OPTIONS"),
        ("postgresql://host/x", "postgresql://host/x"),
        ("https://Zqtoken@host:5000", "https://USER:PASSWORD@host:5000"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_a_command_names_what_the_reader_fills_in(url, typed):
    assert typed_location(url) == typed
