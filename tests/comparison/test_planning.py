import dataclasses
import math
import re

import numpy as np
import pytest
from trees import comparisons, write_arms, write_run
from until_trees import ALL_LOOKS, WORSE, scores, write_until

from reg_sweep.comparison.planning import Outlook, outlooks
from reg_sweep.comparison.predictions import read_predictions
from reg_sweep.stats.crossed import crossed_difference
from reg_sweep.stats.power import Plan
from reg_sweep.stats.sequential import Design

BN, L1, L2 = ("bn", 0.0, 0.0), ("bn", 0.001, 0.0), ("bn", 0.0, 0.1)


def outlook_of(root, label="bn · L1 0.001", **options) -> Outlook:
    (comparison,) = comparisons(root, **options)
    problems: list[str] = []
    found = {o.arm.label: o for o in outlooks(comparison, problems, 10)}
    assert not problems
    return found[label]


def test_of_two_arms_the_smallest_difference_is_that_of_the_paired_t_test(tmp_path):
    a, b = [0.93, 0.95, 0.92, 0.96], [0.90, 0.94, 0.91, 0.91]
    write_arms(tmp_path, {BN: b, L1: a})
    o = outlook_of(tmp_path)
    sd = float(np.std(np.subtract(a, b), ddof=1))
    assert o.smallest == pytest.approx(Plan(sd, sd_df=3).smallest_difference(4))


def test_an_open_arm_is_told_how_many_seeds_would_settle_it_what_they_cost_and_the_command(tmp_path):
    write_arms(tmp_path, {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92]})
    o = outlook_of(tmp_path)
    plan, design = Plan(float(np.std([0.03, 0.01, 0.01], ddof=1)), sd_df=2), Design(alpha=0.025)
    assert not o.is_settled
    at = dataclasses.replace(plan, correction=design.correction(design.looks.index(o.seeds), 1))
    assert at.power(0.05 / 3, o.seeds) >= 0.8
    assert o.hours == pytest.approx(o.seeds * 6 / 3600)  # two runs a seed, of three seconds each
    (command,) = o.commands
    assert re.sub("_4_[0-9a-f]{4} ", "_4_END ", command) == (
        "python -m reg_sweep.train study=until_verdict norm=bn l1=0,0.001 l2=0 epochs=3 hydra.sweeper.first_seed=4 "
        "name=bn_l1_0.001_from_4_END margin=0.001 hydra.sweeper.design.alpha=0.025"
    )


@pytest.mark.parametrize(("better", "is_long"), [([0.93, 0.95, 0.92], False), ([0.93, 0.93, 0.92], True)])
def test_a_study_that_needs_more_seeds_than_usual_is_advised_with_them(tmp_path, better, is_long):
    write_arms(tmp_path, {BN: [0.90, 0.94, 0.91], L1: better})
    o = outlook_of(tmp_path)
    (command,) = o.commands
    assert (o.seeds > Design().max_seeds) == is_long
    assert (f" max_seeds={o.seeds} " in command) == is_long


def test_the_studies_that_several_tables_lead_to_have_names_of_their_own(tmp_path):
    for n_epochs in (3, 4):
        write_arms(tmp_path / str(n_epochs), {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92]}, n_epochs=n_epochs)
    found = [c for table in comparisons(tmp_path) for o in outlooks(table, [], 9) for c in o.commands]
    names = {word for command in found for word in command.split() if word.startswith("name=")}
    assert len(found) == len(names) == 2


def test_the_studies_that_a_table_leads_to_share_half_of_its_error(tmp_path):
    write_arms(tmp_path, {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.95, 0.92], L2: [0.93, 0.94, 0.92]})
    (comparison,) = comparisons(tmp_path)
    alphas = [c.rpartition("=")[2] for o in outlooks(comparison, [], 9) for c in o.commands]
    assert alphas == ["0.0125", "0.0125"]


def test_a_settled_arm_needs_no_seeds(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.81, 0.80, 0.82], L1: [0.90, 0.92, 0.90, 0.91]})
    o = outlook_of(tmp_path)
    assert o.is_settled
    assert (o.seeds, o.commands) == (None, [])


