"""A study that judges arms until a verdict: which seeds they train next, and what each look decides.

When the statistics should look, and what they say, is a design's to know: a class named by `hydra.sweeper.design`. This
module asks it, and buys the seeds. What was decided lies in the study's storage, and stays decided.
"""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from reg_sweep.runs.study import UNDECIDED, ArmLookJson, DesignJson, LookJson
from reg_sweep.search.optuna_internals import holds
from reg_sweep.search.replicates import SEED
from reg_sweep.search.settings import Settings, StudyError
from reg_sweep.search.space import Parameter, Space, Zipped
from reg_sweep.search.storage import LOOKS
from reg_sweep.search.text import params_text

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.trial import FrozenTrial

    from reg_sweep.search.look import Design

log = logging.getLogger(__name__)

Params = dict[str, Any]
Key = tuple[tuple[str, Any], ...]


def make_design(spec: Any, looks: Sequence[int] | None = None) -> "Design":
    """The design that `hydra.sweeper.design` names by `_target_`; its null keys are left to the class.

    Args:
        looks: other looks than the spec's; these are then all of them.

    Raises:
        StudyError: it names none, or the class refuses its arguments.
    """
    if not isinstance(spec, Mapping) or "_target_" not in spec:
        raise StudyError(f"hydra.sweeper.design must name a class by its _target_, got {spec!r}")
    arguments = {k: v for k, v in spec.items() if v is not None and k != "max_seeds"}
    max_seeds = spec.get("max_seeds")
    try:
        if max_seeds is not None and (isinstance(max_seeds, bool) or not isinstance(max_seeds, int)):
            raise ValueError(f"max_seeds must be a whole number, got {max_seeds!r}")
        design: Design = instantiate(arguments if looks is None else {**arguments, "looks": looks}, _convert_="all")
        return design if max_seeds is None or looks is not None else design.until(max_seeds)
    except Exception as error:  # whatever the class raises; Hydra wraps it in an error of its own
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise StudyError(f"hydra.sweeper.design: {reason}") from None


def with_seed(space: Space) -> Space:
    """The space with the seed, which the study sets itself.

    Raises:
        StudyError: the space has the seed, or a key whose values can't be listed.
    """
    from optuna.distributions import IntDistribution

    if SEED in space.parameters or SEED in {key.lstrip("+") for key in space.fixed}:
        raise StudyError(
            "seed must not be set with hydra.sweeper.until_verdict, which buys the seeds itself:"
            " hydra.sweeper.first_seed says where they begin"
        )
    if space.extend is not None or any(isinstance(p, Zipped) for p in space.parameters.values()):
        raise StudyError(
            "hydra.sweeper.zip and custom_search_space must be left out with until_verdict: list the arms in"
            " hydra.sweeper.enqueue"
        )
    endless = [name for name, p in space.parameters.items() if p.listed() is None]
    if endless:
        raise StudyError(
            f"arms to judge must be listed, but {', '.join(endless)} is an interval: write choices, or search first,"
            " and judge the best with hydra.sweeper.confirm=true"
        )
    seed = Parameter(SEED, IntDistribution(0, 2**31 - 1))
    return Space(space.parameters | {SEED: seed}, space.fixed, [*space.order, SEED])


def listed_arms(settings: Settings, space: Space) -> list[Params]:
    """The arms as written, the baseline first: every combination, or the enqueued points.

    Raises:
        StudyError: a point is none of the space, the baseline is none of the arms, or there is nothing to compare.
    """
    swept = {name: p for name, p in space.parameters.items() if name != SEED}
    if settings.enqueue:
        arms = [_arm(point, swept) for point in settings.enqueue]
    else:
        values = [p.listed() or [] for p in swept.values()]
        arms = [dict(zip(swept, combination, strict=True)) for combination in itertools.product(*values)]
    arms = list({_key(arm): arm for arm in arms}.values())
    if len(arms) < 2:
        raise StudyError(f"there must be at least 2 arms to compare, got {len(arms)}: sweep a key, such as norm=bn,gbn")
    wanted = settings.baseline or {}
    matching = [arm for arm in arms if all(name in arm and arm[name] == value for name, value in wanted.items())]
    if len(matching) != 1 and wanted:
        found = f"{len(matching)} of the arms" if matching else "none of the arms"
        raise StudyError(
            f"hydra.sweeper.baseline must be one of the arms, got {params_text(wanted)}, which is {found}:"
            f" {'; '.join(map(params_text, arms))}"
        )
    baseline = matching[0]
    return [baseline, *(arm for arm in arms if arm is not baseline)]


def _arm(point: Any, swept: Mapping[str, Parameter]) -> Params:
    if not isinstance(point, Mapping) or point.keys() != swept.keys():
        raise StudyError(f"hydra.sweeper.enqueue: an arm needs a value for each of {', '.join(swept)}, got {point!r}")
    for name, value in point.items():
        if not holds(swept[name].distribution, value):
            raise StudyError(f"hydra.sweeper.enqueue: {name} must be {swept[name]}, got {value}")
    return {name: point[name] for name in swept}


def _key(params: Mapping[str, Any]) -> Key:
    return tuple(sorted((name, value) for name, value in params.items() if name != SEED))


