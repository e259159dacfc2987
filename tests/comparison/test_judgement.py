"""No arm gains by a run that failed, diverged, is missing or is still to come."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from trees import arm_of, comparisons, write_arms, write_run

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.results import Result, result
from reg_sweep.comparison.tables import Comparison, make_comparisons
from reg_sweep.comparison.verdict import verdict
from reg_sweep.runs.reading import read_runs
from reg_sweep.stats import estimates as stats

# From the worst for an arm to the best; those of one place say the same of its worth.
FAVOUR = {
    "not ranked": 0,
    None: 0,
    "worse by divergence": 0,
    "worse": 1,
    "no difference shown": 2,
    "shown equivalent": 2,
    "better": 3,
}
NAME = "bn · L1 0.1"


def results_of(root: Path, ours: list[float], theirs: list[float], others: list[float]) -> list[Result]:
    write_arms(root, {("bn", 0, 0): theirs, ("bn", 0.1, 0): ours, ("bn", 0.2, 0): others}, predictions=False)
    return [result(run) for run in read_runs(root)]


def changed(runs: list[Result], fate: str, seeds: tuple[int, ...]) -> list[Result]:
    """The runs after these seeds of the arm were deleted, or ended in this way."""
    hit = [r for r in runs if r.config["l1"] == 0.1 and r.seed in seeds]
    kept = [r for r in runs if r not in hit]
    return kept if fate == "deleted" else [*kept, *(replace(r, status=fate) for r in hit)]


def place(comparison: Comparison) -> tuple[float, int]:
    """Where the arm stands: its place among the ranked (lower is better), and what was shown of it."""
    arm = next((a for a in comparison.arms if a.label == NAME), None)
    rank = comparison.ranked.index(arm) if arm in comparison.ranked else math.inf
    return rank, FAVOUR[None if arm is None else arm.verdict]


@pytest.mark.parametrize("fate", ["deleted", "failed", "diverged", "running", "pruned"])
def test_no_arm_gains_by_any_subset_of_its_runs_that_is_missing_or_went_wrong(tmp_path, fate):
    rng = np.random.default_rng(4)
    for n in range(3):
        shared = 0.9 + 0.01 * rng.standard_normal(4)
        ours, theirs, others = (shared + by + 0.004 * rng.standard_normal(4) for by in ((n - 1) * 0.02, 0, 0.005))
        runs = results_of(tmp_path / str(n), ours.tolist(), theirs.tolist(), others.tolist())
        (whole,) = make_comparisons(runs, baseline="bn")
        before = place(whole)
        assert before[0] < math.inf
        for size in (1, 2, 3, 4):
            for seeds in itertools.combinations((1, 2, 3, 4), size):
                (after,) = make_comparisons(changed(runs, fate, seeds), baseline="bn")
                rank, favour = place(after)
                assert rank >= before[0]
                assert favour <= before[1]


@pytest.mark.parametrize("fate", ["deleted", "failed", "diverged"])
def test_an_arm_that_lost_its_unlucky_seed_is_not_named_best(tmp_path, fate):
    runs = results_of(tmp_path, [0.95, 0.96, 0.5], [0.90, 0.91, 0.92], [0.89, 0.9, 0.9])
    (comparison,) = make_comparisons(changed(runs, fate, (3,)))
    assert comparison.best.label == "bn"
    assert arm_of(comparison, NAME).verdict == "not ranked"


class TestDivergence:
    @staticmethod
    def arm(root: Path, n_seeds: int, diverged: int, baseline_diverged: int = 0) -> Arm:
        for seed in range(1, n_seeds + 1):
            for l1, n in ((0.0, baseline_diverged), (0.1, diverged)):
                status = "diverged" if seed <= n else "complete"
                accuracy = 0.9 + 0.001 * (seed * 7 % 5) + l1
                write_run(root / f"{l1}-{seed}", l1=l1, seed=seed, status=status, accuracy=accuracy, predictions=False)
        (comparison,) = comparisons(root, baseline="bn")
        return arm_of(comparison, NAME)

    def test_of_many_seeds_makes_an_arm_worse(self, tmp_path):
        arm = self.arm(tmp_path, 6, 5)
        assert arm.verdict == "worse by divergence"
        assert arm.p_divergence == pytest.approx(1 / 32)

    def test_of_few_seeds_is_no_proof_and_yet_never_better(self, tmp_path):
        assert self.arm(tmp_path, 6, 2).verdict == "not ranked"

    def test_that_the_baseline_shares_says_nothing(self, tmp_path):
        arm = self.arm(tmp_path, 7, 5, baseline_diverged=5)
        assert arm.p_divergence == 1
        assert arm.verdict == "not ranked"

    def test_of_all_seeds_is_judged_though_no_run_is_complete(self, tmp_path):
        assert self.arm(tmp_path, 5, 5).verdict == "worse by divergence"

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [3, 5, 8, 20])
    @pytest.mark.parametrize("correction", [1, 5])
    def test_and_means_together_err_no_more_often_than_one_test(self, n, correction):
        """Of an arm that diverges as often as the baseline: the exact chance of either false claim."""
        level = 0.05 / correction
        for share in np.linspace(0.01, 0.9, 60):
            alone = share * (1 - share)
            falsely = 0.0
            for discordant in range(n + 1):
                ps = stats_of(discordant)
                rejected = sum(binom.pmf(b, discordant, 0.5) for b in range(discordant + 1) if ps[b] <= level)
                falsely += binom.pmf(discordant, n, 2 * alone) * rejected
            assert falsely + level * (1 - share) ** n <= level


def stats_of(discordant: int) -> list[float]:
    """The sign test's p for each number of seeds on which the arm alone diverged."""
    found = []
    for b in range(discordant + 1):
        ours = [True] * b + [False] * (discordant - b)
        found.append(stats.divergence_p([*ours, True], [*(not o for o in ours), True]))
    return found


