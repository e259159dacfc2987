"""A search space: Hydra's override grammar, translated to Optuna's distributions and back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Sweep,
)

from reg_sweep.hydra_internals import element_text
from reg_sweep.search.settings import StudyError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Parameter:
    """One swept key: Optuna's distribution, and how a value of it is written as a Hydra override."""

    key: str  # as it stands before "=", Hydra's + or ++ included
    distribution: "BaseDistribution"
    texts: Mapping[Any, str] = field(default_factory=dict)  # of choices
    digits: int | None = None  # of a range's floats: undoes the rounding noise of low + k * step

    @property
    def name(self) -> str:
        """The key as Optuna and the records call it."""
        return self.key.lstrip("+")

    def override(self, value: Any) -> str:
        """The job's override for one of the distribution's values."""
        if self.texts:
            return f"{self.key}={self.texts[value]}"
        return f"{self.key}={value if self.digits is None else round(value, self.digits)}"

    def __str__(self) -> str:
        """What may be chosen, in words: 'one of bn, gbn', '1e-07 to 0.1, log', '0 to 9 by 3'."""
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
    # a choice's shuffle() would give each start of the study other choices; the sampler decides the order anyway
    listed = sweep.list if isinstance(sweep, ChoiceSweep) else list(override.sweep_iterator())
    if not listed:
        raise StudyError(f"{written}: there is nothing to choose from")
    texts = {_plain(e): element_text(e) for e in listed}
    if len(texts) != len(listed):  # 1 and True are one key: go by what is written
        texts = {t: t for t in map(element_text, listed)}
    return Parameter(key, CategoricalDistribution(list(texts)), texts)


def _range(key: str, sweep: RangeSweep) -> Parameter:
    """A range in decimals, as it is written: in binary, 0.3 may or may not lie below 3 * 0.1."""
    from optuna.distributions import FloatDistribution, IntDistribution

    ends: list[Any] = [sweep.start, sweep.stop, sweep.step]
    for cast in getattr(sweep, "transformers", ()):  # of Hydra 1.4, where 1.3 has cast them already
        ends = [cast(v) for v in ends]
    start, stop, step = (Decimal(str(v)) for v in ends)
    n = math.ceil((stop - start) / step) if step else 0
    if n < 1:
        raise StudyError(f"{key}: the range from {start} to {stop}, by steps of {step}, is empty")
    low, high = sorted((start, start + (n - 1) * step))
    if all(isinstance(v, int) for v in ends):
        return Parameter(key, IntDistribution(int(low), int(high), step=abs(int(step))))
    digits = max(0, *(-e for d in (low, step) if isinstance(e := d.as_tuple().exponent, int)))
    return Parameter(key, FloatDistribution(float(low), float(high), step=abs(float(step))), digits=digits)


def _plain(element: Any) -> Any:
    """A choice as one of the types that Optuna stores; lists and dicts as they are written."""
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, str | int | float | None) else element_text(element)


@dataclass(frozen=True)
class Space:
    """A command's overrides, sorted: what varies, and what every job gets as it is, deletions included."""

    parameters: dict[str, Parameter]
    fixed: dict[str, Override]
    order: list[str]  # of all keys, as written

    @property
    def distributions(self) -> dict[str, "BaseDistribution"]:
        """What Optuna draws from, by name."""
        return {name: p.distribution for name, p in self.parameters.items()}

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The job's overrides for a trial's parameters, in the order of the command."""
        written = {key: str(o.input_line) for key, o in self.fixed.items()}
        written |= {p.key: p.override(params[name]) for name, p in self.parameters.items() if name in params}
        return [written[key] for key in self.order if key in written]


def space(overrides: Sequence[Override]) -> Space:
    """Sorts overrides into a space; of one key the last counts.

    Raises:
        StudyError: nothing is swept.
    """
    by_key = {o.get_key_element(): o for o in overrides}
    swept = [parameter(o) for o in by_key.values() if o.is_sweep_override()]
    if not swept:
        raise StudyError(
            "the search space is empty: sweep at least one key, for example 'l1=tag(log, interval(1e-7, 1e-1))', on the"
            " command line or in hydra.sweeper.params"
        )
    fixed = {key: o for key, o in by_key.items() if not o.is_sweep_override()}
    return Space({p.name: p for p in swept}, fixed, list(by_key))
