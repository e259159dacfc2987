"""What each arm has shown against the baseline, and how arms rank: by the seeds of the baseline, all of them.

An arm that lacks some of the seeds of the baseline, or diverged on one, is told apart: what is missing may be what it
was bad at. So no arm gains by a run that failed, diverged, was deleted or is still to come.
"""

import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from reg_sweep.comparison.arms import Arm, Contrast, Verdict
from reg_sweep.comparison.predictions import note, other_labels, read_predictions
from reg_sweep.comparison.results import TEST_ACCURACY, Epoch, Result
from reg_sweep.runs.record import Metric, RecordError
from reg_sweep.stats import estimates as stats
from reg_sweep.stats.family import Family, claims, compare_arms
from reg_sweep.stats.moderation import Variance
from reg_sweep.stats.selection import Headline, headline

ALPHA = 0.05


def judge(
    arms: Sequence[Arm],
    base: Arm,
    *,
    metric: Metric,
    selector: Metric,
    epoch: Epoch,
    margin: float | None,
    variance: Variance,
    n_test: int,
    problems: list[str],
) -> None:
    """Gives every arm but the baseline its contrast, verdict and lead.

    Of several seeds, the means are judged by `family.compare_arms`, all claims at one error of 5%; an arm with a
    diverged seed is judged by how often it diverges (`stats.divergence_p`), with the same correction, and by nothing
    else. Of one seed the trained models are compared by McNemar's test, and no word is said of methods.
    """
    others = [arm for arm in arms if arm is not base]
    for arm in others:
        arm.missing = tuple(seed for seed in base.seeds if seed not in arm.seeds)
        arm.lead = _lead(arm, base, selector, epoch)
    tested = [arm for arm in others if arm.has_diverged or len(arm.missing) < len(base.seeds)]
    if not tested:
        return
    if len(base.seeds) == 1:
        _judge_models(tested, base, metric, epoch, n_test, problems)
    else:
        _judge_methods(tested, base, metric, epoch, margin, variance)


def differences(arms: Sequence[Arm], base: Arm, metric: Metric, epoch: Epoch) -> NDArray[np.float64]:
    """Arm minus baseline, (n_arms, n_seeds): a column for each seed of the baseline, nan where the arm lacks it."""
    return paired(arms, base, lambda r: r.value(metric, epoch))


def paired(arms: Sequence[Arm], base: Arm, value: Callable[[Result], float]) -> NDArray[np.float64]:
    """The same of any value of a run."""
    theirs = [value(r) for r in base.replicates]
    rows = []
    for arm in arms:
        by_seed = {r.seed: value(r) for r in arm.replicates}
        rows.append([by_seed.get(r.seed, math.nan) - b for r, b in zip(base.replicates, theirs, strict=True)])
    return np.array(rows).reshape(len(arms), len(base.replicates))


def winners_headline(
    arms: Sequence[Arm], winner: Arm, base: Arm, metric: Metric, epoch: Epoch, variance: Variance
) -> Headline | None:
    """The winner's lead over the baseline, corrected for having been chosen among the ranked arms.

    None where nothing was chosen from, or one seed tells nothing of luck.
    """
    candidates = [arm for arm in arms if arm is not base and arm.is_ranked]
    if len(candidates) < 2 or len(base.seeds) < 2 or winner not in candidates:
        return None
    values = differences(candidates, base, metric, epoch)
    return None if np.isnan(values).any() else headline(values, candidates.index(winner), ALPHA, variance)


def _lead(arm: Arm, base: Arm, selector: Metric, epoch: Epoch) -> float:
    if arm.has_diverged or arm.missing or not base.replicates:
        return math.nan
    mean = float(differences([arm], base, selector, epoch).mean())
    return mean if selector.higher_is_better else -mean


# ---- several seeds


def _judge_methods(
    arms: list[Arm], base: Arm, metric: Metric, epoch: Epoch, margin: float | None, variance: Variance
) -> None:
    d = differences(arms, base, metric, epoch)
    n_pairs = (~np.isnan(d)).sum(axis=1)
    correction = max(1, sum(n > 1 or arm.has_diverged for n, arm in zip(n_pairs, arms, strict=True)))
    family = compare_arms(d, ALPHA, margin, variance, correction)
    words = claims(family, metric.higher_is_better)
    for i, arm in enumerate(arms):
        if n_pairs[i] > 0:
            arm.contrast = _contrast(arm, base, metric, epoch, family, i)
        arm.verdict = "not ranked" if arm.missing else cast(Verdict, str(words[i]))
        if arm.has_diverged:
            arm.p_divergence = min(1.0, correction * divergence_p(arm, base))
            arm.verdict = "worse by divergence" if arm.p_divergence <= ALPHA else "not ranked"


