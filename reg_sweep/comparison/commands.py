"""The command that trains arms on more seeds, made of the commands that their records hold."""

import math
import shlex
from collections.abc import Sequence
from itertools import product

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.labels import lambda_text

# An arm's command says nothing of what it takes from the defaults; where another arm's says it, both must.
_ALWAYS_SAID = ("norm", "l1", "l2")
_ONE_BY_ONE = ["torchrun"]
_MOST_LISTED = 8  # seeds that are written one by one


def more_seeds(arms: Sequence[Arm], seeds: Sequence[int]) -> list[str]:
    """Trains every arm on these seeds: one command if the arms fill a grid, else one for each.

    An arm none of whose runs tells its command has none. torchrun, which takes no grid, is given seed after seed.
    """
    told = [(arm, command) for arm in arms if (command := next((r.command for r in arm.replicates if r.command), ""))]
    parsed = [_parsed(command) for _, command in told]
    seed = f"seed={_sweep(seeds)}"
    said = [key for key in _ALWAYS_SAID if any(key in overrides for _, overrides in parsed)]
    filled = [
        (words, {key: _setting(arm, key) for key in said} | overrides)
        for (arm, _), (words, overrides) in zip(told, parsed, strict=True)
    ]
    joined = _joined(filled) if len(filled) > 1 else None
    return [
        shlex.join([*line, seed, "-m"]) if words[:1] != _ONE_BY_ONE else _loop(line, seeds)
        for words, overrides in ([joined] if joined is not None else parsed)
        for line in [[*words, *(f"{key}={value}" for key, value in overrides.items())]]
    ]


def next_seeds(arms: Sequence[Arm], n: int) -> list[int]:
    """The n seeds after the last that any of the arms tried."""
    first = max((seed for arm in arms for seed in arm.tried), default=0) + 1
    return list(range(first, first + n))


def _loop(line: Sequence[str], seeds: Sequence[int]) -> str:
    return f"for seed in {' '.join(map(str, seeds))}; do {shlex.join(line)} seed=$seed; done"


def _sweep(seeds: Sequence[int]) -> str:
    """Seeds in Hydra's grammar: many that follow one another as a range, whose end is left out."""
    if len(seeds) > _MOST_LISTED and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"range({seeds[0]},{seeds[-1] + 1})"
    return ",".join(map(str, seeds))


def _parsed(command: str) -> tuple[list[str], dict[str, str]]:
    """The words of a command that are no override, and its overrides without seed and name."""
    words: list[str] = []
    overrides: dict[str, str] = {}
    for word in shlex.split(command):
        key, is_override, value = word.partition("=")
        if not is_override or word.startswith("-"):
            words.append(word)
        elif key not in ("seed", "name"):  # a named folder is that of the runs that are there
            overrides[key] = value
    return words, overrides


def _setting(arm: Arm, key: str) -> str:
    value = arm.config[key]
    return str(value["name"]) if key == "norm" else lambda_text(float(value), 17)


def _joined(commands: Sequence[tuple[list[str], dict[str, str]]]) -> tuple[list[str], dict[str, str]] | None:
    """One command whose grid is these and no other; None if there is none."""
    words, first = commands[0]
    if words[:1] == _ONE_BY_ONE or any(w != words or o.keys() != first.keys() for w, o in commands):
        return None
    values = {key: list(dict.fromkeys(o[key] for _, o in commands)) for key in first}
    there = {tuple(o[key] for key in first) for _, o in commands}
    if math.prod(map(len, values.values())) != len(there) or there != set(product(*values.values())):
        return None
    return words, {key: ",".join(found) for key, found in values.items()}
