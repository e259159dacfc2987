"""Lost seeds: which failure rate they leave possible, and which seeds stray. Verdicts: test_sequential.TestLookAt."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from reg_sweep.stats.losses import failure_rate_bound, stray_seeds


def rng() -> np.random.Generator:
    return np.random.default_rng(20)


class TestFailureRateBound:
    @pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 3), (1, 8), (5, 20), (19, 20), (20, 20)])
    def test_is_the_exact_one_sided_bound(self, k: int, n: int) -> None:
        expected = binomtest(k, n, alternative="less").proportion_ci(0.95, method="exact").high
        assert failure_rate_bound(k, n) == pytest.approx(expected)

    def test_of_eight_seeds_without_a_failure_is_31_percent(self) -> None:
        assert failure_rate_bound(0, 8) == pytest.approx(1 - 0.05 ** (1 / 8)) == pytest.approx(0.312, abs=5e-4)

    @pytest.mark.parametrize(
        ("arguments", "message"), [((0, 0), "of n of at least 1"), ((3, 2), "got 3 of 2"), ((0, 2, 5), "level must")]
    )
    def test_names_what_is_wrong(self, arguments: tuple, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            failure_rate_bound(*arguments)


class TestStraySeeds:
    @pytest.mark.parametrize("n", [5, 8, 20])
    def test_are_rare_in_normal_noise(self, n: int) -> None:
        false = np.mean([bool(stray_seeds(x)) for x in rng().normal(size=(2000, n))])
        assert false <= 0.015 + 2 * math.sqrt(0.015 / 2000)

    @pytest.mark.parametrize(("n", "collapsed"), [(5, {2}), (8, {0, 3}), (20, {1, 5, 6})])
    def test_are_the_seeds_that_collapsed_however_many_up_to_a_quarter(self, n: int, collapsed: set) -> None:
        x = rng().normal(0.99, 0.001, n)
        x[list(collapsed)] = 0.9
        assert set(stray_seeds(x)) == collapsed

    def test_are_none_where_one_image_more_or_fewer_is_the_smallest_step(self) -> None:
        x = [0.995, 0.995, 0.995, 0.995, 0.994]
        assert stray_seeds(x) == (4,)
        assert stray_seeds(x, resolution=0.001) == ()
        assert stray_seeds([*x[:4], 0.9], resolution=0.001) == (4,)

    @pytest.mark.parametrize("x", [[1.0] * 8, [0.0, 0.0, 0.0, 9.0]])
    def test_are_none_without_spread_or_of_fewer_than_five(self, x: list[float]) -> None:
        assert stray_seeds(x) == ()
