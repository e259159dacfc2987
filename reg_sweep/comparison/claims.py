"""The exercises' five claims, each tested on the arms it concerns: supported, contradicted, or open.

A claim is a list of parts, each a gain of one arm over another on the same seeds. It is supported if all parts hold (an
intersection-union test: each at the claim's own error). One wrong part contradicts it, so on that side the error is
split over the parts. An arm chosen among several, on val or on test, has selection bias: the error is split over the
candidates. The claims are exploratory: they have an error of 5% of their own, separate from the verdict's. They are
shown for the exercises' network only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from reg_sweep.comparison.arms import Arm, families
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.results import TEST_ACCURACY, TEST_LOSS, Epoch, Result
from reg_sweep.stats.family import intersection_union

PUBLISHED_L1, PUBLISHED_L2 = 0.001, 0.0005
SMALLER_L2 = 0.0001
EXERCISES_NETWORK = "reg_sweep.SqueezeExpand"
# With fewer train images than this, networks overfit MNIST.
FEW_IMAGES = 10_000
_FEWEST_EPOCHS = 3  # in a last quarter whose spread is meaningful

Word = Literal["supported", "contradicted", "open"]


@dataclass(frozen=True)
class Measure:
    """A measurement of a run. `value` is larger where the run is better, and nan where it is unknown."""

    name: Literal["accuracy", "loss", "steadiness", "dead kernels", "dead channels"]
    value: Callable[[Result, Epoch], float]


def roughness(run: Result) -> float:
    """log of the standard deviation of test accuracy over the last quarter of the epochs; nan where it is undefined."""
    curve = run.curve(TEST_ACCURACY)
    quarter = curve[-(len(curve) // 4) :] if len(curve) >= 4 * _FEWEST_EPOCHS else curve[:0]
    spread = float(np.std(quarter, ddof=1, dtype=np.float64)) if quarter.size else math.nan
    return math.log(spread) if spread > 0 else math.nan


ACCURACY = Measure("accuracy", lambda run, epoch: run.value(TEST_ACCURACY, epoch))
LOSS = Measure("loss", lambda run, epoch: -run.value(TEST_LOSS, epoch))
STEADINESS = Measure("steadiness", lambda run, _: -roughness(run))
DEAD_KERNELS = Measure("dead kernels", lambda run, _: run.weight_shares.dead)
DEAD_CHANNELS = Measure("dead channels", lambda run, _: run.weight_shares.dead_channels)


@dataclass(frozen=True)
class Part:
    """The gain of `arm` over `rival` in an outcome: right if shown above `least`, wrong if shown below `most`."""

    arm: Arm
    rival: Arm
    measure: Measure
    least: float = 0.0
    most: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A published sentence, its testable parts, and the number of candidates that its arms were chosen from.

    `number` is its place among the exercises' conclusions.
    """

    number: int
    text: str
    parts: list[Part]
    n_chosen_from: int = 1


@dataclass(frozen=True)
class ClaimResult:
    """A claim and its result. `why` is the reason it was not tested; empty if it was."""

    claim: Claim
    word: Word
    n_seeds: int
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    why: str = ""


def claim_results(comparison: Comparison) -> list[ClaimResult]:
    """Results for the exercises' claims that these arms can test; `Comparison.alpha` is split over them."""
    if not is_exercise(comparison):
        return []
    claims = _claims(comparison)
    return [_test(claim, comparison, comparison.alpha / len(claims)) for claim in claims]


def is_exercise(comparison: Comparison) -> bool:
    """Whether all arms train the exercises' network."""
    models = [arm.config.get("model") for arm in comparison.measured]
    return all(isinstance(model, dict) and model.get("_target_") == EXERCISES_NETWORK for model in models)


