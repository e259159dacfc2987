"""A network's blocks, from what its record tells of its layers."""

import copy
import itertools

import pytest
from matplotlib.backends.backend_agg import RendererAgg

from reg_sweep.report.figures.networks import architecture, blocks, needs_page

LAYERS = [
    {"name": "0.conv Conv2d", "output": [16, 26, 26], "n_parameters": 144, "receptive_field": 3},
    {"name": "0.norm BatchNorm2d", "output": [16, 26, 26], "n_parameters": 32, "receptive_field": 3},
    {"name": "pool MaxPool2d", "output": [16, 13, 13], "n_parameters": 0, "receptive_field": 4},
    {"name": "head Linear", "output": [10], "n_parameters": 100, "receptive_field": None},
]


def test_layers_that_change_no_shape_belong_to_the_block_before():
    first, pool, head = blocks(LAYERS)
    assert first.kinds == ("Conv2d", "BatchNorm2d")
    assert first.n_parameters == 176
    assert (pool.output, pool.n_parameters) == ((16, 13, 13), 0)
    assert head.receptive_field is None


def test_every_block_tells_its_size_parameters_and_receptive_field():
    figure = architecture(blocks(LAYERS * 4))
    first, *others = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert first == "Conv\n+ BatchNorm\n16×26×26\n176 params\nsees 3 px"
    assert len(others) == 11
    assert "Linear\n10\n100 params" in others
    assert len(figure.axes) == 2  # rows


def test_a_block_has_the_same_room_however_few_there_are():
    one, three, eight = blocks(LAYERS[:1]), blocks(LAYERS), blocks(LAYERS * 3)[:8]
    widths = [architecture(parts).get_figwidth() for parts in (one, three, eight)]
    assert widths == pytest.approx([7 / 8, 3 * 7 / 8, 7])
    assert [needs_page(parts) for parts in (one, three, eight)] == [False, False, True]


@pytest.mark.parametrize("norm", ["BatchNorm2d", "GhostBatchNorm2d", "MyVeryLongNormalizationLayer"])
@pytest.mark.parametrize("n_parameters", [144, 11_689_512])
@pytest.mark.parametrize("width", [3.3, 6.3, 7.0])
def test_no_label_touches_another(norm, n_parameters, width):
    layers = copy.deepcopy(LAYERS * 3)
    layers[1]["name"], layers[0]["n_parameters"] = f"0.norm {norm}", n_parameters
    figure = architecture(blocks(layers), width)
    figure.set_dpi(100)
    renderer = RendererAgg(1, 1, 100)
    figure.get_layout_engine().execute(figure)
    boxes = [text.get_window_extent(renderer) for ax in figure.axes for text in ax.texts]
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    assert all(box.x0 >= 0 and box.x1 <= 100 * width and box.y0 >= 0 for box in boxes)
