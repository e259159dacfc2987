"""The judge: scores of arms over seeds in, one frozen judgement out. Every verdict of this project is made here."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from math import isnan, nan
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from reg_sweep.stats.estimates import Difference, paired_accuracy_difference
from reg_sweep.stats.family import Family, check_level_and_margin, claims, compare_arms
from reg_sweep.stats.moderation import Floats, Variance
from reg_sweep.stats.power import Plan, plan_of
from reg_sweep.stats.scores import Key, Scores
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

ALPHA = 0.05
Name = TypeVar("Name", bound=Hashable)
_UNKNOWN = Difference(nan, nan, nan, nan, 0)


@dataclass(frozen=True)
class Interim:
    """An arm at one interim analysis of a sequential design, at so many `seeds`, `pairs` of them complete.

    `difference` has the simultaneous interval of all arms and analyses and the p that belongs to it, `equivalence` the
    interval that lies within the margin exactly where equivalence is shown. `verdict` is UNDECIDED where the arm needs
    more seeds.
    """

    seeds: int
    pairs: int
    difference: Difference
    equivalence: Difference
    verdict: Verdict
    plan: Plan | None


@dataclass(frozen=True)
class Finding:
    """What the scores of one arm have shown against the baseline's.

    Attributes:
        verdict: the word, and all that depends on it.
        mean, baseline_mean: the mean scores over the pairs; nan without a pair.
        difference: arm minus baseline over the pairs, with the simultaneous interval of all arms (and interim
            analyses) and the corrected p that belongs to it: p <= alpha exactly where the interval leaves out 0.
        alone: the same as if this were the only arm, analysed once: for details, not for a verdict.
        equivalence: the interval that lies within the margin exactly where its corrected p is at most alpha.
        pairs: the number of seeds on which both have a finite score.
        missing: the baseline's seeds on which this arm has no finite score.
        failed, diverged: this arm's seeds that failed, or diverged.
        p_divergence: the corrected p of 'it diverges no more often than the baseline'; nan where it never diverged.
        plan: the test that was made, to plan more seeds with; None without spread.
        path: its interim analyses, in order; empty where all was analysed once.
        by_image: whether two trained models were compared over test images (McNemar), for want of seeds.
    """

    verdict: Verdict
    mean: float = nan
    baseline_mean: float = nan
    difference: Difference = _UNKNOWN
    alone: Difference = _UNKNOWN
    equivalence: Difference = _UNKNOWN
    pairs: int = 0
    missing: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    p_divergence: float = nan
    plan: Plan | None = None
    path: tuple[Interim, ...] = ()
    by_image: bool = False

    @property
    def is_tied(self) -> bool:
        """Whether several seeds differ from the baseline by the same, so that there is no interval and no p."""
        return self.pairs > 1 and isnan(self.difference.p)

    @property
    def is_compared(self) -> bool:
        """Whether it has a pair with the baseline, or diverged, which is compared too."""
        return self.pairs > 0 or bool(self.diverged)

    @property
    def is_tested(self) -> bool:
        """Whether some test was made of this arm."""
        return not isnan(self.difference.p) or not isnan(self.p_divergence)


@dataclass(frozen=True)
class Judgement(Generic[Key]):
    """What all arms have shown against `baseline`, and over what the error was split.

    Attributes:
        arms: each arm but the baseline, in the order of the scores, and its finding.
        seeds: the baseline's seeds with a finite score: those that every arm is asked for.
        failed, diverged: the baseline's seeds that failed, or diverged.
        alpha: the error of everything that is said here.
        margin: the largest difference that does not matter, in the score's unit; None asks no equivalence.
        variance: how noise is estimated.
        design: the sequential design that judged, None where all was analysed once.
        n_looks: how many of its interim analyses are done.
    """

    baseline: Key
    arms: Mapping[Key, Finding]
    seeds: tuple[int, ...]
    failed: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    higher_is_better: bool = True
    alpha: float = ALPHA
    margin: float | None = None
    variance: Variance = "moderated"
    design: Design | None = None
    n_looks: int = 0

    def renamed(self, names: Mapping[Key, Name]) -> "Judgement[Name]":
        """The same of arms under other names; an arm that has none is left out."""
        arms = {names[arm]: finding for arm, finding in self.arms.items() if arm in names}
        same = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("baseline", "arms")}
        return Judgement(baseline=names[self.baseline], arms=MappingProxyType(arms), **same)

    @property
    def n_split(self) -> int:
        """The number of arms over which the error is split."""
        return sum(finding.is_tested for finding in self.arms.values())


def judge(
    scores: Mapping[Key, Mapping[int, float]],
    baseline: Key,
    *,
    higher_is_better: bool = True,
    margin: float | None = None,
    design: Design | None = None,
    variance: Variance = "moderated",
    correct: Mapping[Key, NDArray[np.bool_]] | None = None,
) -> Judgement[Key]:
    """Judges every arm against the baseline, on the seeds that both have: the specification of every verdict.

    Seeds are replicates. Arms are compared in pairs, on common seeds; all that is said of all arms together is wrong
    with probability `ALPHA` (5%) at most, whatever depends on what.

    Analysed once (`design=None`), with the intervals and p of `family.compare_arms`:

    - *better*, *worse*: the simultaneous interval of the mean difference leaves out 0.
    - *shown equivalent*: it lies within the margin; *real but smaller than the margin*: both hold.
    - *no difference shown*: neither. That is no evidence of equivalence.
    - *not ranked*: the arm lacks a finite score on a seed that the baseline has: what is missing may be what it was
      bad at. *worse by divergence*: an arm with a diverged seed is judged by how often it diverges alone (exact sign
      test, `estimates.divergence_p`); where that shows nothing it is not ranked.
    - One seed compares two trained models, not two methods: by McNemar's exact test where `correct` holds which test
      images they classify correctly, else *one seed, not tested*.

    With a sequential `design` (`sequential.Design`) arms are analysed at each of its numbers of seeds for which all
    scores are in, counted over the seeds in ascending order, and the error is spent over the analyses. An arm is
    judged until an analysis decides it; later seeds of it are never looked at. The design's margin and variance hold.

    Args:
        scores: arm -> seed -> score; nan where the run failed, infinite where it diverged, absent where there is none.
        baseline: the arm that all others are compared with.
        higher_is_better: whether a larger score is better.
        margin: the largest difference that does not matter, in the score's unit; None asks no equivalence.
        design: None: all scores are analysed once. Else the sequential design that was fixed before the first run.
        variance: 'moderated' (each arm's variance is shrunk towards the table's) or 'plain' (its own).
        correct: of one seed, arm -> whether its model classifies each test image correctly, (n_test,).

    Returns:
        A frozen `Judgement`; `Judgement.arms[arm].verdict` is a member of `Verdict`, whose `.value` is the word.

    Raises:
        ValueError: the baseline has no scores, a margin is not above 0, or it is given beside another one's design.
    """
    if baseline not in scores:
        known = ", ".join(map(str, list(scores)[:20]))
        raise ValueError(f"baseline must be one of the arms ({known}), got {baseline!r}")
    check_level_and_margin(ALPHA, margin)
    table = Scores.of(scores, baseline)
    if design is not None:
        if margin is not None and margin != design.margin:
            raise ValueError(f"margin must be left to the design, which has {design.margin}, got {margin!r}")
        return _sequential(table, design, higher_is_better)
    if len(table.finite(0)) == 1:
        found = _models(table, correct or {})
    else:
        found = _methods(table, higher_is_better, margin, variance)
    return Judgement(
        baseline=baseline,
        arms=MappingProxyType(dict(zip(table.names[1:], found, strict=True))),
        seeds=table.finite(0),
        failed=table.failed(0),
        diverged=table.diverged(0),
        higher_is_better=higher_is_better,
        margin=margin,
        variance=variance,
    )


# ---- several seeds, analysed once


def _methods(table: Scores[Key], higher_is_better: bool, margin: float | None, variance: Variance) -> list[Finding]:
    family, rows, correction = _family(table, margin, variance)
    words = claims(family, higher_is_better)
    findings = [_untested(table, row) for row in range(1, len(table.names))]
    for i, row in enumerate(rows):
        verdict, p = Verdict.of(str(words[i])), nan
        missing, diverged = table.missing(row), table.diverged(row)
        if missing:
            verdict = Verdict.NOT_RANKED
        if diverged:
            p = min(1.0, correction * table.divergence_p(row))
            verdict = Verdict.WORSE_BY_DIVERGENCE if p <= ALPHA else Verdict.NOT_RANKED
        findings[row - 1] = _finding(table, row, family, i, verdict, p)
    return findings


def _family(table: Scores[Key], margin: float | None, variance: Variance) -> tuple[Family, list[int], int]:
    """The arms that can be tested, as a family, their rows, and over how many the error is split."""
    d = table.differences()
    has_diverged = np.isinf(table.values[1:]).any(axis=1)
    n_pairs = (~np.isnan(d)).sum(axis=1)
    rows = [int(i) + 1 for i in np.flatnonzero(has_diverged | (n_pairs > 0))]
    correction = max(1, int(((n_pairs > 1) | has_diverged).sum()))
    tested = d[[row - 1 for row in rows]][:, np.isfinite(table.values[0])]
    if tested.shape[1] == 0:
        tested = np.full((len(rows), 1), nan)
    return compare_arms(tested, ALPHA, margin, variance, correction), rows, correction


def _untested(table: Scores[Key], row: int) -> Finding:
    return Finding(
        Verdict.NOT_RANKED, missing=table.missing(row), failed=table.failed(row), diverged=table.diverged(row)
    )


def _finding(table: Scores[Key], row: int, family: Family, i: int, verdict: Verdict, p_divergence: float) -> Finding:
    mean, baseline_mean = table.means(row)
    return Finding(
        verdict=verdict,
        mean=mean,
        baseline_mean=baseline_mean,
        difference=_difference(family, i, family.interval, family.p),
        alone=_difference(family, i, family.interval_alone, family.p_alone),
        equivalence=_equivalence(family, i),
        pairs=int(family.noise.n[i]),
        missing=table.missing(row),
        failed=table.failed(row),
        diverged=table.diverged(row),
        p_divergence=p_divergence,
        plan=plan_of(family, i),
    )


def _difference(family: Family, i: int, interval: tuple[Floats, Floats], p: Floats) -> Difference:
    mean, n = float(family.noise.mean[i]), int(family.noise.n[i])
    return Difference(mean, float(interval[0][i]), float(interval[1][i]), float(p[i]), n)


def _equivalence(family: Family, i: int) -> Difference:
    if family.margin is None:
        return Difference(float(family.noise.mean[i]), nan, nan, nan, int(family.noise.n[i]))
    return _difference(family, i, family.equivalence_interval, family.p_equivalence)


# ---- several seeds, a sequential design


def _sequential(table: Scores[Key], design: Design, higher_is_better: bool) -> Judgement[Key]:
    n_arms = len(table.names) - 1
    paths: list[list[Interim]] = [[] for _ in range(n_arms)]
    decided_at: dict[int, int] = {}
    n_looks = 0
    for position, n in enumerate(design.looks):
        still_open = [i for i in range(n_arms) if i not in decided_at]
        if not table.reported[[0, *(i + 1 for i in still_open)], :n].all() or n > len(table.seeds):
            break
        n_looks += 1
        family, words = design.look_at(table.values[:, :n], position, decided_at, higher_is_better)
        for i in still_open:
            verdict = Verdict.of(str(words[i]))
            paths[i].append(
                Interim(
                    seeds=n,
                    pairs=int(family.noise.n[i]),
                    difference=_difference(family, i, family.interval, family.p),
                    equivalence=_equivalence(family, i),
                    verdict=verdict,
                    plan=plan_of(family, i),
                )
            )
            if verdict is not Verdict.UNDECIDED:
                decided_at[i] = n
    once, rows, _ = _family(table, design.margin, design.variance)
    place = {row: i for i, row in enumerate(rows)}
    findings = {}
    for i, path in enumerate(paths):
        row = i + 1
        alone = _UNKNOWN if row not in place else _difference(once, place[row], once.interval_alone, once.p_alone)
        findings[table.names[row]] = _decided(table, row, tuple(path), alone, design, n_looks)
    return Judgement(
        baseline=table.names[0],
        arms=MappingProxyType(findings),
        seeds=table.finite(0),
        failed=table.failed(0),
        diverged=table.diverged(0),
        higher_is_better=higher_is_better,
        alpha=design.alpha,
        margin=design.margin,
        variance=design.variance,
        design=design,
        n_looks=n_looks,
    )


def _decided(
    table: Scores[Key], row: int, path: tuple[Interim, ...], alone: Difference, design: Design, n_looks: int
) -> Finding:
    """An arm as its last interim analysis left it."""
    if not path:
        return _untested(table, row)
    last = path[-1]
    missing, diverged = table.missing(row, last.seeds), table.diverged(row)
    p = nan
    if diverged:
        p = min(1.0, design.correction(len(path) - 1, len(table.names) - 1) * table.divergence_p(row))
    verdict = last.verdict
    if verdict is Verdict.UNDECIDED:
        verdict = Verdict.NOT_RANKED if missing or diverged else Verdict.NO_DIFFERENCE
    mean, baseline_mean = table.means(row, last.seeds)
    return Finding(
        verdict=verdict,
        mean=mean,
        baseline_mean=baseline_mean,
        difference=last.difference,
        alone=alone,
        equivalence=last.equivalence,
        pairs=last.pairs,
        missing=missing,
        failed=table.failed(row),
        diverged=diverged,
        p_divergence=p,
        plan=last.plan,
        path=path,
    )


# ---- one seed


def _models(table: Scores[Key], correct: Mapping[Key, NDArray[np.bool_]]) -> list[Finding]:
    """Of one seed the trained models are compared, and no word is said of methods."""
    (seed,) = table.finite(0)
    names, theirs = table.names, correct.get(table.names[0])
    has_score = {name for row, name in enumerate(names) if row and seed in table.finite(row)}
    tested = [name for name in names[1:] if theirs is not None and name in correct and name in has_score]
    findings = []
    for row, name in enumerate(names[1:], 1):
        base = _untested(table, row)
        if name not in has_score:
            findings.append(base)
            continue
        mean, baseline_mean = table.means(row)
        nothing = Difference(mean - baseline_mean, nan, nan, nan, 1)
        difference = alone = nothing
        verdict = Verdict.ONE_SEED
        if name in tested and theirs is not None:
            alone = paired_accuracy_difference(correct[name], theirs, level=1 - ALPHA)
            shared = paired_accuracy_difference(correct[name], theirs, level=1 - ALPHA / len(tested))
            p = min(1.0, len(tested) * shared.p)
            difference = Difference(shared.mean, shared.ci_low, shared.ci_high, p, shared.n)
            verdict = Verdict.MODELS_DIFFER if p <= ALPHA else Verdict.MODELS_ALIKE
        if base.diverged:
            verdict = Verdict.NOT_RANKED
        findings.append(
            Finding(
                verdict=verdict,
                mean=mean,
                baseline_mean=baseline_mean,
                difference=difference,
                alone=alone,
                equivalence=nothing,
                pairs=1,
                failed=base.failed,
                diverged=base.diverged,
                by_image=name in tested,
            )
        )
    return findings
