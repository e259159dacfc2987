import re

import numpy as np
from pages import report
from safetensors.numpy import save_file
from trees import write_run


def test_the_share_near_zero_is_the_records(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    save_file({"conv.weight": np.ones((4, 2, 3, 3), np.float32)}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    alts = re.findall(r'aria-label="((?:Histograms|Weights sorted)[^"]*)"', page.source)
    assert len(alts) == 2
    assert all("bn: 20.0% near zero" in alt for alt in alts)
