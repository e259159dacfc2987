"""Plans against scipy's noncentral t, statsmodels, and simulation."""

import math

import numpy as np
import pytest
from draws import rng
from scipy.special import ndtr
from scipy.stats import binomtest, chi2, nct
from scipy.stats import t as student_t

from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.power import Plan, chance_to_beat
from reg_sweep.stats.sequential import Design


class TestPlan:
    @pytest.mark.parametrize("n", [3, 5, 20])
    def test_power_of_one_arm_is_statsmodels(self, n: int) -> None:
        from statsmodels.stats.power import TTestPower

        assert Plan(2.0).power(1.6, n) == pytest.approx(TTestPower().power(0.8, n, 0.05), rel=1e-6)

    def test_smallest_difference_is_shown_with_the_power_asked_for(self) -> None:
        plan = Plan(1.0, correction=5, prior_df=2.5)
        assert plan.power(plan.smallest_difference(3), 3) == pytest.approx(0.8, abs=1e-4)
        assert plan.smallest_difference(20) < plan.smallest_difference(5) < plan.smallest_difference(3)
        assert math.isnan(plan.smallest_difference(1))

    def test_power_holds_in_simulated_tables(self) -> None:
        plan = Plan(1.0, correction=4)
        d = rng().normal(plan.smallest_difference(5), 1, (4000, 4, 5))
        assert (compare_arms(d, variance="plain").p <= 0.05).mean() == pytest.approx(0.8, abs=0.02)
        d = rng().normal(0.1, 1, (4000, 4, 12))
        equivalent = compare_arms(d, margin=1.5, variance="plain").p_equivalence <= 0.05
        assert equivalent.mean() == pytest.approx(plan.equivalence_power(1.5, 12, 0.1), abs=0.02)

    @pytest.mark.parametrize("difference", [1.0, 20.0, 60.0, 1e6])
    @pytest.mark.parametrize("n", [2, 3, 31])
    def test_power_is_a_share_however_large_the_difference(self, difference: float, n: int) -> None:
        assert 0 <= Plan(1.0, correction=30).power(difference, n) <= 1 + 1e-12

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"sd": 0.0}, "sd must be a finite number above 0, got 0.0"),
            ({"sd": 1.0, "alpha": 1.0}, "alpha must be above 0 and below 0.5, got 1.0"),
            ({"sd": 1.0, "correction": 0.0}, "correction must be at least 1, got 0.0"),
            ({"sd": 1.0, "prior_df": -1.0}, "prior_df must be at least 0, got -1.0"),
            ({"sd": 1.0, "sd_df": 0.0}, "sd_df must be above 0, got 0.0"),
        ],
    )
    def test_names_what_is_out_of_range(self, bad: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Plan(**bad)


class TestAssurance:
    @pytest.mark.parametrize("n", [2, 3, 8])
    def test_a_plan_with_an_estimated_spread_keeps_its_power_on_average(self, n: int) -> None:
        known = Plan(1.0, correction=2)
        planned = Plan(1.0, correction=2, sd_df=n - 1).smallest_difference(n)  # in units of the estimate
        estimates = np.sqrt(rng().chisquare(n - 1, 2000) / (n - 1))
        assert np.mean([known.power(sd * planned, n) for sd in estimates]) == pytest.approx(0.8, abs=0.02)
        assert Plan(1.0, sd_df=n - 1).smallest_difference(n) > Plan(1.0).smallest_difference(n)

    def test_is_the_plain_plan_where_the_spread_is_known(self) -> None:
        known, nearly = Plan(2.0), Plan(2.0, sd_df=1e6)
        assert nearly.smallest_difference(5) == pytest.approx(known.smallest_difference(5), rel=1e-3)
        assert nearly.equivalence_power(3.0, 8, 0.5) == pytest.approx(known.equivalence_power(3.0, 8, 0.5), rel=1e-3)
        assert known.smallest_difference_range(5) == (known.smallest_difference(5),) * 2

    def test_the_range_is_that_of_the_spreads_own_interval(self) -> None:
        low, high = Plan(1.0, sd_df=2).smallest_difference_range(3)
        ends = [math.sqrt(2 / chi2.ppf(q, 2)) * Plan(1.0).smallest_difference(3) for q in (0.95, 0.05)]
        assert (low, high) == pytest.approx(ends, rel=1e-4)
        assert low < Plan(1.0, sd_df=2).smallest_difference(3) < high


class TestNotWorse:
    def test_power_is_that_of_the_one_sided_t_test(self) -> None:
        expected = 1 - nct.cdf(student_t.ppf(0.95, 7), 7, 1.5 * math.sqrt(8))
        assert Plan(1.0, one_sided_share=1.0).not_worse_power(1.0, 8, 0.5) == pytest.approx(expected, rel=1e-6)

    def test_is_higher_than_that_of_equivalence_and_higher_for_a_better_arm(self) -> None:
        plan = Plan(1.0, correction=3)
        equal, better = plan.not_worse_power(1.0, 8), plan.not_worse_power(1.0, 8, 0.5)
        assert plan.equivalence_power(1.0, 8) < equal < better
        assert plan.not_worse_power(1.0, 1000, -1.0) <= 0.05

    def test_what_settles_a_question_is_what_was_asked(self) -> None:
        plan = Plan(1.0, correction=3)
        assert plan.power_to_settle("not_worse", 1.0, 8, 0.5) == plan.not_worse_power(1.0, 8, 0.5)
        assert plan.power_to_settle("equivalent", 1.0, 8, -0.5) == plan.equivalence_power(1.0, 8, 0.5)
        assert plan.power_to_settle("better", None, 8, 0.5) == plan.power(0.5, 8)
        assert plan.power_to_settle("better", 3.0, 8) == plan.equivalence_power(3.0, 8) > plan.power(0.0, 8)
        assert plan.power_to_settle("better", 3.0, 1) == 0.0


class TestChanceToBeat:
    @pytest.mark.parametrize("n", [1, 3, 5, 20])
    @pytest.mark.parametrize(
        ("win", "tie"), [(0.5, 0.0), (0.1, 0.8), (0.37, 0.26), (0.95, 0.05), (0.0, 1.0), (0.2, 0.0)]
    )
    def test_each_interval_covers_whatever_the_noise(self, n: int, win: float, tie: float) -> None:
        truth = np.array([win, tie, 1 - win - tie])
        covered = np.zeros(3)
        for counts in rng().multinomial(n, truth, 400):
            c = chance_to_beat(np.repeat([2.0, 0.0, -1.0], counts))
            covered += [s.ci_low <= p <= s.ci_high for s, p in zip((c.win, c.tie, c.loss), truth, strict=True)]
        assert covered.min() / 400 >= 0.94

    def test_covers_at_all_looks_of_a_design_together(self) -> None:
        design, missed = Design(), 0
        for d in rng().normal(0.3, 1, (400, 20)):
            found = [chance_to_beat(d[:n], level=design.coverage(i)) for i, n in enumerate(design.looks)]
            missed += any(not c.ci_low <= ndtr(0.3) <= c.ci_high for c in found)
        assert missed / 400 <= 0.05

    def test_intervals_are_scipys_exact_ones(self) -> None:
        c = chance_to_beat([1.0, 2.0, 4.0, -1.0, 0.0])
        for found, k in ((c.win, 3), (c.tie, 1), (c.loss, 1)):
            expected = binomtest(k, 5).proportion_ci(0.95, method="exact")
            assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))
            assert (found.count, found.n, found.share) == (k, 5, k / 5)

    def test_turns_with_the_metric_and_takes_differences_equal_up_to_rounding_for_ties(self) -> None:
        d = [0.1 + 0.2 - 0.3, 1.0, 2.0, -1.0]
        up, down = chance_to_beat(d), chance_to_beat(d, higher_is_better=False)
        assert (up.win, up.tie, up.loss) == (down.loss, down.tie, down.win)
        assert (up.n_wins, up.n_ties, up.n, up.probability) == (2, 1, 4, 0.5)
