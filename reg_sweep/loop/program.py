"""Running a program for one seed, and reading its score."""

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SEED = "{seed}"
# These signals mean that the loop should stop; any other one is the program's own failure.
_STOPPED = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}
_NOT_STARTED = {126: "can't be executed", 127: "is not found"}


class ProgramError(Exception):
    """A program that can't be started, was stopped, or reports no score. The message is one line, with a remedy."""


@dataclass(frozen=True)
class ProgramResult:
    """A run's score, which may be infinite or NaN, or the reason why it failed."""

    score: float | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Source:
    """The place of a score: the output's last line, a key of a JSON file, or a pattern's last match in the output."""

    kind: str
    pattern: str = ""
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> "Source":
        """`last`, `json:FILE:KEY` (KEY with dots, both with {seed}), or `regex:PATTERN`.

        Raises:
            ProgramError: it is none of these.
        """
        kind, _, rest = text.partition(":")
        if text == "last":
            return cls("last")
        if kind == "json" and ":" in rest:
            file, _, key = rest.rpartition(":")
            if file and key:
                return cls("json", file, key)
        if kind == "regex" and rest:
            try:
                re.compile(rest)
            except re.error as error:
                raise ProgramError(
                    f"--score-from must have a valid regular expression, got {rest!r}: {error}"
                ) from None
            return cls("regex", rest)
        raise ProgramError(f"--score-from must be last, json:FILE:KEY or regex:PATTERN, got {text!r}")


def run(
    command: Sequence[str], seed: int, source: Source, *, timeout: float | None = None, show: bool = False
) -> ProgramResult:
    """Runs the command with `{seed}` filled in, and reads its score. Its output is not kept.

    Raises:
        ProgramError: it can't be started, was stopped by a signal, or succeeded without a score.
    """
    words = [word.replace(SEED, str(seed)) for word in command]
    file = Path(source.pattern.replace(SEED, str(seed))) if source.kind == "json" else None
    before = _state(file)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            # In a process group of its own it would outlive this process. In ours, Ctrl-C reaches both.
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if show else errors,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ProgramResult(failed=f"not done after {timeout:g} s")
        except OSError as error:
            raise ProgramError(f"{words[0]} can't be started: {error.strerror or error}") from None
        said = _last_line(errors) or _last_line(output)
        if done.returncode != 0:
            return _failure(words, done.returncode, said)
        text = _score_text(source, file, before, output, seed)
    try:
        return ProgramResult(score=float(text))
    except ValueError:
        raise ProgramError(f"the score of seed {seed} must be a number, got {text[:60]!r}: see --score-from") from None


def _failure(words: Sequence[str], code: int, said: str) -> ProgramResult:
    if code in _NOT_STARTED:
        raise ProgramError(f"{shlex.join(words)[:80]} {_NOT_STARTED[code]}")
    if code < 0:
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        if -code in _STOPPED:
            raise ProgramError(f"the program was stopped ({name}): the same command resumes it")
        return ProgramResult(failed=f"killed by {name}")
    return ProgramResult(failed=f"exit status {code}" + (f" ({said[:120]})" if said else ""))


def _score_text(source: Source, file: Path | None, before: Any, output: IO[bytes], seed: int) -> str:
    if file is not None:
        return _of_json(file, source.key.replace(SEED, str(seed)), before)
    if source.kind == "last":
        line = _last_line(output)
        if not line:
            raise ProgramError(f"the program must print a score, got nothing for seed {seed}: see --score-from")
        return line.split()[-1]
    output.seek(0)
    found = list(re.finditer(source.pattern, output.read().decode(errors="replace"), re.MULTILINE))
    if not found:
        raise ProgramError(f"the output of seed {seed} has no match of {source.pattern!r}: see --score-from")
    return found[-1][found[-1].re.groups and 1] or ""


def _of_json(file: Path, key: str, before: Any) -> str:
    if _state(file) is None:
        raise ProgramError(f"the program must write {file}, got no such file: see --score-from")
    if _state(file) == before:
        raise ProgramError(f"the program must write {file}, got one that was there before it: see --score-from")
    try:
        value = json.loads(file.read_text())
        for part in key.split("."):
            value = value[int(part) if isinstance(value, list) else part]
    except (OSError, ValueError, LookupError, TypeError):
        raise ProgramError(f"{file} must be JSON with a number at {key}, got none: see --score-from") from None
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _state(file: Path | None) -> tuple[int, int, int] | None:
    """A file's state, which changes when it is rewritten; None where there is no file."""
    try:
        found = os.stat(file) if file is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _last_line(file: IO[bytes]) -> str:
    """The last non-empty line in the last 64 KiB."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 65536, 0))
    lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
