"""Moderated variances against an obvious loop, Student's t, and tables whose noise is known."""

import math

import numpy as np
import pytest
from draws import rng
from scipy import stats as scipy_stats
from scipy.special import digamma, polygamma

from reg_sweep.stats.moderation import (
    LEAST_SQUARED_CORRELATION,
    MAX_PRIOR_DF,
    inverse_trigamma,
    mean_variance,
    noise,
    prior_df,
    squared_correlation,
    unpaired_noise,
)

nan = math.nan


def mean_correlation(values: np.ndarray) -> float:
    """Of all pairs of rows, pair by pair; a seed that one row lacks adds nothing."""
    found = []
    for i, a in enumerate(values):
        for b in values[:i]:
            za, zb = (np.nan_to_num(x - np.nanmean(x)) for x in (a, b))
            found.append((za * zb).sum() / math.sqrt((za**2).sum() * (zb**2).sum()))
    return float(np.mean(found))


def moderated_one_by_one(
    differences: np.ndarray, d0: float, squared: float | None = None
) -> tuple[list[float], list[float]]:
    """Variances and degrees of freedom of one table, as the formulas stand: a double sum for every arm."""
    rows = [row[~np.isnan(row)] for row in differences]
    s2, nu = [row.var(ddof=1) for row in rows], [row.size - 1 for row in rows]
    pooled = sum(n * v for n, v in zip(nu, s2, strict=True)) / sum(nu)
    if squared is None:
        squared = max(mean_correlation(differences) ** 2, LEAST_SQUARED_CORRELATION)
    variances, dfs = [], []
    for i in range(len(rows)):
        w = d0 / (d0 + nu[i])
        a = [w * n / sum(nu) + (1 - w) * (j == i) for j, n in enumerate(nu)]
        spread = 0.0
        for j in range(len(rows)):
            for k in range(len(rows)):
                r = 1.0 if j == k else squared
                spread += r * a[j] * a[k] * s2[j] * s2[k] / math.sqrt(nu[j] * nu[k])
        variances.append(w * pooled + (1 - w) * s2[i])
        dfs.append(min(variances[-1] ** 2 / spread, d0 + nu[i]))
    return variances, dfs