def test_image_intervals_leave_out_0_where_the_exact_p_is_small():
    for n_a, n_b in itertools.product((0, 1, 3, 7, 12, 40, 60), (0, 1, 2, 5, 20, 41)):
        a = np.array([True] * n_a + [False] * n_b + [True] * 500)
        b = np.array([False] * n_a + [True] * n_b + [True] * 500)
        for level in (0.95, 0.99):
            d = stats.paired_accuracy_difference(a, b, level)
            assert (d.p <= 1 - level) == (d.ci_low > 0 or d.ci_high < 0)


def test_the_winners_lead_is_told_corrected_for_having_been_chosen(tmp_path):
    rng = np.random.default_rng(1)
    arms = {("bn", 0.01 * i, 0): (0.9 + 0.01 * rng.standard_normal(4)).tolist() for i in range(6)}
    write_arms(tmp_path, arms, predictions=False)
    (comparison,) = comparisons(tmp_path)
    found, best = comparison.winners_headline, comparison.best
    assert found.n_candidates == 5
    assert found.estimate == pytest.approx(best.contrast.difference.mean)
    assert found.corrected < found.estimate
    assert (found.ci_low, found.ci_high) == pytest.approx(
        (best.contrast.difference.ci_low, best.contrast.difference.ci_high)
    )


@pytest.mark.parametrize(
    ("best_on_test", "said"),
    [
        (0.95, "Chosen as the best of 3 arms, it flatters: corrected for that, "),
        (0.91, "Though chosen as the best of 3 arms, it is behind their mean: drawn to it, "),
    ],
)
def test_a_winner_that_is_behind_the_others_on_test_is_not_said_to_flatter(tmp_path, best_on_test, said):
    wobble = [0.002, -0.003, 0.001, 0.0]
    for i, (l1, val, test) in enumerate(
        [(0, 0.9, 0.9), (0.1, 0.99, best_on_test), (0.2, 0.92, 0.93), (0.3, 0.92, 0.92)]
    ):
        for seed, w in enumerate(wobble, 1):
            noise = w * (1 + i)
            write_run(
                tmp_path / f"{i}-{seed}", l1=l1, seed=seed, accuracy=test + noise, val_accuracy=val, predictions=False
            )
    (comparison,) = comparisons(tmp_path)
    _, evidence = verdict(comparison)
    before, after = comparison.winners_headline.estimate, comparison.winners_headline.corrected
    figures = f"{100 * after:+.2f} points instead of {100 * before:+.2f}."
    assert f"{said}{figures}" in evidence
    assert (after < before) == ("flatters" in evidence)
