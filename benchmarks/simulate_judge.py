"""Simulate `judge` with every combination of its options: python benchmarks/simulate.py judge

Arms are equal to the baseline or, for questions with a margin, all exactly a margin better (for not_worse, worse). A
judgement is false if any arm's verdict is false. The scores have these kinds of gaps:

whole        every seed of every arm
baseline-    the baseline's worst fifth failed
diverged     the worst fifth of every arm diverged
missing      a fifth of the arms' seeds was not run
mixed        in each arm, a tenth failed, a tenth diverged, and a tenth was not run
one pair     the arms have other seeds than the baseline, except for one
ties         accuracies over ten images
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from noise import SEED, Floats

from reg_sweep.stats.judge import judge
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

GAPS = ("whole", "baseline-", "diverged", "missing", "mixed", "one pair", "ties")
ABSENT = -1e300
DIFFERS = {v for v in Verdict if v.tone} | {Verdict.SMALL}
AT_MARGIN = {Verdict.EQUIVALENT, Verdict.SMALL, Verdict.WORSE, Verdict.WORSE_BY_DIVERGENCE}
LOST = {Verdict.BETTER_BY_DIVERGENCE, Verdict.WORSE_BY_DIVERGENCE}


def with_gaps(x: Floats, gap: str, g: np.random.Generator) -> Floats:
    """The scores (arms, seeds): nan for a failure, inf for a divergence, `ABSENT` for a seed that was not run."""
    x = x.copy()
    if gap == "baseline-":
        x[0][x[0] < -0.84] = np.nan
    elif gap == "diverged":
        x[x < -0.84] = np.inf
    elif gap == "missing":
        x[1:][g.random(x[1:].shape) < 0.2] = ABSENT
    elif gap == "mixed":
        u = g.random(x.shape)
        x[u < 0.3], x[u < 0.2], x[u < 0.1] = ABSENT, np.inf, np.nan
    elif gap == "one pair":
        x[1:, 1:] = ABSENT
    elif gap == "ties":
        x = np.round(x * 1.6) / 1.6
    return x


def verdicts(x: Floats, **how: Any) -> set[Verdict]:
    """Verdicts on the arms of a table."""
    scores = {a: {s: float(v) for s, v in enumerate(row, 1) if v != ABSENT} for a, row in enumerate(x)}
    return {finding.verdict for finding in judge(scores, 0, **how).arms.values()} if scores[0] else set()


def main(argv: Sequence[str]) -> None:
    """Print the share of false judgements for each cell, and the largest share."""
    parser = argparse.ArgumentParser(prog="simulate.py judge", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=400, metavar="N")
    parser.add_argument(
        "--arms", type=int, action="append", metavar="N", help="number of arms with the baseline; default: 2, 6, 31"
    )
    options = parser.parse_args(argv)
    n = options.tables
    print(
        f"{n:,} tables each, seed {SEED}, 2 se at 0.05: {2 * (0.05 * 0.95 / n) ** 0.5:.4f}; margin 2 sd of a difference"
    )
    print("gaps | arms | seeds | question | pairing | variance | design | false: all equal | all at the margin")
    worst = 0.0
    for gap, n_arms, n_seeds in itertools.product(GAPS, options.arms or (2, 6, 31), (2, 5, 12)):
        tables = max(n // 4, 1) if n_arms > 10 else n
        g = np.random.default_rng([SEED, n_arms, n_seeds])
        x = [with_gaps(t, gap, g) for t in g.normal(size=(tables, n_arms, n_seeds))]
        for question, pairing, variance, spending in itertools.product(
            ("better", "not_worse"), ("seeds", "none"), ("moderated", "plain"), ("", "open", "all")
        ):
            if spending and n_seeds < 5:
                continue
            found = _false(x, question, pairing, variance, spending)
            worst = max(worst, *found)
            shares = " | ".join(f"{share:.3f}" for share in found)
            print(
                f"{gap} | {n_arms} | {n_seeds} | {question} | {pairing} | {variance} | {spending or 'once'} | {shares}"
            )
    print(f"largest: {worst:.4f}")


def _false(x: list[Floats], question: str, pairing: str, variance: str, spending: str) -> tuple[float, float]:
    margin = 2 * 2**0.5
    how: dict[str, Any] = {"variance": variance, "question": question, "pairing": pairing, "margin": margin}
    if spending:
        looks = tuple(k for k in (3, 5, 8, 12) if k <= x[0].shape[1])
        how = {"design": Design(looks, spending=spending, **how)}
    wrong = DIFFERS if question == "better" else set()
    equal = np.mean([bool(verdicts(t, **how) & wrong) for t in x])
    shift = margin * (1 if question == "better" else -1)
    wrong = AT_MARGIN - LOST if question == "better" else {Verdict.NOT_WORSE}
    apart = np.mean([bool(verdicts(_shifted(t, shift), **how) & wrong) for t in x])
    return float(equal), float(apart)


def _shifted(x: Floats, by: float) -> Floats:
    moved = x.copy()
    moved[1:] = np.where(moved[1:] == ABSENT, ABSENT, moved[1:] + by)
    return moved
