"""Studies with `until_verdict`: the seeds that the arms train next, and the decisions of the interim analyses.

The statistics are in `reg_sweep.stats.sequential.Design`; this module passes scores to it and asks Optuna for seeds.
Decisions are kept in the study's storage and are final.

With `in_order`, the arms are listed in order of preference, such as the smallest network first, and the study ends with
the first arm that is shown not worse. Stopping at the first success does not protect against error: each arm tried
before had its own chance of a false success. So the error rate is split over all arms, as in any study. `in_order` only
stops training and never adds a claim, so it does not change the error rate.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from reg_sweep.runs.study import ArmLookJson, DesignJson, LookJson
from reg_sweep.search.console import params_text, typed_text
from reg_sweep.search.optuna_internals import holds
from reg_sweep.search.parameter import Parameter
from reg_sweep.search.settings import DesignSettings, Settings, StudyError
from reg_sweep.search.space import Space
from reg_sweep.search.storage import EARLIER, LOOKS
from reg_sweep.stats.verdict import Verdict

if TYPE_CHECKING:
    import optuna
    from omegaconf import DictConfig
    from optuna.trial import FrozenTrial

    from reg_sweep.stats.judgement import Finding
    from reg_sweep.stats.sequential import Design

log = logging.getLogger(__name__)

SEED = "seed"

Params = dict[str, Any]
Key = tuple[tuple[str, Any], ...]


# ---- design and arms


def make_design(settings: DesignSettings, looks: Sequence[int] | None = None) -> "Design":
    """Makes the design of these settings.

    Args:
        settings: `hydra.sweeper.design`.
        looks: the numbers of seeds of all interim analyses, instead of those in the settings.

    Raises:
        StudyError: a setting is out of range.
    """
    from reg_sweep.stats.sequential import Design

    arguments = settings.arguments()
    try:
        if looks is not None:
            return Design(**{**arguments, "looks": tuple(looks)})
        n = settings.max_seeds
        if n is not None and (isinstance(n, bool) or not isinstance(n, int)):
            raise ValueError(f"max_seeds must be a whole number, got {n!r}")
        design = Design(**arguments)
        return design if n is None else design.until(n)
    except (TypeError, ValueError) as error:
        raise StudyError(f"hydra.sweeper.design: {error}") from None


def with_seed(space: Space) -> Space:
    """Adds the seed to a space; the study sets its values.

    Raises:
        StudyError: the space already has the seed, or has a key whose values can't be listed.
    """
    from optuna.distributions import IntDistribution

    if SEED in space.parameters or SEED in {key.lstrip("+") for key in space.fixed}:
        raise StudyError(
            "seed must not be set with hydra.sweeper.until_verdict, which chooses the seeds itself: set"
            " hydra.sweeper.first_seed to choose the first one"
        )
    if space.extend is not None:
        raise StudyError("hydra.sweeper.custom_search_space must be left out with until_verdict: list the arms")
    endless = [name for name, p in space.parameters.items() if p.listed() is None]
    if endless:
        raise StudyError(
            f"arms to judge must be listed, but {', '.join(endless)} is an interval: write choices, or search first,"
            " and judge the best with hydra.sweeper.confirm=true"
        )
    seed = Parameter(SEED, IntDistribution(0, 2**31 - 1))
    return replace(space, parameters=space.parameters | {SEED: seed}, order=[*space.order, SEED])


def listed_arms(settings: Settings, space: Space) -> list[Params]:
    """The arms, baseline first: the enqueued points if there are any, otherwise every combination.

    Raises:
        StudyError: a point is outside the space, the baseline is not one of the arms, or there is only one arm.
    """
    apart = replace(space, parameters={name: p for name, p in space.parameters.items() if name != SEED})
    if settings.enqueue:
        arms = [_arm(point, apart) for point in settings.enqueue]
    else:
        apart.size()  # raises if there are too many
        arms = list(apart.points())
    arms = list({_key(arm): arm for arm in arms}.values())
    if len(arms) < 2:
        raise StudyError(f"there must be at least 2 arms to compare, got {len(arms)}: sweep a key, such as norm=bn,gbn")
    wanted = apart.point(settings.baseline or {}, "baseline")
    matching = [arm for arm in arms if all(name in arm and arm[name] == value for name, value in wanted.items())]
    if len(matching) != 1 and wanted:
        found = f"{len(matching)} of the arms" if matching else "none of the arms"
        raise StudyError(
            f"hydra.sweeper.baseline must be one of the arms, got {typed_text(wanted)}, which is {found}:"
            f" {'; '.join(map(typed_text, arms))}"
        )
    baseline = matching[0]
    return [baseline, *(arm for arm in arms if arm is not baseline)]


def _arm(point: Any, space: Space) -> Params:
    arm = space.point(point) if isinstance(point, Mapping) else {}
    names = space.names_at(arm)
    if arm.keys() != set(names):
        raise StudyError(f"hydra.sweeper.enqueue: an arm must set all of {', '.join(names)}, got {point!r}")
    for name, value in arm.items():
        if not holds(space.parameters[name].distribution, value):
            raise StudyError(f"hydra.sweeper.enqueue: {name} must be {space.parameters[name]}, got {value}")
    return {name: arm[name] for name in names}


def _key(params: Mapping[str, Any]) -> Key:
    return tuple(sorted((name, value) for name, value in params.items() if name != SEED))


# ---- the study


class UntilVerdict:
    """The arms of a study and their design; decides arms and adds seeds.

    Attributes:
        arms: each arm's parameters; the baseline is the first.
        design: the design, with all interim analyses that are planned now.
    """

    def __init__(self, settings: Settings, space: Space) -> None:
        """Makes the design and lists the arms.

        Raises:
            StudyError: the settings don't fit such a study.
        """
        if len(settings.directions) != 1:
            raise StudyError(
                f"hydra.sweeper.until_verdict needs a single objective, got {len(settings.directions)} directions"
            )
        if settings.n_trials is not None:
            raise StudyError(
                f"hydra.sweeper.n_trials must be left out with until_verdict, got {settings.n_trials}: set"
                " hydra.sweeper.design.max_seeds to limit the study"
            )
        if settings.pruner is not None and not str(settings.pruner.get("_target_")).endswith(".NopPruner"):
            raise StudyError("hydra/sweeper/pruner must be none with until_verdict: a pruned run has no value to judge")
        self.design = make_design(settings.design)
        self.arms = listed_arms(settings, space)
        self.first_seed = settings.first_seed
        self.noise_from = settings.noise_from
        if self.noise_from is not None and self.design.pairing == "none":
            raise StudyError(
                "hydra.sweeper.noise_from must be left out with pairing none: it is the noise of paired differences"
            )
        check_in_order(settings.design.in_order, self.design.question)
        self._settings, self._space = settings.design, space
        self._higher_is_better = settings.directions == ["maximize"]

    @property
    def n_first(self) -> int:
        """The number of trials up to the first interim analysis."""
        return len(self.arms) * self.design.looks[0]

    def identity(self) -> dict[str, str]:
        """The settings that all starts must share, as text by name.

        `max_seeds` may change, which adds or removes looks, unless the design spends its whole error rate by then.
        """
        is_open = self.design.spending == "open"
        whole = make_design(replace(self._settings, max_seeds=None)) if is_open else self.design
        return {
            "looks": ", ".join(map(str, whole.looks)),
            "alpha": f"{whole.alpha:g}",
            "margin": "none" if whole.margin is None else f"{whole.margin:g}",
            "variance": whole.variance,
            "first_seed": str(self.first_seed),
            "baseline": typed_text(self.arms[0]),
            "arms": "; ".join(map(typed_text, self.arms[1:])),
            **({} if whole.question == "better" else {"question": whole.question}),
            **({} if whole.pairing == "seeds" else {"pairing": whole.pairing}),
            **({} if is_open else {"spending": whole.spending}),
            **({} if self.noise_from is None else {"hydra.sweeper.noise_from": self.noise_from}),
            **({"in_order": "true"} if self._settings.in_order else {}),
        }

    def record(self, study: "optuna.Study", config: "DictConfig") -> tuple[DesignJson, list[LookJson]]:
        """The design and the interim analyses, as in study.json."""
        done = analyses_of(study)
        design = self._continued(study, done)
        metric = OmegaConf.select(config, "objective", default=None)
        facts: DesignJson = {
            "looks": list(design.looks),
            "max_seeds": design.looks[-1],
            "alpha": design.alpha,
            "margin": design.margin,
            "variance": design.variance,
            "metric": "the objective" if metric is None else str(metric),
            "first_seed": self.first_seed,
            "baseline": self._space.split(self.arms[0]),
            "arms": list(map(self._space.split, self.arms[1:])),
        }
        for look in done:
            for arm in look["arms"]:
                arm["params"] = self._space.split(arm["params"])
        if design.question != "better":  # older studies lack this key and the following ones
            facts["question"] = design.question
        if design.pairing != "seeds":
            facts["pairing"] = design.pairing
        if design.spending != "open":
            facts["spending"] = design.spending
        if design.earlier_variance is not None and self.noise_from is not None:
            facts["earlier_variance"], facts["noise_from"] = design.earlier_variance, self.noise_from
        if self._settings.in_order:
            facts["in_order"] = True
        return facts, done

    def advance(self, study: "optuna.Study") -> None:
        """Analyses the complete seeds, and enqueues those up to the next analysis, until all arms are decided.

        Call it under the study's lock, when no trial waits or runs. If the process is killed at any point, the next
        call resumes from the storage: an analysis is written as a whole, trials one by one.
        """
        trials = study.get_trials(deepcopy=False)
        while True:
            done = analyses_of(study)
            undecided = self.undecided(done)
            design = self._continued(study, done)
            if not undecided or len(done) >= len(design.looks):
                return
            n = design.looks[len(done)]
            missing = self._missing([self.arms[0], *undecided], n, trials)
            if missing:
                for params in missing:
                    study.enqueue_trial(params)
                return
            found = self._analyse(design, done, trials)
            study.set_user_attr(LOOKS, [*done, found])
            log.info("interim analysis at %d seeds: %s", n, "; ".join(map(_arm_text, found["arms"])))

    def n_left(self, study: "optuna.Study") -> int:
        """The largest number of trials left: as if no arm were decided before the last analysis."""
        undecided = self.undecided(analyses_of(study))
        finished = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        return len(self._missing([self.arms[0], *undecided], self.design.looks[-1], finished)) if undecided else 0

    def undecided(self, done: Sequence[LookJson]) -> list[Params]:
        """The arms that no interim analysis has decided and that were not given up (`in_order`)."""
        closed = {_key(arm["params"]) for look in done for arm in look["arms"] if arm["decision"] != Verdict.UNDECIDED}
        if self._settings.in_order and self.design.margin is not None:
            loss = -self.design.margin if self._higher_is_better else self.design.margin
            closed |= set(map(_key, given_up(self.arms[1:], done, loss)))
        return [arm for arm in self.arms[1:] if _key(arm) not in closed]

    def _continued(self, study: "optuna.Study", done: Sequence[LookJson]) -> "Design":
        """The design with the completed analyses, the remaining planned ones, and the initial noise estimate.

        Completed analyses may have been planned with another `max_seeds`. They remain: their error rate is spent.
        """
        seeds = [look["seeds"] for look in done]
        later = [n for n in self.design.looks if not seeds or n > seeds[-1]]
        design = make_design(self._settings, looks=[*seeds, *later])
        return replace(design, earlier_variance=study.user_attrs.get(EARLIER))

    def _missing(self, arms: Sequence[Params], n_seeds: int, trials: "Sequence[FrozenTrial]") -> list[Params]:
        """The trials that arms lack up to this number of seeds, ordered by seed so that pairs end together."""
        there = {(_key(t.params), t.params.get(SEED)) for t in trials}
        seeds = range(self.first_seed, self.first_seed + n_seeds)
        return [{**arm, SEED: seed} for seed in seeds for arm in arms if (_key(arm), seed) not in there]

    def _analyse(self, design: "Design", done: Sequence[LookJson], trials: "Sequence[FrozenTrial]") -> LookJson:
        """The next interim analysis of the study's trials: the judge's decision on each undecided arm."""
        from reg_sweep.stats.judge import judge

        found = {(_key(t.params), t.params.get(SEED)): t.value for t in trials if t.state.name == "COMPLETE"}
        n_seeds = design.looks[len(done)]
        seeds = range(self.first_seed, self.first_seed + n_seeds)
        undecided = set(map(_key, self.undecided(done)))
        stopped = {
            i: max(look["seeds"] for look in done if any(_key(a["params"]) == _key(arm) for a in look["arms"]))
            for i, arm in enumerate(self.arms[1:], 1)
            if _key(arm) not in undecided
        }
        scores = {
            i: {seed: _number(found.get((_key(arm), seed))) for seed in seeds[: stopped.get(i, n_seeds)]}
            for i, arm in enumerate(self.arms)
        }
        judgement = judge(scores, 0, higher_is_better=self._higher_is_better, design=design, stopped=stopped)
        open_arms = [i for i in judgement.arms if i not in stopped]
        return {"seeds": n_seeds, "arms": [_look_json(self.arms[i], judgement.arms[i]) for i in open_arms]}


def _look_json(params: Params, finding: "Finding") -> ArmLookJson:
    """An arm's latest interim analysis, with the interval that its verdict rests on."""
    last, evidence = finding.path[-1], finding.evidence
    return {
        "params": dict(params),
        "decision": last.decision.value,
        "verdict": finding.verdict.value,
        "n_seeds": last.pairs,
        "n_diverged": len(finding.diverged),
        "n_failed": len(finding.failed),
        "estimate": _finite(last.difference.mean),
        "ci_low": _finite(evidence.ci_low),
        "ci_high": _finite(evidence.ci_high),
    }


