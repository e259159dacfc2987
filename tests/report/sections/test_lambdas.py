import re

import pytest
from pages import BN, L1, report
from trees import write_arms, write_run

from reg_sweep.report.sections.lambdas import N_OPEN


@pytest.mark.slow
def test_lambdas_are_studied_where_three_of_them_differ_in_nothing_else(tmp_path):
    write_arms(tmp_path / "two", {BN: [0.8, 0.9], L1: [0.8, 0.9]})
    write_arms(tmp_path / "three", {BN: [0.8, 0.9], L1: [0.8, 0.9], ("bn", 0.01, 0): [0.7, 0.8]})
    for name in ("two", "three"):
        report(tmp_path / name, out=tmp_path / f"{name}-report")
    assert not list((tmp_path / "two-report").glob("study-*"))
    assert (tmp_path / "three-report" / "study-l1-1.svg").exists()


@pytest.mark.slow
def test_two_searches_of_one_lambda_each_are_no_grid(tmp_path):
    arms = [(0.01 * n, 0.0) for n in range(5)] + [(0.0, 0.01 * n) for n in range(1, 5)]
    write_arms(tmp_path / "runs", {("bn", l1, l2): [0.9] for l1, l2 in arms})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Varying L1: bn" in page.source
    assert "Varying L1 and L2" not in page.source


@pytest.mark.slow
def test_of_many_lambdas_the_small_curves_reach_from_the_smallest_to_the_largest(tmp_path):
    write_arms(tmp_path / "runs", {("bn", 0.01 * n, 0.0): [0.9] for n in range(20)})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "12 of 20 lambdas, from the smallest to the largest" in page.text
    (alt,) = re.findall(r'aria-label="(Train and test accuracy for each L1[^"]*)"', page.source)
    assert alt.count("points") == 12
    assert "L1 0:" in alt
    assert "L1 0.19:" in alt


def test_a_heat_map_frames_the_best_that_may_be_chosen_and_the_cells_that_are_as_good(tmp_path):
    scores = {("bn", a, b): [0.9 - a - b, 0.91 - a - b] for a in (0, 0.01, 0.02) for b in (0, 0.01)}
    scores["bn", 0.01, 0] = [0.905, 0.902]  # within an error of none; a missing seed would have made it best
    write_arms(tmp_path / "runs", scores)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert (tmp_path / "report" / "heat-map-1.svg").exists()
    assert "Best: L1 0, L2 0 (framed)" in page.text
    assert "Thin frames: the 2 cells within one paired standard error of it." in page.text


def test_the_page_says_of_how_many_studies_it_draws_a_few(tmp_path):
    arms = {("bn", 0.01 * n, 0.01 * m): [0.9] for n in range(3) for m in range(5)}
    write_arms(tmp_path / "runs", arms)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "This page draws 4 of the 5 studies of L1: first that of the best arm" in page.text
    n = int(re.search(r"(\d+) more pictures of the lambdas", page.text)[1])
    pictures = [*(tmp_path / "report").glob("study-*.svg"), *(tmp_path / "report").glob("heat-map-*.svg")]
    assert n + N_OPEN == len(pictures)


def test_the_strengths_of_an_own_penalty_are_studied_from_the_arm_without_it(tmp_path):
    spec = {"_target_": "mine.orthogonality"}
    for strength in (0, 0.01, 0.1):
        penalties = {"ortho": {**spec, "strength": strength}}
        for seed in (1, 2):
            folder = tmp_path / "runs" / f"{strength}-{seed}"
            write_run(folder, seed=seed, accuracy=0.8 + strength, penalties=penalties)
    for seed in (1, 2):  # of another argument: its own study, which has too few strengths
        penalties = {"ortho": {**spec, "power": 4, "strength": 0.5}}
        write_run(tmp_path / "runs" / f"other-{seed}", seed=seed, accuracy=0.5, penalties=penalties)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert page.source.count('aria-label="Varying ortho: bn') == 1
    assert "ortho = 0.1 (ring)" in page.text
