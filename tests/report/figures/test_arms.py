import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Text

from reg_sweep.report.figures import arms as figures
from reg_sweep.report.figures import studies as study_figures
from reg_sweep.report.figures import textbook
from reg_sweep.report.figures import theme as pictures
from reg_sweep.report.figures.arms import LambdaPoint, Line
from reg_sweep.report.figures.lambdas import Panel, heat_map, train_and_test
from reg_sweep.report.figures.studies import TrialPoint
from reg_sweep.report.figures.theme import THEMES, Picture
from reg_sweep.stats.estimates import mean_interval
from reg_sweep.stats.selection import one_standard_error

RNG = np.random.default_rng(0)

WEIGHTS = [("bn", 0, RNG.normal(size=500)), ("bn · L1 0.1", 1, RNG.normal(size=500) * (RNG.random(500) < 0.3))]


def lines(n: int = 8) -> list[Line]:
    mean = 0.9 + 0.01 * RNG.random((n, 20))
    return [Line(f"arm {i}", i, m, m - 0.01, m + 0.01) for i, m in enumerate(mean)]


def lambda_study(title="Varying L1"):
    strengths, scores = [0.0, 0.001, 0.01], [[0.98, 0.99], [0.985, 0.99], [0.97, 0.975]]
    points = [
        LambdaPoint(s, f"{s:g}", None, mean_interval(v), 0.98, 0.1, 0.0, 0.0)
        for s, v in zip(strengths, scores, strict=True)
    ]
    choice = one_standard_error(strengths, scores, lower_is_better=False)
    return figures.lambda_study(title, "L1", "val accuracy, %", points, choice, is_accuracy=True)


TRIALS = [
    TrialPoint(n, {"l1": 10.0 ** -(n % 6), "norm": "<b>" if n % 2 else "gbn"}, (0.1 + 0.1 * (n % 7),), n % 3 == 2)
    for n in range(12)
]

PAIRS = [TrialPoint(n, {}, (0.1 * n, 0.2 * (n % 4)), False) for n in range(8)]


def every_figure() -> dict[str, object]:
    curve = np.linspace(0.5, 0.9, 20)
    heat = RNG.random((4, 4))
    found = {"best": (0, 0), "as_good": heat < 0.2, "is_accuracy": False}
    return {
        "accuracy": figures.curves("Test accuracy", "accuracy, %", lines(), RNG.random((30, 20)), is_accuracy=True),
        "loss": figures.curves("Test loss", "loss", lines(2), is_accuracy=False),
        "one epoch": figures.curves("Short", "loss", [Line("a", 0, *np.full((3, 1), 0.4))], is_accuracy=False),
        "lambda": lambda_study(),
        "small": train_and_test("Both", [Panel("L1 0", 0, curve, curve)] * 5, is_accuracy=True, unit="accuracy, %"),
        "heat": heat_map("Both", list("abcd"), list("efgh"), heat, unit="val loss", **found),
        "history": study_figures.history("Trials", "val loss", TRIALS, [3, 7], minimize=True, is_accuracy=False),
        "number": study_figures.parameter("l1", "l1", "val loss", TRIALS, 0, is_accuracy=False),
        "choice": study_figures.parameter("norm", "norm", "val accuracy, %", TRIALS, None, is_accuracy=True),
        "front": study_figures.pareto_front("Front", ["val loss", "zero share, %"], PAIRS, [0, 1], [True, False]),
        "penalties": textbook.penalties(),
        "contours": textbook.contours(),
        "histograms": figures.histograms(WEIGHTS),
        "magnitudes": figures.magnitudes(WEIGHTS, 1e-3),
        "kernels": figures.kernel_map("Dead", [("a", RNG.random((4, 1))), ("b", np.zeros((4, 4)))], 1e-3),
        "confusion": figures.confusion("Confusion", RNG.integers(0, 9, (10, 10)), list("0123456789")),
        "mistakes": figures.mistakes("Mistakes", RNG.integers(0, 255, (7, 28, 28)), ["4 → 9"] * 7),
    }


