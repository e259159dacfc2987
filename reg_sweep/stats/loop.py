"""The judge of a research loop: candidates come one after another, and each is kept, discarded or given one more seed.

Hundreds of changes are tried against a baseline that moves with each one kept. `Loop` is fed (change, seed, score)
and answers. It knows nothing of files, commands or torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import sqrt
from statistics import fmean, variance

from reg_sweep.stats.candidate import (
    BROKEN,
    OWN_LEVEL,
    Answer,
    Candidate,
    LoopError,
    LoopQuestion,
    LoopVerdict,
    NoiseHistory,
    Rules,
    judged,
    level,
    student_quantile,
)

BASELINE = "baseline"
# Held-out seeds: every baseline runs on them and no candidate does, so gains on them have no selection bias.
N_HELD_OUT = 4
SUPERSEDED = "the baseline has changed meanwhile: try it again on top of the new one"
# The squares of larger scores would overflow a float.
_LARGEST = 1e100
# The normal quantile of the power that `Loop.seeds_to_see` plans for.
_POWER = 0.8416


@dataclass
class Baseline:
    """The code that candidates are compared with: the first, or a kept change, measured on fresh seeds.

    held_out: the seeds that all baselines share. compared: the fresh ones that its candidates are run on. lost: those
    on which it failed, and why.
    """

    number: int
    change: str
    digest: str | None
    held_out: list[int]
    compared: list[int]
    scores: dict[int, float] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        """The seeds that it has yet to be run on."""
        return [s for s in (*self.held_out, *self.compared) if s not in self.scores and s not in self.lost]

    @property
    def held_out_scores(self) -> dict[int, float]:
        """The scores that no candidate is compared with, by seed."""
        return {s: self.scores[s] for s in self.held_out if s in self.scores}


class Baselines:
    """The baselines of a loop, each on the same held-out seeds and on fresh ones; the last is the current one."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.noise: NoiseHistory | None = None
        self._next_seed = rules.first_seed + N_HELD_OUT
        self._n = 0
        self.all: list[Baseline] = []
        self.add(BASELINE, None)

    @property
    def present(self) -> Baseline:
        """The baseline that candidates are compared with."""
        return self.all[-1]

    @property
    def fails(self) -> bool:
        """Whether the current baseline failed on more than half as many seeds as a candidate may get."""
        return len(self.present.lost) > self.rules.max_seeds // 2

    def add(self, change: str, digest: str | None) -> None:
        """Adds a kept change, and assigns it seeds."""
        self._n += 1
        first, n = self.rules.first_seed, self.rules.max_seeds
        held_out, compared = range(first, first + N_HELD_OUT), range(self._next_seed, self._next_seed + n)
        self._next_seed += n
        self.all.append(Baseline(self._n, change, digest, list(held_out), list(compared)))

    def tell(self, seed: int, score: float) -> None:
        """Adds a score of the current baseline; the first baseline's noise initializes the loop's."""
        require_asked(seed, self.present.missing)
        self.present.scores[seed] = score
        self._complete()

    def lose(self, seed: int, reason: str) -> None:
        """Records that the current baseline failed on a seed; a comparison seed is replaced by a fresh one."""
        require_asked(seed, self.present.missing)
        self.present.lost[seed] = reason
        if seed in self.present.compared:
            self.present.compared.append(self._next_seed)
            self._next_seed += 1
        self._complete()

    def _complete(self) -> None:
        if not self.present.missing and self.noise is None:
            self.noise = NoiseHistory(variance(self.present.scores.values()))

    def answer(self) -> "Answer":
        """The next run of the current baseline, or the answer that it is measured."""
        missing, n = self.present.missing, len(self.present.scores)
        self._require_working()
        if missing:
            return Answer("run", BASELINE, f"the baseline has {n} of {n + len(missing)} runs", missing[0], n)
        return Answer("keep", BASELINE, f"the baseline is measured on {n} seeds", n=n)

    def required(self) -> NoiseHistory:
        """The noise of the loop, once its current baseline is measured.

        Raises:
            LoopError: the baseline is not measured, it fails too often, or its scores don't differ.
        """
        self._require_working()
        if self.present.missing or self.noise is None:
            raise LoopError(f"the baseline must be measured first: {len(self.present.missing)} runs are missing")
        if self.noise.pilot_variance == 0:
            raise LoopError(
                "the baseline's scores must differ, got one score on all seeds: does its command use {seed}?"
            )
        return self.noise

    def _require_working(self) -> None:
        if self.fails:
            (seed, reason), n = next(iter(self.present.lost.items())), len(self.present.lost)
            raise LoopError(
                f"the baseline must run, got {n} failures ({reason} on seed {seed}): fix it and begin again"
            )


def require_asked(seed: int, asked: Sequence[int]) -> None:
    """Raises LoopError unless the seed is one of those asked for."""
    if seed not in asked:
        wanted = f"run seed {asked[0]}" if asked else "nothing is to be run"
        raise LoopError(f"seed must be one that was asked for, got {seed}: {wanted}")