class TestNoise:
    @pytest.mark.parametrize("missing", [False, True])
    def test_agrees_with_the_formulas_one_by_one(self, missing: bool) -> None:
        d = rng().normal(size=(5, 4)) * np.array([[1], [1], [2], [1], [3]])
        if missing:
            d[1, 3] = d[2, 1] = d[2, 2] = nan
        x = noise(d)
        variances, dfs = moderated_one_by_one(d, float(x.prior_df))
        assert x.variance == pytest.approx(variances)
        assert x.df == pytest.approx(dfs)
        assert x.mean == pytest.approx(np.nanmean(d, axis=1))
        assert x.n.tolist() == (~np.isnan(d)).sum(axis=1).tolist()

    def test_of_many_tables_is_that_of_each(self) -> None:
        d = rng().normal(size=(3, 4, 5))
        d[1, 2, 3] = nan
        together = noise(d)
        for i in range(3):
            assert together.variance[i] == pytest.approx(noise(d[i]).variance)
            assert together.df[i] == pytest.approx(noise(d[i]).df)

    def test_of_one_arm_is_students_whatever_the_method(self) -> None:
        d = rng().normal(size=(1, 6))
        moderated, plain = noise(d), noise(d, "plain")
        assert moderated.variance == pytest.approx(d.var(axis=1, ddof=1))
        assert (moderated.df[0], plain.df[0]) == (pytest.approx(5), 5)
        assert moderated.standard_error == pytest.approx(plain.standard_error)

    def test_does_not_change_with_the_order_of_arms_or_seeds_nor_with_the_unit(self) -> None:
        d = rng().normal(size=(4, 5))
        turned = noise(d[::-1, ::-1] * 100)
        assert turned.variance[::-1] / 1e4 == pytest.approx(noise(d).variance)
        assert turned.df[::-1] == pytest.approx(noise(d).df)

    def test_gives_an_arm_more_degrees_of_freedom_than_its_own_when_arms_are_equally_noisy(self) -> None:
        g = rng()
        d = g.normal(size=(500, 5, 3)) + g.normal(size=(500, 1, 3))
        assert np.median(noise(d).df) > 3  # its own are 2

    @pytest.mark.parametrize("n_seeds", [3, 8])
    def test_gives_arms_that_copy_one_another_their_own_degrees_of_freedom_and_no_more(self, n_seeds: int) -> None:
        g = rng()
        d = g.normal(size=(500, 1, n_seeds)) + 0.01 * g.normal(size=(500, 5, n_seeds))
        assert np.median(noise(d).df) == pytest.approx(n_seeds - 1, rel=0.01)

    def test_uses_the_arms_own_variances_where_no_arm_has_more_than_two_seeds(self) -> None:
        d = rng().normal(size=(200, 5, 2))
        moderated, plain = noise(d), noise(d, "plain")
        assert (moderated.variance == plain.variance).all()
        assert (moderated.df == plain.df).all()

    def test_gives_little_where_one_arm_makes_all_the_noise(self) -> None:
        d = rng().normal(size=(4, 3)) * np.array([[100], [1], [1], [1]])
        assert noise(d).df[0] == pytest.approx(2, abs=0.3)

    def test_of_equal_differences_or_one_seed_is_unknown_and_leaves_the_others_alone(self) -> None:
        d = rng().normal(size=(4, 3))
        with_ties = np.vstack([d, [0.1 + 0.2, 0.3, 0.3], [0.0, 0.0, 0.0], [1.0, nan, nan]])
        x = noise(with_ties)
        assert np.isnan(x.variance[4:]).all()
        assert np.isnan(x.df[4:]).all()
        assert x.variance[:4] == pytest.approx(noise(d).variance)
        assert np.isnan(noise(np.array([[99.1 - 98.7, 98.3 - 97.9, 97.5 - 97.1]])).variance).all()  # equal percentages
        assert np.isnan(noise(np.ones((1, 4)), earlier_variance=0.25).variance[0])

    @pytest.mark.parametrize(
        ("function", "arguments", "message"),
        [
            *((noise, (bad,), "differences must") for bad in ([1.0, 2.0], np.zeros((2, 0)), [[1.0, math.inf]])),
            (noise, (np.ones((2, 2)), "limma"), "variance must be moderated or plain, got 'limma'"),
            (unpaired_noise, (np.ones((1, 3)),), "scores must have a row for the baseline and one for each arm"),
        ],
    )
    def test_refuses_what_is_no_table_and_names_an_unknown_method(self, function, arguments, message) -> None:
        with pytest.raises(ValueError, match=message):
            function(*arguments)


class TestSquaredCorrelation:
    @pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
    def test_is_that_of_the_arms(self, rho: float) -> None:
        g = rng()
        x = math.sqrt(rho) * g.normal(size=(1, 2000)) + math.sqrt(1 - rho) * g.normal(size=(6, 2000))
        assert squared_correlation(x - x.mean(axis=1, keepdims=True), [2000] * 6) == pytest.approx(rho**2, abs=0.03)

    def test_of_one_pair_is_not_squared_and_of_one_arm_is_none(self) -> None:
        z = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
        assert squared_correlation(z, [3, 3]) == pytest.approx(0.5)
        assert squared_correlation(z[:1], [3]) == 0