class UntilVerdict:
    """The arms of a study, their design, and its part under the study's lock: to decide, and to buy seeds.

    Attributes:
        arms: each arm's parameters; the baseline is the first.
        design: with all looks that are planned now.
    """

    def __init__(self, settings: Settings, space: Space) -> None:
        """Makes the design and lists the arms.

        Raises:
            StudyError: they don't make a study.
        """
        if len(settings.directions) != 1:
            raise StudyError(
                f"hydra.sweeper.until_verdict judges by one objective, got {len(settings.directions)} directions"
            )
        if settings.n_trials is not None:
            raise StudyError(
                f"hydra.sweeper.n_trials must be left out with until_verdict, got {settings.n_trials}:"
                " hydra.sweeper.design.max_seeds says where it ends at the latest"
            )
        if settings.pruner is not None and not str(settings.pruner.get("_target_")).endswith(".NopPruner"):
            raise StudyError("hydra/sweeper/pruner must be none with until_verdict: a pruned run has no value to judge")
        self.design = make_design(settings.design)
        self.arms = listed_arms(settings, space)
        self.first_seed = settings.first_seed
        self._spec = settings.design
        self._higher_is_better = settings.directions == ["maximize"]

    @property
    def n_first(self) -> int:
        """The trials of the first look."""
        return len(self.arms) * self.design.looks[0]

    def identity(self) -> dict[str, str]:
        """What may not change between two starts, as text by name; all but `max_seeds`, which adds or cuts looks."""
        whole = make_design({**self._spec, "max_seeds": None})
        return {
            "design": str(self._spec["_target_"]),
            "looks": ", ".join(map(str, whole.looks)),
            "alpha": f"{whole.alpha:g}",
            "margin": "none" if whole.margin is None else f"{whole.margin:g}",
            "variance": whole.variance,
            "first_seed": str(self.first_seed),
            "baseline": params_text(self.arms[0]),
            "arms": "; ".join(map(params_text, self.arms[1:])),
        }

    def record(self, study: "optuna.Study", config: "DictConfig") -> tuple[DesignJson, list[LookJson]]:
        """Design and looks as study.json holds them."""
        looks = looks_of(study)
        design = self._continued(looks)
        metric = OmegaConf.select(config, "objective", default=None)
        facts: DesignJson = {
            "looks": list(design.looks),
            "max_seeds": design.looks[-1],
            "alpha": design.alpha,
            "margin": design.margin,
            "variance": design.variance,
            "metric": "the objective" if metric is None else str(metric),
            "first_seed": self.first_seed,
            "baseline": self.arms[0],
            "arms": self.arms[1:],
        }
        return facts, looks

    def advance(self, study: "optuna.Study") -> None:
        """Looks, where a look's seeds are there, and enqueues the seeds of the next; nothing where all is decided.

        To be called under the study's lock, when no trial waits or runs. Killed at any point, it goes on from what it
        has written: a look at once and whole, trials one by one.
        """
        trials = study.get_trials(deepcopy=False)
        while True:
            looks = looks_of(study)
            undecided = self.undecided(looks)
            design = self._continued(looks)
            if not undecided or len(looks) >= len(design.looks):
                return
            n = design.looks[len(looks)]
            missing = self._missing([self.arms[0], *undecided], n, trials)
            if missing:
                for params in missing:
                    study.enqueue_trial(params)
                return
            look = self._look(design, looks, trials)
            study.set_user_attr(LOOKS, [*looks, look])
            log.info("look at %d seeds: %s", n, "; ".join(map(_arm_text, look["arms"])))

    def n_left(self, study: "optuna.Study") -> int:
        """How many trials are left at most: if no arm that is undecided now is decided before the last look."""
        undecided = self.undecided(looks_of(study))
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        return len(self._missing([self.arms[0], *undecided], self.design.looks[-1], finished)) if undecided else 0

    def undecided(self, looks: Sequence[LookJson]) -> list[Params]:
        """The arms that no look has decided."""
        decided = {_key(arm["params"]) for look in looks for arm in look["arms"] if arm["decision"] != UNDECIDED}
        return [arm for arm in self.arms[1:] if _key(arm) not in decided]

    def _continued(self, looks: Sequence[LookJson]) -> "Design":
        """The design with the looks that were done, and those of the plan that are left.

        Another `max_seeds` may have planned others; a look that was done has spent its error, and stays.
        """
        done = [look["seeds"] for look in looks]
        later = [n for n in self.design.looks if not done or n > done[-1]]
        return make_design(self._spec, looks=[*done, *later])

    def _missing(self, arms: Sequence[Params], n_seeds: int, trials: "Sequence[FrozenTrial]") -> list[Params]:
        """The trials that arms lack up to so many seeds, by seed, so that pairs end together."""
        there = {(_key(t.params), t.params.get(SEED)) for t in trials}
        seeds = range(self.first_seed, self.first_seed + n_seeds)
        return [{**arm, SEED: seed} for seed in seeds for arm in arms if (_key(arm), seed) not in there]

    def _look(self, design: "Design", looks: Sequence[LookJson], trials: "Sequence[FrozenTrial]") -> LookJson:
        """What the next look finds."""
        from reg_sweep.search.look import take_look

        found = {(_key(t.params), t.params.get(SEED)): t.value for t in trials if t.state.name == "COMPLETE"}
        seeds = range(self.first_seed, self.first_seed + design.looks[len(looks)])
        values = [[_number(found.get((_key(arm), seed))) for seed in seeds] for arm in self.arms]
        undecided = set(map(_key, self.undecided(looks)))
        decided_at = {
            i: max(look["seeds"] for look in looks if any(_key(a["params"]) == _key(arm) for a in look["arms"]))
            for i, arm in enumerate(self.arms[1:])
            if _key(arm) not in undecided
        }
        return take_look(design, len(looks), self.arms, values, decided_at, self._higher_is_better)


def looks_of(study: "optuna.Study") -> list[LookJson]:
    """The looks that a study has done."""
    looks: list[LookJson] = study.user_attrs.get(LOOKS, [])
    return looks


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _arm_text(arm: ArmLookJson) -> str:
    return f"{params_text(arm['params'])} {arm['decision']}"
