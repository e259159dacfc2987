"""Loops of experiments with a known truth, for loop_tables.py.

This does what `reg_sweep.stats.loop` does, for many loops at once (tests/stats/test_loop.py compares the two). Scores
are in units of the standard deviation of a paired difference with normal noise.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, zeta

from reg_sweep.stats import candidate
from reg_sweep.stats.candidate import BROKEN, HOPE, NOISIER, OWN_LEVEL, Rules
from reg_sweep.stats.loop import N_HELD_OUT

Floats = NDArray[np.float64]
SEED = 20


# ---- the noise of a run


def run_noise(kind: str, g: np.random.Generator, shape: tuple[int, ...], progress: float = 0.0) -> Floats:
    """A run's own noise, in addition to its seed's effect; variance 1/2 without tails and collapses.

    progress: the share of the loop that is done.
    """
    if kind == "skewed":
        e = g.exponential(size=shape) - 1
    elif kind == "t3":
        e = g.standard_t(3, shape) / sqrt(3)
    elif kind == "near 99.5%":  # of 1,000 images
        e = (g.binomial(1000, 0.995, shape) - 995) / sqrt(4.975)
    elif kind == "near 99.5% of 200":
        e = (g.binomial(200, 0.995, shape) - 199) / sqrt(0.995)
    else:
        e = g.normal(size=shape)
    if kind == "collapse":
        e = e - 20 * (g.random(shape) < 0.1)
    if kind == "grows x3" and progress >= 0.5:
        e = 3 * e
    return e / sqrt(2)


def candidate_scale(kind: str, g: np.random.Generator, n_loops: int) -> Floats:
    """Noise of a candidate's runs relative to the first baseline's, (n_loops, 1)."""
    scale = np.ones((n_loops, 1))
    if kind == "candidates x3":
        scale[:] = 3
    elif kind == "one in ten x3":
        scale[g.random(n_loops) < 0.1] = 3
    elif kind == "half x0.1":
        scale[g.random(n_loops) < 0.5] = 0.1
    return scale


NOISES = (
    "normal",
    "skewed",
    "t3",
    "near 99.5%",
    "collapse",
    "grows x3",
    "candidates x3",
    "unpaired",
    "near 99.5% of 200",
    "one in ten x3",
)


# ---- the rules of reg_sweep.stats, for many loops at once


@dataclass
class Pools:
    """`candidate.NoiseHistory` for n loops: arrays of shape (n,)."""

    pilot: Floats

    def __post_init__(self) -> None:
        zero = np.zeros_like(self.pilot)
        self.long, self.recent = (zero.copy(), zero.copy()), (zero.copy(), zero.copy())
        self.kurtosis = [(zero.copy(), zero.copy()) for _ in candidate.KURTOSIS_MEMORY]

    def prior(self) -> tuple[Floats, Floats]:
        """`candidate.NoiseHistory.prior`."""
        pilot = np.maximum(candidate.PILOT_DF - self.long[1] / candidate.PILOT_FADES, 0.0)
        df = pilot + self.long[1]
        variance = (pilot * 2 * self.pilot + self.long[0]) / df
        is_known = self.recent[1] >= candidate.FEWEST_RECENT_DF
        recent = self.recent[0] / np.maximum(self.recent[1], 1.0)
        variance = np.where(is_known, np.maximum(variance, recent), variance)
        values = [
            (weight * candidate.FIRST_KURTOSIS + total) / (weight + n)
            for (weight, _), (total, n) in zip(candidate.KURTOSIS_MEMORY, self.kurtosis, strict=True)
        ]
        worth = [candidate.prior_worth(float(h)) for h in np.maximum(*values)]
        return variance, np.minimum(df, worth)

    def add(self, squares: Floats, df: Floats, prior_variance: Floats) -> None:
        """`candidate.NoiseHistory.add`, for loops that have squares."""
        tells = squares > 0
        f = np.where(tells, df, 0.0)
        ratio = np.where(tells, squares / np.maximum(df, 1) / prior_variance, 0.0)
        term = f * ratio**2 * f / (f + 2)
        self.kurtosis = [
            _remembered(total + term, n + f, memory)
            for (_, memory), (total, n) in zip(candidate.KURTOSIS_MEMORY, self.kurtosis, strict=True)
        ]
        self.long = _remembered(self.long[0] + squares, self.long[1] + f, candidate.LONG_DF)
        self.recent = _remembered(self.recent[0] + squares, self.recent[1] + f, candidate.RECENT_DF)


def _remembered(total: Floats, n: Floats, memory: float) -> tuple[Floats, Floats]:
    keep = np.minimum(1.0, memory / np.maximum(n, 1e-12))
    return keep * total, keep * n


def judged(d: Floats, level: Floats, prior: tuple[Floats, Floats], rules: Rules) -> tuple[NDArray[np.bool_], ...]:
    """`candidate.judged` for n candidates over all looks: which are kept, their seeds, squares, and smallest p / share.

    d: (n, max_seeds), the improvements in the order in which the seeds would be run.
    """
    last = rules.max_seeds
    size = len(d)
    kept, n_seeds, squares, smallest = np.zeros(size, bool), np.zeros(size, int), np.zeros(size), np.ones(size)
    a = np.arange(size)
    for n, share in rules.looks.items():
        x = d[a, :n]
        mean, own = x.mean(axis=1), x.var(axis=1, ddof=1)
        own = np.where(np.ptp(x, axis=1) <= 1e-12 * np.abs(x).max(axis=1), 0.0, own)
        (s2, d0), f = (part[a] for part in prior), n - 1
        n_seeds[a], squares[a] = n, np.where(mean > -BROKEN * np.sqrt(s2), own * f, 0.0)
        is_noisier = own > s2 * (1 - 2 / (9 * f) + NOISIER * sqrt(2 / (9 * f))) ** 3
        variance = np.where(is_noisier, own, (d0 * s2 + f * own) / (d0 + f))
        df = np.where(is_noisier, f, d0 + f)
        p = stdtr(df, -mean * np.sqrt(n / variance))
        with np.errstate(divide="ignore", invalid="ignore"):
            own_p = np.where(own > 0, stdtr(f, -mean * np.sqrt(n / own)), 0.0)
        passes = (mean > 0) & (own_p <= OWN_LEVEL)
        smallest[a] = np.where(passes, np.minimum(smallest[a], p / share), smallest[a])
        is_kept = passes & (p <= share * level[a])
        hoped = (mean + HOPE * np.sqrt(variance * (1 / n - 1 / last))) / np.sqrt(variance / last)
        no_hope = (stdtr(d0 + f, -hoped) > rules.looks[last] * level[a]) | ~x.any(axis=1)
        kept[a] = is_kept
        a = a[~is_kept & ~no_hope]
        if not len(a):
            break
    return kept, n_seeds, squares, smallest


# ---- levels: LORD++ as in candidate.level, and the alternatives that were tried


@dataclass
class Levels:
    """Level of each loop's next candidate; a keep raises later levels."""

    name: str
    n_loops: int
    length: int
    error: float = 0.05

    def __post_init__(self) -> None:
        j = np.arange(1, self.length + 2)
        self.gamma = (
            np.array([candidate.gamma(i) for i in j]) if self.name in ("LORD++", "any") else j**-1.6 / zeta(1.6)
        )
        self.first = self.error * {"any": 1.0, "LORD++": candidate.FIRST_WEALTH}.get(self.name, 0.5)
        self.budget = np.tile(self.first * self.gamma, (self.n_loops, 1))
        self.at, self.n_kept, self.rows = (
            np.zeros(self.n_loops, int),
            np.zeros(self.n_loops, int),
            np.arange(self.n_loops),
        )

    def now(self) -> Floats:
        """Level of the next candidate."""
        scale = {"SAFFRON": 1 - 0.25, "ADDIS": 0.5 - 0.25}.get(self.name, 1.0)
        return np.minimum(scale * self.budget[self.rows, self.at], 0.25)

    def after(self, kept: NDArray[np.bool_], p: Floats) -> None:
        """Record whether the candidate was kept, and its p over all looks."""
        self.at += {"SAFFRON": p > 0.25, "ADDIS": (p > 0.25) & (p <= 0.5)}.get(self.name, np.ones(len(p), bool))
        for i in np.flatnonzero(kept) if self.name != "any" else ():
            earned = self.error - self.first if self.n_kept[i] == 0 else self.error
            self.budget[i, self.at[i] :] += earned * self.gamma[: self.length + 1 - self.at[i]]
        self.n_kept += kept


