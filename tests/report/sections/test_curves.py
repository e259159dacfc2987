import json
import math
import re
from itertools import accumulate

import numpy as np
import pytest
from pages import BN, L1, report
from trees import write_arms

from reg_sweep.report.sections.curves import _packed
from reg_sweep.runs.record import METRIC


@pytest.mark.slow
def test_curves_of_val_are_shown_where_val_chose(tmp_path):
    for name, n_val in (("with", 20), ("without", 0)):
        write_arms(tmp_path / name, {BN: [0.8, 0.9], L1: [0.8, 0.85]}, data={"n_val": n_val})
        page, _ = report(tmp_path / name, out=tmp_path / f"{name}-report")
        titles = re.findall(r'aria-label="((?:Test|Val|Train) \w+ by epoch)', page.source)
        splits = ["Test", "Val", "Train"] if n_val else ["Test", "Train"]
        assert titles == [f"{split} {kind} by epoch" for kind in ("accuracy", "loss") for split in splits]


def numbers(page) -> dict:
    return json.loads(re.search(r'id="d1-numbers">(.*?)</script>', page.source, re.S)[1])


def test_the_packed_numbers_are_the_curves_again(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9], L1: [0.8, 0.84]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert numbers(page)["base"] != numbers(page)["best"]  # the best of the others, which has a difference to draw
    values = numbers(page)["charts"][0]["values"]
    for entry, (mean, low, high) in zip(values, ((0.85, 0.8, 0.9), (0.82, 0.8, 0.84)), strict=True):
        scale, steps, below, above = entry
        ends = list(accumulate(steps))[-1]
        assert [v / scale for v in (ends, ends - below[-1], ends + above[-1])] == pytest.approx([mean, low, high])


def test_a_gap_stays_a_gap_and_a_loss_that_spans_more_than_whole_numbers_hold_is_left_unpacked():
    scale, steps = _packed([np.array([0.5, math.nan, 0.75])], METRIC["test_accuracy"])
    assert steps == [0.5 * scale, None, 0.25 * scale]
    assert _packed([np.array([1e30, math.nan, 0.02])], METRIC["test_loss"]) == [0, [1e30, None, 0.02]]
