"""A run of another program: its settings, scores and status, and the limits on what is read from a stranger's file.

Readers only parse: no file is unpickled, imported or executed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.runs import validation
from reg_sweep.runs.record import Status
from reg_sweep.runs.validation import MAX_READING, MAX_WHOLE, ValidationError, one_line, visible

Floats = NDArray[np.float64]
MAX_FILE = 512_000_000  # bytes of one file
MAX_YAML = 4_000_000  # bytes of a file of settings
MAX_ALIASES = 200  # in it: each may stand for many values
MAX_SETTINGS = 2_000  # of one run
MAX_METRICS = 1_000  # of one run
MAX_TEXT = 300  # characters of a name or of a setting's value that are kept
_MAX_DEPTH = 16


class ReadError(Exception):
    """A source that can't be read, or can be read in two ways. The message is one line: file, rule, value, remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


@dataclass(frozen=True)
class Series:
    """A metric by step: steps (n,) in ascending order, and values (n,), which may be nan or infinite."""

    steps: Floats
    values: Floats

    @classmethod
    def of(cls, steps: list[float] | Floats, values: list[float] | Floats) -> "Series":
        """The series in the order of its steps; of several values at a step the last counts."""
        s, v = np.asarray(steps, np.float64), np.asarray(values, np.float64)
        v = np.where(np.abs(v) > MAX_READING, np.copysign(math.inf, v), v)
        if s.size > 1 and not bool((np.diff(s) > 0).all()):
            order = np.argsort(s, kind="stable")
            s, v = s[order], v[order]
            is_last = np.append(np.diff(s) > 0, True)
            s, v = s[is_last], v[is_last]
        return cls(s, v)

    def at(self, step: float) -> float:
        """The value at a step; nan where there is none."""
        place = int(np.searchsorted(self.steps, step))
        return float(self.values[place]) if place < self.steps.size and self.steps[place] == step else math.nan

    @property
    def last(self) -> float:
        """The value at the last step."""
        return float(self.values[-1]) if self.values.size else math.nan


@dataclass
class ForeignRun:
    """One run of another program.

    Attributes:
        source: the kind of source, as the page names it.
        path: the file or folder that holds it.
        place: where in the file it is, such as 'row 3'; empty if the path suffices.
        settings: by dotted name, plain values; the seed is one of them.
        scores: values without a history.
        history: metrics by step.
        seconds: the time it took; nan if unknown.
        ended: a text that sorts by time; empty if unknown.
        clock: the word for its steps, such as epoch.
        is_trial: whether a search proposed it: it is exploratory and not judged.
        bought_by: the sequential study that decided to train it; empty if none is known.
    """

    source: str
    path: Path
    settings: dict[str, Any]
    scores: dict[str, float] = field(default_factory=dict)
    history: dict[str, Series] = field(default_factory=dict)
    status: Status = "complete"
    place: str = ""
    seconds: float = math.nan
    ended: str = ""
    message: str = ""
    clock: str = "step"
    is_trial: bool = False
    bought_by: str = ""

    @property
    def where(self) -> str:
        """Its path, and its place in the file."""
        return f"{self.path}, {self.place}" if self.place else str(self.path)

    @property
    def metrics(self) -> dict[str, None]:
        """The names of its metrics."""
        return dict.fromkeys([*self.history, *self.scores])

    @property
    def n_steps(self) -> int:
        """The length of its longest history."""
        return max((s.steps.size for s in self.history.values()), default=0)


# ---- plain values


def flat_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as dotted names and plain values; names and texts are shortened and made visible (`text`).

    Lists of plain values are one text; at most MAX_SETTINGS are kept.
    """
    flat: dict[str, Any] = {}
    for name, value in _leaves("", settings, 0):
        flat[name] = value
        if len(flat) >= MAX_SETTINGS:
            break
    return flat


def _leaves(prefix: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for key, inner in value.items():
            name = text(key)
            yield from _leaves(f"{prefix}.{name}" if prefix else name, inner, depth + 1)
    elif prefix:
        yield prefix, plain(value)


def plain(value: Any) -> Any:
    """A setting as a plain value: a finite number, a truth value, None or a text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_WHOLE else text(value)
    if isinstance(value, float):
        return _whole(value) if math.isfinite(value) else text(value)
    if isinstance(value, list | tuple) and len(value) <= 50:
        return text("[" + ", ".join(str(plain(v))[:50] for v in value) + "]")
    return text(value if isinstance(value, str) else type(value).__name__)