FIGURES = every_figure()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_title_and_labelled_axes_and_fits_a_paper_with_no_text_below_7_points(name):
    figure = FIGURES[name]
    assert figure.get_suptitle() or figure.axes[0].get_title("left")
    labels = [figure.get_supxlabel(), figure.get_supylabel()]
    labels += [text.get_text() for ax in figure.axes for text in ax.texts if text.get_text() == "epoch"]
    labels += [label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel())]
    assert sum(map(bool, labels)) >= 2 or name == "mistakes"
    assert figure.get_figwidth() <= pictures.PAGE_WIDTH
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


@pytest.mark.parametrize("name", ["accuracy", "loss", "magnitudes"])
def test_lines_of_arms_are_named_in_the_picture_itself(name):
    figure = FIGURES[name]
    drawn = {line.get_label() for line in figure.axes[0].lines if line.get_gid()}
    (legend,) = figure.legends
    assert drawn == {text.get_text() for text in legend.get_texts()}


def test_a_picture_says_which_epochs_its_axis_leaves_out():
    mean = np.array([0.1, 0.5, 0.8] + [0.97] * 17)
    figure = figures.curves("Test accuracy", "accuracy, %", [Line("bn", 0, mean, mean, mean)], is_accuracy=True)
    assert [text.get_text() for text in figure.axes[0].texts] == ["epochs 1 to 3 lie outside, in part"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_becomes_well_formed_svg_that_asks_for_nothing(name):
    drawn = pictures.rendered(Picture("it", "Says <what> & why", lambda: FIGURES[name], "p"))
    inline = drawn.inline
    root = ET.fromstring(inline)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Says <what> & why"
    addresses = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', inline)
    assert all(a.startswith(("#", "data:")) for pair in addresses for a in pair if a)
    ids = re.findall(r'\bid="([^"]+)"', inline)
    assert len(ids) == len(set(ids))
    assert all(i.startswith("p-") for i in ids)
    used = {a.removeprefix("#") for pair in addresses for a in pair if a.startswith("#")}
    assert used <= set(ids)
    ET.fromstring(drawn.files["svg"])
    assert drawn.files["png"].startswith(b"\x89PNG")
    assert drawn.files["pdf"].startswith(b"%PDF")


def inline(figure) -> str:
    """A figure as the page holds it, with p before each of its ids."""
    return pictures.rendered(Picture("it", "x", lambda: figure, "p"), ["svg"]).inline


@pytest.mark.slow
def test_a_page_sees_themed_colours_and_marks_of_each_arm_and_a_file_sees_plain_ones():
    drawn = pictures.rendered(Picture("it", "x", lambda: FIGURES["accuracy"], "p"), ["svg"])
    light = THEMES["light"]
    assert not any(value in drawn.inline for value in light.values())
    assert "var(--arm7)" in drawn.inline
    assert light["arm7"] in drawn.files["svg"].decode()
    assert [drawn.inline.count(f'class="arm arm-{slot}"') for slot in range(8)] == [2] * 8  # line and band


def test_text_keeps_its_digits():
    assert ">0.001<" in inline(FIGURES["lambda"])


def test_an_arms_name_is_text_whatever_it_holds():
    figure = figures.histograms([("<b>$x_1$ & co", 0, RNG.normal(size=50))])
    assert "<b>$x_1$ & co" in "".join(ET.fromstring(inline(figure)).itertext())


def test_labels_of_spread_weights_stand_beside_the_curves_and_switch_with_them():
    figure = figures.histograms(WEIGHTS)
    assert inline(figure).count('class="arm arm-1"') == 3  # area, outline, label
    ax = figure.axes[0]
    left = ax.get_window_extent().x0
    assert all(label.get_window_extent().x1 <= left for label in ax.get_yticklabels())


@pytest.mark.parametrize("strengths", [np.geomspace(1e-7, 0.1, 10), 10.0 ** np.array([-7, -6.2, -6.1, -6.09, -6, -3])])
def test_lambdas_far_apart_are_all_named_and_close_ones_not_upon_each_other(strengths):
    points = [LambdaPoint(s, f"{s:.3g}", None, mean_interval([0.9]), 0.9, 0.1, 0.0, 0.0) for s in strengths]
    choice = one_standard_error(list(strengths), [[0.9]] * len(points), lower_is_better=False, standard_error=0.01)
    figure = figures.lambda_study("L1", "L1", "val accuracy, %", points, choice, is_accuracy=True)
    ticks = figure.axes[1].get_xticks()
    assert np.diff(ticks).min() >= 0.099 * np.ptp(ticks)
    assert len(ticks) == (10 if len(strengths) == 10 else 3)
    assert set(ticks) <= set(np.log10(strengths))


LONG = "bn · L1 0.001 · L2 0.0005 · epochs 40 · " + " · ".join(f"a setting of its own {n}" for n in range(8))
CELLS = {"best": (0, 1), "as_good": np.eye(2, dtype=bool)}
NARROW = {
    "histograms": lambda: figures.histograms([(LONG, slot, WEIGHTS[0][2]) for slot in range(8)]),
    "lambda": lambda: lambda_study(title=f"Varying L1: {LONG}"),
    "heat": lambda: heat_map(LONG, ["a", "b"], ["c", "d"], RNG.random((2, 2)), **CELLS, is_accuracy=True, unit="%"),
    "small": lambda: train_and_test(LONG, [Panel("L1", 0, *np.ones((2, 9)))] * 5, is_accuracy=True, unit="%"),
    "kernels": lambda: figures.kernel_map(LONG, [("a", RNG.random((4, 1)))], 1e-3),
    "confusion": lambda: figures.confusion(LONG, RNG.integers(0, 9, (10, 10)), list("0123456789")),
    "mistakes": lambda: figures.mistakes(LONG, RNG.integers(0, 255, (5, 28, 28)), ["4 → 9"] * 5),
    "history": lambda: study_figures.history(LONG, "val loss", TRIALS, [3], minimize=True, is_accuracy=False),
    "many classes": lambda: figures.confusion(LONG, RNG.integers(0, 9, (200, 200)), [f"class {i}" for i in range(200)]),
    "one word": lambda: figures.confusion("x" * 500, RNG.integers(0, 9, (10, 10)), list("0123456789")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NARROW)
def test_a_label_of_any_length_leaves_the_picture_its_room(name):
    """Matplotlib warns, and warnings are errors, where a title leaves no room."""
    figure = NARROW[name]()
    inline(figure)
    titles = [ax.title for ax in figure.axes] + [ax._left_title for ax in figure.axes]
    titles += [figure._suptitle] if figure._suptitle else []
    renderer = RendererAgg(1, 1, figure.dpi)  # the one that saved it measures at the file's resolution
    assert all(title.get_window_extent(renderer).x1 <= figure.bbox.x1 for title in titles if title.get_text())
    assert figure.axes[0].get_window_extent().height > 0.2 * figure.bbox.height


@pytest.mark.parametrize("is_accuracy", [True, False])
def test_arms_far_from_the_rest_do_not_squeeze_it(is_accuracy):
    others = np.full((30, 20), 0.9)
    others[:5] = 0.1 if is_accuracy else 9.0
    ax = figures.curves("It", "unit", lines(), others, is_accuracy=is_accuracy).axes[0]
    low, high = ax.get_ylim()
    assert high - low < 0.5


def test_a_lambda_studys_legend_covers_nothing():
    figure = lambda_study()
    inline(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["test", "near zero", "exactly zero", "dead kernels"]
    for ax in figure.axes:
        assert not legend.get_window_extent().overlaps(ax.get_tightbbox())


@pytest.mark.parametrize("values", [(2.3, 2.303), (0.05, 0.06), (0.01, 2.0)])
def test_a_loss_fills_its_axis_however_narrow_its_range(values):
    curve = np.geomspace(*values, 40)
    figure = figures.curves("Loss", "loss", [Line("a", 0, curve, curve, curve)], is_accuracy=False)
    low, high = figure.axes[0].get_ylim()
    shown = np.log(values[1] / curve[10])
    assert low <= curve[10]
    assert values[1] <= high
    assert shown / np.log(high / low) > 0.5


@pytest.mark.parametrize(
    ("is_accuracy", "worst", "end"), [(True, 0.2, "min"), (False, 9.0, "max"), (True, 0.988, "neither")]
)
def test_the_bar_of_colours_ends_in_an_arrow_where_cells_lie_beyond_it(is_accuracy, worst, end):
    means = np.array([[0.990, 0.989], [0.9885, worst]]) if is_accuracy else np.array([[0.1, 0.11], [0.12, worst]])
    drawn = heat_map("Two", ["0", "1"], ["0", "1"], means, **CELLS, is_accuracy=is_accuracy, unit="it")
    assert drawn.axes[0].collections[0].colorbar.extend == end
