"""The section of the trained weights, and of networks whose channels L1 zeroes."""

import re

import numpy as np
from pages import report
from safetensors.numpy import save_file
from trees import comparisons, edit_record, write_run

from reg_sweep.config.schema import PenaltyConfig
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.sections.weights import weights_section

CHANNELS = PenaltyConfig(l1_update="proximal", l1_on="channels")


def test_the_share_near_zero_is_the_records(tmp_path):
    run = write_run(tmp_path / "runs" / "a", l1=0.001)
    save_file({"conv.weight": np.ones((4, 2, 3, 3), np.float32)}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    alts = re.findall(r'aria-label="((?:Histograms|Weights sorted)[^"]*)"', page.source)
    assert len(alts) == 2
    assert "Smaller networks" not in page.source  # L1 of single weights zeroes no channels
    assert all("bn · L1 0.001: 20.0% near zero" in alt for alt in alts)


def sparse_run(folder, l1, seed, n_zero, **settings):
    run = write_run(folder, l1=l1, seed=seed, penalty=CHANNELS, accuracy=0.9 + 0.001 * seed, **settings)
    weights = np.ones((4, 2, 3, 3), np.float32)
    weights[:n_zero] = 0
    save_file({"conv.weight": weights}, run / "weights.safetensors")
    edit_record(run, weights={"multiply_adds": 1000 - 200 * n_zero})


def test_the_page_shows_size_against_score_and_the_channels_that_are_left(tmp_path):
    for seed in (1, 2):
        for l1, n_zero in ((0.0, 0), (0.001, 1), (0.01, 3)):
            sparse_run(tmp_path / "it's runs" / f"{l1}-{seed}", l1, seed, n_zero)
    page, _ = report(tmp_path / "it's runs", out=tmp_path / "report")
    assert "multiply-adds of bn: 100%; bn · L1 0.001: 80%; bn · L1 0.01: 40%" in page.source
    assert "Zero channels of conv: 0, 1, 3" in page.source
    assert re.search(r"<td>1 of 4</td><td>400 \(40%\)</td>", page.source)
    assert re.search(r"python -m reg_sweep.compact .*it.*s runs/0.01-1", page.source)


def test_the_axis_of_scores_beside_sizes_names_its_unit(tmp_path):
    for l1, n_zero in ((0.0, 0), (0.001, 1)):
        sparse_run(tmp_path / str(l1), l1, 1, n_zero)
    (comparison,) = comparisons(tmp_path)
    section = weights_section(comparison, Canvas(1, comparison), [])
    assert section.size.pictures[0].draw().axes[0].get_ylabel() == "Test accuracy, %"
