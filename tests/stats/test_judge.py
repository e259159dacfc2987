"""The judge: no arm gains by a run that failed, diverged or is missing, and every word has its test."""

import inspect
import itertools
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy.stats import binom

import reg_sweep
from reg_sweep.stats import estimates as stats
from reg_sweep.stats.family import compare_arms
from reg_sweep.stats.judge import judge
from reg_sweep.stats.judgement import Judgement
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

# From the worst for an arm to the best; those of one place say the same of its worth.
FAVOUR = {
    Verdict.NOT_RANKED: 0,
    Verdict.WORSE_BY_DIVERGENCE: 0,
    Verdict.WORSE: 1,
    Verdict.NO_DIFFERENCE: 2,
    Verdict.EQUIVALENT: 2,
    Verdict.BETTER: 3,
}


def by_seed(values) -> dict[int, float]:
    return dict(enumerate(map(float, values), 1))


def table(n_arms: int = 2, n_seeds: int = 5, shift: float = 0.0, seed: int = 0) -> dict[str, dict[int, float]]:
    g = np.random.default_rng(seed)
    shared = 0.9 + 0.01 * g.normal(size=n_seeds)
    return {
        name: by_seed(shared + 0.004 * g.normal(size=n_seeds) + (shift if name == "a" else 0.0))
        for name in ["base", *"abcdefgh"[:n_arms]]
    }


