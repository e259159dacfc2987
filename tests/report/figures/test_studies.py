from itertools import pairwise

import numpy as np
import pytest

from reg_sweep.report.figures import studies as study_figures
from reg_sweep.report.figures.studies import TrialPoint

TRIALS = [
    TrialPoint(n, {"l1": 10.0 ** -(n % 6), "norm": "<b>" if n % 2 else "gbn"}, (0.1 + 0.1 * (n % 7),), n % 3 == 2)
    for n in range(12)
]


def parameter(given: list, best: int | None = None):
    """The drawn axis of a parameter with these values."""
    points = [TrialPoint(n, {"p": v}, (0.1 * n + 0.1,), False) for n, v in enumerate(given)]
    return study_figures.parameter("It", "p", "val loss", points, best, is_accuracy=False).axes[0]


@pytest.mark.parametrize("minimize", [True, False])
def test_a_studys_best_so_far_never_gets_worse_and_ends_at_the_best(minimize):
    figure = study_figures.history("It", "val loss", TRIALS, [12], minimize=minimize, is_accuracy=False)
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    values = line.get_ydata()
    complete = [p.values[0] for p in TRIALS if not p.is_pruned]
    steps = np.diff(values)
    assert (steps <= 0).all() if minimize else (steps >= 0).all()
    assert values[-1] == (min if minimize else max)(complete)
    assert line.get_xdata()[-1] == 12  # the failed trial counts


def test_complete_trials_are_full_marks_and_pruned_ones_hollow():
    figure = study_figures.history("Trials", "val loss", TRIALS, [3, 7], minimize=True, is_accuracy=False)
    marks = {line.get_label(): line for line in figure.axes[0].lines}
    assert marks["complete"].get_markerfacecolor() != "none"
    assert marks["pruned: its last value"].get_markerfacecolor() == "none"
    assert len(marks["complete"].get_xdata()) == sum(not p.is_pruned for p in TRIALS)
    assert len(marks["pruned: its last value"].get_xdata()) == sum(p.is_pruned for p in TRIALS)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        ([0.1, 1.0, 2.9], "p"),
        ([0.1, 1.0, 3.1], "p (log axis)"),
        ([0.0, 0.1, 3.1], "p (log axis; 0 set apart)"),
        ([-1.0, 0.001, 10.0], "p"),
        ([0.0, 0.0], "p"),
        ([*range(1, 8), 512], "p (log axis)"),
    ],
)
def test_a_number_has_a_log_axis_where_it_spans_more_than_a_factor_of_30(given, label):
    assert parameter(given).get_xlabel() == label


def test_zero_stands_left_of_every_other_number_on_a_log_axis():
    ax = parameter([1e-5, 0.0, 0.1])
    (marks,) = (line for line in ax.lines if line.get_label() == "complete")
    x = marks.get_xdata()
    assert x[1] < x[0] < x[2]
    ticks = dict(zip((t.get_text() for t in ax.get_xticklabels()), ax.get_xticks(), strict=True))
    assert ticks["0"] == x[1]
    assert ticks["1e-05"] == pytest.approx(x[0])
    assert ticks["0.1"] == pytest.approx(x[2])


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (["gn", "bn", "gn"], ["bn", "gn"]),
        ([True, False, None], ["False", "None", "True"]),
        ([16, 8, 32], ["8", "16", "32"]),
        (["x", 2, 0.5], ["0.5", "2", "x"]),
    ],
)
def test_a_choice_has_columns_and_each_trial_stands_in_its_own(given, columns):
    ax = parameter(given)
    assert [t.get_text() for t in ax.get_xticklabels()] == columns
    (marks,) = (line for line in ax.lines if line.get_label() == "complete")
    assert [columns[round(x)] for x in marks.get_xdata()] == list(map(str, given))


@pytest.mark.parametrize("given", [["gn", "bn"], ["l1_bn", "l1_l2_bn", "l1_l2_gbn", "l2_bn", "none_bn", "gbn"]])
def test_names_of_choices_do_not_overprint_each_other(given):
    ax = parameter(given)
    ax.figure.canvas.draw()
    names = ax.get_xticklabels()
    assert len({t.get_rotation() for t in names}) == 1
    boxes = [t.get_window_extent() for t in names]
    assert names[0].get_rotation() or all(left.x1 < right.x0 for left, right in pairwise(boxes))


