"""A search space: Hydra's override grammar, translated to Optuna's distributions and back."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Sweep,
)

from reg_sweep.hydra_app.internals import element_text
from reg_sweep.hydra_app.redaction import holds_address
from reg_sweep.search.settings import StudyError, located
from reg_sweep.search.storage import OWN_ATTRIBUTES

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.distributions import BaseDistribution

    from reg_sweep.search.storage import Storage


@dataclass(frozen=True)
class Parameter:
    """One swept key: Optuna's distribution, and how a value of it is written as a Hydra override."""

    key: str  # as it stands before "=", Hydra's + or ++ included
    distribution: "BaseDistribution"
    texts: Mapping[Any, str] = field(default_factory=dict)  # of choices
    digits: int | None = None  # of a range's floats: undoes the rounding noise of low + k * step

    @property
    def name(self) -> str:
        """The key's name in Optuna and in the records."""
        return self.key.lstrip("+")

    def override(self, value: Any) -> str:
        """The job's override for one of the distribution's values."""
        if self.texts:
            return f"{self.key}={self.texts[value]}"
        return f"{self.key}={value if self.digits is None else round(value, self.digits)}"

    def overrides(self, value: Any) -> list[str]:
        """All of the job's overrides for a value: one, or one for each key of a group that varies together."""
        return [self.override(value)]

    def __str__(self) -> str:
        """The choices in words: 'one of bn, gbn', '1e-07 to 0.1, log', '0 to 9 by 3'."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return f"one of {', '.join(self.texts[c] for c in d.choices)}"
        assert isinstance(d, FloatDistribution | IntDistribution)
        step = "" if d.step is None or d.log or (isinstance(d, IntDistribution) and d.step == 1) else f" by {d.step}"
        kind = ", whole numbers" if isinstance(d, IntDistribution) else ""
        return f"{d.low} to {d.high}{step}{kind}{', log' if d.log else ''}"

    def listed(self) -> list[Any] | None:
        """All values, where they can be listed."""
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
    """Keys that vary together: one of Optuna's parameters, named 'l1,l2', whose choices are rows such as '0.001,0'."""

    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the overrides of each choice
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of each choice, by the keys' names

    @property
    def name(self) -> str:
        """The keys joined by commas: their name in Optuna."""
        return ",".join(key.lstrip("+") for key in self.key.split(","))

    def overrides(self, value: Any) -> list[str]:
        """The job's overrides, one for each key."""
        return list(self.rows[value])

    def __str__(self) -> str:
        """'one of (0,0), (0.001,0)'."""
        return f"one of {', '.join(f'({choice})' for choice in self.rows)}"