def test_the_numbers_are_those_of_the_family_of_all_arms():
    scores = table(3)
    judgement = judge(scores, "base", margin=0.02)
    base = np.array(list(scores["base"].values()))
    family = compare_arms(np.array([list(scores[a].values()) for a in "abc"]) - base, margin=0.02)
    for i, finding in enumerate(judgement.arms.values()):
        d = finding.difference
        assert (d.ci_low, d.ci_high, d.p) == (family.interval[0][i], family.interval[1][i], family.p[i])
        assert finding.equivalence.p == family.p_equivalence[i]
        assert finding.pairs == 5
    assert list(judgement.arms) == ["a", "b", "c"]
    assert (judgement.n_split, judgement.seeds) == (3, (1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("shift", "margin", "verdict"),
    [
        (0.1, None, Verdict.BETTER),
        (-0.1, None, Verdict.WORSE),
        (0.0, 0.05, Verdict.EQUIVALENT),
        (0.02, 0.05, Verdict.SMALL),
        (0.0, None, Verdict.NO_DIFFERENCE),
    ],
)
def test_each_word_is_said_where_it_is_true_and_turns_round_with_the_score(shift, margin, verdict):
    scores = table(1, 8, shift, seed=3)
    assert judge(scores, "base", margin=margin).arms["a"].verdict is verdict
    turned = {arm: {seed: -x for seed, x in of_arm.items()} for arm, of_arm in scores.items()}
    assert judge(turned, "base", margin=margin, higher_is_better=False).arms["a"].verdict is verdict


@pytest.mark.parametrize("lost", [math.nan, math.inf, None])
def test_no_arm_gains_by_any_subset_of_its_seeds_that_is_lost(lost):
    for n, shift in enumerate((-0.02, 0.0, 0.02)):
        scores = table(2, 4, shift, seed=n)
        before = FAVOUR[judge(scores, "base").arms["a"].verdict]
        for size in (1, 2, 3, 4):
            for seeds in itertools.combinations((1, 2, 3, 4), size):
                kept = {seed: x for seed, x in scores["a"].items() if seed not in seeds}
                a = kept if lost is None else kept | dict.fromkeys(seeds, lost)
                assert FAVOUR[judge(scores | {"a": a}, "base").arms["a"].verdict] <= before


def test_lost_seeds_are_told_apart():
    scores = table(1, 5) | {"a": {1: 0.9, 2: math.nan, 3: math.inf, 4: 0.9}}
    finding = judge(scores, "base").arms["a"]
    assert (finding.failed, finding.diverged, finding.missing, finding.pairs) == ((2,), (3,), (2, 3, 5), 2)


class TestDivergence:
    @staticmethod
    def finding(n_seeds, diverged, baseline_diverged=0):
        scores = table(1, n_seeds, 0.1)
        for name, n in (("a", diverged), ("base", baseline_diverged)):
            scores[name] |= dict.fromkeys(range(1, n + 1), math.inf)
        return judge(scores, "base").arms["a"]

    @pytest.mark.parametrize(
        ("n_seeds", "arm", "baseline", "verdict"),
        [
            pytest.param(7, 6, 0, Verdict.WORSE_BY_DIVERGENCE, id="on most seeds of the arm"),
            pytest.param(6, 6, 0, Verdict.WORSE_BY_DIVERGENCE, id="on all of them, though no pair is left"),
            pytest.param(6, 2, 0, Verdict.NOT_RANKED, id="on a few, which prove nothing and are yet never better"),
            pytest.param(7, 0, 6, Verdict.BETTER_BY_DIVERGENCE, id="on most seeds of the baseline"),
            pytest.param(6, 0, 6, Verdict.BETTER_BY_DIVERGENCE, id="on all seeds of the baseline"),
            pytest.param(7, 0, 2, Verdict.NOT_RANKED, id="on a few seeds of the baseline"),
            pytest.param(8, 2, 2, Verdict.NOT_RANKED, id="on the same seeds of both, whose means say nothing of them"),
        ],
    )
    def test_is_judged_in_both_directions(self, n_seeds, arm, baseline, verdict):
        assert self.finding(n_seeds, arm, baseline).verdict is verdict

    def test_of_the_baseline_splits_the_error_over_every_arm_that_it_is_held_against(self):
        scores = table(8, 7) | {"base": {1: 0.9, 2: 0.91} | dict.fromkeys(range(3, 8), math.inf)}
        scores["base"][2] = math.inf  # six of seven
        judgement = judge(scores, "base")
        assert self.finding(7, 0, 6).p_divergence == pytest.approx(1 / 32)  # of a single arm
        assert judgement.n_split == 8
        assert {f.verdict for f in judgement.arms.values()} == {Verdict.NOT_RANKED}
        assert {f.p_divergence for f in judgement.arms.values()} == {8 / 32}

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [3, 5, 8, 20])
    @pytest.mark.parametrize("correction", [1, 5])
    def test_and_means_together_err_no_more_often_than_one_test(self, n, correction):
        """Of an arm that diverges as often as the baseline: the exact chance of either false claim."""
        level = 0.05 / correction
        for share in np.linspace(0.01, 0.9, 60):
            alone = share * (1 - share)
            falsely = 0.0
            for discordant in range(n + 1):
                ps = sign_tests(discordant)
                rejected = sum(binom.pmf(b, discordant, 0.5) for b in range(discordant + 1) if ps[b] <= level)
                falsely += binom.pmf(discordant, n, 2 * alone) * rejected
            assert falsely + level * (1 - share) ** n <= level


def sign_tests(discordant: int) -> list[float]:
    """The sign test's p for each number of seeds on which the arm alone diverged."""
    found = []
    for b in range(discordant + 1):
        ours = [True] * b + [False] * (discordant - b)
        found.append(stats.divergence_test([*ours, True], [*(not o for o in ours), True]).p)
    return found


def test_one_seed_says_nothing_of_methods_and_compares_models_where_images_are_known():
    scores = {"base": {1: 0.90}, "a": {1: 0.95}, "b": {1: 0.9}}
    assert {f.verdict for f in judge(scores, "base").arms.values()} == {Verdict.ONE_SEED}
    right = np.arange(1000) < 900
    correct = {"base": right, "a": np.arange(1000) < 950, "b": right}
    arms = judge(scores, "base", correct=correct).arms
    assert (arms["a"].verdict, arms["b"].verdict) == (Verdict.MODELS_DIFFER, Verdict.MODELS_ALIKE)
    assert arms["a"].by_image
    assert not any(v.verdict.tone for v in arms.values())


