"""Simulate studies that end with the first arm that is not worse: python benchmarks/simulate_in_order.py [--tables N]

There are three arms, the smallest network first, and the baseline, with looks at 3, 5, 8, 12 and 20 seeds. The margin
is 2 standard deviations of a paired difference. An arm that is worse by the margin may be called not worse in at most
5% of the studies. The studies are decided by the same code as real ones.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from noise import SEED, Floats, scores

from reg_sweep.search.sequential import given_up
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

MARGIN = 2 * 2**0.5
DESIGN = Design(margin=MARGIN, question="not_worse")
ARMS = [{"arm": "smallest"}, {"arm": "middle"}, {"arm": "largest"}]
# Each arm's loss, in margins.
TRUTHS = {
    "all worse by the margin": (1.0, 1.0, 1.0),
    "the largest alone equal": (1.0, 1.0, 0.0),
    "worse by 1.5, by the margin, equal": (1.5, 1.0, 0.0),
    "worse by 1.5, by a third, equal": (1.5, 1 / 3, 0.0),
    "all equal": (0.0, 0.0, 0.0),
}
NOISES = ("normal", "copies 0.99", "baseline x3", "skew")


def study(x: Floats, in_order: bool) -> tuple[int | None, int]:
    """The first arm shown not worse, and the number of runs; scores are (arms, seeds) with the baseline first."""
    looks: list[dict[str, object]] = []
    decided: dict[int, int] = {}
    found, runs, last = set(), 0, 0
    is_open = list(range(len(ARMS)))
    for position, n in enumerate(DESIGN.looks):
        runs, last = runs + (1 + len(is_open)) * (n - last), n
        family, words = DESIGN.look_at(x[:, :n], position, decided)
        told = [(i, str(words[i]), float(family.noise.mean[i])) for i in is_open]
        looks.append({"arms": [{"params": ARMS[i], "decision": word, "estimate": d} for i, word, d in told]})
        found |= {i for i, word, _ in told if word != Verdict.UNDECIDED}
        closed = [ARMS.index(arm) for arm in given_up(ARMS, looks, -MARGIN)] if in_order else []  # type: ignore[arg-type]
        decided |= {i: n for i in is_open if i in found or i in closed}
        is_open = [i for i in is_open if i not in decided]
        if not is_open:
            break
    return min(found, default=None), runs


def row(cells: Sequence[object]) -> None:
    print(" | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    n_tables = parser.parse_args().tables
    print(f"{n_tables:,} studies each, seed {SEED}; truth: each arm's loss in margins, the smallest network first")
    row(["noise", "truth", "ends with an arm that is worse", "with the smallest that is not", "runs", "without order"])
    largest = 0.0
    for noise in NOISES:
        x = scores(noise, n_tables, 1 + len(ARMS), DESIGN.max_seeds, np.random.default_rng(SEED))
        for truth, losses in TRUTHS.items():
            moved = x - MARGIN * np.r_[0.0, losses][:, None]
            ends, runs = zip(*(study(one, in_order=True) for one in moved), strict=True)
            whole = [study(one, in_order=False)[1] for one in moved]
            best = next((i for i, loss in enumerate(losses) if loss < 1), None)
            false = float(np.mean([i is not None and losses[i] >= 1 for i in ends]))
            right = "" if best is None else float(np.mean([i == best for i in ends]))
            row([noise, truth, false, right, f"{np.mean(runs):.1f}", f"{np.mean(whole):.1f}"])
            largest = max(largest, false)
    print(f"largest: {largest:.4f}")


if __name__ == "__main__":
    main()