# ---- loops


@dataclass(frozen=True)
class Found:
    """Shares and means over many loops. `claimed`: the last baseline's gain on held-out seeds minus its true gain.

    false_in: the share of loops with a false keep. share_false: the share of false keeps in a loop, averaged over
    loops. naive: the running best single score minus its true gain.
    """

    false_in: float
    share_false: float
    runs_no_op: float
    power: float
    runs_gain: float
    runs_baseline: float
    claimed: float
    claimed_error: float
    naive: float


def loops(
    kind: str,
    n_loops: int,
    length: int,
    *,
    share: float = 0.0,
    gain: float = 2.0,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    method: str = "LORD++",
    shift: float = 0.0,
) -> Found:
    """Simulate loops of `length` candidates, a random `share` of which are better than the present baseline by `gain`.

    The others are equal to it, or worse by `shift`.
    """
    g = np.random.default_rng([SEED, length, round(1000 * share), round(10 * gain)])
    n, n_held = rules.max_seeds, N_HELD_OUT
    pairs = 0.0 if kind == "unpaired" else sqrt(0.5)  # the effect that a seed has on all of its runs
    baseline, held = run_noise(kind, g, (n_loops, n)), run_noise(kind, g, (n_loops, n_held))
    scores = np.concatenate([baseline, held], axis=1)
    pools = Pools((scores + pairs * g.normal(size=scores.shape)).var(axis=1, ddof=1))
    levels = Levels(method, n_loops, length, rules.error)
    first_held, claimed = held.mean(axis=1), held.mean(axis=1)
    truth, naive, naive_truth = np.zeros(n_loops), baseline[:, 0].copy(), np.zeros(n_loops)
    false, true, n_gains = (np.zeros(n_loops, int) for _ in range(3))
    runs, runs_baseline = np.zeros(2), np.full(n_loops, n + n_held)
    for t in range(length):
        is_gain = g.random(n_loops) < share
        scale = candidate_scale(kind, g, n_loops)
        order = g.permuted(np.tile(np.arange(n), (n_loops, 1)), axis=1)
        effect = np.where(is_gain, gain, -shift)
        own = effect[:, None] + scale * run_noise(kind, g, (n_loops, n), t / length)
        d = own - np.take_along_axis(baseline, order, axis=1)
        prior = pools.prior()
        kept, n_seeds, squares, p = judged(d, levels.now(), prior, rules)
        pools.add(squares, n_seeds - 1.0, prior[0])
        levels.after(kept, p)
        score = truth + own[:, 0] + pairs * g.normal(size=n_loops)
        naive_truth = np.where(score > naive, truth + effect, naive_truth)
        naive = np.maximum(naive, score)
        runs += [n_seeds[~is_gain].sum(), n_seeds[is_gain].sum()]
        n_gains += is_gain
        false += kept & ~is_gain
        true += kept & is_gain
        k = np.flatnonzero(kept)
        truth[k] += effect[k]
        baseline[k] = scale[k] * run_noise(kind, g, (len(k), n), t / length)
        claimed[k] = truth[k] + (scale[k] * run_noise(kind, g, (len(k), n_held), t / length)).mean(axis=1)
        runs_baseline[k] += n + n_held
    moved = (claimed - first_held - truth)[false + true > 0]
    n_tried = n_loops * length
    return Found(
        float((false > 0).mean()),
        float((false / np.maximum(false + true, 1)).mean()),
        runs[0] / (n_tried - n_gains.sum()),
        float(true.sum() / max(n_gains.sum(), 1)),
        runs[1] / max(n_gains.sum(), 1),
        float(runs_baseline.mean()),
        float(moved.mean()) if len(moved) else 0.0,
        float(moved.std() / sqrt(len(moved))) if len(moved) else 0.0,
        float((naive - naive_truth).mean()),
    )


