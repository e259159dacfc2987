"""The chosen arm's shrunken estimate, its coverage and bias where all arms are equal; the one-standard-error rule."""

import math

import numpy as np
import pytest
from draws import rng
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.selection import (
    binomial_standard_error,
    one_standard_error,
    paired_one_standard_error,
    shrunken_estimate,
)

SCORES = st.integers(0, 10_000).map(lambda n_correct: n_correct / 10_000)


def chosen_on_val(n_tables: int, n_arms: int, n_seeds: int, truth: float = 0.0) -> tuple[np.ndarray, ...]:
    """Test scores (n_tables, n_arms, n_seeds), the true means, and the best arm on val, whose luck correlates 0.87."""
    g = np.random.default_rng(20)
    means = g.normal(0, truth, (n_tables, n_arms, 1)) if truth else np.zeros((n_tables, n_arms, 1))
    luck = g.normal(size=(n_tables, n_arms, n_seeds))
    val = means + 0.87 * luck + math.sqrt(1 - 0.87**2) * g.normal(size=luck.shape)
    return means + luck, means[..., 0], val.mean(axis=-1).argmax(axis=1)


class TestShrunkenEstimate:
    @pytest.mark.parametrize("n_arms", [2, 6, 31])
    @pytest.mark.parametrize("n_seeds", [3, 10])
    def test_interval_covers_the_chosen_arm(self, n_arms: int, n_seeds: int) -> None:
        test, _, chosen = chosen_on_val(1500, n_arms, n_seeds)
        h = shrunken_estimate(test, chosen, variance="plain")
        assert np.mean((h.ci_low <= 0) & (h.ci_high >= 0)) >= 0.94

    @pytest.mark.parametrize("n_arms", [6, 31])
    def test_correction_takes_most_of_the_selection_bias_of_equal_arms(self, n_arms: int) -> None:
        test, _, chosen = chosen_on_val(2000, n_arms, 5)
        h = shrunken_estimate(test, chosen, variance="plain")
        assert 0 < h.corrected.mean() < h.estimate.mean() / 3

    def test_correction_does_not_overshoot_where_arms_truly_differ(self) -> None:
        test, means, chosen = chosen_on_val(4000, 8, 5, truth=0.45)  # as much as the luck of a mean
        truth = np.take_along_axis(means, chosen[:, None], 1)[:, 0]
        h = shrunken_estimate(test, chosen, variance="plain")
        assert abs((h.corrected - truth).mean()) < (h.estimate - truth).mean() / 2
        assert ((h.corrected - truth) ** 2).mean() < ((h.estimate - truth) ** 2).mean()

    def test_of_one_candidate_is_its_mean_and_interval(self) -> None:
        x = np.array([[0.1, 0.3, 0.2]])
        h = shrunken_estimate(x, 0)
        assert (h.corrected, h.estimate) == (pytest.approx(0.2), pytest.approx(0.2))
        assert (h.ci_low, h.ci_high) == tuple(pytest.approx(a[0]) for a in compare_arms(x).interval)

    def test_of_one_seed_has_no_interval(self) -> None:
        h = shrunken_estimate([[0.1], [0.3]], 1)
        assert (h.estimate, h.corrected) == (0.3, 0.3)
        assert math.isnan(h.ci_low)


class TestOneStandardError:
    def test_takes_the_strongest_penalty_within_one_standard_error_of_the_best(self) -> None:
        # means 0.50, 0.40, 0.42, 0.44; the best one's standard error is 0.05 / sqrt(3) = 0.0289
        scores = [[0.45, 0.5, 0.55], [0.35, 0.4, 0.45], [0.42] * 3, [0.44] * 3]
        choice = one_standard_error([0, 1e-4, 1e-3, 1e-2], scores)
        assert (choice.best, choice.chosen) == (1, 2)
        assert choice.threshold == pytest.approx(0.4 + 0.05 / math.sqrt(3))

    def test_turns_round_for_scores_that_should_be_high(self) -> None:
        strengths, losses = [0, 1e-4, 1e-3, 1e-2], [[0.45, 0.55], [0.35, 0.45], [0.42] * 2, [0.46] * 2]
        low = one_standard_error(strengths, losses)
        high = one_standard_error(strengths, [[1 - x for x in xs] for xs in losses], lower_is_better=False)
        assert (high.best, high.chosen) == (low.best, low.chosen) == (1, 2)
        assert high.threshold == pytest.approx(1 - low.threshold)

    @given(st.lists(st.lists(SCORES, min_size=1, max_size=4), min_size=1, max_size=8), st.booleans())
    def test_never_chooses_a_weaker_penalty_than_the_best_nor_one_beyond_the_threshold(self, scores, lower) -> None:
        choice = one_standard_error(np.geomspace(1e-5, 1e-1, len(scores)), scores, lower)
        assert choice.chosen >= choice.best
        beyond = np.mean(scores[choice.chosen]) - choice.threshold
        assert math.isnan(beyond) or (beyond if lower else -beyond) <= 1e-12

    @given(st.permutations(range(5)))
    def test_does_not_depend_on_the_order_of_the_lambdas(self, order: list[int]) -> None:
        strengths, scores = np.array([0, 1e-4, 1e-3, 1e-2, 1e-1]), [[3, 5], [2, 4], [2.5, 4.5], [3, 4.5], [9, 9]]
        choice = one_standard_error(strengths[order], [scores[i] for i in order])
        assert (order[choice.best], order[choice.chosen]) == (1, 3)

    @pytest.mark.parametrize(("strengths", "scores"), [([1e-4, 1e-3], [[0.4], [0.41]]), ([1e-3, 1e-4], [[0.4], [0.4]])])
    def test_of_single_runs_without_a_standard_error_is_the_best_and_of_equals_the_strongest(self, strengths, scores):
        choice = one_standard_error(strengths, scores)
        assert (choice.best, choice.chosen) == (0, 0)
        assert math.isnan(choice.threshold)

    def test_of_single_runs_goes_by_the_standard_error_given(self) -> None:
        scores = [[0.9946], [0.9944], [0.9873]]
        error = binomial_standard_error(0.9946, 10_000)
        choice = one_standard_error([5e-4, 1e-3, 5e-3], scores, lower_is_better=False, standard_error=error)
        assert (choice.best, choice.chosen) == (0, 1)
        assert choice.threshold == pytest.approx(0.9946 - error)


