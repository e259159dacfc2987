"""Which point of a study is best."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.runs.ranking import Outcome, decimal_text, points, ranked


def grid(values):
    """Outcomes from {(arm, seed): value}."""
    return [Outcome(i, {"arm": arm, "seed": seed}, [v]) for i, ((arm, seed), v) in enumerate(values.items())]


def order(values, direction="minimize"):
    return [p.params["arm"] for p in ranked(points(grid(values), ["seed"]), [direction])]


def test_a_lucky_seed_does_not_make_an_arm_the_best():
    values = {("steady", 1): 0.5, ("steady", 2): 0.5, ("lucky", 1): 0.1, ("lucky", 2): 1.5}
    assert order(values) == ["steady", "lucky"]
    assert order(values, "maximize") == ["lucky", "steady"]
    (best, _) = ranked(points(grid(values), ["seed"]), ["minimize"])
    assert (best.numbers, best.params, best.values, best.n_replicates) == ((0, 1), {"arm": "steady"}, (0.5,), 2)


def test_a_seed_that_is_missing_or_diverged_never_helps():
    values = {("whole", 1): 0.5, ("whole", 2): 0.9, ("short", 1): 0.1, ("gone", 1): 0.1, ("gone", 2): math.inf}
    assert order(values) == ["whole", "short"]


def test_a_replicate_that_ran_twice_counts_once():
    outcomes = [Outcome(i, {"seed": seed}, [v]) for i, (seed, v) in enumerate([(1, 1.0), (1, 1.0), (2, 4.0)])]
    (point,) = points(outcomes, ["seed"])
    assert (point.values, point.n_replicates) == ((2.5,), 2)


@given(st.lists(st.floats(-10, 10), max_size=10))
def test_without_replicates_each_trial_is_a_point_of_its_own(values):
    found = points([Outcome(i, {"x": 1}, [v]) for i, v in enumerate(values)], [])
    assert [(p.numbers, p.values, p.params) for p in found] == [((i,), (v,), {"x": 1}) for i, v in enumerate(values)]


def test_what_breaks_a_constraint_is_never_best():
    outcomes = [Outcome(0, {}, [0.1], is_feasible=False), Outcome(1, {}, [0.2])]
    assert [p.numbers for p in ranked(points(outcomes, []), ["minimize"])] == [(1,)]
    one_of_two = [Outcome(0, {"seed": 1}, [0.1], is_feasible=False), Outcome(1, {"seed": 2}, [0.2])]
    assert ranked(points(one_of_two, ["seed"]), ["minimize"]) == []


@pytest.mark.parametrize("missing", [False, True])
def test_a_pareto_front_is_that_of_the_means(missing):
    values = {("a", 1): (0, 4), ("a", 2): (2, 4), ("b", 1): (1.5, 5), ("b", 2): (1.5, 5), ("c", 1): (0, 0)}
    if not missing:
        values[("c", 2)] = (4, 0)
    outcomes = [Outcome(i, {"arm": a, "seed": s}, v) for i, ((a, s), v) in enumerate(values.items())]
    front = ranked(points(outcomes, ["seed"]), ["minimize", "minimize"])
    assert [p.params["arm"] for p in front] == (["a"] if missing else ["a", "c"])


def test_the_mean_of_huge_values_is_finite():
    (point,) = points([Outcome(i, {"seed": i}, [1.5e308]) for i in range(2)], ["seed"])
    assert point.values == (1.5e308,)


@pytest.mark.parametrize(
    ("x", "text"), [(0.12345, "0.1235"), (123456.0, "123456.0000"), (1.0086e28, "1.01e+28"), (math.inf, "inf")]
)
def test_a_loss_too_large_to_be_read_as_a_decimal_has_an_exponent(x, text):
    assert decimal_text(x) == text
