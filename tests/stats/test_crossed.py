"""Seeds crossed with images: components and coverage where they are known."""

import math

import numpy as np
import pytest
from draws import rng

from reg_sweep.stats.crossed import crossed_difference, halves


def two_arms(
    g: np.random.Generator, n_seeds: int, n_images: int, seed_sd: float, image_sd: float
) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of two equally good arms, each with seeds and images that suit it more or less."""
    difficulty = g.normal(0, 1, (1, n_images))
    logits = [
        2 - difficulty + g.normal(0, seed_sd, (n_seeds, 1)) + g.normal(0, image_sd, (1, n_images)) for _ in range(2)
    ]
    arm, baseline = (g.random((n_seeds, n_images)) < 1 / (1 + np.exp(-x)) for x in logits)
    return arm, baseline


class TestCrossedDifference:
    def test_agrees_with_the_analysis_of_variance_by_hand(self) -> None:
        arm = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
        baseline = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 0, 1, 1]], dtype=bool)
        d = arm.astype(float) - baseline
        total = sum((d[s, i] - d.mean()) ** 2 for s in range(3) for i in range(4))
        seeds = sum(4 * (d[s].mean() - d.mean()) ** 2 for s in range(3))
        images = sum(3 * (d[:, i].mean() - d.mean()) ** 2 for i in range(4))
        rest = (total - seeds - images) / 6
        c = crossed_difference(arm, baseline)
        assert c.mean == pytest.approx(d.mean())
        assert c.from_seeds == pytest.approx(max(seeds / 2 - rest, 0) / 12)
        assert c.from_images == pytest.approx(max(images / 3 - rest, 0) / 12)
        assert c.from_both == pytest.approx(rest / 12)

    @pytest.mark.parametrize(("seed_sd", "image_sd"), [(0.3, 0.0), (0.3, 1.0), (0.1, 2.0)])
    def test_covers_the_difference_over_all_seeds_and_images(self, seed_sd: float, image_sd: float) -> None:
        g = rng()
        found = [crossed_difference(*two_arms(g, 6, 400, seed_sd, image_sd)) for _ in range(800)]
        assert np.mean([c.ci_low <= 0 <= c.ci_high for c in found]) == pytest.approx(0.955, abs=0.025)

    def test_says_which_of_the_two_to_buy(self) -> None:
        g = rng()
        by_seeds, by_images = (crossed_difference(*two_arms(g, 10, 1000, s, i)) for s, i in ((0.8, 0.0), (0.0, 2.0)))
        assert (by_seeds.buy, by_images.buy) == ("seeds", "images")
        assert by_seeds.standard_error(40, 1000) < 0.6 * by_seeds.standard_error(10, 1000)
        assert by_images.standard_error(10, math.inf) < 0.3 * by_images.standard_error(10, 1000)

    def test_of_arms_that_never_differ_has_no_interval(self) -> None:
        same = rng().random((3, 50)) < 0.9
        c = crossed_difference(same, same)
        assert (c.mean, math.isnan(c.ci_low), math.isnan(c.ci_high)) == (0, True, True)

    def test_refuses_classes_one_seed_and_other_shapes(self) -> None:
        outcomes = np.ones((2, 3), dtype=bool)
        with pytest.raises(ValueError, match="must be boolean, got int64"):
            crossed_difference(outcomes.astype(np.int64), outcomes)
        with pytest.raises(ValueError, match=r"got shapes \(2, 3\) and \(2, 2\)"):
            crossed_difference(outcomes, outcomes[:, :2])
        with pytest.raises(ValueError, match="at least two each, got 1 and 3"):
            crossed_difference(outcomes[:1], outcomes[:1])


class TestHalves:
    def test_one_half_of_the_images_predicts_the_other(self) -> None:
        g = rng()
        held = [halves(*two_arms(g, 4, 400, 0.3, 1.0), g)[2] for _ in range(600)]
        assert np.mean(held) == pytest.approx(0.95, abs=0.03)

    def test_splits_the_images_once(self) -> None:
        arm, baseline = two_arms(rng(), 3, 101, 0.3, 1.0)
        here, there, _ = halves(arm, baseline, rng())
        assert (here.n_images, there.n_images) == (51, 50)
        whole = (here.mean * 51 + there.mean * 50) / 101
        assert whole == pytest.approx(crossed_difference(arm, baseline).mean)
