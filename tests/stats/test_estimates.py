"""Estimates against scipy, statsmodels and values worked by hand; their error rates on arms whose truth is known."""

import math

import numpy as np
import pytest
from draws import rng
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from reg_sweep.stats.estimates import (
    divergence_test,
    exceeds_range,
    mcnemar,
    mean_band,
    mean_interval,
    noisier,
    pair_correlation,
    paired_accuracy_difference,
    paired_difference,
)

SCORES = st.integers(0, 10_000).map(lambda n_correct: n_correct / 10_000)
PAIRS = st.lists(st.tuples(SCORES, SCORES), min_size=2, max_size=12)
NOT_FINITE = (math.nan, math.inf, -math.inf)
OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def simulated_arms(n_experiments: int, n_arms: int, n_seeds: int) -> np.ndarray:
    """Scores (n_experiments, n_arms, n_seeds) of equally good arms; a seed's luck is shared by all arms."""
    g = rng()
    luck = g.normal(0, 0.001, (n_experiments, 1, n_seeds))
    return 0.99 + luck + g.normal(0, 0.0005, (n_experiments, n_arms, n_seeds))


def outcomes(n_both: int, n_only_a: int, n_only_b: int, n_neither: int) -> tuple[np.ndarray, np.ndarray]:
    cells = (n_both, n_only_a, n_only_b, n_neither)
    return np.repeat([True, True, False, False], cells), np.repeat([True, False, True, False], cells)


class TestMeanInterval:
    def test_agrees_with_scipy(self) -> None:
        x = rng().normal(size=7)
        e = mean_interval(x, level=0.9)
        expected = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.9)
        assert (e.ci_low, e.ci_high) == pytest.approx((expected.low, expected.high))
        assert (e.mean, e.sd, e.n) == (pytest.approx(x.mean()), pytest.approx(x.std(ddof=1)), 7)

    @pytest.mark.parametrize("n", [2, 3, 5])
    def test_covers_the_true_mean_as_often_as_it_says(self, n: int) -> None:
        estimates = [mean_interval(x) for x in rng().normal(0.99, 0.001, (4000, n))]
        covered = np.mean([e.ci_low <= 0.99 <= e.ci_high for e in estimates])
        assert covered == pytest.approx(0.95, abs=0.012)

    @pytest.mark.parametrize("values", [[0.99], [0.1] * 3], ids=["one value", "equal values"])
    def test_of_values_without_spread_is_a_mean_alone(self, values: list[float]) -> None:
        e = mean_interval(values)
        assert (e.mean, e.n) == (pytest.approx(values[0]), len(values))
        assert all(math.isnan(x) for x in (e.ci_low, e.ci_high))
        assert math.isnan(e.sd) == (e.n == 1)


class TestMeanBand:
    def test_is_the_mean_interval_of_each_epoch(self) -> None:
        x = rng().normal(size=(4, 6))
        x[:, 5] = 0.1
        band = mean_band(x, level=0.8)
        for epoch, column in enumerate(x.T):
            e = mean_interval(column, level=0.8)
            at_epoch = (band.mean[epoch], band.ci_low[epoch], band.ci_high[epoch], band.n[epoch])
            assert at_epoch == pytest.approx((e.mean, e.ci_low, e.ci_high, e.n), nan_ok=True)

    def test_goes_on_with_the_replicates_that_reached_an_epoch(self) -> None:
        nan = math.nan
        band = mean_band([[1, 2, 3, nan], [3, 4, nan, nan], [5, nan, nan, nan]])
        assert band.n.tolist() == [3, 2, 1, 0]
        assert band.mean[:3].tolist() == [3, 3, 3]
        assert math.isnan(band.mean[3])
        assert np.isnan(band.ci_low).tolist() == [False, False, True, True]
        assert band.ci_high[1] == pytest.approx(mean_interval([2, 4]).ci_high)


