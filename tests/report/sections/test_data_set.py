from pages import BN, L1
from trees import comparisons, write_arms, write_run

from reg_sweep.report.sections.data_set import data_section


def test_a_section_draws_and_writes_nothing(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9], L1: [0.85, 0.95]})
    (comparison,) = comparisons(tmp_path / "runs")
    section = data_section(1, [comparison], [], tmp_path / "report", [tmp_path], [])
    names = [picture.name for picture in section.pictures]
    assert {"curves-test-accuracy", "confusion-best", "confusion-baseline"} <= set(names)
    assert len(names) == len(set(names))
    assert not (tmp_path / "report").exists()


def test_a_section_without_a_complete_run_has_no_pictures(tmp_path):
    write_run(tmp_path / "runs" / "a", status="failed")
    (comparison,) = comparisons(tmp_path / "runs")
    section = data_section(1, [comparison], [], tmp_path / "report", [tmp_path], [])
    assert section.pictures == []
    assert (section.weights, section.mistakes, section.layers) == (None, None, None)


def test_the_network_is_told_as_text(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    (comparison,) = comparisons(tmp_path / "runs")
    layers = data_section(1, [comparison], [], tmp_path / "report", [tmp_path], []).layers
    assert layers.headings == ["name", "output", "parameters", "receptive field"]
    assert layers.rows == [["bn conv Conv2d", "2 × 3 × 3", "18", "3"]]
    assert "'Sees' is the receptive field" in layers.picture.caption


def test_of_a_network_whose_receptive_fields_are_unknown_nothing_is_said_of_them(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    for path in (tmp_path / "runs").glob("*/run.json"):
        path.write_text(path.read_text().replace('"receptive_field": 3', '"receptive_field": null'))
    (comparison,) = comparisons(tmp_path / "runs")
    layers = data_section(1, [comparison], [], tmp_path / "report", [tmp_path], []).layers
    assert layers.headings == ["name", "output", "parameters"]
    assert "Sees" not in layers.picture.caption