def divergence_p(arm: Arm, base: Arm) -> float:
    """The p of 'the arm diverges no more often than the baseline', on the seeds that both ended."""
    common = sorted({*arm.seeds, *arm.diverged} & {*base.seeds, *base.diverged})
    if not common:
        return 1.0
    return stats.divergence_p([s in arm.diverged for s in common], [s in base.diverged for s in common])


def _contrast(arm: Arm, base: Arm, metric: Metric, epoch: Epoch, family: Family, i: int) -> Contrast:
    ours, theirs = _common_values(arm, base, metric, epoch)
    mean, n = float(family.noise.mean[i]), len(ours)

    def difference(
        interval: tuple[NDArray[np.float64], NDArray[np.float64]], p: NDArray[np.float64]
    ) -> stats.Difference:
        return stats.Difference(mean, float(interval[0][i]), float(interval[1][i]), float(p[i]), n)

    within = difference(family.equivalence_interval, family.p_equivalence)
    return Contrast(
        mean=float(np.mean(ours)),
        baseline_mean=float(np.mean(theirs)),
        difference=difference(family.interval, family.p),
        alone=difference(family.interval_alone, family.p_alone),
        equivalence=within if family.margin is not None else stats.Difference(mean, math.nan, math.nan, math.nan, n),
        n_seeds=n,
        by_image=False,
    )


def _common_values(arm: Arm, base: Arm, metric: Metric, epoch: Epoch) -> tuple[list[float], list[float]]:
    theirs = {r.seed: r.value(metric, epoch) for r in base.replicates}
    pairs = [(r.value(metric, epoch), theirs[r.seed]) for r in arm.replicates if r.seed in theirs]
    return [a for a, _ in pairs], [b for _, b in pairs]


# ---- one seed


def _judge_models(arms: list[Arm], base: Arm, metric: Metric, epoch: Epoch, n_test: int, problems: list[str]) -> None:
    (theirs,) = base.replicates
    found: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    # The predictions are those of the last epoch, and tell accuracies alone.
    if metric == TEST_ACCURACY and epoch == "last":
        for arm in arms:
            ours = next((r for r in arm.replicates if r.seed == theirs.seed), None)
            correct = None if ours is None else _correct(ours, theirs, n_test, problems)
            if correct is not None:
                found[arm.digest] = correct
    for arm in arms:
        correct = found.get(arm.digest)
        if not arm.missing:
            arm.contrast = _models_contrast(arm, base, metric, epoch, correct, len(found))
        if arm.has_diverged or arm.missing:
            arm.verdict = "not ranked"
        elif arm.contrast is None or correct is None:
            arm.verdict = "one seed, not tested"
        else:
            differs = arm.contrast.difference.p <= ALPHA
            arm.verdict = "these two models differ" if differs else "no difference between these two models"


def _models_contrast(
    arm: Arm,
    base: Arm,
    metric: Metric,
    epoch: Epoch,
    correct: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
    n_tested: int,
) -> Contrast:
    (ours,), (theirs,) = _common_values(arm, base, metric, epoch)
    nothing = stats.Difference(ours - theirs, math.nan, math.nan, math.nan, 1)
    if correct is None:
        return Contrast(ours, theirs, nothing, nothing, nothing, 1, by_image=False)
    alone = stats.paired_accuracy_difference(*correct, level=1 - ALPHA)
    shared = stats.paired_accuracy_difference(*correct, level=1 - ALPHA / n_tested)
    p = min(1.0, n_tested * shared.p)
    difference = stats.Difference(shared.mean, shared.ci_low, shared.ci_high, p, shared.n)
    return Contrast(ours, theirs, difference, alone, nothing, 1, by_image=True)


def _correct(
    ours: Result, theirs: Result, n_test: int, problems: list[str]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Which test images each got right; None where a file can't be read or is about other images."""
    try:
        a, b = (read_predictions(r.path, n_test) for r in (ours, theirs))
    except RecordError as error:
        note(problems, error)
        return None
    if not np.array_equal(a.label, b.label):
        note(problems, other_labels(ours.path))
        return None
    return a.correct, b.correct
