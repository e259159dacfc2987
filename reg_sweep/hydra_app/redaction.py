"""Redaction of printed text: addresses that may hold a password, anywhere in it."""

import re

# Addresses of servers: file and web addresses have no passwords here.
_OF_A_SERVER = re.compile(r"(?<![\w+.-])(?!sqlite|file:|pkg:|structured:|https?:)[A-Za-z][\w+.-]*://")
# A database's file has neither, unless it is encrypted.
_FILE_WITH_OPTIONS = re.compile(r"sqlite[\w+]*://([^/\s'\"]*@|[^\s'\"]*\?)")
_CREDENTIALS = re.compile(r"(\w://).*@")  # to the last @ of the line: a password may hold one, or a space
_OPTIONS = re.compile(r"(://[^\s'\"?]*\?)[^\s'\"]+")


def holds_address(text: str) -> bool:
    """Whether a text holds a server's address, any part of which may be secret."""
    return _OF_A_SERVER.search(text) is not None or _FILE_WITH_OPTIONS.search(text) is not None


def public_text(text: str) -> str:
    """A text with users, passwords and options removed from its addresses."""
    return _OPTIONS.sub(r"\1...", _CREDENTIALS.sub(r"\1...@", text))
