"""Addresses of folders, storages and servers, as they are printed; passwords are never printed or written."""

import os
from pathlib import Path

_DRIVERS = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}  # modules whose packages have another name


def is_server(location: str) -> bool:
    """Whether a storage is on a server rather than in a file."""
    return "://" in location and not location.startswith("sqlite")


def is_secret(location: str) -> bool:
    """Whether a storage's address may contain a secret: any server's may, or a file's with options or a user."""
    host = location.partition("://")[2].partition("/")[0]
    return is_server(location) or ("://" in location and ("?" in location or "@" in host))


def public_location(location: str) -> str:
    """A storage's address for printing, without user, password and options."""
    if not is_secret(location):
        return location
    scheme, _, rest = location.partition("://")
    if is_server(location):
        return f"{scheme}://{_parts(rest)[1]}"
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def typed_location(location: str) -> str:
    """A server's address for a printed command, with the placeholders USER:PASSWORD and OPTIONS for secret parts."""
    if not is_secret(location):
        return location
    scheme, _, rest = location.partition("://")
    user, address, options = _parts(rest)
    if user and (":" in user or scheme.startswith("http")):  # a lone user of a web address may be a token
        user = "USER:PASSWORD"
    return f"{scheme}://{f'{user}@' if user else ''}{address}{'?OPTIONS' if options else ''}"


def typed_path(path: str | Path, start: str | Path = ".") -> str:
    """A path relative to the folder where a command is typed; `./` is added before a dash, which would mark a flag."""
    relative = os.path.relpath(path, start)
    return f"./{relative}" if relative.startswith("-") else relative


def reason_of(location: str, error: BaseException) -> str:
    """Why a storage failed, in one line, without secret parts of its address."""
    # The first cause is the driver's own message; those of SQLAlchemy and Optuna are longer and say less.
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = _plain(cause)
    if is_secret(location):
        if not _parts(location.partition("://")[2])[1]:
            return f"{type(cause).__name__}; write %40 for an @ and %3F for a ? in its password"
        reason = reason.replace(location, public_location(location))
        for secret in _secrets(location):
            reason = reason.replace(secret, "***")
    return reason


def _plain(cause: BaseException) -> str:
    """A known error in plain words; otherwise the first line of the driver's message."""
    if type(cause).__name__ == "NoSuchModuleError":  # SQLAlchemy's
        return "it must begin with sqlite:///, or a server's kind and driver, such as postgresql+psycopg://"
    if isinstance(cause, ModuleNotFoundError):
        return f"its driver is not installed: pip install {_DRIVERS.get(cause.name or '', cause.name)}"
    if isinstance(cause, FileNotFoundError) and cause.filename:
        return f"there is no folder {Path(cause.filename).parent}"
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _parts(rest: str) -> tuple[str, str, str]:
    """Splits an address after its scheme into credentials, host with path, and options.

    A password may contain an unquoted @ or ?. If the address is ambiguous for that reason, the host is returned empty,
    because it might be a part of the password.
    """
    before, mark, after = rest.partition("?")
    if "@" not in after:
        user, _, address = before.rpartition("@")
        return user, address, after
    if "@" not in before:
        user, _, rest = rest.rpartition("@")
        address, _, after = rest.partition("?")
        return user, address, after
    return before, "", mark + after


def _secrets(location: str) -> list[str]:
    """The parts of an address that may be secret, as written and unquoted, as a driver's message may show them."""
    from urllib.parse import unquote

    rest = location.partition("://")[2]
    credentials, _, options = _parts(rest)
    # Any option may be a password (such as sslpassword): drivers use too many names to list.
    parts = [credentials.partition(":")[2], *(o.partition("=")[2] for o in options.split("&"))]
    return [s for p in parts if p for s in (p, unquote(p))]
