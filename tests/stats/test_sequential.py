"""Sequential designs, and the levels of looks whose overlap is used: against simulation, and at their limits."""

import math

import numpy as np
import pytest
from draws import rng
from scipy.special import stdtr

from reg_sweep.stats.family import claims, compare_arms
from reg_sweep.stats.sequential import LOOKS, Design, Spending, levels, spent


def tables(n_tables: int, n_arms: int, n_seeds: int) -> np.ndarray:
    x = rng().normal(size=(n_tables, n_arms, n_seeds))
    return x[:, 1:] - x[:, :1]


class TestDesign:
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"looks": (3, 3, 5)}, r"looks must ascend, got \[3, 3, 5\]"),
            ({"looks": (5, 3)}, r"looks must ascend, got \[5, 3\]"),
            ({"looks": ()}, r"looks must ascend, got \[\]"),
            ({"looks": (1, 3)}, "looks must be whole numbers of at least 2 seeds, got 1"),
            ({"looks": (2.5, 3)}, "looks must be whole numbers of at least 2 seeds, got 2.5"),
            ({"margin": 0.0}, "margin must be a finite number above 0, got 0.0"),
            ({"alpha": 0.0}, "alpha must be above 0 and below 0.5, got 0.0"),
            ({"variance": "limma"}, "variance must be moderated or plain, got 'limma'"),
            ({"pairing": "maybe"}, "pairing must be seeds or none, got maybe"),
            ({"question": "maybe"}, "question must be better, equivalent or not_worse, got maybe"),
            ({"earlier_variance": 0.0}, "earlier_variance must be a finite number above 0, got 0.0"),
            ({"earlier_variance": 1.0, "pairing": "none"}, "earlier_variance must be left out with pairing none"),
            ({"spending": "some"}, "spending must be open or all, got some"),
            ({"spending": "all", "earlier_variance": 1.0}, "earlier_variance must be left out with spending all"),
            ({"question": "equivalent"}, "margin must be a number where the question is equivalent, got None"),
        ],
    )
    def test_names_what_is_wrong(self, bad: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Design(**bad)
        with pytest.raises(ValueError, match=r"max_seeds must be at least the first look \(3\), got 2"):
            Design().until(2)

    @pytest.mark.parametrize("spending", ["open", "all"])
    @pytest.mark.parametrize("look", [-1, 2])
    def test_has_no_looks_but_its_own(self, spending: Spending, look: int) -> None:
        design, scores = Design((3, 5), spending=spending), np.zeros((2, 5))
        for ask in (design.level, design.coverage, lambda at: design.correction(at, 1)):
            with pytest.raises(ValueError, match=f"look must be a position from 0 to 1, got {look}"):
                ask(look)
        for judge in (design.judge, design.judge_scores, lambda x, at: design.look_at(x, at, {})):
            with pytest.raises(ValueError, match=f"look must be a position from 0 to 1, got {look}"):
                judge(scores, look)

    def test_is_a_value(self) -> None:
        assert Design(looks=[3, 5]) == Design(looks=(3, 5))
        assert hash(Design()) == hash(Design())

    @pytest.mark.parametrize("looks", [LOOKS, tuple(range(2, 200)), (2, 1000)])
    def test_spends_less_than_alpha_however_often_it_looks(self, looks: tuple[int, ...]) -> None:
        design = Design(looks)
        levels = [design.level(i) for i in range(len(looks))]
        assert min(levels) > 0
        assert sum(levels) == pytest.approx(0.05 * spent(looks[-1]))
        assert sum(levels) < 0.05

    @pytest.mark.parametrize(
        ("max_seeds", "looks"),
        [(20, LOOKS), (40, (*LOOKS, 40)), (30, (*LOOKS, 30)), (100, (*LOOKS, 40, 80, 100)), (6, (3, 5, 6)), (3, (3,))],
    )
    def test_is_cut_or_continued(self, max_seeds: int, looks: tuple[int, ...]) -> None:
        assert Design().until(max_seeds).looks == looks

    def test_keeps_its_levels_and_decisions_when_it_is_continued(self) -> None:
        short, long = Design(margin=1.0), Design(margin=1.0).until(40)
        assert [short.level(i) for i in range(5)] == [long.level(i) for i in range(5)]
        d = tables(200, 4, 40)
        before, after = short.replay(d)[0], long.replay(d)[0]
        decided = before != "undecided"
        assert (before[decided] == after[decided]).all()
        assert (after != "undecided").sum() > decided.sum()

    def test_judges_at_its_level_and_shows_p_against_alpha(self) -> None:
        d = rng().normal(1, 1, (3, 8))
        design = Design(margin=2.0)
        family = design.judge(d, 2)
        at_level = compare_arms(d, design.level(2), 2.0)
        assert family.interval[0] == pytest.approx(at_level.interval[0])
        assert (claims(family) == claims(at_level)).all()
        assert ((family.p <= 0.05) == (at_level.p <= design.level(2))).all()

    def test_looks_at_no_seed_beyond_the_look(self) -> None:
        d = tables(1, 5, 20)[0]
        later = d.copy()
        later[:, 5:] = rng().normal(9, 1, later[:, 5:].shape)
        assert (Design(margin=1.0).decide(d, 1) == Design(margin=1.0).decide(later, 1)).all()

    def test_decides_arms_that_are_far_apart_soon_and_keeps_its_word(self) -> None:
        d = np.random.default_rng(1).normal(0, 0.1, (3, 20)) + np.array([[3.0], [-3.0], [0.0]])
        state, n_seeds = Design(margin=1.0).replay(d)
        assert state.tolist() == ["better", "worse", "shown equivalent"]
        assert n_seeds.max() <= 5
        d[:, 8:] *= -1
        assert (Design(margin=1.0).replay(d)[0] == state).all()

    def test_stays_undecided_with_ties_or_one_seed(self) -> None:
        d = np.vstack([np.zeros(20), np.full(20, 2.0), np.r_[1.0, np.full(19, math.nan)]])
        assert Design(margin=1.0).replay(d)[0].tolist() == ["undecided"] * 3

    @pytest.mark.parametrize("looks", [LOOKS, tuple(range(2, 21))])
    @pytest.mark.parametrize("n_arms", [2, 6])
    def test_claims_nothing_false_in_nineteen_tables_of_twenty(self, looks: tuple[int, ...], n_arms: int) -> None:
        margin = 2 * math.sqrt(2)
        is_at_margin = np.arange(n_arms - 1) % 2 == 1
        state, _ = Design(looks, margin=margin).replay(tables(1500, n_arms, 20) + margin * is_at_margin[:, None])
        equivalent = (state == "shown equivalent") | (state == "real but smaller than the margin")
        differs = (state == "better") | (state == "worse") | (state == "real but smaller than the margin")
        false = np.where(is_at_margin, equivalent | (state == "worse"), differs)
        assert false.any(axis=1).mean() <= 0.05

    @pytest.mark.parametrize("share", [0, 0.5, 1, 2])
    def test_needs_three_fifths_of_twenty_seeds(self, share: float) -> None:
        margin = 2.0  # standard deviations of a paired difference
        d = tables(400, 6, 20) / math.sqrt(2) + share * margin
        state, n_seeds = Design(margin=margin).replay(d)
        fixed = claims(compare_arms(d, margin=margin)) != "no difference shown"
        assert (state != "undecided").mean() >= fixed.mean() - 0.01
        assert n_seeds.mean() <= 0.6 * 20

    def test_shows_not_worse_with_fewer_seeds_than_what_else_can_be_asked(self) -> None:
        d = tables(300, 3, 20) / math.sqrt(2)
        seeds = {q: Design(margin=1.4, question=q).replay(d)[1].mean() for q in ("better", "equivalent", "not_worse")}
        assert seeds["not_worse"] < 0.9 * min(seeds["better"], seeds["equivalent"])

    def test_without_pairing_replays_scores(self) -> None:
        x = rng().normal(size=(200, 4, 20)) + np.array([0, 0, 3, 30])[:, None]
        design = Design(pairing="none", margin=2.0)
        state, n_seeds = design.replay(x)
        assert (state[:, 2] == "better").all()
        assert n_seeds[:, 2].max() <= 5
        verdicts = design.look_at(x[0], 1, {})[1]
        assert verdicts == [s if n <= 5 else "undecided" for s, n in zip(state[0], n_seeds[0], strict=True)]


INF, NAN = math.inf, math.nan


class TestLookAt:
    """Twenty seeds, one look at 5%'s share for one arm; the means alone would decide."""

    @staticmethod
    def word(arm: dict[int, float], baseline: dict[int, float], **design: object) -> str:
        x = rng().normal(0, 0.1, (2, 20)) + np.array([[0.0], [1.0]])
        for row, found in ((1, arm), (0, baseline)):
            for seed, value in found.items():
                x[row, seed] = value
        return str(Design((20,), margin=3.0, **design).look_at(x, 0, {})[1][0])

    @pytest.mark.parametrize(
        ("arm", "baseline", "expected"),
        [
            ({}, {}, "real but smaller than the margin"),
            (dict.fromkeys(range(8), INF), {}, "worse by divergence"),
            ({}, dict.fromkeys(range(8), INF), "better by fewer divergences"),
            ({0: INF}, {}, "undecided"),
            ({}, {0: INF}, "undecided"),
            ({0: NAN}, {}, "undecided"),
            ({}, {0: NAN}, "undecided"),
            (dict.fromkeys(range(8), INF), dict.fromkeys(range(8), INF), "undecided"),
            (dict.fromkeys(range(8), INF), dict.fromkeys(range(4, 12), INF), "undecided"),
            # Failed seeds never help the side that is called better.
            (dict.fromkeys(range(8), INF), dict.fromkeys(range(8, 14), NAN), "undecided"),
            (dict.fromkeys(range(8, 14), NAN), dict.fromkeys(range(8), INF), "undecided"),
            ({**dict.fromkeys(range(12), INF), 12: NAN}, {}, "worse by divergence"),
        ],
    )
    def test_counts_lost_seeds_on_both_sides(self, arm: dict, baseline: dict, expected: str) -> None:
        assert self.word(arm, baseline) == expected

    @pytest.mark.parametrize("question", ["equivalent", "not_worse"])
    def test_shows_no_equivalence_where_seeds_diverged(self, question: str) -> None:
        assert self.word({}, {}, question=question).startswith("shown")
        assert self.word({0: INF}, {0: INF}, question=question) == "undecided"

    def test_without_pairing_compares_the_counts(self) -> None:
        lost = dict.fromkeys(range(10), INF)
        assert self.word(lost, {}, pairing="none") == "worse by divergence"
        assert self.word({}, lost, pairing="none") == "better by fewer divergences"
        assert self.word({0: INF}, {1: INF}, pairing="none") == "undecided"

    def test_never_looks_at_seeds_beyond_it(self) -> None:
        x = rng().normal(0, 0.1, (2, 20)) + np.array([[0.0], [1.0]])
        x[1, 12:] = INF
        assert Design(margin=3.0).look_at(x, 2, {})[1][0] == "real but smaller than the margin"

    @pytest.mark.parametrize("lost", [INF, NAN])
    @pytest.mark.parametrize("loser", [0, 1])
    def test_an_equal_arm_that_loses_its_worst_seeds_is_not_called_better(self, loser: int, lost: float) -> None:
        """Whoever loses a seed whenever its score is among the lowest fifth: survivors look better than they are."""
        design, false = Design(), 0
        for x in rng().normal(size=(100, 2, 20)):
            x[loser][x[loser] < -0.84] = lost
            decided: dict[int, int] = {}
            for look in range(len(design.looks)):
                word = design.look_at(x, look, decided)[1][0]
                if word in ("better", "worse"):
                    false += 1
                if word != "undecided":
                    break
        assert false / 100 <= 0.05

    @pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
    def test_an_earlier_variance_that_is_right_halved_or_doubled_claims_no_more_than_5_percent(self, factor) -> None:
        """Halved and doubled is the standard deviation."""
        d = rng().normal(size=(4000, 2, 20))
        state, _ = Design(earlier_variance=factor).replay(d)
        assert (state != "undecided").any(axis=1).mean() <= 0.05

    def test_an_earlier_variance_decides_a_gain_on_fewer_seeds(self) -> None:
        d = rng().normal(2.0, 1.0, size=(2000, 1, 20))
        with_it, without = (Design(earlier_variance=v).replay(d)[1].mean() for v in (1.0, None))
        assert with_it < without - 0.5


def errors(looks: tuple[int, ...], alpha: float = 0.05) -> tuple[float, ...]:
    return tuple(alpha * np.diff([0, *((n / looks[-1]) ** 2 for n in looks)]))


def first_claims(looks: tuple[int, ...], at: tuple[float, ...], n_tables: int = 100_000) -> np.ndarray:
    """The share of equal arms that the paired t test at these levels first calls different at each look."""
    x = np.random.default_rng(20).normal(size=(n_tables, looks[-1]))
    is_open, found = np.ones(n_tables, bool), []
    for n, level in zip(looks, at, strict=True):
        d = x[is_open, :n]
        t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / n**0.5)
        hit = 2 * stdtr(n - 1, -np.abs(t)) <= level
        found.append(hit.sum() / n_tables)
        is_open[is_open] = ~hit
    return np.array(found)


