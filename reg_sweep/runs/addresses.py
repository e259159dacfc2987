"""Addresses of folders, storages and servers, as they are typed; passwords are never printed or written."""

import os
from pathlib import Path

_DRIVERS = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary"}  # packages whose modules have another name


def is_server(location: str) -> bool:
    """Whether a storage lies on a server, and not in a file."""
    return "://" in location and not location.startswith("sqlite")


def is_secret(location: str) -> bool:
    """Whether a storage's address may hold a secret: any server's may, and a file's with options or a user."""
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
    """A server's address for a command that a reader completes: USER:PASSWORD and OPTIONS stand for what it had."""
    if not is_secret(location):
        return location
    scheme, _, rest = location.partition("://")
    user, address, options = _parts(rest)
    if user and (":" in user or scheme.startswith("http")):  # a lone user of a web address may be a token
        user = "USER:PASSWORD"
    return f"{scheme}://{f'{user}@' if user else ''}{address}{'?OPTIONS' if options else ''}"


def typed_path(path: str | Path, start: str | Path = ".") -> str:
    """A path relative to where a command is typed. One that begins with a dash would be an option."""
    relative = os.path.relpath(path, start)
    return f"./{relative}" if relative.startswith("-") else relative


def reason_of(location: str, error: BaseException) -> str:
    """A failing storage's reason in one line, without secret parts of its address."""
    # The first cause is in the driver's own words; those of SQLAlchemy and Optuna are longer and say less.
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
    """An error in plain words; a driver's own, of one line, where there are none."""
    if type(cause).__name__ == "NoSuchModuleError":  # SQLAlchemy's
        return "it must begin with sqlite:///, or a server's kind and driver, such as postgresql+psycopg://"
    if isinstance(cause, ModuleNotFoundError):
        return f"its driver is not installed: pip install {_DRIVERS.get(cause.name or '', cause.name)}"
    if isinstance(cause, FileNotFoundError) and cause.filename:
        return f"there is no folder {Path(cause.filename).parent}"
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _parts(rest: str) -> tuple[str, str, str]:
    """Credentials, host with path, and options of an address after its scheme.

    A password may hold an @ or a ? that nobody has quoted. Where that leaves several ways to read the address, the host
    is empty: a part of the password might pass for it.
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
    """Each part of an address that may be secret, as it is written and as a driver's message may quote it."""
    from urllib.parse import unquote

    rest = location.partition("://")[2]
    credentials, _, options = _parts(rest)
    # An option may be a password as well (sslpassword), and nobody can list the names that drivers have for it.
    parts = [credentials.partition(":")[2], *(o.partition("=")[2] for o in options.split("&"))]
    return [s for p in parts if p for s in (p, unquote(p))]
