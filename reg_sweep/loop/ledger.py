"""A loop on disk: an append-only file of JSON lines, with the rules first and then one line per run.

Answers are not stored, because they follow from the runs.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reg_sweep.runs.files import locked
from reg_sweep.stats.candidate import Answer, LoopError, Rules
from reg_sweep.stats.loop import Loop

# Increase it if a change to `reg_sweep.stats.loop` changes the answers to the same runs.
FORMAT = 1
_RULES = [rule.name for rule in fields(Rules)]


class LedgerError(Exception):
    """A ledger that can't be read or written. The message is one line: what, rule, value, remedy."""


class Ledger:
    """A loop, updated from the lines of its file.

    score: the score's name. torn: the numbers of lines that a killed program left unfinished; they are ignored.

    Raises:
        LedgerError: there is no such file, it is no ledger, it is damaged, or it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop: Loop
        self.score = ""
        self.torn: list[int] = []
        self._n_lines = 0
        self._at = 0
        if not path.is_file():
            what = "a directory" if path.is_dir() else "no file"
            raise LedgerError(
                f"{path} must be a ledger, got {what}: begin one with reg-sweep-loop init {path} --score NAME"
            )
        with self.held():
            pass

    @classmethod
    def begin(cls, path: Path, score: str, rules: Rules) -> "Ledger":
        """Makes a ledger, or opens an existing one with the same score and rules.

        Raises:
            LedgerError: another file is there, or a ledger with another score or rules, or it can't be read or written.
        """
        header = {"ledger": "reg_sweep.loop", "format": FORMAT, "score": score, **asdict(rules)}
        if path.exists() and (path.is_dir() or path.stat().st_size > 0):
            ledger = cls(path)
            there = {"score": ledger.score, **asdict(ledger.loop.rules)}
            for name, value in there.items():
                if header[name] != value:
                    raise LedgerError(
                        f"{name} must be {value!r}, as in the loop that {path} holds, got {header[name]!r}: name "
                        "another file"
                    )
            return ledger
        try:
            with locked(path):
                _append(path, header)
        except OSError as error:
            raise LedgerError(f"{path} can't be written: {error.strerror or error}") from None
        return cls(path)

    @contextmanager
    def held(self) -> Iterator[Loop]:
        """The loop with all runs written so far, under a lock that keeps other writers out.

        Raises:
            LedgerError: the ledger can't be opened, or is damaged.
        """
        try:
            with locked(self.path):
                self._read()
                yield self.loop
        except OSError as error:
            raise LedgerError(f"{self.path} can't be opened: {error.strerror or error}") from None

    def add(self, entry: dict[str, Any]) -> Answer:
        """Adds a run to the loop and to the file; call it within `held`. An invalid run is not written.

        Raises:
            LoopError: the run is invalid.
            LedgerError: the disk is full or not writable; the file is as it was.
        """
        entry = {name: value for name, value in entry.items() if value is not None}
        entry["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        answer = self._learn(entry)
        try:
            self._at, self._n_lines = _append(self.path, entry), self._n_lines + 1
        except OSError as error:
            raise LedgerError(f"{self.path} can't be written: {error.strerror or error}") from None
        return answer

    def _learn(self, entry: dict[str, Any]) -> Answer:
        names = {name: entry[name] for name in ("digest", "question", "baseline") if name in entry}
        if "failed" in entry:
            return self.loop.fail(entry["change"], entry["seed"], entry["failed"], **names)
        return self.loop.tell(entry["change"], entry["seed"], float(entry["score"]), **names)

    def _read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        for line in new.splitlines(keepends=True):
            entry = _parsed(line)
            if entry is None and not line.endswith(b"\n"):
                break  # an incomplete last line, which the next writer ends
            self._n_lines += 1
            self._at += len(line)
            self._take(line, entry)
        if self._n_lines == 0:
            raise LedgerError(
                f"{self.path} must be a ledger, got a file without a complete first line: remove it and begin again"
            )

    def _take(self, line: bytes, entry: dict[str, Any] | None) -> None:
        """Applies a line to the loop, or records that it is incomplete."""
        where = f"{self.path}, line {self._n_lines}"
        if entry is None:
            if self._n_lines > 1 and line.startswith(b"{"):
                self.torn.append(self._n_lines)
                return
            raise LedgerError(f"{where} is damaged: restore the file, or begin another with reg-sweep-loop init")
        if self._n_lines == 1:
            self._begin(entry)
            return
        try:
            self._learn(entry)
        except (LoopError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"{where} contradicts the lines before it: {error}") from None

    def _begin(self, header: dict[str, Any]) -> None:
        if header.get("ledger") != "reg_sweep.loop":
            raise LedgerError(f"{self.path} must be a ledger, got another file: name one that reg-sweep-loop init made")
        if header.get("format") != FORMAT:
            raise LedgerError(
                f"{self.path} must have format {FORMAT}, got {header.get('format')}: use the version of reg_sweep that "
                "wrote it"
            )
        try:
            self.score = str(header["score"])
            self.loop = Loop(Rules(**{name: header[name] for name in _RULES}))
        except (KeyError, TypeError, ValueError) as error:
            said = f"no {error}" if isinstance(error, KeyError) else error
            raise LedgerError(
                f"{self.path}, line 1, must hold valid rules, got invalid ones ({said}): restore the file, or begin "
                "another with reg-sweep-loop init"
            ) from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _append(path: Path, entry: dict[str, Any]) -> int:
    """Appends a complete line or nothing, after ending an incomplete one; returns the file's new size."""
    text = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
    with path.open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end > 0:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                text = b"\n" + text
        try:
            if file.write(text) != len(text):
                raise OSError(28, "no space left on the disk")
            os.fsync(file.fileno())
        except OSError:
            os.truncate(file.fileno(), end)
            raise
    return end + len(text)