@pytest.mark.parametrize("looks", [LOOKS, (2, 3, 4, 5, 6, 8, 10), (2, 20)])
def test_each_look_makes_its_share_of_first_claims(looks: tuple[int, ...]) -> None:
    planned = np.array(errors(looks, 0.2))
    found = first_claims(looks, levels(looks, tuple(planned)))
    assert np.abs(found - planned).max() < 4 * np.sqrt(planned.max() / 100_000)
    assert found.sum() == pytest.approx(0.2, abs=0.005)


def test_a_look_may_use_more_than_it_adds_and_less_than_all_so_far() -> None:
    for looks in (LOOKS, tuple(range(2, 21))):
        for alpha in (0.05, 0.05 / 30, 1e-6):
            planned = errors(looks, alpha)
            found = levels(looks, planned)
            assert found[0] == pytest.approx(planned[0], rel=0.01)
            assert all(a >= e for a, e in zip(found, planned, strict=True))
            assert all(a <= total + 1e-15 for a, total in zip(found, np.cumsum(planned), strict=True))


def test_looks_far_apart_hardly_overlap_and_close_ones_do() -> None:
    apart, near = (levels(looks, (0.01, 0.01))[1] for looks in ((3, 100), (40, 41)))
    assert apart == pytest.approx(0.01, rel=0.05)
    assert near > 0.0175


