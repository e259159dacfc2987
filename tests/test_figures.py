import itertools
import re
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from reg_sweep import figures
from reg_sweep.figures import THEMES, LambdaPoint, Line, Picture, TrialPoint
from reg_sweep.stats import mean_interval, one_standard_error

RNG = np.random.default_rng(0)
WEIGHTS = [("bn", 0, RNG.normal(size=500)), ("bn · L1 0.1", 1, RNG.normal(size=500) * (RNG.random(500) < 0.3))]


def lines(n: int = 8) -> list[Line]:
    mean = 0.9 + 0.01 * RNG.random((n, 20))
    return [Line(f"arm {i}", i, m, m - 0.01, m + 0.01) for i, m in enumerate(mean)]


def lambda_study(**options):
    strengths, scores = [0.0, 0.001, 0.01], [[0.98, 0.99], [0.985, 0.99], [0.97, 0.975]]
    points = [
        LambdaPoint(s, f"{s:g}", None, mean_interval(v), 0.98, 0.1, 0.0, 0.0)
        for s, v in zip(strengths, scores, strict=True)
    ]
    choice = one_standard_error(strengths, scores, lower_is_better=False)
    return figures.lambda_study("Varying L1", "L1", "val accuracy, %", points, choice, is_accuracy=True)


TRIALS = [
    TrialPoint(n, {"l1": 10.0 ** -(n % 6), "norm": "<b>" if n % 2 else "gbn"}, (0.1 + 0.1 * (n % 7),), n % 3 == 2)
    for n in range(12)
]
PAIRS = [TrialPoint(n, {}, (0.1 * n, 0.2 * (n % 4)), False) for n in range(8)]


def parameter(given: list, best: int | None = None):
    """The drawn axis of a parameter with these values."""
    points = [TrialPoint(n, {"p": v}, (0.1 * n + 0.1,), False) for n, v in enumerate(given)]
    return figures.study_parameter("It", "p", "val loss", points, best, is_accuracy=False).axes[0]


def every_figure() -> dict[str, object]:
    curve = np.linspace(0.5, 0.9, 20)
    heat = RNG.random((4, 4))
    return {
        "accuracy": figures.curves("Test accuracy", "accuracy, %", lines(), RNG.random((30, 20)), is_accuracy=True),
        "loss": figures.curves("Test loss", "loss", lines(2), is_accuracy=False),
        "one epoch": figures.curves("Short", "loss", [Line("a", 0, *np.full((3, 1), 0.4))], is_accuracy=False),
        "lambda": lambda_study(),
        "small": figures.train_and_test("Both", [("L1 0", 0, curve, curve)] * 5, is_accuracy=True, unit="accuracy, %"),
        "heat": figures.heat_map("Both", list("abcd"), list("efgh"), heat, is_accuracy=False, unit="val loss"),
        "history": figures.study_history("Trials", "val loss", TRIALS, [3, 7], minimize=True, is_accuracy=False),
        "number": figures.study_parameter("l1", "l1", "val loss", TRIALS, 0, is_accuracy=False),
        "choice": figures.study_parameter("norm", "norm", "val accuracy, %", TRIALS, None, is_accuracy=True),
        "front": figures.pareto_front("Front", ["val loss", "zero share, %"], PAIRS, [0, 1, 2, 3]),
        "penalties": figures.penalties(),
        "contours": figures.contours(),
        "histograms": figures.histograms(WEIGHTS),
        "magnitudes": figures.magnitudes(WEIGHTS, 1e-3),
        "kernels": figures.kernel_map("Dead", [("a", RNG.random((4, 1))), ("b", np.zeros((4, 4)))], 1e-3),
        "confusion": figures.confusion("Confusion", RNG.integers(0, 9, (10, 10)), list("0123456789")),
        "mistakes": figures.mistakes("Mistakes", RNG.integers(0, 255, (7, 28, 28)), ["4 → 9"] * 7),
    }


FIGURES = every_figure()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_title_and_labelled_axes(name):
    figure = FIGURES[name]
    assert figure.get_suptitle() or all(
        ax.get_title("left") for ax in figure.axes if ax.get_subplotspec() and ax is figure.axes[0]
    )
    if name not in ("mistakes",):
        labels = [figure.get_supxlabel(), figure.get_supylabel()]
        labels += [label for ax in figure.axes for label in (ax.get_xlabel(), ax.get_ylabel())]
        assert sum(map(bool, labels)) >= 2


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_becomes_well_formed_svg_that_asks_for_nothing(name, tmp_path):
    inline = figures.save(Picture("it", "Says <what> & why", FIGURES[name]), tmp_path, "p")
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
    ET.parse(tmp_path / "it.svg")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_sees_themed_colours_and_a_file_sees_plain_ones(tmp_path):
    inline = figures.save(Picture("it", "x", FIGURES["accuracy"]), tmp_path, "p")
    light = THEMES["light"]
    assert not any(value in inline for value in light.values())
    assert "var(--arm7)" in inline
    assert light["arm7"] in (tmp_path / "it.svg").read_text()