class TestPairedDifference:
    def test_agrees_with_scipy(self) -> None:
        a, b = rng().normal(size=(2, 6))
        d = paired_difference(a, b, level=0.99)
        expected = scipy_stats.ttest_rel(a, b)
        interval = expected.confidence_interval(0.99)
        assert (d.p, d.ci_low, d.ci_high) == pytest.approx((expected.pvalue, interval.low, interval.high))
        assert (d.mean, d.n) == (pytest.approx((a - b).mean()), 6)

    @given(PAIRS)
    def test_of_b_and_a_is_that_of_a_and_b_with_its_sign_turned(self, pairs: list[tuple[float, float]]) -> None:
        a, b = np.transpose(pairs)
        d, turned = paired_difference(a, b), paired_difference(b, a)
        of_d = (-d.mean, -d.ci_high, -d.ci_low, d.p)
        assert np.array_equal((turned.mean, turned.ci_low, turned.ci_high, turned.p), of_d, equal_nan=True)

    @given(PAIRS)
    def test_interval_leaves_out_zero_where_p_is_below_one_minus_its_level(self, pairs: list) -> None:
        d = paired_difference(*np.transpose(pairs))
        if abs(d.p - 0.05) > 1e-9:  # nan where there is no spread
            assert (d.p < 0.05) == (not d.ci_low <= 0 <= d.ci_high)

    @pytest.mark.parametrize("n_seeds", [2, 3, 10])
    def test_finds_a_difference_of_equal_arms_in_one_comparison_of_twenty(self, n_seeds: int) -> None:
        arms = simulated_arms(4000, 2, n_seeds)
        differences = [paired_difference(a, b) for a, b in arms]
        assert np.mean([d.p <= 0.05 for d in differences]) == pytest.approx(0.05, abs=0.012)
        assert np.mean([d.ci_low <= 0 <= d.ci_high for d in differences]) == pytest.approx(0.95, abs=0.012)

    @pytest.mark.parametrize(("by", "n"), [(0.0, 4), (0.25, 4), (0.01, 4), (0.25, 1)])
    def test_that_is_the_same_in_every_pair_or_of_one_pair_has_neither_interval_nor_p(self, by: float, n: int) -> None:
        b = np.array([0.5, 0.1, 0.625, 0.9802])[:n]
        d = paired_difference(b + by, b)
        assert (d.mean, d.n) == (pytest.approx(by), n)
        assert all(math.isnan(x) for x in (d.ci_low, d.ci_high, d.p))

    def test_that_is_not_the_same_by_one_image_of_ten_thousand_has_an_interval(self) -> None:
        d = paired_difference([0.9803, 0.9901, 0.9702], [0.9802, 0.9901, 0.9701])
        assert d.ci_low < d.mean < d.ci_high


class TestMcNemar:
    @pytest.mark.slow
    @given(OUTCOMES)
    def test_agrees_with_statsmodels(self, pairs: list[tuple[bool, bool]]) -> None:
        from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

        a, b = np.transpose(pairs)
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        m = mcnemar(a, b)
        assert (m.n_only_a, m.n_only_b, m.p) == (table[0][1], table[1][0], mcnemar(b, a).p)
        if m.n_only_a + m.n_only_b > 0:
            assert m.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)

    def test_agrees_with_a_value_worked_by_hand_and_shows_nothing_of_models_that_agree(self) -> None:
        assert mcnemar(*outcomes(90, 4, 1, 5)).p == pytest.approx(2 * (1 + 5) / 2**5)
        assert mcnemar(*outcomes(9, 0, 0, 1)).p == 1


