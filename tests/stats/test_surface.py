"""The quadratic surface; the forest's importances against their definition, and against Optuna's fANOVA."""

import itertools
import random

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from reg_sweep.stats import surface
from reg_sweep.stats.surface import Column, importances, quadratic_surface

CHOICES = 4


def test_a_quadratic_is_found_as_it_is_with_a_level_for_each_group():
    x, y = np.random.default_rng(0).uniform(-7, -1, (2, 40))
    groups = ["a", "b"] * 20
    z = (x + 4) ** 2 + 0.5 * x * y + np.where(np.arange(40) % 2, 3.0, 0.0)
    found = quadratic_surface(x, y, z, groups)
    assert found.explained == pytest.approx(1)
    assert found.at(-4, -2, "a") == pytest.approx(4)
    assert found.at(-4, -2, "b") == pytest.approx(7)


def test_what_is_explained_is_measured_at_points_left_out():
    rng = np.random.default_rng(1)
    x, y, z = rng.normal(size=(3, 16))
    design = np.column_stack([np.ones(16), x, y, x**2, x * y, y**2])
    errors, null = [], []
    for i in range(16):
        rest = np.arange(16) != i
        errors.append(z[i] - design[i] @ np.linalg.lstsq(design[rest], z[rest])[0])
        null.append(z[i] - z[rest].mean())
    slow = 1 - np.square(errors).sum() / np.square(null).sum()
    assert quadratic_surface(x, y, z, [None] * 16).explained == pytest.approx(slow)


@pytest.mark.parametrize("n", [11, 30])
def test_few_points_and_points_on_a_line_carry_none(n):
    x = np.linspace(0, 1, n)
    y = np.random.default_rng(0).random(n) if n < 12 else x
    assert quadratic_surface(x, y, x**2, [None] * n) is None


def problem(n, seed=5):
    """A number that counts for most of the value, one that counts for little, one for nothing, and four choices."""
    draw = random.Random(seed)
    numbers = [[draw.random() for _ in range(n)] for _ in range(3)]
    choices = [draw.randrange(CHOICES) for _ in range(n)]
    noise = [draw.gauss(0, 0.1) for _ in range(n)]
    y = [2 * a + b**2 + 0.7 * (c == 1) + e for a, b, c, e in zip(*numbers[:2], choices, noise, strict=True)]
    return numbers, choices, y


def columns_of(numbers, choices):
    return [*map(Column.of_numbers, numbers), Column.of_choices(choices, CHOICES)]


def test_a_trees_variances_are_those_of_its_mean_predictions_cell_by_cell():
    numbers, choices, y = problem(12)
    columns = columns_of(numbers[:2], choices)
    counts = np.array([2, 0, 1, 1, 3, 0, 1, 1, 0, 2, 1, 0], dtype=float)
    boxes, means, predicted = surface._tree(columns, np.array(y), counts, np.random.default_rng(0))

    def at(cells):
        (mean,) = (m for box, m in zip(boxes, means, strict=True) if all(b[c] for b, c in zip(box, cells, strict=True)))
        return mean

    assert [at(cells) for cells in zip(*(c.cells for c in columns), strict=True)] == list(predicted)
    every = list(itertools.product(*(range(len(c.widths)) for c in columns)))
    weights = np.array([np.prod([c.widths[i] for c, i in zip(columns, cells, strict=True)]) for cells in every])
    values = np.array([at(cells) for cells in every])
    whole = np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)
    alone = []
    for j, column in enumerate(columns):
        its = np.array([cells[j] for cells in every])
        given = np.array([np.average(values[its == k], weights=weights[its == k]) for k in range(len(column.widths))])
        alone.append(np.average((given - np.average(values, weights=weights)) ** 2, weights=column.widths))
    found, variance = surface._variances(columns, boxes, means)
    assert variance == pytest.approx(whole)
    assert list(found) == pytest.approx(alone)


def test_the_points_that_were_drawn_are_predicted_exactly_by_a_tree_that_is_deep_enough():
    numbers, choices, y = problem(12)
    _, _, predicted = surface._tree(columns_of(numbers, choices), np.array(y), np.ones(12), np.random.default_rng(0))
    assert list(predicted) == pytest.approx(y)


def test_shares_are_those_of_optunas_fanova_within_the_forests_own_spread():
    pytest.importorskip("sklearn", reason="Optuna's fANOVA needs scikit-learn")
    numbers, choices, y = problem(200)
    spaces = {name: FloatDistribution(0, 1) for name in "abc"} | {"d": CategoricalDistribution(range(CHOICES))}
    study = optuna.create_study()
    for *params, value in zip(*numbers, choices, y, strict=True):
        point = dict(zip(spaces, params, strict=True))
        study.add_trial(optuna.trial.create_trial(params=point, distributions=spaces, value=value))
    found = optuna.importance.FanovaImportanceEvaluator(n_trees=32, max_depth=8, seed=0).evaluate(study)
    theirs = [found[name] / sum(found.values()) for name in spaces]
    assert importances(columns_of(numbers, choices), y) == pytest.approx(theirs, abs=0.06)


def test_pure_noise_has_no_shares_in_nineteen_of_twenty_studies():
    named = 0
    for seed in range(60):
        draw = random.Random(seed)
        columns = [Column.of_numbers([draw.random() for _ in range(11)]) for _ in range(2)]
        named += bool(importances(columns, [draw.gauss(0, 1) for _ in range(11)]))
    assert named <= 3


def test_the_same_points_have_the_same_shares_and_few_or_equal_ones_none():
    numbers, choices, y = problem(30)
    columns = columns_of(numbers, choices)
    assert importances(columns, y) == importances(columns, y)
    assert importances(columns, [1.0] * 30) == []
    assert importances([Column.of_numbers(n[:7]) for n in numbers], y[:7]) == []
