"""Claims of a table: against scipy, its p against its interval, and its false claims where the truth is known."""

import math

import numpy as np
import pytest
from draws import rng
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from reg_sweep.stats.family import ONE_SIDED_SHARE, claims, compare_arms, compare_scores, intersection_union

TABLES = arrays(np.float64, (3, 4), elements=st.integers(-300, 300).map(lambda n: n / 100))


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
        expected = ttost_paired(a, b, -1.5, 1.5)[0] / ONE_SIDED_SHARE
        assert compare_arms([a - b], margin=1.5, variance="plain").p_equivalence[0] == pytest.approx(expected)

    @pytest.mark.parametrize("pairing", ["seeds", "none"])
    @pytest.mark.parametrize("n_seeds", [3, 8])
    def test_one_skewed_arm_alone_is_not_falsely_shown_equivalent_or_not_worse(
        self, n_seeds: int, pairing: str
    ) -> None:
        x = rng().normal(size=(10_000, 2, n_seeds))
        x[:, 1] = 1 - rng().exponential(size=x[:, 1].shape)
        for worse in (30.0, -30.0):  # the truth is at the margin, on either side
            shifted = x + np.array([0, worse])[:, None]
            equal = compare_scores(shifted, margin=30.0, pairing=pairing)
            better = compare_scores(shifted, margin=30.0, question="not_worse", pairing=pairing)
            assert (equal.p_equivalence <= 0.05).mean() < 0.055
            assert worse > 0 or (better.p_not_worse() <= 0.05).mean() < 0.055

    @pytest.mark.parametrize("variance", ["moderated", "plain"])
    def test_interval_and_p_say_the_same(self, variance: str) -> None:
        @settings(max_examples=60)
        @given(TABLES)
        def check(d: np.ndarray) -> None:
            family = compare_arms(d, margin=1.0, variance=variance)
            low, high = family.interval
            within_low, within_high = family.equivalence_interval
            for up, sign in ((True, 1), (False, -1)):
                p, bound = family.p_not_worse(up), sign * family.not_worse_bound(up)
                clear = np.abs(p - 0.05) > 1e-9
                assert ((p <= 0.05) == (bound > -1))[clear].all()
                assert (np.isnan(p) | (p <= family.p_equivalence)).all()
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

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            *(({"margin": x}, "margin must be a finite number above 0, got") for x in (0, -1, math.inf, math.nan)),
            ({"alpha": 5}, r"alpha must be above 0 and below 0\.5, got 5"),
            ({"question": "maybe"}, "question must be better, equivalent or not_worse, got maybe"),
            ({"question": "not_worse"}, "margin must be a number where the question is not_worse, got None"),
            ({"pairing": "maybe"}, "pairing must be seeds or none, got maybe"),
        ],
    )
    def test_names_what_is_out_of_range(self, bad: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            compare_scores(np.ones((2, 3)), **bad)

    def test_of_scores_pairs_seeds_unless_it_is_told_not_to(self) -> None:
        g = rng()
        x = g.normal(size=(3, 6)) + g.normal(0, 5, (1, 6))
        paired, unpaired = compare_scores(x), compare_scores(x, pairing="none")
        assert paired.p == pytest.approx(compare_arms(x[1:] - x[0]).p)
        assert unpaired.noise.mean == pytest.approx(paired.noise.mean)
        assert (unpaired.noise.standard_error > 2 * paired.noise.standard_error).all()


class TestClaims:
    def test_tells_the_five_apart(self) -> None:
        wiggle = np.array([-0.1, 0.0, 0.1, 0.05, -0.05, 0.0])
        wide = 20 * wiggle
        d = np.array([3 + wiggle, -3 + wiggle, wide, wiggle, 0.5 + wiggle])
        expected = ["better", "worse", "no difference shown", "shown equivalent", "real but smaller than the margin"]
        assert claims(compare_arms(d, margin=1.0, variance="plain")).tolist() == expected
        assert claims(compare_arms(d, margin=1.0), higher_is_better=False)[:2].tolist() == ["worse", "better"]
        assert "shown equivalent" not in claims(compare_arms(d)).tolist()

    def test_answer_the_question_alone(self) -> None:
        wiggle = np.array([-0.1, 0.0, 0.1, 0.05, -0.05, 0.0])
        d = np.array([3 + wiggle, -3 + wiggle, 20 * wiggle, wiggle, 0.5 + wiggle])
        equivalent = claims(compare_arms(d, margin=1.0, variance="plain", question="equivalent"))
        assert equivalent.tolist() == ["undecided", "undecided", "undecided", "shown equivalent", "shown equivalent"]
        not_worse = compare_arms(d, margin=1.0, variance="plain", question="not_worse")
        shown = [[word == "shown not worse" for word in claims(not_worse, up)] for up in (True, False)]
        assert shown == [[True, False, False, True, True], [False, True, False, True, True]]

    @pytest.mark.parametrize("pairing", ["seeds", "none"])
    @pytest.mark.parametrize("up", [True, False])
    def test_call_an_arm_at_the_margin_not_worse_in_one_table_of_twenty(self, pairing: str, up: bool) -> None:
        x = rng().normal(size=(4000, 3, 5))
        x[:, 1:] += -10 if up else 10
        family = compare_scores(x, margin=10, question="not_worse", pairing=pairing)
        false = (claims(family, up) == "shown not worse").any(axis=1).mean()
        assert 0.02 < false <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 4000)

    @pytest.mark.parametrize("copies", [0.9, 0.99])
    @pytest.mark.parametrize(("n_arms", "n_seeds"), [(3, 3), (6, 2), (6, 3), (31, 3)])
    def test_hold_for_arms_that_copy_one_another(self, n_arms: int, n_seeds: int, copies: float) -> None:
        g = rng()
        own = g.normal(size=(2000, n_arms - 1, n_seeds))
        d = math.sqrt(copies) * g.normal(size=(2000, 1, n_seeds)) + math.sqrt(1 - copies) * own
        is_at_margin = np.arange(n_arms - 1) % 2 == 1
        family = compare_arms(d + 30 * is_at_margin[:, None], margin=30)
        false = np.where(is_at_margin, family.p_equivalence <= 0.05, family.p <= 0.05)
        assert false.any(axis=1).mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)

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

    def test_see_twice_as_many_large_differences_with_three_seeds_as_the_plain_test(self) -> None:
        d = tables(3000, 6, 3)
        d[:, 0] += 3 * math.sqrt(2)  # three standard deviations of a paired difference
        moderated, plain = ((compare_arms(d, variance=v).p[:, 0] <= 0.05).mean() for v in ("moderated", "plain"))
        assert plain == pytest.approx(0.24, abs=0.03)
        assert moderated == pytest.approx(0.55, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("n_parts", [1, 2, 9])
def test_a_false_claim_is_said_to_hold_and_a_true_one_not_to_at_most_as_often_as_alpha(n_seeds, n_parts):
    """The least favourable truth: of a false claim one part gains nothing, of a true one all gain just what they must.

    Arms share their rival's noise, and outcomes of one run go together.
    """
    rng = np.random.default_rng(n_seeds + 10 * n_parts)
    n_tables, alpha = 20_000, 0.05
    kinds = [f"outcome {i % 3}" for i in range(n_parts)]
    shared, own = (rng.standard_normal((n_tables, k, n_seeds)) for k in (1, n_parts))
    noise = (shared + own) / np.sqrt(2)
    large = np.full((n_parts, 1), 50.0)
    large[0] = 0.0
    false = intersection_union(noise + large, 0.0, 0.0, kinds, alpha).holds
    true = intersection_union(noise, -1e-9, 0.0, kinds, alpha).is_wrong
    slack = 3 * np.sqrt(alpha * (1 - alpha) / n_tables)
    assert false.mean() <= alpha + slack
    assert true.mean() <= alpha + slack
    if n_parts == 1:  # and no less often: it is exact
        assert false.mean() >= alpha - slack
