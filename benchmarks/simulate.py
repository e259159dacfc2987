"""Simulates the statistics of reg_sweep.comparison where the truth is known: python benchmarks/simulate.py family

One command for each claim of docs/statistics.md: family, power, headline, flattery,
sequential, savings, crossed, planning. Each prints a
table with the number of simulated tables and the seed. --tables N for a quick look.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reg_sweep.stats.crossed import crossed_difference, halves
from reg_sweep.stats.family import claims, compare_arms
from reg_sweep.stats.power import Plan, chance_to_beat
from reg_sweep.stats.selection import headline
from reg_sweep.stats.sequential import Design

Floats = NDArray[np.float64]
SEED = 20
CHUNK = 200_000  # scores simulated at once, times ten: it bounds the memory


def scores(kind: str, n_tables: int, n_arms: int, n_seeds: int, g: np.random.Generator) -> Floats:
    """Scores (n_tables, n_arms, n_seeds) of equally good arms; arm 0 is the baseline. In units of a common noise."""
    shape = (n_tables, n_arms, n_seeds)
    if kind == "near 100%":  # 10,000 test images, accuracies of about 99.7%; a seed's luck is shared
        p = 0.997 + g.normal(0, 0.0008, (n_tables, 1, n_seeds)) + g.normal(0, 0.0005, shape)
        return g.binomial(10_000, np.clip(p, 0, 1)) / 10_000 / 0.00074
    sd = np.ones((n_tables, n_arms, 1))
    if "one arm" in kind:
        sd[:, -1] = 3
    if "baseline" in kind:
        sd[:, 0] = 3
    if "half" in kind:
        sd[:, n_arms // 2 :] = 3
    if "mixed" in kind:
        sd = 3 ** g.random((n_tables, n_arms, 1))
    return sd * (g.standard_t(3, shape) if kind.startswith("t3") else g.normal(size=shape))


KINDS = ("normal", "near 100%", "t3", "one arm x3", "baseline x3", "half x3", "mixed x1-3", "t3, one arm x3")


def differences(kind: str, n_tables: int, n_arms: int, n_seeds: int, seed: int = SEED) -> Iterator[Floats]:
    """Paired differences to the baseline (tables, n_arms - 1, n_seeds), in chunks that fit the memory."""
    g = np.random.default_rng([seed, n_arms, n_seeds])
    step = max(1, 10 * CHUNK // (n_arms * n_seeds))
    for start in range(0, n_tables, step):
        x = scores(kind, min(step, n_tables - start), n_arms, n_seeds, g)
        yield x[:, 1:] - x[:, :1]


def row(*cells: object) -> None:
    print(" | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells), flush=True)


def family(n_tables: int, kinds: Sequence[str]) -> None:
    """Any false claim of a table: all arms equal; all exactly a margin better; every other one."""
    print("share of tables with any false claim: all differences 0, all at the margin, every other at the margin")
    row("noise", "arms", "seeds", "0", "margin", "both", "plain: 0", "margin", "both")
    worst: dict[str, float] = {}
    for kind in kinds:
        for n_arms in (2, 3, 4, 6, 11, 31):
            for n_seeds in (2, 3, 5, 20):
                errors = {v: np.zeros(3) for v in ("moderated", "plain")}
                for d in differences(kind, n_tables, n_arms, n_seeds):
                    for variance in ("moderated", "plain"):
                        errors[variance] += _false_claims(d, variance)
                rates = {v: e / n_tables for v, e in errors.items()}
                row(kind, n_arms, n_seeds, *map(float, rates["moderated"]), *map(float, rates["plain"]))
                for v, r in rates.items():
                    worst[v] = max(worst.get(v, 0.0), float(r.max()))
    print("largest:", {v: round(w, 4) for v, w in worst.items()})


def _false_claims(d: Floats, variance: str) -> Floats:
    """How many tables claim something false, for the three truths of `family`."""
    margin = 30.0  # far beyond any standard error: the equivalence test is then at its full level
    x = compare_arms(d, variance=variance)
    differs = x.p <= x.alpha
    x = compare_arms(d + margin, margin=margin, variance=variance)
    within = x.p_equivalence <= x.alpha
    both = np.where(np.arange(d.shape[1]) % 2 == 0, within, differs)
    return np.array([a.any(axis=1).sum() for a in (differs, within, both)], dtype=np.float64)


def power(n_tables: int, kinds: Sequence[str]) -> None:
    """P(one arm is shown to differ), others equal to the baseline, moderated against plain."""
    print("difference in standard deviations of a paired difference; family error where all are equal")
    row("arms", "seeds", "difference", "moderated", "plain", "error moderated", "error plain")
    for n_arms in (3, 6, 11, 31):
        for n_seeds in (3, 5, 8):
            for delta in (1.5, 3.0):
                hits, errors = np.zeros(2), np.zeros(2)
                for d in differences("normal", n_tables, n_arms, n_seeds):
                    shifted = d.copy()
                    shifted[:, 0] += delta * 2**0.5
                    for i, variance in enumerate(("moderated", "plain")):
                        hits[i] += (compare_arms(shifted, variance=variance).p[:, 0] <= 0.05).sum()
                        errors[i] += (compare_arms(d, variance=variance).p <= 0.05).any(axis=1).sum()
                row(n_arms, n_seeds, delta, *map(float, hits / n_tables), *map(float, errors / n_tables))


def headline_coverage(n_tables: int, kinds: Sequence[str]) -> None:
    """The arm that is best on val: how often its test interval covers, and by how much its mean flatters."""
    print("coverage: plain 95% t interval of the chosen arm, the headline's; bias in standard errors, before and after")
    row("of", "noise", "arms", "seeds", "plain", "headline", "bias", "corrected")
    for quantity, variance in (("difference", "moderated"), ("score", "plain")):
        for kind in kinds:
            for n_arms in (2, 6, 31):
                for n_seeds in (3, 5, 20):
                    cells = _headline(quantity, variance, kind, n_tables, n_arms, n_seeds)
                    row(quantity, kind, n_arms, n_seeds, *map(float, cells))


def _headline(quantity: str, variance: str, kind: str, n_tables: int, n_arms: int, n_seeds: int) -> Floats:
    # Candidates are all n_arms; of differences, the baseline is one arm more and can't be chosen.
    g = np.random.default_rng([SEED, n_arms, n_seeds])
    sums = np.zeros(4)
    step = max(1, 10 * CHUNK // (n_arms * n_seeds))
    for start in range(0, n_tables, step):
        n = min(step, n_tables - start)
        test = scores(kind, n, n_arms + 1, n_seeds, g)
        centre = scores(kind, 2000, n_arms + 1, 20, np.random.default_rng(0)).mean() if kind == "near 100%" else 0.0
        test = test - centre
        spread = test.std()
        val = 0.87 * test / spread + (1 - 0.87**2) ** 0.5 * g.normal(size=test.shape)  # luck correlates 0.87
        values = test[:, 1:] - test[:, :1] if quantity == "difference" else test[:, 1:]
        chosen = val[:, 1:].mean(axis=-1).argmax(axis=1)
        h = headline(values, chosen, variance=variance)
        alone = compare_arms(values, variance="plain")
        low, high = (np.take_along_axis(a, chosen[:, None], 1)[:, 0] for a in alone.interval_alone)
        error = values.std() / n_seeds**0.5
        sums += [
            ((low <= 0) & (high >= 0)).sum(),
            # No spread, no interval: it claims nothing.
            (np.isnan(h.ci_low) | ((h.ci_low <= 0) & (h.ci_high >= 0))).sum(),
            (h.estimate / error).sum(),
            (h.corrected / error).sum(),
        ]
    return sums / n_tables


def flattery(n_tables: int, kinds: Sequence[str]) -> None:
    """How far the chosen arm's mean is from the truth, before and after the correction, where arms truly differ."""
    print("in standard errors of a mean; spread: sd of the arms' true means; rms: root mean squared error; 5 seeds")
    row("noise", "arms", "spread", "bias", "corrected", "rms", "corrected")
    for kind in kinds:
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
                h = headline(truth[..., None] + luck, chosen, variance="plain")
                true = np.take_along_axis(truth, chosen[:, None], 1)[:, 0]
                off = [(x - true) / error for x in (h.estimate, h.corrected)]
                row(kind, n_arms, spread, *(float(x.mean()) for x in off), *(float((x**2).mean()) ** 0.5 for x in off))


