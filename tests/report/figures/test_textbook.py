import numpy as np
import pytest

from reg_sweep.report.figures import textbook


@pytest.mark.parametrize(
    ("forms", "names", "said"),
    [
        ({"textbook"}, ["L1", "L2", "L1 and L2"], "penalized weights w."),
        ({"notebook"}, ["L1", "L2", "L1 and L2"], "norm layers included."),
        (
            {"notebook", "textbook"},
            ["L1", "L2", "L1 and L2", "notebook's L1", "notebook's L1 and L2"],
            "norm layers included.",
        ),
    ],
)
def test_the_cost_functions_are_those_that_the_runs_minimized(forms, names, said):
    (_, *rows), symbols = textbook.costs(forms)
    assert [name for name, _, _ in rows] == names
    assert symbols.endswith(said)
    for name, cost, pull in rows:
        is_mean = "L1" in name and ("notebook" in name or forms == {"notebook"})
        assert (r"\dfrac{1}{n_t}" in cost) == (r"\dfrac{\lambda_1}{n_t}" in pull) == is_mean


def test_the_textbook_picture_is_true():
    """The optima that it shows lie where no small step lowers loss + penalty."""
    hessian, minimum = np.array([[1.0, 0.25], [0.25, 1.6]]), np.array([1.6, 0.45])
    steps = [0.01 * np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, 2 * np.pi, 24)]
    for w, penalty in (
        (textbook._optimum(hessian, minimum, 1.0, 0.0), lambda v: np.abs(v).sum()),
        (textbook._optimum(hessian, minimum, 0.0, 0.75), lambda v: 0.75 * (v @ v) / 2),
        (textbook._optimum(hessian, minimum, 1.1, 0.4), lambda v: 1.1 * np.abs(v).sum() + 0.4 * (v @ v) / 2),
    ):

        def objective(v, penalty=penalty):
            return 0.5 * (v - minimum) @ hessian @ (v - minimum) + penalty(v)

        assert all(objective(w + step) > objective(w) for step in steps)
    assert textbook._optimum(hessian, minimum, 1.0, 0.0)[1] == 0.0
    assert textbook._optimum(hessian, minimum, 1.1, 0.4)[1] == 0.0
