"""One look at arms: which are judged by their differences, and which by how often they diverge."""

import math

import numpy as np
import pytest

from reg_sweep.search.sequential import analyse
from reg_sweep.stats.sequential import Design

ARMS = [{"arm": name} for name in ("plain", "same", "good", "wild")]
SEEDS = np.random.default_rng(1).normal(size=20)
NOISE = np.random.default_rng(2).normal(scale=0.01, size=(4, 20))
VALUES = SEEDS + NOISE + np.array([[0.0], [0.0], [1.0], [0.0]])
DESIGN = Design(margin=0.1)


def decisions(look):
    return {arm["params"]["arm"]: arm["decision"] for arm in look["arms"]}


def at(position, values=VALUES, decided_at=None, higher_is_better=True):
    n = DESIGN.looks[position]
    return analyse(DESIGN, position, ARMS, values[:, :n], decided_at or {}, higher_is_better)


def test_a_look_says_what_the_design_says_of_the_differences():
    look = at(2)
    assert look["seeds"] == 8
    assert decisions(look) == {"same": "shown equivalent", "good": "better", "wild": "shown equivalent"}
    assert decisions(at(2, higher_is_better=False))["good"] == "worse"
    good = look["arms"][1]
    assert good["estimate"] == pytest.approx(1, abs=0.02)
    assert good["ci_low"] < good["estimate"] < good["ci_high"]


def test_an_arm_that_was_decided_is_looked_at_no_more():
    later = VALUES.copy()
    later[2, 3:] = -100.0  # seeds that came after its decision
    look, other = at(2, later, {1: 3}), at(2, decided_at={1: 3})
    assert decisions(look).keys() == {"same", "wild"}
    assert look == other


def test_an_arm_with_a_diverged_seed_is_never_better_nor_equivalent():
    values = VALUES.copy()
    values[[2, 3], 1] = [-math.inf, math.inf]
    for position in range(5):
        found = decisions(at(position, values))
        assert found["good"] == found["wild"] == "undecided"
    assert at(4, values)["arms"][1]["n_diverged"] == 1


def test_an_arm_that_diverges_alone_again_and_again_is_worse_by_it():
    values = VALUES.copy()
    values[3] = math.inf
    assert [decisions(at(position, values))["wild"] for position in range(4)] == [
        *["undecided"] * 3,
        "worse by divergence",
    ]
    values[0] = math.inf  # the baseline does, too
    assert decisions(at(4, values))["wild"] == "undecided"


def test_failed_seeds_are_counted_and_compare_nothing():
    values = VALUES.copy()
    values[1, 0] = values[0, 1] = math.nan
    (same, *_) = at(2, values)["arms"]
    assert (same["n_seeds"], same["n_failed"]) == (6, 1)


def test_a_look_without_a_pair_finds_nothing():
    values = VALUES.copy()
    values[0] = math.nan
    assert decisions(at(0, values)) == {"same": "undecided", "good": "undecided", "wild": "undecided"}
    assert at(0, values)["arms"][0]["estimate"] is None
