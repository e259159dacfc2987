"""Standard output and error, which may be closed or full, or unable to show a character."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from reg_sweep.runs.validation import visible


def open_closed_streams() -> None:
    """Opens the null device for closed standard streams; otherwise a file would get such a number and be printed to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def say(text: str, stream: TextIO | None) -> OSError | None:
    """Prints a text, with control characters, and characters that the stream can't show, escaped.

    Returns the error if the text can't be printed: `BrokenPipeError` if the stream's reader has gone. The stream then
    discards all text. A stream that was closed before the start is None, and prints nothing.
    """
    if stream is None:
        return None
    encoding = stream.encoding or "utf-8"
    lines = "\n".join(map(visible, text.split("\n")))
    try:
        print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        discard(stream)
        return error
    return None


def discard(stream: TextIO) -> None:
    """Discards a broken stream's unwritten text; otherwise Python would try again at exit, and report an error."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _Lossy:
    """A standard stream that discards text that it can't write, because its reader is gone or the disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


@contextmanager
def lossy_streams() -> Iterator[None]:
    """Within the block, a closed or full standard output or error loses text, but does not end the program."""
    before = sys.stdout, sys.stderr
    streams = [stream or open(os.devnull, "w") for stream in before]  # noqa: SIM115 # open for as long as the process
    sys.stdout, sys.stderr = (cast(TextIO, _Lossy(stream)) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            try:
                stream.flush()
            except (OSError, ValueError):
                discard(stream)
