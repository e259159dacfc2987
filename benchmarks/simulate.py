"""Simulate the statistics of reg_sweep.stats with a known truth: python benchmarks/simulate.py family

There is one command for each claim of docs/statistics.md: family, power, shrunken, selection, sequential,
sequential_all (designs that spend all of their error), earlier, savings, losses, collapse, chance, planning, crossed.
Each prints a table, the number of simulated tables and the seed. Use --tables N for a quick look, --noise KIND for one
kind of noise, and --pairing none for the test without pairs (family, sequential, power).

Three more commands simulate loops of experiments (loop: loop_tables.py), whole pages (pages: simulate_pages.py), and
`judge` with all of its options (judge: simulate_judge.py).
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import loop_tables
import numpy as np
import simulate_judge
import simulate_pages
from noise import CHUNK, KINDS, SEED, Floats, differences, lose_worst, scores, tables
from numpy.typing import NDArray
from planning import crossed, planning

from reg_sweep.stats.family import Family, claims, compare_arms, compare_scores
from reg_sweep.stats.power import chance_to_beat
from reg_sweep.stats.scores import failure_rate_bound, stray_seeds
from reg_sweep.stats.selection import shrunken_estimate
from reg_sweep.stats.sequential import LOOKS, Design

ARMS, SEEDS = (2, 3, 6, 11, 31), (2, 3, 5, 8, 20)
FAR = 30.0  # far beyond any standard error, so that the equivalence test has its full level


def row(*cells: object) -> None:
    print(" | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells), flush=True)


def complete(kinds: Sequence[str]) -> list[str]:
    """The kinds of noise in which no seed is missing."""
    return [kind for kind in kinds if not kind.startswith("missing")]


def family(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Share of tables with any false claim: all arms equal; all a margin better; every other one; not worse."""
    print("share of tables with any false claim: all differences 0, all at the margin, every other at the margin;")
    print("not worse: all a margin worse. The largest over the truths for plain variances")
    row("noise", "arms", "seeds", "0", "margin", "both", "not worse", "plain, largest")
    largest: dict[str, float] = {}
    for kind in kinds:
        for n_arms in ARMS:
            for n_seeds in SEEDS:
                rates = {}
                for variance in ("moderated", "plain"):
                    chunks = tables(kind, n_tables, n_arms, n_seeds)
                    rates[variance] = sum(_false_claims(x, variance=variance, pairing=pairing) for x in chunks)
                moderated, plain = (rates[v] / n_tables for v in ("moderated", "plain"))
                row(kind, n_arms, n_seeds, *map(float, moderated), float(plain.max()))
                largest[kind] = max(largest.get(kind, 0.0), float(moderated.max()))
    for kind, rate in largest.items():
        row("largest of", kind, rate)


def _false_claims(x: Floats, **how: Any) -> Floats:
    """Number of tables with a false claim, for each of the four truths of `family`."""
    at_0 = compare_scores(x, margin=FAR, **how)
    above, below = _moved(at_0, FAR), replace(_moved(at_0, -FAR), question="not_worse")
    differs, within = at_0.p <= at_0.alpha, above.p_equivalence <= above.alpha
    both = np.where(np.arange(x.shape[1] - 1) % 2 == 0, within, differs)
    not_worse = below.p_not_worse() <= below.alpha
    return np.array([a.any(axis=1).sum() for a in (differs, within, both, not_worse)], dtype=np.float64)


def _moved(family: Family, shift: float) -> Family:
    """The family of the same arms with the same noise, all better by `shift`."""
    return replace(family, noise=replace(family.noise, mean=family.noise.mean + shift))


