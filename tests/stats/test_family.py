"""What a table claims: against scipy, its p against its interval, and its false claims where the truth is known."""

import math

import hypothesis
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from reg_sweep.stats.family import claims, compare_arms

TABLES = arrays(np.float64, (3, 4), elements=st.integers(-300, 300).map(lambda n: n / 100))


def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def tables(n_tables: int, n_arms: int, n_seeds: int, noisy: int | None = None) -> np.ndarray:
    """Differences (n_tables, n_arms - 1, n_seeds) of equally good arms; arm `noisy` has threefold noise."""
    x = rng().normal(size=(n_tables, n_arms, n_seeds))
    if noisy is not None:
        x[:, noisy] *= 3
    return x[:, 1:] - x[:, :1]


class TestCompareArms:
    def test_plain_is_scipys_paired_t_times_the_number_of_arms(self) -> None:
        d = rng().normal(0.5, 1, (4, 6))
        family = compare_arms(d, variance="plain")
        expected = [scipy_stats.ttest_1samp(row, 0) for row in d]
        assert family.p_alone == pytest.approx([e.pvalue for e in expected])
        assert family.p == pytest.approx([min(1, 4 * e.pvalue) for e in expected])
        assert family.interval[0] == pytest.approx([e.confidence_interval(1 - 0.05 / 4).low for e in expected])
        assert family.interval_alone[1] == pytest.approx([e.confidence_interval(0.95).high for e in expected])

    def test_equivalence_of_one_arm_is_statsmodels_tost(self) -> None:
        from statsmodels.stats.weightstats import ttost_paired

        a, b = rng().normal(size=(2, 8))
        expected = ttost_paired(a, b, -1.5, 1.5)[0]
        assert compare_arms([a - b], margin=1.5, variance="plain").p_equivalence[0] == pytest.approx(expected)

    @pytest.mark.parametrize("variance", ["moderated", "plain"])
    def test_interval_and_p_say_the_same(self, variance: str) -> None:
        @settings(deadline=None, max_examples=60)
        @hypothesis.given(TABLES)
        def check(d: np.ndarray) -> None:
            family = compare_arms(d, margin=1.0, variance=variance)
            low, high = family.interval
            within_low, within_high = family.equivalence_interval
            for i in range(3):
                if abs(family.p[i] - 0.05) > 1e-9:
                    assert (family.p[i] <= 0.05) == bool(low[i] > 0 or high[i] < 0)
                if abs(family.p_equivalence[i] - 0.05) > 1e-9:
                    assert (family.p_equivalence[i] <= 0.05) == bool(within_low[i] >= -1 and within_high[i] <= 1)

        check()

    def test_counts_arms_of_two_seeds_or_more(self) -> None:
        d = rng().normal(size=(3, 4))
        d[2, 1:] = math.nan
        family = compare_arms(d)
        assert np.asarray(family.correction).tolist() == [2]
        assert np.isnan(family.p).tolist() == [False, False, True]

    @pytest.mark.parametrize("n_seeds", [2, 3])
    def test_ties_claim_nothing(self, n_seeds: int) -> None:
        d = np.vstack([np.full(n_seeds, 5.0), np.zeros(n_seeds), rng().normal(size=(3, n_seeds))])
        assert claims(compare_arms(d, margin=50.0))[:2].tolist() == ["no difference shown"] * 2

    @pytest.mark.parametrize("margin", [0, -1, math.inf, math.nan])
    def test_refuses_a_margin_that_is_none(self, margin: float) -> None:
        with pytest.raises(ValueError, match="margin must be a finite number above 0, got"):
            compare_arms(np.ones((2, 2)), margin=margin)

    def test_refuses_an_alpha_that_is_none(self) -> None:
        with pytest.raises(ValueError, match=r"alpha must be above 0 and below 0\.5, got 5"):
            compare_arms(np.ones((2, 2)), alpha=5)


class TestClaims:
    def test_tells_the_five_apart(self) -> None:
        wiggle = np.array([-0.1, 0.0, 0.1, 0.05, -0.05, 0.0])
        wide = 20 * wiggle
        d = np.array([3 + wiggle, -3 + wiggle, wide, wiggle, 0.5 + wiggle])
        expected = [
            "better",
            "worse",
            "no difference shown",
            "shown equivalent",
            "real but smaller than the margin",
        ]
        assert claims(compare_arms(d, margin=1.0, variance="plain")).tolist() == expected
        assert claims(compare_arms(d, margin=1.0), higher_is_better=False)[:2].tolist() == ["worse", "better"]
        assert "shown equivalent" not in claims(compare_arms(d)).tolist()

    @pytest.mark.parametrize("noisy", [None, 0, -1])
    @pytest.mark.parametrize(("n_arms", "n_seeds"), [(2, 3), (3, 4), (6, 2), (6, 3), (6, 10), (31, 3)])
    def test_of_a_table_are_all_true_in_nineteen_tables_of_twenty(
        self, n_arms: int, n_seeds: int, noisy: int | None
    ) -> None:
        d = tables(2000, n_arms, n_seeds, noisy)
        is_at_margin = np.arange(n_arms - 1) % 2 == 1
        family = compare_arms(d + 30 * is_at_margin[:, None], margin=30)
        false = np.where(is_at_margin, family.p_equivalence <= 0.05, family.p <= 0.05)
        assert false.any(axis=1).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)

    def test_see_thrice_as_many_large_differences_with_three_seeds_as_the_plain_test(self) -> None:
        d = tables(3000, 6, 3)
        d[:, 0] += 3 * math.sqrt(2)  # three standard deviations of a paired difference
        moderated, plain = ((compare_arms(d, variance=v).p[:, 0] <= 0.05).mean() for v in ("moderated", "plain"))
        assert plain == pytest.approx(0.24, abs=0.03)
        assert moderated == pytest.approx(0.68, abs=0.03)