EPOCHS = {n: (2 if n % 3 == 2 else 6, 6) for n in range(12)}


def test_epochs_spent_stand_beside_trials_and_what_pruning_saved_is_shaded_and_told():
    figure = study_figures.history("It", "val loss", TRIALS, [], EPOCHS, minimize=True, is_accuracy=False)
    right = figure.axes[1]
    ends = [max(line.get_xdata()) for line in right.lines if line.get_drawstyle() == "steps-post"]
    assert ends == [56, 72]
    assert right.get_title("left") == "by epochs spent: pruning saved 16 of 72"
    assert figure.get_figwidth() <= 7


@pytest.mark.parametrize(("minimize", "where"), [([True, False], "steps-post"), ([False, True], "steps-pre")])
def test_a_front_is_steps_that_no_trial_crosses_and_says_where_better_is(minimize, where):
    points = [TrialPoint(n, {}, v, False) for n, v in enumerate([(0.1, 0.0), (0.2, 0.5), (0.3, 0.9), (0.3, 0.0)])]
    ax = study_figures.pareto_front("It", ["val loss", "zero share, %"], points, [0, 1, 2], minimize).axes[0]
    assert [line.get_drawstyle() for line in ax.lines if line.get_drawstyle() != "default"] == [where]
    labels = [ax.get_xlabel(), ax.get_ylabel()]
    assert [label.startswith("← better") for label in labels] == minimize
    assert [label.endswith("better →") for label in labels] == [not low for low in minimize]
    assert "ticks: 2 at 0" in [line.get_label() for line in ax.lines]


def test_three_objectives_are_not_connected():
    points = [TrialPoint(n, {}, (0.1 * n, 0.2, -0.1 * n), False) for n in range(3)]
    ax = study_figures.pareto_front("It", ["a", "b", "c"], points, [0, 1], [True] * 3).axes[0]
    assert all(line.get_drawstyle() == "default" for line in ax.lines)


def plane(surface=None):
    points = [
        TrialPoint(n, {"l1": l1, "l2": l2, "norm": "bn" if n % 2 else "gn"}, (0.1 + n,), n == 4)
        for n, (l1, l2) in enumerate([(0.0, 1e-7), (1e-7, 0.1), (0.1, 1e-7), (0.1, 0.1), (1e-4, 1e-3)])
    ]
    return study_figures.lambda_plane(
        "It", "val loss", points, "norm", 0, (0.1, 2.0), surface, minimize=True, is_accuracy=False
    )


@pytest.mark.parametrize("surface", [None, lambda u, v: u**2 + v])
def test_every_mark_of_both_lambdas_lies_inside_its_axes_and_zero_is_set_apart(surface):
    ax = plane(surface).axes[0]
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    places = np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) > 0])
    places = places[~(places == 0).all(axis=1)]  # contours have none
    assert ((places[:, 0] > left) & (places[:, 0] < right) & (places[:, 1] > low) & (places[:, 1] < high)).all()
    assert ax.get_xlabel() == "l1 (log axis; 0 set apart)"
    assert ax.get_xticklabels()[0].get_text() == "0"
    assert len(ax.get_xticks()) <= 6


def test_the_label_of_zero_has_room_beside_the_powers_of_ten():
    at = parameter([0.0, *10.0 ** np.linspace(-7, -1, 30)]).get_xticks()
    assert at[1] - at[0] >= 0.12 * (at[-1] - at[0])


def test_numbers_of_the_front_that_would_cover_each_other_move_or_stay_away():
    places = [(0.5, 0.5)] * 6 + [(0.1, 0.9), (0.9, 0.1)]
    points = [study_figures.TrialPoint(n, {}, place, False) for n, place in enumerate(places)]
    ax = study_figures.pareto_front("It", ["a, %", "b, %"], points, list(range(8)), [True, True]).axes[0]
    numbers = [(text.xy, text.xyann) for text in ax.texts if text.get_text().isdigit()]
    assert len(set(numbers)) == len(numbers) == 6
    assert {xy for xy, _ in numbers} == set(places)