def split_params(params: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's parameters by single keys: the values of keys that vary together are among its attributes."""
    split: dict[str, Any] = {}
    for name, value in params.items():
        keys = name.split(",")
        together = len(keys) > 1 and all(key in attributes for key in keys)
        split |= {key: attributes[key] for key in keys} if together else {name: value}
    return split


def parameter(override: Override) -> Parameter:
    """Translates a sweep override: choice and glob, range (end excluded), interval, with the tags log and int.

    Raises:
        StudyError: the sweep is empty, has an unknown tag, or can't be on a log scale.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    key, sweep, written = override.get_key_element(), override.value(), override.input_line
    tags = sweep.tags if isinstance(sweep, Sweep) else set()
    allowed = {"log", "int"} if isinstance(sweep, IntervalSweep) else set()
    if tags - allowed:
        raise StudyError(
            f"{written}: unknown tag {', '.join(sorted(tags - allowed))}: an interval takes log and int, others none"
        )
    if isinstance(sweep, IntervalSweep):
        assert sweep.start is not None
        assert sweep.end is not None
        is_int, is_log = "int" in tags or isinstance(sweep.start, int), "log" in tags
        if sweep.start > sweep.end:
            raise StudyError(f"{written}: the interval is empty: its start must not be above its end")
        if is_log and sweep.start <= 0:
            raise StudyError(f"{written}: on a log scale an interval must start above 0, got {sweep.start:g}")
        if is_int:
            low, high = math.ceil(sweep.start), math.floor(sweep.end)
            if low > high:
                raise StudyError(f"{written}: there is no whole number from {sweep.start:g} to {sweep.end:g}")
            return Parameter(key, IntDistribution(low, high, log=is_log))
        return Parameter(key, FloatDistribution(sweep.start, sweep.end, log=is_log))
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep)
    listed = _choices(override)
    texts = {_plain(e): element_text(e) for e in listed}
    if len(texts) != len(listed):  # 1 and True are one key: go by what is written
        texts = {t: t for t in map(element_text, listed)}
    return Parameter(key, CategoricalDistribution(list(texts)), texts)


def _range(key: str, sweep: RangeSweep) -> Parameter:
    """A range in decimals, as it is written: in binary, 0.3 may or may not lie below 3 * 0.1."""
    from optuna.distributions import FloatDistribution, IntDistribution

    ends: list[Any] = [sweep.start, sweep.stop, sweep.step]
    start, stop, step = (Decimal(str(v)) for v in ends)
    n = math.ceil((stop - start) / step) if step else 0
    if n < 1:
        raise StudyError(f"{key}: the range from {start} to {stop}, by steps of {step}, is empty")
    low, high = sorted((start, start + (n - 1) * step))
    are_ints = all(isinstance(v, int) for v in ends)
    casts = getattr(sweep, "transformers", ())  # of Hydra 1.4, which casts each value where 1.3 has cast the ends
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
    """Whole numbers that a cast of a range gives: 0, 1, 3, 4, say."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    listed = list(dict.fromkeys(values))
    steps = {abs(b - a) for a, b in pairwise(listed)} or {1}
    if len(steps) > 1:
        return Parameter(key, CategoricalDistribution(listed), {v: str(v) for v in listed})
    return Parameter(key, IntDistribution(min(listed), max(listed), step=steps.pop()))


def _choices(override: Override) -> list[Any]:
    """The values that a choice or a glob lists, in the order written: shuffle() would differ at each start."""
    sweep = override.value()
    listed = sweep.list if isinstance(sweep, ChoiceSweep) else list(override.sweep_iterator())
    if not listed:
        raise StudyError(f"{override.input_line}: there is nothing to choose from")
    return listed


def zipped(overrides: Sequence[Override]) -> Zipped:
    """Keys that vary together, from their sweeps: the first values of all make the first choice.

    Raises:
        StudyError: one's values can't be listed, or they are not as many as another's.
    """
    from optuna.distributions import CategoricalDistribution

    columns = {o.get_key_element(): _column(o) for o in overrides}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{key} has {n}" for key, n in lengths.items())
        raise StudyError(f"hydra.sweeper.zip: keys that vary together need as many values each, but {counted}")
    rows: dict[str, tuple[str, ...]] = {}
    values: dict[str, dict[str, Any]] = {}
    for row in zip(*columns.values(), strict=True):
        choice = ",".join(line.partition("=")[2] for _, line in row)
        rows[choice] = tuple(line for _, line in row)
        values[choice] = {key.lstrip("+"): value for key, (value, _) in zip(columns, row, strict=True)}
    texts = {choice: choice for choice in rows}
    return Zipped(",".join(columns), CategoricalDistribution(list(rows)), texts, rows=rows, values=values)


def _column(override: Override) -> list[tuple[Any, str]]:
    """A sweep's values in their order, each with its override; a value may come twice."""
    key = override.get_key_element()
    if not isinstance(override.value(), RangeSweep | IntervalSweep):
        return [(_plain(e), f"{key}={element_text(e)}") for e in _choices(override)]
    one = parameter(override)
    listed = one.listed()
    if listed is None:
        raise StudyError(f"hydra.sweeper.zip: {one.name} is an interval: write choices or a range")
    return [(value, one.override(value)) for value in listed]


def _plain(element: Any) -> Any:
    """A choice as one of the types that Optuna stores; lists and dicts as they are written."""
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, str | int | float | None) else element_text(element)


