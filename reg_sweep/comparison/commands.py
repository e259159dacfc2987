"""The commands that would train more seeds of an arm and its baseline: from those that their records hold."""

import shlex
from collections.abc import Sequence


def more_seeds(commands: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """The commands that train these arms on `seeds`: a grid where the arms differ in one override, else one each.

    commands: how a run of each arm was started; an arm that does not tell has ''. Empty where one does not.
    """
    parsed = [_Parsed.of(command) for command in commands]
    if not parsed or not seeds or any(p is None for p in parsed):
        return []
    known = [p for p in parsed if p is not None]
    grid = _grid(known)
    return [p.line(seeds) for p in ([grid] if grid is not None else known)]


class _Parsed:
    """A command as its words before the overrides, and the overrides without seed and `-m`."""

    def __init__(self, words: list[str], overrides: dict[str, str]) -> None:
        self.words, self.overrides = words, overrides

    @classmethod
    def of(cls, command: str) -> "_Parsed | None":
        """None where there is no command, or none that a shell would read."""
        try:
            words = shlex.split(command)
        except ValueError:
            return None
        start = next((i for i, w in enumerate(words) if _is_override(w)), len(words))
        rest = [w for w in words[start:] if w not in ("-m", "--multirun")]
        if not words or not all(map(_is_override, rest)):
            return None
        overrides = dict(w.split("=", 1) for w in rest)
        # A seed would be trained twice, and a named folder is that of the runs that are there.
        overrides = {k: v for k, v in overrides.items() if k not in ("seed", "name")}
        return cls(words[:start], overrides)

    def line(self, seeds: Sequence[int]) -> str:
        """The command as one line."""
        overrides = [f"{k}={v}" for k, v in self.overrides.items()]
        return " ".join([*map(_quoted, [*self.words, *overrides]), f"seed={','.join(map(str, seeds))}", "-m"])


def _grid(parsed: list[_Parsed]) -> _Parsed | None:
    """One command for all, if they differ in the value of one override; else None."""
    first = parsed[0]
    if any(p.words != first.words or p.overrides.keys() != first.overrides.keys() for p in parsed):
        return None
    values = {k: list(dict.fromkeys(p.overrides[k] for p in parsed)) for k in first.overrides}
    if sum(len(v) > 1 for v in values.values()) > 1:
        return None
    return _Parsed(first.words, {k: ",".join(v) for k, v in values.items()})


def _is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def _quoted(word: str) -> str:
    """A word for the shell: quoted if it has to be, and not for a comma or a bracket alone."""
    return word if all(c.isalnum() or c in "-_./=+,:@~" for c in word) else shlex.quote(word)
