"""The judge: scores of arms over seeds in, one frozen judgement out. Every verdict of this project is made here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reg_sweep.stats.estimates import Difference, paired_accuracy_difference
from reg_sweep.stats.family import Family, Question, check_level_and_margin, check_question, claims, compare_scores
from reg_sweep.stats.judgement import ALPHA, UNKNOWN, Finding, Interim, Judgement
from reg_sweep.stats.moderation import Floats, Pairing, Variance, check_pairing
from reg_sweep.stats.power import plan_of
from reg_sweep.stats.scores import Key, Scores, scores_of, verdict_after_losses
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict


def judge(
    scores: Mapping[Key, Mapping[int, float]] | Any,
    baseline: Key,
    *,
    score: str | None = None,
    arm: str | Sequence[str] | None = None,
    seed: str = "seed",
    higher_is_better: bool = True,
    margin: float | None = None,
    design: Design | None = None,
    variance: Variance = "moderated",
    question: Question = "better",
    pairing: Pairing = "seeds",
    correct: Mapping[Key, NDArray[np.bool_]] | None = None,
    exploratory: str = "",
    alpha: float | None = None,
    stopped: Mapping[Key, int] | None = None,
) -> Judgement[Key]:
    """Judges every arm against the baseline, on the seeds that both have: the specification of every verdict.

    Seeds are replicates. Arms are compared with the baseline on common seeds. The probability of any false statement
    about any arm is at most `alpha`, under any dependence.

    Analysed once (`design=None`), with the intervals and p of `family.compare_scores`:

    - *better*, *worse*: the simultaneous interval of the mean difference excludes 0.
    - *shown equivalent*: it lies within the margin; *real but smaller than the margin*: both hold.
    - *shown not worse*: asked alone (`question='not_worse'`), one-sided within the margin, so it takes fewer seeds.
    - *no difference shown*: none of these. This is not evidence of equivalence. *undecided* where only equivalence or
      non-inferiority was asked and is not shown: differences are then not tested.
    - *not ranked*: the arm lacks a finite score on a seed that the baseline has; its missing seeds may be
      its worst. Failed and diverged seeds count on both sides (`scores.verdict_after_losses`): divergence is judged
      two-sided, *worse by divergence* or *better by fewer divergences*, and where either side lost a seed, the
      means of the remaining seeds give no verdict.
    - One seed compares two trained models, not two methods. Where `correct` holds which test images they classify
      correctly, by McNemar's exact test: *these two models differ*, or *no difference between these two models*; else
      *one seed, not tested*.

    With a sequential `design` (`sequential.Design`) arms are analysed at each of its numbers of seeds for which all
    scores are in, counted over the seeds in ascending order, and the error is spent over the analyses. An arm is
    judged until an analysis decides it; its later seeds are ignored. An arm that none decides is *not ranked* if it or
    the baseline lost a seed, else *no difference shown*, or *undecided* for another question than 'better'. The
    design's margin, variance, question and pairing hold.

    Args:
        scores: arm -> seed -> score; nan where the run failed, infinite where it diverged, absent where there is none.
            Or a pandas, polars or pyarrow data frame, read by `scores.scores_of`.
        score, arm, seed: the columns of a frame; without `score` it has a column for each arm and a row for each seed.
        baseline: the arm that all others are compared with.
        higher_is_better: whether a larger score is better.
        margin: the largest difference that does not matter, in the score's unit; None: equivalence is not tested.
        design: the sequential design that was fixed before the first run; None: all scores are analysed once.
        variance: 'moderated' (each arm's variance is shrunk towards the table's) or 'plain' (its own).
        question: 'better' (a difference, and equivalence where there is a margin), 'equivalent' or 'not_worse' alone;
            chosen before the runs, as is `pairing`.
        pairing: 'seeds', or 'none' where a seed's luck does not carry over from one arm to another (Welch's test).
        correct: for a single seed, arm -> whether its model classifies each test image correctly, (n_test,).
        exploratory: why the question was not asked beforehand; estimates and intervals are the same, and every word is
            'exploratory'.
        alpha: the probability of any false statement; None: 5%, or the design's. Smaller if tables share one error.
        stopped: in a design, the number of seeds after which an arm's training stopped, as a study recorded it.

    Returns:
        A frozen `Judgement`; `Judgement.arms[arm].verdict` is a member of `Verdict`, whose `.value` is the word.

    Raises:
        ValueError: the baseline is not an arm; alpha, margin, variance, question or pairing is out of its range; a
        question needs a margin; an argument contradicts the design, or needs one; or a cell of a frame is not a score.
    """
    scores = scores_of(scores, score, arm, seed)
    if baseline not in scores:
        known = ", ".join(map(str, list(scores)[:20]))
        raise ValueError(f"baseline must be one of the arms ({known}), got {baseline!r}")
    table = Scores.of(scores, baseline)
    if design is None and stopped is not None:
        raise ValueError("stopped must be left out without a design: only a sequential study stops an arm")
    if design is not None:
        _check_left_to(design, margin, variance, question, pairing, exploratory, has_images=correct is not None)
        return _sequential(table, design, design.alpha if alpha is None else alpha, higher_is_better, stopped or {})
    alpha = ALPHA if alpha is None else alpha
    check_level_and_margin(alpha, margin)
    check_question(question, margin)
    check_pairing(pairing)
    if len(table.finite(0)) == 1 and not table.diverged(0):
        found, n_split = _models(table, correct or {}, alpha, is_paired=pairing == "seeds")
    else:
        asked = Design((2,), alpha, margin, variance, question, pairing)
        found, n_split = _methods(table, asked, higher_is_better)
    if exploratory:
        found = [replace(f, verdict=Verdict.EXPLORATORY) if f.is_compared else f for f in found]
    return Judgement(
        baseline=baseline,
        arms=MappingProxyType(dict(zip(table.names[1:], found, strict=True))),
        seeds=table.finite(0),
        failed=table.failed(0),
        diverged=table.diverged(0),
        higher_is_better=higher_is_better,
        alpha=alpha,
        margin=margin,
        variance=variance,
        question=question,
        pairing=pairing,
        exploratory=exploratory,
        n_split=n_split,
    )


def _check_left_to(
    design: Design,
    margin: float | None,
    variance: Variance,
    question: Question,
    pairing: Pairing,
    exploratory: str,
    *,
    has_images: bool,
) -> None:
    """Raises ValueError for arguments that a sequential design decides, or that it can't have."""
    asked: dict[str, tuple[object, object]] = {
        "margin": (margin, None),
        "variance": (variance, "moderated"),
        "question": (question, "better"),
        "pairing": (pairing, "seeds"),
    }
    for name, (value, default) in asked.items():
        if value != default and value != (fixed := getattr(design, name)):
            raise ValueError(f"{name} must be left to the design, which has {fixed}, got {value!r}")
    if exploratory:
        raise ValueError(f"exploratory must be left out with a design, which was fixed beforehand, got {exploratory!r}")
    if has_images:
        raise ValueError("correct must be left out with a design: it is for a single seed, and a design has several")


