"""Are plans for more seeds or images right? python benchmarks/simulate.py planning, and crossed"""

from collections.abc import Callable

import numpy as np
from noise import SEED, Floats, differences

from reg_sweep.stats.crossed import crossed_difference, halves
from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.power import Plan


def planning(n_tables: int, row: Callable[..., None]) -> None:
    """Promised and real power if the spread is estimated; the real power is that of a second table."""
    n_tables = min(n_tables, 4000)
    print("each table plans with its own spread; power: true, at the difference that its plan calls visible with 80%")
    row(
        "arms", "seeds", "visible (sd), median", "power, mean", "5% of tables below", "if the spread were known", "mean"
    )
    for n_arms, n_seeds in ((2, 2), (2, 3), (2, 5), (2, 10), (6, 3), (6, 5), (6, 10), (31, 5)):
        d = np.concatenate(list(differences("normal", n_tables, n_arms, n_seeds)))
        x = compare_arms(d).noise
        sd, df = np.sqrt(x.variance[:, 0]), x.df[:, 0]
        cells = []
        for is_known in (False, True):
            visible, found = [], []
            for s, nu in zip(sd[:100], df[:100], strict=True):
                plan = Plan(
                    float(s), 0.05, n_arms - 1, max(float(nu) - n_seeds + 1, 0.0), np.inf if is_known else float(nu)
                )
                visible.append(plan.smallest_difference(n_seeds))
                shown = compare_arms(d + visible[-1] * (np.arange(n_arms - 1) == 0)[:, None]).p[:, 0] <= 0.05
                found.append(shown.mean())
            cells.append((float(np.median(visible)) / 2**0.5, float(np.mean(found)), float(np.quantile(found, 0.05))))
        row(n_arms, n_seeds, *cells[0], cells[1][0], cells[1][1])


def crossed(n_tables: int, row: Callable[..., None]) -> None:
    """Coverage of the intervals for new seeds and images, and of the prediction from one half of the images."""
    n_tables = min(n_tables, 2000)
    print("sd of a seed's and an image's effect on the log odds of the two arms; coverage of the 95% intervals")
    row("seeds", "images", "seed sd", "image sd", "new both", "seeds alone (paired t)", "other half", "says: buy seeds")
    for n_seeds, n_images in ((3, 1000), (5, 1000), (5, 10_000), (10, 2000), (20, 1000)):
        for seed_sd, image_sd in ((0.0, 0.0), (0.0, 1.0), (0.3, 0.0), (0.3, 1.0), (0.1, 2.0)):
            n = n_tables if n_seeds * n_images <= 20_000 else max(n_tables // 4, 1)
            row(n_seeds, n_images, seed_sd, image_sd, *map(float, _crossed(n, n_seeds, n_images, seed_sd, image_sd)))


def _crossed(n_tables: int, n_seeds: int, n_images: int, seed_sd: float, image_sd: float) -> Floats:
    g = np.random.default_rng([SEED, n_seeds, n_images])
    sums = np.zeros(4)
    truth = _crossed_truth(seed_sd, image_sd)
    for _ in range(n_tables):
        arm, baseline = _two_arms(n_seeds, n_images, seed_sd, image_sd, g)
        c = crossed_difference(arm, baseline)
        by_seed = arm.mean(axis=1) - baseline.mean(axis=1)
        t = compare_arms(by_seed[None], variance="plain")
        _, _, holds = halves(arm, baseline, g)
        sums += [
            c.ci_low <= truth <= c.ci_high,
            t.interval_alone[0][0] <= truth <= t.interval_alone[1][0],
            holds,
            c.buy == "seeds",
        ]
    return sums / n_tables


def _two_arms(n_seeds: int, n_images: int, seed_sd: float, image_sd: float, g: np.random.Generator) -> tuple:
    """Outcomes of two arms that share each image's difficulty, but not the effects of arms or seeds on it."""
    difficulty = g.normal(0, 1.5, (1, n_images))
    arms = []
    for ability in (3.2, 3.0):
        logits = ability - difficulty + g.normal(0, seed_sd, (n_seeds, 1)) + g.normal(0, image_sd, (1, n_images))
        arms.append(g.random((n_seeds, n_images)) < 1 / (1 + np.exp(-logits)))
    return tuple(arms)


def _crossed_truth(seed_sd: float, image_sd: float) -> float:
    """True mean difference over all seeds and images: the logistic function averaged over a normal, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = (1.5**2 + seed_sd**2 + image_sd**2) ** 0.5
    better, worse = (float((weights / (1 + np.exp(-(a + spread * nodes)))).sum()) for a in (3.2, 3.0))
    return (better - worse) / float(weights.sum())