def test_not_worse_is_asked_alone_and_takes_fewer_seeds_than_equivalence():
    scores = table(1, 3, 0.01, seed=3)
    found = {q: judge(scores, "base", margin=0.01, question=q).arms["a"].verdict for q in ("not_worse", "equivalent")}
    assert found == {"not_worse": Verdict.NOT_WORSE, "equivalent": Verdict.UNDECIDED}


def test_without_pairing_arms_may_have_other_seeds():
    scores = table(1, 8, 0.1)
    scores["a"] = {seed + 100: x for seed, x in scores["a"].items()}
    assert judge(scores, "base").arms["a"].verdict is Verdict.NOT_RANKED
    assert judge(scores, "base", pairing="none").arms["a"].verdict is Verdict.BETTER


def test_a_question_that_was_not_asked_beforehand_has_figures_and_no_verdict():
    scores = table(2, 8, 0.1)
    asked, explored = (judge(scores, "base", exploratory=why) for why in ("", "another metric was asked for"))
    assert asked.arms["a"].difference == explored.arms["a"].difference
    assert {f.verdict for f in explored.arms.values()} == {Verdict.EXPLORATORY}
    assert not Verdict.EXPLORATORY.tone


class TestSequential:
    design = Design((3, 5, 8), margin=0.02)

    def test_an_arm_is_judged_until_an_analysis_decides_it_and_later_seeds_are_not_looked_at(self):
        scores = table(2, 8, -0.3)
        arms = judge(scores, "base", design=self.design).arms
        assert [p.seeds for p in arms["a"].path] == [3]
        assert arms["a"].verdict is Verdict.WORSE
        later = {seed: 0.99 if seed > 3 else x for seed, x in scores["a"].items()}
        again = judge(scores | {"a": later}, "base", design=self.design).arms
        assert again["a"].path == arms["a"].path
        assert again["a"].difference == arms["a"].difference

    def test_an_analysis_waits_until_all_its_scores_are_in(self):
        scores = table(2, 5)
        del scores["b"][5]
        judgement = judge(scores, "base", design=self.design)
        assert judgement.n_looks == 1
        assert [p.seeds for p in judgement.arms["a"].path] == [3]

    def test_the_decisions_are_those_of_the_designs_replay(self):
        for seed in range(20):
            scores = table(3, 8, 0.012, seed)
            base = np.array(list(scores["base"].values()))
            d = np.array([list(scores[a].values()) for a in "abc"]) - base
            words, _ = self.design.replay(d)
            found = judge(scores, "base", design=self.design).arms.values()
            said = [f.path[-1].verdict for f in found]
            assert said == words.tolist()

    def test_an_arm_that_a_study_stopped_is_not_waited_for(self):
        scores = table(2, 8, seed=1)
        scores["a"] = {seed: scores["a"][seed] for seed in (1, 2, 3)}
        judgement = judge(scores, "base", design=self.design, stopped={"a": 3})
        assert [p.seeds for p in judgement.arms["a"].path] == [3]
        assert judgement.n_looks > 1

    def test_less_error_than_the_designs_widens_what_is_said_and_stops_nobody_later(self):
        scores = table(2, 8, 0.012, seed=2)
        usual, strict = (judge(scores, "base", design=self.design, alpha=a).arms["a"] for a in (None, 0.001))
        assert [p.seeds for p in usual.path] == [p.seeds for p in strict.path]
        assert strict.difference.ci_low < usual.difference.ci_low


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "c"}, r"baseline must be one of the arms \(base, a, b\), got 'c'"),
        ({"baseline": "base", "margin": 0}, "margin must be a finite number above 0, got 0"),
        (
            {"baseline": "base", "margin": 0.01, "design": Design((3, 5), margin=0.02)},
            r"margin must be left to the design, which has 0\.02, got 0\.01",
        ),
    ],
)
def test_what_can_not_be_judged_is_refused_in_a_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        judge(table(), **arguments)


