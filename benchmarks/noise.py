"""Scores of arms whose truth is known: the kinds of noise in the simulations of docs/statistics.md.

Imported by simulate.py and rivals.py, and by simulations of a whole page:

    x = scores("copies 0.99", 1000, 6, 5, np.random.default_rng(20))   # (tables, arms, seeds), arm 0 the baseline
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Shape = tuple[int, int, int]
SEED = 20
CHUNK = 2_000_000  # scores simulated at once, to limit memory


def _noisier(*rows: int | slice) -> Callable[[Shape, np.random.Generator], Floats]:
    def draw(shape: Shape, g: np.random.Generator) -> Floats:
        x = g.normal(size=shape)
        for row in rows:
            x[:, row] *= 3
        return x

    return draw


def _pairs(r: float) -> Callable[[Shape, np.random.Generator], Floats]:
    """The scores of any two arms on a seed have correlation r."""
    return lambda shape, g: r**0.5 * g.normal(size=(shape[0], 1, shape[2])) + (1 - r) ** 0.5 * g.normal(size=shape)


def _copies(r: float, every: int = 1) -> Callable[[Shape, np.random.Generator], Floats]:
    """Differences from the baseline correlate r (at least 1/2) among every `every`-th arm; all others correlate 1/2."""

    def draw(shape: Shape, g: np.random.Generator) -> Floats:
        x, shared = g.normal(size=shape), g.normal(size=(shape[0], 1, shape[2]))
        x[:, 1::every] = (2 * r - 1) ** 0.5 * shared + (2 - 2 * r) ** 0.5 * x[:, 1::every]
        return x

    return draw


def _near_100(shape: Shape, g: np.random.Generator) -> Floats:
    """10,000 test images, accuracies of about 99.7%; all arms share a seed's luck."""
    p = 0.997 + g.normal(0, 0.0008, (shape[0], 1, shape[2])) + g.normal(0, 0.0005, shape)
    return g.binomial(10_000, np.clip(p, 0, 1)) / 10_000 / 0.00074


def _lattice(in_doubt: int) -> Callable[[Shape, np.random.Generator], Floats]:
    """All arms get the same images right, except for 1% of the test images, which are decided by coin tosses."""
    return lambda shape, g: g.binomial(in_doubt, 0.5, shape) / (in_doubt / 4) ** 0.5


def _mostly_equal(shape: Shape, g: np.random.Generator) -> Floats:
    x = g.normal(size=shape)
    x[:, 1:] = np.where(g.random((shape[0], shape[1] - 1, shape[2])) < 0.8, x[:, :1], x[:, 1:])
    return x


def _missing(shape: Shape, g: np.random.Generator) -> Floats:
    x = g.normal(size=shape)
    x[:, 1:][g.random((shape[0], shape[1] - 1, shape[2])) < 0.2] = np.nan
    return x


def _one_skewed(shape: Shape, g: np.random.Generator) -> Floats:
    x = g.normal(size=shape)
    x[:, -1] = 1 - g.exponential(size=x[:, -1].shape)
    return x


def _arms_skewed(shape: Shape, g: np.random.Generator) -> Floats:
    x = 1 - g.exponential(size=shape)
    x[:, 0] = g.normal(size=x[:, 0].shape)
    return x


def _one_skewed_beside(baseline: float) -> Callable[[Shape, np.random.Generator], Floats]:
    """One skewed arm; the baseline has this share of the other arms' noise."""

    def draw(shape: Shape, g: np.random.Generator) -> Floats:
        x = _one_skewed(shape, g)
        x[:, 0] *= baseline
        return x

    return draw


def _quiet_baseline(shape: Shape, g: np.random.Generator) -> Floats:
    x = g.normal(size=shape)
    x[:, 0] = 0
    return x


NOISES: dict[str, Callable[[Shape, np.random.Generator], Floats]] = {
    "normal": lambda shape, g: g.normal(size=shape),
    "near 100%": _near_100,
    "t3": lambda shape, g: g.standard_t(3, shape),
    "one arm x3": _noisier(-1),
    "baseline x3": _noisier(0),
    "half x3": lambda shape, g: _noisier(slice(shape[1] // 2, None))(shape, g),
    "mixed x1-3": lambda shape, g: 3 ** g.random((*shape[:2], 1)) * g.normal(size=shape),
    "t3, one arm x3": lambda shape, g: g.standard_t(3, shape) * np.r_[np.ones(shape[1] - 1), 3][:, None],
    "quiet baseline": _quiet_baseline,  # differences that don't correlate
    "copies 0.9": _copies(0.9),
    "copies 0.99": _copies(0.99),
    "half copies 0.99": _copies(0.99, every=2),
    "pairs 0.5": _pairs(0.5),
    "pairs 0.9": _pairs(0.9),
    "pairs 0.99": _pairs(0.99),
    "lattice 1,000": _lattice(10),
    "lattice 10,000": _lattice(100),
    "80% equal": _mostly_equal,
    "missing 20%": _missing,
    "skew": lambda shape, g: 1 - g.exponential(size=shape),
    "rare collapse": lambda shape, g: g.normal(size=shape) - 10 * (g.random(shape) < 0.1),
    "one arm skewed": _one_skewed,
    "arms skewed": _arms_skewed,
    "skewed, baseline x1/3": _one_skewed_beside(1 / 3),
    "skewed, baseline x0": _one_skewed_beside(0),
}
KINDS = tuple(NOISES)


def scores(kind: str, n_tables: int, n_arms: int, n_seeds: int, g: np.random.Generator) -> Floats:
    """Scores (n_tables, n_arms, n_seeds) of equally good arms, in units of the common noise; arm 0 is the baseline.

    nan if a run is missing. If the noise is skewed, higher is better.
    """
    return NOISES[kind]((n_tables, n_arms, n_seeds), g)


def lose_worst(x: Floats, row: int, share: float, as_value: float) -> Floats:
    """The scores without the lowest `share` of one arm's over all tables: nan for failed, inf for diverged."""
    lost = x.copy()
    lost[:, row][lost[:, row] < np.quantile(lost[:, row], share)] = as_value
    return lost


def tables(kind: str, n_tables: int, n_arms: int, n_seeds: int, seed: int = SEED) -> Iterator[Floats]:
    """Scores for a given seed, in chunks that fit into memory."""
    g = np.random.default_rng([seed, n_arms, n_seeds])
    step = max(1, CHUNK // (n_arms * n_seeds))
    for start in range(0, n_tables, step):
        yield scores(kind, min(step, n_tables - start), n_arms, n_seeds, g)


def differences(kind: str, n_tables: int, n_arms: int, n_seeds: int, seed: int = SEED) -> Iterator[Floats]:
    """Paired differences from the baseline (tables, n_arms - 1, n_seeds), in the same chunks."""
    for x in tables(kind, n_tables, n_arms, n_seeds, seed):
        yield x[:, 1:] - x[:, :1]