# ---- several seeds, analysed once


def _methods(table: Scores[Key], asked: Design, higher_is_better: bool) -> tuple[list[Finding], int]:
    family, rows = _family(table, asked)
    shown = [Verdict.of(word) for word in claims(family, higher_is_better)]
    findings = [_untested(table, row) for row in range(1, len(table.names))]
    for i, row in enumerate(rows):
        verdict, p = _after_losses(table, row, shown[i], family, asked.pairing)
        is_paired = asked.pairing == "seeds"
        lacks = table.missing(row, paired=is_paired) or (is_paired and table.has_lost_alone(row))
        has_lost = not all(np.isfinite(of).all() for of in table.ended(row, asked.pairing))
        verdict = verdict.at_the_end(asked.question, has_lost=has_lost)
        if lacks and not verdict.is_of_divergence:
            verdict = Verdict.NOT_RANKED
        elif not (is_paired or verdict.is_of_divergence) and family.noise.n[i] == 1:
            verdict = Verdict.ONE_SEED
        findings[row - 1] = _finding(table, row, family, i, verdict, p, higher_is_better, is_paired=is_paired)
    return findings, int(np.max(family.correction)) if rows else 0


def _family(table: Scores[Key], asked: Design) -> tuple[Family, list[int]]:
    """The arms that can be tested, as a family, and their rows in the table."""
    finite = np.where(np.isfinite(table.values), table.values, nan)
    known = ~np.isnan(finite)
    n = (known[1:] & known[0]).sum(axis=1) if asked.pairing == "seeds" else known[1:].sum(axis=1)
    lost = np.isinf(table.values)
    has_diverged = (lost[1:] | (lost[0] & table.reported[1:])).any(axis=1)  # either side: both are tested
    rows = [int(i) + 1 for i in np.flatnonzero(has_diverged | (n > 0))]
    correction = max(1, int(((n > 1) | has_diverged).sum()))
    columns = known[0] if asked.pairing == "seeds" and known[0].any() else slice(None)
    tested = finite[[0, *rows]][:, columns]
    if tested.shape[0] == 1 or tested.shape[1] == 0:
        tested = np.full((1 + max(len(rows), 1), 1), nan)
    options = (asked.alpha, asked.margin, asked.variance, correction, asked.question, asked.pairing)
    return compare_scores(tested, *options), rows


