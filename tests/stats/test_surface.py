import numpy as np
import pytest

from reg_sweep.stats.surface import quadratic_surface


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
