"""Translates a swept key from Hydra's override grammar to one of Optuna's distributions and back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from reg_sweep.hydra_app.internals import element_text
from reg_sweep.search.settings import StudyError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

EXACT_DIGITS = 1000  # precision for a range's length: the digits of two doubles span at most 650 decimal places
LARGEST_WHOLE = 2**53  # Optuna and JSON store doubles, which hold whole numbers exactly only up to here


@dataclass(frozen=True)
class Parameter:
    """One swept key: its Optuna distribution, and how its values are written as Hydra overrides."""

    key: str  # the text before "=", including Hydra's + or ++
    distribution: "BaseDistribution"
    texts: Mapping[Any, str] = field(default_factory=dict)  # how each choice is written
    digits: int | None = None  # decimals of a range's floats: rounding removes the noise of low + k * step

    @property
    def name(self) -> str:
        """The key's name in Optuna and in the records."""
        return self.key.lstrip("+")

    def override(self, value: Any) -> str:
        """The job's override for one of the distribution's values."""
        if self.texts:
            return f"{self.key}={self.texts[value]}"
        return f"{self.key}={value if self.digits is None else round(value, self.digits)}"

    def choice(self, value: Any) -> Any:
        """Converts a value to the distribution's form: lists and other values JSON can't hold are choices by text."""
        if not self.texts or (isinstance(value, str | int | float | None) and value in self.texts):
            return value
        text = element_text(value)
        return next((choice for choice, written in self.texts.items() if written == text), value)

    def overrides(self, value: Any) -> list[str]:
        """The job's overrides for a value: one for each key."""
        return [self.override(value)]

    def typed(self, value: Any) -> dict[str, str]:
        """A value as typed on the command line, by key; it may be outside the space."""
        text = element_text(value) if self.texts and value not in self.texts else self.override(value).partition("=")[2]
        return {self.key: text}

    def suggest(self, trial: "optuna.Trial") -> None:
        """Draws a value for a trial, unless it already has one."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            trial.suggest_categorical(self.name, d.choices)
        elif isinstance(d, IntDistribution):
            trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        elif isinstance(d, FloatDistribution):
            trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)

    def __str__(self) -> str:
        """The distribution in words: 'one of bn, gbn', '1e-07 to 0.1, log', '0 to 9 by 3'."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return f"one of {', '.join(self.texts[c] for c in d.choices)}"
        assert isinstance(d, FloatDistribution | IntDistribution)
        step = "" if d.step is None or d.log or (isinstance(d, IntDistribution) and d.step == 1) else f" by {d.step}"
        kind = ", whole numbers" if isinstance(d, IntDistribution) else ""
        return f"{d.low} to {d.high}{step}{kind}{', log' if d.log else ''}"

    def listed(self) -> list[Any] | None:
        """All values, or None if they can't be listed."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if isinstance(d, IntDistribution) and not d.log:
            return list(range(d.low, d.high + 1, d.step))
        if isinstance(d, FloatDistribution) and d.step is not None:
            n = round((d.high - d.low) / d.step) + 1
            return [round(d.low + k * d.step, self.digits or 0) for k in range(n)]
        return None


@dataclass(frozen=True)
class Zipped(Parameter):
    """Keys that vary together. To Optuna, one parameter named 'l1,l2', whose choices are rows such as '0.001,0'."""

    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by choice: its overrides
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by choice: its values by key

    @property
    def name(self) -> str:
        """The keys joined by commas: their name in Optuna."""
        return ",".join(key.lstrip("+") for key in self.key.split(","))

    def overrides(self, value: Any) -> list[str]:
        """The job's overrides, one for each key."""
        return list(self.rows[value])

    def typed(self, value: Any) -> dict[str, str]:
        """The value of each key as typed on the command line."""
        parts = (line.partition("=") for line in self.rows[value])
        return {key: text for key, _, text in parts}

    def __str__(self) -> str:
        """'one of (0,0), (0.001,0)'."""
        return f"one of {', '.join(f'({choice})' for choice in self.rows)}"


