"""Lost seeds, on either side: no sentence says more than the verdict, and no two contradict each other."""

import math

import pytest
from trees import arm_of, comparisons, write_run

from reg_sweep.comparison.commands import seeds_to_train
from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.notes import notes
from reg_sweep.comparison.sentences import tally, verdict
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.rows import arm_rows
from reg_sweep.stats.verdict import Verdict

ARM = "bn · L1 0.001"


def write(root, base, arm, first=1):
    """Runs of both, one for each score: None failed, infinite diverged."""
    for l1, values, start in ((0.0, base, 1), (0.001, arm, first)):
        for seed, value in enumerate(values, start):
            status = "failed" if value is None else "diverged" if math.isinf(value) else "complete"
            score = value if status == "complete" else 0.1
            write_run(root / f"{l1}-{seed}", l1=l1, seed=seed, accuracy=score, status=status)


def said(comparison):
    found = conclusions(comparison)
    texts = [*verdict(comparison), tally(comparison), *notes(comparison)]
    return " ".join([*texts, *(part.text for part in [*found.paragraphs, *found.sentences])])


def details(comparison):
    return {row.label: row.details for row in arm_rows(comparison, Canvas(1, comparison))}


INF = math.inf
GOOD = [0.90, 0.91, 0.92, 0.905, 0.915, 0.93, 0.92]
BETTER = [v + 0.048 + 0.0005 * (i % 2) for i, v in enumerate(GOOD)]


def test_means_over_the_seeds_that_neither_lost_give_no_verdict(tmp_path):
    write(tmp_path, [INF, *GOOD], [INF, *BETTER])
    (comparison,) = comparisons(tmp_path, baseline="bn")
    arm = arm_of(comparison, ARM)
    assert (arm.verdict, arm.is_ranked) == (Verdict.NOT_RANKED, False)
    text = said(comparison)
    assert "No arm is ranked against the baseline, bn, which diverged on 1 of its 8 seeds." in text
    assert "the largest gain is bn · L1 0.001 (+4.8" in text
    for shown in ("Better:", " helps:", "without a failure", "shown better than"):
        assert shown not in text


@pytest.mark.parametrize(("base", "arm"), [([*GOOD[:1], *[INF] * 7], [0.9, *GOOD]), ([*GOOD, 0.9], [0.9, *[INF] * 7])])
def test_a_verdict_by_divergence_has_the_p_of_its_test_and_nothing_says_that_one_seed_was_compared(tmp_path, base, arm):
    write(tmp_path, base, arm)
    (comparison,) = comparisons(tmp_path, baseline="bn")
    assert arm_of(comparison, ARM).verdict.is_of_divergence
    text = said(comparison)
    assert "interval ," not in text
    for of_one_seed in ("One seed compares", "Nothing can be said about methods", "McNemar", "1 seed without"):
        assert of_one_seed not in text
    assert "(by how often it diverges), not tested" not in text


def test_without_pairs_an_arms_lost_seeds_are_counted_among_its_own(tmp_path):
    write(tmp_path, GOOD[:3], [*GOOD[:4], None, None, None, None], first=11)
    (comparison,) = comparisons(tmp_path, baseline="bn", pairing="none")
    assert details(comparison)[ARM] == "4 of 8 seeds"
    text = said(comparison)
    assert f"{ARM} (4 of 8 seeds)" in text
    assert "failed on 4 of its 8 seeds" in text
    assert "in common" not in text
    assert "ranked against the baseline, bn: each of them lost a seed." in text
    assert seeds_to_train(comparison) == []


def test_two_models_are_compared_by_their_own_scores_without_pairs_too(tmp_path):
    write(tmp_path, GOOD[:1], GOOD[:5])
    (comparison,) = comparisons(tmp_path, baseline="bn", pairing="none")
    assert arm_of(comparison, ARM).verdict is Verdict.MODELS_ALIKE
    assert "Test accuracy 90.00% against 90.00%: 0.00 points" in verdict(comparison)[1]


def test_a_baseline_that_failed_leaves_no_arm_ranked_or_best(tmp_path):
    write(tmp_path, [None, *GOOD], [0.95, *BETTER])
    (comparison,) = comparisons(tmp_path, baseline="bn")
    arm = arm_of(comparison, ARM)
    assert (arm.verdict, arm.is_ranked, comparison.best) == (Verdict.NOT_RANKED, False, comparison.baseline)
    assert "ranked against the baseline, bn, which failed on 1 of its 8 seeds" in verdict(comparison)[0]


def test_unpaired_arms_have_an_outlook_and_a_cost_from_the_difference_that_was_judged(tmp_path):
    write(tmp_path, GOOD[:6], [v + 0.003 for v in GOOD[1:]], first=21)
    (comparison,) = comparisons(tmp_path, baseline="bn", pairing="none")
    text = said(comparison)
    assert "no open arm would be settled" not in text
    assert "would be settled by about" in text
    assert comparison.shrunken is None


def test_a_lead_of_zero_is_written_with_its_digit(tmp_path):
    for l1, shift in ((0.0, 0.0), (0.001, 0.01)):
        for seed, value in enumerate(GOOD[:3], 1):
            write_run(
                tmp_path / f"{l1}-{seed}",
                l1=l1,
                seed=seed,
                accuracy=value - shift * seed,
                val_accuracy=value - 1e-6 * (l1 > 0),
            )
    (comparison,) = comparisons(tmp_path, baseline="bn")
    assert " .00 points" not in said(comparison)