def _after_losses(
    table: Scores[Key], row: int, shown: Verdict, family: Family, pairing: Pairing
) -> tuple[Verdict, float]:
    """The verdict after counting lost seeds, and the corrected p of divergence; nan if neither side diverged."""
    ours, theirs = table.ended(row, pairing)
    if ours.size == 0 or theirs.size == 0:
        return shown, nan
    correction = float(np.max(family.correction))
    verdict, test = verdict_after_losses(shown, ours, theirs, family.alpha / correction, pairing)
    has_diverged = bool(np.isinf(ours).any() or np.isinf(theirs).any())
    return verdict, min(1.0, test.p * correction) if has_diverged else nan


def _untested(table: Scores[Key], row: int) -> Finding:
    return Finding(
        Verdict.NOT_RANKED, missing=table.missing(row), failed=table.failed(row), diverged=table.diverged(row)
    )


def _finding(
    table: Scores[Key],
    row: int,
    family: Family,
    i: int,
    verdict: Verdict,
    p_divergence: float,
    higher_is_better: bool,
    *,
    is_paired: bool,
) -> Finding:
    mean, baseline_mean = table.means(row, paired=is_paired)
    return Finding(
        verdict=verdict,
        mean=mean,
        baseline_mean=baseline_mean,
        difference=_difference(family, i, family.interval, family.p),
        alone=_difference(family, i, family.interval_alone, family.p_alone),
        equivalence=_equivalence(family, i),
        p_not_worse=float(family.p_not_worse(higher_is_better)[i]),
        pairs=int(family.noise.n[i]),
        missing=table.missing(row, paired=is_paired),
        failed=table.failed(row),
        diverged=table.diverged(row),
        p_divergence=p_divergence,
        plan=plan_of(family, i),
        by_seed=table.differences(row) if is_paired else (),
        question=family.question,
    )


def _difference(family: Family, i: int, interval: tuple[Floats, Floats], p: Floats) -> Difference:
    mean, n = float(family.noise.mean[i]), int(family.noise.n[i])
    return Difference(mean, float(interval[0][i]), float(interval[1][i]), float(p[i]), n)


def _equivalence(family: Family, i: int) -> Difference:
    if family.margin is None:
        return Difference(float(family.noise.mean[i]), nan, nan, nan, int(family.noise.n[i]))
    return _difference(family, i, family.equivalence_interval, family.p_equivalence)


# ---- several seeds, a sequential design


def _sequential(
    table: Scores[Key], design: Design, alpha: float, higher_is_better: bool, stopped: Mapping[Key, int]
) -> Judgement[Key]:
    """The judgement under a design: arms train until decided at its error, and are judged at `alpha` if smaller."""
    n_arms = len(table.names) - 1
    said = replace(design, alpha=min(alpha, design.alpha))
    paths: list[list[Interim]] = [[] for _ in range(n_arms)]
    decided_at: dict[int, int] = {}
    n_looks = 0
    for position, n in enumerate(design.looks):
        still_open = [i for i in range(n_arms) if i not in decided_at]
        if n > len(table.seeds) or not table.reported[[0, *(i + 1 for i in still_open)], :n].all():
            break
        n_looks += 1
        family, verdicts = said.look_at(table.values[:, :n], position, decided_at, higher_is_better)
        decisions = verdicts
        if said != design:
            _, decisions = design.look_at(table.values[:, :n], position, decided_at, higher_is_better)
        for i in still_open:
            paths[i].append(_interim(family, i, n, verdicts[i], decisions[i], higher_is_better))
            if decisions[i] is not Verdict.UNDECIDED or stopped.get(table.names[i + 1]) == n:
                decided_at[i] = n
    once, rows = _family(table, design)
    findings = {}
    for i, path in enumerate(paths):
        row, alone = i + 1, UNKNOWN
        if row in rows:
            alone = _difference(once, rows.index(row), once.interval_alone, once.p_alone)
        findings[table.names[row]] = _decided(table, row, tuple(path), alone, said)
    return Judgement(
        baseline=table.names[0],
        arms=MappingProxyType(findings),
        seeds=table.finite(0),
        failed=table.failed(0),
        diverged=table.diverged(0),
        higher_is_better=higher_is_better,
        alpha=said.alpha,
        margin=design.margin,
        variance=design.variance,
        question=design.question,
        pairing=design.pairing,
        design=design,
        n_looks=n_looks,
        n_split=n_arms,
    )


