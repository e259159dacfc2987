from functools import partial

from reg_sweep.report.drawing import drawn
from reg_sweep.report.figures.theme import Figure, Picture, new_figure


def figure(k: int) -> Figure:
    made, ax = new_figure()
    ax.plot([0, 1], [k, 1])
    ax.set_title(f"picture {k}")
    return made


def pictures(n: int) -> list[Picture]:
    return [Picture(f"p{k}", f"picture {k}", partial(figure, k), f"d1f{k}") for k in range(n)]


def test_pictures_drawn_beside_each_other_are_those_drawn_one_by_one_and_in_order():
    assert list(drawn(pictures(5), ["svg"], 2)) == list(drawn(pictures(5), ["svg"], 1))


def test_a_picture_that_cannot_be_drawn_is_an_error_whatever_draws_it():
    broken = pictures(3)
    broken[1] = Picture("bad", "bad", lambda: None, "d1f1")  # type: ignore[arg-type, return-value]
    for n in (1, 2):
        try:
            list(drawn(broken, ["svg"], n))
        except AttributeError:
            continue
        raise AssertionError(f"{n} processes told of no error")