def _whole(value: float) -> int | float:
    """7.0 and 7 are one setting, whichever way a program wrote it."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def text(value: object) -> str:
    """A name or text from a stranger's file, shortened, with control characters made visible."""
    return visible(str(value)[:MAX_TEXT].encode(errors="backslashreplace").decode())


def number(value: object) -> float | None:
    """A metric's value, nan and infinities included; None for anything but a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return (
            {"nan": math.nan, "infinity": math.inf, "-infinity": -math.inf, "inf": math.inf, "-inf": -math.inf}.get(
                value.strip().lower()
            )
            if isinstance(value, str)
            else None
        )
    try:
        found = float(value)
    except OverflowError:
        return math.inf
    return found if not math.isfinite(found) or abs(found) <= MAX_READING else math.copysign(math.inf, found)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, made of plain values: a tag of Python's is text, and nothing is constructed.

    Raises:
        ReadError: it can't be read, or is not a mapping.
    """
    import yaml

    try:
        content = validation.read_bytes(path, MAX_YAML)
        if content.count(b"*") > MAX_ALIASES and content.count(b"&") > 1:
            raise ReadError(f"{path}: must have at most {MAX_ALIASES} aliases, got more")
        found = yaml.load(content, Loader=_loader())  # a subclass of the safe loader
    except (ValidationError, OSError, ValueError, yaml.YAMLError, RecursionError, TypeError) as error:
        raise ReadError(f"{path}: must be a YAML file ({one_line(error)})") from None
    if not isinstance(found, dict):
        raise ReadError(f"{path}: must hold settings by name, got {type(found).__name__}")
    return found


@cache
def _loader() -> Any:
    """A subclass of the safe loader that reads unknown tags as texts."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Constructs plain values only."""

    def as_text(loader: Any, suffix: str, node: Any) -> Any:
        return node.value if isinstance(node, yaml.ScalarNode) else suffix

    Loader.add_multi_constructor("", as_text)
    return Loader


_STATUS: dict[str, Status] = {
    **dict.fromkeys(("complete", "completed", "finished", "success", "succeeded", "ok", "done"), "complete"),
    **dict.fromkeys(
        (
            "failed",
            "crashed",
            "killed",
            "error",
            "fail",
            "crash",
            "cancelled",
            "canceled",
            "oom",
            "timeout",
            "aborted",
            "preempted",
        ),
        "failed",
    ),
    **dict.fromkeys(("running", "pending", "scheduled", "queued", "waiting", "unfinished", "incomplete"), "running"),
    "diverged": "diverged",
    "nan": "diverged",
    "pruned": "pruned",
}


def status_of(word: str) -> Status:
    """The status that a program's word stands for; an unknown word does not count as a failure."""
    return _STATUS.get(word.strip().lower(), "complete")


@dataclass(frozen=True)
class Wanted:
    """The user's options about the runs. None: inferred.

    Attributes:
        score: the metric that judges.
        higher_is_better: its direction.
        seed: the setting or column that holds the seed; 'none': runs have none.
        arms: the settings that make an arm.
        at: 'last', 'best:METRIC' or 'step=N': where in its history a run is judged.
        metrics_file: the name, or pattern, of the metrics file beside a Hydra app's .hydra/.
        source: the kind of source to read, where a folder can be read in two ways.
    """

    score: str | None = None
    higher_is_better: bool | None = None
    seed: str | None = None
    arms: tuple[str, ...] | None = None
    at: str | None = None
    metrics_file: str | None = None
    source: str | None = None
