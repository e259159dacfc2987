"""Designs of reg_sweep compared with AdaStop and Welch's test with Holm's correction, on the same tables.

    pip install adastop==0.1.3        # not a dependency of the project
    python benchmarks/rivals.py

For each, it prints the share of tables of equal arms with any claim, how often an arm that is better by the given
number of standard deviations of a run is called better, and the number of trained runs, including the baseline's.
AdaStop looks after 5, 10, 15 and 20 seeds and compares each arm with the baseline; it says 'equal' if it finds no
difference.
"""

import argparse
import time
from typing import Any

import numpy as np
from noise import KINDS, SEED, Floats, scores
from scipy.stats import ttest_ind

from reg_sweep.stats.sequential import Design

BLOCK, BLOCKS, PERMUTATIONS = 5, 4, 2000
EVERY_SECOND = tuple(range(4, 21, 2))


def adastop(x: Floats, alpha: float) -> tuple[Floats, Floats]:
    """The arms that AdaStop calls better, or different (with a sign), (tables, arms); and the runs, (tables,)."""
    from adastop import MultipleAgentsComparator

    found, runs = np.zeros((len(x), x.shape[1] - 1)), np.zeros(len(x))
    names = [f"arm {i}" for i in range(x.shape[1])]
    for t, table in enumerate(x):
        pairs = np.array([(0, i) for i in range(1, len(names))])
        test = MultipleAgentsComparator(BLOCK, BLOCKS, PERMUTATIONS, pairs, alpha, seed=t)
        used = dict.fromkeys(names, 0)
        for _ in range(BLOCKS):
            going = set(np.ravel(test.current_comparisons).tolist())
            used = {name: n + BLOCK * (i in going) for i, (name, n) in enumerate(used.items())}
            test.partial_compare({name: table[i, : used[name]] for i, name in enumerate(names)}, verbose=False)
            if test.is_finished:
                break
        words = [test.decisions[str(pair)] for pair in pairs]
        found[t] = [{"smaller": 1, "larger": -1}.get(word, 0) for word in words]  # the word describes the baseline
        runs[t] = sum(used.values())
    return found, runs


def design(x: Floats, **how: Any) -> tuple[Floats, Floats]:
    """The same for a design of reg_sweep."""
    values = x if how.get("pairing") == "none" else x[:, 1:] - x[:, :1]
    state, n_seeds = Design(**how).replay(values)
    found = (state == "better").astype(float) - (state == "worse")
    return found, n_seeds.sum(axis=1) + n_seeds.max(axis=1).astype(float)


def welch_holm(x: Floats, n_seeds: int) -> tuple[Floats, Floats]:
    """The same for one Welch's test with Holm's correction at 5%, after this number of seeds."""
    x = x[..., :n_seeds]
    p = ttest_ind(x[:, 1:], x[:, :1], axis=-1, equal_var=False).pvalue  # (tables, arms)
    order = np.argsort(p, axis=1)
    factors = np.arange(p.shape[1], 0, -1)
    adjusted = np.maximum.accumulate(np.take_along_axis(p, order, axis=1) * factors, axis=1)
    rejected = np.zeros_like(p)
    np.put_along_axis(rejected, order, (adjusted <= 0.05).astype(float), axis=1)
    sign = np.sign(x[:, 1:].mean(axis=-1) - x[:, :1].mean(axis=-1))
    return rejected * sign, np.full(len(x), x.shape[1] * n_seeds, dtype=float)


METHODS = {
    "reg_sweep, pairing seeds": lambda x: design(x),
    "reg_sweep, pairing none": lambda x: design(x, pairing="none"),
    "reg_sweep, pairing seeds, spending all": lambda x: design(x, spending="all"),
    "reg_sweep, pairing none, spending all": lambda x: design(x, pairing="none", spending="all"),
    "the same, 9 looks at 4, 6, ... 20 seeds": lambda x: design(x, pairing="none", spending="all", looks=EVERY_SECOND),
    "the same at AdaStop's 5, 10, 15, 20 seeds": lambda x: design(
        x, pairing="none", spending="all", looks=(5, 10, 15, 20)
    ),
    "AdaStop, alpha 0.05": lambda x: adastop(x, 0.05),
    "AdaStop, alpha 0.02": lambda x: adastop(x, 0.02),
    "Welch and Holm, 10 seeds": lambda x: welch_holm(x, 10),
    "Welch and Holm, 20 seeds": lambda x: welch_holm(x, 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=4000, metavar="N")
    parser.add_argument("--adastop-tables", type=int, default=150, metavar="N")
    parser.add_argument(
        "--arms", type=int, action="append", metavar="N", help="number of arms with the baseline; default: 2 and 3"
    )
    parser.add_argument("--noise", choices=KINDS, action="append", help="default: normal and pairs 0.5")
    arguments = parser.parse_args()
    print(f"{arguments.tables:,} tables each, AdaStop {arguments.adastop_tables:,}; seed {SEED}; no margin")
    print("noise | arms | method | any claim of equal arms | runs", *(f"| {d} sd: power | runs" for d in (1.0, 2.0)))
    start = time.perf_counter()
    for kind in arguments.noise or ("normal", "pairs 0.5"):
        for n_arms in arguments.arms or (2, 3):
            for name, method in METHODS.items():
                n = arguments.adastop_tables if name.startswith("AdaStop") else arguments.tables
                if n == 0:
                    continue
                cells = [kind, str(n_arms), name]
                for delta in (0.0, 1.0, 2.0):
                    x = scores(kind, n, n_arms, BLOCK * BLOCKS, np.random.default_rng([SEED, n_arms]))
                    x[:, 1] += delta
                    found, runs = method(x)
                    shown = (found[:, 0] > 0) if delta > 0 else (found != 0).any(axis=1)
                    cells += [f"{shown.mean():.3f}", f"{runs.mean():.1f}"]
                print(" | ".join(cells), flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
