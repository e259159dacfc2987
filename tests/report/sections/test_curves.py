import re

import pytest
from pages import BN, L1, report
from trees import write_arms


@pytest.mark.slow
def test_curves_of_val_are_shown_where_val_chose(tmp_path):
    for name, n_val in (("with", 20), ("without", 0)):
        write_arms(tmp_path / name, {BN: [0.8, 0.9], L1: [0.8, 0.85]}, data={"n_val": n_val})
        page, _ = report(tmp_path / name, out=tmp_path / f"{name}-report")
        titles = re.findall(r'aria-label="((?:Test|Val|Train) \w+ by epoch)', page.source)
        splits = ["Test", "Val", "Train"] if n_val else ["Test", "Train"]
        assert titles == [f"{split} {kind} by epoch" for kind in ("accuracy", "loss") for split in splits]


def test_a_curves_alt_text_tells_where_each_arm_ends(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9], L1: [0.8, 0.84]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Test accuracy by epoch. At the last epoch bn: 85.00, bn · L1 0.001: 82.00." in page.source
    assert "Mean of 2 seeds an arm." in page.text