def _lack(arm: Arm, n_seeds: int, comparison: Comparison) -> str:
    if arm.has_diverged:
        return f"{arm.label} diverged"
    path = () if arm.finding is None else arm.finding.path
    n_trained = path[-1].seeds if path else len(arm.replicates)
    if comparison.design is not None and arm.is_compared and n_trained < n_seeds:
        of_seeds = f"{n_trained} of {n_seeds} seeds"
        if arm.verdict is not None and arm.verdict.is_settled:
            return f"{arm.label} was decided at {of_seeds} and not trained further"
        return f"{arm.label} was not trained beyond {of_seeds}"
    return f"{arm.label} lacks a seed that the others have"


def _test(claim: Claim, comparison: Comparison, alpha: float) -> ClaimResult:
    arms = list({a.digest: a for p in claim.parts for a in (p.arm, p.rival)}.values())
    seeds = sorted({seed for arm in arms for seed in (*arm.seeds, *arm.diverged)})
    lacking = [arm for arm in arms if arm.has_diverged or arm.seeds != seeds]
    if lacking:
        return ClaimResult(claim, "open", 0, why=_lack(lacking[0], len(seeds), comparison))
    if len(seeds) < 2:
        return ClaimResult(claim, "open", len(seeds), why="one seed compares models, not methods")
    gains = np.array([_gains(part, comparison.epoch) for part in claim.parts])
    missing = [part.measure.name for part, d in zip(claim.parts, gains, strict=True) if np.isnan(d).any()]
    if missing:
        why = f"a run did not record its {missing[0]}"
        if missing[0] == STEADINESS.name:
            why = f"steadiness can't be measured: a run has fewer than {4 * _FEWEST_EPOCHS} epochs, or no spread"
        return ClaimResult(claim, "open", len(seeds), why=why)
    found = intersection_union(
        gains,
        [p.least for p in claim.parts],
        [p.most for p in claim.parts],
        [p.measure.name for p in claim.parts],
        alpha / claim.n_chosen_from,
        comparison.variance,
    )
    word: Word = "supported" if found.holds else "contradicted" if found.is_wrong else "open"
    return ClaimResult(claim, word, len(seeds), found.mean.tolist(), found.low.tolist(), found.high.tolist())


def _gains(part: Part, epoch: Epoch) -> list[float]:
    ours, theirs = ([part.measure.value(r, epoch) for r in arm.replicates] for arm in (part.arm, part.rival))
    return [a - b for a, b in zip(ours, theirs, strict=True)]


# ---- the arms that a claim concerns


@dataclass(frozen=True)
class _Roles:
    """The arms that differ only in their lambdas, by their role in the exercises; None where one is missing.

    `n_chosen_from` counts the candidates for each role, on val or on test.
    """

    none: Arm | None
    l1: Arm | None
    l2: Arm | None
    both: Arm | None
    smaller_l2: Arm | None
    larger_l2: Arm | None
    n_chosen_from: dict[str, int]

    def chosen_from(self, *roles: str) -> int:
        return math.prod(self.n_chosen_from[role] for role in roles)


def _claims(comparison: Comparison) -> list[Claim]:
    roles = _roles(comparison)
    margin = comparison.margin if comparison.metric == TEST_ACCURACY and comparison.margin is not None else 0.0
    made = (
        _l1_is_best(roles, margin),
        _l2_does_not_help(roles, margin),
        _none_does_well(roles, margin),
        _l1_zeroes_kernels(roles, margin) if _is_harder(comparison) else None,
        _smaller_l2_is_better(roles, margin),
    )
    return [claim for claim in made if claim is not None]


def _three_gains(arm: Arm, rival: Arm, margin: float) -> list[Part]:
    return [Part(arm, rival, ACCURACY, most=margin), Part(arm, rival, LOSS), Part(arm, rival, STEADINESS)]


def _l1_is_best(roles: _Roles, margin: float) -> Claim | None:
    rivals = [arm for arm in (roles.none, roles.l2, roles.both) if arm is not None]
    if roles.l1 is None or len(rivals) < 3:
        return None
    parts = [part for rival in rivals for part in _three_gains(roles.l1, rival, margin)]
    text = "L1 alone is the best choice: steadier, more accurate, with a lower test loss"
    return Claim(1, text, parts, roles.chosen_from("l1", "l2", "both"))


