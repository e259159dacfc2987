"""The sentences of a comparison: its verdict, and the arms that were compared."""

import re
from pathlib import Path
from typing import Any

import pytest
from pages import BN, L1, report
from trees import comparisons, write_arms, write_run

from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.results import TEST_LOSS
from reg_sweep.comparison.sentences import score, signed, verdict
from reg_sweep.report.account import compared
from reg_sweep.report.document import differences_table
from reg_sweep.runs.record import METRIC

NOISE = (0, 0.001, 0.002)


def said(root: Path, **options: Any) -> str:
    """The verdict with its evidence, and what was compared."""
    (comparison,) = comparisons(root, **{"margin": 0.001, **options})
    return " ".join([*verdict(comparison), compared(comparison)])


@pytest.mark.parametrize(
    ("ours", "margin", "says"),
    [
        ([0.96, 0.971, 0.965], 0.001, "bn · L1 0.001 is better than the baseline, bn."),
        ([0.905, 0.93, 0.90], 0.001, "No difference shown between the best arm, bn · L1 0.001, and the baseline, bn."),
        ([0.9003, 0.9104, 0.9052], 0.001, "A real difference, smaller than the margin of ±0.1 points, between the"),
        ([0.9003, 0.9099, 0.9051], 0.001, "bn · L1 0.001, is shown equivalent to the baseline, bn, within ±0.1"),
        ([0.905, 0.93, 0.90], 0.2, "shown equivalent to the baseline, bn, within ±20 points"),
        ([0.85, 0.84, 0.86], 0.001, "No arm beats the baseline, bn, on val."),
    ],
)
def test_the_verdict_says_what_the_numbers_say(tmp_path, ours, margin, says):
    write_arms(tmp_path, {BN: [0.90, 0.91, 0.905], L1: ours})
    told = said(tmp_path, margin=margin)
    assert says in told
    assert ("94% interval" if "equivalent" in says else "95% interval") in told
    assert "3 seeds" in told


@pytest.mark.parametrize("by", [0, 0.0005, 0.2])
def test_differences_without_spread_over_seeds_show_nothing(tmp_path, by):
    """As of two networks at chance, which both predict one class."""
    write_arms(tmp_path, {BN: [0.1, 0.3], L1: [0.1 + by, 0.3 + by]})
    told = said(tmp_path)
    assert "no spread over seeds" in told
    assert not re.search("equivalent|is better", told)


def test_the_best_on_val_that_is_worse_on_test_is_called_worse(tmp_path):
    for seed, noise in enumerate(NOISE, 1):
        write_run(tmp_path / f"a{seed}", seed=seed, accuracy=0.95 + noise, val_accuracy=0.90)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, accuracy=0.90 + 2 * noise, val_accuracy=0.92)
    assert said(tmp_path).startswith("bn · L1 0.1 looked best on val, but is worse than the baseline, bn.")


def test_a_loss_is_better_when_it_is_lower(tmp_path):
    for seed, noise in enumerate(NOISE, 1):
        write_run(tmp_path / f"a{seed}", seed=seed, loss=0.3 + noise)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, loss=0.2 + 2 * noise)
    told = said(tmp_path, metric=TEST_LOSS, margin=None)
    assert told.startswith("bn · L1 0.1 is better than the baseline, bn.")
    assert "0.2020 against 0.3010: −0.0990 (95% interval" in told


def test_an_interval_has_the_level_of_the_tables_error(tmp_path):
    for n_epochs in (3, 4):
        write_arms(tmp_path / str(n_epochs), {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92]}, n_epochs=n_epochs)
    for error, level in (("table", "95%"), ("all", "97.5%")):
        for comparison in comparisons(tmp_path, error=error):
            (arm,) = (a for a in comparison.arms if a is not comparison.baseline)
            assert f"({level} interval " in verdict(comparison)[1]
            assert f"with {level} intervals" in conclusions(comparison).paragraphs[0].text
            assert differences_table(comparison).headings[3] == f"{level} interval"
            assert arm.contrast.equivalence_level(comparison.judgement.alpha) == {"95%": "94%", "97.5%": "97%"}[level]