class TestUnpairedNoise:
    def test_plain_is_welchs_with_nine_tenths_of_its_degrees_of_freedom(self) -> None:
        x = rng().normal(size=(2, 6)) * np.array([[1], [3]])
        x[1, 4:] = nan
        found = unpaired_noise(x, "plain")
        expected = scipy_stats.ttest_ind(x[1, :4], x[0], equal_var=False)
        assert found.df == pytest.approx([max(0.9 * expected.df, 3)])
        assert found.mean / found.standard_error == pytest.approx([expected.statistic])

    def test_moderated_puts_the_arms_variances_into_welchs_formulas(self) -> None:
        x = rng().normal(size=(4, 5)) * np.array([[1], [1], [2], [1]])
        x[1, 3:] = nan
        found = unpaired_noise(x)
        squared = mean_correlation(x[1:]) ** 2
        variances, dfs = moderated_one_by_one(x[1:], float(found.prior_df), squared)
        base = x[0].var(ddof=1) / 5
        for i, n in enumerate((3, 5, 5)):
            ours = variances[i] / n
            assert found.standard_error[i] ** 2 == pytest.approx(ours + base)
            welch = (ours + base) ** 2 / (ours**2 / dfs[i] + base**2 / 4)
            assert found.df[i] == pytest.approx(max(0.9 * welch, min(dfs[i], 4)))

    def test_keeps_the_baselines_own_noise(self) -> None:
        g = rng()
        x = g.normal(size=(300, 11, 5)) * np.r_[10, np.ones(10)][:, None]
        assert np.sqrt(x[:, 0].var(axis=-1, ddof=1) / 5) == pytest.approx(
            unpaired_noise(x).standard_error[:, 0], rel=0.5
        )

    def test_of_runs_that_tie_or_lack_is_unknown(self) -> None:
        x = np.vstack([rng().normal(size=4), np.ones(4), [1.0, nan, nan, nan], rng().normal(size=4)])
        assert np.isnan(unpaired_noise(x).standard_error).tolist() == [True, True, False]
        assert np.isnan(unpaired_noise(x[[1, 0]]).df).all()


class TestEarlierVariance:
    def test_counts_as_two_degrees_of_freedom_of_each_arm(self) -> None:
        d = rng().normal(size=(3, 5))
        before, after = noise(d), noise(d, earlier_variance=0.25)
        assert after.df == pytest.approx(before.df + 2)
        assert after.variance * after.df == pytest.approx(before.variance * before.df + 2 * 0.25)

    def test_is_the_mean_variance_of_the_earlier_studys_arms(self) -> None:
        d = np.array([[1.0, 2.0, 3.0, nan], [0.0, 4.0, nan, nan], [1.0, 1.0, 1.0, 1.0]])
        assert mean_variance(d) == pytest.approx((2 * 1.0 + 1 * 8.0) / 3)
        assert math.isnan(mean_variance([[1.0, nan]]))


class TestPriorDf:
    def test_is_what_the_spread_of_log_variances_says(self) -> None:
        g, d0, nu = rng(), 4.0, 10
        s2 = d0 / g.chisquare(d0, 4000) * g.chisquare(nu, 4000) / nu  # Smyth's model
        assert prior_df(s2, np.full(4000, nu)) == pytest.approx(d0, rel=0.15)

    def test_agrees_with_the_moments_of_smyth(self) -> None:
        s2, nu = np.array([1.0, 4.0, 0.2, 9.0]), np.array([3.0, 3.0, 4.0, 4.0])
        e = np.log(s2) - digamma(nu / 2) + np.log(nu / 2)
        excess = e.var(ddof=1) - polygamma(1, nu / 2).mean()
        assert prior_df(s2, nu) == pytest.approx(min(2 * float(inverse_trigamma(excess)), MAX_PRIOR_DF))

    def test_is_capped_where_arms_look_equally_noisy_and_0_for_one_arm(self) -> None:
        assert prior_df([1.0, 1.0, 1.0], [2.0] * 3) == MAX_PRIOR_DF
        assert prior_df([1.0, nan], [2.0, nan]) == 0

    @pytest.mark.parametrize("x", [0.01, 0.5, 1.0, 4.0, 1000.0])
    def test_inverse_trigamma_inverts(self, x: float) -> None:
        assert inverse_trigamma(polygamma(1, x)) == pytest.approx(x, rel=1e-8)
