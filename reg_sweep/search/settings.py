"""A study's settings: the keys of `hydra.sweeper`, and the Optuna objects that they name."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hydra.errors import CompactHydraException

from reg_sweep.config.targets import attribute_at
from reg_sweep.hydra_app.errors import first_line
from reg_sweep.hydra_app.internals import instantiate
from reg_sweep.runs.study import DIRECTIONS, Direction

if TYPE_CHECKING:
    import optuna

Part = TypeVar("Part")
Node = TypeVar("Node")

AUTO = "auto"


class StudyError(CompactHydraException):
    """A study that can't be run as asked. The message is one line; Hydra prints it without a traceback."""


# The settings' classes are not frozen: Hydra uses them as structured configs and fills them key by key.
@dataclass
class DesignSettings:
    """`hydra.sweeper.design`: how `until_verdict` and `confirm` judge.

    Most keys are arguments of `reg_sweep.stats.sequential.Design`, whose defaults apply to keys that are null. Two are
    not: `max_seeds`, the number of seeds at the last interim analysis, and `in_order`, whether the study ends with the
    first arm that is not worse (`sequential.given_up`).
    """

    margin: float | None = None
    max_seeds: int | None = None
    looks: list[int] | None = None
    alpha: float | None = None
    variance: str | None = None
    question: str | None = None
    pairing: str | None = None
    in_order: bool = False
    spending: str | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the design that are set."""
        return {name: v for name, v in asdict(self).items() if v is not None and name not in ("max_seeds", "in_order")}


@dataclass
class StopSettings:
    """`hydra.sweeper.stop_when`: conditions that end a search before its last trial.

    Attributes:
        no_better_in: end when this many trials have ended since the best one.
        terminator: one of Optuna's terminators, by its `_target_`, such as `optuna.terminator.Terminator`.
    """

    no_better_in: int | None = None
    terminator: Any = None

    @property
    def is_set(self) -> bool:
        """Whether any condition is set."""
        return self.no_better_in is not None or self.terminator is not None


@dataclass
class Settings:
    """`hydra.sweeper`: all settings of the sweeper. `docs/sweeper.md` explains each key.

    Raises:
        StudyError: a value is out of its range.
    """

    sampler: Any = None
    pruner: Any = None
    params: dict[str, Any] | None = field(default_factory=dict)
    direction: Any = "minimize"
    metric_names: list[str] | None = None
    n_trials: int | None = None
    n_jobs: int | None = None
    workers: Any = 1
    storage: str | None = None
    study_name: str | None = None
    enqueue: list[Any] | None = None
    extend: bool = False
    may_differ: list[str] = field(default_factory=list)
    replicates: list[str] | None = None
    custom_search_space: str | None = None
    zip: list[Any] | None = None
    conditions: Any = None
    learn_from: str | None = None
    noise_from: str | None = None
    has_objective: bool = True
    timeout: Any = None
    trial_timeout: Any = None
    stop_when: StopSettings = field(default_factory=StopSettings)
    max_failures: int | None = None
    constraints_func: str | None = None
    check: str | None = None
    max_retries: int = 2
    max_failure_rate: float = 0.5
    retry_failed: bool = False
    design: DesignSettings = field(default_factory=DesignSettings)
    until_verdict: bool = False
    baseline: Any = None
    first_seed: int = 1
    confirm: bool = False
    confirm_with: list[str] = field(default_factory=list)
    confirm_then: str | None = None
    report: bool = False
    heartbeat_interval: float = 5.0
    grace_period: float = 30.0

    def __post_init__(self) -> None:
        """Refuses values that are out of range."""
        if isinstance(self.stop_when, Mapping | None):
            self.stop_when = _filled(StopSettings, self.stop_when or {}, "hydra.sweeper.stop_when")

        def require(holds: bool, name: str, rule: str) -> None:
            if not holds:
                raise StudyError(f"hydra.sweeper.{name} must {rule}, got {getattr(self, name)!r}")

        require(self.n_trials is None or self.n_trials >= 1, "n_trials", "be at least 1")
        require(self.n_jobs is None or self.n_jobs >= 1, "n_jobs", "be at least 1")
        is_number = isinstance(self.workers, int) and not isinstance(self.workers, bool) and self.workers >= 1
        require(is_number or self.workers == AUTO, "workers", f"be {AUTO}, or a number of at least 1")
        require(self.max_retries >= 0, "max_retries", "be at least 0")
        require(0 <= self.max_failure_rate <= 1, "max_failure_rate", "be between 0 and 1")
        require(self.max_failures is None or self.max_failures >= 0, "max_failures", "be at least 0")
        for name in ("timeout", "trial_timeout"):
            given = getattr(self, name)
            rule = "be a time above 0: seconds, or a text such as 90m, 12h or 1h30m"
            require(given is None or seconds_of(given) is not None, name, rule)
        is_space = self.conditions is None or isinstance(self.conditions, Mapping)
        require(is_space, "conditions", "be a mapping such as {momentum: {optimizer: sgd}}")
        judges = self.until_verdict or self.confirm
        require(self.noise_from is None or judges, "noise_from", "be left out without until_verdict or confirm")
        patience = self.stop_when.no_better_in
        if patience is not None and patience < 1:
            raise StudyError(f"hydra.sweeper.stop_when.no_better_in must be at least 1, got {patience}")
        require(self.baseline is None or isinstance(self.baseline, Mapping), "baseline", "be a point such as {l1: 0}")
        names = self.replicates
        are_keys = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(n, str) for n in names)
        require(names is None or are_keys, "replicates", "be a list of keys, such as [seed]")
        require(self.first_seed >= 0, "first_seed", "be at least 0")
        require(self.heartbeat_interval > 0, "heartbeat_interval", "be a number of seconds above 0")
        require(self.grace_period > self.heartbeat_interval, "grace_period", "be longer than heartbeat_interval")
        is_line = self.study_name is None or str(self.study_name).isprintable()
        require(is_line, "study_name", "be one line of printable characters")
        listed = [self.direction] if isinstance(self.direction, str) else self.direction
        require(
            isinstance(listed, Sequence) and len(listed) > 0 and all(d in DIRECTIONS for d in listed),
            "direction",
            "be minimize or maximize, or a list of these",
        )
        n = len(listed)
        is_matched = self.metric_names is None or len(self.metric_names) == n
        require(is_matched, "metric_names", f"list {n}, one for each direction")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Settings":
        """The settings with these values.

        Raises:
            StudyError: a name is unknown (Hydra's + adds any name), or a value is out of range.
        """
        given = dict(given)
        if isinstance(given.get("design"), Mapping):
            given["design"] = _filled(DesignSettings, given["design"], "hydra.sweeper.design")
        return _filled(cls, given, "hydra.sweeper")

    @property
    def timeout_s(self) -> float | None:
        """The study's time limit over all starts, in seconds."""
        return None if self.timeout is None else seconds_of(self.timeout)

    @property
    def trial_timeout_s(self) -> float | None:
        """Each trial's time limit, in seconds."""
        return None if self.trial_timeout is None else seconds_of(self.trial_timeout)

    @property
    def directions(self) -> list[Direction]:
        """minimize or maximize, for each objective."""
        if isinstance(self.direction, str):
            return [cast(Direction, self.direction)]  # checked above
        return list(self.direction)


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def seconds_of(written: Any) -> float | None:
    """A time in seconds, from a number or a text such as '90m', '12h' or '1h30m'; None if not a time above 0."""
    if isinstance(written, bool):
        return None
    text = "".join(str(written).split()).lower()
    if _TIME.fullmatch(text):
        parts = re.findall(r"([\d.]+)([smhd])", text)
        seconds = math.fsum(float(number) * _UNITS_S[unit] for number, unit in parts)
    else:
        try:
            seconds = float(text)
        except ValueError:
            return None
    return seconds if 0 < seconds < math.inf else None


def _filled(node: type[Node], given: Mapping[str, Any], prefix: str) -> Node:
    """A config node with these values; refuses unknown keys."""
    known = [f.name for f in fields(cast(Any, node))]
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            said = f"{prefix}.{name} must be one of the sweeper's settings, got an unknown one"
            raise StudyError(said + (f": did you mean {prefix}.{close[0]}?" if close else ""))
    return node(**given)


@dataclass(frozen=True)
class Searcher:
    """The sampler, which proposes points, and the pruner, which stops trials early."""

    sampler: "optuna.samplers.BaseSampler"
    pruner: "optuna.pruners.BasePruner"

    def __str__(self) -> str:
        """'TPESampler and NopPruner'."""
        return f"{type(self.sampler).__name__} and {type(self.pruner).__name__}"


def make_part(what: str, spec: Any, base: type[Part], **arguments: Any) -> Part:
    """Makes the sampler or pruner that `spec` names by `_target_`; null keys take the class's defaults.

    Raises:
        StudyError: it names no such class, or the class refuses its arguments.
    """
    if not isinstance(spec, Mapping) or not spec.get("_target_"):
        group = f": to choose one, write hydra/sweeper/{what}={spec}" if isinstance(spec, str) else ""
        got = spec.get("_target_") if isinstance(spec, Mapping) else spec
        raise StudyError(f"hydra.sweeper.{what} must name a class by its _target_, got {got!r}{group}")
    # Hydra's own Optuna sweeper makes a grid in two steps (_partial_) and passes the constraints to its samplers.
    chosen = {key: value for key, value in spec.items() if value is not None and key != "_partial_"}
    if "constraints_func" in chosen:
        raise StudyError(
            f"hydra.sweeper.{what}.constraints_func must be left out, because jobs in other processes would not call"
            " it: set hydra.sweeper.constraints_func to the function's dotted path"
        )
    try:
        made = instantiate(chosen, allowed=list(_targets(chosen)), **arguments)
    except Exception as error:  # the class may raise anything
        for target in _targets(chosen):
            if (why := _not_found_because(target)) is not None:
                said = f"hydra.sweeper.{what}._target_ must be the dotted path of a class, got {target!r}: {why}"
                raise StudyError(said) from None
        # Hydra wraps it in its own error, whose message is as long as a traceback.
        raise StudyError(
            f"hydra.sweeper.{what}: {spec['_target_']} can't be made: {first_line(error.__cause__ or error)}"
        ) from None
    if not isinstance(made, base):
        raise StudyError(f"hydra.sweeper.{what} must be one of Optuna's {what}s, got {spec['_target_']}")
    return made


def _targets(node: Any) -> Iterator[str]:
    """All `_target_` values in a config, at any depth."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


def make_pruner(spec: Any) -> "optuna.pruners.BasePruner":
    """Makes the pruner that `hydra.sweeper.pruner` names, if any. The sweeper and each job make their own."""
    import optuna

    if spec is None:
        return optuna.pruners.NopPruner()
    return make_part("pruner", spec, optuna.pruners.BasePruner)  # type: ignore[type-abstract] # isinstance takes it


def located(name: str, path: str) -> Callable[..., Any]:
    """The function at the dotted path that the setting `name` holds.

    Raises:
        StudyError: there is no such function.
    """
    why = _not_found_because(path)
    if why is not None:
        raise StudyError(f"hydra.sweeper.{name} must be the dotted path of a function, got {path!r}: {why}")
    return cast(Callable[..., Any], attribute_at(path))


def _not_found_because(path: str) -> str | None:
    """Why a dotted path does not lead to a callable, in plain words; None if it does."""
    module, _, name = path.rpartition(".")
    if not module or not name:
        return "it must have a dot between a module and a name"
    try:
        return None if callable(attribute_at(path)) else "it can't be called"
    except ModuleNotFoundError as error:
        return f"there is no module {error.name}"
    except AttributeError:
        close = get_close_matches(name, dir(import_module(module)), n=1)
        return f"{module} has no {name}" + (f": did you mean {module}.{close[0]}?" if close else "")
    except Exception as error:  # importing a module may raise anything
        return f"importing {module} raised {type(error).__name__}: {first_line(error)}"
