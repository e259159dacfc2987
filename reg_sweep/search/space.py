"""A search space, from a command's overrides: keys that vary alone, together or conditionally, and the fixed ones.

A conditional key is swept only if another key has one of certain values. To Optuna it is a parameter that some trials
lack.
"""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override

from reg_sweep.hydra_app.errors import holds_address
from reg_sweep.hydra_app.internals import element_text
from reg_sweep.hydra_app.refusals import MAX_JOBS
from reg_sweep.search.parameter import Parameter, Zipped, parameter, plain, split_params, zipped
from reg_sweep.search.settings import StudyError, located
from reg_sweep.search.storage import OWN_ATTRIBUTES

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.distributions import BaseDistribution

    from reg_sweep.search.storage import Storage

Conditions = dict[str, dict[str, tuple[Any, ...]]]  # by key: the values that other keys must have for it to be swept


@dataclass(frozen=True)
class Space:
    """A command's overrides, split into swept ones and fixed ones, which every job gets; deletions are fixed ones.

    Attributes:
        parameters: the swept keys by name; a key comes after those that its conditions depend on.
        fixed: the other overrides by key.
        order: all keys, in the order written.
        extend: a function that suggests more parameters for a trial; they may depend on those that it has.
        conditions: the conditional keys with their conditions.
    """

    parameters: dict[str, Parameter]
    fixed: dict[str, Override]
    order: list[str]
    extend: "Callable[[optuna.Trial], None] | None" = None
    conditions: Conditions = field(default_factory=dict)

    @property
    def distributions(self) -> dict[str, "BaseDistribution"]:
        """The distributions of the parameters that every trial has, by name."""
        return {name: p.distribution for name, p in self.parameters.items() if name not in self.conditions}

    def is_swept(self, name: str, point: Mapping[str, Any]) -> bool:
        """Whether a point has this parameter, given the values that its conditions depend on."""
        return all(parent in point and point[parent] in v for parent, v in self.conditions.get(name, {}).items())

    def names_at(self, point: Mapping[str, Any]) -> list[str]:
        """The names of the parameters that a point must have."""
        return [name for name in self.parameters if self.is_swept(name, point)]

    def text(self, name: str) -> str:
        """A parameter and its conditions in words, such as '0 to 1, where kind is rated'."""
        said = str(self.parameters[name])
        under = (
            f"{parent} is {' or '.join(map(str, values))}" for parent, values in self.conditions.get(name, {}).items()
        )
        return f"{said}, where {' and '.join(under)}" if name in self.conditions else said

    def points(self) -> Iterator[dict[str, Any]]:
        """All points, if values can be listed; the last key varies fastest, as in Hydra's own grid."""
        return self._points({}, list(self.parameters))

    def _points(self, begun: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not names:
            yield begun
            return
        name, *rest = names
        if not self.is_swept(name, begun):
            yield from self._points(begun, rest)
            return
        for value in self.parameters[name].listed() or []:
            yield from self._points({**begun, name: value}, rest)

    def has(self, point: Mapping[str, Any]) -> bool:
        """Whether a point, given by single keys, is in this space."""
        from reg_sweep.search.optuna_internals import holds

        try:
            found = self.point(point)
        except StudyError:
            return False
        return all(
            name in self.parameters and self.is_swept(name, found) and holds(self.parameters[name].distribution, value)
            for name, value in found.items()
        )

    def size(self) -> int:
        """The number of points.

        Raises:
            StudyError: the points can't be listed, or there are too many.
        """
        listed = {name: p.listed() for name, p in self.parameters.items()}
        endless = [name for name, values in listed.items() if values is None]
        if endless:
            raise StudyError(
                f"a grid needs values that can be listed, but {', '.join(endless)} is an interval: write choices or"
                " a range, or choose another hydra/sweeper/sampler"
            )
        n = math.prod(len(values or []) for values in listed.values())
        if self.conditions:  # some keys have no value at some points
            n = sum(1 for _ in islice(self.points(), MAX_JOBS + 1))
        if n > MAX_JOBS:
            raise StudyError(f"a grid must have at most {MAX_JOBS:,} points, got {n:,}: sweep fewer values")
        return n

    def check_kept(self, storage: "Storage") -> None:
        """Refuses parameters that the storage can't tell apart.

        Raises:
            StudyError: their names differ only in case, which the storage ignores.
        """
        from reg_sweep.search.backends import Database

        ordered = sorted(self.parameters, key=str.lower)
        alike = [f"{a} and {b}" for a, b in pairwise(ordered) if a.lower() == b.lower()]
        if alike and isinstance(storage, Database) and not storage.tells_case:
            raise StudyError(
                f"{', '.join(alike)} must differ in more than case, which MySQL ignores: choose another"
                " hydra.sweeper.storage"
            )

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The job's overrides for a trial's parameters: the space's in the order of the command, then any others.

        Parameters outside the space were suggested by `extend` or swept before the study was extended.
        """
        names = {key.lstrip("+~"): key for key in self.fixed}
        written = {key: [str(o.input_line)] for key, o in self.fixed.items() if key.lstrip("+~") not in params}
        written |= {p.key: p.overrides(params[name]) for name, p in self.parameters.items() if name in params}
        own = [line for key in self.order for line in written.get(key, [])]
        more = [n for n in params if n not in self.parameters]
        plus = {n: "+" if names.get(n, "").startswith("+") else "" for n in more}
        return [*own, *(f"{plus[n]}{n}={element_text(params[n])}" for n in more)]

    def job(self, trial: "optuna.Trial") -> list[str]:
        """The overrides of a trial's job. First suggests the conditional parameters and those of `extend`.

        Also records fixed values as attributes of the trial.

        Raises:
            StudyError: `extend` fails, or suggests a key that the command fixes.
        """
        for name in self.conditions:  # parents first
            if self.is_swept(name, trial.params):
                self.parameters[name].suggest(trial)
        if self.extend is not None:
            before = trial.params.keys()
            self.extend(trial)
            clash = (trial.params.keys() - before) & {key.lstrip("+~") for key in self.fixed}
            if clash:
                raise StudyError(
                    "hydra.sweeper.custom_search_space must not suggest keys that the command fixes, got"
                    f" {', '.join(clash)}"
                )
        known = trial.user_attrs
        for name, value in self._attributes(trial.params).items():
            if name not in known and name not in OWN_ATTRIBUTES:
                trial.set_user_attr(name, value)
        return self.overrides(trial.params)

    def _attributes(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The values of fixed keys and of keys that vary together, by name, for dashboards."""
        told = {key: o for key, o in self.fixed.items() if not o.is_delete() and not holds_address(str(o.input_line))}
        fixed = {key.lstrip("+"): plain(o.value()) for key, o in told.items()}
        for name, p in self.parameters.items():
            if isinstance(p, Zipped) and name in params:
                fixed |= p.values[params[name]]
        return fixed

    def split(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Converts parameters by Optuna's names to parameters by single keys."""
        return split_params(params, self._attributes(params))

    def point(self, point: Mapping[str, Any], setting: str = "enqueue") -> dict[str, Any]:
        """Converts a point by single keys to one by Optuna's names and choices.

        Raises:
            StudyError: keys that vary together don't have these values together.
        """
        found = {k: self.parameters[k].choice(v) if k in self.parameters else v for k, v in point.items()}
        for p in self.parameters.values():
            if isinstance(p, Zipped) and not found.keys().isdisjoint(p.name.split(",")):
                given = {key: found.pop(key, None) for key in p.name.split(",")}
                choice = next((choice for choice, values in p.values.items() if values == given), None)
                if choice is None:
                    got = ", ".join(f"{key}={value}" for key, value in given.items())
                    raise StudyError(f"hydra.sweeper.{setting}: {p.name} must be {p}, got {got}")
                found[p.name] = choice
        return found


def space(
    overrides: Sequence[Override],
    groups: Sequence[Sequence[str]] | None = None,
    extend: "Callable[[optuna.Trial], None] | None" = None,
    conditions: Mapping[str, Any] | None = None,
    typed: Container[str] = (),
    *,
    may_be_empty: bool = False,
) -> Space:
    """Makes a space from overrides. A key's last override counts; the keys of a group vary together.

    Args:
        overrides: the config's, then the command's.
        groups: `hydra.sweeper.zip`.
        extend: a function that suggests more parameters for a trial.
        conditions: `hydra.sweeper.conditions`.
        typed: names of keys on the command line, which take precedence over the config's.
        may_be_empty: whether to accept a space without swept keys, as for a grid of one job.

    Raises:
        StudyError: nothing is swept, a group's keys can't vary together, or a condition can't hold.
    """
    # By name: x=0,1 in the config and +x=3 in the command set the same key. A deletion sets no value.
    by_name = {o.get_key_element().lstrip("+"): o for o in overrides}
    by_key = {o.get_key_element(): o for o in by_name.values()}
    swept = {key: o for key, o in by_key.items() if o.is_sweep_override()}
    parameters = [zipped(group) for group in _grouped(swept, by_key, groups or [])]
    together = {key: p.key for p in parameters for key in p.key.split(",")}
    alone = [parameter(o) for key, o in swept.items() if key not in together]
    if not swept and extend is None and not may_be_empty:
        raise StudyError(
            "the search space is empty: sweep at least one key, for example 'l1=tag(log, interval(1e-7, 1e-1))', on the"
            " command line or in hydra.sweeper.params"
        )
    fixed = {key: o for key, o in by_key.items() if not o.is_sweep_override()}
    order = list(dict.fromkeys(together.get(key, key) for key in by_key))
    by_order = {p.name: p for p in sorted([*parameters, *alone], key=lambda p: order.index(p.key))}
    under, dropped = _Conditions(conditions or {}, by_order, fixed, typed).read()
    kept = {name: p for name, p in by_order.items() if name not in dropped}
    ranks = {name: _depth(name, under) for name in kept}
    ordered = {name: kept[name] for name in sorted(kept, key=ranks.__getitem__)}  # stable
    return Space(ordered, fixed, order, extend, {name: under[name] for name in ordered if name in under})


def _depth(name: str, conditions: Conditions) -> int:
    return 1 + max((_depth(parent, conditions) for parent in conditions.get(name, {})), default=-1)


def _grouped(
    swept: Mapping[str, Override], written: Container[str], groups: Sequence[Sequence[str]]
) -> list[list[Override]]:
    """The swept overrides of each group of names."""
    names = {key.lstrip("+"): key for key in swept}
    for group in groups:
        if isinstance(group, str) or len(group) < 2:
            raise StudyError(f"hydra.sweeper.zip must list groups of keys, such as [[l1,l2]], got {list(groups)}")
        for name in group:
            if name not in names and name in written:
                others = ", ".join(n for n in group if n != name)
                raise StudyError(
                    f"hydra.sweeper.zip: {name} must vary together with {others}, but has only one value: sweep it, or"
                    " drop the groups with hydra.sweeper.zip=null"
                )
            if name not in names:
                raise StudyError(f"hydra.sweeper.zip: {name} is not swept: the space has {', '.join(names)}")
            if [n for g in groups for n in g].count(name) > 1:
                raise StudyError(f"hydra.sweeper.zip: {name} must be in only one group, and only once")
    return [[swept[names[name]] for name in group] for group in groups]


class _Conditions:
    """Applies `hydra.sweeper.conditions` to a space: which conditions remain, and which keys are never swept."""

    def __init__(
        self,
        written: Mapping[str, Any],
        parameters: Mapping[str, Parameter],
        fixed: Mapping[str, Override],
        typed: Container[str],
    ) -> None:
        """Does not check anything yet; `read` does."""
        self._written, self._parameters, self._typed = written, parameters, typed
        self._fixed = {key.lstrip("+"): plain(o.value()) for key, o in fixed.items() if not o.is_delete()}

    def read(self) -> tuple[Conditions, set[str]]:
        """The remaining conditions, and the keys of the config that the command's values exclude at every point.

        Raises:
            StudyError: a condition names a key that is not swept, can never hold, or depends on itself.
        """
        found: Conditions = {}
        dropped: set[str] = set()
        for name, wanted in self._written.items():
            if name in self._fixed:  # the command gives it to all jobs, without conditions
                continue
            if name not in self._parameters or not isinstance(wanted, Mapping) or not wanted:
                raise StudyError(
                    "hydra.sweeper.conditions must map swept keys to the values of other keys that they need, such as"
                    f" {{momentum: {{optimizer: sgd}}}}, got {{{name}: {wanted}}}"
                    + ("" if name in self._parameters else f": {name} is not swept")
                )
            left = {parent: self._values(name, parent, value) for parent, value in wanted.items()}
            if any(values == () for values in left.values()):
                dropped.add(name)
            found[name] = {parent: values for parent, values in left.items() if values is not None}
        for name in found:
            self._check_possible(name, found)
        dropped |= {name for name in found if self._ancestors(name, found) & dropped}
        return {name: parents for name, parents in found.items() if parents and name not in dropped}, dropped

    def _values(self, name: str, parent: str, wanted: Any) -> tuple[Any, ...] | None:
        """The values of a parent for which a key is swept. None means always and () never, given the command."""
        given = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
        said = f"hydra.sweeper.conditions: {name} is swept only if {parent} is {' or '.join(map(str, given))}"
        if parent in self._fixed:
            if self._fixed[parent] in given:
                return None
            return self._never(name, parent, f"{said}, but it is {self._fixed[parent]}")
        p = self._parameters.get(parent)
        if p is None:
            raise StudyError(f"{said}, but {parent} is not swept: the space has {', '.join(self._parameters)}")
        listed = p.listed()
        if listed is None or isinstance(p, Zipped):
            raise StudyError(f"{said}, but {parent} is {p}: a condition needs a key with choices or a range")
        values = tuple(v for v in map(p.choice, given) if v in listed)
        return values or self._never(name, parent, f"{said}, but it is {p}")

    def _never(self, name: str, parent: str, said: str) -> tuple[Any, ...]:
        if name in self._typed or parent not in self._typed:
            raise StudyError(f"{said}: sweep another value of {parent}, or leave {name} out")
        return ()

    def _ancestors(self, name: str, found: Conditions) -> set[str]:
        above = set(found.get(name, {}))
        return above.union(*(self._ancestors(parent, found) for parent in above))

    def _check_possible(self, name: str, found: Conditions) -> None:
        """Refuses circular conditions, and those that contradict each other across several keys."""
        needed: dict[str, set[Any]] = {}
        to_see, seen = [name], set[str]()
        while to_see:
            child = to_see.pop()
            for parent, values in found.get(child, {}).items():
                if parent == name:
                    raise StudyError(f"hydra.sweeper.conditions: {name} must not depend on itself")
                needed[parent] = needed.get(parent, set(values)) & set(values)
                if not needed[parent] and values:
                    raise StudyError(
                        f"hydra.sweeper.conditions: {name} can never be swept: its conditions require different values"
                        f" of {parent}"
                    )
                if parent not in seen:
                    to_see.append(parent)
                    seen.add(parent)


def extension(path: str | None, config: "DictConfig") -> "Callable[[optuna.Trial], None] | None":
    """The function that suggests more parameters for a trial: `hydra.sweeper.custom_search_space`, if it is set.

    It is called as `(config, trial)` after the trial has got its other parameters. The names that it suggests are keys
    of the app's config; they begin with a + if the config does not have them.

    Raises:
        StudyError: there is no such function; the returned function raises it if the app's function fails.
    """
    if path is None:
        return None
    function = located("custom_search_space", path)

    def extend(trial: "optuna.Trial") -> None:
        try:
            function(config, trial)
        except Exception as error:  # the app's function may raise anything
            reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
            raise StudyError(f"hydra.sweeper.custom_search_space: {path} failed: {reason}") from None

    return extend
