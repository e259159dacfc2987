"""A loop answers keep, discard or one more seed: by its rules, whatever order, luck or failure it meets."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from scripts import script

from reg_sweep.stats import candidate
from reg_sweep.stats.candidate import Answer, Candidate, LoopError, Rules, judged
from reg_sweep.stats.loop import BASELINE, SUPERSEDED, Loop, path, seeds_to_see


def benchmark():
    """benchmarks/simulate_loop.py, the vectorized loops whose figures docs/statistics.md shows."""
    return script("benchmarks/simulate_loop.py")


class Bench:
    """A loop whose runs are noise: each seed has an effect that all of its runs share."""

    def __init__(self, seed=0, sd=0.7, **rules):
        self.loop = Loop(Rules(**rules))
        self.random, self.sd, self.mean, self.effects = random.Random(seed), sd, 0.0, {}

    def score(self, mean, seed):
        if seed not in self.effects:
            self.effects[seed] = self.random.gauss(0, self.sd)
        return mean + self.effects[seed] + self.random.gauss(0, self.sd)

    def finish(self, change, mean, **how):
        """Runs what is asked for until a change is decided."""
        answer = self.loop.ask(change, **how)
        while answer.verdict == "run":
            answer = self.loop.tell(change, answer.seed, self.score(mean, answer.seed), **how)
        if answer.verdict == "keep":
            self.mean = mean
        return answer

    def measured(self):
        self.finish(BASELINE, self.mean)
        return self


# ---- levels and noise


@given(st.floats(-30, 30), st.sampled_from([1.0, 2.0, 5.5, 9.0, 37.3, 200.0]))
def test_the_tail_of_t_is_scipys(t, df):
    assert candidate.student_tail(t, df) == pytest.approx(float(scipy_stats.t.sf(t, df)), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-6])
def test_the_quantile_of_t_is_scipys(tail):
    assert candidate.student_quantile(tail, 11.5) == pytest.approx(float(scipy_stats.t.isf(tail, 11.5)), rel=1e-6)


def test_levels_spend_no_more_than_the_error_whatever_the_length():
    assert sum(candidate.gamma(j) for j in range(1, 200_000)) < 1
    assert sum(candidate.level(t, (), 0.05, "fdr") for t in range(1, 50_000)) < 0.05 * candidate.FIRST_WEALTH


def test_a_keep_earns_level_for_those_to_come_under_fdr_alone():
    assert candidate.level(30, (20,), 0.05, "fdr") > candidate.level(30, (), 0.05, "fdr")
    assert candidate.level(30, (20, 25), 0.05, "fdr") > candidate.level(30, (20,), 0.05, "fdr")
    assert candidate.level(30, (20, 25), 0.05, "any") == candidate.level(30, (), 0.05, "any")


def test_noise_that_grows_is_noticed_within_a_few_candidates():
    noise = candidate.NoiseHistory(0.5)
    for _ in range(50):
        noise.add(1.0, 1, noise.prior[0])
    before = noise.prior
    for _ in range(8):
        noise.add(9.0, 1, noise.prior[0])
    assert before[0] == pytest.approx(1.0)
    assert noise.prior[0] > 4
    assert noise.prior[1] < before[1]


def test_the_pilot_fades_as_history_grows():
    noise = candidate.NoiseHistory(50.0)
    assert noise.prior == (100.0, candidate.PILOT_DF)
    for _ in range(40):
        noise.add(1.0, 1, 1.0)
    assert noise.prior[0] == pytest.approx(1.0)


# ---- the fast loops of the benchmark are these


@pytest.mark.parametrize("max_seeds", [4, 10, 16])
@pytest.mark.parametrize("level", [1e-2, 1e-4])
def test_many_candidates_at_once_are_judged_as_one_is(max_seeds, level):
    simulate, rules, g = benchmark(), Rules(max_seeds=max_seeds), np.random.default_rng(1)
    d = g.normal(g.choice([0, 1, 3], (120, 1)), g.choice([0.3, 1, 3], (120, 1)), (120, max_seeds))
    d[:5] = 0
    d[5:10] = 0.5
    prior = np.full(120, 1.3), np.full(120, 17.0)
    kept, n_seeds, squares, _ = simulate.judged(d, np.full(120, level), prior, rules)
    for i, row in enumerate(d):
        c = Candidate("c", None, "better", 1, 1, level, (1.3, 17.0), tuple(range(max_seeds)))
        verdict = "run"
        while verdict == "run":
            c.scores[len(c.scores)] = row[len(c.differences)]
            c.differences.append(float(row[len(c.differences)]))
            verdict, _ = judged(c, rules)
        assert (verdict == "keep", len(c.differences)) == (kept[i], n_seeds[i]), row
        assert c.squares == pytest.approx(squares[i])


def test_many_loops_at_once_learn_the_noise_and_the_levels_that_one_does():
    simulate, g = benchmark(), np.random.default_rng(2)
    pools, one = simulate.Pools(np.array([0.7])), candidate.NoiseHistory(0.7)
    levels, kept = simulate.Levels("LORD++", 1, 80), []
    for test in range(1, 81):
        variance, df = one.prior
        assert [float(x[0]) for x in pools.prior()] == pytest.approx([variance, df])
        assert levels.now()[0] == pytest.approx(candidate.level(test, kept, 0.05, "fdr"))
        n, squares = int(g.integers(1, 9)), float(g.exponential() * g.integers(0, 3))
        pools.add(np.array([squares]), np.array([float(n)]), np.array([variance]))
        if squares > 0:
            one.add(squares, n, variance)
        is_kept = bool(g.random() < 0.1)
        levels.after(np.array([is_kept]), np.ones(1))
        kept += [test] * is_kept


@pytest.mark.slow
def test_loops_of_no_ops_rarely_keep_any_and_real_gains_are_kept():
    """The promise, small: docs/results/simulate_loop.txt has 2,000 loops of every noise."""
    simulate = benchmark()
    for kind in ("normal", "t3", "grows x3", "collapse"):
        assert simulate.loops(kind, 400, 100).false_in <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    found = simulate.loops("normal", 400, 100, share=0.05)
    assert found.power > 0.75
    assert found.share_false < 0.05
    assert abs(found.claimed) < 0.1 + 3 * found.claimed_error


# ---- the loop


def test_the_baseline_is_measured_first_on_seeds_of_its_own():
    loop = Loop(Rules(first_seed=100))
    assert loop.ask("halve the batch") == Answer("run", BASELINE, "the baseline has 0 of 14 runs", 100)
    bench = Bench().measured()
    assert bench.loop.baseline.held_out == [1, 2, 3, 4]
    assert bench.loop.ask("halve the batch").seed in range(5, 15)


def test_candidates_begin_with_different_seeds():
    bench = Bench().measured()
    assert len({bench.loop.ask(f"change {i}").seed for i in range(40)}) > 5


@pytest.mark.parametrize("higher", [True, False])
def test_a_large_gain_is_kept_and_a_loss_is_given_up_after_two_seeds(higher):
    bench = Bench(higher_is_better=higher).measured()
    sign = 1 if higher else -1
    worse, better = bench.finish("worse", -5.0 * sign), bench.finish("better", 6.0 * sign)
    assert (worse.verdict, worse.n, math.copysign(1, worse.mean)) == ("discard", 2, -sign)
    assert (better.verdict, math.copysign(1, better.mean)) == ("keep", sign)
    assert better.interval[0] < better.mean < better.interval[1]


def test_a_kept_change_is_measured_on_fresh_seeds_before_the_next_is_tried():
    bench = Bench().measured()
    used = set(bench.loop.baseline.scores)
    assert bench.finish("better", 6.0).verdict == "keep"
    assert bench.loop.ask("next").change == BASELINE
    with pytest.raises(LoopError, match="measured first: 14 runs are missing"):
        bench.loop.tell("next", 5, 1.0)
    bench.measured()
    assert not set(bench.loop.baseline.compared) & used
    assert bench.loop.baseline.held_out == [1, 2, 3, 4]
    first, last = path(bench.loop)
    assert first.gain is None
    assert last.ci_low < 6 < last.ci_high


def test_what_was_decided_is_answered_again_and_learns_nothing():
    bench = Bench().measured()
    was = bench.finish("worse", -5.0)
    assert bench.loop.ask("worse") == was
    assert bench.loop.tell("worse", 5, 100.0) == was
    kept = bench.finish("better", 6.0, digest="abc")
    bench.measured()
    assert bench.loop.ask("better under another name", digest="abc").verdict == "keep"
    assert bench.loop.ask("better", digest="abc") == kept


def test_a_discarded_change_may_be_tried_again_on_a_new_baseline_unless_its_code_is_the_same():
    bench = Bench().measured()
    bench.finish("worse", -5.0)
    bench.finish("worse too", -5.0, digest="abc")
    bench.finish("better", 6.0)
    bench.measured()
    assert bench.loop.ask("worse").verdict == "run"
    assert bench.loop.ask("worse too", digest="abc").verdict == "discard"


def test_who_is_overtaken_by_a_keep_is_discarded_and_may_try_again():
    bench = Bench().measured()
    slow = bench.loop.ask("slow")
    bench.loop.tell("slow", slow.seed, bench.score(0, slow.seed))
    bench.finish("better", 6.0)
    late = bench.loop.tell("slow", bench.loop.candidates[0].seeds[1], 0.0, baseline=1)
    assert (late.verdict, late.reason) == ("discard", SUPERSEDED)
    bench.measured()
    assert bench.loop.ask("slow").verdict == "run"


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e300])
@pytest.mark.parametrize("higher", [True, False])
def test_a_divergence_is_a_discard_never_lucky(score, higher):
    bench = Bench(higher_is_better=higher).measured()
    seed = bench.loop.ask("bold").seed
    answer = bench.loop.tell("bold", seed, score)
    assert (answer.verdict, answer.reason) == ("discard", f"diverged on seed {seed}")


def test_a_failure_after_lucky_seeds_is_a_discard():
    bench = Bench().measured()
    first = bench.loop.ask("lucky")
    second = bench.loop.tell("lucky", first.seed, 50.0)
    assert bench.loop.fail("lucky", second.seed, "exit status 1").verdict == "discard"


def test_a_baseline_that_fails_on_a_seed_gets_another_and_one_that_fails_often_ends_the_loop():
    loop = Loop()
    for seed in (5, 7):
        loop.fail(BASELINE, seed, "diverged")
    assert {15, 16} < set(loop.baseline.missing)
    for seed in (6, 8, 9):
        loop.fail(BASELINE, seed, "diverged")
    with pytest.raises(LoopError, match="the baseline must run, got 6 failures"):
        loop.fail(BASELINE, 10, "diverged")


def test_a_kept_change_that_fails_on_fresh_seeds_is_discarded_after_all():
    bench = Bench().measured()
    bench.finish("brittle", 6.0)
    answer = bench.loop.ask(BASELINE)
    while answer.verdict == "run":
        answer = bench.loop.fail(BASELINE, answer.seed, "exit status 1")
    assert (answer.verdict, answer.change) == ("discard", "brittle")
    assert bench.loop.ask("brittle").reason == "kept, but exit status 1 on 6 of the seeds that measure it"
    assert bench.loop.baseline.change == BASELINE
    assert bench.loop.ask("next").change == "next"


def test_a_change_with_the_baselines_scores_is_given_up_after_two_seeds():
    bench = Bench().measured()
    noise = bench.loop.baselines.required().prior
    answer = bench.loop.ask("a comment")
    while answer.verdict == "run":
        answer = bench.loop.tell("a comment", answer.seed, bench.loop.baseline.scores[answer.seed])
    assert answer.reason == "the same scores as the baseline's on 2 seeds"
    assert bench.loop.baselines.required().prior == noise  # says nothing of how noisy others are


def test_a_change_that_breaks_everything_says_nothing_of_how_noisy_others_are():
    bench = Bench().measured()
    noise = bench.loop.baselines.required().prior
    for loss in (900.0, 100.0):
        answer = bench.loop.ask("broken")
        answer = bench.loop.tell("broken", answer.seed, -loss)
    assert answer.verdict == "discard"
    assert bench.loop.baselines.required().prior == noise


def test_not_worse_keeps_a_simpler_change_within_the_margin_and_better_does_not():
    kept = {}
    for question in ("not_worse", "better"):
        bench = Bench(seed=3, margin=4.0).measured()
        kept[question] = bench.finish("simpler", -0.5, question=question).verdict
    assert kept == {"not_worse": "keep", "better": "discard"}
    assert Bench(margin=4.0).measured().finish("far worse", -6.0, question="not_worse").verdict == "discard"


def test_larger_gains_are_seen_sooner_and_tiny_ones_never():
    loop = Bench().measured().loop
    costs = [seeds_to_see(loop, gain) for gain in (100.0, 8.0, 5.0)]
    assert costs == sorted(costs)
    assert seeds_to_see(loop, 0.01) is None


@pytest.mark.parametrize(
    ("do", "says"),
    [
        (lambda loop: loop.tell("new", 999, 1.0), "seed must be one that was asked for, got 999"),
        (lambda loop: loop.tell(BASELINE, 5, 1.0), "nothing is to be run"),
        (lambda loop: loop.ask("new", question="not_worse"), "needs a margin"),
        (lambda loop: Rules(error=1.0), "error must be above 0 and below 0.5"),
        (lambda loop: Rules(control="most"), "control must be fdr or any"),
        (lambda loop: Rules(margin=-1.0), "margin must be a finite number above 0"),
        (lambda loop: Rules(max_seeds=9), "max_seeds must be one of 4, 5"),
        (lambda loop: Rules(first_seed=-1), "first_seed must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_learned_nothing_of(do, says):
    loop = Bench().measured().loop
    with pytest.raises(LoopError, match=says):
        do(loop)
    assert loop.candidates == []


def test_a_baseline_without_noise_is_refused():
    loop = Loop()
    for seed in list(loop.baseline.missing):
        loop.tell(BASELINE, seed, 1.0)
    with pytest.raises(LoopError, match=r"does its command use \{seed\}\?"):
        loop.ask("new")


def test_the_pages_tables_are_those_of_the_kept_simulation():
    docs = Path(__file__).parents[2] / "docs"
    section = (docs / "statistics.md").read_text().split("## A loop of experiments")[1].split("\n## ")[0]
    rows = [line.strip("| ") for line in section.splitlines() if line.startswith("| ") and " | 0." in line]
    assert len(rows) > 50
    printed = (docs / "results" / "simulate_loop.txt").read_text().splitlines()
    assert [row for row in rows if row not in printed] == []


def test_a_ledgers_format_is_raised_when_the_same_scores_are_answered_otherwise():
    """Kept ledgers hold scores alone: what changes these answers must raise `reg_sweep.loop.ledger.FORMAT`."""
    bench = Bench(seed=11, max_seeds=12).measured()
    answers = []
    for i in range(30):
        answer = bench.finish(f"c{i}", bench.mean + (i % 6) / 2)
        answers.append(f"{answer.verdict[0]}{answer.n}")
        bench.measured()
    assert " ".join(answers) == (
        "d2 d2 d10 k6 k4 k12 d2 d3 d2 k10 k10 k4 d2 d6 d3 k5 k6 k3 d2 d2 d4 k4 k10 k4 d3 d2 k12 k6 k4 k4"
    )