def split_params(params: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters by single keys; the values of keys that vary together come from its attributes."""
    split: dict[str, Any] = {}
    for name, value in params.items():
        keys = name.split(",")
        together = len(keys) > 1 and all(key in attributes for key in keys)
        split |= {key: attributes[key] for key in keys} if together else {name: value}
    return split


def parameter(override: Override) -> Parameter:
    """Translates a swept override: a choice, glob, range (end excluded) or interval, with the tags log and int.

    Raises:
        StudyError: the sweep is empty, has an unknown tag, or can't be on a log scale.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, sweep, written = override.get_key_element(), override.value(), override.input_line
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    allowed = {"log", "int"} if isinstance(sweep, IntervalSweep) else set()
    if tags - allowed:
        raise StudyError(
            f"{written}: unknown tag {', '.join(sorted(tags - allowed))}: only intervals have tags, log and int"
        )
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        is_int, is_log = "int" in tags or isinstance(sweep.start, int), "log" in tags
        if not (math.isfinite(sweep.start) and math.isfinite(sweep.end)):
            raise StudyError(f"{written}: an interval must have finite ends")
        if sweep.start > sweep.end:
            raise StudyError(f"{written}: the interval is empty: its start must not be above its end")
        if is_log and sweep.start <= 0:
            raise StudyError(f"{written}: on a log scale an interval must start above 0, got {sweep.start:g}")
        if is_int:
            low, high = math.ceil(sweep.start), math.floor(sweep.end)
            if low > high:
                raise StudyError(f"{written}: there is no whole number from {sweep.start:g} to {sweep.end:g}")
            _check_whole(key, low, high)
            return Parameter(key, IntDistribution(low, high, log=is_log))
        return Parameter(key, FloatDistribution(sweep.start, sweep.end, log=is_log))
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep)
    listed = list({element_text(e): e for e in _choices(override)}.values())
    texts = {plain(e): element_text(e) for e in listed}
    if len(texts) != len(listed):  # 1 and True are equal: use their texts instead
        texts = {t: t for t in map(element_text, listed)}
    return Parameter(key, CategoricalDistribution(list(texts)), texts)


def _named(name: str) -> str | QuotedString:
    """A file's name as a choice, in quotes if Hydra's grammar would parse it as something else, such as a number."""
    try:
        is_itself = OverridesParser.create().parse_override(f"x={name}").value() == name
    except HydraException:
        is_itself = False
    return name if is_itself else QuotedString(name, Quote.single)


def _check_whole(key: str, low: Decimal | int, high: Decimal | int) -> None:
    """Refuses bounds so large that Optuna would round whole numbers."""
    if max(-low, high) > LARGEST_WHOLE:
        raise StudyError(
            f"{key}: numbers must be between -2^53 and 2^53 ({LARGEST_WHOLE:,}), got {low} to {high}: list larger"
            " ones as choices"
        )


def _range(key: str, sweep: RangeSweep) -> Parameter:
    """Translates a range, computed in decimals: in binary, 0.3 may or may not be below 3 * 0.1."""
    from optuna.distributions import FloatDistribution, IntDistribution

    ends: list[Any] = [sweep.start, sweep.stop, sweep.step]
    start, stop, step = (Decimal(str(v)) for v in ends)
    with localcontext(prec=EXACT_DIGITS):
        n = math.ceil((stop - start) / step) if step else 0
        last = start + (n - 1) * step
    if n < 1:
        raise StudyError(f"{key}: the range from {start} to {stop}, by steps of {step}, is empty")
    low, high = sorted((start, last))
    _check_whole(key, low, high)
    are_ints = all(isinstance(v, int) for v in ends)
    casts = getattr(sweep, "transformers", ())  # Hydra 1.4 casts each value; 1.3 has already cast the ends
    if casts:
        values = [int(v) if are_ints else float(v) for v in (start + k * step for k in range(n))]
        for cast in casts:
            values = [cast(v) for v in values]
        if all(isinstance(v, int) for v in values):
            return _whole(key, list(map(int, values)))
        are_ints = False
    if are_ints:
        return Parameter(key, IntDistribution(int(low), int(high), step=abs(int(step))))
    digits = max(0, *(-e for d in (low, step) if isinstance(e := d.as_tuple().exponent, int)))
    return Parameter(key, FloatDistribution(float(low), float(high), step=abs(float(step))), digits=digits)