class TestPairedAccuracyDifference:
    def test_agrees_with_a_value_worked_by_hand_and_takes_its_p_from_mcnemar(self) -> None:
        d = paired_accuracy_difference(*outcomes(80, 8, 2, 8))
        assert (d.mean, d.n) == (pytest.approx(6 / 98), 98)
        half = 1.959964 * math.sqrt(0.12 - 0.06**2) / 10  # p_a = 9/100, p_b = 3/100
        assert (d.ci_low, d.ci_high) == pytest.approx((0.06 - half, 0.06 + half))
        assert d.p == mcnemar(*outcomes(80, 8, 2, 8)).p

    @pytest.mark.parametrize(("correction", "level"), [(1, 0.95), (5, 0.95), (10, 0.95), (30, 0.95), (1, 0.99)])
    def test_leaves_out_0_exactly_where_the_corrected_p_is_small(self, correction: int, level: float) -> None:
        for n in (60, 1000):
            for i in range(31):
                for k in range(i + 1):
                    d = paired_accuracy_difference(*outcomes(n - i - k, i, k, 0), level, correction)
                    assert (d.p <= 1 - level) == (d.ci_low > 0), (i, k)
                    assert d.ci_low < d.mean < d.ci_high or i + k == 0

    def test_of_many_arms_has_a_wider_interval_and_a_larger_p(self) -> None:
        a, b = outcomes(80, 8, 2, 8)
        alone, among = paired_accuracy_difference(a, b), paired_accuracy_difference(a, b, correction=5)
        assert among.p == min(1.0, 5 * alone.p)
        assert among.ci_low < alone.ci_low < alone.ci_high < among.ci_high

    @pytest.mark.parametrize(
        ("only_a", "only_b"), [(0.0005, 0.0005), (0.003, 0.001), (0.004, 0.004), (0.005, 0.0001), (0.02, 0.01)]
    )
    def test_covers_the_true_difference_as_often_as_it_says(self, only_a: float, only_b: float) -> None:
        n, n_only = 1000, np.arange(60)
        n_a, n_b = n_only[:, None], n_only[None, :]
        chance = scipy_stats.binom.pmf(n_a + n_b, n, only_a + only_b)  # of so many disagreements,
        chance = chance * scipy_stats.binom.pmf(n_a, n_a + n_b, only_a / (only_a + only_b))  # and of a's share in them
        covered = 0.0
        for i, k in np.argwhere(chance > 1e-6):
            d = paired_accuracy_difference(*outcomes(n - i - k, i, k, 0))
            covered += chance[i, k] * (d.ci_low <= only_a - only_b <= d.ci_high)
        assert covered >= 0.95

    @pytest.mark.slow
    def test_finds_a_difference_of_equal_models_in_at_most_one_comparison_of_twenty(self) -> None:
        cells = rng().multinomial(1000, [0.95, 0.02, 0.02, 0.01], size=700)
        assert np.mean([paired_accuracy_difference(*outcomes(*c)).p <= 0.05 for c in cells]) < 0.06

    @given(OUTCOMES)
    def test_interval_is_possible_has_a_width_and_turns_its_sign_with_the_arms(self, pairs: list) -> None:
        a, b = np.transpose(pairs)
        d, turned = paired_accuracy_difference(a, b), paired_accuracy_difference(b, a)
        assert (turned.mean, turned.ci_low, turned.ci_high) == (-d.mean, -d.ci_high, -d.ci_low)
        assert -1 <= d.ci_low < d.ci_high <= 1
        assert d.ci_low <= d.mean <= d.ci_high


class TestDivergenceTest:
    @pytest.mark.parametrize(("only_a", "only_b", "both"), [(5, 0, 0), (6, 0, 3), (1, 4, 2), (0, 0, 5), (3, 3, 0)])
    def test_is_the_sign_test_of_the_seeds_that_one_side_alone_lost(self, only_a: int, only_b: int, both: int) -> None:
        a = np.repeat([True, False, True, False], [only_a, only_b, both, 2])
        b = np.repeat([False, True, True, False], [only_a, only_b, both, 2])
        found, turned = divergence_test(a, b), divergence_test(b, a)
        n = only_a + only_b
        assert found.p == pytest.approx(scipy_stats.binomtest(only_a, n).pvalue if n else 1.0)
        assert (found.n_only_a, found.n_only_b) == (only_a, only_b)
        assert (found.p, found.direction) == (turned.p, -turned.direction)
        assert found.direction == np.sign(only_a - only_b)

    def test_without_pairing_is_fishers(self) -> None:
        a, b = np.arange(9) < 6, np.arange(12) < 1
        found = divergence_test(a, b, "none")
        assert found.p == pytest.approx(scipy_stats.fisher_exact([[6, 3], [1, 11]]).pvalue)
        assert found.direction == 1
        assert divergence_test(b, a, "none").direction == -1