# ---- common rules of thumb (gates), on the same kind of streams


def t_above_2(d: Floats, floor: Floats) -> NDArray[np.bool_]:
    """Pass if Student's paired t of three seeds is above 2."""
    return d.mean(axis=1) > 2 * d.std(axis=1, ddof=1) / sqrt(d.shape[1])


def all_better(d: Floats, floor: Floats) -> NDArray[np.bool_]:
    """Pass if the candidate is better on each seed."""
    return (d > 0).all(axis=1)


def twice_the_floor(d: Floats, floor: Floats) -> NDArray[np.bool_]:
    """Pass if one run is better by more than twice the difference between two runs of the first baseline."""
    return d[:, 0] > 2 * floor


def bootstrap(d: Floats, floor: Floats) -> NDArray[np.bool_]:
    """Pass if at least 95% of the 27 resamples of three seeds have a mean above 0."""
    n = d.shape[1]
    picks = np.stack(np.meshgrid(*[np.arange(n)] * n, indexing="ij"), axis=-1).reshape(-1, n)
    return (d[:, picks].mean(axis=2) > 0).mean(axis=1) >= 0.95


GATES = {
    "t > 2": (t_above_2, 3),
    "both of 2": (all_better, 2),
    "2 x floor": (twice_the_floor, 1),
    "bootstrap": (bootstrap, 3),
}