def test_each_arms_marks_carry_its_class(tmp_path):
    inline = figures.save(Picture("it", "x", FIGURES["accuracy"]), tmp_path, "p")
    for slot in range(8):
        assert len(re.findall(rf'class="arm arm-{slot}"', inline)) == 2  # line and band


def test_text_keeps_its_digits(tmp_path):
    assert ">0.001<" in figures.save(Picture("it", "x", FIGURES["lambda"]), tmp_path, "p")


def test_an_arms_name_is_text_whatever_it_holds(tmp_path):
    weights = [("<b>$x_1$ & co", 0, RNG.normal(size=50))]
    inline = figures.save(Picture("it", "x", figures.histograms(weights)), tmp_path, "p")
    assert "<b>$x_1$ & co" in "".join(ET.fromstring(inline).itertext())


@pytest.mark.parametrize("minimize", [True, False])
def test_a_studys_best_so_far_never_gets_worse_and_ends_at_the_best(minimize):
    figure = figures.study_history("It", "val loss", TRIALS, [12], minimize=minimize, is_accuracy=False)
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == "best so far")
    values = line.get_ydata()
    complete = [p.values[0] for p in TRIALS if not p.is_pruned]
    steps = np.diff(values)
    assert (steps <= 0).all() if minimize else (steps >= 0).all()
    assert values[-1] == (min if minimize else max)(complete)
    assert line.get_xdata()[-1] == 12  # the failed trial counts


def test_complete_trials_are_full_marks_and_pruned_ones_hollow():
    marks = {line.get_label(): line for line in FIGURES["history"].axes[0].lines}
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


def test_labels_of_spread_weights_stand_beside_the_curves_and_switch_with_them(tmp_path):
    figure = figures.histograms(WEIGHTS)
    inline = figures.save(Picture("it", "x", figure), tmp_path, "p")
    assert inline.count('class="arm arm-1"') == 3  # area, outline, label
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


def test_a_long_label_is_folded_between_its_parts():
    label = "gbn · L1 0.001 · L2 0.0005 · epochs 4"
    folded = figures._folded(label)
    assert " · ".join(folded.split("\n")) == label
    assert max(map(len, folded.split("\n"))) <= 18


def test_the_textbook_picture_is_true():
    """The optima that it shows lie where no small step lowers loss + penalty."""
    hessian, minimum = np.array([[1.0, 0.25], [0.25, 1.6]]), np.array([1.6, 0.45])
    steps = [0.01 * np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, 2 * np.pi, 24)]
    for w, penalty in (
        (figures._lasso(hessian, minimum, 1.0), lambda v: np.abs(v).sum()),
        (figures._ridge(hessian, minimum, 0.75), lambda v: 0.75 * (v @ v) / 2),
    ):

        def objective(v, penalty=penalty):
            return 0.5 * (v - minimum) @ hessian @ (v - minimum) + penalty(v)

        assert all(objective(w + step) > objective(w) for step in steps)
    assert figures._lasso(hessian, minimum, 1.0)[1] == 0.0


def test_a_sprite_sheet_holds_every_image_at_its_place():
    images = RNG.integers(0, 256, (5, 4, 3), np.uint8)
    address = figures.sprite_sheet(images, 2)
    assert address.startswith("data:image/png;base64,")
    import io
    from base64 import b64decode

    from PIL import Image

    sheet = np.asarray(Image.open(io.BytesIO(b64decode(address.partition(",")[2]))))
    assert sheet.shape == (12, 6)
    for k, image in enumerate(images):
        y, x = divmod(k, 2)
        assert np.array_equal(sheet[4 * y : 4 * y + 4, 3 * x : 3 * x + 3], image)
    assert zlib.crc32(sheet[8:, 3:].tobytes()) == zlib.crc32(bytes(12))  # the place without an image is black


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as people without one kind of cone see it.
_VISION = {
    "typical": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    x, y, z = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("vision", _VISION)
def test_arms_differ_in_colour_to_every_eye(theme, vision):
    seen = [lab(np.array(_VISION[vision]) @ linear(THEMES[theme][f"arm{i}"])) for i in range(figures.N_COLOURS)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("theme", THEMES)
def test_lines_stand_out_from_the_paper_and_text_can_be_read(theme):
    colours = THEMES[theme]
    assert all(contrast(colours[f"arm{i}"], colours["paper"]) >= 3 for i in range(figures.N_COLOURS))
    assert all(contrast(colours[name], colours["paper"]) >= 4.5 for name in ("ink", "muted"))


def test_arms_differ_in_line_style_too():
    assert len({str(dash) for dash in figures.DASHES[1:]}) == figures.N_COLOURS - 1
    assert len(set(figures.MARKERS)) == figures.N_COLOURS


def test_themes_name_the_same_colours():
    assert THEMES["light"].keys() == THEMES["dark"].keys()


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.save(Picture("it", "x", lambda_study()), tmp_path, "p")
    assert dict(matplotlib.rcParams) == before