def _whole(key: str, values: Sequence[int]) -> Parameter:
    """Translates the whole numbers that result from casting a range, such as 0, 1, 3, 4."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    listed = list(dict.fromkeys(values))
    steps = {abs(b - a) for a, b in pairwise(listed)} or {1}
    if len(steps) > 1:
        return Parameter(key, CategoricalDistribution(listed), {v: str(v) for v in listed})
    return Parameter(key, IntDistribution(min(listed), max(listed), step=steps.pop()))


def _choices(override: Override) -> list[Any]:
    """The values of a choice or glob in the order written, even under shuffle(), which would differ at each start."""
    sweep = override.value()
    listed = sweep.list if isinstance(sweep, ChoiceSweep) else list(override.sweep_iterator())
    if isinstance(sweep, Glob):
        listed = list(map(_named, listed))
    if not listed:
        raise StudyError(f"{override.input_line}: there is nothing to choose from")
    if any(isinstance(element, Sweep) for element in listed):
        raise StudyError(f"{override.input_line} must be one sweep: a list of values can't hold an interval or a range")
    return listed


def zipped(overrides: Sequence[Override]) -> Zipped:
    """Makes keys vary together: the first values of all keys form the first choice, and so on.

    Raises:
        StudyError: a key's values can't be listed, or keys have different numbers of values.
    """
    from optuna.distributions import CategoricalDistribution

    columns = {o.get_key_element(): _column(o) for o in overrides}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{key} has {n}" for key, n in lengths.items())
        raise StudyError(
            f"hydra.sweeper.zip: keys that vary together must have the same number of values, but {counted}"
        )
    rows: dict[str, tuple[str, ...]] = {}
    values: dict[str, dict[str, Any]] = {}
    for row in zip(*columns.values(), strict=True):
        choice = ",".join(line.partition("=")[2] for _, line in row)
        rows[choice] = tuple(line for _, line in row)
        values[choice] = {key.lstrip("+"): value for key, (value, _) in zip(columns, row, strict=True)}
    texts = {choice: choice for choice in rows}
    return Zipped(",".join(columns), CategoricalDistribution(list(rows)), texts, rows=rows, values=values)


def _column(override: Override) -> list[tuple[Any, str]]:
    """A swept override's values in order, each with its override; values may repeat."""
    key = override.get_key_element()
    if not isinstance(override.value(), RangeSweep | IntervalSweep):
        return [(plain(e), f"{key}={element_text(e)}") for e in _choices(override)]
    one = parameter(override)
    listed = one.listed()
    if listed is None:
        raise StudyError(f"hydra.sweeper.zip: {one.name} is an interval: write choices or a range")
    return [(value, one.override(value)) for value in listed]


def plain(element: Any) -> Any:
    """A choice as a value that storages and JSON hold exactly; others, such as lists and nan, become text."""
    if isinstance(element, QuotedString):
        return element.text
    is_exact = isinstance(element, str | bool | None) or (
        isinstance(element, int | float) and math.isfinite(element) and (isinstance(element, float) or _fits(element))
    )
    return element if is_exact else element_text(element)


def _fits(number: int) -> bool:
    return abs(number) <= LARGEST_WHOLE


# ---- keys that vary together, in the grammar proposed for Hydra: pair=zip(model=choice(a,b),lr=[0.1,0.2])


def zip_members(name: str, text: str) -> list[str] | None:
    """The members of zip(...) or shuffle(zip(...)), as overrides; None for any other text.

    Raises:
        StudyError: it is not a valid zip.
    """
    inner = _within(text, "shuffle")
    members = _within(text if inner is None or _within(inner, "zip") is None else inner, "zip")
    if members is None:
        return None
    parts = [part.strip() for part in _split(members)]
    said = f"hydra.sweeper.params.{name}: {text}"
    keys = [part.partition("=")[0].strip() for part in parts]
    if len(parts) < 2 or not all("=" in part for part in parts):
        raise StudyError(f"{said} must have two members or more, such as zip(model=choice(a,b),lr=choice(0.1,0.2))")
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise StudyError(f"{said} must name {twice[0]} only once")
    for key, part in zip(keys, parts, strict=True):
        value = part.partition("=")[2].strip()
        if value.startswith(("zip(", "shuffle(")):
            raise StudyError(
                f"{said}: {key} must be a list, a choice or a range: to shuffle rows, write shuffle(zip(...))"
            )
        if key.lstrip("+").startswith(("hydra.", "hydra/")):
            raise StudyError(f"{said}: {key} belongs to Hydra and can't be swept")
    return [f"{key}={part.partition('=')[2].strip()}" for key, part in zip(keys, parts, strict=True)]


def as_choice(override: Override) -> str:
    """A zip member's override with its list as choices: within a zip, a list lists the values to try.

    Raises:
        StudyError: it is not a list, a choice or a range, or the list is empty.
    """
    key, value = override.get_key_element(), override.value()
    if isinstance(value, list):
        if not value:
            raise StudyError(f"hydra.sweeper.params: {override.input_line} must have values")
        texts = ",".join(map(element_text, value))
        return f"{key}={texts}" if len(value) > 1 else f"{key}=choice({texts})"  # choice() does not accept null
    if not override.is_sweep_override():
        raise StudyError(f"hydra.sweeper.params: {override.input_line} must be a list, a choice or a range in a zip")
    return str(override.input_line)


def _within(text: str, function: str) -> str | None:
    """The text between the parentheses of a call of this function; None if it is no such call."""
    text = text.strip()
    return text[len(function) + 1 : -1] if text.startswith(f"{function}(") and text.endswith(")") else None


def _split(text: str) -> list[str]:
    """Splits at commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts
