from pathlib import Path

from pages import BN, L1
from trees import comparisons, write_arms, write_run

from reg_sweep.report.sections.data_set import DataSection, data_section


def section_of(root: Path) -> DataSection:
    """The section of the runs under `root`, for a page that is not written."""
    (comparison,) = comparisons(root / "runs")
    section = data_section(1, [comparison], [], root / "report", [root], [])
    assert not (root / "report").exists()
    return section


def test_a_section_draws_and_writes_nothing(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9], L1: [0.85, 0.95]})
    names = [picture.name for picture in section_of(tmp_path).pictures]
    assert {"curves-test-accuracy", "confusion-best", "confusion-baseline"} <= set(names)
    assert len(names) == len(set(names))


def test_a_section_without_a_complete_run_has_no_pictures(tmp_path):
    write_run(tmp_path / "runs" / "a", status="failed")
    section = section_of(tmp_path)
    assert (section.pictures, section.weights, section.mistakes, section.layers) == ([], None, None, None)


def test_the_network_is_told_as_text_without_receptive_fields_that_are_unknown(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    layers = section_of(tmp_path).layers
    assert layers.headings == ["name", "output", "parameters", "receptive field"]
    assert layers.rows == [["bn conv Conv2d", "2 × 3 × 3", "18", "3"]]
    assert "'Sees' gives the side of the receptive field" in layers.picture.caption
    for path in (tmp_path / "runs").glob("*/run.json"):
        path.write_text(path.read_text().replace('"receptive_field": 3', '"receptive_field": null'))
    layers = section_of(tmp_path).layers
    assert layers.headings == ["name", "output", "parameters"]
    assert "Sees" not in layers.picture.caption