def gated(gate: str, kind: str, n_loops: int, length: int, share: float = 0.0, gain: float = 2.0) -> Found:
    """`loops` with a gate instead of the judge; a kept candidate's scores become the baseline's."""
    passes, n = GATES[gate]
    g = np.random.default_rng([SEED, length, round(1000 * share), round(10 * gain)])
    pairs = 0.0 if kind == "unpaired" else sqrt(0.5)
    baseline, repeat = run_noise(kind, g, (n_loops, n)), run_noise(kind, g, (n_loops,))
    floor = np.abs(baseline[:, 0] - repeat + pairs * (g.normal(size=n_loops) - g.normal(size=n_loops)))
    first, truth = baseline.mean(axis=1), np.zeros(n_loops)
    false, true, n_gains = (np.zeros(n_loops, int) for _ in range(3))
    for t in range(length):
        is_gain, scale = g.random(n_loops) < share, candidate_scale(kind, g, n_loops)
        effect = np.where(is_gain, gain, 0.0)
        score = (truth + effect)[:, None] + scale * run_noise(kind, g, (n_loops, n), t / length)
        kept = passes(score - baseline, floor)
        n_gains += is_gain
        false += kept & ~is_gain
        true += kept & is_gain
        truth += np.where(kept, effect, 0.0)
        baseline = np.where(kept[:, None], score, baseline)
    moved = (baseline.mean(axis=1) - first - truth)[false + true > 0]
    return Found(
        float((false > 0).mean()),
        float((false / np.maximum(false + true, 1)).mean()),
        float(n),
        float(true.sum() / max(n_gains.sum(), 1)),
        float(n),
        float(n + (gate == "2 x floor")),
        float(moved.mean()) if len(moved) else 0.0,
        float(moved.std() / sqrt(len(moved))) if len(moved) else 0.0,
        0.0,
    )