class TestPairCorrelation:
    def test_agrees_with_scipy(self) -> None:
        a, b = rng().normal(size=(2, 9))
        found, expected = pair_correlation(a, a + b), scipy_stats.pearsonr(a, a + b)
        assert found.r == pytest.approx(expected.statistic)
        interval = expected.confidence_interval(0.95)
        assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high))

    def test_is_unknown_without_spread_and_has_no_interval_of_three_pairs(self) -> None:
        assert math.isnan(pair_correlation([1.0], [2.0]).r)
        assert math.isnan(pair_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).r)
        found = pair_correlation([1.0, 2.0, 4.0], [2.0, 3.0, 3.0])
        assert (math.isnan(found.r), math.isnan(found.ci_low)) == (False, True)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 8), (12, 5)])
def test_how_much_noisier_one_arm_is_than_another_is_the_f_test_of_the_field(n, m):
    g = np.random.default_rng(n)
    a, b = g.normal(0, 3, n), g.normal(5, 1, m)
    ratio = a.var(ddof=1) / b.var(ddof=1)
    assert noisier(a, b) == pytest.approx((math.sqrt(ratio), scipy_stats.f.sf(ratio, n - 1, m - 1)))
    assert all(map(math.isnan, noisier(a, [1.0, 1.0])))


@pytest.mark.parametrize(
    ("interval", "bounds", "expected"),
    [
        ((-2.57, 2.54), (0, 1), True),
        ((-0.2, 1.01), (0, 1), True),
        ((-0.9, 0.9), (0, 1), False),
        ((-0.9, 0.9), (0.5, 1), True),
        ((-257, 254), (0, math.inf), False),
        ((math.nan, math.nan), (0, 1), False),
    ],
)
def test_an_interval_says_nothing_that_reaches_beyond_what_scores_can_differ_by(interval, bounds, expected):
    assert exceeds_range(*interval, *bounds) is expected


@pytest.mark.parametrize(
    ("estimate", "arguments", "message"),
    [
        *((mean_interval, ([0.9, x],), f"values must hold finite numbers, got {x} at position 1") for x in NOT_FINITE),
        *((mean_interval, (x,), "at least one number") for x in ([], 0.9, [[0.9]])),
        *((mean_interval, ([1, 2], level), "level must be above 0 and below 1") for level in (0, 1, 95)),
        (mean_band, ([1, 2, 3],), r"got shape \(3,\)"),
        (paired_difference, ([1, 2], [1, 2, 3]), "pair position by position, got 2 and 3 scores"),
        (paired_difference, ([1, 2], [math.nan, 3]), "b must hold finite numbers, got nan at position 0"),
        (mcnemar, (np.array([7]), np.array([True])), "must be boolean, got int64 and bool: pass predicted == label"),
        (mcnemar, ([True] * 2, [True] * 3), r"the same images, got shapes \(2,\) and \(3,\)"),
        (paired_accuracy_difference, ([True], [False], 0.95, 0), "correction must be at least 1, got 0"),
        *((divergence_test, ([1, 0], [0, 1], pairing), "outcomes must be") for pairing in ("seeds", "none")),
    ],
)
def test_what_has_no_estimate_is_refused_in_a_line(estimate, arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate(*arguments)
