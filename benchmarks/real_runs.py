"""False claims on real trainings, by the former protocol and by the present one: python benchmarks/real_runs.py DIR

DIR contains runs of several arms, some of which are truly equal: lambdas up to `NEGLIGIBLE` count as none. Tables are
made by drawing from the arms' common seeds. There are two kinds of comparison, both without a true difference:

paired       equal arms on the same seeds, in one table with the arms that do differ
independent  one arm against itself with other seeds, as if they were the same seeds

It also uses one half of the test images to predict each arm's difference from the first arm on the other half.

It prints the share of tables in which an equal arm was called better or worse. The former protocol is the plain paired
t test with Holm's correction; with one seed it is McNemar's test, which then also said better or worse.
"""

import argparse
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from reg_sweep.comparison.predictions import read_predictions
from reg_sweep.comparison.results import result
from reg_sweep.runs.reading import read_runs
from reg_sweep.stats import estimates as stats
from reg_sweep.stats.crossed import halves
from reg_sweep.stats.family import claims, compare_arms

NEGLIGIBLE = 1e-8
ALPHA = 0.05
SEED = 20
Table = NDArray[np.bool_]  # (n_arms, n_seeds, n_images): which test images each run got right


def read(root: Path) -> tuple[list[Table], list[Table]]:
    """The arms equal to the one without a penalty, which comes first, and the other arms, on their common seeds."""
    arms: dict[tuple[str, float, float], dict[int, NDArray[np.bool_]]] = {}
    for run in read_runs(root):
        r = result(run)
        if r.status == "complete" and r.data is not None:
            key = (r.config["norm"]["name"], float(r.config["l1"]), float(r.config["l2"]))
            arms.setdefault(key, {})[r.seed] = read_predictions(r.path, r.data.n_test).correct
    seeds = sorted(set.intersection(*(set(of_seeds) for of_seeds in arms.values())))
    stacked = {key: np.stack([of_seeds[s] for s in seeds]) for key, of_seeds in sorted(arms.items())}
    equal = [x for key, x in stacked.items() if key[0] == "bn" and max(key[1:]) <= NEGLIGIBLE]
    others = [x for key, x in stacked.items() if not (key[0] == "bn" and max(key[1:]) <= NEGLIGIBLE)]
    print(f"{len(seeds)} seeds of {len(equal)} equal arms and {len(others)} others")
    return equal, others


def former(table: Table, n_equal: int) -> bool:
    """Whether an equal arm was called better or worse; the baseline is table[0], followed by the other equal arms."""
    if table.shape[1] == 1:
        p = [stats.mcnemar(arm[0], table[0, 0]).p for arm in table[1:]]
    else:
        accuracy = table.mean(axis=2)
        p = [stats.paired_difference(arm, accuracy[0]).p for arm in accuracy[1:]]
    tested = np.flatnonzero(~np.isnan(p))  # without spread over seeds there is no p-value
    claimed = np.zeros(len(p), bool)
    if tested.size:
        claimed[tested] = multipletests(np.array(p)[tested], ALPHA, method="holm")[0]
    return bool(claimed[: n_equal - 1].any())


def now(table: Table, n_equal: int) -> bool:
    """The same by the present protocol, which claims nothing about methods from one seed."""
    if table.shape[1] == 1:
        return False
    accuracy = table.mean(axis=2)
    words = claims(compare_arms(accuracy[1:] - accuracy[:1], ALPHA))
    return bool(np.isin(words[: n_equal - 1], ("better", "worse")).any())


def paired(equal: list[Table], others: list[Table], n: int, g: np.random.Generator) -> Table:
    """n seeds, the same for all arms."""
    return np.stack([*equal, *others])[:, g.choice(len(equal[0]), n, replace=False)]


def independent(equal: list[Table], others: list[Table], n: int, g: np.random.Generator) -> Table:
    """The first arm twice, with n seeds each and no seed in common."""
    return equal[0][g.permutation(len(equal[0]))[: 2 * n]].reshape(2, n, -1)


def one_seed(equal: list[Table]) -> Iterator[tuple[str, int, int]]:
    """All comparisons with one seed: label, number in which McNemar's test said better or worse, number of pairs."""
    pairs = [(a[s], b[s]) for a, b in combinations(equal, 2) for s in range(len(a))]
    yield "equal arms on one seed", _differing(pairs), len(pairs)
    alone = list(combinations(equal[0], 2))
    yield "an arm and itself on another seed", _differing(alone), len(alone)


def _differing(pairs: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> int:
    return sum(stats.mcnemar(a, b).p <= ALPHA for a, b in pairs)


def other_half(arm: Table, base: Table, n_seeds: int, n_splits: int, g: np.random.Generator) -> float:
    """Share of random splits in which one half of the images predicts the other, on random seeds; nominally 95%."""
    held = 0
    for _ in range(n_splits):
        seeds = g.choice(len(base), n_seeds, replace=False)
        held += halves(arm[seeds], base[seeds], g)[2]
    return held / n_splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--tables", type=int, default=2000, metavar="N")
    arguments = parser.parse_args()
    equal, others = read(arguments.root)
    for what, n_claims, n_pairs in one_seed(equal):
        print(f"{what}: formerly better or worse in {n_claims} of {n_pairs}, now in 0")
    kinds: dict[str, tuple[Callable[..., Table], list[Table], int]] = {
        "equal arms alone": (paired, [], len(equal)),
        "beside the others": (paired, others, len(equal)),
        "against itself": (independent, [], 2),
    }
    print(f"share of {arguments.tables:,} tables with a false better or worse, seed {SEED}")
    print("comparison | seeds | former | now")
    for kind, (draw, beside, n_equal) in kinds.items():
        for n in (1, 3, 5):
            g = np.random.default_rng([SEED, n])
            tables = [draw(equal, beside, n, g) for _ in range(arguments.tables)]
            rates = (np.mean([judge(table, n_equal) for table in tables]) for judge in (former, now))
            print(f"{kind} | {n} | " + " | ".join(f"{rate:.3f}" for rate in rates))
    print("one half of the test images predicts the other: share of splits, by arm and seeds")
    for n in (3, 5, len(equal[0])):
        g = np.random.default_rng([SEED, n])
        held = [other_half(arm, equal[0], n, arguments.tables // 4, g) for arm in (*equal[1:], *others)]
        print(f"{n} | " + " | ".join(f"{share:.3f}" for share in held))


if __name__ == "__main__":
    main()