class TestBinomialStandardError:
    def test_is_the_spread_of_measured_accuracies(self) -> None:
        accuracies = rng().binomial(1000, 0.97, size=20_000) / 1000
        assert binomial_standard_error(0.97, 1000) == pytest.approx(accuracies.std(), rel=0.02)


class TestPairedOneStandardError:
    def test_the_luck_that_all_lambdas_share_does_not_widen_the_choice(self) -> None:
        luck = np.array([0.0, 0.5, 1.0, 1.5])
        scores = np.array([np.zeros(4), [0.1, 0.11, 0.1, 0.09], [0.1, -0.1, 0.12, -0.1]]) + luck
        paired = paired_one_standard_error([0.0, 2.0, 1.0], scores)
        assert (paired.best, paired.chosen, paired.allowed) == (0, 2, (True, False, True))
        assert one_standard_error([0.0, 2.0, 1.0], list(scores)).chosen == 1

    def test_allows_what_is_within_the_standard_error_of_the_paired_difference(self) -> None:
        d = np.array([0.2, -0.1, 0.3, 0.0])
        error = d.std(ddof=1) / 2
        for shift in (0.99 * error - d.mean(), 1.01 * error - d.mean()):
            found = paired_one_standard_error([1, 2], np.array([np.zeros(4), d + shift]))
            assert found.allowed[1] == (shift < error - d.mean())

    def test_of_a_metric_where_more_is_better_is_that_of_its_negative(self) -> None:
        scores = rng().normal(size=(5, 4))
        assert paired_one_standard_error(range(5), scores) == paired_one_standard_error(range(5), -scores, False)

    @pytest.mark.parametrize(
        ("scores", "allowed"),
        [
            ([[1.0, 2.0, 9.0], [1.1, 2.2, math.nan], [1.2, 2.0, 9.1]], (True, False, False)),
            ([[1.0], [1.0], [1.1]], (True, True, False)),
            ([[1.0, 1.1, math.nan], [1.2, 1.0, math.nan], [math.nan, math.nan, 0.9]], (True, True, False)),
        ],
        ids=[
            "a missing seed makes no lambda best, and differences are of common seeds",
            "of one seed its equals",
            "nothing without a common seed",
        ],
    )
    def test_allows_the_best_and_what_can_be_told_to_be_as_good(self, scores, allowed) -> None:
        assert paired_one_standard_error([0, 1, 2], scores).allowed == allowed


@pytest.mark.parametrize(
    ("choose", "arguments", "message"),
    [
        (shrunken_estimate, ([[1.0, 2.0], [1.0, 3.0]], 2), "chosen must be a position from 0 to 1, got 2"),
        (shrunken_estimate, ([[1.0, math.nan], [1.0, 3.0]], 0), "values must have every seed"),
        (one_standard_error, ([1, 2], [[0.4], [math.nan]]), r"scores\[1\] must hold finite numbers, got nan"),
        (one_standard_error, ([1, 2], [[0.4]]), "one array for each of 2 strengths, got 1"),
        (one_standard_error, ([1], [[0.4]], True, -0.1), "standard_error must be a finite number of at least 0"),
        (one_standard_error, ([1], [[0.4]], True, math.nan), "standard_error must be a finite number of at least 0"),
        *((binomial_standard_error, bad, "must be") for bad in ((99.47, 10_000), (-0.1, 10), (math.nan, 10), (0.5, 0))),
        (paired_one_standard_error, ([0, 1], [[1.0, 2.0]]), r"a row for each of 2 strengths, got shape \(1, 2\)"),
        (paired_one_standard_error, ([0], [[math.nan]]), "at least one score, got none"),
    ],
)
def test_what_can_not_be_chosen_from_is_refused_in_a_line(choose, arguments, message):
    with pytest.raises(ValueError, match=message):
        choose(*arguments)
