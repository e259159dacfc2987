"""The levels of looks whose overlap is used: against simulation, and at their limits."""

import numpy as np
import pytest
from scipy.special import stdtr

from reg_sweep.stats.boundaries import levels
from reg_sweep.stats.sequential import Design

LOOKS = (3, 5, 8, 12, 20)


def errors(looks: tuple[int, ...], alpha: float = 0.05) -> tuple[float, ...]:
    return tuple(alpha * np.diff([0, *((n / looks[-1]) ** 2 for n in looks)]))


def first_claims(looks: tuple[int, ...], at: tuple[float, ...], n_tables: int = 200_000) -> np.ndarray:
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
    assert np.abs(found - planned).max() < 4 * np.sqrt(planned.max() / 200_000)
    assert found.sum() == pytest.approx(0.2, abs=0.0035)


def test_a_look_may_use_more_than_it_adds_and_less_than_all_so_far() -> None:
    for looks in (LOOKS, tuple(range(2, 21))):
        for alpha in (0.05, 0.05 / 30, 1e-6):
            planned = errors(looks, alpha)
            found = levels(looks, planned)
            assert found[0] == pytest.approx(planned[0], rel=0.01)
            assert all(a >= e for a, e in zip(found, planned, strict=True))
            assert all(a <= total + 1e-15 for a, total in zip(found, np.cumsum(planned), strict=True))


def test_looks_far_apart_hardly_overlap_and_close_ones_do() -> None:
    apart, near = (levels(looks, (0.01, 0.01))[1] for looks in ((3, 300), (100, 101)))
    assert apart == pytest.approx(0.01, rel=0.05)
    assert near > 0.0175


class TestDesign:
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
