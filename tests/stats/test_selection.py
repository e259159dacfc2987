"""The chosen arm's headline: its coverage and its bias where all arms are equal."""

import math

import numpy as np
import pytest

from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.selection import headline


def chosen_on_val(n_tables: int, n_arms: int, n_seeds: int, truth: float = 0.0) -> tuple[np.ndarray, ...]:
    """Test scores (n_tables, n_arms, n_seeds), the true means, and the best arm on val, whose luck correlates 0.87."""
    g = np.random.default_rng(20)
    means = g.normal(0, truth, (n_tables, n_arms, 1)) if truth else np.zeros((n_tables, n_arms, 1))
    luck = g.normal(size=(n_tables, n_arms, n_seeds))
    val = means + 0.87 * luck + math.sqrt(1 - 0.87**2) * g.normal(size=luck.shape)
    return means + luck, means[..., 0], val.mean(axis=-1).argmax(axis=1)


class TestHeadline:
    @pytest.mark.parametrize("n_arms", [2, 6, 31])
    @pytest.mark.parametrize("n_seeds", [3, 10])
    def test_interval_covers_the_chosen_arm(self, n_arms: int, n_seeds: int) -> None:
        test, _, chosen = chosen_on_val(1500, n_arms, n_seeds)
        h = headline(test, chosen, variance="plain")
        assert np.mean((h.ci_low <= 0) & (h.ci_high >= 0)) >= 0.94

    @pytest.mark.parametrize("n_arms", [6, 31])
    def test_correction_takes_most_of_the_flattery_of_equal_arms(self, n_arms: int) -> None:
        test, _, chosen = chosen_on_val(2000, n_arms, 5)
        h = headline(test, chosen, variance="plain")
        assert 0 < h.corrected.mean() < h.estimate.mean() / 3
        assert h.flattery == pytest.approx(h.estimate - h.corrected)

    def test_correction_does_not_overshoot_where_arms_truly_differ(self) -> None:
        test, means, chosen = chosen_on_val(4000, 8, 5, truth=0.45)  # as much as the luck of a mean
        truth = np.take_along_axis(means, chosen[:, None], 1)[:, 0]
        h = headline(test, chosen, variance="plain")
        assert abs((h.corrected - truth).mean()) < (h.estimate - truth).mean() / 2
        assert ((h.corrected - truth) ** 2).mean() < ((h.estimate - truth) ** 2).mean()

    def test_of_one_candidate_is_its_mean_and_interval(self) -> None:
        x = np.array([[0.1, 0.3, 0.2]])
        h = headline(x, 0)
        assert (h.corrected, h.estimate) == (pytest.approx(0.2), pytest.approx(0.2))
        assert (h.ci_low, h.ci_high) == tuple(pytest.approx(a[0]) for a in compare_arms(x).interval)

    def test_of_one_seed_has_no_interval(self) -> None:
        h = headline([[0.1], [0.3]], 1)
        assert (h.estimate, h.corrected) == (0.3, 0.3)
        assert math.isnan(h.ci_low)

    def test_names_a_position_that_is_none_and_a_missing_seed(self) -> None:
        with pytest.raises(ValueError, match="chosen must be a position from 0 to 1, got 2"):
            headline([[1.0, 2.0], [1.0, 3.0]], 2)
        with pytest.raises(ValueError, match="values must have every seed"):
            headline([[1.0, math.nan], [1.0, 3.0]], 0)