class Loop:
    """Takes the scores of a baseline and of candidates as they come, and answers each: keep, discard, or run seed S.

    First the baseline is measured on `N_HELD_OUT` held-out seeds, and on as many fresh ones as a candidate may get. A
    candidate is compared on these, in an order of its own, so that one lucky seed does not mislead all. A kept
    candidate becomes the baseline and is measured again: on the held-out seeds, which show its gain, and on fresh ones,
    so that the next candidate need not beat the luck with which this one was kept.

    The same scores in the same order always give the same answers.

    Raises:
        LoopError: by its methods, for invalid input, which leaves the loop unchanged.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.baselines = Baselines(self.rules)
        self.candidates: list[Candidate] = []
        self._kept: list[int] = []
        self._open: list[Candidate] = []
        self._by_change: dict[str, Candidate] = {}
        self._by_digest: dict[str, Candidate] = {}

    @property
    def baseline(self) -> Baseline:
        """The current baseline."""
        return self.baselines.present

    @property
    def next_level(self) -> float:
        """The error that the next candidate may spend."""
        return level(len(self.candidates) + 1, self._kept, self.rules.error, self.rules.control)

    def ask(self, change: str, *, digest: str | None = None, question: LoopQuestion = "better") -> Answer:
        """The next step for a change, or the decision if it has one. Records no score.

        The same `digest` is the same candidate, under any name. A discarded change without a digest may
        be tried again once the baseline has changed.
        """
        self._check_question(question)
        if change == BASELINE or self.baseline.missing:
            return self.baselines.answer()
        self.baselines.required()
        if digest is not None and digest == self.baseline.digest and digest not in self._by_digest:
            return Answer("discard", change, "it is the baseline")
        return self.answer(self._found(change, digest, question) or self._begun(change, digest, question))

    def tell(
        self,
        change: str,
        seed: int,
        score: float,
        *,
        digest: str | None = None,
        question: LoopQuestion = "better",
        baseline: int | None = None,
    ) -> Answer:
        """Records a score. One that is not finite, or beyond 1e100, is a divergence: the candidate is discarded.

        `baseline` is the number of the baseline that the seed was asked for; if it has changed since, nothing is
        recorded and the answer is discard.
        """
        if not abs(score) <= _LARGEST:
            return self.fail(change, seed, "diverged", digest=digest, question=question, baseline=baseline)
        if change == BASELINE:
            self.baselines.tell(seed, score)
            return self.baselines.answer()
        found = self._asked_of(change, seed, digest, question, baseline)
        if isinstance(found, Answer):
            return found
        better = score - self.baseline.scores[seed]
        found.scores[seed] = score
        found.differences.append(better if self.rules.higher_is_better else -better)
        self._decide(found, *judged(found, self.rules))
        return self.answer(found)

    def fail(
        self,
        change: str,
        seed: int,
        reason: str,
        *,
        digest: str | None = None,
        question: LoopQuestion = "better",
        baseline: int | None = None,
    ) -> Answer:
        """Records that a run failed: a candidate is discarded; a baseline loses the seed and gets another.

        A kept change that fails on more than half as many seeds as a candidate may get, held-out ones included, can't
        be a baseline: it is discarded after all, and the previous baseline is restored.
        """
        if change == BASELINE:
            return self._lose(seed, reason)
        found = self._asked_of(change, seed, digest, question, baseline)
        if isinstance(found, Answer):
            return found
        self._decide(found, "discard", f"{reason} on seed {seed}")
        return self.answer(found)

    def _lose(self, seed: int, reason: str) -> Answer:
        self.baselines.lose(seed, reason)
        if not self.baselines.fails or len(self.baselines.all) == 1:
            return self.baselines.answer()
        lost = self.baselines.all.pop().lost
        self._kept.pop()
        kept = next(c for c in reversed(self.candidates) if c.verdict == "keep")
        kept.verdict, kept.reason = "discard", f"kept, but {reason} on {len(lost)} of the seeds that measure it"
        return self.answer(kept)

    def _check_question(self, question: LoopQuestion) -> None:
        if question == "not_worse" and self.rules.margin is None:
            raise LoopError("question=not_worse needs a margin: begin the loop with one (--margin)")

    def _found(self, change: str, digest: str | None, question: LoopQuestion) -> Candidate | None:
        """The matching candidate, undecided or finally decided."""
        found = self._by_digest.get(digest) if digest is not None else None
        named = self._by_change.get(change)
        if found is None and named is not None and digest in (None, named.digest):
            found = named
        if found is None or (found.verdict == "discard" and self._may_try_again(found, digest, question)):
            return None
        if found.verdict == "run" and found.question != question:
            raise LoopError(f"{change!r} is being tried as {found.question}, got {question}: wait for that decision")
        return found

    def _may_try_again(self, c: Candidate, digest: str | None, question: LoopQuestion) -> bool:
        is_older = c.baseline != self.baseline.number
        return c.question != question or c.is_superseded or (is_older and digest is None)

    def _begun(self, change: str, digest: str | None, question: LoopQuestion) -> Candidate:
        number, test, noise = self.baseline.number, len(self.candidates) + 1, self.baselines.required().prior
        salt = f"{number}/{change}/{digest}"
        seeds = sorted(
            (s for s in self.baseline.compared if s in self.baseline.scores),
            key=lambda seed: sha256(f"{salt}/{seed}".encode(errors="surrogatepass")).digest(),
        )
        return Candidate(change, digest, question, number, test, self.next_level, noise, tuple(seeds))

    def _asked_of(
        self, change: str, seed: int, digest: str | None, question: LoopQuestion, baseline: int | None
    ) -> Candidate | Answer:
        """The undecided candidate that the seed belongs to, or the answer if the loop needs no score."""
        self._check_question(question)
        if baseline is not None and baseline != self.baseline.number:
            return Answer("discard", change, SUPERSEDED)
        self.baselines.required()
        found = self._found(change, digest, question)
        if found is not None and found.verdict != "run":
            return self.answer(found)
        c = found or self._begun(change, digest, question)
        require_asked(seed, c.seeds[len(c.scores) : len(c.scores) + 1])
        if found is None:
            self.candidates.append(c)
            self._open.append(c)
            self._by_change[change] = c
            if digest is not None:
                self._by_digest[digest] = c
        return c

    def _decide(self, c: Candidate, verdict: LoopVerdict, reason: str) -> None:
        c.verdict, c.reason = verdict, reason
        if verdict == "run":
            return
        self._open.remove(c)
        n, squares = len(c.differences), c.squares if c.differences else 0.0
        if squares > 0 and c.mean > -BROKEN * sqrt(c.noise[0]):
            self.baselines.required().add(squares, n - 1, c.noise[0])
        if verdict == "keep":
            self._kept.append(len(self.candidates))
            for other in list(self._open):
                other.is_superseded = True
                self._decide(other, "discard", SUPERSEDED)
            self.baselines.add(c.change, c.digest)

    def answer(self, c: Candidate) -> Answer:
        """A candidate's answer so far."""
        n = len(c.differences)
        seed = c.seeds[n] if c.verdict == "run" else None
        reason = c.reason or f"{n} of at most {self.rules.max_seeds} seeds"
        if n < 2:
            return Answer(c.verdict, c.change, reason, seed, n, self._signed(c.mean) if n else None)
        spread, df = c.spread
        return Answer(c.verdict, c.change, reason, seed, n, self._signed(c.mean), sqrt(spread / n), df)

    def _signed(self, improvement: float) -> float:
        return improvement if self.rules.higher_is_better else 0.0 - improvement


