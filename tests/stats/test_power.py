"""Plans against scipy's noncentral t, statsmodels, and simulation."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import nct

from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.power import MOST_SEEDS, Plan, chance_to_beat


def rng() -> np.random.Generator:
    return np.random.default_rng(20)


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

    def test_seeds_are_the_fewest_that_suffice(self) -> None:
        plan = Plan(1.0, correction=5)
        n = plan.seeds_for_difference(1.0)
        assert n is not None
        assert plan.power(1.0, n) >= 0.8 > plan.power(1.0, n - 1)
        n = plan.seeds_for_equivalence(1.0, difference=0.3)
        assert n is not None
        assert plan.equivalence_power(1.0, n, 0.3) >= 0.8 > plan.equivalence_power(1.0, n - 1, 0.3)

    def test_says_none_where_no_number_of_seeds_would_do(self) -> None:
        assert Plan(1.0).seeds_for_difference(0.0) is None
        assert Plan(1.0).seeds_for_difference(1e-9) is None
        assert Plan(1.0).seeds_for_equivalence(1.0, difference=1.0) is None
        assert MOST_SEEDS >= 1000

    def test_power_holds_in_simulated_tables(self) -> None:
        plan = Plan(1.0, correction=4)
        d = rng().normal(plan.smallest_difference(5), 1, (4000, 4, 5))
        found = compare_arms(d, variance="plain").p <= 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.02)
        equivalent = (
            compare_arms(rng().normal(0.1, 1, (4000, 4, 12)), margin=1.5, variance="plain").p_equivalence <= 0.05
        )
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
        ],
    )
    def test_names_what_is_out_of_range(self, bad: dict[str, float], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Plan(**bad)


class TestChanceToBeat:
    @pytest.mark.parametrize(("delta", "n"), [(0.0, 3), (0.5, 5), (2.0, 10)])
    def test_interval_covers(self, delta: float, n: int) -> None:
        chances = [chance_to_beat(d) for d in rng().normal(delta, 1, (600, n))]
        covered = np.mean([c.ci_low <= ndtr(delta) <= c.ci_high for c in chances])
        assert covered == pytest.approx(0.95, abs=0.03)

    def test_interval_holds_the_shifts_at_which_t_is_in_neither_tail(self) -> None:
        c = chance_to_beat([1.0, 2.0, 4.0, -1.0])
        d = np.array([1.0, 2.0, 4.0, -1.0])
        t = d.mean() / d.std(ddof=1) * 2
        from_low = nct.cdf(t, 3, 2 * ndtri(c.ci_low))
        assert from_low == pytest.approx(0.975, abs=1e-5)
        assert (c.n_wins, c.n_ties, c.n) == (3, 0, 4)

    def test_counts_ties_and_turns_with_the_metric(self) -> None:
        d = [0.0, 1.0, 2.0, -1.0]
        up, down = chance_to_beat(d), chance_to_beat(d, higher_is_better=False)
        assert (up.n_wins, up.n_ties, down.n_wins) == (2, 1, 1)
        assert down.probability == pytest.approx(1 - up.probability)
        assert (down.ci_low, down.ci_high) == (pytest.approx(1 - up.ci_high), pytest.approx(1 - up.ci_low))

    @pytest.mark.parametrize("d", [[1.0], [0.5, 0.5, 0.5]])
    def test_of_one_seed_or_ties_has_a_count_and_no_probability(self, d: list[float]) -> None:
        c = chance_to_beat(d)
        assert (c.n_wins, math.isnan(c.probability), math.isnan(c.ci_low)) == (len(d), True, True)

    def test_of_a_difference_far_beyond_the_noise_stays_between_0_and_1(self) -> None:
        c = chance_to_beat([1.0, 1.0001, 1.0002])
        assert 0.99 < c.ci_low <= c.probability <= c.ci_high <= 1