@dataclass(frozen=True)
class Space:
    """A command's overrides, sorted: those that vary, and those that every job gets as they are, deletions included.

    `extend` suggests more parameters of a trial, which may depend on those that it has.
    """

    parameters: dict[str, Parameter]
    fixed: dict[str, Override]
    order: list[str]  # of all keys, as written
    extend: "Callable[[optuna.Trial], None] | None" = None

    @property
    def distributions(self) -> dict[str, "BaseDistribution"]:
        """The distributions that Optuna draws from, by name."""
        return {name: p.distribution for name, p in self.parameters.items()}

    def check_kept(self, storage: "Storage") -> None:
        """Refuses parameters that the storage takes for one.

        Raises:
            StudyError: their names differ in case alone, which the storage does not see.
        """
        from reg_sweep.search.database import Database

        ordered = sorted(self.parameters, key=str.lower)
        alike = [f"{a} and {b}" for a, b in pairwise(ordered) if a.lower() == b.lower()]
        if alike and isinstance(storage, Database) and not storage.tells_case:
            raise StudyError(
                f"MySQL does not tell {', '.join(alike)} apart, which differ in case alone: choose another"
                " hydra.sweeper.storage"
            )

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The job's overrides for a trial's parameters, in the order of the command; then those outside of the space.

        Parameters outside of the space were suggested by `extend`, or swept before the study was extended.
        """
        names = {key.lstrip("+~"): key for key in self.fixed}
        written = {key: [str(o.input_line)] for key, o in self.fixed.items() if key.lstrip("+~") not in params}
        written |= {p.key: p.overrides(params[name]) for name, p in self.parameters.items() if name in params}
        own = [line for key in self.order for line in written.get(key, [])]
        more = [n for n in params if n not in self.parameters]
        plus = {n: "+" if names.get(n, "").startswith("+") else "" for n in more}
        return [*own, *(f"{plus[n]}{n}={element_text(params[n])}" for n in more)]

    def job(self, trial: "optuna.Trial") -> list[str]:
        """The overrides of a trial's job, with all parameters that `extend` suggests; notes fixed values in the trial.

        Raises:
            StudyError: `extend` fails, or suggests what the command fixes.
        """
        if self.extend is not None:
            before = trial.params.keys()
            self.extend(trial)
            clash = (trial.params.keys() - before) & {key.lstrip("+~") for key in self.fixed}
            if clash:
                raise StudyError(
                    f"hydra.sweeper.custom_search_space must not suggest what the command fixes, got {', '.join(clash)}"
                )
        known = trial.user_attrs
        for name, value in self._attributes(trial.params).items():
            if name not in known and name not in OWN_ATTRIBUTES:
                trial.set_user_attr(name, value)
        return self.overrides(trial.params)

    def _attributes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Fixed values, and those of keys that vary together, by name, for dashboards."""
        told = {key: o for key, o in self.fixed.items() if not o.is_delete() and not holds_address(str(o.input_line))}
        fixed = {key.lstrip("+"): _plain(o.value()) for key, o in told.items()}
        for name, p in self.parameters.items():
            if isinstance(p, Zipped) and name in params:
                fixed |= p.values[params[name]]
        return fixed

    def point(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point by Optuna's names, from a point by single keys.

        Raises:
            StudyError: keys that vary together have no such values.
        """
        found = dict(point)
        for p in self.parameters.values():
            if isinstance(p, Zipped) and not found.keys().isdisjoint(p.name.split(",")):
                given = {key: found.pop(key, None) for key in p.name.split(",")}
                choice = next((choice for choice, values in p.values.items() if values == given), None)
                if choice is None:
                    raise StudyError(f"hydra.sweeper.enqueue: {p.name} must be {p}, got {given}")
                found[p.name] = choice
        return found


def space(
    overrides: Sequence[Override],
    groups: Sequence[Sequence[str]] | None = None,
    extend: "Callable[[optuna.Trial], None] | None" = None,
) -> Space:
    """Sorts overrides into a space. A key's last override counts; the keys of a group vary together.

    Raises:
        StudyError: nothing is swept, or a group's keys can't vary together.
    """
    by_key = {o.get_key_element(): o for o in overrides}
    swept = {key: o for key, o in by_key.items() if o.is_sweep_override()}
    parameters = [zipped(group) for group in _grouped(swept, groups or [])]
    together = {key: p.key for p in parameters for key in p.key.split(",")}
    alone = [parameter(o) for key, o in swept.items() if key not in together]
    if not swept and extend is None:
        raise StudyError(
            "the search space is empty: sweep at least one key, for example 'l1=tag(log, interval(1e-7, 1e-1))', on the"
            " command line or in hydra.sweeper.params"
        )
    fixed = {key: o for key, o in by_key.items() if not o.is_sweep_override()}
    order = list(dict.fromkeys(together.get(key, key) for key in by_key))
    by_order = sorted([*parameters, *alone], key=lambda p: order.index(p.key))
    return Space({p.name: p for p in by_order}, fixed, order, extend)


def _grouped(swept: Mapping[str, Override], groups: Sequence[Sequence[str]]) -> list[list[Override]]:
    """The sweeps of each group of names."""
    names = {key.lstrip("+"): key for key in swept}
    for group in groups:
        if isinstance(group, str) or len(group) < 2:
            raise StudyError(f"hydra.sweeper.zip must list groups of keys, such as [[l1,l2]], got {list(groups)}")
        for name in group:
            if name not in names:
                raise StudyError(f"hydra.sweeper.zip: {name} is not swept: the space has {', '.join(names)}")
            if [n for g in groups for n in g].count(name) > 1:
                raise StudyError(f"hydra.sweeper.zip: {name} must be in one group, and once")
    return [[swept[names[name]] for name in group] for group in groups]


def extension(path: str | None, config: "DictConfig") -> "Callable[[optuna.Trial], None] | None":
    """The function that suggests more parameters of a trial: `hydra.sweeper.custom_search_space`, if it is set.

    It is called as `(config, trial)`, when the trial has its other parameters. The names that it suggests are keys of
    the app's config, with a + where the config does not have them.

    Raises:
        StudyError: there is no such function; or, when it is called, it fails.
    """
    if path is None:
        return None
    function = located("custom_search_space", path)

    def extend(trial: "optuna.Trial") -> None:
        try:
            function(config, trial)
        except Exception as error:  # it is the app's own
            reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            raise StudyError(f"hydra.sweeper.custom_search_space: {path} failed: {reason}") from None

    return extend
