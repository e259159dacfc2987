"""The exercises' claims: tested on the arms that they concern."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exercise_trees import MNIST, write_exercise
from trees import arm_of, comparisons, edit_record, write_run

from reg_sweep.comparison.claims import claim_results, roughness
from reg_sweep.comparison.insights import claim_text
from reg_sweep.comparison.results import Result, result
from reg_sweep.runs.reading import read_run
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict


def words_of(root: Path, **options: object) -> dict[int, str]:
    (comparison,) = comparisons(root, margin=0.001, **options)
    return {f.claim.number: f.word for f in claim_results(comparison)}


@pytest.mark.parametrize(("sign", "words"), [(1, ("supported", "contradicted")), (-1, ("contradicted", "supported"))])
def test_a_claim_is_supported_by_all_of_its_parts_and_contradicted_by_one_that_is_shown_wrong(tmp_path, sign, words):
    write_exercise(tmp_path, {(0.001, 0): sign * 0.02, (0, 0.0001): sign * 0.005}, data=MNIST)
    holds, turned = words
    assert words_of(tmp_path) == {1: holds, 2: holds, 3: turned, 5: holds}


def test_the_claim_of_harder_images_is_tested_on_them_and_speaks_of_channels_where_records_count_them(tmp_path):
    def fourth():
        (comparison,) = comparisons(tmp_path, margin=0.001)
        (found,) = [f for f in claim_results(comparison) if f.claim.number == 4]
        return found

    write_exercise(tmp_path, {}, label_noise=0.2, data=MNIST)
    assert fourth().word in ("contradicted", "open")
    assert [part.measure.name for part in fourth().claim.parts] == ["accuracy", "dead kernels"]
    for run in tmp_path.iterdir():
        l1, _, seed = run.name.split("-")
        edit_record(run, weights={"n_channels": 16, "n_dead_channels": 4 + int(seed) if float(l1) > 0 else 0})
    assert [part.measure.name for part in fourth().claim.parts] == ["accuracy", "dead kernels", "dead channels"]
    assert "dead channels, bn · L1 0.001 against bn: +40.6% of the channels (" in claim_text(fourth()).parts[2]


def judged_by(comparison, design, n_looks):
    return replace(comparison, judgement=replace(comparison.judgement, design=design, n_looks=n_looks))


def test_nothing_is_claimed_of_one_seed_or_of_arms_that_lack_one(tmp_path):
    write_exercise(tmp_path / "one", {(0.001, 0): 0.02}, n_seeds=1)
    assert set(words_of(tmp_path / "one").values()) == {"open"}
    write_exercise(tmp_path / "two", {(0.001, 0): 0.02})
    (tmp_path / "two" / "0.001-0-4" / "run.json").unlink()
    (comparison,) = comparisons(tmp_path / "two", margin=0.001)
    first = claim_results(comparison)[0]
    assert first.word == "open"
    assert "L1 0.001 lacks a seed that the others have" in first.why
    assert arm_of(comparison, "bn · L1 0.001").verdict == "not ranked"
    comparison = judged_by(comparison, Design((3, 5, 8)), 3)
    assert "L1 0.001 was not trained beyond 3 of 4 seeds" in claim_results(comparison)[0].why


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict.NOT_WORSE, "was decided at 3 of 4 seeds and not trained further"),
        (Verdict.UNDECIDED, "was not trained beyond 3 of 4 seeds"),
    ],
)
def test_an_arm_is_called_decided_only_where_a_verdict_was_reached(tmp_path, verdict, said):
    write_exercise(tmp_path, {(0.001, 0): 0.02})
    (tmp_path / "0.001-0-4" / "run.json").unlink()
    (comparison,) = comparisons(tmp_path, margin=0.001)
    comparison = judged_by(comparison, Design((3, 5, 8)), 3)
    arms = [
        arm if arm.finding is None else replace(arm, finding=replace(arm.finding, verdict=verdict))
        for arm in comparison.arms
    ]
    assert f"L1 0.001 {said}" in claim_results(replace(comparison, arms=arms))[0].why


def test_after_looks_a_claim_has_the_share_of_the_error_that_the_last_one_may_spend(tmp_path):
    write_exercise(tmp_path, {(0.001, 0): 0.02}, data=MNIST)
    (comparison,) = comparisons(tmp_path, margin=0.001)
    once = claim_results(comparison)[0]
    comparison = judged_by(comparison, Design((3, 5, 8)), 3)
    looked_at = claim_results(comparison)[0]
    assert looked_at.mean == once.mean
    assert all(a < b for a, b in zip(looked_at.low, once.low, strict=True))
    assert all(a > b for a, b in zip(looked_at.high, once.high, strict=True))
    assert comparison.alpha == Design((3, 5, 8)).level(2)


def test_lambdas_that_test_chose_pay_for_the_choice(tmp_path):
    for l1 in (0.0, 0.01, 0.02, 0.04):
        for seed in (1, 2):
            for l2 in (0.0, 0.001):
                write_run(tmp_path / f"{l1}-{l2}-{seed}", l1=l1, l2=l2, seed=seed, data={"n_val": 0}, predictions=False)
    (comparison,) = comparisons(tmp_path, margin=0.001)  # chosen on test; on val it is a choice as well
    by_number = {f.claim.number: f.claim for f in claim_results(comparison)}
    assert by_number[1].n_chosen_from == 3 * 1 * 3
    assert by_number[2].n_chosen_from == 3 * 3


def test_roughness_is_the_spread_of_the_last_quarter(tmp_path):
    write_exercise(tmp_path, {}, n_seeds=1)
    run: Result = result(read_run(tmp_path / "0-0-1"))
    last = [row["test_accuracy"] for row in read_run(tmp_path / "0-0-1").metrics][-4:]
    assert roughness(run) == pytest.approx(np.log(np.std(last, ddof=1)), rel=1e-4)
