"""The level of each look of a design that spends its whole error: exact for Student's t.

Looks overlap. An arm that is falsely called better after 12 seeds has often been called so after 8. Bonferroni counts
both; a look may use the larger level at which its *first* false claims have the probability that it may spend.
"""

from functools import lru_cache

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from reg_sweep.stats.moderation import Floats

_STEP = 0.05
_EDGES: Floats = np.linspace(0, 140 * _STEP, 141)  # of the cells of |z|; beyond the last is p = 3e-12
_CENTRES: Floats = (_EDGES[1:] + _EDGES[:-1]) / 2


@lru_cache(maxsize=256)
def levels(looks: tuple[int, ...], errors: tuple[float, ...]) -> tuple[float, ...]:
    """The two-sided level of each look, so that the first claim at look k has probability errors[k] where none is true.

    With U_n = sum of the n differences / (sqrt(n) their root sum of squares), Student's t is
    sqrt(n - 1) U / sqrt(1 - U^2). Without a true difference the direction of the vector of differences is independent
    of its length, so the U_n are a Markov chain. With T Student's with n degrees of freedom, and y = T / sqrt(n):

        U_(n+1) = (sqrt(n) U_n + y) / sqrt((n + 1) (1 + y^2))

    The distribution of |U_n| among the tables without a claim is followed seed by seed, on a grid of normal scores, as
    Armitage, McPherson and Rowe (1969, JRSS A 132, 235-244) do for a known variance. Their levels err by up to a third
    too often with few seeds, since t values of successive looks correlate less than means.

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
        found.append(min(max(level, error), sum(errors[: len(found) + 1])))  # what rounding must not exceed
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
    between = stdtr(n, high) - stdtr(n, low)  # from -u the sum can't be so large
    outside = stdtr(n, -low) + stdtr(n, -other)
    return np.where(curve < 0, np.where(w > gap, between, 0.0), np.minimum(outside, 1.0))


def _student(z: Floats, df: int) -> Floats:
    """Student's t at the normal score z."""
    t: Floats = -stdtrit(df, ndtr(-z))
    return t
