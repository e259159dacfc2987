"""A quadratic surface through scattered points, and how well it predicts points left out."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from reg_sweep.stats.moderation import Floats

POINTS_PER_TERM = 2


@dataclass(frozen=True)
class Surface:
    """z = level + b . (u, v, u^2, u v, v^2), with (u, v) = (x, y) less `centre`, divided by `scale`.

    levels: one for each group. explained: the share of the spread within groups that is predicted at points left out,
    1 - sum of squared leave-one-out errors / that of the groups' means; below 0 where the surface is worse than they.
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
    """The least-squares quadratic through points (n,) each, one shape for all groups and a level for each.

    None where it is undetermined: fewer than two points per term, or points on a line or a conic. A group of
    fewer than three points takes no part.
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
