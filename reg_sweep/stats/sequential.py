"""Sequential designs: interim analyses ('looks') of the arms that share one error.

Testing at 5% after 3, 5, 8, 12 and 20 seeds errs far more often than 5%. Here each look has its own level, fixed before
the first run, and the error of any number of looks is at most alpha. `levels` is the level of each look of a design
that spends its whole error: exact for Student's t.

Looks overlap. An arm that is falsely called better after 12 seeds has often been called so after 8. Bonferroni counts
both; a look may use the larger level at which its *first* false claims have the probability that it may spend.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtr, stdtrit

from reg_sweep.stats.family import (
    Family,
    Question,
    check_level_and_margin,
    check_question,
    claims,
    compare_arms,
    compare_scores,
    one_sided_share,
)
from reg_sweep.stats.moderation import Floats, Pairing, Variance, check_pairing, check_variance
from reg_sweep.stats.scores import verdict_after_losses
from reg_sweep.stats.verdict import Verdict

LOOKS = (3, 5, 8, 12, 20)
# The number of seeds that spend half of the error: at three seeds the level is tiny, after twenty little is left.
HALF_SPENT_AT = 8
Spending = Literal["open", "all"]
FEWEST_LOOKS = 2  # before an arm may be stopped as futile
_STEP = 0.05
_EDGES: Floats = np.linspace(0, 140 * _STEP, 141)  # of the cells of |z|; beyond the last is p = 3e-12
_CENTRES: Floats = (_EDGES[1:] + _EDGES[:-1]) / 2


@dataclass(frozen=True)
class Design:
    """A sequential design: when to look and at which levels. Decisions depend on it and the scores only.

    The error spent by n seeds is alpha f(n) with f(n) = n^2 / (n^2 + 8^2): a spending function (Lan and DeMets 1983,
    Biometrika 70, 659-663) of the number of seeds, not of their share of a maximum. f reaches 1 only at infinity, so
    the levels of any further looks add up to less than alpha: a design of 20 seeds can be continued to 40 without
    planning it, and one that is cut short only saves error.

    A look's level is its increment of alpha f, and the error of all looks is at most their sum (Bonferroni).

    With spending='all' the design ends at its last look and spends its whole error by then: f(n) = (n / max_seeds)^2
    (Kim and DeMets 1987, Biometrika 74, 149-154, with rho = 2), and the overlap of the looks is used
    (`levels`). It shows more with the same seeds, but can't be continued.

    looks: the numbers of seeds at which arms are judged, ascending. alpha: the error of the table over all looks.
    margin: the largest difference that does not matter, in the metric's unit; None: equivalence is not tested.
    variance and pairing: how noise is estimated, see `moderation`. question: what a look asks of each arm, see
    `family.compare_arms`; 'equivalent' and 'not_worse' need a margin, and 'not_worse' takes the fewest seeds.
    spending: 'open' (it can be continued) or 'all' (it can't).

    metric, epoch and baseline name the comparison. The arithmetic does not need them, but the same runs judged by
    another metric are another question, so they belong to the design. None: not fixed beforehand.

    earlier_variance: the variance of a paired difference in an earlier study of the same data, model and recipe. It
    joins each arm's own estimate as two degrees of freedom (`moderation.noise`), so that the first looks decide more.

    Raises:
        ValueError: a field is out of its range, or a method gets a look that the design does not have.
    """

    looks: tuple[int, ...] = LOOKS
    alpha: float = 0.05
    margin: float | None = None
    variance: Variance = "moderated"
    question: Question = "better"
    pairing: Pairing = "seeds"
    metric: str | None = None
    epoch: str | None = None
    baseline: str | None = None
    earlier_variance: float | None = None
    spending: Spending = "open"

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", tuple(self.looks))
        for n in self.looks:
            if not isinstance(n, int) or isinstance(n, bool) or n < 2:
                raise ValueError(
                    f"looks must be whole numbers of at least 2 seeds, got {n!r}: one seed never decides about methods"
                )
        if not self.looks or any(b <= a for a, b in zip(self.looks, self.looks[1:], strict=False)):
            raise ValueError(f"looks must ascend, got {list(self.looks)}: for instance {list(LOOKS)}")
        check_variance(self.variance)
        check_pairing(self.pairing)
        check_level_and_margin(self.alpha, self.margin)
        check_question(self.question, self.margin)
        earlier = self.earlier_variance
        if earlier is not None and not (isfinite(earlier) and earlier > 0):
            raise ValueError(f"earlier_variance must be a finite number above 0, got {earlier!r}")
        if earlier is not None and self.pairing == "none":
            raise ValueError("earlier_variance must be left out with pairing none: it is one of paired differences")
        if self.spending not in ("open", "all"):
            raise ValueError(f"spending must be open or all, got {self.spending}")
        if earlier is not None and self.spending == "all":
            raise ValueError("earlier_variance must be left out with spending all: if it is wrong, no error is left")

    @property
    def max_seeds(self) -> int:
        """The seeds of the last look."""
        return self.looks[-1]

    def level(self, look: int) -> float:
        """The error that the look at this position (from 0) may spend: alpha (f(n_look) - f(n_look before))."""
        _require_look(self, look)
        before = self._spent(self.looks[look - 1]) if look > 0 else 0.0
        return self.alpha * (self._spent(self.looks[look]) - before)

    def _spent(self, n_seeds: int) -> float:
        return (n_seeds / self.max_seeds) ** 2 if self.spending == "all" else spent(n_seeds)

    def coverage(self, look: int) -> float:
        """The level of an interval of one quantity at one of several looks: 1 - level(look).

        Intervals of that level cover at all looks together with probability 1 - alpha, whichever look ends the study:
        that is what `power.chance_to_beat` needs after interim analyses.
        """
        return 1 - self.level(look)

    def equivalence_error(self, n_arms: int) -> float:
        """1 minus the nominal level of `Family.equivalence_interval` with `n_arms`, at looks of three seeds or more."""
        is_own = self.variance == "plain" or n_arms == 1
        return 2 * self.alpha * one_sided_share(is_own, self.question)

    def until(self, max_seeds: int) -> "Design":
        """The design with its last look at `max_seeds`: later looks are cut, or new ones double from the last.

        Shared looks keep their levels, so past decisions stand. A cut design's last look is at `max_seeds`, even where
        the longer design would have looked later: the levels still add up. Continue the design that was used, not the
        one that it was cut from, since past looks have spent their error.

        A design that spends all of its error has other levels for another `max_seeds`, so it must be chosen before the
        first run.

        Raises:
            ValueError: `max_seeds` is below the first look.
        """
        first = self.looks[0]
        if max_seeds < first:
            raise ValueError(
                f"max_seeds must be at least the first look ({first}), got {max_seeds}: raise it, or look earlier"
            )
        looks = [n for n in self.looks if n < max_seeds]
        while looks and 2 * looks[-1] < max_seeds and max_seeds > self.max_seeds:
            looks.append(2 * looks[-1])
        return replace(self, looks=(*looks, max_seeds))

    def correction(self, look: int, n_arms: int) -> float:
        """The factor on an arm's p at this look, before it is compared with alpha: alpha / the arm's level.

        The arm's level is level / n_arms; a design that spends all of its error adds the overlap with earlier looks.
        """
        _require_look(self, look)
        if self.spending == "open":
            return n_arms * self.alpha / self.level(look)
        errors = tuple(self.level(i) / n_arms for i in range(len(self.looks)))
        return self.alpha / levels(self.looks, errors)[look]

    def judge(self, differences: ArrayLike, look: int) -> Family:
        """The family at this look: the intervals of all arms and looks together cover with probability 1 - alpha.

        Args:
            differences: (..., n_arms, n_seeds), of all arms that the design began with, including decided ones. Seeds
                beyond the look's are ignored; an arm decided at an earlier look has nan from there on.
        """
        d = np.asarray(differences, dtype=np.float64)
        options = (self.alpha, self.margin, self.variance, self.correction(look, d.shape[-2]), self.question)
        return compare_arms(d[..., : self.looks[look]], *options, self.earlier_variance)

    def judge_scores(self, scores: ArrayLike, look: int) -> Family:
        """`judge` of scores, (..., 1 + n_arms, n_seeds), the baseline's first: by pairs, or not, as the design says."""
        x = np.asarray(scores, dtype=np.float64)
        correction = self.correction(look, x.shape[-2] - 1)
        options = (self.alpha, self.margin, self.variance, correction, self.question, self.pairing)
        return compare_scores(x[..., : self.looks[look]], *options, self.earlier_variance)

    def decide(self, differences: ArrayLike, look: int, higher_is_better: bool = True) -> NDArray[np.str_]:
        """The word of each arm's `Verdict` at this look alone, of shape (..., n_arms)."""
        return _states(self.judge(differences, look), higher_is_better)

    def look_at(
        self, scores: ArrayLike, look: int, decided_at: Mapping[int, int], higher_is_better: bool = True
    ) -> tuple[Family, list[Verdict]]:
        """The interim analysis of scores: the family of differences from the baseline, and a verdict for each arm.

        Where an arm or the baseline has a diverged or failed seed, `scores.verdict_after_losses` decides, at the level
        of the look: divergence is judged in both directions, and a failed seed leaves the arm undecided.

        Args:
            scores: (1 + n_arms, n_seeds), the baseline's first; nan where a seed failed, infinite where it diverged.
            look: its position, from 0.
            decided_at: the seeds of the look that decided an arm, by its position among those that are not the
                baseline; its later seeds are ignored.
        """
        _require_look(self, look)
        values = np.asarray(scores, dtype=np.float64)[:, : self.looks[look]]
        finite = np.where(np.isfinite(values), values, np.nan)
        for i, n in decided_at.items():
            finite[i + 1, n:] = np.nan
        family = self.judge_scores(finite, look)
        verdicts = [Verdict.of(word) for word in _states(family, higher_is_better)]
        level = self.level(look) / len(verdicts)  # of the divergence test, whose looks overlap differently
        for i, shown in enumerate(verdicts):
            ours, theirs = (values[row, : decided_at.get(i, values.shape[1])] for row in (i + 1, 0))
            verdicts[i] = verdict_after_losses(shown, ours, theirs, level, self.pairing)[0]
        return family, verdicts

    def replay(self, values: ArrayLike, higher_is_better: bool = True) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """Each arm's state after all looks, and the seeds it took: both of shape (..., n_arms).

        At each look the undecided arms are judged. Decided arms keep their word, and their later seeds are ignored. An
        arm that lacks seeds of a look is judged on those it has.

        Args:
            values: differences, (..., n_arms, n_seeds); without pairing scores, (..., 1 + n_arms, n_seeds).
        """
        x = np.array(values, dtype=np.float64)
        arms = x if self.pairing == "seeds" else x[..., 1:, :]  # a view: values set to nan here are set in x as well
        judge = self.judge if self.pairing == "seeds" else self.judge_scores
        state = np.full(arms.shape[:-1], Verdict.UNDECIDED, dtype="<U32")
        n_seeds = np.full(arms.shape[:-1], self.looks[0])
        for look, n in enumerate(self.looks):
            is_open = state == Verdict.UNDECIDED
            tables = is_open.any(axis=-1)  # (...,): arms that still train
            if n > x.shape[-1] or not tables.any():
                break
            n_seeds[is_open] = n
            found = _states(judge(x[tables], look), higher_is_better)
            state[tables] = np.where(is_open[tables], found, state[tables])
            arms[state != Verdict.UNDECIDED, n:] = np.nan
        return state, n_seeds


def _require_look(design: Design, look: int) -> None:
    if not 0 <= look < len(design.looks):
        raise ValueError(f"look must be a position from 0 to {len(design.looks) - 1}, got {look!r}")


def is_futile(estimates: Sequence[float | None], loss: float) -> bool:
    """Whether a study may stop an arm because it is unlikely to be shown not worse; never a verdict.

    So it is if its mean difference from the baseline is worse than the margin at its second look or a later one. The
    first look's few seeds say too little. Stopping early can only lose a claim: no error is spent.

    Args:
        estimates: the mean difference at each look; None where it is unknown.
        loss: the margin as a signed difference: -margin if higher is better.
    """
    return any(d is not None and (d < loss if loss < 0 else d > loss) for d in estimates[FEWEST_LOOKS - 1 :])


def _states(family: Family, higher_is_better: bool) -> NDArray[np.str_]:
    words = claims(family, higher_is_better)
    return np.where(words == Verdict.NO_DIFFERENCE, Verdict.UNDECIDED, words)


def spent(n_seeds: int) -> float:
    """f(n), the share of the error that may be spent by n seeds: n^2 / (n^2 + 8^2)."""
    return n_seeds**2 / (n_seeds**2 + HALF_SPENT_AT**2)


@lru_cache(maxsize=256)
def levels(looks: tuple[int, ...], errors: tuple[float, ...]) -> tuple[float, ...]:
    """The two-sided level of each look, so that the first claim at look k has probability errors[k] where none is true.

    With U_n = sum of the n differences / (sqrt(n) their root sum of squares), Student's t is
    sqrt(n - 1) U / sqrt(1 - U^2). Without a true difference the direction of the vector of differences is independent
    of its length, so the U_n are a Markov chain. With T Student's with n degrees of freedom, and y = T / sqrt(n):

        U_(n+1) = (sqrt(n) U_n + y) / sqrt((n + 1) (1 + y^2))

    The distribution of |U_n| among the tables without a claim is followed seed by seed, on a grid of normal scores, as
    Armitage, McPherson and Rowe (1969, JRSS A 132, 235-244) do for a known variance. With few seeds, their levels err
    up to a third too often, since t values of successive looks correlate less than means.

    Estimates of noise with more degrees of freedom correlate more, and err less: moderated variances, and those of two
    independent samples. So do one-sided tests, of one tail at the whole level.

    Args:
        looks: the numbers of seeds, at least 2, ascending.
        errors: the probability of a first claim at each look: positive, and less than 1 together.
    """
    found: list[float] = []
    n, mass = looks[0], 2 * np.diff(ndtr(_EDGES))
    for look, error in zip(looks, errors, strict=True):
        for m in range(n, look):
            mass = _with_one_more(mass, m)
        n = look
        beyond = np.cumsum(mass[::-1])[::-1]  # above each cell's lower edge
        limit = float(np.interp(-np.log(error), -np.log(np.maximum(beyond, 1e-300)), _EDGES[:-1]))
        level = 2 * float(ndtr(-limit))
        found.append(min(max(level, error), sum(errors[: len(found) + 1])))  # bounds that rounding must not exceed
        mass = mass * np.clip((limit - _EDGES[:-1]) / _STEP, 0.0, 1.0)
    return tuple(found)


def _with_one_more(mass: Floats, n: int) -> Floats:
    """The distribution of |U_(n+1)| over the cells, where |U_n| has this one."""
    above = _above(n)
    return -np.diff(mass @ above, append=0.0)


@lru_cache(maxsize=256)
def _above(n: int) -> Floats:
    """P(|U_(n+1)| > v | U_n = u) for each cell u and each edge v but the last, (cells, cells).

    U_(n+1) > v holds where (w - n) y^2 + 2 sqrt(n) u y + n u^2 - (n + 1) v^2 > 0 and sqrt(n) u + y > 0, with
    w = (n + 1) (1 - v^2): between the roots where w < n, above the larger one otherwise.
    """
    t, limit = _student(_CENTRES, n - 1)[:, None], _student(_EDGES[:-1], n)
    u, v = t / np.sqrt(n - 1 + t**2), limit / np.sqrt(n + limit**2)
    w, gap = (n + 1) * n / (n + limit**2), n * (n - 1) / (n - 1 + t**2)  # (n + 1) (1 - v^2) and n (1 - u^2)
    root = v * np.sqrt((n + 1) * np.maximum(w - gap, 0.0))
    middle, curve = np.sqrt(n) * u, w - n
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (np.sqrt(n) * (-middle + s * root) / curve for s in (1, -1))  # T at both roots
        other = np.sqrt(n) * (middle + root) / curve  # the larger root from -u
    between = stdtr(n, high) - stdtr(n, low)  # starting from -u, the sum can't be that large
    outside = stdtr(n, -low) + stdtr(n, -other)
    return np.where(curve < 0, np.where(w > gap, between, 0.0), np.minimum(outside, 1.0))


def _student(z: Floats, df: int) -> Floats:
    """Student's t at the normal score z."""
    t: Floats = -stdtrit(df, ndtr(-z))
    return t
