"""A study's settings: what `hydra.sweeper` takes, and the parts of Optuna that it names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hydra.errors import CompactHydraException
from hydra.utils import instantiate

from reg_sweep.runs.study import DIRECTIONS, Direction

if TYPE_CHECKING:
    import optuna

Part = TypeVar("Part")

AUTO = "auto"


class StudyError(CompactHydraException):
    """A study that can't be run as asked. The message is one line; Hydra prints it without a traceback."""


# Not frozen: Hydra takes it for a structured config, and fills it key by key.
@dataclass
class Settings:
    """What `hydra.sweeper` takes.

    `params` holds the space, in Hydra's grammar; the command line's sweeps come on top. `n_trials` is the total over
    all starts; left out, it is the grid's size, or 20 with another sampler. `workers` local processes share the study
    (auto: one for each core, see `workers.usable_workers`); `n_jobs` trials go to the launcher at once. `storage` is an
    RDB URL or a journal file's path; left out, an SQLite file in the sweep's directory. `enqueue` lists points to try
    first, or arms to judge. A study whose space, objective or app config has changed is refused, unless `extend`; keys
    that `may_differ`, such as a device, are left out of account. A job that is silent for `grace_period` seconds is run
    again, at most `max_retries` times. Where more than `max_failure_rate` of the trials fail, the sweep ends with an
    error; `retry_failed` tries the points of those that have failed again, as new trials beyond `n_trials`.

    `replicates` are keys, such as the seed, over which results are averaged; left out, `seed` where it is swept.
    `custom_search_space` is the dotted path of a function of the app's config and an Optuna trial, which suggests more
    of its parameters, where they depend on others. The keys of each group in `zip` vary together.
    `constraints_func` is the dotted path of a function from an Optuna trial to numbers: a trial with one above 0 is
    never the best. `check` is the dotted path of a function of a job's config that raises where it can't be run: it is
    asked before the study begins.

    With `until_verdict` the study judges arms instead of searching: all combinations of the space, or the enqueued
    points, on seeds from `first_seed`, against `baseline` (the first as written). `design` names the class that does,
    and its numbers; `max_seeds` among them is the last look's. With `confirm` a search's best points are judged so at
    its end, with the overrides `confirm_with`, on seeds that it did not use.

    Raises:
        StudyError: a value is out of its range.
    """

    sampler: Any = None
    pruner: Any = None
    params: dict[str, Any] | None = field(default_factory=dict)
    direction: Any = "minimize"
    n_trials: int | None = None
    n_jobs: int | None = None
    workers: int | str = 1
    storage: str | None = None
    study_name: str | None = None
    enqueue: list[Any] | None = None
    extend: bool = False
    may_differ: list[str] = field(default_factory=list)
    replicates: list[str] | None = None
    custom_search_space: str | None = None
    zip: list[Any] | None = None
    constraints_func: str | None = None
    check: str | None = None
    max_retries: int = 2
    max_failure_rate: float = 0.5
    retry_failed: bool = False
    design: Any = None
    until_verdict: bool = False
    baseline: Any = None
    first_seed: int = 1
    confirm: bool = False
    confirm_with: list[str] = field(default_factory=list)
    heartbeat_interval: float = 5.0
    grace_period: float = 30.0

    def __post_init__(self) -> None:
        """Refuses what is out of range."""

        def require(holds: bool, name: str, rule: str) -> None:
            if not holds:
                raise StudyError(f"hydra.sweeper.{name} must {rule}, got {getattr(self, name)!r}")

        require(self.n_trials is None or self.n_trials >= 1, "n_trials", "be at least 1")
        require(self.n_jobs is None or self.n_jobs >= 1, "n_jobs", "be at least 1")
        is_number = isinstance(self.workers, int) and self.workers >= 1
        require(is_number or self.workers == AUTO, "workers", f"be {AUTO}, or a number of at least 1")
        require(self.max_retries >= 0, "max_retries", "be at least 0")
        require(0 <= self.max_failure_rate <= 1, "max_failure_rate", "be between 0 and 1")
        require(self.baseline is None or isinstance(self.baseline, Mapping), "baseline", "be a point such as {l1: 0}")
        names = self.replicates
        are_keys = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(n, str) for n in names)
        require(names is None or are_keys, "replicates", "be a list of keys, such as [seed]")
        require(self.first_seed >= 0, "first_seed", "be at least 0")
        require(self.heartbeat_interval > 0, "heartbeat_interval", "be a number of seconds above 0")
        require(self.grace_period > self.heartbeat_interval, "grace_period", "be longer than heartbeat_interval")
        listed = [self.direction] if isinstance(self.direction, str) else self.direction
        require(
            isinstance(listed, Sequence) and len(listed) > 0 and all(d in DIRECTIONS for d in listed),
            "direction",
            "be minimize or maximize, or a list of these",
        )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Settings":
        """The settings of these names.

        Raises:
            StudyError: there is none of that name (Hydra's + adds any), or a value is out of its range.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                said = f"hydra.sweeper.{name} must be one of the sweeper's settings, got an unknown one"
                raise StudyError(said + (f": did you mean hydra.sweeper.{close[0]}?" if close else ""))
        return cls(**given)

    @property
    def directions(self) -> list[Direction]:
        """minimize or maximize, for each objective."""
        if isinstance(self.direction, str):
            return [cast(Direction, self.direction)]  # checked above
        return list(self.direction)


@dataclass(frozen=True)
class Searcher:
    """Who proposes points, and who gives up on them."""

    sampler: "optuna.samplers.BaseSampler"
    pruner: "optuna.pruners.BasePruner"

    def __str__(self) -> str:
        """'TPESampler and NopPruner'."""
        return f"{type(self.sampler).__name__} and {type(self.pruner).__name__}"


def make_part(what: str, spec: Any, base: type[Part], **arguments: Any) -> Part:
    """Makes the sampler or pruner that `spec` names by `_target_`; its null keys are left to the class.

    Raises:
        StudyError: it names none, or the class refuses its arguments.
    """
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise StudyError(f"hydra.sweeper.{what} must name a class by its _target_, got {spec!r}")
    # Hydra's own Optuna sweeper has a grid made in two steps, and asks its samplers for constraints.
    chosen = {key: value for key, value in spec.items() if value is not None and key != "_partial_"}
    if "constraints_func" in chosen:
        raise StudyError(
            f"hydra.sweeper.{what}.constraints_func must be left out, for jobs in other processes would not ask it:"
            " name the function by its dotted path in hydra.sweeper.constraints_func"
        )
    try:
        made = instantiate(chosen, _convert_="all", **arguments)
    except Exception as error:  # whatever the class raises
        # Hydra wraps it in an error of its own, with a traceback's worth of text.
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise StudyError(f"hydra.sweeper.{what}: {spec['_target_']} can't be made: {reason}") from None
    if not isinstance(made, base):
        raise StudyError(f"hydra.sweeper.{what} must be one of Optuna's {what}s, got {spec['_target_']}")
    return made


def located(name: str, path: str) -> Callable[..., Any]:
    """The function that the setting `name` holds the dotted path of.

    Raises:
        StudyError: there is none.
    """
    module, _, attribute = path.rpartition(".")
    try:
        function = getattr(import_module(module), attribute)
        if not callable(function):
            raise TypeError("it is not callable")
    except Exception as error:  # whatever importing the module raises
        reason = " ".join(str(error).split())
        raise StudyError(
            f"hydra.sweeper.{name} must be the dotted path of a function, got {path!r}: {reason}"
        ) from None
    return cast(Callable[..., Any], function)


def make_pruner(spec: Any) -> "optuna.pruners.BasePruner":
    """Makes the pruner that `hydra.sweeper.pruner` names, if any: the sweeper and every job have one of their own."""
    import optuna

    if spec is None:
        return optuna.pruners.NopPruner()
    return make_part("pruner", spec, optuna.pruners.BasePruner)  # type: ignore[type-abstract] # isinstance takes it