def _l2_does_not_help(roles: _Roles, margin: float) -> Claim | None:
    if roles.l1 is None or roles.both is None:
        return None
    text = "Adding L2 does not help: rougher, less accurate, with a higher test loss"
    return Claim(2, text, _three_gains(roles.l1, roles.both, margin), roles.chosen_from("l1", "both"))


def _none_does_well(roles: _Roles, margin: float) -> Claim | None:
    rivals = {name: arm for name in ("l1", "l2", "both") if (arm := getattr(roles, name)) is not None}
    if roles.none is None or not rivals or not margin:
        return None
    parts = [Part(roles.none, arm, ACCURACY, least=-margin, most=-margin) for arm in rivals.values()]
    return Claim(3, "Without regularization the model does well already", parts, roles.chosen_from(*rivals))


def _l1_zeroes_kernels(roles: _Roles, margin: float) -> Claim | None:
    if roles.l1 is None or roles.none is None:
        return None
    measures = [DEAD_KERNELS]
    if not any(math.isnan(arm.weight_shares.dead_channels) for arm in (roles.l1, roles.none)):
        measures.append(DEAD_CHANNELS)  # older records don't count them
    parts = [Part(roles.l1, roles.none, ACCURACY, most=margin), *(Part(roles.l1, roles.none, m) for m in measures)]
    return Claim(4, "On harder images L1 helps, by zeroing whole kernels", parts, roles.chosen_from("l1"))


def _smaller_l2_is_better(roles: _Roles, margin: float) -> Claim | None:
    small, large = roles.smaller_l2, roles.larger_l2
    if small is None or large is None:
        return None
    parts = [Part(small, large, ACCURACY, most=margin), Part(small, large, LOSS)]
    return Claim(5, "L2 = 0.0001 is better than L2 = 0.0005", parts)


def _is_harder(comparison: Comparison) -> bool:
    data = comparison.data
    is_few = data.n_train is not None and data.n_train < FEW_IMAGES
    return data.name.lower() not in ("mnist", "mnist_5k") or data.label_noise > 0 or is_few


def _roles(comparison: Comparison) -> _Roles:
    family = _family(comparison)
    fixed = {(a.config["l1"], a.config["l2"]): a for a in family}
    n_chosen_from = {}
    chosen: dict[str, Arm | None] = {}
    published = {"l1": (PUBLISHED_L1, 0), "l2": (0, PUBLISHED_L2), "both": (PUBLISHED_L1, PUBLISHED_L2)}
    for role, pair in published.items():
        candidates = [a for (l1, l2), a in fixed.items() if (l1 > 0, l2 > 0) == (pair[0] > 0, pair[1] > 0)]
        is_protocol = pair in fixed and fixed[pair].config["penalty"]["name"] == "notebook"
        chosen[role] = fixed[pair] if is_protocol else _best(candidates, comparison)
        n_chosen_from[role] = 1 if is_protocol else max(len(candidates), 1)
    return _Roles(
        none=fixed.get((0, 0)),
        l1=chosen["l1"],
        l2=chosen["l2"],
        both=chosen["both"],
        smaller_l2=fixed.get((0, SMALLER_L2)),
        larger_l2=fixed.get((0, PUBLISHED_L2)),
        n_chosen_from=n_chosen_from,
    )


def _best(arms: list[Arm], comparison: Comparison) -> Arm | None:
    sign = 1 if comparison.selector.higher_is_better else -1
    return max(arms, key=lambda a: sign * a.score, default=None)


def _family(comparison: Comparison) -> list[Arm]:
    """The arms that differ only in l1 and l2: the baseline's family if it has others, else the largest family."""
    base = comparison.baseline
    found = families(comparison.measured, ("l1", "l2"))
    return max(found, key=lambda f: (base in f and len(f) > 1, len(f)), default=[])