def test_one_seed_or_no_spread_could_have_seen_nothing(tmp_path):
    write_arms(tmp_path / "one", {BN: [0.9], L1: [0.8]})
    write_arms(tmp_path / "tied", {BN: [0.9, 0.8], L1: [0.8, 0.7]})
    for root in ("one", "tied"):
        o = outlook_of(tmp_path / root)
        assert math.isnan(o.smallest)
        assert o.seeds is None
        assert o.chance.ci_high > 0.8  # one seed or two leave nearly everything possible
        assert o.chance.n_wins == 0


def test_the_interval_for_new_seeds_and_images_is_that_of_the_predictions_on_common_seeds(tmp_path):
    for seed, (n_base, n_arm) in enumerate([(5, 9), (7, 8), (4, 11)], 1):
        write_run(tmp_path / f"a{seed}", seed=seed, accuracy=0.9 - n_base / 100, n_wrong=n_base)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.001, accuracy=0.9 - n_arm / 100, n_wrong=n_arm)
    write_run(tmp_path / "b4", seed=4, l1=0.001, accuracy=0.5, n_wrong=25)  # pairs with none
    o = outlook_of(tmp_path)
    arm, base = (
        np.stack([read_predictions(tmp_path / f"{name}{s}", 50).correct for s in (1, 2, 3)]) for name in ("b", "a")
    )
    assert o.crossed == crossed_difference(arm, base)
    assert o.n_seeds == 3


def test_without_the_predictions_of_a_seed_nothing_is_said_of_images(tmp_path):
    write_arms(tmp_path, {BN: [0.90, 0.94], L1: [0.93, 0.96]})
    next(tmp_path.glob("1-2/predictions.npz")).unlink()
    (comparison,) = comparisons(tmp_path)
    problems: list[str] = []
    (o,) = outlooks(comparison, problems, 10)
    assert o.crossed is None
    assert len(problems) == 1


def test_only_the_first_arms_are_looked_at_but_all_share_the_noise_and_the_correction(tmp_path):
    write_arms(tmp_path, {BN: [0.9, 0.94, 0.91], L1: [0.93, 0.95, 0.92], L2: [0.89, 0.95, 0.93]})
    (comparison,) = comparisons(tmp_path)
    every, first = outlooks(comparison, [], 10), outlooks(comparison, [], 1)
    assert len(first) == 1
    assert first[0].smallest == every[0].smallest


def test_a_study_until_a_verdict_could_see_what_its_looks_can_and_is_settled_by_a_look_to_come(tmp_path):
    write_until(tmp_path, {k: v[:3] if k == WORSE else v for k, v in scores().items()}, ALL_LOOKS, 0.01)
    (comparison,) = comparisons(tmp_path)
    found = {o.arm.label: o for o in outlooks(comparison, [], 10)}
    worse, other = found["bn · L1 0.001"], found["bn · L1 0.1"]
    for o in (worse, other):  # whoever shows a difference four times of five needs more than half of the interval
        shown = o.arm.contrast.difference
        assert o.smallest > (shown.ci_high - shown.ci_low) / 2
    assert worse.is_settled
    assert (worse.seeds, worse.max_seeds, other.commands) == (None, None, [])
    assert other.seeds == other.max_seeds
    design, plan = Design(margin=0.01).until(8).until(16), other.arm.finding.plan
    while True:
        look = len(design.looks) - 1
        at = dataclasses.replace(plan, correction=design.correction(look, 2))
        n, seen = design.max_seeds, other.difference
        if max(at.power(seen, n), at.equivalence_power(0.01, n, seen)) >= 0.8:
            break
        design = design.until(2 * n)
    assert other.seeds == n
    longer = dataclasses.replace(comparison.judgement, design=Design(margin=0.01))  # planned looks stay planned
    comparison = dataclasses.replace(comparison, judgement=longer)
    (planned,) = [o for o in outlooks(comparison, [], 10) if o.arm is other.arm]
    assert planned.max_seeds == max(20, planned.seeds)