def test_a_judgement_is_frozen():
    judgement = judge(table(), "base")
    with pytest.raises(FrozenInstanceError):
        judgement.margin = 0.1
    with pytest.raises(TypeError):
        judgement.arms["a"] = None
    with pytest.raises(FrozenInstanceError):
        judgement.arms["a"].verdict = Verdict.BETTER


def test_it_is_exported_and_loads_no_torch():
    assert reg_sweep.judge.__doc__ == judge.__doc__
    assert inspect.signature(reg_sweep.judge) == inspect.signature(judge)
    judged = reg_sweep.judge(table(), "base", margin=0.1)
    assert isinstance(judged, Judgement)
    assert vars(judged) == vars(judge(table(), "base", margin=0.1))
    code = (
        "import sys, reg_sweep; reg_sweep.judge; print([m for m in ('torch', 'hydra', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


# ---- the evidence of a verdict, and what contradicts a design


def lost_at(scores, lost):
    return {name: {s: lost.get((name, s), v) for s, v in of.items()} for name, of in scores.items()}


QUESTIONS = [
    {"margin": None},
    {"margin": 0.02},
    {"margin": 0.02, "question": "not_worse"},
    {"margin": 0.02, "question": "equivalent"},
    {"margin": 0.02, "pairing": "none"},
]
LOST = [
    {},
    {("a", 2): math.inf, ("base", 2): math.inf},
    {("a", s): math.inf for s in range(1, 9)},
    {("base", s): math.inf for s in range(1, 9)},
    {("base", 3): math.nan},
    {("a", 1): math.nan},
]


@pytest.mark.parametrize("design", [False, True])
@pytest.mark.parametrize("asked", QUESTIONS, ids=str)
def test_the_evidence_is_the_interval_and_the_p_that_agree_with_the_verdict(asked, design):
    found = set()
    for (seed, lost), shift in itertools.product(enumerate(LOST), (-0.1, -0.01, 0.0, 0.01, 0.1)):
        scores = lost_at(table(3, 12, shift, seed), lost)
        judgement = judge(scores, "base", design=Design((12,), **asked)) if design else judge(scores, "base", **asked)
        for finding in judgement.arms.values():
            d, verdict, m = finding.evidence, finding.verdict, asked["margin"]
            found.add(verdict)
            is_known = not math.isnan(d.ci_low)
            if verdict.is_of_divergence:
                assert (is_known, d.p <= judgement.alpha) == (False, True)
            elif verdict is Verdict.NOT_RANKED:
                assert math.isnan(d.p)
            elif verdict is Verdict.NOT_WORSE:
                assert (d.ci_low >= -m, d.p <= judgement.alpha) == (True, True)
            elif verdict is Verdict.EQUIVALENT:
                assert (-m <= d.ci_low <= d.ci_high <= m, d.p <= judgement.alpha) == (True, True)
            elif verdict.is_settled:
                assert (d.ci_low <= 0 <= d.ci_high, d.p <= judgement.alpha) == (False, True)
            elif asked.get("question", "better") == "better":
                assert (d.ci_low <= 0 <= d.ci_high, d.p > judgement.alpha) == (True, True)
            else:  # undecided: what was asked is not shown
                assert d.p > judgement.alpha
    assert Verdict.NOT_RANKED in found
    assert {Verdict.WORSE_BY_DIVERGENCE, Verdict.BETTER_BY_DIVERGENCE} <= found
    assert found & {Verdict.WORSE, Verdict.NOT_WORSE, Verdict.EQUIVALENT}


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"margin": 0.1}, "margin must be left to the design, which has 0.02, got 0.1"),
        ({"variance": "plain"}, "variance must be left to the design, which has moderated, got 'plain'"),
        ({"question": "not_worse"}, "question must be left to the design, which has better, got 'not_worse'"),
        ({"pairing": "none"}, "pairing must be left to the design, which has seeds, got 'none'"),
        ({"exploratory": "chosen later"}, "exploratory must be left out with a design, which was fixed beforehand"),
        ({"correct": {}}, "correct must be left out with a design"),
    ],
)
def test_an_argument_that_contradicts_the_design_is_refused(asked, error):
    with pytest.raises(ValueError, match=error):
        judge(table(), "base", design=Design((3, 5), margin=0.02), **asked)