def sequential(n_tables: int, kinds: Sequence[str]) -> None:
    """Any false claim of a table over all looks, at five looks and after every seed."""
    print("share of tables with any false claim over all looks: truths as in family; margin 2 sd of a difference")
    print("31 arms: a quarter of the tables")
    row("noise", "arms", "looks", "0", "margin", "both")
    designs = {"3,5,8,12,20": (3, 5, 8, 12, 20), "2..20": tuple(range(2, 21))}
    largest = 0.0
    for kind in kinds:
        for n_arms in (2, 6, 31):
            for name, looks in designs.items():
                n = n_tables if n_arms < 31 else max(n_tables // 4, 1)
                errors = np.zeros(3)
                for d in differences(kind, n, n_arms, looks[-1]):
                    errors += _false_over_looks(d, looks)
                row(kind, n_arms, name, *map(float, errors / n))
                largest = max(largest, float(errors.max() / n))
    print(f"largest: {largest:.4f}")


def _false_over_looks(d: Floats, looks: tuple[int, ...]) -> Floats:
    margin = 2 * 2**0.5
    at_margin = [np.zeros(d.shape[1], bool), np.ones(d.shape[1], bool), np.arange(d.shape[1]) % 2 == 0]
    counts = []
    for truth in at_margin:
        state, _ = Design(looks, margin=margin).replay(d + margin * truth[:, None])
        equivalent = (state == "shown equivalent") | (state == "real but smaller than the margin")
        differs = (state == "better") | (state == "worse") | (state == "real but smaller than the margin")
        false = np.where(truth, equivalent | (state == "worse"), differs)
        counts.append(false.any(axis=1).sum())
    return np.array(counts, dtype=np.float64)


def savings(n_tables: int, kinds: Sequence[str]) -> None:
    """Seeds until the verdict against a fixed number of seeds, for the same share of decided arms."""
    print("normal noise, margin and difference in sd of a paired difference; decided: the share of arms with a verdict")
    row("arms", "margin", "difference", "decided", "of fixed 20", "mean seeds", "of 20", "fixed for the same", "ratio")
    for n_arms in (3, 6):
        for margin in (1.5, 1.75, 2.0):
            for share in (0, 0.5, 1, 2):
                (d,) = differences("normal", n_tables, n_arms, 20)
                d = d / 2**0.5 + share * margin
                state, n_seeds = Design(margin=margin).replay(d)
                decided, seeds = float((state != "undecided").mean()), float(n_seeds.mean())
                fixed = {n: _decided(d[..., :n], margin) for n in range(3, 21)}
                same = next((n for n, share_decided in fixed.items() if share_decided >= decided), 20)
                row(n_arms, margin, f"{share} margins", decided, fixed[20], seeds, seeds / 20, same, seeds / same)


def _decided(d: Floats, margin: float) -> float:
    return float((claims(compare_arms(d, margin=margin)) != "no difference shown").mean())


def crossed(n_tables: int, kinds: Sequence[str]) -> None:
    """Coverage for new seeds and new images, and of one half of the images for the other."""
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
    """Outcomes of two arms: an image's difficulty is shared; how each arm takes it, and a seed, is not."""
    difficulty = g.normal(0, 1.5, (1, n_images))
    arms = []
    for ability in (3.2, 3.0):
        logits = ability - difficulty + g.normal(0, seed_sd, (n_seeds, 1)) + g.normal(0, image_sd, (1, n_images))
        arms.append(g.random((n_seeds, n_images)) < 1 / (1 + np.exp(-logits)))
    return tuple(arms)


def _crossed_truth(seed_sd: float, image_sd: float) -> float:
    """The mean difference over all seeds and images: the logistic averaged over one normal, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = (1.5**2 + seed_sd**2 + image_sd**2) ** 0.5
    better, worse = (float((weights / (1 + np.exp(-(a + spread * nodes)))).sum()) for a in (3.2, 3.0))
    return (better - worse) / float(weights.sum())


def planning(n_tables: int, kinds: Sequence[str]) -> None:
    """What a plan promises against what happens: power at the smallest visible difference, chance's interval."""
    n_tables = min(n_tables, 20_000)
    g = np.random.default_rng(SEED)
    row("arms", "seeds", "smallest difference (sd)", "power there")
    for n_arms, n_seeds in ((2, 3), (2, 10), (6, 3), (6, 5), (6, 10), (31, 5)):
        (d,) = differences("normal", min(n_tables, 3000), n_arms, n_seeds)
        x = compare_arms(d).noise
        extra = float(np.nanmedian(x.df)) - (n_seeds - 1)
        visible = Plan(2**0.5, correction=n_arms - 1, prior_df=max(extra, 0.0)).smallest_difference(n_seeds)
        d[:, 0] += visible
        row(n_arms, n_seeds, visible / 2**0.5, float((compare_arms(d).p[:, 0] <= 0.05).mean()))
    row("seeds", "difference (sd)", "coverage of P(arm beats baseline on a new seed)")
    for n_seeds in (3, 5, 20):
        for delta in (0.0, 0.5, 2.0):
            chances = [chance_to_beat(x) for x in g.normal(delta, 1, (min(n_tables, 2000), n_seeds))]
            truth = chance_of(delta)
            row(n_seeds, delta, float(np.mean([c.ci_low <= truth <= c.ci_high for c in chances])))


def chance_of(delta: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(delta))


CLAIMS: dict[str, Callable[[int, Sequence[str]], None]] = {
    "family": family,
    "power": power,
    "headline": headline_coverage,
    "flattery": flattery,
    "sequential": sequential,
    "savings": savings,
    "crossed": crossed,
    "planning": planning,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", choices=CLAIMS)
    parser.add_argument("--tables", type=int, default=20_000, metavar="N")
    parser.add_argument("--noise", choices=KINDS, action="append", help="only this noise (repeatable)")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(f"{arguments.claim}: {arguments.tables:,} tables each, seed {SEED}")
    CLAIMS[arguments.claim](arguments.tables, arguments.noise or KINDS)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