def power(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Power to show that one arm differs, or is not worse, if the other arms are equal: moderated and plain."""
    print("difference in standard deviations of a paired difference; not worse: of an equal arm, with it as the margin")
    row("noise", "arms", "seeds", "difference", "moderated", "plain", "not worse", "error moderated", "error plain")
    for kind in kinds:
        for n_arms in (3, 6, 11, 31):
            for n_seeds in (2, 3, 5, 8):
                for delta in (1.5, 3.0):
                    found = sum(_power(x, delta, pairing) for x in tables(kind, n_tables, n_arms, n_seeds))
                    row(kind, n_arms, n_seeds, delta, *map(float, np.asarray(found) / n_tables))


def _power(x: Floats, delta: float, pairing: Any) -> Floats:
    step = delta * float(np.nanstd(x[:, 1] - x[:, 0]))
    shifted = x.copy()
    shifted[:, 1] += step
    hits = [
        (compare_scores(shifted, variance=v, pairing=pairing).p[:, 0] <= 0.05).sum() for v in ("moderated", "plain")
    ]
    not_worse = compare_scores(x, margin=step, question="not_worse", pairing=pairing)
    errors = [
        (compare_scores(x, variance=v, pairing=pairing).p <= 0.05).any(axis=1).sum() for v in ("moderated", "plain")
    ]
    return np.array([*hits, (not_worse.p_not_worse()[:, 0] <= 0.05).sum(), *errors], dtype=np.float64)


def shrunken_coverage(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Coverage of the test interval of the arm that is best on val, and the selection bias of its mean."""
    print(
        "coverage: plain 95% t interval of the chosen arm, the shrunken one's; bias in standard errors, before, after"
    )
    row("of", "noise", "arms", "seeds", "plain", "shrunken", "bias", "corrected")
    for quantity, variance in (("difference", "moderated"), ("score", "plain")):
        for kind in complete(kinds):
            for n_arms in (2, 6, 31):
                for n_seeds in (3, 5, 20):
                    cells = _shrunken(quantity, variance, kind, n_tables, n_arms, n_seeds)
                    row(quantity, kind, n_arms, n_seeds, *map(float, cells))


def _shrunken(quantity: str, variance: str, kind: str, n_tables: int, n_arms: int, n_seeds: int) -> Floats:
    # All n_arms are candidates. For differences, the baseline is an additional arm that can't be chosen.
    g = np.random.default_rng([SEED, n_arms, n_seeds])
    sums = np.zeros(4)
    step = max(1, CHUNK // (n_arms * n_seeds))
    for start in range(0, n_tables, step):
        n = min(step, n_tables - start)
        test = scores(kind, n, n_arms + 1, n_seeds, g)
        centre = scores(kind, 2000, n_arms + 1, 20, np.random.default_rng(0)).mean() if kind == "near 100%" else 0.0
        test = test - centre
        spread = test.std()
        val = 0.87 * test / spread + (1 - 0.87**2) ** 0.5 * g.normal(size=test.shape)  # luck correlates 0.87
        values = test[:, 1:] - test[:, :1] if quantity == "difference" else test[:, 1:]
        chosen = val[:, 1:].mean(axis=-1).argmax(axis=1)
        h = shrunken_estimate(values, chosen, variance=variance)
        alone = compare_arms(values, variance="plain")
        low, high = (np.take_along_axis(a, chosen[:, None], 1)[:, 0] for a in alone.interval_alone)
        error = values.std() / n_seeds**0.5
        sums += [
            ((low <= 0) & (high >= 0)).sum(),
            # Without spread there is no interval, and nothing is claimed.
            (np.isnan(h.ci_low) | ((h.ci_low <= 0) & (h.ci_high >= 0))).sum(),
            (h.estimate / error).sum(),
            (h.corrected / error).sum(),
        ]
    return sums / n_tables


def selection(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Error of the chosen arm's mean, before and after the correction, where arms truly differ."""
    print("in standard errors of a mean; spread: sd of the arms' true means; rms: root mean squared error; 5 seeds")
    row("noise", "arms", "spread", "bias", "corrected", "rms", "corrected")
    for kind in complete(kinds):
        for n_arms in (2, 6, 31):
            for spread in (0.0, 0.5, 1.0, 2.0):
                g = np.random.default_rng([SEED, n_arms])
                test = scores(kind, n_tables, n_arms, 5, g)
                luck = test - test.mean(axis=(0, 2), keepdims=True)
                error = luck.std() / 5**0.5
                truth = g.normal(0, spread * error, (n_tables, n_arms)) if spread > 0 else np.zeros((n_tables, n_arms))
                noise = g.normal(0, luck.std(), luck.shape)
                val = truth[..., None] + 0.87 * luck + (1 - 0.87**2) ** 0.5 * noise  # luck correlates 0.87
                chosen = val.mean(axis=-1).argmax(axis=1)
                h = shrunken_estimate(truth[..., None] + luck, chosen, variance="plain")
                true = np.take_along_axis(truth, chosen[:, None], 1)[:, 0]
                off = [(x - true) / error for x in (h.estimate, h.corrected)]
                row(kind, n_arms, spread, *(float(x.mean()) for x in off), *(float((x**2).mean()) ** 0.5 for x in off))


def sequential(n_tables: int, kinds: Sequence[str], pairing: str, spending: str = "open") -> None:
    """Share of tables with any false claim over all looks, with five looks and with a look after every seed."""
    print("share of tables with any false claim over all looks: truths as in family; margin 2 sd of a difference")
    print("no margin: all differences 0 and nothing stops an arm but a false claim. 31 arms: a quarter of the tables")
    print(f"spending {spending}")
    row("noise", "arms", "looks", "0", "margin", "both", "not worse", "no margin")
    largest = 0.0
    for kind in kinds:
        for n_arms in (2, 6, 31):
            for looks in (LOOKS, tuple(range(2, 21))):
                n = n_tables if n_arms < 31 else max(n_tables // 4, 1)
                chunks = tables(kind, n, n_arms, looks[-1])
                errors = sum(_false_over_looks(x, looks, pairing=pairing, spending=spending) for x in chunks) / n
                row(kind, n_arms, f"{len(looks)} looks", *map(float, np.asarray(errors)))
                largest = max(largest, float(np.max(errors)))
    print(f"largest: {largest:.4f}")


def _false_over_looks(x: Floats, looks: tuple[int, ...], **how: Any) -> Floats:
    margin, n_arms = 2 * 2**0.5, x.shape[1] - 1
    at_margin = [np.zeros(n_arms, bool), np.ones(n_arms, bool), np.arange(n_arms) % 2 == 0]

    def states(shift: Floats, **design: Any) -> NDArray[np.str_]:
        moved = x + np.r_[0.0, shift][:, None]
        values = moved if how.get("pairing") == "none" else moved[:, 1:] - moved[:, :1]
        return Design(looks, **how, **design).replay(values)[0]

    found = []
    for truth in at_margin:
        state = states(margin * truth, margin=margin)
        equivalent = (state == "shown equivalent") | (state == "real but smaller than the margin")
        differs = (state == "better") | (state == "worse") | (state == "real but smaller than the margin")
        found.append(np.where(truth, equivalent | (state == "worse"), differs))
    found.append(states(np.full(n_arms, -margin), margin=margin, question="not_worse") == "shown not worse")
    found.append(states(np.zeros(n_arms)) != "undecided")
    return np.array([false.any(axis=1).sum() for false in found], dtype=np.float64)


def earlier(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """False claims and seeds of a design that uses an earlier study's noise, which is right, halved or doubled."""
    print("share of tables with any false claim over 5 looks: the largest of four truths, margin 2 sd")
    print("seeds: the mean that an arm with a gain of 2 sd takes, alone or beside equal arms")
    row("noise", "arms", "none", "right", "half", "double", "seeds, none", "seeds, right")
    largest = 0.0
    for kind in kinds:
        for n_arms in (2, 4, 7):
            drawn = list(tables(kind, n_tables, n_arms, 20))
            true = float(np.mean([np.nanvar(x[:, 1:] - x[:, :1], axis=2, ddof=1).mean() for x in drawn]))
            known = [None, true, true / 4, true * 4]  # of a standard deviation
            found = [
                float(np.max(sum(_false_over_looks(x, LOOKS, earlier_variance=v) for x in drawn)[:4])) / n_tables
                for v in known
            ]
            seeds = [_seeds_of_a_gain(drawn[0], true, v) for v in known[:2]]
            row(kind, n_arms, *found, *seeds)
            largest = max(largest, *found[1:])
    print(f"largest: {largest:.4f}")


def _seeds_of_a_gain(x: Floats, variance: float, known: float | None) -> float:
    d = x[:, 1:] - x[:, :1]
    d[:, 0] += 2 * variance**0.5
    return float(Design(earlier_variance=known).replay(d)[1][:, 0].mean())


def losses(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Verdicts under the rules for lost seeds, when arms are equal and one side loses its worst seeds."""
    n_tables = min(n_tables, 1000)
    print("equal arms, normal noise, 5 looks, margin 2 sd of a difference; share of tables with each word, at any look")
    words = ("better", "worse", "equivalent", "worse by divergence", "better by fewer divergences", "undecided")
    row("arms", "who loses", "of its seeds", "how", *words)
    for n_arms in (2, 6):
        for side, n_row in (("baseline", 0), ("arm", 1), ("both", 0)):
            for share in (0.1, 0.2, 0.3, 0.5):
                for how, value in (("failed", np.nan), ("diverged", np.inf)):
                    found = _words_after_losses(n_tables, n_arms, side, n_row, share, value)
                    row(n_arms, side, share, how, *(found.get(word, 0) / n_tables for word in words))


def _words_after_losses(
    n_tables: int, n_arms: int, side: str, n_row: int, share: float, value: float
) -> dict[str, int]:
    """Number of tables whose first arm got each verdict. 'both': each side loses its own worst seeds."""
    x = scores("normal", n_tables, n_arms, 20, np.random.default_rng([SEED, n_arms]))
    x = lose_worst(x, n_row, share, value)
    x = lose_worst(x, 1, share, value) if side == "both" else x
    design, found = Design(margin=2 * 2**0.5), dict[str, int]()
    for table in x:
        decided: dict[int, int] = {}
        word = "undecided"
        for look, n in enumerate(design.looks):
            words = design.look_at(table, look, decided)[1]
            word = str(words[0]) if 0 not in decided else word
            decided |= {i: n for i, w in enumerate(words) if w != "undecided" and i not in decided}
        word = {"shown equivalent": "equivalent", "real but smaller than the margin": "equivalent"}.get(word, word)
        found[word] = found.get(word, 0) + 1
    return found


def collapse(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Verdicts and warnings on an arm that collapses on a tenth of its seeds, which no test of means can detect."""
    print("arm: 10 sd lower on a tenth of its seeds; margin 2 sd of a difference; bound: on the rate, with no collapse")
    row("seeds", "shown equivalent", "without a collapse", "bound then", "stray seeds named", "named in normal noise")
    for n in (3, 5, 8, 20):
        g = np.random.default_rng([SEED, n])
        x = g.normal(size=(n_tables, 2, n))
        collapsed = g.random((n_tables, n)) < 0.1
        strays = [bool(stray_seeds(v)) for v in x[:5000, 1]]
        x[:, 1] -= 10 * collapsed
        words = claims(compare_scores(x, margin=2 * 2**0.5))[:, 0]
        equivalent = (words == "shown equivalent") | (words == "real but smaller than the margin")
        named = [bool(stray_seeds(v)) for v in x[:5000, 1][collapsed[:5000].any(axis=1)]]
        clean = ~collapsed.any(axis=1)
        bound = failure_rate_bound(0, n)
        row(n, *map(float, (equivalent.mean(), clean.mean(), bound, np.mean(named or [0]), np.mean(strays))))


def chance(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Coverage of the shares of wins, ties and losses on a new seed, for a fixed number of seeds and over looks."""
    print(
        "the truth is counted in a million seeds; the smallest coverage of the three shares; looks: at all five looks"
    )
    row("noise", "difference", *(f"{n} seeds" for n in (3, 5, 8, 20)), "5 looks")
    for kind in kinds:
        for shift in (0.0, 1.0):
            row(kind, shift, *map(float, _chance(kind, shift, min(n_tables, 4000))))


def _chance(kind: str, shift: float, n_tables: int) -> Floats:
    g, looks = np.random.default_rng(SEED), Design()
    many = _shifted(kind, shift, 1_000_000 // 20, g)
    truth = np.array([np.mean(f(many[~np.isnan(many)])) for f in (_wins, _ties, _defeats)])
    d = _shifted(kind, shift, n_tables, g)
    fixed = [_covers(d[:, :n], truth, 0.95) for n in (3, 5, 8, 20)]
    over = np.logical_and.reduce([_covers(d[:, :n], truth, looks.coverage(i)) for i, n in enumerate(looks.looks)])
    return np.array([c.mean(axis=0).min() for c in (*fixed, over)])


def _shifted(kind: str, shift: float, n_tables: int, g: np.random.Generator) -> Floats:
    x = scores(kind, n_tables, 2, 20, g)
    d = x[:, 1] - x[:, 0]
    return d + shift * (d != 0)  # ties stay ties


def _wins(d: Floats) -> NDArray[np.bool_]:
    return d > 1e-9


def _defeats(d: Floats) -> NDArray[np.bool_]:
    return d < -1e-9


def _ties(d: Floats) -> NDArray[np.bool_]:
    return np.abs(d) <= 1e-9


def _covers(d: Floats, truth: Floats, level: float) -> NDArray[np.bool_]:
    """Whether each share's interval contains the truth, (tables, 3); a table without seeds claims nothing."""
    found = []
    for table in d:
        known = table[~np.isnan(table)]
        c = chance_to_beat(known, level=level) if known.size else None
        shares = () if c is None else (c.win, c.tie, c.loss)
        covers = [s.ci_low <= p <= s.ci_high for s, p in zip(shares, truth, strict=False)]
        found.append(covers or [True] * 3)
    return np.array(found)


def savings(n_tables: int, kinds: Sequence[str], pairing: str) -> None:
    """Seeds until the verdict, compared with a fixed number of seeds that decides the same share of arms."""
    print("normal noise, margin and difference in sd of a paired difference; decided: the share of arms with a verdict")
    row("arms", "margin", "difference", "decided", "of fixed 20", "mean seeds", "of 20", "fixed for the same", "ratio")
    for n_arms in (3, 6):
        for margin in (1.5, 1.75, 2.0):
            for share in (0, 0.5, 1, 2):
                d = np.concatenate(list(differences("normal", n_tables, n_arms, 20)))
                d = d / 2**0.5 + share * margin
                state, n_seeds = Design(margin=margin).replay(d)
                decided, seeds = float((state != "undecided").mean()), float(n_seeds.mean())
                fixed = {n: _decided(d[..., :n], margin) for n in range(3, 21)}
                same = next((n for n, share_decided in fixed.items() if share_decided >= decided), 20)
                row(n_arms, margin, f"{share} margins", decided, fixed[20], seeds, seeds / 20, same, seeds / same)


def _decided(d: Floats, margin: float) -> float:
    return float((claims(compare_arms(d, margin=margin)) != "no difference shown").mean())


CLAIMS: dict[str, Callable[[int, Sequence[str], str], None]] = {
    "family": family,
    "power": power,
    "shrunken": shrunken_coverage,
    "selection": selection,
    "sequential": sequential,
    "sequential_all": lambda n_tables, kinds, pairing: sequential(n_tables, kinds, pairing, "all"),
    "earlier": earlier,
    "savings": savings,
    "losses": losses,
    "collapse": collapse,
    "chance": chance,
    "planning": lambda n_tables, kinds, pairing: planning(n_tables, row),
    "crossed": lambda n_tables, kinds, pairing: crossed(n_tables, row),
}
OTHERS = {"loop": loop_tables, "pages": simulate_pages, "judge": simulate_judge}
ONE_NOISE = ("power",)  # the default noises


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        OTHERS[sys.argv[1]].main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--tables", type=int, default=20_000, metavar="N")
    parser.add_argument("--noise", choices=KINDS, action="append", help="only this noise (repeatable)")
    parser.add_argument("--pairing", choices=("seeds", "none"), default="seeds")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(f"{arguments.claim}: {arguments.tables:,} tables each, seed {SEED}, pairing {arguments.pairing}")
    kinds = arguments.noise or (("normal",) if arguments.claim in ONE_NOISE else KINDS)
    CLAIMS[arguments.claim](arguments.tables, kinds, arguments.pairing)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