def test_a_design_may_be_repeated_and_only_a_design_stops_arms():
    design = Design((3, 5), margin=0.02, variance="plain", question="not_worse")
    same = judge(table(), "base", design=design, margin=0.02, variance="plain", question="not_worse")
    assert same == judge(table(), "base", design=design)
    with pytest.raises(ValueError, match="stopped must be left out without a design"):
        judge(table(), "base", stopped={"a": 3})


def test_a_decision_is_at_the_designs_error_and_a_verdict_at_the_tables():
    g = np.random.default_rng(4)
    base = 0.9 + 0.01 * g.normal(size=8)
    scores = {"base": by_seed(base), "a": by_seed(base - 0.02 + 0.01 * g.normal(size=8))}
    own, split = (judge(scores, "base", design=Design((3, 5, 8)), alpha=alpha).arms["a"] for alpha in (None, 0.001))
    assert [p.decision for p in split.path] == [p.decision for p in own.path] == [p.verdict for p in own.path]
    assert own.path[-1].decision is Verdict.WORSE
    assert split.path[-1].verdict is Verdict.UNDECIDED
    assert split.verdict is Verdict.NO_DIFFERENCE


def test_one_run_of_the_baseline_or_of_an_unpaired_arm_is_never_a_verdict_on_methods():
    many = by_seed([0.5, 0.52, 0.51, 0.53, 0.5])
    of_baseline = judge({"base": {1: 0.9}, "a": many, "b": {7: 0.5}}, "base", pairing="none")
    assert {f.verdict for f in of_baseline.arms.values()} == {Verdict.ONE_SEED}
    assert of_baseline.compares_models
    of_arm = judge({"base": many, "a": {9: 0.9}, "b": {11: 0.52, 12: 0.55}}, "base", pairing="none")
    assert of_arm.arms["a"].verdict is Verdict.ONE_SEED
    assert of_arm.arms["b"].verdict is Verdict.NO_DIFFERENCE
    assert not any(f.is_tied for f in (*of_baseline.arms.values(), *of_arm.arms.values()))


def test_what_the_error_is_split_over_is_the_factor_between_both_p():
    scores = table(3, 4)
    scores["c"] = {seed: value + 0.01 for seed, value in scores["base"].items()}  # tied: no spread
    judgement = judge(scores, "base")
    a = judgement.arms["a"]
    assert a.difference.p == pytest.approx(min(1.0, judgement.n_split * a.alone.p))
    scores["c"] = dict.fromkeys(scores["base"], math.nan)
    assert judge(scores, "base", design=Design((4,))).n_split == 3


def test_unpaired_figures_add_up_in_a_design_and_in_one_analysis():
    scores = lost_at(table(1, 5), {("a", 1): math.nan, ("base", 2): math.nan})
    once, design = (
        judge(scores, "base", **how) for how in ({"pairing": "none"}, {"design": Design((5,), pairing="none")})
    )
    for judgement in (once, design):
        finding = judgement.arms["a"]
        assert finding.mean - finding.baseline_mean == pytest.approx(finding.difference.mean, abs=1e-12)
        assert (finding.verdict, finding.missing) == (Verdict.NOT_RANKED, (1,))
        assert (finding.pairs, finding.n_expected, finding.by_seed) == (4, 5, ())
