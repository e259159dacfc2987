"""The command that was typed: as text to print, without what may be secret."""

import os
import sys
from collections.abc import Sequence

from reg_sweep.secrecy import holds_address


def app_command() -> list[str]:
    """The app as it was started, without its arguments."""
    # The interpreter's own options stand before -m MODULE or the script, the app's arguments after it.
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return ["python", "-m", next(words)]
        if word in ("-W", "-X"):
            next(words)
        elif not word.startswith("-"):
            break
    return ["python", os.path.relpath(sys.argv[0])]


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line's arguments, fit to be printed: what holds a server's address, and maybe a password, is dots."""
    return [f"{a.partition('=')[0]}=..." if holds_address(a) else a for a in arguments]