def analyses_of(study: "optuna.Study") -> list[LookJson]:
    """The completed interim analyses of a study."""
    done = study.user_attrs.get(LOOKS)
    return list(done) if isinstance(done, list) else []


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _arm_text(arm: ArmLookJson) -> str:
    return f"{params_text(arm['params'])} {arm['decision']}"


def check_in_order(is_in_order: bool, question: str) -> None:
    """Raises StudyError if `in_order` is combined with another question than `not_worse`."""
    if is_in_order and question != "not_worse":
        raise StudyError(
            "hydra.sweeper.design.in_order ends the study with the first arm that is not worse, got question"
            f" {question}: add hydra.sweeper.design.question=not_worse"
        )


def given_up(arms: Sequence[dict[str, Any]], looks: Sequence[LookJson], loss: float) -> list[dict[str, Any]]:
    """The undecided arms that a study with `in_order` no longer trains.

    An arm is given up once an earlier arm is shown not worse, or if it is unlikely to be shown not worse itself
    (`stats.sequential.is_futile`).

    Args:
        arms: in order of preference.
        looks: the interim analyses so far.
        loss: the margin as a signed difference: -margin if higher is better.
    """
    from reg_sweep.stats.sequential import is_futile

    closed: list[dict[str, Any]] = []
    is_found = False
    for params in arms:
        path = [arm for look in looks for arm in look["arms"] if arm["params"] == params]
        is_decided = bool(path) and path[-1]["decision"] != Verdict.UNDECIDED
        if not is_decided and (is_found or is_futile([arm["estimate"] for arm in path], loss)):
            closed.append(params)
        is_found = is_found or (is_decided and Verdict.of(path[-1]["decision"]).is_no_loss)
    return closed