def _interim(
    family: Family, i: int, n_seeds: int, verdict: Verdict, decision: Verdict, higher_is_better: bool
) -> Interim:
    return Interim(
        seeds=n_seeds,
        pairs=int(family.noise.n[i]),
        difference=_difference(family, i, family.interval, family.p),
        equivalence=_equivalence(family, i),
        p_not_worse=float(family.p_not_worse(higher_is_better)[i]),
        verdict=verdict,
        decision=decision,
        plan=plan_of(family, i),
    )


def _decided(table: Scores[Key], row: int, path: tuple[Interim, ...], alone: Difference, design: Design) -> Finding:
    """An arm's finding at its last interim analysis."""
    if not path:
        return _untested(table, row)
    last, is_paired = path[-1], design.pairing == "seeds"
    missing = table.missing(row, last.seeds, paired=is_paired)
    ours, theirs = (table.values[r, : last.seeds] for r in (row, 0))
    p = nan
    if np.isinf(ours).any() or np.isinf(theirs).any():
        level = design.level(len(path) - 1) / (len(table.names) - 1)
        test = verdict_after_losses(Verdict.UNDECIDED, ours, theirs, level, design.pairing)[1]
        p = min(1.0, test.p * design.alpha / level)
    verdict = last.verdict.at_the_end(design.question, has_lost=not np.isfinite([ours, theirs]).all())
    mean, baseline_mean = table.means(row, last.seeds, paired=is_paired)
    return Finding(
        verdict=verdict,
        mean=mean,
        baseline_mean=baseline_mean,
        difference=last.difference,
        alone=alone,
        equivalence=last.equivalence,
        p_not_worse=last.p_not_worse,
        pairs=last.pairs,
        missing=missing,
        failed=table.failed(row, last.seeds),  # it was trained on no more
        diverged=table.diverged(row, last.seeds),
        p_divergence=p,
        plan=last.plan,
        path=path,
        by_seed=table.differences(row, last.seeds) if is_paired else (),
        question=design.question,
    )


# ---- one seed


def _models(
    table: Scores[Key], correct: Mapping[Key, NDArray[np.bool_]], alpha: float, *, is_paired: bool
) -> tuple[list[Finding], int]:
    """The findings for a single seed: trained models are compared, not methods. And how many were tested."""
    (seed,) = table.finite(0)
    names, theirs = table.names, correct.get(table.names[0])
    has_score = {name for row, name in enumerate(names) if row and seed in table.finite(row)}
    tested = [name for name in names[1:] if theirs is not None and name in correct and name in has_score]
    findings = []
    for row, name in enumerate(names[1:], 1):
        base = _untested(table, row)
        if name not in has_score and (is_paired or not table.finite(row)):
            findings.append(base)
            continue
        mean, baseline_mean = table.means(row, paired=name in has_score)
        nothing = Difference(mean - baseline_mean, nan, nan, nan, 1)
        difference = alone = nothing
        verdict = Verdict.ONE_SEED
        if name in tested and theirs is not None:
            alone = paired_accuracy_difference(correct[name], theirs, level=1 - alpha)
            difference = paired_accuracy_difference(correct[name], theirs, 1 - alpha, len(tested))
            verdict = Verdict.MODELS_DIFFER if difference.p <= alpha else Verdict.MODELS_ALIKE
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
                by_seed=((seed, mean - baseline_mean),) if name in has_score else (),
            )
        )
    return findings, len(tested)
