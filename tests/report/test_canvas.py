"""The state that a data set's pictures share, and drawing in several processes: the same pictures in the same order."""

from functools import partial

import pytest
from trees import comparisons, write_arms

from reg_sweep.report.canvas import Canvas, drawn, seeds_text
from reg_sweep.report.figures.theme import N_COLOURS, Figure, Picture, new_figure


def test_the_baseline_and_the_best_arms_have_a_colour(tmp_path):
    write_arms(tmp_path, {("bn", 0.01 * n, 0.0): [0.5 + 0.01 * n] for n in range(N_COLOURS + 2)})
    (comparison,) = comparisons(tmp_path)
    canvas = Canvas(1, comparison)
    assert canvas.coloured == [comparison.baseline, *comparison.arms[: N_COLOURS - 1]]
    assert [canvas.slot(arm) for arm in canvas.coloured] == list(range(N_COLOURS))
    assert canvas.slot(comparison.arms[N_COLOURS]) is None


def test_no_two_pictures_share_an_id_and_no_two_data_sets_a_file(tmp_path):
    write_arms(tmp_path, {("bn", 0.0, 0.0): [0.9]})
    (comparison,) = comparisons(tmp_path)
    pictures = [canvas.picture("it", Figure, "") for canvas in (Canvas(1, comparison), Canvas(2, comparison))]
    assert [picture.name for picture in pictures] == ["it", "data2-it"]
    canvas = Canvas(1, comparison)
    assert [canvas.picture(name, Figure, "").id for name in "ab"] == ["d1f1", "d1f2"]


def test_seeds_are_told_as_one_number_or_a_span(tmp_path):
    for name, scores in (("one", [[0.9]]), ("same", [[0.9] * 3] * 2), ("uneven", [[0.9], [0.8] * 3])):
        write_arms(tmp_path / name, {("bn", 0.1 * n, 0.0): s for n, s in enumerate(scores)})
    told = [seeds_text(comparisons(tmp_path / name)[0].arms) for name in ("one", "same", "uneven")]
    assert told == ["1 seed", "Mean of 3 seeds", "Means of 1 to 3 seeds"]


def figure(k: int) -> Figure:
    made, ax = new_figure()
    ax.plot([0, 1], [k, 1])
    ax.set_title(f"picture {k}")
    return made


def pictures(n: int) -> list[Picture]:
    return [Picture(f"p{k}", f"picture {k}", partial(figure, k), f"d1f{k}") for k in range(n)]


def test_pictures_drawn_beside_each_other_are_those_drawn_one_by_one_and_in_order():
    assert list(drawn(pictures(5), ["svg"], 2)) == list(drawn(pictures(5), ["svg"], 1))


@pytest.mark.parametrize("n_processes", [1, 2])
def test_a_picture_that_cannot_be_drawn_is_an_error_whatever_draws_it(n_processes):
    broken = [*pictures(1), Picture("bad", "bad", lambda: None, "d1f1")]  # type: ignore[arg-type, return-value]
    with pytest.raises(AttributeError):
        list(drawn(broken, ["svg"], n_processes))