class TestDesignThatSpendsAll:
    def test_spends_all_of_its_error_by_its_last_look(self) -> None:
        design = Design(spending="all")
        assert sum(design.level(i) for i in range(5)) == pytest.approx(0.05)
        assert design.level(0) == pytest.approx(0.05 * (3 / 20) ** 2)

    @pytest.mark.parametrize("pairing", ["seeds", "none"])
    def test_errs_in_five_per_cent_and_sees_more(self, pairing: str) -> None:
        x = np.random.default_rng(20).normal(size=(8000, 2, 20))
        values = x if pairing == "none" else x[:, 1:] - x[:, :1]
        one_better = x + np.array([0, 1.0])[:, None]
        better = one_better if pairing == "none" else one_better[:, 1:] - one_better[:, :1]
        open_, all_ = (Design(spending=s, pairing=pairing) for s in ("open", "all"))
        claims = [(d.replay(values)[0] != "undecided").mean() for d in (open_, all_)]
        power = [(d.replay(better)[0] == "better").mean() for d in (open_, all_)]
        assert claims[0] < claims[1] <= 0.05 + 2 * (0.05 * 0.95 / 8000) ** 0.5
        assert power[1] > power[0] + 0.1

    def test_interval_and_claim_agree(self) -> None:
        d = np.random.default_rng(20).normal(1.0, 1.0, size=(2000, 3, 20))
        for look in range(5):
            family = Design(spending="all").judge(d, look)
            low, high = family.interval
            assert ((family.p <= 0.05) == ((low > 0) | (high < 0))).all()
