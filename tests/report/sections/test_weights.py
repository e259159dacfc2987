import re

import numpy as np
import pytest
from pages import report
from safetensors.numpy import save_file
from trees import write_run

from reg_sweep.config.schema import NEAR_ZERO


@pytest.mark.slow
def test_dead_kernels_are_counted_by_layer(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    kernels = np.ones((4, 2, 3, 3), np.float32)
    kernels[0, 0] = 0.0005
    kernels[1, 1] = 0.0005
    kernels[1, 1, 0, 0] = 0.002  # one weight is enough to live
    save_file({"conv.weight": kernels, "norm.weight": np.zeros(4, np.float32)}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "1 / 8" in page.text
    assert "Dead kernels of bn: 1" in page.source


@pytest.mark.slow
def test_a_convolution_of_one_by_one_has_no_kernels(tmp_path):
    """As in the records' counts."""
    run = write_run(tmp_path / "runs" / "a")
    weights = {"conv.weight": np.ones((4, 2, 3, 3)), "classify.weight": np.zeros((10, 4, 1, 1))}
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "0 / 8" in page.text
    assert "classify" not in page.text
    assert "no kernel died" in page.text


def test_the_share_near_zero_is_the_records(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    save_file({"conv.weight": np.ones((4, 2, 3, 3), np.float32)}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    alts = re.findall(r'aria-label="((?:Histograms|Weights sorted)[^"]*)"', page.source)
    assert len(alts) == 2
    assert all("bn: 20.0% near zero" in alt for alt in alts)


def test_the_page_tells_what_counts_as_near_zero(tmp_path):
    write_run(tmp_path / "runs" / "a")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert f"|w| < {NEAR_ZERO:g};" in page.text
