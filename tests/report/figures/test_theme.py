import io
import itertools
from base64 import b64decode

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from reg_sweep.report.figures import theme as pictures
from reg_sweep.report.figures.theme import THEMES, Picture

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "colour"])
def test_a_sprite_sheet_holds_every_image_at_its_place_and_is_black_elsewhere(channels):
    images = RNG.integers(0, 256, (5, 4, 3, *channels), np.uint8)
    address = pictures.sprite_sheet(images, 2)
    assert address.startswith("data:image/png;base64,")
    sheet = np.asarray(Image.open(io.BytesIO(b64decode(address.partition(",")[2]))))
    assert sheet.shape == (12, 6, *channels)
    for k, image in enumerate([*images, np.zeros_like(images[0])]):
        y, x = divmod(k, 2)
        assert np.array_equal(sheet[4 * y : 4 * y + 4, 3 * x : 3 * x + 3], image)


# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as people without one kind of cone see it.
_VISION = {
    "typical": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str | tuple[float, ...]) -> np.ndarray:
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
    seen = [lab(np.array(_VISION[vision]) @ linear(THEMES[theme][f"arm{i}"])) for i in range(pictures.N_COLOURS)]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("theme", THEMES)
def test_lines_stand_out_from_the_paper_and_text_can_be_read(theme):
    colours = THEMES[theme]
    assert colours.keys() == THEMES["light"].keys()
    assert all(contrast(colours[f"arm{i}"], colours["paper"]) >= 3 for i in range(pictures.N_COLOURS))
    assert all(contrast(colours[name], colours["paper"]) >= 4.5 for name in ("ink", "muted"))


def test_arms_can_be_told_apart_in_grey_by_marker_and_by_dash_or_lightness():
    assert len(set(pictures.MARKERS)) == len({str(dash) for dash in pictures.DASHES[1:]}) + 1 == pictures.N_COLOURS
    lightness = [lab(linear(THEMES["light"][f"arm{i}"]))[0] for i in range(pictures.N_COLOURS)]
    for a, b in itertools.combinations(range(pictures.N_COLOURS), 2):
        assert pictures.DASHES[a] != pictures.DASHES[b] or abs(lightness[a] - lightness[b]) > 20


def test_heat_falls_steadily_in_lightness_so_that_grey_keeps_its_order():
    steps = [lab(linear(tuple(pictures.HEAT(x)[:3])))[0] for x in np.linspace(0, 1, 50)]
    assert np.all(np.diff(steps) > 0)


def test_drawing_leaves_matplotlib_as_it_was_and_is_silent_where_a_sweep_logs_at_info(caplog):
    before = dict(matplotlib.rcParams)
    figure, ax = pictures.new_figure()
    ax.plot([1, 2])
    with caplog.at_level("INFO"):
        pictures.rendered(Picture("it", "x", lambda: figure, "p"))
    assert dict(matplotlib.rcParams) == before
    assert not caplog.records


@given(
    st.lists(st.text(st.characters(exclude_characters="· \n", categories=["L", "N", "P"]), min_size=1), min_size=1),
    st.integers(4, 30),
    st.integers(1, 4),
)
def test_a_folded_label_fits_and_loses_nothing_without_saying_so(parts, width, n_lines):
    lines = pictures.folded(" · ".join(parts), width, n_lines).split("\n")
    assert len(lines) <= n_lines
    assert max(map(len, lines)) <= width
    if not lines[-1].endswith(" …"):
        assert "".join(lines).replace(" · ", "") == "".join(parts)


def test_a_label_is_folded_between_its_parts():
    assert pictures.folded("gbn · L1 0.001 · L2 0.0005 · epochs 4", 18) == "gbn · L1 0.001\nL2 0.0005\nepochs 4"


def test_a_style_that_comes_often_is_told_once_for_all_pictures():
    often, once = "fill:none;stroke:var(--grid)", "fill:none;stroke:var(--ink)"
    svg = f'<svg class="figure" style="max-width:9px"><path style="{often}"/><path style="{often}"/>'
    svgs, sheet = pictures.shared_styles({"a": svg, "b": f'{svg}<path style="{once}"/>'})
    assert sheet == f".figure .s0{{{often}}}"
    assert svgs["a"] == '<svg class="figure" style="max-width:9px">' + 2 * '<path class="s0"/>'
    assert svgs["b"] == svgs["a"] + f'<path style="{once}"/>'
