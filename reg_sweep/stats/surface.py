"""How a score depends on the parameters that were tried: a quadratic surface, and each parameter's importance.

A surface reports how well it predicts left-out points. Importance is the functional ANOVA of a random forest (Hutter,
Hoos, Leyton-Brown 2014). The forest is small and in numpy: importing scikit-learn takes a second, which is longer than
this computes.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reg_sweep.stats.moderation import Floats

POINTS_PER_TERM = 2
# Enough for shares accurate to 0.01; 1,000 points take seconds.
N_TREES = 32
MAX_DEPTH = 8
FEWEST_POINTS = 8
SEED = 0  # the same points always have the same importances
Mask = NDArray[np.bool_]
Box = list[Mask]  # of each column, the cells that belong to it


@dataclass(frozen=True)
class Surface:
    """z = level + b . (u, v, u^2, u v, v^2), with (u, v) = (x, y) less `centre`, divided by `scale`.

    levels: one for each group. explained: the share of the spread within groups that is predicted at points left out,
    1 - sum of squared leave-one-out errors / that of the groups' means; below 0 where the surface predicts worse than
    these means.
    """

    centre: Floats
    scale: Floats
    levels: dict[Hashable, float]
    slopes: Floats
    explained: float

    def at(self, x: ArrayLike, y: ArrayLike, group: Hashable) -> Floats:
        """The surface of a group, in the shape of x and y."""
        u, v = ((np.asarray(a, float) - c) / s for a, c, s in zip((x, y), self.centre, self.scale, strict=True))
        height: Floats = self.levels[group] + np.stack(_terms(u, v), axis=-1) @ self.slopes
        return height


def quadratic_surface(x: ArrayLike, y: ArrayLike, values: ArrayLike, groups: Sequence[Hashable]) -> Surface | None:
    """The least-squares quadratic through the values at points (x, y), one shape for all groups and a level for each.

    x, y and values are (n,), and groups has n entries. None where it is undetermined: fewer than two points per term,
    points on a line or a conic, or equal values. A group of fewer than three points takes no part.
    """
    sizes = {g: sum(other == g for other in groups) for g in groups}
    kept = [i for i, g in enumerate(groups) if sizes[g] >= 3]
    names = [g for g in sizes if sizes[g] >= 3]
    n_terms = len(names) + 5
    if len(kept) < POINTS_PER_TERM * n_terms:
        return None
    xy, z = np.array([np.asarray(x, float)[kept], np.asarray(y, float)[kept]]), np.asarray(values, float)[kept]
    centre, scale = xy.mean(axis=1), xy.std(axis=1)
    if not scale.all() or not np.ptp(z):
        return None
    u, v = (xy - centre[:, None]) / scale[:, None]
    member = np.array([[groups[i] == g for g in names] for i in kept], float)
    design = np.column_stack([member, *_terms(u, v)])  # (n, n_terms)
    if np.linalg.matrix_rank(design) < n_terms:
        return None
    q, r = np.linalg.qr(design)
    found = np.linalg.solve(r, q.T @ z)
    leverage = np.minimum((q**2).sum(axis=1), 1 - 1e-9)
    errors = (z - design @ found) / (1 - leverage)
    n = member @ member.sum(axis=0)
    null = (z - member @ (member.T @ z / member.sum(axis=0))) * n / (n - 1)
    spread = float((null**2).sum())
    explained = 1 - float((errors**2).sum()) / spread if spread > 0 else 0.0
    levels = dict(zip(names, map(float, found), strict=False))
    return Surface(centre, scale, levels, found[len(names) :], explained)


def _terms(u: Floats, v: Floats) -> list[Floats]:
    return [u, v, u**2, u * v, v**2]


@dataclass(frozen=True)
class Column:
    """A parameter at each point, as a cell of its space: a choice, or the region nearest to a number that was tried.

    Attributes:
        cells: of each point.
        widths: of each cell, as a share of the space.
        numbers: those that were tried, in order; None for choices, which have none.
    """

    cells: NDArray[np.intp]
    widths: Floats
    numbers: Floats | None = None

    @classmethod
    def of_numbers(cls, values: ArrayLike) -> "Column":
        """Numbers in a space from 0 to 1."""
        tried, cells = np.unique(np.asarray(values, dtype=float), return_inverse=True)
        return cls(cells, np.diff([0.0, *(tried[1:] + tried[:-1]) / 2, 1.0]), tried)

    @classmethod
    def of_choices(cls, cells: ArrayLike, n: int) -> "Column":
        """Choices, by their numbers, out of `n`."""
        return cls(np.asarray(cells, dtype=np.intp), np.full(n, 1 / n))


def importances(columns: Sequence[Column], values: ArrayLike) -> list[float]:
    """Each column's share of the variance that single columns explain over the whole space; interactions are left out.

    A column's variance in a tree is that of the tree's mean prediction given the column, as a share of the tree's total
    variance.

    Returns an empty list where the forest predicts unseen points no better than chance, since the shares would mean
    nothing: with 11 points of pure noise, the largest would average 63%. The out-of-bag R^2 has to exceed 0.1 + 2 / n,
    which 95 of 100 studies of pure noise with 8 points or more do not.
    """
    y = np.asarray(values, dtype=float)
    if len(y) < FEWEST_POINTS:
        return []
    rng = np.random.default_rng(SEED)
    sums, n_unseen, shares = np.zeros(len(y)), np.zeros(len(y)), []
    for _ in range(N_TREES):
        counts = np.bincount(rng.integers(len(y), size=len(y)), minlength=len(y)).astype(float)
        boxes, means, predicted = _tree(columns, y, counts, rng)
        unseen = counts == 0
        sums[unseen] += predicted[unseen]
        n_unseen += unseen
        alone, whole = _variances(columns, boxes, means)
        if whole > 0:
            shares.append(alone / whole)
    known = n_unseen > 0
    error = np.sum((sums[known] / n_unseen[known] - y[known]) ** 2)
    spread = np.sum((y[known] - y[known].mean()) ** 2)
    found = np.sum(shares, axis=0)
    can_predict = error < (0.9 - 2 / len(y)) * spread  # R^2 is 1 - error / spread
    return list(map(float, found / found.sum())) if can_predict and found.sum() > 0 else []


def _tree(
    columns: Sequence[Column], y: Floats, counts: Floats, rng: np.random.Generator
) -> tuple[list[Box], Floats, Floats]:
    """A regression tree of the points that were drawn, `counts` times each.

    Returns its leaves' boxes, their means, and the prediction at each point.
    """
    boxes: list[Box] = []
    means: list[float] = []
    predicted = np.empty(len(y))
    to_split = [(np.arange(len(y)), [np.ones(len(c.widths), dtype=bool) for c in columns], 0)]
    while to_split:
        points, box, depth = to_split.pop()
        drawn = points[counts[points] > 0]
        split = _best_split(columns, y[drawn], counts[drawn], drawn, rng) if depth < MAX_DEPTH else None
        if split is None:
            boxes.append(box)
            means.append(float(np.average(y[drawn], weights=counts[drawn])))
            predicted[points] = means[-1]
            continue
        j, left = split
        is_left = left[columns[j].cells[points]]
        for side, part in ((left, points[is_left]), (~left, points[~is_left])):
            to_split.append((part, [*box[:j], box[j] & side, *box[j + 1 :]], depth + 1))
    return boxes, np.array(means), predicted


def _best_split(
    columns: Sequence[Column], y: Floats, counts: Floats, points: NDArray[np.intp], rng: np.random.Generator
) -> tuple[int, Mask] | None:
    """The column, and its cells to the left, that reduce the squared error most; None where nothing reduces it."""
    n = counts.sum()
    weighted = counts * (y - np.average(y, weights=counts))
    most, best = 1e-12, None
    for j in rng.permutation(len(columns)):  # ties are broken at random
        cells, k = columns[j].cells[points], len(columns[j].widths)
        ns, sums = np.bincount(cells, counts, k), np.bincount(cells, weighted, k)
        there = np.flatnonzero(ns)
        if len(there) < 2:
            continue
        if columns[j].numbers is None:  # in order of the means, the best partition is a cut
            there = there[np.argsort(sums[there] / ns[there], kind="stable")]
        n_left, left = np.cumsum(ns[there])[:-1], np.cumsum(sums[there])[:-1]
        gains = left**2 * (1 / n_left + 1 / (n - n_left))
        i = int(np.argmax(gains))
        if gains[i] > most:
            most, best = gains[i], (int(j), there, i, bool(n_left[i] > n / 2))
    if best is None:
        return None
    j, there, i, is_more = best
    return j, _cells_left(columns[j], there, i, others=is_more)


def _cells_left(column: Column, there: NDArray[np.intp], i: int, *, others: bool) -> Mask:
    """The cells to the left of a cut after the i-th present cell; `others` says whether absent choices go left.

    Numbers are cut midway between the two present ones, as nearly as the cells allow.
    """
    k = len(column.widths)
    if column.numbers is not None:
        low, high = there[i], there[i + 1]
        ends = np.cumsum(column.widths)[low:high]
        middle = (column.numbers[low] + column.numbers[high]) / 2
        is_left: Mask = np.arange(k) <= low + np.argmin(np.abs(ends - middle))
        return is_left
    left = np.full(k, others)
    left[there[: i + 1]], left[there[i + 1 :]] = True, False
    return left


def _variances(columns: Sequence[Column], boxes: Sequence[Box], means: Floats) -> tuple[Floats, float]:
    """The variance of a tree's prediction over the whole space: of its mean given each column, and in total."""
    cells = [np.array([box[j] for box in boxes]) for j in range(len(columns))]  # (leaves, cells)
    sizes = np.array([of @ column.widths for of, column in zip(cells, columns, strict=True)])  # (columns, leaves)
    volumes = sizes.prod(axis=0)
    centered = means - volumes @ means
    alone = [
        column.widths @ ((np.delete(sizes, j, axis=0).prod(axis=0) * centered) @ cells[j]) ** 2
        for j, column in enumerate(columns)
    ]
    return np.array(alone), float(volumes @ centered**2)
