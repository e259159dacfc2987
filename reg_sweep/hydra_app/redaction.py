"""Addresses that may hold a password, taken out of what is printed: whatever was typed, and wherever it is quoted."""

import re

# Of a server, that is: files and the web's own have no password that anybody would type here.
_OF_A_SERVER = re.compile(r"(?<![\w+.-])(?!sqlite|file:|pkg:|structured:|https?:)[A-Za-z][\w+.-]*://")
# A database's file has neither, unless it is encrypted.
_FILE_WITH_OPTIONS = re.compile(r"sqlite[\w+]*://([^/\s'\"]*@|[^\s'\"]*\?)")
_CREDENTIALS = re.compile(r"(\w://).*@")  # to the last @ of the line: a password may hold one, or a space
_OPTIONS = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")


def holds_address(text: str) -> bool:
    """Whether a text holds the address of a server, of which any part may be secret."""
    return _OF_A_SERVER.search(text) is not None or _FILE_WITH_OPTIONS.search(text) is not None


def public_text(text: str) -> str:
    """A text whose addresses have neither user nor password nor options."""
    return _OPTIONS.sub(r"\1...", _CREDENTIALS.sub(r"\1...@", text))