def test_the_error_of_the_verdict_is_told_beside_that_of_the_facts(tmp_path):
    for n_epochs in (3, 4):
        root = tmp_path / "runs" / str(n_epochs)
        write_arms(root / "base", {BN: [0.90, 0.94, 0.91]}, n_epochs=n_epochs)
        write_arms(root / "l1", {L1: [0.93, 0.95, 0.92]}, n_epochs=n_epochs, loss=0.2)
    for error, told in (
        ("table", "Accuracy and loss each have an error of 5% over all arms."),
        ("all", "Accuracy and loss each have an error of 2.5% over all arms."),
    ):
        page, _ = report(tmp_path / "runs", out=tmp_path / error, error=error)
        assert told in page.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "says"), [(0.98, "these two models differ."), (0.82, "no difference between these two models")]
)
def test_one_seed_compares_models_not_methods_and_says_how_to_compare_methods(tmp_path, ours, says):
    write_arms(tmp_path / "runs", {BN: [0.8], L1: [ours]})
    page, told = report(tmp_path / "runs", out=tmp_path / "report")
    assert told.startswith(f"bn · L1 0.001 and the baseline, bn: {says}")
    assert "One seed compares trained models; methods need more seeds." in told
    assert "Train more seeds: python -m reg_sweep.train norm=bn l1=0,0.001 l2=0 epochs=3 seed=2,3 name=more_s" in told
    assert "McNemar" in told
    made = [page.text, *((tmp_path / "report" / f"summary.{kind}").read_text() for kind in ("md", "csv"))]
    for text in made:
        assert not re.search(r"\bbetter\b|\bworse\b|equivalent|best on", text)
    assert not re.search(r'class="(verdict|text) (better|worse|word)', page.source)
    assert "seed=2,3 name=more_seeds -m" in made[1]


@pytest.mark.parametrize(
    ("arms", "options", "says"),
    [
        ({BN: [0.8], L1: [0.9]}, {}, "The baseline is bn: without L1 and L2. "),
        (
            {BN: [0.8], ("gbn", 0, 0): [0.9]},
            {},
            "The baseline is bn: without L1 and L2 (of several such arms, bn comes f",
        ),
        ({L1: [0.8], ("bn", 0.01, 0): [0.9]}, {}, "The baseline is bn · L1 0.001: the weakest penalty, since no arm"),
        ({BN: [0.8], L1: [0.9]}, {"baseline": "l1=0.001"}, "The baseline is bn · L1 0.001: as requested. "),
    ],
)
def test_how_the_baseline_came_to_be_it_is_said(tmp_path, arms, options, says):
    write_arms(tmp_path, arms)
    assert says in said(tmp_path, **options)


def test_without_val_images_it_is_said_that_test_chose(tmp_path):
    write_arms(tmp_path, {BN: [0.8, 0.9], L1: [0.8, 0.85]}, data={"n_val": 0})
    assert "was chosen on test, since no images are held out as val" in said(tmp_path)


@pytest.mark.slow
def test_a_lambda_in_a_sentence_is_not_broken(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8], ("bn", 1e-7, 0): [0.9]})
    page, told = report(tmp_path / "runs", out=tmp_path / "report")
    assert "bn · L1 1e-07" in told
    assert 'bn\u00a0· L1\u00a0<span class="whole">1e-07</span>' in page.source


@pytest.mark.parametrize(("x", "said"), [(-0.00001, "0.00"), (0.0, "0.00"), (0.00001, "0.00"), (-0.0001, "−0.01")])
def test_a_difference_that_rounds_to_zero_has_no_sign(x, said):
    assert signed(METRIC["test_accuracy"], x) == said


def test_a_score_is_told_with_its_unit_and_a_table_with_its_noisy_labels(tmp_path):
    assert score(METRIC["test_accuracy"], 0.9941, unit=True) == "99.41%"
    write_arms(tmp_path, {BN: [0.7, 0.8]}, data={"n_train": 50_000}, label_noise=0.2)
    assert "(50,000 train images, 20% of them with a wrong label, 50 test images;" in said(tmp_path)