@dataclass(frozen=True)
class Step:
    """A baseline's mean score on `n` held-out seeds, and its gain there over the first baseline.

    gain is in the score's unit, above 0 where the score rose; ci_low..ci_high: its 95% interval. None where fewer than
    two seeds are common.
    """

    change: str
    score: float | None
    n: int
    gain: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None


def seeds_to_see(loop: Loop, gain: float) -> int | None:
    """The seeds after which a next candidate that is better by `gain` is kept with probability 80%; None: too many.

    This treats the noise as known: gain sqrt(n / s0^2) - 0.84 lies beyond the boundaries of the look at n seeds.
    """
    pooled, df = loop.baselines.required().prior
    for n, share in loop.rules.looks.items():
        boundary = max(student_quantile(share * loop.next_level, df + n - 1), student_quantile(OWN_LEVEL, n - 1))
        if gain * sqrt(n / pooled) - _POWER >= boundary:
            return n
    return None


def path(loop: Loop) -> list[Step]:
    """The baselines' scores and gains on the held-out seeds, which chose no candidate.

    The interval is of the paired differences from the first baseline, their variance moderated by the loop's s0^2 as a
    candidate's is.
    """
    first, noise = loop.baselines.all[0].held_out_scores, loop.baselines.noise
    steps = []
    for number, baseline in enumerate(loop.baselines.all):
        held = baseline.held_out_scores
        mean = fmean(held.values()) if held else None
        gains = [held[seed] - first[seed] for seed in held if seed in first]
        if number == 0 or len(gains) < 2 or noise is None:
            steps.append(Step(baseline.change, mean, len(held)))
            continue
        prior, d0 = noise.prior
        f, gain = len(gains) - 1, fmean(gains)
        pooled = (d0 * prior + f * variance(gains)) / (d0 + f)
        half = student_quantile(0.025, d0 + f) * sqrt(pooled / len(gains))
        steps.append(Step(baseline.change, mean, len(held), gain, gain - half, gain + half))
    return steps
