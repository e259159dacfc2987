"""A network's blocks, from what its record tells of its layers."""

from reg_sweep.report.figures.architecture import architecture, blocks

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
    assert first == "Conv\n+ BatchNorm\n16 × 26 × 26\n176 params\nsees 3 px"
    assert len(others) == 11
    assert "Linear\n10\n100 params" in others
    assert len(figure.axes) == 2  # rows
